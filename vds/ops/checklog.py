"""Hold the store's own log, the claims of names and the format records against the index.

Of the log the index knows how far it goes and the digest of its end; what the records say, it must have done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from vds.blobs.records import Found, Gap, list_claims, read_store_log
from vds.errors import CorruptionError, FormatError
from vds.index.inspect import IN_USE, find_blobs, list_erased, list_expired
from vds.index.queue import find_lowest, list_records
from vds.index.stores import NamespaceRow, StoreRow, find_store, list_namespaces
from vds.model.claim import NamespaceClaim
from vds.model.digest import Digest
from vds.model.format import FORMAT_PREFIX, FormatRecord
from vds.model.storelog import StoreRecord, pack_numbers, store_key, unpack_numbers
from vds.ops.checklines import number_of
from vds.ops.findings import Inspection

RANGES_SHOWN_MAX = 10


@dataclass
class Told:
    """What the records of the log add up to.

    Attributes:
        created: id → name of each namespace.
        expired: id → a bit for each version that is expired.
        erased: digests.
        incarnation: of the index that was last told to serve the store; empty when none was.
    """

    created: dict[str, str] = field(default_factory=dict)
    expired: dict[str, int] = field(default_factory=dict)
    erased: set[bytes] = field(default_factory=set)
    incarnation: str = ""


def check_store_log(run: Inspection) -> None:
    """Check the store's log: dense, chained, and as the index has it."""
    doors = run.doors
    with doors.index.read() as connection:
        lowest = find_lowest(connection, doors.store.id, "store", 0)
        store = find_store(connection, doors.store.uid)
    assert store is not None, "the store was opened"
    visible = store.log_seq if lowest is None else lowest - 1
    told, is_whole = Told(), True
    expected = 1
    with closing(read_store_log(doors.blobs, doors.store.uid)) as items:
        for item in items:
            number = number_of(item.key)
            if number is not None and number > visible:
                _check_unknown(run, item.key, number)
                break
            if isinstance(item, Gap):
                is_whole = False
                if item.kind != "missing":
                    run.findings.add("record-damaged" if number else "key-foreign", item.key, item.detail)
                    expected = (number or expected - 1) + 1
                continue
            _tell_missing(run, expected, item.record.number)
            expected = item.record.number + 1
            run.examined.records += 1
            is_whole = _is_end(run, store, item) and is_whole
            _take_in(run, told, item.record)
    _tell_missing(run, expected, visible + 1)
    if is_whole and expected == visible + 1:
        _check_told(run, store, told)


def _tell_missing(run: Inspection, first: int, end: int) -> None:
    for number in range(first, end):
        run.findings.add("record-missing", store_key(number), f"record {number} of the store's log")


def _check_unknown(run: Inspection, key: str, number: int) -> None:
    with run.doors.index.read() as connection:
        now = find_store(connection, run.doors.store.uid)
    if now is not None and number > now.log_seq:
        run.findings.add("record-unknown", key, "the index is older than its store: vds index rebuild")


def _is_end(run: Inspection, store: StoreRow, found: Found[StoreRecord]) -> bool:
    """Return whether a record, if it is the last, is the one the index knows: nobody follows it who would vouch for it."""
    if found.record.number != store.log_seq or found.digest == store.log_digest:
        return True
    detail = f"its digest is {found.digest.hex()}, the index says {store.log_digest.hex()}"
    run.findings.add("record-damaged", found.key, detail)
    return False


def _take_in(run: Inspection, told: Told, record: StoreRecord) -> None:
    fields = record.fields
    if record.kind == "namespace-created":
        told.created[fields["namespace"]] = fields["name"]
    elif record.kind in ("versions-expired", "versions-restored"):
        bits = told.expired.get(fields["namespace"], 0)
        for first, last in unpack_numbers(fields["numbers"]):
            span = ((1 << (last - first + 1)) - 1) << first
            bits = bits | span if record.kind == "versions-expired" else bits & ~span
        told.expired[fields["namespace"]] = bits
    elif record.kind == "object-erased":
        told.erased.add(Digest(fields["digest"]).raw)
    elif record.kind == "index-replaced":
        told.incarnation = fields["incarnation"]
    elif record.kind == "keys-deleting":
        _check_doomed(run, record)


def _check_doomed(run: Inspection, record: StoreRecord) -> None:
    """Check that no key which was to be deleted is in use: a rebuild counts it as gone."""
    with run.doors.index.read() as connection:
        rows = find_blobs(connection, run.doors.store.id, record.fields["keys"])
    for row in rows.values():
        if row.state in (*IN_USE, "pending"):
            run.findings.add("blob-doomed", row.key, f"record {record.number} names it, here it is {row.state}")


def _check_told(run: Inspection, store: StoreRow, told: Told) -> None:
    """Compare what the log adds up to with the index, unless the log has gone on meanwhile."""
    doors = run.doors
    differences: list[tuple[str, str]] = []
    with doors.index.read() as connection:
        queued = {record.number for record in list_records(connection, doors.store.id, "store")}
        namespaces = list(list_namespaces(connection, doors.store.id))
        for row in namespaces:
            expired = pack_numbers(list_expired(connection, doors.store.id, row.id))
            differences.extend(_compare_namespace(row, told, expired))
        erased = list_erased(connection, doors.store.id)
        now = find_store(connection, doors.store.uid)
    if queued or now is None or now.log_seq != store.log_seq:
        run.findings.add("check-skipped", "store/", "the store's log went on while it was read: what it says was not compared")
        return
    differences += [(f"b3:{digest.hex()}", "the log says that it was erased") for digest in told.erased - erased]
    differences += [(f"b3:{digest.hex()}", "it was erased, the log does not say so") for digest in erased - told.erased]
    known = {row.uid for row in namespaces}
    differences += [(name, "the log says that this namespace was made") for uid, name in told.created.items() if uid not in known]
    if told.incarnation not in ("", now.incarnation):
        differences.append(("store/", f"the log gives the store to the index {told.incarnation}, this is {now.incarnation}"))
    for key, detail in differences:
        run.findings.add("log-differs", key, detail)


def _compare_namespace(row: NamespaceRow, told: Told, expired: list[list[int]]) -> Iterator[tuple[str, str]]:
    name = told.created.get(row.uid)
    if name != row.name:
        yield row.name, f"the log calls namespace {row.uid} {name!r}" if name else "the log does not say that it was made"
    bits = 0
    for first, last in expired:
        bits |= ((1 << (last - first + 1)) - 1) << first
    differing = bits ^ told.expired.get(row.uid, 0)
    if differing:
        ranges = pack_numbers(number for number, bit in enumerate(reversed(f"{differing:b}")) if bit == "1")
        shown = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in ranges[:RANGES_SHOWN_MAX])
        yield row.name, f"the log and the index differ in whether these versions have expired: {shown}"


def check_claims(run: Inspection) -> None:
    """Check that each name is claimed for the id that the index has for it."""
    doors = run.doors
    by_uid = _namespaces(run)
    left = dict(by_uid)
    unknown: list[NamespaceClaim] = []
    with closing(list_claims(doors.blobs)) as claims:
        for claim in claims:
            if isinstance(claim, Gap):
                run.findings.add("claim-damaged", claim.key, claim.detail)
                continue
            run.examined.records += 1
            row = by_uid.get(claim.namespace)
            if row is None:
                unknown.append(claim)
                continue
            left.pop(claim.namespace, None)
            if row.name != claim.name:
                run.findings.add("claim-differs", claim.key, f"it is for {claim.name!r}, the index calls its id {row.name!r}")
    _check_unclaimed(run, unknown, left.values())


def _check_unclaimed(run: Inspection, unknown: list[NamespaceClaim], left: Iterable[NamespaceRow]) -> None:
    names = {row.name.casefold(): row for row in (_namespaces(run).values() if unknown else ())}
    claimed = set()
    for claim in unknown:
        row = names.get(claim.name.casefold())
        if row is None:
            run.findings.add("claim-unused", claim.key, f"{claim.name!r}: a write that failed")
        elif row.uid != claim.namespace:
            claimed.add(row.uid)
            run.findings.add("claim-differs", claim.key, f"it gives {claim.name!r} to {claim.namespace}, the index to {row.uid}")
    damaged = {problem.key for problem in run.findings.of("claim-damaged")}
    for row in left:
        claim = NamespaceClaim(row.uid, row.name)
        if row.uid not in claimed and claim.key not in damaged:
            run.findings.add("claim-missing", claim.key, f"of {row.name!r}")


def _namespaces(run: Inspection) -> dict[str, NamespaceRow]:
    with run.doors.index.read() as connection:
        return {row.uid: row for row in list_namespaces(connection, run.doors.store.id)}


def check_formats(run: Inspection) -> None:
    """Check the format records before the last one, which was read when the store was opened."""
    blobs = run.doors.blobs
    keys = [blob.key for blob in blobs.list_blobs(FORMAT_PREFIX)]
    for key in keys:
        try:
            record = FormatRecord.decode(blobs.read_range(key), key, read_only=True)
        except FormatError:
            continue  # of a newer vds, which will have checked it
        except CorruptionError as err:
            run.findings.add("format-damaged", key, err.message)
            continue
        if record.store != run.doors.store.uid:
            run.findings.add("format-damaged", key, f"it is of store {record.store!r}")
