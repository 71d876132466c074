"""What a rebuild does where the container does not say everything: it reports, remembers, and papers nothing over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import write_tree
from tests.unit.ops.remade import Remade
from vds.engine.checkpoint import write_checkpoint
from vds.errors import CorruptionError, NotFoundError
from vds.index.placements import find_placements
from vds.index.schema import OPEN
from vds.model.digest import Digest


@pytest.fixture
def made() -> Iterator[Remade]:
    """A store with two namespaces: `a` of five versions, `b` of two."""
    remade = Remade()
    for number in range(1, 6):
        remade.commit("a", {f"{number}.txt": b"%d" % number, "same.txt": b"same"})
    remade.commit("b", {"x": b"1"})
    remade.commit("b", {"y": b"2"})
    yield remade
    remade.store.close()


def flip(body: bytes) -> bytes:
    return body[:-2] + bytes([body[-2] ^ 1]) + body[-1:]


def check_refused(made: Remade, name: str) -> None:
    """Check that nothing can be written to a namespace, that others can, and that nothing is collected."""
    journal = made.keys(f"journal/{made.namespace(name).uid}/")
    with pytest.raises(CorruptionError, match="history has a gap"):
        made.commit(name, {"more.txt": b"more"})
    with pytest.raises(CorruptionError, match="history has a gap"):
        made.store.namespace(name).rollback(0)
    assert made.keys(f"journal/{made.namespace(name).uid}/") == journal
    made.commit("c", {"elsewhere": b"fine"})
    with pytest.raises(CorruptionError, match="gap"):
        made.store.gc(dry_run=False, grace_hours=0, show_progress=False)


def test_a_missing_record_ends_what_is_visible_before_it(made: Remade) -> None:
    key = made.journal("a", 3)
    made.remove(key)
    report = made.rebuild()
    gap = made.only(report)
    assert (gap.kind, gap.key, gap.name, gap.versions) == ("journal", key, "a", ((3, None),))
    assert "record 3 is not there, 4 is" in gap.detail
    assert [version.number for version in made.store.namespace("a").log()] == [2, 1]
    assert made.texts("a", 2) == {"1.txt": b"1", "2.txt": b"2", "same.txt": b"same"}
    assert made.texts("b", 2) == {"x": b"1", "y": b"2"}
    assert [(row.kind, row.first_number, row.last_number) for row in made.remembered()] == [("journal", 3, OPEN)]
    check_refused(made, "a")


def test_a_gap_is_gone_once_the_blob_is_back(made: Remade) -> None:
    key = made.journal("a", 3)
    body = made.blobs.read_range(key)
    made.remove(key)
    assert not made.rebuild().ok
    made.blobs.put_if_absent(key, body)
    assert made.rebuild().ok
    assert made.remembered() == []
    assert len(made.store.namespace("a").log()) == 5
    made.commit("a", {"more.txt": b"more"})
    made.store.gc(dry_run=False, grace_hours=0, show_progress=False)


@pytest.mark.parametrize(
    "change", [lambda body: body[:40], lambda body: b"", lambda body: b"{}\n", lambda body: b"x" * 2_000_000]
)
def test_a_record_that_cannot_be_read_is_a_gap(made: Remade, change: Callable[[bytes], bytes]) -> None:
    made.replace(made.journal("a", 5), change)
    report = made.rebuild()
    gap = made.only(report)
    assert (gap.kind, gap.name, gap.versions) == ("journal", "a", ((5, None),))
    assert made.store.namespace("a").latest().number == 4
    check_refused(made, "a")


def test_a_record_that_its_successor_does_not_follow_is_a_gap(made: Remade) -> None:
    """Its bytes parse, and only the chain tells that they are others than were written."""
    made.replace(made.journal("a", 2), lambda body: body.replace(b'"message":""', b'"message":"forged"'))
    gap = made.only(made.rebuild())
    assert (gap.kind, gap.key, gap.versions) == ("journal", made.journal("a", 2), ((2, None),))
    assert made.store.namespace("a").latest().number == 1
    check_refused(made, "a")


def test_every_gap_of_a_line_is_reported(made: Remade) -> None:
    made.remove(made.journal("a", 2))
    made.replace(made.journal("a", 4), flip)
    made.blobs.put_if_absent(f"journal/{made.namespace('a').uid}/strange", b"?")
    report = made.rebuild()
    assert [gap.kind for gap in report.gaps] == ["journal"] * 3
    assert made.store.namespace("a").latest().number == 1


def test_a_lost_first_version_leaves_an_empty_namespace_that_cannot_be_written(made: Remade) -> None:
    made.remove(made.journal("b", 1))
    made.remove(made.journal("b", 2))
    made.blobs.put_if_absent(made.journal("b", 2), b"?")
    report = made.rebuild()
    assert {gap.kind for gap in report.gaps} == {"journal"}
    with pytest.raises(CorruptionError, match="gap"):
        made.commit("b", {"z": b"3"})


MANY = 2000
"""More changes than a record holds."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of two directories of many files."""
    root = tmp_path_factory.mktemp("many")
    for name in ("one", "two"):
        write_tree(root / name, {f"{name}/{number * 7919 % 1_000_003:07d}": b"%d" % number for number in range(MANY)})
    return root


@pytest.fixture
def long(source: Path) -> Iterator[Remade]:
    """A store whose namespace `a` has change lists in blobs of their own: in versions 2 and 4 of 5."""
    remade = Remade()
    remade.commit("a", {"1": b"1"})
    remade.store.namespace("a").upload(source / "one", show_progress=False)
    remade.commit("a", {"3": b"3"})
    remade.store.namespace("a").upload(source / "two", show_progress=False)
    remade.commit("a", {"5": b"5"})
    yield remade
    remade.store.close()


def list_key(made: Remade, name: str, number: int) -> str:
    """Return the key of a version's change list."""
    [key] = {key for key in made.keys("changes/") if key.encode() in made.blobs.read_range(made.journal(name, number))}
    return key


@pytest.mark.parametrize("damage", ["missing", "flipped", "cut"])
def test_without_its_change_list_a_version_and_those_after_it_have_no_files(long: Remade, damage: str) -> None:
    key = list_key(long, "a", 4)
    if damage == "missing":
        long.remove(key)
    else:
        long.replace(key, flip if damage == "flipped" else lambda body: body[:-1])
    before = long.paths("a", 3)
    gap = long.only(long.rebuild())
    assert (gap.kind, gap.key, gap.name, gap.versions) == ("changes", key, "a", ((4, None),))
    namespace = long.store.namespace("a")
    assert [version.number for version in namespace.log()] == [5, 4, 3, 2, 1]
    assert long.paths("a", 3) == before
    for number in (4, 5):
        version = namespace.get(number)
        assert version.file_count > 0
        with pytest.raises(CorruptionError, match=f"list of files of version {number} of 'a' is lost"):
            list(version.entries())
        with pytest.raises(CorruptionError, match="lost"):
            version.read_bytes("1")
        with pytest.raises(CorruptionError, match="lost"):
            namespace.diff(3, number)
        with pytest.raises(CorruptionError, match="lost"):
            long.store.namespace("copy").copy(version)
    with pytest.raises(CorruptionError, match="lost"):
        namespace.rollback(4)
    check_refused(long, "a")


def test_a_version_that_names_all_its_files_begins_anew_after_a_gap(long: Remade) -> None:
    key = list_key(long, "a", 4)
    with long.store.namespace("a").transaction(allow_shrink=True) as tx:
        for path in ("1", "3", "5", "one", "two"):
            tx.delete(path)
        tx.write_text("6", "all there is")
    long.commit("a", {"7": b"7"})
    expected = long.texts("a", 7)
    long.remove(key)
    gap = long.only(long.rebuild())
    assert (gap.kind, gap.versions) == ("changes", ((4, 5),))
    assert long.texts("a", 7) == expected
    assert "one/0007919" in long.paths("a", 3)
    with pytest.raises(CorruptionError, match="list of files of version 5"):
        long.paths("a", 5)
    assert [change.path for change in long.store.namespace("a").diff(6, 7)] == ["7"]
    assert len(long.store.namespace("a").diff(3, 7)) == MANY + 2 + 2
    long.commit("a", {"8": b"8"})  # what it holds is known: it can go on
    assert long.texts("a", 8) == {**expected, "8": b"8"}
    with pytest.raises(CorruptionError, match="gap"):
        long.store.gc(dry_run=False, grace_hours=0, show_progress=False)


def test_a_checkpoint_begins_anew_after_a_gap(long: Remade) -> None:
    key, expected = list_key(long, "a", 4), long.paths("a", 4)
    assert write_checkpoint(long.store._handle.doors, long.namespace("a"), 4)
    long.remove(key)
    gap = long.only(long.rebuild())
    assert (gap.kind, gap.key, gap.versions) == ("changes", key, ())  # nothing is lost but the list
    assert long.remembered() == []
    assert long.paths("a", 4) == expected
    assert long.paths("a", 5) == sorted([*expected, "5"])
    long.commit("a", {"6": b"6"})


def test_a_record_that_says_more_than_its_list_is_a_gap(made: Remade) -> None:
    """A list that fits its digest, and a record that is chained: only what they come to tells."""
    made.replace(made.journal("a", 5), lambda body: body.replace(b'"file_count":6', b'"file_count":7'))
    gap = made.only(made.rebuild())
    assert (gap.kind, gap.versions) == ("changes", ((5, None),))
    assert "it comes to 6 files" in gap.detail
    assert made.texts("a", 4)["4.txt"] == b"4"
    check_refused(made, "a")


def test_objects_that_are_nowhere_are_named_with_their_versions_and_paths(made: Remade) -> None:
    digest = made.store.namespace("a").get(1).entry("same.txt").digest
    row = find_placements_of(made, digest)
    made.remove(row)
    report = made.rebuild()
    found = {gap.key: (gap.kind, gap.name, gap.versions, gap.paths) for gap in report.gaps}
    assert found[digest] == ("object", "a", ((1, 5),), ("same.txt",))
    with pytest.raises(CorruptionError):
        made.store.namespace("a").get(1).read_bytes("same.txt")
    assert made.store.namespace("a").get(2).read_bytes("2.txt") == b"2"


def find_placements_of(made: Remade, digest: Digest) -> str:
    """Return the key of the blob that holds an object."""
    doors = made.store._handle.doors
    with doors.index.read() as connection:
        return find_placements(connection, doors.store.id, [digest.raw])[digest.raw].key


def expire_first_three(long: Remade) -> tuple[dict[int, list[str]], dict[str, list[int]]]:
    """Let the versions before the fourth go, of which there is a checkpoint then; return what is left, and what changed when."""
    assert write_checkpoint(long.store._handle.doors, long.namespace("a"), 4)
    long.store.expire(["a@1", "a@2", "a@3"], dry_run=False)
    for _ in range(3):  # entries, then versions, then the lists that no version needs
        long.store.gc(dry_run=False, grace_hours=0, max_share=1, show_progress=False)
    return {number: long.paths("a", number) for number in (4, 5)}, logs(long)


def logs(long: Remade) -> dict[str, list[int]]:
    """Return the versions that changed a path."""
    namespace = long.store.namespace("a")
    return {path: [version.number for version in namespace.log(path)] for path in ("1", "one", "two/0007919", "5", "")}


def test_a_replay_begins_with_the_checkpoint_of_the_oldest_version_left(long: Remade) -> None:
    first, second = list_key(long, "a", 2), list_key(long, "a", 4)
    before, log = expire_first_three(long)
    assert log == {"1": [], "one": [], "two/0007919": [4], "5": [5], "": [5, 4]}
    assert long.blobs.find_blob(first) is None  # nobody needs it any more
    assert long.rebuild().gaps == ()
    assert ({number: long.paths("a", number) for number in (4, 5)}, logs(long)) == (before, log)
    with pytest.raises(NotFoundError, match="expired"):
        long.paths("a", 3)
    long.remove(second)  # without it, all that the checkpoint names seems older than the fourth version
    gap = long.only(long.rebuild())
    assert (gap.kind, gap.key, gap.versions) == ("changes", second, ())
    assert {number: long.paths("a", number) for number in (4, 5)} == before
    assert logs(long) == {**log, "two/0007919": []}
    assert long.remembered() == []


@pytest.mark.parametrize("change", [flip, lambda body: body[:-1], lambda body: b""])
def test_without_its_checkpoint_a_replay_begins_earlier(long: Remade, change: Callable[[bytes], bytes]) -> None:
    assert write_checkpoint(long.store._handle.doors, long.namespace("a"), 4)
    long.store.expire(["a@1", "a@2", "a@3"], dry_run=False)
    before = {number: long.paths("a", number) for number in (4, 5)}
    [key] = long.keys("checkpoints/")
    long.replace(key, change)
    gap = long.only(long.rebuild())
    assert (gap.kind, gap.key, gap.versions) == ("checkpoint", key, ())
    assert {number: long.paths("a", number) for number in (4, 5)} == before
    assert long.remembered() == []
    assert write_checkpoint(long.store._handle.doors, long.namespace("a"), 4)  # the index does not count on the bad one


def test_without_its_checkpoint_and_the_lists_before_it_a_namespace_is_lost(long: Remade) -> None:
    expire_first_three(long)
    [key] = long.keys("checkpoints/")
    long.replace(key, flip)
    report = long.rebuild()
    assert [(gap.kind, gap.versions) for gap in report.gaps] == [("checkpoint", ()), ("changes", ((2, None),))]
    with pytest.raises(CorruptionError, match="lost"):
        long.paths("a", 5)
    assert [version.number for version in long.store.namespace("a").log()] == [5, 4]
