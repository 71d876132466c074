"""Read a version from the container alone: without an index, and with no right but to read.

    ref → claim or dataset events → the store's log (expired? erased?) → number            vds/engine/recorded.py, logfacts.py
        → the newest checkpoint, or version that changed all its files, and the lists after it
        → its files, in a temporary database on this machine                               vds/files/replay.py
        → where their bytes lie: keys of objects, footers of packs                         vds/engine/foundplaces.py
        → a local manifest, as the cache keeps one: from there on all is as ever

The records from the first that is needed on are one chain, or it is an error; a list has the digest that its record names; and
what they add up to has as many files and bytes as the version's record says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO

from vds.blobs.driver import BlobDriver
from vds.blobs.records import Found, Gap, open_changes, read_journal
from vds.engine.foundplaces import find_places
from vds.engine.logfacts import LogFacts, lost, read_log_facts
from vds.engine.recorded import Asked, VersionLine, find_asked, list_checkpoints
from vds.errors import CorruptionError
from vds.files.localmanifest import write_manifest
from vds.files.replay import Replay
from vds.index.erasure import ErasedRow
from vds.index.expiry import expired_error
from vds.index.versions import VersionRow
from vds.model.checkpoint import CheckpointKey, holds_everything
from vds.model.fields import HINT
from vds.model.moment import micros_of
from vds.model.ref import Ref
from vds.model.version import NO_PARENT, ChangeListRef, VersionRecord, journal_key
from vds.pipeline import parallel_map
from vds.progress import Progress

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecordedVersion:
    """A version that was read from the container.

    Attributes:
        path: where in it the ref points.
        erased: those of its objects that were destroyed on purpose, by raw digest.
    """

    name: str
    row: VersionRow
    path: str
    erased: Mapping[bytes, ErasedRow]


def read_version(
    driver: BlobDriver,
    store_uid: str,
    ref: Ref,
    path: str,
    file: BinaryIO,
    *,
    describe: Callable[[str, VersionRow], Mapping[str, Any]],
    progress: Progress,
) -> RecordedVersion:
    """Find the version that a ref means and write its local manifest.

    Args:
        driver: of the container; is asked to list and to read.
        store_uid: the store's id.
        ref: as it was typed.
        path: below the version, or below what the ref names of it.
        file: where the manifest goes.
        describe: makes the facts of the manifest, from the namespace's name and what is known of the version.
        progress: is told the stages.

    Raises:
        NotFoundError: there is no such version, or it has expired.
        CorruptionError: a record or list is missing or cannot be believed; the message names its key.
        NoSpaceError: the temporary directory is full.
        UnavailableError: the container does not answer.
    """
    progress.stage("reading the history")
    asked = find_asked(driver, store_uid, ref, path)
    with Replay() as replay:
        log = read_log_facts(driver, store_uid, asked.namespace, avoid=replay.avoid)
        line = VersionLine(driver, store_uid, asked, log.created_at)
        number = line.find_number()
        expired_at = log.find_expired_at(number)
        if expired_at is not None:
            raise expired_error(asked.name, number, micros_of(expired_at))
        row = _History(driver, store_uid, asked, line, replay).build(number) if number else _empty(log)
        if asked.digest not in (None, row.digest):
            raise CorruptionError(f"version {number} of {asked.name!r} is not the one that {ref.name!r} released", hint=HINT)
        erased = {digest: log.erased[digest] for digest in replay.want_all(but=log.erased)}
        progress.stage("looking for its bytes")
        missing = find_places(driver, replay, row.created_at)
        if missing:
            _log.warning("%d contents of version %d of %r are nowhere in the container", missing, number, asked.name)
        write_manifest(file, replay.rows(), replay.find_keys, lambda digests: {}, describe(asked.name, row))
    return RecordedVersion(asked.name, row, asked.path, erased)


class _History:
    """The lists that make up one version."""

    def __init__(self, driver: BlobDriver, store_uid: str, asked: Asked, line: VersionLine, replay: Replay) -> None:
        self._driver = driver
        self._store_uid = store_uid
        self._asked = asked
        self._line = line
        self._replay = replay

    def build(self, number: int) -> VersionRow:
        """Put the files of a version together, and return what its record says of it."""
        found = self._apply_lists(*self._begin(number), number)
        record = found.record
        count, size_bytes = self._replay.measure()
        if (count, size_bytes) != (record.file_count, record.size_bytes):
            raise CorruptionError(
                f"the lists up to {found.key!r} add up to {count} files of {size_bytes} bytes,"
                f" expected {record.file_count} of {record.size_bytes}",
                hint=HINT,
            )
        return VersionRow.of(record, found.digest)

    def _begin(self, number: int) -> tuple[int, int]:
        """Apply a checkpoint, if it is best; return the first version whose record counts, and the first whose list is due."""
        for checkpoint in list_checkpoints(self._driver, self._asked.namespace):
            if checkpoint.number > number:
                continue
            complete = self._find_complete(checkpoint.number, number)
            if complete is not None:
                return complete, complete
            try:
                self._apply_checkpoint(checkpoint)
                return checkpoint.number, checkpoint.number + 1
            except CorruptionError as err:
                # Slower, but as good: the lists say the same, unless they were collected.
                _log.warning("checkpoint %s is left out: %s", checkpoint, err)
                self._replay.clear()
        complete = self._find_complete(0, number) or 1
        return complete, complete

    def _find_complete(self, after: int, number: int) -> int | None:
        """Return the newest version, from `number` back to but without `after`, whose own list names all of its files."""

        def read(number: int) -> VersionRecord | CorruptionError:
            try:
                return self._line.get(number)
            except CorruptionError as err:
                return err  # it may be one that is not needed

        with closing(parallel_map(read, range(number, after, -1))) as records:
            for record in records:
                if isinstance(record, CorruptionError):
                    raise record
                if holds_everything(record.added, record.modified, record.file_count):
                    return record.number
        return None

    def _apply_checkpoint(self, checkpoint: CheckpointKey) -> None:
        record = self._line.get(checkpoint.number)
        changes = ChangeListRef(checkpoint.digest, record.file_count, key=str(checkpoint))
        self._replay.apply(open_changes(self._driver, changes))
        found = self._replay.measure()
        if found != (record.file_count, record.size_bytes):
            raise CorruptionError(f"it holds {found[0]} files of {found[1]} bytes, the version has {record.size_bytes} bytes")

    def _apply_lists(self, first: int, start: int, number: int) -> Found[VersionRecord]:
        """Read the records from `first` on, apply the lists of those from `start` on, and return the last record."""
        namespace = self._asked.namespace
        last_key = journal_key(namespace, number)
        with closing(read_journal(self._driver, self._store_uid, namespace, start=first, parent=None)) as items:
            for item in items:
                if item.key > last_key:
                    break
                if isinstance(item, Gap):
                    raise lost(item)
                if item.record.number >= start:
                    self._apply_list(item)
                if item.key == last_key:
                    return item
        raise lost(Gap(last_key, "missing", "there is no such record"))

    def _apply_list(self, found: Found[VersionRecord]) -> None:
        try:
            self._replay.apply(open_changes(self._driver, found.record.changes))
        except CorruptionError as err:
            raise CorruptionError(f"the change list of {found.key!r} cannot be applied: {err.message}", hint=HINT) from err


def _empty(log: LogFacts) -> VersionRow:
    """Return version 0, which no record tells of."""
    created_us = micros_of(log.created_at) if log.created_at is not None else 0
    return VersionRow(0, 0, NO_PARENT, NO_PARENT, "", created_us, "create", "", "", {}, {}, 0, 0, 0, 0, 0, None)
