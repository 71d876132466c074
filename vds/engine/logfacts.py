"""What the store's log says, read from the container alone: what expired, what was erased, which keys are gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from vds.blobs.driver import BlobDriver
from vds.blobs.records import Gap, read_store_log
from vds.errors import CorruptionError
from vds.index.erasure import ErasedRow
from vds.model.digest import Digest
from vds.model.fields import HINT
from vds.model.moment import micros_of
from vds.model.storelog import StoreRecord, unpack_numbers


@dataclass
class LogFacts:
    """What the store's log says of one namespace, and of objects.

    Attributes:
        created_at: when the namespace was made; None when the log does not know it.
        erased: by raw digest.
    """

    created_at: datetime | None = None
    erased: dict[bytes, ErasedRow] = field(default_factory=dict)
    _turns: list[tuple[datetime | None, list[tuple[int, int]]]] = field(default_factory=list)

    def find_expired_at(self, number: int) -> datetime | None:
        """Return when a version expired; None when it did not, or was restored."""
        found = None
        for expired_at, ranges in self._turns:
            if any(first <= number <= last for first, last in ranges):
                found = expired_at
        return found

    def take_in(self, record: StoreRecord, namespace: str) -> None:
        """Learn from the next record of the log."""
        fields = record.fields
        if record.kind == "object-erased":
            digest = Digest(fields["digest"]).raw
            row = ErasedRow(digest, micros_of(record.created_at), fields["author"], fields["reason"])
            self.erased.setdefault(digest, row)
        elif fields.get("namespace") != namespace:
            return
        elif record.kind == "namespace-created":
            self.created_at = record.created_at
        elif record.kind in ("versions-expired", "versions-restored"):
            expired_at = record.created_at if record.kind == "versions-expired" else None
            self._turns.append((expired_at, list(unpack_numbers(fields["numbers"]))))


def read_log_facts(driver: BlobDriver, store_uid: str, namespace: str, *, avoid: Callable[[list[str]], None]) -> LogFacts:
    """Read the store's log; `avoid` is told the keys that were deleted, or are being.

    Raises:
        CorruptionError: it has a gap, or is not one chain.
    """
    facts = LogFacts()
    for item in read_store_log(driver, store_uid):
        if isinstance(item, Gap):
            raise lost(item)
        if item.record.kind == "keys-deleting":
            avoid(item.record.fields["keys"])
        else:
            facts.take_in(item.record, namespace)
    return facts


def lost(gap: Gap) -> CorruptionError:
    """Return the error for a record that cannot be believed, or is not there."""
    return CorruptionError(f"{gap.key!r} is {_KINDS[gap.kind]}: {gap.detail}", hint=HINT)


_KINDS = {"missing": "missing", "damaged": "damaged", "chain": "not what the record after it follows"}
