"""A store that is opened for reading changes nothing: not a byte of its container, and not a row or a byte of its index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import vds
from tests.rights import FILES, READS
from tests.unit.store.trees import write_tree
from vds.errors import AccessDeniedError

CHANGED = "now"  # on SQLite it takes the place of the one writer, and ending that tidies the file up


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory store with two versions, a release and an open transaction; whoever changes it has failed."""
    tmp_path = tmp_path_factory.mktemp("place")
    with vds.connect(tmp_path / "store", create=True) as store:
        raw = store.namespace("team/raw")
        first = raw.upload(write_tree(tmp_path / "tree", FILES), show_progress=False)
        raw.upload(write_tree(tmp_path / "tree", {**FILES, "a.txt": b"another"}), show_progress=False)
        store.dataset("customers").register(first.version, tags=["prod"])
        raw.transaction(message="left open")
    return tmp_path / "store"


def files_of(root: Path) -> Iterator[tuple[str, bytes, int]]:
    """Yield each file with its bytes and time, but for what readers of SQLite leave beside it and what is empty."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.name.endswith("-shm") and path.stat().st_size:
            yield str(path.relative_to(root)), path.read_bytes(), path.stat().st_mtime_ns


@pytest.mark.parametrize("verb", sorted({*READS} - {CHANGED}))
def test_reading_leaves_every_byte(place: Path, tmp_path: Path, verb: str) -> None:
    before = list(files_of(place))
    with vds.connect(place, read_only=True) as store:
        assert READS[verb](store, tmp_path) not in (False, None)
    assert list(files_of(place)) == before


def test_who_only_reads_may_not_write(place: Path, tmp_path: Path) -> None:
    before = list(files_of(place))
    with vds.connect(place, read_only=True) as store:
        for write in (
            lambda: store.namespace("team/raw").upload(write_tree(tmp_path / "t", FILES), show_progress=False),
            lambda: store.namespace("team/raw").rollback(1),
            lambda: store.namespace("team/raw").transaction(),
            lambda: store.dataset("customers").tag("prod", 1, reason="x"),
            lambda: store.expire("team/raw", keep_last=1, dry_run=False),
            lambda: store.gc(False, show_progress=False),
            lambda: store.undo_gc(),
        ):
            with pytest.raises(AccessDeniedError, match="read_only=True"):
                write()
    assert list(files_of(place)) == before
