"""What the code of a step is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vds.azureml.exceptions import UserErrorException
from vds.azureml.local.code import Code, copy_code, take_code


def take(root: Path, *, ignores_comments: bool = False) -> Code:
    target = root.parent / f"taken-{len(list(root.parent.iterdir()))}"
    target.mkdir()
    return take_code(root, target, ignores_comments=ignores_comments)


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "src"
    made.mkdir()
    return made


def test_all_files_but_those_that_are_never_code(root: Path) -> None:
    write(root, trainDOTpy="1", sub__aDOTpy="2", sub__outputs__x="3", outputs__model="4", logs__log="5", DOTgit__HEAD="6")
    (root / "sub" / "__pycache__").mkdir()
    (root / "sub" / "__pycache__" / "a.pyc").touch()
    (root / "empty").mkdir()
    assert sorted(take(root).digests) == ["sub/a.py", "sub/outputs/x", "train.py"]


def test_the_ignore_files(root: Path) -> None:
    write(root, aDOTpy="1", aDOTcsv="2", keepDOTcsv="3", data__b="4", DOTgitignore="*.csv\n!keep.csv\n/data/\n")
    code = take(root)
    assert (sorted(code.digests), code.ignored_by) == ([".gitignore", "a.py", "keep.csv"], ".gitignore")
    write(root, DOTamlignore="# nothing\n")
    code = take(root)
    assert code.ignored_by == ".amlignore"
    assert {"a.csv", "data/b"} <= set(code.digests)


def test_an_ignore_file_below_the_root_is_not_read(root: Path) -> None:
    write(root, sub__DOTgitignore="*\n", sub__aDOTpy="")
    assert "sub/a.py" in take(root).digests


def test_digests_are_of_content_alone(root: Path) -> None:
    write(root, aDOTpy="x = 1\n")
    first = take(root)
    os.utime(root / "a.py", (1, 1))
    assert take(root).digest == first.digest
    write(root, aDOTpy="x = 2\n")
    assert take(root).digest != first.digest


def test_comments_and_layout(root: Path) -> None:
    write(root, aDOTpy="x = (1,\n     2)\n", bDOTtxt="# one\n")
    first = take(root, ignores_comments=True)
    write(root, aDOTpy="# comment\nx = (1, 2)  # more\n")
    assert take(root, ignores_comments=True).digests == first.digests
    write(root, bDOTtxt="# two\n")
    assert take(root, ignores_comments=True).digests["b.txt"] != first.digests["b.txt"]
    write(root, aDOTpy="x = '# comment'\n")
    assert take(root, ignores_comments=True).digests["a.py"] != first.digests["a.py"]


@pytest.mark.parametrize("text", ["x = = 1\n", "\0", "é = =", "x = " + "(" * 5000])
def test_python_that_does_not_parse_is_taken_as_it_is(root: Path, text: str) -> None:
    write(root, aDOTpy=text)
    assert take(root, ignores_comments=True).digests["a.py"].startswith("ast:")


def test_a_copy_can_be_run_and_is_its_own(root: Path, tmp_path: Path) -> None:
    write(root, runDOTsh="#!/bin/sh\n", sub__aDOTpy="1")
    (root / "run.sh").chmod(0o755)
    code = take(root)
    write(root, sub__aDOTpy="edited since")
    target = tmp_path / "copy"
    target.mkdir()
    copy_code(code, target)
    assert os.access(target / "run.sh", os.X_OK)
    assert (target / "sub" / "a.py").read_text() == "1"


def test_links(root: Path, tmp_path: Path) -> None:
    write(tmp_path, aside="aside")
    (root / "file.py").symlink_to(tmp_path / "aside")
    (root / "loop").symlink_to(root)
    assert list(take(root).digests) == ["file.py"]


def test_what_cannot_be_taken(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserErrorException, match=r"source_directory '.*nowhere' is not a directory"):
        take(tmp_path / "nowhere")
    (root / "gone.py").symlink_to(tmp_path / "nothing")
    with pytest.raises(UserErrorException, match=r"cannot copy 'gone\.py' of '.*src', which is code of a step"):
        take(root)
