"""One sound example of each kind of record in a container, and change lists that nobody sound would write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import xxhash
from blake3 import blake3

from vds.model.claim import NamespaceClaim
from vds.model.event import DatasetEvent, Registered
from vds.model.format import FormatRecord
from vds.model.manifest import MAGIC, ChangeListEncoder, ChangeRow, changes_key
from vds.model.path import EntryPath
from vds.model.run import Place, RunRecord
from vds.model.storelog import StoreRecord
from vds.model.version import ChangeListRef, VersionRecord

STORE = "01aryz6s41000g40r40m30e209"
NAMESPACE = "01aryz6s41000g40r40m30e20a"
COMMIT = "01aryz6s41000g40r40m30e20b"
GENERATION = "01aryz6s41000g40r40m30e20c"
MOMENT = datetime(2026, 3, 1, 12, 0, 0, 123456, UTC)
DIGEST = blake3(b"something").digest()

ROWS = [
    ChangeRow("a", DIGEST, 9, 0o644, 1_700_000_000_000_000_000),
    ChangeRow("a/b", None, 0, 0, 0),
    ChangeRow("run.sh", DIGEST, 2**40, 0o755, -1),
    ChangeRow("日本/é", DIGEST, 0, 0o644, 0),
]


def encode_rows(rows: Iterable[ChangeRow]) -> tuple[bytes, bytes]:
    """Return an encoded change list and its digest."""
    encoder = ChangeListEncoder()
    data = b"".join(encoder.frames(rows))
    return data, encoder.digest


def encode_row(path: bytes, kind: int = 1, digest: bytes = DIGEST, size_bytes: int = 1) -> bytes:
    """Return one row as it stands in a list, whatever its path is."""
    return struct.pack("<HB", len(path), kind) + path + (struct.pack("<32sQ", digest, size_bytes) if kind else b"")


def forge_list(*frames: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return a change list of any rows, and its digest: every sum in it is right."""
    data, hasher = MAGIC, blake3()
    for rows in frames:
        body = b"".join(rows)
        hasher.update(body)
        data += forge_frame(len(rows), len(body), zlib.compress(body), zlib.compress(bytes(8 * len(rows))))
    return data, hasher.digest()


def forge_frame(count: int, rows_bytes: int, rows_z: bytes, times_z: bytes) -> bytes:
    """Return a frame that claims so many rows of so many bytes; its own sum is right."""
    body = rows_z + times_z
    return struct.pack("<IIIIQ", count, rows_bytes, len(rows_z), len(times_z), xxhash.xxh3_64_intdigest(body)) + body


@dataclass(frozen=True)
class Kind:
    """A kind of record.

    Attributes:
        examples: sound ones.
        decode: parses one, under this key.
    """

    key: str
    examples: Sequence[Any]
    decode: Callable[[bytes], Any]


def _version(changes: ChangeListRef) -> VersionRecord:
    return VersionRecord(
        store=STORE,
        namespace=NAMESPACE,
        namespace_name="team/raw",
        number=12,
        parent=DIGEST,
        commit_id=COMMIT,
        created_at=MOMENT,
        operation="upload",
        author="ada",
        message="first import,\nof Überall",
        labels={"split": "train"},
        provenance={"host": "node-1", "command": "train.py"},
        changes=changes,
        added=1,
        modified=2,
        removed=3,
        file_count=10,
        size_bytes=12345,
    )


def _event(kind: Any, tag: str | None, release: int | None, previous: int | None, registered: Registered | None) -> DatasetEvent:
    return DatasetEvent(
        store=STORE,
        dataset="customers",
        number=4,
        parent=DIGEST,
        kind=kind,
        tag=tag,
        release=release,
        previous=previous,
        author="ada",
        reason="it is the good one",
        created_at=MOMENT,
        registered=registered,
    )


def _stored(kind: str, **fields: Any) -> StoreRecord:
    return StoreRecord(STORE, 3, DIGEST, kind, MOMENT, fields)


_LIST, _LIST_DIGEST = encode_rows(ROWS)
RELEASE = Registered(NAMESPACE, "team/raw", 12, DIGEST, EntryPath("clean/2026"), "as of March", {"kind": "clean"})
CLAIM = NamespaceClaim(NAMESPACE, "team/Raw")
FORMAT = FormatRecord(STORE, 1, 1, 1, 1, COMMIT, "postgresql://db.example/vds", "", "2026-03-01T12:00:00.123456Z")

RUN = RunRecord(
    store=STORE,
    uid=COMMIT,
    parent=GENERATION,
    kind="step",
    name="train, größer",
    author="ada",
    started_at=MOMENT,
    params={"lr": "0.1"},
    provenance={"host": "node-1"},
    key="b3:" + DIGEST.hex(),
    key_parts={"code train.py": "b3:" + DIGEST.hex(), "arguments": "[]"},
)
ENDED_RUN = replace(
    RUN,
    status="failed",
    ended_at=MOMENT,
    error="exit code 3",
    reused=NAMESPACE,
    inputs=(Place("raw", NAMESPACE, "team/raw", 12, "a/b", "customers:prod"),),
    outputs=(Place("model", NAMESPACE, "team/raw", 13, "", "/tmp/x"),),
)

KINDS: dict[str, Kind] = {
    "version": Kind(
        f"journal/{NAMESPACE}/0000000000000012",
        [
            _version(ChangeListRef(_LIST_DIGEST, len(ROWS), inline=_LIST)),
            _version(ChangeListRef(DIGEST, 5000, key=changes_key(DIGEST, GENERATION))),
        ],
        lambda body: VersionRecord.decode(body, f"journal/{NAMESPACE}/0000000000000012"),
    ),
    "event": Kind(
        "datasets/x/0000000000000004",
        [
            _event("register", None, 3, None, RELEASE),
            _event("tag", "prod", 3, 2, None),
            _event("untag", "prod", None, 3, None),
        ],
        lambda body: DatasetEvent.decode(body, "datasets/x/0000000000000004"),
    ),
    "claim": Kind(CLAIM.key, [CLAIM], lambda body: NamespaceClaim.decode(body, CLAIM.key)),
    "format": Kind("format/1", [FORMAT], lambda body: FormatRecord.decode(body, "format/1", read_only=False)),
    "run": Kind(RUN.record_key, [RUN], lambda body: RunRecord.decode(body, RUN.record_key)),
    "run's end": Kind(ENDED_RUN.record_key, [ENDED_RUN], lambda body: RunRecord.decode(body, ENDED_RUN.record_key)),
    "store": Kind(
        "store/0000000000000003",
        [
            _stored("namespace-created", namespace=NAMESPACE, name="team/raw"),
            _stored("versions-expired", namespace=NAMESPACE, numbers=[[1, 3], [5, 5]], author="ada", reason="old"),
            _stored("versions-restored", namespace=NAMESPACE, numbers=[[1, 3]], author="ada"),
            _stored("keys-deleting", keys=["objects/aa/b.c", "packs/ab/x.pack"], size_bytes=77, why="gc", author="ada"),
            _stored("object-erased", digest="b3:" + DIGEST.hex(), author="ada", reason="asked for"),
            _stored("index-replaced", incarnation=COMMIT, address="embedded", host="node-1"),
        ],
        lambda body: StoreRecord.decode(body, "store/0000000000000003"),
    ),
}
"""Every kind of JSON record in a container."""

EXAMPLES = [(name, example) for name, kind in KINDS.items() for example in kind.examples]
