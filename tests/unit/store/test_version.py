"""Reading versions and datasets: views, points, refs, releases, tags and their history."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from tests.unit.store.trees import WatchedDriver, files_of, write_tree
from vds.engine import versionreader
from vds.errors import ConflictError, CorruptionError, EntryNotFoundError, InvalidInputError, NotFoundError
from vds.model.ref import format_moment
from vds.store import Namespace, Store, Version

TREE = {"a.txt": "é\n".encode(), "d/b": b"0123456789", "d/e/c": b"", "dd": b"other", "run": b"x"}


@pytest.fixture
def namespace(store: Store, tmp_path: Path) -> Namespace:
    namespace = store.namespace("team/raw")
    namespace.upload(write_tree(tmp_path / "tree", TREE, executable=["run"]))
    return namespace


@pytest.fixture
def version(namespace: Namespace) -> Version:
    return namespace.latest()


class TestEntries:
    def test_entries_are_sorted_and_lazy(self, version: Version) -> None:
        entries = version.entries()
        assert next(entries).path == "a.txt"
        assert [entry.path for entry in entries] == ["d/b", "d/e/c", "dd", "run"]
        assert [entry.path for entry in version.entries("d")] == ["d/b", "d/e/c"]
        assert [entry.path for entry in version.entries("d/b")] == ["d/b"]
        assert list(version.entries("nothing")) == []

    def test_pages_do_not_show(self, version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vds.index.entries.PAGE_ROWS", 2)
        assert [entry.path for entry in version.entries()] == sorted(TREE)

    def test_one_entry(self, version: Version) -> None:
        entry = version.entry("run")
        assert (entry.size_bytes, entry.mode, entry.is_executable) == (1, 0o755, True)
        assert version.entry("d/b").mode == 0o644
        for path in ["d", "none", "d/"]:
            with pytest.raises((EntryNotFoundError, InvalidInputError)):
                version.entry(path)
        assert [version.exists(path) for path in ["d", "d/b", "d/e", "", "x", "d/x"]] == [True] * 4 + [False] * 2

    def test_bytes_and_ranges(self, version: Version) -> None:
        assert version.read_bytes("d/b") == b"0123456789"
        assert version.read_bytes("d/b", 3, 4) == b"3456"
        assert version.read_bytes("d/b", 8, 99) == b"89"
        assert version.read_bytes("d/b", 99) == version.read_bytes("d/b", 0, 0) == version.read_bytes("d/e/c") == b""
        assert version.read_text("a.txt") == "é\n"
        with pytest.raises(InvalidInputError, match="must not be negative"):
            version.read_bytes("d/b", -1)
        with pytest.raises(InvalidInputError, match="must not be negative"):
            version.read_bytes("d/b", 0, -1)

    @pytest.mark.parametrize("in_memory_bytes", [0, 1 << 20])
    def test_a_file_opens_seekable(self, version: Version, monkeypatch: pytest.MonkeyPatch, in_memory_bytes: int) -> None:
        monkeypatch.setattr(versionreader, "WHOLE_BYTES_MAX", in_memory_bytes)
        with version.open("d/b") as file:
            assert file.read(2) == b"01"
            file.seek(-1, 2)
            assert file.read() == b"9"
        with pytest.raises(InvalidInputError, match="a version is read-only"):
            version.open("d/b", "w")
        with pytest.raises(EntryNotFoundError):
            version.open("d")

    def test_damage_is_never_handed_out(self, watched: Store, driver: WatchedDriver, tmp_path: Path) -> None:
        version = watched.namespace("made").upload(write_tree(tmp_path / "tree", {"a": b"good", "b": b"fine"})).version
        (pack,) = [blob.key for blob in driver.list_blobs("packs/")]
        body = driver.read_range(pack)
        driver.delete_blob(pack)
        driver.put_if_absent(pack, body.replace(b"good", b"evil"))
        reads: list[Callable[[], bytes]] = [
            lambda: version.read_bytes("a"),
            lambda: version.open("a").read(),
            lambda: version.open("a").read(1),
            lambda: version.read_bytes("a", 0, 1),
        ]
        for read in reads:
            with pytest.raises(CorruptionError):
                read()
        report = version.verify()
        assert (report.ok, report.files, list(report.failures)) == (False, 2, ["a"])
        assert version.read_bytes("b") == b"fine"

    @pytest.mark.parametrize("sample", [0, -1, 1.01])
    def test_a_sample_is_a_share(self, version: Version, sample: float) -> None:
        with pytest.raises(InvalidInputError, match="is not between 0 and 1"):
            version.verify(sample=sample)
        assert version.verify(sample=1.0).files == len(TREE)


class TestViews:
    def test_a_directory_is_a_root(self, version: Version) -> None:
        view = version.at("d")
        assert files_of(view) == {"b": b"0123456789", "e/c": b""}
        assert (view.file_count, view.size_bytes, view.path, view.uri) == (2, 10, "d", "vds://team/raw@1/d")
        assert view.at("e").path == "d/e"
        assert view.read_bytes("b", 0, 1) == b"0"
        assert view.exists("b")
        assert not view.exists("a.txt")
        assert view.parent is not None
        assert view.parent.path == "d"
        with pytest.raises(EntryNotFoundError, match="there is no file"):
            view.entry("a.txt")

    def test_a_file_is_a_view_too(self, version: Version) -> None:
        view = version.at("d/b")
        assert files_of(view) == {"b": b"0123456789"}
        assert view.file_count == 1

    @pytest.mark.parametrize("path", ["x", "d/x", "a.txt/x", "a"])
    def test_nothing_is_no_view(self, version: Version, path: str) -> None:
        with pytest.raises(EntryNotFoundError):
            version.at(path)

    def test_diffs_are_seen_from_the_view(self, namespace: Namespace, tmp_path: Path) -> None:
        namespace.upload(write_tree(tmp_path / "more", {"d/b": b"new", "z": b"z"}))
        view = namespace.latest().at("d")
        assert [(change.path, change.kind) for change in view.diff()] == [("b", "modified")]
        with pytest.raises(InvalidInputError, match="different directories"):
            view.diff(namespace.get(1))

    def test_equality_is_that_of_the_pin(self, namespace: Namespace, version: Version) -> None:
        assert version == namespace.get(1)
        assert hash(version) == hash(namespace.get(1))
        assert len({version, namespace.get("latest"), version.at("d"), namespace.get(0)}) == 3
        assert version != "team/raw@1"


class TestPoints:
    def test_all_ways_to_name_a_version(self, namespace: Namespace, store: Store, tmp_path: Path) -> None:
        for number in (2, 3):
            namespace.upload(write_tree(tmp_path / "tree2", {"n": str(number).encode()}))
        second = namespace.get(2)
        moment = second.created_at
        for point in (
            2,
            "2",
            "v2",
            "latest~1",
            "3~1",
            str(second.digest),
            str(second.digest)[:15],
            moment,
            format_moment(moment),
        ):
            assert namespace.get(point).number == 2, point
        assert namespace.get("latest~3").number == 0
        with pytest.raises(NotFoundError):
            namespace.get(moment - timedelta(days=1))
        for ref, number, pinned in [
            ("team/raw", 3, False),
            ("team/raw@latest", 3, False),
            ("team/raw@latest~1", 2, False),
            ("TEAM/raw@2", 2, True),
            ("vds://team/raw@2/", 2, True),
            (f"team/raw@{str(second.digest)[:15]}", 2, True),
            (f"team/raw@{format_moment(moment)}", 2, True),
            ("team/raw@2999-01-01T00:00Z", 3, False),
        ]:
            found = store.resolve(ref)
            assert (found.requested, found.number, found.pinned, found.namespace) == (ref, number, pinned, "team/raw")
            assert store.get(ref).number == number

    @pytest.mark.parametrize("point", [-1, True, "x", "1.5", "", "b3:12", "~1", "latest~", "2026-01-01", datetime(2026, 1, 1)])
    def test_what_names_no_version(self, namespace: Namespace, point: object) -> None:
        with pytest.raises(InvalidInputError):
            namespace.get(point)  # type: ignore[arg-type]

    @pytest.mark.parametrize("point", [9, "9", "latest~9", "b3:" + "0" * 64, datetime(2001, 1, 1, tzinfo=UTC)])
    def test_what_is_not_there(self, namespace: Namespace, point: object) -> None:
        with pytest.raises(NotFoundError):
            namespace.get(point)  # type: ignore[arg-type]

    def test_a_ref_with_a_path(self, namespace: Namespace, store: Store) -> None:
        assert files_of(store.get("team/raw@1/d/e")) == {"c": b""}
        with pytest.raises(EntryNotFoundError):
            store.get("team/raw@1/none")
        for ref in ["none", "none@1", "none:prod"]:
            with pytest.raises(NotFoundError):
                store.get(ref)
        for ref in ["", "@", "a@b@c", "vds://team/raw", "vds://other//team/raw@1/", "a:b:c", "team/raw@1/../x"]:
            with pytest.raises(InvalidInputError):
                store.get(ref)

    def test_listings(self, namespace: Namespace, store: Store, tmp_path: Path) -> None:
        store.namespace("team/good").copy("team/raw@1")
        store.namespace("teams").copy("team/raw@1")
        assert [(found.name, found.head) for found in store.namespaces("team")] == [("team/good", 1), ("team/raw", 1)]
        assert len(store.namespaces()) == 3
        store.dataset("customers/eu").register("team/raw@1")
        assert [(found.name, found.releases) for found in store.datasets("customers")] == [("customers/eu", 1)]
        assert store.datasets("cust") == []


class TestDatasets:
    @pytest.fixture
    def filled(self, namespace: Namespace, tmp_path: Path) -> Namespace:
        for number in (2, 3):
            namespace.upload(write_tree(tmp_path / "tree2", {"n": str(number).encode()}))
        return namespace

    def test_the_same_version_and_path_is_the_same_release(self, filled: Namespace, store: Store) -> None:
        dataset = store.dataset("customers")
        first = dataset.register(filled.get(1), description="about", labels={"k": "v"}, tags=["prod", "eu"])
        assert (first.number, first.uri, first.description, first.labels) == (1, "vds://customers:1/", "about", {"k": "v"})
        assert dataset.register("team/raw@1").number == 1
        assert dataset.register("team/raw@1", "d").number == 2
        assert dataset.register("team/raw@1/d").number == 2
        assert dataset.register(filled.get(1).at("d")).number == 2
        assert [release.number for release in dataset.releases()] == [2, 1]
        assert files_of(dataset.get(2)) == {"b": b"0123456789", "e/c": b""}
        assert dataset.latest().path == "d"
        assert {tag: release.number for tag, release in dataset.tags().items()} == {"eu": 1, "prod": 1}

    def test_a_release_whose_version_has_expired_is_still_told(self, filled: Namespace, store: Store) -> None:
        dataset = store.dataset("customers")
        dataset.tag("prod", filled.get(1))
        dataset.tag("next", filled.get(2))
        store.expire("team/raw@1", dry_run=False)
        assert {tag: release.number for tag, release in dataset.tags().items()} == {"next": 2, "prod": 1}
        newest, oldest = dataset.releases()
        assert (newest.expired_at, oldest.version.number) == (None, 1)
        assert oldest.expired_at is not None
        for read in (oldest.version.entries, lambda: files_of(dataset.get("prod"))):
            with pytest.raises(NotFoundError, match="was expired"):
                list(read())
        assert store.fsck(show_progress=False).counts == {}

    def test_all_ways_to_read_a_release(self, filled: Namespace, store: Store) -> None:
        dataset = store.dataset("customers")
        dataset.tag("prod", filled.get(1))
        before = dataset.history()[0].created_at
        dataset.tag("prod", filled.get(2), reason="better", expected=1)
        for ref, number, pinned in [
            ("customers:prod", 2, False),
            ("customers:1", 1, True),
            ("customers:v2", 2, True),
            ("customers:latest", 2, False),
            (f"customers:prod@{format_moment(before)}", 1, True),
            ("CUSTOMERS:1", 1, True),
        ]:
            found = store.resolve(ref)
            assert (found.number, found.release, found.pinned) == (number, number, pinned)
        assert dataset.get("prod").number == dataset.latest().number == 2
        for missing in (9, "none", "prod@2001-01-01T00:00Z"):
            with pytest.raises(NotFoundError):
                dataset.get(missing)
        assert store.get("customers:prod/n").read_bytes("") == b"2"

    def test_tags_move_by_compare_and_swap_and_keep_their_history(self, filled: Namespace, store: Store) -> None:
        dataset = store.dataset("customers")
        dataset.register(filled.get(1))
        dataset.tag("prod", 1, expected="absent", reason="first")
        with pytest.raises(ConflictError, match="shows release 1, expected nothing"):
            dataset.tag("prod", 1, expected="absent")
        second = dataset.register(filled.get(2))
        with pytest.raises(ConflictError, match="shows release 1, expected release 7"):
            dataset.tag("prod", second, expected=7)
        dataset.tag("prod", second, expected=1)
        dataset.tag("prod", "v1")
        dataset.tag("prod", "latest")
        dataset.untag("prod", reason="gone", expected=2)
        with pytest.raises(NotFoundError, match="no tag 'prod'"):
            dataset.untag("prod")
        history = dataset.history("prod")
        assert [(event.kind, event.release, event.previous, event.reason) for event in history] == [
            ("untag", None, 2, "gone"),
            ("tag", 2, 1, ""),
            ("tag", 1, 2, ""),
            ("tag", 2, 1, ""),
            ("tag", 1, None, "first"),
        ]
        chain = dataset.history()
        assert [event.seq for event in chain] == list(range(len(chain), 0, -1))
        assert all(later.parent == earlier.digest for later, earlier in pairwise(chain))
        assert dataset.tags() == {}

    @pytest.mark.parametrize("tag", ["latest", "LATEST", "3", "v3", "", "a/b", "a b", "x" * 65, "-x"])
    def test_words_that_are_no_tag(self, filled: Namespace, store: Store, tag: str) -> None:
        with pytest.raises(InvalidInputError):
            store.dataset("customers").tag(tag, filled.get(1))
        with pytest.raises(InvalidInputError):
            store.dataset("customers").register(filled.get(1), tags=[tag])
        assert store.datasets() == []

    def test_what_cannot_be_registered(self, filled: Namespace, store: Store) -> None:
        dataset = store.dataset("customers")
        with pytest.raises(InvalidInputError, match="version 0"):
            dataset.register(filled.get(0))
        with pytest.raises(InvalidInputError, match="must be a list"):
            dataset.register(filled.get(1), tags="prod")
        for ref in ("team/raw@9", "team/raw@1/none", "none@1"):
            with pytest.raises(NotFoundError):
                dataset.register(ref)
        for call in (dataset.tags, dataset.releases, dataset.history, dataset.latest, lambda: dataset.get(1)):
            with pytest.raises(NotFoundError, match="no dataset 'customers'"):
                call()
        with pytest.raises(NotFoundError):
            dataset.tag("prod", 1)
        dataset.register(filled.get(1))
        with pytest.raises(ConflictError, match="differs from it only in case"):
            store.dataset("Customers").register(filled.get(1))
        foreign = store.dataset("others").register(filled.get(1))
        with pytest.raises(InvalidInputError, match="is not a release of 'customers'"):
            dataset.tag("prod", foreign)
        with pytest.raises(NotFoundError, match="no release 7"):
            dataset.tag("prod", 7)
