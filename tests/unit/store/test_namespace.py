"""Uploads, copies, rollback and revert: what one call does to a namespace, and what it says."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

import vds
from tests.unit.store.trees import WatchedDriver, files_of, write_tree
from vds.errors import (
    AccessDeniedError,
    ConflictError,
    EntryNotFoundError,
    InvalidInputError,
    NotFoundError,
    UploadError,
)
from vds.files import read as read_module
from vds.model.version import LABEL_BYTES_MAX, LABELS_MAX, MESSAGE_BYTES_MAX
from vds.store import Namespace, Store

TREE = {"a.txt": b"alpha", "d/b.txt": b"beta", "d/e/c.txt": b"", "run.sh": b"#!/bin/sh\n"}


@pytest.fixture
def namespace(store: Store) -> Namespace:
    return store.namespace("team/raw")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "tree", TREE, executable=["run.sh"])


class TestUpload:
    def test_every_file_is_there_with_its_bytes_and_mode(self, namespace: Namespace, tree: Path) -> None:
        result = namespace.upload(tree, message="first", labels={"split": "train"})
        assert files_of(result.version) == TREE
        assert [entry.path for entry in result.version.entries() if entry.is_executable] == ["run.sh"]
        assert (result.created, result.created_namespace, result.uploaded, result.skipped) == (True, True, 4, 0)
        assert result.uri == "vds://team/raw@1/"
        assert (result.bytes_read, result.bytes_sent, result.objects_new) == (19, 19, 3)
        version = result.version
        assert (version.message, version.labels, version.operation) == ("first", {"split": "train"}, "upload")
        assert version.parent is not None
        assert (version.parent.number, version.file_count, version.size_bytes) == (0, 4, 19)
        assert version.provenance["pid"] == str(os.getpid())

    def test_a_second_upload_of_the_same_tree_sends_nothing(self, watched: Store, driver: WatchedDriver, tree: Path) -> None:
        namespace = watched.namespace("team/raw")
        first = namespace.upload(tree)
        driver.puts.clear()
        again = namespace.upload(tree)
        assert (again.created, again.version, again.uploaded, again.skipped) == (False, first.version, 0, 4)
        assert (again.bytes_sent, again.objects_new) == (0, 0)
        assert driver.puts == {}

    def test_the_same_bytes_elsewhere_are_not_sent_again(self, watched: Store, driver: WatchedDriver, tree: Path) -> None:
        watched.namespace("made").upload(tree)
        driver.puts.clear()
        result = watched.namespace("made").upload(tree, "copy")
        assert (result.created, result.objects_new, result.bytes_sent) == (True, 0, 0)
        assert driver.puts == {"journal": 1}

    def test_many_small_files_share_one_pack(self, watched: Store, driver: WatchedDriver, tmp_path: Path) -> None:
        write_tree(tmp_path / "many", {f"f{number:03d}": str(number).encode() for number in range(300)})
        result = watched.namespace("made").upload(tmp_path / "many")
        assert (result.objects_new, result.version.file_count) == (300, 300)
        assert driver.puts == {"packs": 1, "journal": 1}

    def test_a_large_file_has_a_blob_of_its_own(self, watched: Store, driver: WatchedDriver, tmp_path: Path) -> None:
        write_tree(tmp_path / "large", {"big": bytes(range(256)) * 4096, "small": b"s"})
        result = watched.namespace("made").upload(tmp_path / "large")
        assert driver.puts == {"packs": 1, "objects": 1, "journal": 1}
        assert result.version.read_bytes("big", 256, 3) == b"\x00\x01\x02"

    @pytest.mark.parametrize(("target", "place"), [(None, ""), ("", ""), (".", ""), ("./x", "x/"), ("x/y/", "x/y/")])
    def test_a_target_is_where_it_goes(self, namespace: Namespace, tree: Path, target: str | None, place: str) -> None:
        result = namespace.upload(tree, target)
        assert set(files_of(result.version)) == {place + name for name in TREE}
        assert result.target_path == place.rstrip("/")

    def test_patterns_choose(self, namespace: Namespace, tree: Path) -> None:
        result = namespace.upload(tree, allow_patterns=["*.txt"], ignore_patterns=["d/e/*"])
        assert set(files_of(result.version)) == {"a.txt", "d/b.txt"}

    def test_a_mirror_removes_what_the_source_lacks_under_its_target(
        self, namespace: Namespace, tree: Path, tmp_path: Path
    ) -> None:
        namespace.upload(tree, "x")
        namespace.upload(tree, "xx")
        result = namespace.upload(write_tree(tmp_path / "other", {"a.txt": b"new"}), "x", mirror=True)
        assert files_of(result.version) == {"x/a.txt": b"new", **{f"xx/{name}": body for name, body in TREE.items()}}
        assert (result.uploaded, result.removed) == (1, 3)
        assert result.removed_paths == ["x/d/b.txt", "x/d/e/c.txt", "x/run.sh"]

    def test_a_mirror_cannot_keep_what_is_there(self, namespace: Namespace, tree: Path) -> None:
        with pytest.raises(InvalidInputError, match="overwrite=False forbids it"):
            namespace.upload(tree, overwrite=False, mirror=True)

    def test_what_exists_is_kept_and_what_differs_is_named(self, namespace: Namespace, tree: Path, tmp_path: Path) -> None:
        namespace.upload(tree)
        other = write_tree(tmp_path / "other", {"a.txt": b"other", "d/b.txt": b"beta", "new": b"n"})
        result = namespace.upload(other, overwrite=False)
        assert files_of(result.version) == {**TREE, "new": b"n"}
        assert (result.uploaded, result.skipped, result.changed_but_skipped) == (1, 2, ["a.txt"])

    def test_an_expected_parent_is_compared(self, namespace: Namespace, tree: Path) -> None:
        assert namespace.upload(tree, expected_parent=0).version.number == 1
        with pytest.raises(ConflictError, match="is at version 1, expected 0"):
            namespace.upload(tree, "again", expected_parent=0)
        with pytest.raises(ConflictError, match="is at version 1, expected 7"):
            namespace.upload(tree, "again", expected_parent=7)
        assert namespace.latest().number == 1

    @pytest.mark.parametrize("parent", [-1, True, "1", 1.0])
    def test_an_expected_parent_is_a_number(self, namespace: Namespace, tree: Path, parent: object) -> None:
        with pytest.raises(InvalidInputError, match="is not a version number"):
            namespace.upload(tree, expected_parent=parent)  # type: ignore[arg-type]

    def test_a_file_and_a_directory_of_one_name_clash(self, namespace: Namespace, tmp_path: Path) -> None:
        namespace.upload(write_tree(tmp_path / "one", {"a": b"1"}))
        with pytest.raises(ConflictError, match="'a' would be a file and a directory at once") as caught:
            namespace.upload(write_tree(tmp_path / "two", {"a/b": b"2"}))
        assert caught.value.paths == ("a",)
        with pytest.raises(ConflictError, match="would be a file and a directory"):
            namespace.upload(tmp_path / "one", "a")
        assert namespace.latest().number == 1

    def test_removing_more_than_half_needs_a_word(self, namespace: Namespace, tmp_path: Path) -> None:
        namespace.upload(write_tree(tmp_path / "many", {f"f{number}": b"" for number in range(102)}))
        one = write_tree(tmp_path / "one", {"f0": b""})
        with pytest.raises(InvalidInputError, match="would remove 101 of the 102 files") as caught:
            namespace.upload(one, mirror=True)
        assert "allow_shrink=True" in caught.value.hint
        assert namespace.upload(one, mirror=True, allow_shrink=True).removed == 101

    def test_a_dry_run_writes_nothing(self, watched: Store, driver: WatchedDriver, tree: Path) -> None:
        for name in ["never-made", "made"]:
            foreseen = watched.namespace(name).upload(tree, dry_run=True)
            assert (foreseen.dry_run, foreseen.created, foreseen.uploaded) == (True, False, 4)
            assert (foreseen.objects_new, foreseen.bytes_sent) == (3, 0)
        assert driver.puts == {}
        assert watched.namespaces() == []
        with pytest.raises(NotFoundError, match="no namespace 'never-made'"):
            watched.namespace("never-made").latest()
        assert watched.namespace("made").latest().number == 0
        assert watched.transactions() == []

    def test_a_dry_run_of_many_changes_writes_nothing(self, watched: Store, driver: WatchedDriver, tmp_path: Path) -> None:
        names = {f"{number:04d}" + "x" * 200: str(number).encode() for number in range(2500)}
        foreseen = watched.namespace("made").upload(write_tree(tmp_path / "many", names), dry_run=True)
        assert foreseen.uploaded == 2500
        assert driver.puts == {}

    def test_many_changes_have_a_change_list_of_their_own(self, watched: Store, driver: WatchedDriver, tmp_path: Path) -> None:
        names = {f"{number:04d}" + "x" * 200: os.urandom(8) for number in range(2500)}
        watched.namespace("made").upload(write_tree(tmp_path / "many", names))
        assert driver.puts == {"packs": 1, "changes": 1, "journal": 1}


class TestUploadFiles:
    def test_files_keep_their_place_below_their_common_directory(self, namespace: Namespace, tree: Path) -> None:
        result = namespace.upload_files([tree / "d/b.txt", tree / "d/e/c.txt"])
        assert set(files_of(result.version)) == {"b.txt", "e/c.txt"}
        result = namespace.upload_files([tree / "d/b.txt"], tree, "to")
        assert "to/d/b.txt" in files_of(result.version)

    def test_one_path_is_not_a_list(self, namespace: Namespace, tree: Path) -> None:
        with pytest.raises(InvalidInputError, match="must be a list of paths"):
            namespace.upload_files(str(tree / "a.txt"))

    def test_a_file_outside_the_root_is_refused(self, namespace: Namespace, tree: Path) -> None:
        with pytest.raises(InvalidInputError, match="outside relative_root"):
            namespace.upload_files([tree / "a.txt"], tree / "d")

    def test_missing_files_are_all_named(self, namespace: Namespace, tree: Path) -> None:
        with pytest.raises(UploadError) as caught:
            namespace.upload_files([tree / "a.txt", tree / "no1", tree / "no2"])
        assert set(caught.value.failures) == {"no1", "no2"}


class TestBadInput:
    @pytest.mark.parametrize("target", ["../up", "a/../b", "/abs", "a\\b", "a//b", "a\x00b", "a\nb", "x" * 256, "a/" * 600 + "a"])
    def test_a_target_that_is_no_path_is_refused(self, store: Store, tree: Path, target: str) -> None:
        with pytest.raises(InvalidInputError):
            store.namespace("bad").upload(tree, target)
        assert store.namespaces() == []

    @pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", "-a", "a b", "é", "a/../b", "a" * 201, "a@1", "a:b"])
    def test_a_name_that_is_none_is_refused(self, store: Store, name: str) -> None:
        with pytest.raises(InvalidInputError, match="is not a namespace name"):
            store.namespace(name)

    def test_the_longest_name_is_a_name(self, store: Store) -> None:
        assert store.namespace("a" * 200).name == "a" * 200

    def test_names_differing_in_case_are_one(self, store: Store, tree: Path) -> None:
        store.namespace("Team/Raw").upload(tree)
        with pytest.raises(ConflictError, match="'Team/Raw' exists, 'team/raw' differs from it only in case"):
            store.namespace("team/raw").upload(tree)

    def test_a_message_has_a_limit(self, namespace: Namespace, tree: Path) -> None:
        assert namespace.upload(tree, message="é" * (MESSAGE_BYTES_MAX // 2)).version.message[0] == "é"
        with pytest.raises(InvalidInputError, match=f"the limit is {MESSAGE_BYTES_MAX}"):
            namespace.upload(tree, "x", message="é" * (MESSAGE_BYTES_MAX // 2) + "x")
        for bad in ["nul\x00", "\ud800"]:
            with pytest.raises(InvalidInputError):
                namespace.upload(tree, "x", message=bad)

    def test_labels_have_limits(self, namespace: Namespace, tree: Path) -> None:
        most = {f"k{number:02d}": "v" for number in range(LABELS_MAX)}
        assert namespace.upload(tree, labels=most).version.labels == most
        assert namespace.upload(tree, "x", labels={"k": "v" * (LABEL_BYTES_MAX - 1)}).created
        for labels in [{**most, "more": "v"}, {"k": "v" * LABEL_BYTES_MAX}, {"": "v"}, {"k": 1}, {"k": "\x00"}]:
            with pytest.raises(InvalidInputError):
                namespace.upload(tree, "y", labels=labels)  # type: ignore[arg-type]
        assert namespace.latest().number == 2

    def test_a_source_that_is_no_directory_is_refused(self, namespace: Namespace, tree: Path) -> None:
        with pytest.raises(InvalidInputError, match="does not exist"):
            namespace.upload(tree / "none")
        with pytest.raises(InvalidInputError, match="is not a directory") as caught:
            namespace.upload(tree / "a.txt")
        assert "upload_files" in caught.value.hint

    def test_a_read_only_store_writes_nothing(self, driver: WatchedDriver, watched: Store, tree: Path) -> None:
        watched.namespace("made").upload(tree)
        driver.puts.clear()
        with vds.connect(driver.url, read_only=True) as reader:
            namespace = reader.namespace("made")
            assert files_of(namespace.latest()) == TREE
            calls: list[Callable[[], object]] = [
                lambda: namespace.upload(tree, "x"),
                lambda: namespace.upload_files([tree / "a.txt"]),
                lambda: namespace.copy("made@1", "x"),
                lambda: namespace.rollback(0),
                lambda: namespace.revert(1),
                lambda: namespace.transaction(),
                lambda: reader.dataset("ds").register("made@1"),
                lambda: reader.dataset("ds").tag("prod", 1),
            ]
            for call in calls:
                with pytest.raises((AccessDeniedError, NotFoundError)):
                    call()
            assert namespace.latest().content_digest == watched.namespace("made").latest().content_digest
        assert driver.puts == {}


class TestUnreadableSource:
    def test_every_failure_is_named_and_nothing_is_visible(self, store: Store, tmp_path: Path) -> None:
        root = write_tree(tmp_path / "tree", {"ok": b"1", "also": b"2"})
        (root / "broken").symlink_to("nowhere")
        os.mkfifo(root / "pipe")
        (root / "back\\slash").write_bytes(b"3")
        with pytest.raises(UploadError, match="3 files could not be uploaded") as caught:
            store.namespace("team/raw").upload(root)
        assert set(caught.value.failures) == {"broken", "pipe", "back\\slash"}
        assert "broken symlink" in caught.value.failures["broken"]
        assert "ignore_patterns" in caught.value.hint
        assert store.namespaces() == []
        assert store.transactions() == []
        assert store.namespace("team/raw").upload(root, ignore_patterns=["broken", "pipe", "back*"]).uploaded == 2

    def test_a_file_that_changes_while_it_is_read_is_a_failure(
        self, namespace: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = write_tree(tmp_path / "tree", {"calm": b"1", "busy": b"before"})
        real = read_module._read_some

        def read(descriptor: int, target: memoryview) -> int:
            count = real(descriptor, target)
            if bytes(target) == b"before":
                (root / "busy").write_bytes(b"after, and longer")
            return count

        monkeypatch.setattr(read_module, "_read_some", read)
        with pytest.raises(UploadError) as caught:
            namespace.upload(root)
        assert list(caught.value.failures) == ["busy"]
        assert "changed while it was being read" in caught.value.failures["busy"]

    def test_two_names_of_one_unicode_form_are_both_named(self, namespace: Namespace, tmp_path: Path) -> None:
        composed, decomposed = (unicodedata.normalize(form, "é.txt") for form in ("NFC", "NFD"))
        root = write_tree(tmp_path / "tree", {composed: b"1", decomposed: b"2", "fine": b"3"})
        if len(os.listdir(root)) < 3:
            pytest.skip("this file system normalises names itself")
        with pytest.raises(UploadError) as caught:
            namespace.upload(root)
        (reason,) = caught.value.failures.values()
        assert ascii(composed) in reason
        assert ascii(decomposed) in reason

    def test_a_decomposed_name_is_stored_composed(self, namespace: Namespace, tmp_path: Path) -> None:
        root = write_tree(tmp_path / "tree", {unicodedata.normalize("NFD", "é.txt"): b"1"})
        assert list(files_of(namespace.upload(root).version)) == [unicodedata.normalize("NFC", "é.txt")]

    def test_an_empty_upload_warns_and_makes_no_version(self, namespace: Namespace, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.warns(UserWarning, match="holds no files"):
            result = namespace.upload(tmp_path / "empty")
        assert (result.created, result.version.number) == (False, 0)

    def test_a_symlinked_directory_is_warned_about_and_left_out(self, namespace: Namespace, tmp_path: Path) -> None:
        root = write_tree(tmp_path / "tree", {"a": b"1", "real/b": b"2"})
        (root / "link").symlink_to("real", target_is_directory=True)
        (root / "file-link").symlink_to("a")
        with pytest.warns(UserWarning, match="symlinked directories are not followed.*link"):
            result = namespace.upload(root)
        assert files_of(result.version) == {"a": b"1", "real/b": b"2", "file-link": b"1"}

    def test_a_path_too_long_only_under_its_target_is_a_failure(self, namespace: Namespace, tmp_path: Path) -> None:
        root = write_tree(tmp_path / "tree", {"x" * 200: b"1", "ok": b"2"})
        target = "/".join(["t" * 200] * 4)
        with pytest.raises(UploadError) as caught:
            namespace.upload(root, target + "/" + "u" * 100)
        assert list(caught.value.failures) == ["x" * 200]


class TestCopy:
    def test_a_promotion_moves_no_byte(self, watched: Store, driver: WatchedDriver, tree: Path) -> None:
        source = watched.namespace("team/raw").upload(tree).version
        watched.namespace("team/good").transaction().abort()
        driver.puts.clear()
        result = watched.namespace("team/good").copy(source, message="promoted")
        assert files_of(result.version) == TREE
        assert (result.version.content_digest, result.version.operation) == (source.content_digest, "copy")
        assert driver.puts == {"journal": 1}
        assert watched.namespace("team/good").copy("team/raw@1").created is False

    @pytest.mark.parametrize(
        ("ref", "target", "expected"),
        [
            ("team/raw@1/d", "", {"b.txt", "e/c.txt"}),
            ("team/raw@1/d", "x", {"x/b.txt", "x/e/c.txt"}),
            ("team/raw@1/a.txt", "", {"a.txt"}),
            ("team/raw@1/d/b.txt", "x", {"x/b.txt"}),
            ("vds://team/raw@latest/d/e", "x", {"x/c.txt"}),
        ],
    )
    def test_a_part_of_a_version(self, store: Store, tree: Path, ref: str, target: str, expected: set[str]) -> None:
        store.namespace("team/raw").upload(tree)
        assert set(files_of(store.namespace("to").copy(ref, target).version)) == expected

    def test_a_mirroring_copy_equals_its_source(self, store: Store, tree: Path, tmp_path: Path) -> None:
        source = store.namespace("team/raw").upload(tree).version
        target = store.namespace("to")
        target.upload(write_tree(tmp_path / "other", {"old": b"o", "a.txt": b"x"}))
        result = target.copy(source, mirror=True)
        assert (files_of(result.version), result.removed) == (TREE, 1)

    def test_what_is_not_there_is_not_copied(self, store: Store, tree: Path) -> None:
        store.namespace("team/raw").upload(tree)
        with pytest.raises(EntryNotFoundError):
            store.namespace("to").copy("team/raw@1/none")
        with pytest.raises(NotFoundError):
            store.namespace("to").copy("team/raw@9")
        with pytest.raises(InvalidInputError, match="neither a Version nor a ref"):
            store.namespace("to").copy(12)  # type: ignore[arg-type]
        assert [found.name for found in store.namespaces()] == ["team/raw"]

    def test_a_version_of_another_store_is_refused(self, store: Store, disk_store: Store, tree: Path) -> None:
        foreign = disk_store.namespace("team/raw").upload(tree).version
        with pytest.raises(InvalidInputError, match="is a version of another store"):
            store.namespace("to").copy(foreign)


class TestUndo:
    @pytest.fixture
    def lived(self, namespace: Namespace, tree: Path, tmp_path: Path) -> Namespace:
        namespace.upload(tree)
        namespace.upload(write_tree(tmp_path / "bad", {"a.txt": b"bad", "bad/x": b"bad"}))
        namespace.upload(write_tree(tmp_path / "more", {"d/more": b"more"}))
        return namespace

    def test_a_rollback_is_a_new_version_that_equals_the_old_one(self, lived: Namespace) -> None:
        result = lived.rollback(1)
        assert (result.version.number, result.uploaded, result.removed) == (4, 1, 2)
        assert files_of(result.version) == TREE
        assert result.version.content_digest == lived.get(1).content_digest
        assert result.version.message == "rollback to 1"
        assert lived.rollback(1).created is False

    def test_a_rollback_of_a_path_leaves_the_rest(self, lived: Namespace) -> None:
        result = lived.rollback("latest~2", "a.txt", message="why")
        assert files_of(result.version) == {**TREE, "bad/x": b"bad", "d/more": b"more"}
        assert (result.version.message, result.target_path) == ("why", "a.txt")

    def test_a_rollback_to_nothing_empties(self, lived: Namespace) -> None:
        assert files_of(lived.rollback(0).version) == {}

    def test_a_dry_run_counts_and_changes_nothing(self, lived: Namespace) -> None:
        for foreseen in (lived.rollback(1, dry_run=True), lived.revert(2, dry_run=True)):
            assert (foreseen.dry_run, foreseen.created, foreseen.uploaded) == (True, False, 1)
        assert lived.latest().number == 3

    def test_a_revert_undoes_one_version_and_keeps_the_later_ones(self, lived: Namespace) -> None:
        result = lived.revert(2)
        assert files_of(result.version) == {**TREE, "d/more": b"more"}
        assert (result.version.operation, result.version.message) == ("revert", "revert of 2")

    def test_a_revert_of_what_was_changed_again_is_a_conflict(self, lived: Namespace, tmp_path: Path) -> None:
        lived.upload(write_tree(tmp_path / "again", {"a.txt": b"again"}))
        with pytest.raises(ConflictError, match=r"'a.txt' was changed again after version 2") as caught:
            lived.revert(2)
        assert (caught.value.paths, caught.value.versions) == (("a.txt",), (4,))
        assert lived.latest().number == 4

    def test_versions_that_cannot_be_undone(self, lived: Namespace, store: Store, tree: Path) -> None:
        with pytest.raises(InvalidInputError, match="version 0 is empty"):
            lived.revert(0)
        with pytest.raises(NotFoundError):
            lived.revert(9)
        with pytest.raises(NotFoundError):
            lived.rollback(9)
        foreign = store.namespace("other").upload(tree).version
        with pytest.raises(InvalidInputError, match="is not a version of 'team/raw'"):
            lived.rollback(foreign)

    def test_tags_that_still_show_what_was_undone_are_named(self, lived: Namespace, store: Store) -> None:
        dataset = store.dataset("customers")
        for number, tag in enumerate(["good", "prod", "late"], start=1):
            dataset.tag(tag, lived.get(number))
        undone = lived.revert(2, dry_run=True).tags_left_behind
        assert [left.tag for left in undone] == ["customers:late", "customers:prod"]  # 3 still holds what 2 did
        left = lived.rollback(1).tags_left_behind
        assert sorted(found.tag for found in left) == ["customers:late", "customers:prod"]
        commands = {found.tag: found.command for found in left}
        assert commands["customers:prod"] == "vds tag customers:prod team/raw@4"
        assert {found.version for found in left} == {2, 3}


class TestLogAndDiff:
    def test_the_log_is_newest_first(self, namespace: Namespace, tmp_path: Path) -> None:
        for number in range(1, 5):
            tree = write_tree(tmp_path / "tree", {f"d{number % 2}/f": str(number).encode()})
            namespace.upload(tree, labels={"odd": str(number % 2)})
        assert [version.number for version in namespace.log()] == [4, 3, 2, 1]
        assert [version.number for version in namespace.log(limit=2)] == [4, 3]
        assert [version.number for version in namespace.log("d1")] == [3, 1]
        assert [version.number for version in namespace.log(labels={"odd": "1"}, limit=1)] == [3]
        assert namespace.log(labels={"odd": "2"}) == []
        assert namespace.log(limit=0) == []

    def test_a_diff_is_sorted_and_complete(self, namespace: Namespace, tree: Path, tmp_path: Path) -> None:
        namespace.upload(tree)
        after = {"a.txt": b"changed", "a-b": b"new", "a/x": b"new", "é": b"new", "z": b"new", "run.sh": TREE["run.sh"]}
        namespace.upload(write_tree(tmp_path / "other", after), mirror=True)
        changes = namespace.diff(1, 2)
        paths = [change.path for change in changes]
        assert paths == sorted(paths, key=str.encode)
        assert {change.path: change.kind for change in changes} == {
            "a-b": "added",
            "a/x": "added",
            "a.txt": "modified",
            "d/b.txt": "removed",
            "d/e/c.txt": "removed",
            "run.sh": "modified",
            "z": "added",
            "é": "added",
        }
        assert [change.path for change in namespace.diff(2, 1, "d")] == ["d/b.txt", "d/e/c.txt"]
        assert namespace.diff(2, 2) == []
        assert namespace.latest().diff() == changes

    def test_an_unknown_namespace_is_not_found(self, store: Store) -> None:
        namespace = store.namespace("none")
        for call in (namespace.latest, namespace.log, lambda: namespace.get(1), lambda: namespace.diff(0, 1)):
            with pytest.raises(NotFoundError, match="no namespace 'none'"):
                call()


class TestContentDigest:
    def test_it_is_equal_however_the_content_came_about(self, store: Store, tree: Path, tmp_path: Path) -> None:
        whole = store.namespace("whole").upload(tree).version
        digest = whole.content_digest
        piecewise = store.namespace("piecewise")
        for name in sorted(TREE, reverse=True):
            last = piecewise.upload_files([tree / name], tree)
        rolled = store.namespace("rolled")
        rolled.upload(tree)
        rolled.upload(write_tree(tmp_path / "other", {"x": b"x"}), mirror=True)
        with store.namespace("tx").transaction() as tx:
            for name, body in TREE.items():
                if name != "run.sh":
                    tx.write_bytes(name, body)
            tx.copy("whole@1/run.sh")
        digests = {
            "piecewise": last.version.content_digest,
            "copy": store.namespace("copy").copy(whole).version.content_digest,
            "rollback": rolled.rollback(1).version.content_digest,
            "transaction": tx.version.content_digest,
            "view": store.namespace("below").upload(tree, "deep/down").version.at("deep/down").content_digest,
        }
        assert digests == dict.fromkeys(digests, digest)
        assert len({version.digest for version in piecewise.log()}) == len(TREE)

    def test_it_differs_with_a_byte_a_name_or_a_mode(self, store: Store, tmp_path: Path) -> None:
        namespace = store.namespace("team/raw")
        trees: list[tuple[dict[str, bytes], list[str]]] = [
            ({"a": b"1"}, []),
            ({"a": b"2"}, []),
            ({"b": b"1"}, []),
            ({"a": b"1"}, ["a"]),
            ({}, []),
        ]
        digests = set()
        for files, executable in trees[:-1]:
            tree = write_tree(tmp_path / "tree", files, executable=executable)
            digests.add(namespace.upload(tree, mirror=True).version.content_digest)
        digests.add(namespace.get(0).content_digest)
        assert len(digests) == len(trees)


class TestPathsMadeByPlacing:
    """A name put below another may be too long although each half is fine."""

    LONG = "/".join(["d" * 100] * 6)

    def test_a_copy_below_a_deep_target(self, store: Store) -> None:
        raw = store.namespace("team/raw")
        with raw.transaction() as tx:
            tx.write_text(f"{self.LONG}/file", "x")
        with pytest.raises(InvalidInputError, match="the limit is 1024"):
            raw.copy("team/raw@1", self.LONG)
        with pytest.raises(InvalidInputError, match="the limit is 1024"), raw.transaction() as tx:
            tx.copy("team/raw@1", self.LONG)
        assert raw.latest().number == 1

    def test_a_move_below_a_deep_target(self, store: Store) -> None:
        raw = store.namespace("team/raw")
        with raw.transaction() as tx:
            tx.write_text(f"a/{self.LONG}/file", "x")
        with pytest.raises(InvalidInputError, match="the limit is 1024"), raw.transaction() as tx:
            tx.move("a", self.LONG)
        assert [entry.path for entry in raw.latest().entries()] == [f"a/{self.LONG}/file"]
