"""An index restored from an old copy: whatever is done with it next is refused, before anything is lost. A hundred of a hundred.

What the store did since the copy was made is drawn from a seed, which the test's name holds.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

import vds
from tests.support import write_tree
from vds.errors import FormatError, NotFoundError
from vds.store import Store

SEEDS = range(100)
NAME = "team/raw"


@dataclass
class Restored:
    """A store in memory whose index is a file, to be copied and put back."""

    root: Path
    url: str
    index: Path

    @classmethod
    def make(cls, root: Path) -> Restored:
        return cls(root, f"memory://restored-{uuid.uuid4().hex}", root / "index.sqlite")

    def open(self) -> Store:
        return vds.connect(self.url, index=f"sqlite:///{self.index}", create=not self.index.exists())

    def copy(self) -> None:
        with closing(sqlite3.connect(self.index)) as source, closing(sqlite3.connect(self.root / "copy.sqlite")) as target:
            source.backup(target)

    def restore(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self.index.with_name(self.index.name + suffix).unlink(missing_ok=True)
        shutil.copy(self.root / "copy.sqlite", self.index)

    def tree(self, name: str, files: dict[str, bytes]) -> Path:
        return write_tree(self.root / name, files)


def files_of(chance: random.Random, version: int) -> dict[str, bytes]:
    return {f"f{n}": f"{version}-{n}-{chance.random()}".encode() for n in range(chance.randint(1, 4))}


def collect(store: Store) -> None:
    store.expire(NAME, keep_last=1, dry_run=False)
    store.gc(False, grace_hours=0, max_share=1, show_progress=False)


def since(store: Store, restored: Restored, chance: random.Random, *, only_collects: bool) -> None:
    """What happened after the copy was made."""
    if not only_collects:
        for version in range(chance.randint(1, 3)):
            tree = restored.tree(f"since-{version}", files_of(chance, 100 + version))
            store.namespace(NAME).upload(tree, mirror=chance.random() < 0.5, show_progress=False)
        if chance.random() < 0.3:
            store.dataset("customers").tag("prod", f"{NAME}@latest")
    if only_collects or chance.random() < 0.5:
        collect(store)


Action = Callable[[Store, Restored, dict[str, bytes], dict[str, bytes]], object]


def run_gc(store: Store, restored: Restored, first: dict[str, bytes], last: dict[str, bytes]) -> object:
    return store.gc(False, grace_hours=0, max_share=1, show_progress=False)


def upload_what_it_has(store: Store, restored: Restored, first: dict[str, bytes], last: dict[str, bytes]) -> object:
    return store.namespace(NAME).upload(restored.tree("again", first), "again", show_progress=False)


def upload_what_is_unchanged(store: Store, restored: Restored, first: dict[str, bytes], last: dict[str, bytes]) -> object:
    return store.namespace(NAME).upload(restored.tree("same", last), show_progress=False)


def commit(store: Store, restored: Restored, first: dict[str, bytes], last: dict[str, bytes]) -> object:
    with store.namespace(NAME).transaction() as tx:
        tx.write_bytes("new", b"new")
    return tx.version


ACTIONS: list[Action] = [run_gc, upload_what_it_has, upload_what_is_unchanged, commit]


@pytest.mark.parametrize("only_collects", [False, True], ids=["anything", "expire-and-gc"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_restored_index_is_refused(seed: int, only_collects: bool, tmp_path: Path) -> None:
    chance = random.Random(seed)
    restored = Restored.make(tmp_path)
    with restored.open() as store:
        versions = [files_of(chance, version) for version in range(chance.randint(2, 3))]
        for number, files in enumerate(versions):
            store.namespace(NAME).upload(restored.tree(str(number), files), mirror=True, show_progress=False)
    restored.copy()
    with restored.open() as store:
        since(store, restored, chance, only_collects=only_collects)
        held = {str(entry.path): store.get(NAME).read_bytes(entry.path) for entry in store.get(NAME).entries()}
    restored.restore()
    for action in ACTIONS:
        with pytest.raises(FormatError, match=r"older than its store|was replaced") as caught, restored.open() as store:
            action(store, restored, versions[0], versions[-1])
        assert caught.value.hint == "vds index rebuild"
    with vds.connect(restored.url, index=f"sqlite:///{restored.index}", read_only=True) as store:
        assert store.namespace(NAME).log()  # reading goes on, of what the copy knows
    assert held


def test_a_store_that_the_copy_does_not_know_at_all(tmp_path: Path) -> None:
    restored = Restored.make(tmp_path)
    store = restored.open()
    restored.copy()
    tree = restored.tree("first", {"a": b"a"})
    store.namespace(NAME).upload(tree, show_progress=False)
    version = store.get(NAME)
    store._handle.doors.index.close()
    restored.restore()
    with pytest.raises((FormatError, NotFoundError)):
        store.namespace(NAME).upload(restored.tree("next", {"b": b"b"}), show_progress=False)
    with pytest.raises((FormatError, NotFoundError)):
        list(version.entries())
    store.close()


@pytest.mark.parametrize("action", ACTIONS)
def test_a_store_that_was_open_all_the_time_refuses_too(action: Action, tmp_path: Path) -> None:
    """The database is put back under a process that knows the store: it looks before it writes."""
    chance = random.Random(1)
    restored = Restored.make(tmp_path)
    store = restored.open()
    versions = [files_of(chance, version) for version in range(3)]
    for number, files in enumerate(versions):
        store.namespace(NAME).upload(restored.tree(str(number), files), mirror=True, show_progress=False)
    restored.copy()
    with restored.open() as other:
        collect(other)
    store._handle.doors.index.close()  # as when the server restarts: its connections are gone, the store object is not
    restored.restore()
    if action is upload_what_is_unchanged:
        # Nothing is written, so nothing is looked at: it says that version 3 holds the files, and it does.
        result = action(store, restored, versions[0], versions[-1])
        assert result.version.verify().ok  # type: ignore[attr-defined]
    else:
        with pytest.raises(FormatError, match="older than its store"):
            action(store, restored, versions[0], versions[-1])
    store.close()
