"""A version read from the container alone: all of it, checked, with a reader's rights and few requests."""

from __future__ import annotations

import errno
import logging
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import read_tree
from tests.unit.ops.unindexed import NAME, Unindexed, unindexed
from tests.unit.store.trees import write_tree
from vds.blobs.objects import fresh_ulid, pack_key
from vds.blobs.packs import MEMBER_BYTES_END
from vds.engine import foundplaces as foundplaces_module
from vds.errors import (
    CorruptionError,
    DownloadError,
    ErasedError,
    FormatError,
    InvalidInputError,
    NoSpaceError,
    UnavailableError,
    VdsError,
)
from vds.files import localmanifest
from vds.model.ulid import new_ulid
from vds.model.version import VersionRecord
from vds.store import Version, noindex

LARGE = os.urandom(MEMBER_BYTES_END + 5)
STREAM = os.urandom(MEMBER_BYTES_END + 77)
FILES = {"a/b": b"1", "a b": b"22", "empty": b"", "\u00e9/\u4e2d": b"x", "same": b"1", "large": LARGE}


@pytest.fixture
def place() -> Iterator[Unindexed]:
    with unindexed() as made:
        yield made


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Unindexed]:
    """Three versions: a tree, a stream beside it, and a few changes; each with a list in a blob, and packs of their own."""
    with unindexed() as made:
        made.lists_in_blobs()
        tree = write_tree(tmp_path_factory.mktemp("tree") / "tree", FILES, executable=["a/b"])
        made.store.namespace(NAME).upload(tree, show_progress=False)
        made.put_large("stream", STREAM)
        made.put({"a/b": b"333", "same": None, "new": b"4444"})
        yield made


@pytest.fixture
def told(shared: Unindexed) -> Iterator[Unindexed]:
    """The shared store; its container may be damaged, its index must not be written."""
    with shared.undone():
        yield shared


WANTED = {
    1: FILES,
    2: {**FILES, "stream": STREAM},
    3: {path: body for path, body in {**FILES, "stream": STREAM, "a/b": b"333", "new": b"4444"}.items() if path != "same"},
}


class TestWhatIsRead:
    @pytest.mark.parametrize("number", [1, 2, 3])
    def test_every_file_and_all_that_is_known_of_it(self, told: Unindexed, number: int, tmp_path: Path) -> None:
        ref = f"{NAME}@{number}"
        expected = told.store.get(ref)
        entries = list(expected.entries())
        with told.reading():
            found = noindex.open_version(told.driver.url, ref)
            assert found == expected
            assert list(found.entries()) == entries
            assert {str(entry.path): body for entry, body in found.stream()} == WANTED[number]
            assert {path: found.read_bytes(path) for path in WANTED[number]} == WANTED[number]
            assert [body for _, body in found.read_many(["large", "empty", "a b"])] == [LARGE, b"", b"22"]
            with found.open("large") as file:
                file.seek(MEMBER_BYTES_END)
                assert file.read() == LARGE[MEMBER_BYTES_END:]
            found.download(tmp_path / "down", show_progress=False)
            found.checkout(tmp_path / "out", show_progress=False)
            found.at("a").export(tmp_path / "exported", show_progress=False)
            assert found.fetch("large").read_bytes() == LARGE
        assert read_tree(tmp_path / "down") == WANTED[number]
        assert (tmp_path / "exported/b").read_bytes() == WANTED[number]["a/b"]
        facts = (
            "digest",
            "created_at",
            "author",
            "message",
            "labels",
            "provenance",
            "file_count",
            "size_bytes",
            "uri",
            "namespace",
        )
        assert [getattr(found, name) for name in facts] == [getattr(expected, name) for name in facts]
        assert found.content_digest == expected.content_digest
        assert (tmp_path / "out/a/b").stat().st_mtime_ns == expected.entry("a/b").modified_ns

    def test_nothing_stays_on_the_disk(self, told: Unindexed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        version = told.open(NAME)
        assert list(tmp_path.iterdir()) == []
        assert version.file_count == len(WANTED[3])
        told.damage(told.journal(1), b"{}")
        with pytest.raises(CorruptionError):
            told.open(f"{NAME}@1")
        assert list(tmp_path.iterdir()) == []

    def test_what_needs_the_index_says_so(self, told: Unindexed) -> None:
        version = told.open(NAME)
        for ask in (lambda: version.parent, version.diff, version.verify):
            with pytest.raises(InvalidInputError, match="opened without the index"):
                ask()

    def test_it_goes_to_another_process_as_its_pin(self, told: Unindexed, monkeypatch: pytest.MonkeyPatch) -> None:
        version = told.open(NAME).at("a")
        pickled = pickle.dumps(version)
        assert len(pickled) < 1000
        with told.reading():
            again = pickle.loads(pickled)
            assert again == version
            assert again.read_bytes("b") == b"333"
        told.damage(told.journal(3), other_author(told))
        with pytest.raises(FormatError, match="expected b3:"):
            pickle.loads(pickled)

    def test_the_machines_own_list_is_not_made_of_it(self, told: Unindexed) -> None:
        """It has no checks of pieces, and may lack places: with the index a better one can be made."""
        version = told.open(NAME)
        assert len(list(version.stream())) == len(WANTED[3])
        cache = version._pinned.handle.cache
        assert cache is not None
        assert cache.find_manifest(version.digest.raw) is None

    def test_a_container_that_does_not_answer(self, told: Unindexed, monkeypatch: pytest.MonkeyPatch) -> None:
        def away(*arguments: object) -> None:
            raise UnavailableError("the service is away")

        monkeypatch.setattr(told.driver, "list_blobs", away)
        with pytest.raises(UnavailableError):
            told.open(NAME)

    def test_a_disk_that_takes_no_list(self, told: Unindexed, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(self: object, data: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(localmanifest._Writer, "_put", full)
        with pytest.raises(NoSpaceError, match="No space left on device") as caught:
            told.open(NAME)
        assert "TMPDIR" in caught.value.hint


def other_author(told: Unindexed) -> bytes:
    """Return the record of version 3 as somebody else might have written it."""
    key = told.journal(3)
    return replace(VersionRecord.decode(told.driver.read_range(key), key), author="eve").encode()


class TestWhereTheBytesAre:
    def packs(self, told: Unindexed) -> list[str]:
        return told.keys("packs/")

    def test_of_packs_those_made_just_before_the_version_are_looked_at_first(self, told: Unindexed) -> None:
        """Two hundred that are older, and as many that are younger by a day."""
        [any_pack, *_] = self.packs(told)
        now_ms = int(told.store.get(NAME).created_at.timestamp() * 1000)
        for number in range(200):
            for made_ms in (now_ms - 86_400_000, now_ms + 86_400_000):
                told.driver.copy_blob(any_pack, pack_key(new_ulid(made_ms, number.to_bytes(10, "big"))))
        with told.reading():
            version = noindex.open_version(told.driver.url, NAME)
            assert told.reads_of("packs/") <= 40  # what is in flight when the last one is found
        assert version.read_bytes("a/b") == b"333"

    def test_what_was_moved_to_a_younger_pack_is_found(self, told: Unindexed) -> None:
        now_ms = int(told.store.get(NAME).created_at.timestamp() * 1000)
        for number, key in enumerate(self.packs(told)):
            told.driver.copy_blob(key, pack_key(new_ulid(now_ms + 86_400_000, number.to_bytes(10, "big"))))
            told.driver.delete_blob(key)
        assert told.files(NAME) == WANTED[3]

    def test_keys_that_are_no_packs(self, told: Unindexed, caplog: pytest.LogCaptureFixture) -> None:
        told.driver.put_if_absent("packs/00/x", b"no pack at all")
        told.driver.put_if_absent("packs/00/y.pack", b"")
        told.driver.put_if_absent("objects/00/x", b"no object")
        told.driver.put_if_absent("objects/~~/x", b"a stream of nothing known")
        assert told.files(NAME) == WANTED[3]

    @pytest.mark.parametrize("looked_up_max", [0, 1000])
    def test_large_ones_are_looked_up_or_all_listed(
        self, told: Unindexed, looked_up_max: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(foundplaces_module, "LOOKED_UP_MAX", looked_up_max)
        with told.reading():
            version = noindex.open_version(told.driver.url, f"{NAME}@1")
        assert (told.driver.listings["objects/"], told.driver.listings["objects/~~/"]) == (int(looked_up_max == 0), 0)
        assert version.read_bytes("large") == LARGE
        with told.reading():
            version = noindex.open_version(told.driver.url, NAME)
        assert (told.driver.listings["objects/"], told.driver.listings["objects/~~/"]) == (1, 0) if looked_up_max == 0 else (0, 1)
        assert version.read_bytes("stream") == STREAM

    def test_a_pack_with_a_damaged_footer_is_done_without(
        self, told: Unindexed, caplog: pytest.LogCaptureFixture, tmp_path: Path
    ) -> None:
        hurt = next(key for key in self.packs(told) if b"333" in told.driver.read_range(key))
        body = told.driver.read_range(hurt)
        copy = pack_key(fresh_ulid())
        told.driver.copy_blob(hurt, copy)
        told.damage(hurt, body[:-1] + bytes([body[-1] ^ 1]))
        assert told.files(NAME) == WANTED[3]
        told.driver.delete_blob(copy)
        with caplog.at_level(logging.WARNING):
            version = told.open(NAME)
        assert any(hurt in message for message in caplog.messages)
        assert any("2 contents of version 3" in message for message in caplog.messages)
        assert version.read_bytes("a b") == b"22"
        with pytest.raises(CorruptionError, match="'a/b': no blob of the container has object b3:"):
            version.read_bytes("a/b")
        with pytest.raises(DownloadError) as caught:
            version.download(tmp_path / "out", show_progress=False)
        assert sorted(caught.value.failures) == ["a/b", "new"]
        assert sorted(read_tree(tmp_path / "out")) == sorted(WANTED[3].keys() - {"a/b", "new"})

    def test_bytes_are_held_against_their_digests(self, told: Unindexed, own_cache: Path) -> None:
        [hurt] = [key for key in told.keys("objects/") if told.driver.read_range(key) == LARGE]
        told.damage(hurt)
        with pytest.raises(CorruptionError, match="is corrupt"):
            told.open(NAME).read_bytes("large")

    @pytest.mark.parametrize("what", ["packs/", "objects/"])
    def test_blobs_that_are_being_deleted_are_the_last_to_be_asked(
        self, place: Unindexed, what: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VDS_CACHE_MAX", "0")
        place.put({"a": b"1"})
        place.put_large("large", LARGE)
        [old] = place.keys(what)
        new = pack_key(fresh_ulid()) if what == "packs/" else f"objects/~~/{fresh_ulid()}"
        place.driver.copy_blob(old, new)
        place.log("keys-deleting", keys=[old], author="ada", why="gc", size_bytes=1)
        expected = {"a": b"1", "large": LARGE}
        assert place.files(NAME) == expected
        assert (place.driver.reads[old], place.driver.reads[new] > 0) == (0, True)
        place.driver.delete_blob(new)
        assert place.files(NAME) == expected
        assert place.driver.reads[old] > 0

    def test_what_was_erased_says_so(self, place: Unindexed, tmp_path: Path) -> None:
        place.put({"a": b"personal", "b": b"1", "c": b"personal"})
        version = place.store.get(NAME)
        place.log("object-erased", digest=str(version.entry("a").digest), author="eve", reason="a person asked")
        found = place.open(NAME)
        with pytest.raises(ErasedError, match=r"'a': object b3:.* was erased by eve on .*: a person asked"):
            found.read_bytes("a")
        assert found.read_bytes("b") == b"1"
        with pytest.raises(ErasedError):
            list(found.stream())
        with pytest.raises(DownloadError) as caught:
            found.download(tmp_path / "out", show_progress=False)
        assert {path: "erased by eve" in reason for path, reason in caught.value.failures.items()} == {"a": True, "c": True}
        assert read_tree(tmp_path / "out") == {"b": b"1"}
        assert found.content_digest == version.content_digest


def read_all(version: Version) -> dict[str, bytes | str]:
    """Return what a version holds, or the error of a file that cannot be read."""
    found: dict[str, bytes | str] = {}
    for entry in version.entries():
        try:
            found[entry.path] = version.read_bytes(entry.path)
        except VdsError as err:
            found[entry.path] = f"{err.kind}: {err}"
    return found


def test_a_store_that_was_collected_and_erased_from(place: Unindexed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Expiry and collection with checkpoints, repacking and all: each version says what it says with the index."""
    monkeypatch.setenv("VDS_CACHE_MAX", "0")
    place.lists_in_blobs()
    for number in range(8):
        place.put(
            {"a": b"%d" % number, f"d/{number}": b"own of %d" % number, **({f"d/{number - 2}": None} if number > 1 else {})}
        )
    place.put_large("large", LARGE)
    place.store.expire(NAME, keep_last=4, reason="old", dry_run=False)
    for _ in range(2):
        place.store.gc(dry_run=False, grace_hours=0, max_share=1.0, show_progress=False)
    kept = place.store.get(NAME)
    place.store.erase(kept.entry("d/7").digest, reason="a person asked", dry_run=False, show_progress=False)
    said = []
    for number in range(10, 0, -1):
        ref = f"{NAME}@{number}"
        try:
            expected: dict[str, bytes | str] | str = read_all(place.store.get(ref))
        except VdsError as err:
            expected = f"{err.kind}: {err}"
        try:
            with place.reading():
                found: dict[str, bytes | str] | str = read_all(noindex.open_version(place.driver.url, ref))
        except VdsError as err:
            found = f"{err.kind}: {err}"
        assert found == expected, ref
        said.append(found)
    assert [type(what) for what in said] == [str, *[dict] * 4, *[str] * 5]
    assert ("erased by" in str(said[1]), "was expired on" in str(said[5])) == (True, True)
