"""Uploads through a datastore: what the SDK does, and what is safer."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from tests.azureml.conftest import write
from vds.azureml.core import Workspace
from vds.azureml.data.azure_storage_datastore import AzureBlobDatastore
from vds.azureml.exceptions import ConflictException, UserErrorException
from vds.errors import ConflictError, UploadError, VdsError
from vds.store import Version


def paths(version: Version) -> list[str]:
    return [entry.path for entry in version.entries()]


def test_an_upload_is_a_version(here: Path, datastore: AzureBlobDatastore, capsys: pytest.CaptureFixture[str]) -> None:
    write(here / "src", {"a.txt": "a", "sub/b.txt": "b"})
    made = datastore.upload("src", "raw")
    assert capsys.readouterr().out.splitlines()[0] == "Uploading an estimated of 2 files"
    assert made.version is not None
    assert paths(made.version) == ["raw/a.txt", "raw/sub/b.txt"]
    assert (made.uri, made.uploaded, made.skipped, made.changed_but_skipped) == ("vds://workspaceblobstore@1/raw", 2, 0, [])
    assert (made.path_on_datastore, made.mode, made.datastore) == ("raw", "mount", datastore)
    assert str(made) == f"$AZUREML_DATAREFERENCE_{made.name}"


def test_files_that_are_there_stay_and_those_that_differ_are_named(
    here: Path, datastore: AzureBlobDatastore, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here / "src", {"a.txt": "a", "b.txt": "b"})
    datastore.upload("src", "raw")
    write(here / "src", {"a.txt": "changed", "c.txt": "c"})
    capsys.readouterr()
    made = datastore.upload("src", "raw")
    said = capsys.readouterr()
    assert "Target already exists. Skipping upload for raw/a.txt" in said.out
    assert said.out.splitlines()[-1] == "Uploaded 1 files"
    assert "raw/a.txt; pass overwrite=True" in said.err
    assert made.changed_but_skipped == ["raw/a.txt"]
    assert (made.uploaded, made.skipped) == (1, 2)
    assert datastore.namespace.latest().read_text("raw/a.txt") == "a"


def test_strict_raises_before_anything_is_visible(here: Path, datastore: AzureBlobDatastore) -> None:
    write(here / "src", {"a.txt": "a"})
    datastore.upload("src", "raw", strict=True)
    write(here / "src", {"a.txt": "changed", "b.txt": "b"})
    with pytest.raises(ConflictException, match=r"raw/a\.txt") as caught:
        datastore.upload("src", "raw", strict=True)
    assert isinstance(caught.value, ConflictError)
    assert caught.value.paths == ("raw/a.txt",)
    assert paths(datastore.namespace.latest()) == ["raw/a.txt"]
    assert datastore.upload("src", "raw", overwrite=True, strict=True).uploaded == 2
    assert datastore.upload("src", "raw", strict=True).uploaded == 0


def test_strict_looks_again_when_others_commit(
    here: Path, datastore: AzureBlobDatastore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here / "src", {"a.txt": "a"})
    write(here / "other", {"z.txt": "z"})
    namespace = type(datastore.namespace)
    upload, raced = namespace.upload, [False]

    def racing(self: object, *args: object, **more: object) -> object:
        if "expected_parent" in more and not raced[0]:
            raced[0] = True
            upload(self, "other")  # type: ignore[arg-type]
        return upload(self, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(namespace, "upload", racing)
    assert datastore.upload("src", strict=True).uploaded == 1
    assert paths(datastore.namespace.latest()) == ["a.txt", "z.txt"]


def test_overwriting_says_whose_files_they_were_and_keeps_them(
    here: Path, datastore: AzureBlobDatastore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here / "one", {"data.txt": "from job 1", "only1.txt": "1"})
    write(here / "two", {"data.txt": "from job 2"})
    monkeypatch.setenv("AZUREML_RUN_ID", "job-1")
    datastore.upload("one", "pre", overwrite=True)
    capsys.readouterr()
    made = datastore.upload("two", "pre", overwrite=True)
    said = capsys.readouterr()
    assert "replaced 1 file that version 1 of 'workspaceblobstore' had written (run job-1, by" in said.err
    assert "vds://workspaceblobstore@1/pre still shows what was there" in said.err
    assert said.out == (
        "Uploading an estimated of 1 files\nUploading two/data.txt\n"
        "Uploaded two/data.txt, 1 files out of an estimated total of 1\nUploaded 1 files\n"
    )
    assert made.version is not None
    assert made.version.read_text("pre/data.txt") == "from job 2"
    assert datastore.namespace.get(1).read_text("pre/data.txt") == "from job 1"
    assert paths(made.version) == ["pre/data.txt", "pre/only1.txt"]


def test_who_wrote_what_is_replaced(
    here: Path, ws: Workspace, datastore: AzureBlobDatastore, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here / "src", {"a": "1"})
    with ws.store.run("first job") as first:
        datastore.upload("src", "out", show_progress=False)
    for text in ("2", "3"):
        write(here / "src", {"a": text})
        datastore.upload("src", "out", overwrite=True, show_progress=False)
    by_run, by_process = capsys.readouterr().err.splitlines()
    assert f"(run {first.id}, by" in by_run
    assert "workspaceblobstore@1/out still shows" in by_run
    assert f"(process {os.getpid()} on " in by_process
    assert "workspaceblobstore@2/out still shows" in by_process


def test_nothing_is_said_on_stderr_when_there_is_nothing_to_say(
    here: Path, datastore: AzureBlobDatastore, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here / "src", {"a.txt": "a"})
    datastore.upload("src", overwrite=True)
    datastore.upload("src", overwrite=True)
    datastore.upload("src")
    assert capsys.readouterr().err == ""


def test_quiet_uploads_print_nothing(here: Path, datastore: AzureBlobDatastore, capsys: pytest.CaptureFixture[str]) -> None:
    write(here / "src", {"a.txt": "a"})
    datastore.upload("src", show_progress=False)
    datastore.upload_files(["src/a.txt"], show_progress=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("target", ["../x/y", "/x/y", "./x/y/", "x//y", "x/z/../y", "x\\y", "../../x/y"])
def test_targets_are_normal_paths(here: Path, datastore: AzureBlobDatastore, target: str) -> None:
    write(here / "src", {"a.txt": "a"})
    made = datastore.upload(here / "src", target)
    assert made.path_on_datastore == "x/y"
    assert datastore.namespace.latest().exists("x/y/a.txt")


def test_a_target_never_climbs_out(here: Path, datastore: AzureBlobDatastore) -> None:
    write(here / "src", {"a.txt": "a"})
    with pytest.raises(UserErrorException, match="climbs out"):
        datastore.upload("src", "x/../../y")


@pytest.mark.parametrize("target", [None, "", ".", "./", "/"])
def test_the_root(here: Path, datastore: AzureBlobDatastore, target: str | None) -> None:
    write(here / "src", {"a.txt": "a"})
    made = datastore.upload("src", target)
    assert made.path_on_datastore == ""
    assert made.data_reference_name == "workspaceblobstore"


def test_a_broken_symlink_stops_the_call_before_anything(here: Path, datastore: AzureBlobDatastore) -> None:
    write(here / "src", {"a.txt": "a"})
    (here / "src" / "broken").symlink_to("nowhere")
    with pytest.raises(UserErrorException, match=r"'src/broken' does not point to a file\. Please upload") as caught:
        datastore.upload("src")
    assert "nowhere" in caught.value.hint
    assert not datastore.workspace.store.namespaces()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_raises(here: Path, datastore: AzureBlobDatastore) -> None:
    write(here / "src", {"a.txt": "a", "b.txt": "b"})
    (here / "src" / "a.txt").chmod(0)
    with pytest.raises(UploadError, match=r"a\.txt"):
        datastore.upload("src")


def test_names_that_are_no_text_raise_and_leave_nothing(here: Path, datastore: AzureBlobDatastore) -> None:
    write(here / "src", {"a.txt": "a"})
    with open(os.fsencode(here / "src") + b"/\xff.txt", "w") as file:
        file.write("x")
    with pytest.raises(UploadError, match=r"\\xff"):
        datastore.upload("src")
    assert not datastore.workspace.store.namespaces()


@pytest.mark.parametrize("src_dir", ["missing", "a.txt", "/"])
def test_a_source_is_a_directory(here: Path, datastore: AzureBlobDatastore, src_dir: str) -> None:
    write(here, {"a.txt": "a"})
    with pytest.raises(UserErrorException, match="src_path must be a directory"):
        datastore.upload(src_dir)


def test_wrong_arguments_say_what_to_call(here: Path, datastore: AzureBlobDatastore) -> None:
    with pytest.raises(TypeError, match=r"upload_files\(files=\[…\]"):
        datastore.upload(src_paths=["a.txt"], target_path="x")
    with pytest.raises(TypeError, match="'nonsense'"):
        datastore.upload("src", nonsense=1)
    with pytest.raises(TypeError, match="'src_dir'"):
        datastore.upload()
    with pytest.raises(UserErrorException, match="must be a list"):
        datastore.upload_files("a.txt")


def test_symlinked_directories_and_empty_sources_are_told(here: Path, datastore: AzureBlobDatastore) -> None:
    write(here / "src", {"a.txt": "a"})
    write(here / "elsewhere", {"b.txt": "b"})
    (here / "src" / "link").symlink_to("../elsewhere")
    with pytest.warns(UserWarning, match="link"):
        datastore.upload("src")
    (here / "empty").mkdir()
    with pytest.warns(UserWarning, match="no files"):
        made = datastore.upload("empty", "e")
    assert made.uploaded == 0
    assert paths(datastore.namespace.latest()) == ["a.txt"]


def test_own_directory_is_no_content(here: Path, datastore: AzureBlobDatastore, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, {"a.txt": "a", ".vds/x": "x", "sub/.vds/y": "y"})
    datastore.upload(".")
    assert capsys.readouterr().out.splitlines()[-1] == "Uploaded 2 files"
    assert paths(datastore.namespace.latest()) == ["a.txt", "sub/.vds/y"]


@pytest.mark.parametrize(
    ("files", "root", "expected"),
    [
        (["src/a.txt", "src/sub/b.txt"], None, ["a.txt", "sub/b.txt"]),
        (["src/a.txt"], None, ["a.txt"]),
        (["src/a.txt", "outside/z.txt"], None, ["outside/z.txt", "src/a.txt"]),
        (["src/sub/b.txt"], "src", ["sub/b.txt"]),
        (["src/sub/b.txt", "src/sub/b.txt"], "src", ["sub/b.txt"]),
        (["top.txt"], None, ["top.txt"]),
        (["top.txt", "src/a.txt"], "/", ["src/a.txt", "top.txt"]),
        ([Path("src/a.txt"), Path("src/sub/b.txt")], Path("src"), ["a.txt", "sub/b.txt"]),
    ],
)
def test_files_and_their_root(
    here: Path, datastore: AzureBlobDatastore, files: list[str | Path], root: str | Path | None, expected: list[str]
) -> None:
    write(here, {"src/a.txt": "a", "src/sub/b.txt": "b", "outside/z.txt": "z", "top.txt": "t"})
    made = datastore.upload_files(files, root, "t")
    assert made.version is not None
    assert paths(made.version.at("t")) == expected


def test_absolute_files_keep_what_their_directories_share_not(here: Path, datastore: AzureBlobDatastore) -> None:
    write(here, {"src/a.txt": "a", "src/sub/b.txt": "b"})
    made = datastore.upload_files([str(here / "src/a.txt"), str(here / "src/sub/b.txt")])
    assert made.version is not None
    assert paths(made.version) == ["a.txt", "sub/b.txt"]


@pytest.mark.parametrize(
    ("files", "root", "match"),
    [
        (["src/sub/b.txt"], "zzz", "relative_root: 'zzz' is not part of the file_path: 'src/sub/b.txt'"),
        (["src/sub/b.txt"], "sub", "is not part of"),
        (["src/sub"], None, "'src/sub' does not point to a file"),
        (["src/none"], None, "does not point to a file"),
    ],
)
def test_files_that_cannot_go(here: Path, datastore: AzureBlobDatastore, files: list[str], root: str | None, match: str) -> None:
    write(here, {"src/a.txt": "a", "src/sub/b.txt": "b"})
    with pytest.raises(UserErrorException, match=match):
        datastore.upload_files(files, root)
    assert not datastore.workspace.store.namespaces()


def test_what_an_upload_returns_travels_without_secrets(here: Path, ws: Workspace) -> None:
    write(here / "src", {"a.txt": "a"})
    datastore = ws.get_default_datastore()
    datastore.account_key = "c2VjcmV0" * 8
    made = datastore.upload("src", "x")
    raw = pickle.dumps(made)
    assert b"c2VjcmV0" not in raw
    again = pickle.loads(raw)
    assert again.uri == made.uri
    assert Path(os.fspath(again)).joinpath("a.txt").read_text() == "a"
    assert "c2VjcmV0" not in repr(datastore)


def test_user_errors_are_errors_of_vds() -> None:
    error = UserErrorException("wrong", hint="this")
    assert isinstance(error, VdsError)
    assert (error.message, error.hint, error.kind) == ("wrong", "this", "invalid-input")
    assert str(pickle.loads(pickle.dumps(error))) == "wrong"
