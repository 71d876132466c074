"""Where a rebuild finds the objects; above all, that it believes in no blob that is being deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.unit.ops.remade import Remade
from vds.blobs.driver import BlobDriver
from vds.blobs.objects import fresh_ulid, object_key, pack_key
from vds.blobs.packs import PackBuilder
from vds.blobs.records import Gap, PlacedBlob, list_placements
from vds.engine.journal import add_store_record, publish_store_record
from vds.errors import CorruptionError, NotFoundError
from vds.index.placements import find_placements
from vds.model.digest import Digest
from vds.ops import rebuildplaces

LARGE = bytes(range(256)) * 8192
STREAM_BYTES = 9 * 1024 * 1024


@pytest.fixture
def made() -> Iterator[Remade]:
    """A store with a pack of three objects, a whole object and a stream."""
    remade = Remade()
    remade.commit("a", {"one": b"1", "two": b"2", "three": b"3", "large": LARGE})
    with remade.store.namespace("a").transaction() as tx, tx.open("stream", "wb") as stream:
        for _ in range(9):
            stream.write(b"s" * (STREAM_BYTES // 9))
    yield remade
    remade.store.close()


def record(made: Remade, kind: str, fields: Mapping[str, Any]) -> None:
    """Append to the store's log."""
    doors = made.store._handle.doors
    publish_store_record(doors, doors.index.run(lambda connection: add_store_record(connection, doors.store, kind, fields)))


def announce(made: Remade, keys: list[str]) -> None:
    """Write down that these keys are about to be deleted, as collection does before it deletes the first."""
    record(made, "keys-deleting", {"keys": keys, "size_bytes": 1, "why": "gc", "author": "me"})


def states(made: Remade) -> dict[str, str]:
    """Return the state of every blob that the index knows."""
    doors = made.store._handle.doors
    with doors.index.read() as connection:
        rows = connection.exec_driver_sql(f"SELECT key, state FROM blob WHERE store_id = {doors.store.id}").all()
    return {row[0]: row[1] for row in rows}


def places(made: Remade) -> dict[str, str]:
    """Return path → key of its blob, in the latest version."""
    doors = made.store._handle.doors
    entries = {str(entry.path): entry.digest.raw for entry in made.store.namespace("a").latest().entries()}
    with doors.index.read() as connection:
        found = find_placements(connection, doors.store.id, entries.values())
    return {path: found[digest].key for path, digest in entries.items() if digest in found}


def test_blobs_are_live_and_unchecked_so_that_collection_looks_at_them(made: Remade) -> None:
    before = places(made)
    assert len({*before.values()}) == 3
    assert before["stream"].startswith("objects/~~/")
    unused = pack_key(fresh_ulid())
    builder = PackBuilder()
    builder.append(Digest.of(b"unused").raw, b"unused")
    made.blobs.put_if_absent(unused, builder.finish())
    assert made.rebuild().ok
    assert places(made) == before
    assert set(states(made).values()) == {"live"}
    assert made.store.gc(dry_run=False, grace_hours=0, max_share=1, show_progress=False).condemned == 1
    assert made.blobs.find_blob(unused) is None


def test_what_is_needed_and_only_in_a_blob_that_is_being_deleted_is_copied(made: Remade) -> None:
    before, texts = places(made), made.texts("a", 2)
    announce(made, sorted({*before.values()}))
    report = made.rebuild()
    assert report.ok
    assert report.copied == 5
    after = places(made)
    assert not {*after.values()} & {*before.values()}
    assert {key: state for key, state in states(made).items() if state == "deleting"} == dict.fromkeys(
        before.values(), "deleting"
    )
    for key in {*before.values()}:  # the DELETEs that were on their way arrive
        made.remove(key)
    made.store.namespace("a").latest().verify()
    assert made.texts("a", 2) == texts
    again = made.rebuild()
    assert again.ok
    assert again.copied == 0
    assert places(made) == after
    assert set(states(made).values()) == {"live"}


def test_what_is_being_deleted_and_not_needed_is_left_to_collection(made: Remade) -> None:
    made.commit("a", {"gone": b"gone"})
    pack = places(made)["gone"]
    made.commit("a", {}, removed=("gone",))
    made.store.expire(["a@3"], dry_run=False)
    announce(made, [pack])
    report = made.rebuild()
    assert report.ok
    assert report.copied == 0
    assert states(made)[pack] == "deleting"
    made.store.gc(dry_run=False, grace_hours=0, max_share=1, show_progress=False)
    assert states(made)[pack] == "deleted"
    assert made.blobs.find_blob(pack) is None


def test_blobs_that_come_after_the_listing_are_found_when_a_version_needs_them(
    made: Remade, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.commit("a", {"late": b"late", "large": LARGE[::-1]})
    keys = [places(made)["late"], places(made)["large"], made.keys("journal/")[-1]]
    bodies = [made.blobs.read_range(key) for key in keys]
    for key in keys:
        made.remove(key)

    def list_early(blobs: BlobDriver) -> Iterator[PlacedBlob | Gap]:
        yield from list_placements(blobs)
        for key, body in zip(keys, bodies, strict=True):
            made.blobs.put_if_absent(key, body)

    monkeypatch.setattr(rebuildplaces, "list_placements", list_early)
    made.forget_index()
    assert made.rebuild().ok
    assert made.texts("a", 3)["late"] == b"late"
    assert made.store.namespace("a").latest().verify().ok


def test_what_was_deleted_already_is_reported(made: Remade) -> None:
    before = places(made)
    announce(made, [before["one"], before["large"]])
    made.remove(before["one"])
    made.remove(before["large"])
    report = made.rebuild()
    assert sorted((gap.kind, gap.paths, gap.versions) for gap in report.gaps) == [
        ("object", (path,), ((1, 2),)) for path in ("large", "one", "three", "two")
    ]
    assert before["one"] not in states(made)
    with pytest.raises(CorruptionError):
        made.store.namespace("a").latest().read_bytes("one")


def test_of_a_pack_that_is_being_deleted_what_is_whole_is_copied(made: Remade) -> None:
    pack = places(made)["one"]
    announce(made, [pack])
    body = made.blobs.read_range(pack)
    offset = body.index(b"1")
    made.replace(pack, lambda data: data[:offset] + b"x" + data[offset + 1 :])
    report = made.rebuild()
    assert report.copied == 2
    assert made.only(report).paths == ("one",)
    assert made.store.namespace("a").latest().read_bytes("two") == b"2"


def test_a_copy_that_was_made_before_a_crash_is_used(made: Remade) -> None:
    key = places(made)["large"]
    made.blobs.copy_blob(key, copy := object_key(Digest.of(LARGE).raw, fresh_ulid()))
    announce(made, [key])
    report = made.rebuild()
    assert (report.ok, report.copied) == (True, 0)
    assert places(made)["large"] == copy


def test_what_was_erased_has_no_place_even_where_its_bytes_are(made: Remade) -> None:
    digest = Digest.of(LARGE)
    record(made, "object-erased", {"digest": str(digest), "author": "me", "reason": "personal"})
    assert made.rebuild().ok
    assert "large" not in places(made)
    with pytest.raises(NotFoundError, match="personal"):
        made.store.namespace("a").latest().read_bytes("large")


def test_an_object_in_two_packs_is_placed_once(made: Remade) -> None:
    builder = PackBuilder()
    for body in (b"1", b"another"):
        builder.append(Digest.of(body).raw, body)
    made.blobs.put_if_absent(pack_key(fresh_ulid()), builder.finish())
    report = made.rebuild()
    assert report.ok
    assert report.objects == 6
    made.store.namespace("a").latest().verify()


@pytest.mark.parametrize(
    "key", ["packs/00/strange.pack", "objects/00/strange", "objects/~~/strange", "changes/00/strange", "checkpoints/strange"]
)
def test_a_blob_that_says_nothing_of_what_it_holds_is_reported_and_left_alone(made: Remade, key: str) -> None:
    made.blobs.put_if_absent(key, b"?" * 200)
    gap = made.only(made.rebuild())
    assert (gap.kind, gap.key) == ("blob", key)
    assert key not in states(made)
    made.store.gc(dry_run=False, grace_hours=0, max_share=1, show_progress=False)
    assert made.blobs.find_blob(key) is not None


def test_a_pack_without_its_footer_is_reported_with_what_was_in_it(made: Remade) -> None:
    pack = places(made)["one"]
    made.replace(pack, lambda data: data[:-1])
    report = made.rebuild()
    assert sorted(gap.kind for gap in report.gaps) == ["blob", "object", "object", "object"]
    with pytest.raises(CorruptionError, match="have no place"):
        made.store.gc(dry_run=False, grace_hours=0, max_share=1, show_progress=False)
    assert made.blobs.find_blob(pack) is not None  # what is still in it can be saved
