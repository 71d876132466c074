"""Real files of a real store, cut, flipped, lengthened and swapped: who reads one gets what was written, or a typed error.

What a file does not vouch for by itself (one letter in the message of a version) the digest in the record after it, or in the
index, does; so such a record is only asked to say what its bytes say.
"""

from __future__ import annotations

import pickle
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import vds
from tests.support import write_tree
from vds.blobs.memory import MemoryDriver
from vds.blobs.packs import read_footer, verify_pack
from vds.errors import CorruptionError, FormatError, InvalidInputError
from vds.files.localmanifest import LocalManifest, find_manifest, read_facts
from vds.files.place import Target
from vds.files.record import RECORD_PATH, find_record
from vds.model.claim import NamespaceClaim
from vds.model.event import DatasetEvent
from vds.model.format import FormatRecord
from vds.model.lockfile import LOCK_NAME, parse_lock
from vds.model.manifest import decode_change_list
from vds.model.storelog import StoreRecord
from vds.model.version import VersionRecord
from vds.store.lock import lock_refs

SEED = 20260301
POSITIONS_MAX = 150
"""Of a file that is longer, so many are chosen; of the others each is taken."""
MANY = 2500  # files whose change list does not fit into the record
REFUSED = (CorruptionError, FormatError)


@dataclass(frozen=True)
class Reading:
    """How a file is read.

    Attributes:
        is_whole: whether the file itself vouches for all that is read of it.
        refused: what it may raise.
    """

    read: Callable[[bytes], Any]
    is_whole: bool = True
    refused: tuple[type[Exception], ...] = REFUSED


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a small store has written, by the name of what it is."""
    root = tmp_path_factory.mktemp("bad-bytes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VDS_CACHE", str(root / "cache"))
        return dict(write_everything(root))


def write_everything(root: Path) -> Iterator[tuple[str, bytes]]:
    small = {"a": b"one", "sub/b": b"three" * 20, "run.sh": b"#!/bin/sh\n", "日本/é": b"", "large": bytes(range(256)) * 5000}
    with vds.connect(root / "store", create=True) as store:
        store.namespace("team/raw").upload(
            write_tree(root / "src", small), message="first, of Überall", labels={"split": "train"}, show_progress=False
        )
        many = write_tree(root / "many", {f"{number:05d}": str(number).encode() for number in range(MANY)})
        store.namespace("many").upload(many, show_progress=False)
        store.dataset("customers").register("team/raw@1", "sub", tags=["prod"], description="as of March")
        version = store.namespace("team/raw").latest()
        version.checkout(root / "checkout", show_progress=False)
        pickle.dumps(version)  # writes the local list of its files
        lock_refs(["customers:prod", "team/raw@1"], store, root / LOCK_NAME)
    for kind, prefix in (
        *(("format", "format/"), ("claim", "namespaces/"), ("store record", "store/"), ("event", "datasets/")),
        *(("version", "journal/"), ("pack", "packs/"), ("change list", "changes/")),
    ):
        for path in sorted((root / "store" / prefix).rglob("*")):
            if path.is_file():
                yield f"{kind} {path.relative_to(root / 'store').as_posix()}", path.read_bytes()
    [manifest] = [path for path in (root / "cache" / "manifests").rglob("*") if path.is_file()]
    yield "local manifest", manifest.read_bytes()
    yield "checkout record", (root / "checkout" / RECORD_PATH).read_bytes()
    yield "lock file", (root / LOCK_NAME).read_bytes()


def reading_of(name: str, files: dict[str, bytes]) -> Reading:
    """Return how the file of a name is read."""
    kind, _, key = name.rpartition(" ")
    match kind:
        case "version":
            return Reading(lambda body: VersionRecord.decode(body, key), is_whole=False)
        case "event":
            return Reading(lambda body: DatasetEvent.decode(body, key), is_whole=False)
        case "store record":
            return Reading(lambda body: StoreRecord.decode(body, key), is_whole=False)
        case "format":
            return Reading(lambda body: FormatRecord.decode(body, key, read_only=True), is_whole=False)
        case "claim":
            return Reading(lambda body: NamespaceClaim.decode(body, key), is_whole=False)
        case "pack":
            return Reading(read_pack)
        case "change list":
            digest = bytes.fromhex(key.rpartition("/")[2].partition(".")[0])
            return Reading(lambda body: decode_change_list(body, digest))
    return {
        "local manifest": Reading(read_manifest),
        "checkout record": Reading(read_checkout, is_whole=False),
        "lock file": Reading(read_lock, is_whole=False, refused=(InvalidInputError, FormatError)),
    }[name]


def read_pack(body: bytes) -> Any:
    driver = MemoryDriver("bad-bytes")
    driver.create_container()
    driver.delete_blob("p")
    driver.put_if_absent("p", body)
    with suppress(*REFUSED):
        read_footer(driver, "p", len(body))
    return verify_pack(driver, "p", len(body))


def read_manifest(body: bytes) -> Any:
    with tempfile.TemporaryDirectory() as root:
        path = Path(root) / "m"
        path.write_bytes(body)
        read_facts(path)
        try:
            manifest = LocalManifest(path)
            return manifest.facts, list(manifest.rows()), list(manifest.order)
        finally:
            find_manifest(path)


def read_checkout(body: bytes) -> Any:
    with tempfile.TemporaryDirectory() as root, Target(root) as target:
        path = Path(root) / RECORD_PATH
        path.parent.mkdir()
        path.write_bytes(body)
        return find_record(target)


def read_lock(body: bytes) -> Any:
    try:
        text = body.decode()
    except UnicodeDecodeError as err:
        raise InvalidInputError(str(err)) from err  # as whoever reads the file says
    return parse_lock(text, LOCK_NAME)


def damages(body: bytes, others: list[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield what may become of a file."""
    chance = random.Random(SEED)
    positions = range(len(body)) if len(body) <= POSITIONS_MAX else sorted(chance.sample(range(len(body)), POSITIONS_MAX))
    for at in positions:
        bit, byte = chance.randrange(8), chance.randbytes(1)
        yield f"cut at {at}", body[:at]
        yield f"bit {bit} of byte {at}", body[:at] + bytes([body[at] ^ 1 << bit]) + body[at + 1 :]
        yield f"{byte!r} before {at}", body[:at] + byte + body[at:]
        yield f"without {at}", body[:at] + body[at + 1 :]
    page = 4096
    yield "zeros at its end", body[: -(len(body) // 3)] + bytes(len(body) // 3)
    yield "a page of zeros", bytes(min(page, len(body))) + body[page:]
    yield "only zeros", bytes(len(body))
    yield "twice", body + body
    yield from ((f"another's bytes ({number})", other) for number, other in enumerate(others) if other != body)


NAMES = [
    "format",
    "claim",
    "store record",
    "event",
    "version",
    "pack",
    "change list",
    "local manifest",
    "checkout record",
    "lock file",
]


@pytest.mark.parametrize("kind", NAMES)
def test_bad_bytes_are_told(kind: str, files: dict[str, bytes]) -> None:
    print(f"seed {SEED}")
    own = {name: body for name, body in files.items() if name.startswith(kind)}
    assert own, files.keys()
    tried = refused = 0
    for name, body in own.items():
        reading = reading_of(name, files)
        sound = reading.read(body)
        # Another pack is a sound pack: the index, which knows what stands in it, tells the two apart.
        others = [other for other_name, other in files.items() if not (reading.is_whole and other_name.startswith(kind))]
        for what, damaged in damages(body, others):
            tried += damaged != body
            try:
                found = reading.read(damaged)
            except reading.refused as err:
                assert str(err), (name, what)  # noqa: PT017
                refused += 1
                continue
            assert damaged == body or not reading.is_whole, f"{name}, {what}: was believed"
            assert damaged == body or found != sound or is_same_text(kind, damaged, body), f"{name}, {what}: means the same"
    assert refused >= tried * 0.5, (tried, refused)


def is_same_text(kind: str, damaged: bytes, body: bytes) -> bool:
    """Return whether a file that people may edit says the same in other words: a comment, an empty line."""
    return kind in ("lock file", "checkout record", "format")


def test_the_store_has_one_of_each(files: dict[str, bytes]) -> None:
    counts = {kind: sum(name.startswith(kind) for name in files) for kind in NAMES}
    assert counts == {
        "format": 1,
        "claim": 2,
        "store record": 2,
        "event": 2,
        "version": 2,
        "pack": 2,
        "change list": 1,
        "local manifest": 1,
        "checkout record": 1,
        "lock file": 1,
    }
    versions = [VersionRecord.decode(body, name) for name, body in files.items() if name.startswith("version")]
    assert {version.changes.key is None for version in versions} == {True, False}
