"""How far a long check has come, kept on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support import NEEDS_FORK, exit_code, in_fork
from vds.errors import ConflictError
from vds.files.fsckprogress import FsckProgress, progress_directory

UID = "01aryz6s41000g40r40m30e209"


def test_what_was_saved_is_found_again(tmp_path: Path) -> None:
    with FsckProgress(tmp_path / "new", UID, "full") as kept:
        assert kept.load() is None
        kept.save({"after": "packs/1", "again": []})
        kept.save({"after": "packs/2", "again": ["packs/1"]})
        assert not list(tmp_path.rglob("*.partial"))
    with FsckProgress(tmp_path / "new", UID, "full") as kept:
        found = kept.load()
        assert found is not None
        assert (found["after"], found["again"]) == ("packs/2", ["packs/1"])
        kept.remove()
        kept.remove()
        assert kept.load() is None


def test_each_store_and_each_check_has_its_own(tmp_path: Path) -> None:
    with FsckProgress(tmp_path, UID, "full") as full, FsckProgress(tmp_path, UID, "shard-1-of-7") as shard:
        full.save({"after": "a"})
        assert shard.load() is None
    with FsckProgress(tmp_path, UID[::-1], "full") as other:
        assert other.load() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"vds_fsck": 2}', '{"after": "a"}', "[" * 100_000])
def test_a_file_that_cannot_be_read_counts_as_none(text: str, tmp_path: Path) -> None:
    with FsckProgress(tmp_path, UID, "full") as kept:
        kept.save({"after": "a"})
        (file,) = tmp_path.glob("*.json")
        file.write_text(text)
        assert kept.load() is None


def test_a_file_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    with FsckProgress(tmp_path, UID, "full") as kept:
        kept.save({"after": "a"})
        (file,) = tmp_path.glob("*.json")
        sound = file.read_bytes()
        with open(file, "r+b") as large:
            large.truncate(64 * 1024 * 1024 + 1)  # sparse: nothing of it is on the disk
        assert kept.load() is None
        file.write_bytes(sound)
        assert kept.load() is not None


@NEEDS_FORK
def test_one_process_at_a_time(tmp_path: Path) -> None:
    def work() -> None:
        with pytest.raises(ConflictError, match="another vds fsck") as caught:
            FsckProgress(tmp_path, UID, "full").__enter__()
        assert "--no-resume" in caught.value.hint
        with FsckProgress(tmp_path, UID, "shard-1-of-2"):
            pass

    with FsckProgress(tmp_path, UID, "full"):
        assert exit_code(in_fork(work)) == 0
    with FsckProgress(tmp_path, UID, "full"):
        pass


def test_a_place_that_cannot_be_written_costs_the_resumption_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    with FsckProgress(tmp_path / "file" / "fsck", UID, "full") as kept:
        kept.save({"after": "a"})
        assert kept.load() is None
        kept.remove()
    assert "cannot be kept" in caplog.text


def test_a_full_disk_costs_the_resumption_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FsckProgress(tmp_path, UID, "full") as kept:
        kept.save({"after": "a"})

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        kept.save({"after": "b"})
        monkeypatch.undo()
        kept.save({"after": "c"})  # not tried again
    (file,) = tmp_path.glob("*.json")
    assert json.loads(file.read_text())["after"] == "a"


def test_nothing_is_kept_without_a_directory() -> None:
    with FsckProgress(None, UID, "full") as kept:
        kept.save({"after": "a"})
        assert kept.load() is None
        kept.remove()


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert progress_directory() == tmp_path / "vds" / "fsck"
    for name in ("XDG_DATA_HOME", "HOME"):
        monkeypatch.delenv(name)

    def homeless() -> Path:
        raise RuntimeError("no home directory")

    monkeypatch.setattr(Path, "home", homeless)
    assert progress_directory() is None
