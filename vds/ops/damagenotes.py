"""What was found of stored bytes, on its way into the index: damaged objects, those that are whole again, checks of pieces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vds.blobs.driver import Blob
from vds.index.damage import DamageRow, drop_checks, drop_damage, find_damaged, keep_etag, put_damage
from vds.index.database import Connection
from vds.index.inspect import BlobRow
from vds.index.placements import put_checks
from vds.model.checks import Checks
from vds.ops.findings import Inspection

FLUSH_ROWS = 2000


@dataclass(frozen=True, slots=True)
class BlobVerdict:
    """What reading one blob has shown.

    Attributes:
        blob: as the service listed it.
        is_gone: it left use while it was read: nothing is known of it.
        whole: the objects in it that are what they must be.
        damaged: digest → what is wrong, of those that are not.
        fault: what is wrong with a list, or with what a blob says of itself.
        missing_checks: of objects of which none were kept.
        wrong_checks: the right ones of objects of which others were kept.
    """

    row: BlobRow
    blob: Blob
    size_bytes: int = 0
    is_gone: bool = False
    whole: tuple[bytes, ...] = ()
    damaged: Mapping[bytes, str] = field(default_factory=dict)
    fault: str = ""
    missing_checks: Mapping[bytes, Checks] = field(default_factory=dict)
    wrong_checks: Mapping[bytes, Checks] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether all of it is as it must be."""
        return not (self.is_gone or self.damaged or self.fault)


class DamageNotes:
    """Tells the findings at once, and the index now and then; used by one thread."""

    def __init__(self, run: Inspection) -> None:
        self._run = run
        self._damaged: list[DamageRow] = []
        self._whole: list[tuple[bytes, int]] = []
        self._missing_checks: dict[bytes, Checks] = {}
        self._wrong_checks: dict[bytes, Checks] = {}
        self._etags: list[tuple[int, str, str]] = []

    def add_damaged(self, digest: bytes, blob_id: int, key: str, detail: str) -> None:
        """Note an object that is damaged where it is placed."""
        self._run.findings.add("object-damaged", key, detail, digest=digest)
        self._damaged.append(DamageRow(digest, blob_id, detail))
        self._flush_full()

    def add_whole(self, digest: bytes, blob_id: int) -> None:
        """Note an object that was read and is what it must be."""
        self._whole.append((digest, blob_id))
        self._flush_full()

    def take(self, verdict: BlobVerdict) -> None:
        """Take in what reading a blob has shown."""
        row, findings = verdict.row, self._run.findings
        is_list = row.key.startswith(("changes/", "checkpoints/"))
        for digest, detail in verdict.damaged.items():
            self.add_damaged(digest, row.id, row.key, detail)
        if verdict.fault:
            findings.add("list-damaged" if is_list else "blob-mislabelled", row.key, verdict.fault)
        for digest in verdict.whole:
            self.add_whole(digest, row.id)
        for digest in verdict.wrong_checks:
            findings.add("checks-differ", row.key, digest=digest)
            if self._run.writes:
                findings.mend("checks-differ", digest=digest, how="computed again from bytes that were held against the digest")
        self._missing_checks.update(verdict.missing_checks)
        self._wrong_checks.update(verdict.wrong_checks)
        if verdict.is_whole and (verdict.whole or is_list) and row.etag not in (None, verdict.blob.etag):
            self._etags.append((row.id, row.etag or "", verdict.blob.etag))
            if self._run.writes:
                findings.mend("blob-replaced", row.key, how="it was read and is whole: its new etag was noted")
        self._run.examined.objects += len(verdict.whole) + len(verdict.damaged)
        self._run.examined.size_bytes += verdict.size_bytes

    def _flush_full(self) -> None:
        if len(self._damaged) + len(self._whole) >= FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was noted to the index, unless nothing may be written."""
        if self._run.writes and (self._damaged or self._whole or self._missing_checks or self._wrong_checks or self._etags):
            self._run.doors.index.run(self._write)
        self._damaged, self._whole, self._etags = [], [], []
        self._missing_checks, self._wrong_checks = {}, {}

    def _write(self, connection: Connection) -> None:
        store_id = self._run.doors.store.id
        if self._damaged:
            put_damage(connection, store_id, self._damaged)
        known = find_damaged(connection, store_id, [digest for digest, _ in self._whole])
        if healed := [(digest, blob_id) for digest, blob_id in self._whole if digest in known]:
            drop_damage(connection, store_id, healed)
        drop_checks(connection, store_id, list(self._wrong_checks))
        for digest, checks in sorted((self._missing_checks | self._wrong_checks).items()):
            put_checks(connection, store_id, digest, checks)
        for blob_id, old, new in self._etags:
            keep_etag(connection, blob_id, old, new)
