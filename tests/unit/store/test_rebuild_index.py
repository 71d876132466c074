"""`vds.rebuild_index`: which index is made, and what becomes of those who have the old one open."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

import vds
from tests.support import write_tree
from vds.blobs.open import open_driver
from vds.errors import ConflictError, FormatError, InvalidInputError, NotFoundError
from vds.ops.open import find_format


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A directory store of two versions and a release."""
    with vds.connect(tmp_path / "store", create=True) as store:
        source = write_tree(tmp_path / "source", {"a.txt": b"a", "b.txt": b"b"})
        store.namespace("team/raw").upload(source, show_progress=False)
        store.namespace("team/raw").upload(write_tree(source, {"a.txt": b"another"}), show_progress=False)
        store.dataset("customers").register("team/raw@1", tags=["prod"])
        return store.url


def served_by(url: str) -> str:
    with vds.connect(url) as store:
        assert store.namespace("team/raw").latest().read_bytes("a.txt") == b"another"
        return store.index


def embedded(url: str) -> Path:
    return Path(url.removeprefix("file://")) / ".vds-index" / "index.sqlite"


def test_without_a_word_it_is_where_the_store_says(url: str) -> None:
    assert vds.rebuild_index(url, show_progress=False).index == "embedded"
    assert served_by(url) == "embedded"


def test_it_is_where_the_settings_say(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = f"sqlite:///{tmp_path / 'elsewhere.sqlite'}"
    monkeypatch.setenv("VDS_INDEX", elsewhere)
    assert vds.rebuild_index(url, show_progress=False).index == elsewhere
    assert served_by(url) == elsewhere
    monkeypatch.setenv("VDS_INDEX", "embedded")
    assert vds.rebuild_index(url, show_progress=False).index == "embedded"
    assert served_by(url) == "embedded"


def test_a_file_that_only_the_container_names_is_not_made(url: str, tmp_path: Path) -> None:
    lost = tmp_path / "lost.sqlite"
    vds.rebuild_index(url, index=f"sqlite:///{lost}", show_progress=False)
    lost.unlink()
    with pytest.raises(FormatError, match="not on this machine") as caught:
        vds.rebuild_index(url, show_progress=False)
    assert "--index" in str(caught.value.hint)
    assert not lost.exists()
    assert vds.rebuild_index(url, index=f"sqlite:///{lost}", show_progress=False).ok
    assert served_by(url) == f"sqlite:///{lost}"


def test_the_machine_of_an_embedded_one_is_recorded(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = open_driver(url)
    monkeypatch.setattr("socket.gethostname", lambda: "this-machine")
    vds.rebuild_index(url, show_progress=False)
    record = find_format(blobs, read_only=True)
    assert record is not None
    assert (record.index, record.host) == ("embedded", "this-machine")
    vds.rebuild_index(url, index=f"sqlite:///{tmp_path / 'i.sqlite'}", show_progress=False)
    record = find_format(blobs, read_only=True)
    assert record is not None
    assert record.host == ""


def test_what_is_no_store_has_no_index(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="not a vds store"):
        vds.rebuild_index(tmp_path, show_progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", ["cut", "overwritten", "without a table", "a page"])
def test_a_damaged_file_is_moved_aside_whole(url: str, how: str) -> None:
    path = embedded(url)
    if how == "without a table":
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TABLE entry")
        connection.close()
    else:
        body = path.read_bytes()
        damaged = {
            "cut": body[:9000],
            "overwritten": b"no longer SQLite" * 100,
            "a page": body[:8192] + b"\x55" * 8192 + body[16384:],
        }
        path.write_bytes(damaged[how])
    kept = path.read_bytes()
    report = vds.rebuild_index(url, show_progress=False)
    aside = path.with_name("index.sqlite.damaged-1")
    assert report.moved_aside == str(aside)
    assert aside.read_bytes() == kept
    assert served_by(url) == "embedded"
    path.write_bytes(b"and again" * 1000)
    assert vds.rebuild_index(url, show_progress=False).moved_aside == str(path.with_name("index.sqlite.damaged-2"))


def test_a_file_that_is_not_there_or_empty_is_made(url: str) -> None:
    embedded(url).unlink()
    assert vds.rebuild_index(url, show_progress=False).moved_aside is None
    embedded(url).write_bytes(b"")
    assert vds.rebuild_index(url, show_progress=False).moved_aside is None
    assert served_by(url) == "embedded"


def test_another_programs_file_is_left_as_it_is(url: str, tmp_path: Path) -> None:
    other = write_tree(tmp_path, {"letter.odt": b"dear sir or madam " * 100}) / "letter.odt"
    before = other.read_bytes()
    with pytest.raises(InvalidInputError, match="no index, or a damaged one"):
        vds.rebuild_index(url, index=f"sqlite:///{other}", show_progress=False)
    assert other.read_bytes() == before
    assert served_by(url) == "embedded"


def test_other_stores_in_the_same_database_are_left_alone(url: str, tmp_path: Path) -> None:
    shared = f"sqlite:///{tmp_path / 'shared.sqlite'}"
    with vds.connect(tmp_path / "other", index=shared, create=True) as other, other.namespace("n").transaction() as tx:
        tx.write_text("x", "theirs")
    vds.rebuild_index(url, index=shared, show_progress=False)
    vds.rebuild_index(url, index=shared, show_progress=False)
    assert served_by(url) == shared
    with vds.connect(tmp_path / "other") as other:
        assert other.namespace("n").latest().read_bytes("x") == b"theirs"
    with sqlite3.connect(tmp_path / "shared.sqlite") as connection:
        assert connection.execute("SELECT COUNT(*) FROM store").fetchone() == (2,)
    connection.close()


CALLS: dict[str, Callable[[vds.Store], object]] = {
    "namespaces": lambda store: store.namespaces(),
    "datasets": lambda store: store.datasets(),
    "transactions": lambda store: store.transactions(),
    "outcome": lambda store: store.outcome("01m80apw5ggcykep6j97vs8ttm"),
    "get": lambda store: store.get("team/raw@1"),
    "latest": lambda store: store.namespace("team/raw").latest(),
    "log": lambda store: store.namespace("team/raw").log(),
    "tags": lambda store: store.dataset("customers").tags(),
    "release": lambda store: store.get("customers:prod"),
    "register": lambda store: store.dataset("customers").register("team/raw@2"),
    "write": lambda store: store.namespace("team/raw").rollback(1),
    "write elsewhere": lambda store: store.namespace("new").transaction(),
    "expire": lambda store: store.expire("team/raw", keep_last=1, dry_run=False),
    "gc": lambda store: store.gc(dry_run=False, show_progress=False),
}


def test_who_has_the_old_one_open_gets_no_answer_from_what_is_left_of_it(url: str) -> None:
    """It would be that there is nothing in the store."""
    old = vds.connect(url)
    read = vds.connect(url, read_only=True)
    pinned = old.get("team/raw@2")
    entries = iter(old.get("team/raw@2").entries())
    assert next(entries).path == "a.txt"
    tx = old.namespace("team/raw").transaction()
    tx.write_text("late", "late")
    assert vds.rebuild_index(url, show_progress=False).ok
    for name, call in CALLS.items():
        for store in (old, read) if name not in ("register", "write", "write elsewhere", "expire", "gc") else (old,):
            with pytest.raises(FormatError, match="older than its store") as caught:
                call(store)
            assert caught.value.hint == "connect to the store again", name
    with pytest.raises(FormatError, match="older than its store"):
        list(entries)
    with pytest.raises(FormatError, match="older than its store"):
        list(pinned.entries())
    with pytest.raises((FormatError, ConflictError)):
        tx.commit()
    with pytest.raises(NotFoundError):
        tx.abort()
    assert len(vds.connect(url).namespace("team/raw").log()) == 2
    for store in (old, read):
        store.close()  # and using it again connects it again
        assert len(store.namespace("team/raw").log()) == 2
        store.close()
