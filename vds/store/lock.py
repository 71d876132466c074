"""`vds.lock` in use: the versions that a project reads, whatever its refs mean by now."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, KeysView, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from vds.engine.resolve import resolve
from vds.errors import InvalidInputError, NotFoundError
from vds.files.rewrite import rewrite
from vds.model.digest import Digest
from vds.model.lockfile import LockedRow, format_lock
from vds.model.path import EntryPath
from vds.model.ref import Ref, parse_ref, parse_ref_path
from vds.ops.lock import LockDifference, choose_lock_path, find_difference, find_lock_path, get_locked, read_lock
from vds.store.connect import connect
from vds.store.kept import get_kept_digest
from vds.store.store import Store
from vds.store.version import Version


@dataclass(frozen=True, slots=True)
class LockChange:
    """What locking did to one ref; `before` is None for a new one."""

    before: LockedRow | None
    after: LockedRow


class Lock:
    """A vds.lock that was read: a mapping from refs, as they were asked for, to what they were locked to. Immutable."""

    def __init__(self, path: Path, rows: dict[Ref, LockedRow]) -> None:
        self.path = path
        self._by_ref = rows
        self._rows = MappingProxyType({row.ref: row for row in sorted(rows.values(), key=lambda row: row.ref)})

    def __repr__(self) -> str:
        return f"<Lock {str(self.path)!r} of {len(self)}>"

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __contains__(self, ref: object) -> bool:
        return ref in self._rows or (isinstance(ref, str) and parse_ref(ref) in self._by_ref)

    def __getitem__(self, ref: str) -> LockedRow:
        """Return what a ref is locked to.

        Raises:
            NotFoundError: it is not locked. It is a LookupError, as for any mapping.
            InvalidInputError: it does not parse.
        """
        return self._row(parse_ref(ref), ref)

    def keys(self) -> KeysView[str]:
        """Return the refs, sorted."""
        return self._rows.keys()

    def get(self, ref: str, store: Store | None = None) -> Version:
        """Return the version that a ref (with or without a path, or a uri) is locked to; what it means now does not matter.

        Args:
            ref: as it was locked, or any other way to write it.
            store: the store to read from; None opens the one that the lock names, for reading.

        Raises:
            NotFoundError: the ref is not locked, or the store does not have the version.
            CorruptionError: the store has another version under its number.
            InvalidInputError: `store` is not the one that the ref was locked in.
            EntryNotFoundError: there is nothing at the ref's path.
            UnavailableError: the store does not answer, and this machine has not kept the version.
        """
        parsed, path = parse_ref_path(ref)
        row = self._row(parsed, ref)
        opened = connect(row.url, read_only=True) if store is None else store
        try:
            if opened._handle.is_offline:
                version = get_kept_digest(opened._handle, row.namespace, row.version, row.digest, row.path)
            else:
                _check_store(row, opened)
                version = Version(opened._handle, get_locked(opened._handle.doors, row), row.path)
            return version.at(path) if path else version
        except BaseException:
            if store is None:
                opened.close()
            raise

    def check(self, store: Store | None = None, refs: Sequence[str] | None = None) -> list[LockDifference]:
        """Return the refs that mean something else by now, and the locked versions that are missing or differ; by ref.

        Args:
            store: asked about what was locked in it; every other store is opened where the lock says it is.
            refs: only these; None for all.

        Raises:
            NotFoundError: one of `refs` is not locked, or a store is not there.
            InvalidInputError: another store is where the lock says.
            UnavailableError: a store does not answer.
        """
        rows = self._by_ref if refs is None else {parse_ref(ref): self[ref] for ref in refs}
        with _stores(store) as find:
            found = [find_difference(find(row)._handle.doors, ref, row) for ref, row in rows.items()]
        return sorted((difference for difference in found if difference is not None), key=lambda difference: difference.ref)

    def _row(self, parsed: Ref, ref: str) -> LockedRow:
        if parsed not in self._by_ref:
            raise NotFoundError(f"{ref!r} is not locked in {self.path}", hint=f"vds lock {ref}")
        return self._by_ref[parsed]


def load_lock(path: str | os.PathLike[str] | None = None) -> Lock:
    """Read a vds.lock: the one given, else the nearest in this directory or one above it, up to the repository's root.

    Raises:
        NotFoundError: there is none.
        FormatError: a newer vds wrote it.
        InvalidInputError: it was damaged; the line or key is named.
    """
    found = find_lock_path(None if path is None else Path(path), Path.cwd())
    _, rows = read_lock(found)
    assert found is not None
    return Lock(found, rows)


def lock_refs(
    refs: Sequence[str] | None, store: Store | None = None, path: str | os.PathLike[str] | None = None
) -> tuple[Path, list[LockChange]]:
    """Lock what refs mean now, beside what else is locked in the file, and return the file and what was done to each.

    Either all of them are locked or, after any error, the file is as it was. It is not written when nothing changes.

    Args:
        refs: to lock; None for every ref in the file, each in its own store.
        store: where they are looked up. For None, in the store that each was locked in.
        path: the file; None for the nearest vds.lock, else one beside the nearest vds.toml, else here.

    Raises:
        NotFoundError: a ref means nothing; or all are to be locked anew, and there is no file.
        InvalidInputError: a ref does not parse or has a path; the file was damaged.
        ConflictError: someone else changed the file meanwhile.
    """
    place = choose_lock_path(None if path is None else Path(path), Path.cwd())
    before: str | None = None
    rows: dict[Ref, LockedRow] = {}
    if refs is None or place.exists():
        before, rows = read_lock(place)
    changes: dict[Ref, LockChange] = {}
    with _stores(store) as find:
        for ref, text in _wanted(refs, rows).items():
            old = rows.get(ref)
            # A ref that someone names is looked up where they point to; with `refs` None each stays in its own store.
            source = store if store is not None and refs is not None else find(old) if old is not None else None
            if source is None:
                raise InvalidInputError(f"{text!r} is to be locked for the first time: in which store?", hint="pass store")
            changes[ref] = LockChange(old, _lock(source, ref, text, old))
    rows = {**rows, **{ref: change.after for ref, change in changes.items()}}
    rewrite(place, before, format_lock(rows.values()))
    return place, sorted(changes.values(), key=lambda change: change.after.ref)


@contextmanager
def _stores(given: Store | None) -> Iterator[Callable[[LockedRow], Store]]:
    """Give a function that returns the store of a row: the given one, or one that is opened once and closed at the end."""
    opened: dict[str, Store] = {}

    def find(row: LockedRow) -> Store:
        if given is not None and given.id == row.store:
            return given
        if row.url not in opened:
            opened[row.url] = connect(row.url, read_only=True)
        _check_store(row, opened[row.url])
        return opened[row.url]

    try:
        yield find
    finally:
        for store in opened.values():
            store.close()


def _check_store(row: LockedRow, store: Store) -> None:
    if store.id != row.store:
        raise InvalidInputError(
            f"{row.ref!r} was locked in store {row.store} at {row.url}, not in {store.id} at {store.url}",
            hint=f"read it from there, or lock it in this store: vds lock {row.ref} --store {store.url}",
        )


def _wanted(refs: Sequence[str] | None, rows: dict[Ref, LockedRow]) -> dict[Ref, str]:
    if refs is None:
        return {ref: row.ref for ref, row in rows.items()}
    # A ref that is there already keeps its table, however it is written this time.
    parsed = {parse_ref(text): text for text in reversed(refs)}
    return {ref: rows[ref].ref if ref in rows else _short(text) for ref, text in parsed.items()}


def _short(ref: str) -> str:
    """Return a ref without the scheme and the end of a uri."""
    return ref.removeprefix("vds://").rstrip("/")


def _lock(store: Store, ref: Ref, text: str, old: LockedRow | None) -> LockedRow:
    found = resolve(store._handle.doors, ref)
    digest = Digest.from_raw(found.version.digest)
    if old is not None and (old.store, old.digest, old.path) == (store.id, digest, found.path):
        # The same history holds the same files: they need not be read again.
        content_digest, files, size_bytes = old.content_digest, old.files, old.bytes
    else:
        version = Version(store._handle, found, found.path)
        content_digest, files, size_bytes = version.content_digest, version.file_count, version.size_bytes
    return LockedRow(
        ref=text,
        store=store.id,
        url=store.url,
        name=ref.name,
        release=None if found.release is None else found.release.number,
        namespace=found.namespace.name,
        version=found.version.number,
        path=EntryPath(found.path),
        digest=digest,
        content_digest=content_digest,
        files=files,
        bytes=size_bytes,
    )
