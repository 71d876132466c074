"""Transactions, tokens and parts: nothing shows before the commit, and all of it after."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import BinaryIO, cast

import pytest

import vds
from tests.unit.store.trees import WatchedDriver, files_of, write_tree
from vds.errors import ConflictError, EntryNotFoundError, InvalidInputError, NotFoundError, UploadError
from vds.store import Namespace, Store

BASE = {"a": b"1", "d/x": b"x", "d/y": b"y", "keep": b"k"}


@pytest.fixture
def namespace(store: Store, tmp_path: Path) -> Namespace:
    namespace = store.namespace("team/raw")
    namespace.upload(write_tree(tmp_path / "base", BASE))
    return namespace


class TestCommit:
    def test_everything_shows_at_once_after_a_clean_exit(self, namespace: Namespace, tmp_path: Path) -> None:
        with namespace.transaction(message="why", labels={"k": "v"}) as tx:
            tx.upload(write_tree(tmp_path / "more", {"u": b"up"}), "in")
            tx.upload_files([tmp_path / "more/u"], tmp_path / "more", "files")
            tx.write_bytes("bytes", b"raw")
            tx.write_text("text", "é")
            tx.copy("team/raw@1/d", "copied")
            tx.move("d/x", "moved/x")
            assert tx.delete("a") == 1
            with tx.open("streamed") as file, io.TextIOWrapper(cast(BinaryIO, tx.open("wrapped"))) as text:
                file.write(b"one ")
                file.write(memoryview(b"two"))
                text.write("line\n")
            assert namespace.latest().number == 1
        assert tx.namespace == "team/raw"
        assert files_of(tx.version) == {
            "in/u": b"up",
            "files/u": b"up",
            "bytes": b"raw",
            "text": "é".encode(),
            "copied/x": b"x",
            "copied/y": b"y",
            "moved/x": b"x",
            "d/y": b"y",
            "keep": b"k",
            "streamed": b"one two",
            "wrapped": b"line\n",
        }
        assert (tx.version.number, tx.version.message, tx.version.labels) == (2, "why", {"k": "v"})
        assert tx.result is not None
        assert (tx.result.uploaded, tx.result.removed, tx.result.created) == (9, 2, True)
        assert tx.commit() is tx.result

    def test_nothing_shows_after_an_exception(self, store: Store, namespace: Namespace) -> None:
        with pytest.raises(ZeroDivisionError), namespace.transaction() as tx:  # noqa: PT012 - what happens on leaving it
            tx.write_bytes("never", b"1")
            raise ZeroDivisionError
        assert namespace.latest().number == 1
        assert store.transactions() == []
        with pytest.raises(ConflictError, match="not committed yet"):
            assert tx.version
        with pytest.raises(ConflictError, match="was aborted"):
            tx.write_bytes("more", b"1")

    def test_one_that_changes_nothing_makes_no_version(self, namespace: Namespace) -> None:
        with namespace.transaction() as tx:
            tx.write_bytes("a", b"1")
        assert (tx.version.number, tx.result is not None and tx.result.created) == (1, False)

    def test_a_message_can_be_given_at_the_end(self, namespace: Namespace) -> None:
        tx = namespace.transaction("begun", {"k": "v"})
        tx.write_bytes("n", b"1")
        version = tx.commit(message="done", labels={"l": "w"}).version
        assert (version.message, version.labels) == ("done", {"l": "w"})

    @pytest.mark.parametrize("hours", [0, -1, 24 * 365 + 1])
    def test_a_lifetime_has_limits(self, namespace: Namespace, hours: float) -> None:
        with pytest.raises(InvalidInputError, match="ttl_hours"):
            namespace.transaction(ttl_hours=hours)

    def test_an_expected_parent_is_compared_at_the_commit(self, namespace: Namespace, tmp_path: Path) -> None:
        tx = namespace.transaction(expected_parent=1)
        tx.write_bytes("n", b"1")
        namespace.upload(write_tree(tmp_path / "more", {"m": b"m"}))
        with pytest.raises(ConflictError, match="is at version 2, expected 1"):
            tx.commit()
        tx.abort()

    def test_large_single_files_and_empty_ones(self, watched: Store, driver: WatchedDriver) -> None:
        with watched.namespace("made").transaction() as tx:
            tx.write_bytes("large", b"l" * (2 << 20))
            tx.write_bytes("empty", b"")
            with tx.open("stream") as file:
                file.write(b"l" * (2 << 20))  # content the store has: never committed
        assert {entry.path: entry.size_bytes for entry in tx.version.entries()} == {
            "empty": 0,
            "large": 2 << 20,
            "stream": 2 << 20,
        }
        assert tx.version.verify().ok
        assert driver.puts["objects"] <= 2


class TestEdits:
    def test_the_last_word_on_a_path_stands(self, namespace: Namespace) -> None:
        with namespace.transaction() as tx:
            tx.write_bytes("n", b"1")
            tx.write_bytes("n", b"2")
            tx.delete("n")
            tx.write_bytes("n", b"3")
            tx.delete("keep")
            tx.write_bytes("keep", b"new")
            tx.write_bytes("gone", b"1")
            tx.delete("gone")
        assert files_of(tx.version) == {**BASE, "n": b"3", "keep": b"new"}

    def test_a_directory_goes_as_a_whole(self, namespace: Namespace) -> None:
        with namespace.transaction() as tx:
            tx.write_bytes("d/new", b"n")
            assert tx.delete("d") == 3
            assert tx.delete("d", missing_ok=True) == 0
            with pytest.raises(EntryNotFoundError, match="no file or directory 'd'"):
                tx.delete("d")
            tx.write_bytes("d", b"a file now")
        assert files_of(tx.version) == {"a": b"1", "keep": b"k", "d": b"a file now"}

    def test_a_file_becomes_a_directory(self, namespace: Namespace) -> None:
        with namespace.transaction() as tx:
            tx.move("a", "b")
            tx.write_bytes("a/c", b"c")
        assert files_of(tx.version) == {"b": b"1", "a/c": b"c", **{p: BASE[p] for p in ("d/x", "d/y", "keep")}}

    def test_moves_see_what_was_written(self, namespace: Namespace) -> None:
        with namespace.transaction() as tx:
            tx.write_bytes("d/z", b"z")
            tx.delete("d/y")
            tx.move("d", "e")
            tx.move("e/z", "a")
        assert files_of(tx.version) == {"a": b"z", "e/x": b"x", "keep": b"k"}

    def test_moves_that_cannot_be(self, namespace: Namespace) -> None:
        with pytest.raises(InvalidInputError, match="inside the other"), namespace.transaction() as tx:
            tx.move("d", "d/e")
        with pytest.raises(EntryNotFoundError), namespace.transaction() as tx:
            tx.move("none", "x")
        assert namespace.latest().number == 1

    def test_a_clash_is_found_at_the_commit(self, namespace: Namespace) -> None:
        with pytest.raises(ConflictError, match="a file and a directory at once"), namespace.transaction() as tx:
            tx.write_bytes("a/b", b"1")

    @pytest.mark.parametrize("path", ["", ".", "..", "/a", "a/../b", "a\\b", "x" * 256, "nul\x00"])
    def test_a_path_that_is_none_is_refused(self, namespace: Namespace, path: str) -> None:
        tx = namespace.transaction()
        for call in (
            lambda: tx.write_bytes(path, b""),
            lambda: tx.open(path),
            lambda: tx.delete(path),
            lambda: tx.move(path, "x"),
            lambda: tx.move("a", path),
        ):
            with pytest.raises(InvalidInputError):
                call()
        tx.abort()

    def test_an_upload_that_fails_stages_nothing(self, namespace: Namespace, tmp_path: Path) -> None:
        tree = write_tree(tmp_path / "tree", {"fine": b"1"})
        (tree / "broken").symlink_to("nowhere")
        with namespace.transaction() as tx:
            tx.write_bytes("n", b"1")
            with pytest.raises(UploadError):
                tx.upload(tree)
        assert files_of(tx.version) == {**BASE, "n": b"1"}

    def test_a_stream_that_fails_stages_nothing(self, namespace: Namespace) -> None:
        with namespace.transaction() as tx:
            with pytest.raises(ZeroDivisionError), tx.open("n") as file:  # noqa: PT012 - as above
                file.write(b"half")
                raise ZeroDivisionError
            file.close()
            tx.write_bytes("m", b"1")
        assert files_of(tx.version) == {**BASE, "m": b"1"}

    def test_streams_are_binary_and_closed_before_the_commit(self, namespace: Namespace) -> None:
        tx = namespace.transaction()
        with pytest.raises(InvalidInputError, match="is not 'wb'"):
            tx.open("n", "w")
        file = tx.open("n")
        with pytest.raises(InvalidInputError, match="still open for writing"):
            tx.commit()
        file.close()
        with pytest.raises(ValueError, match="closed file"):
            file.write(b"late")
        assert files_of(tx.commit().version)["n"] == b""


class TestReads:
    def test_what_it_read_and_others_changed_is_a_conflict(self, namespace: Namespace, tmp_path: Path) -> None:
        with pytest.raises(ConflictError, match="'d/x' was changed by others") as caught, namespace.transaction() as tx:  # noqa: PT012 - as above
            tx.move("d", "e")
            namespace.upload(write_tree(tmp_path / "more", {"d/x": b"theirs"}))
        assert caught.value.paths == ("d/x",)
        assert namespace.latest().number == 2

    @pytest.mark.parametrize("late", ["write", "upload", "write and delete"])
    def test_it_stays_read_whatever_is_written_there(self, namespace: Namespace, tmp_path: Path, late: str) -> None:
        with pytest.raises(ConflictError, match="'a' was changed by others"), namespace.transaction() as tx:  # noqa: PT012 - as above
            tx.move("a", "b")
            if late == "upload":
                tx.upload(write_tree(tmp_path / "own", {"a": b"own"}))
            else:
                tx.write_bytes("a", b"own")
            if late == "write and delete":
                tx.delete("a")
            namespace.upload(write_tree(tmp_path / "more", {"a": b"theirs"}))

    def test_what_others_changed_elsewhere_is_kept(self, namespace: Namespace, tmp_path: Path) -> None:
        with namespace.transaction() as tx:
            tx.move("d", "e")
            tx.write_bytes("a", b"mine")
            namespace.upload(write_tree(tmp_path / "more", {"a": b"theirs", "d/new": b"n"}))
        assert files_of(tx.version) == {"a": b"mine", "keep": b"k", "e/x": b"x", "e/y": b"y", "d/new": b"n"}


class TestTokens:
    def test_any_holder_commits(self, store: Store, namespace: Namespace) -> None:
        tx = namespace.transaction("begun here")
        tx.write_bytes("own", b"o")
        (listed,) = store.transactions()
        assert (listed.token, listed.namespace, listed.message, listed.parts) == (tx.token, "team/raw", "begun here", 0)
        assert listed.expires_at > listed.created_at
        joined = vds.join(tx.token)
        joined.write_bytes("theirs", b"t")
        with joined.part("one") as part:
            part.write_bytes("part", b"p")
        assert [(found.name, found.files, found.bytes) for found in tx.parts()] == [("one", 1, 1)]
        result = joined.commit(expected_parts=1)
        assert files_of(result.version) == {**BASE, "own": b"o", "theirs": b"t", "part": b"p"}
        assert result.version.message == "begun here"
        with pytest.raises(ConflictError, match="was committed already"):
            tx.write_bytes("late", b"")
        assert vds.join(joined.token).commit().version == result.version  # to whoever lost the answer
        assert store.transactions() == []

    def test_a_token_names_places_and_no_secret(self, namespace: Namespace, store: Store) -> None:
        tx = namespace.transaction()
        raw = json.loads(base64.urlsafe_b64decode(tx.token.removeprefix("vdstx1-")))
        assert raw == {"url": store.url, "index": store.index, "upload": raw["upload"]}
        tx.abort()

    @pytest.mark.parametrize("token", ["", "x", "vdstx1-", "vdstx1-e30=", "vdstx1-!!!", "vdstx1-W10="])
    def test_what_is_no_token_is_refused(self, token: str) -> None:
        with pytest.raises(InvalidInputError, match="not a transaction token"):
            vds.join(token)

    def test_a_token_of_nothing_is_not_found(self, namespace: Namespace, store: Store) -> None:
        tx = namespace.transaction()
        raw = json.loads(base64.urlsafe_b64decode(tx.token.removeprefix("vdstx1-")))
        raw["upload"] = "01jq0000000000000000000000"
        forged = "vdstx1-" + base64.urlsafe_b64encode(json.dumps(raw).encode()).decode()
        with pytest.raises(NotFoundError, match="no transaction"):
            vds.join(forged)
        tx.abort()
        with pytest.raises(ConflictError, match="was aborted already"):
            vds.join(tx.token)

    def test_an_expired_one_is_refused(self, namespace: Namespace, store: Store) -> None:
        tx = namespace.transaction()
        store._handle.doors.index.run(lambda c: c.exec_driver_sql("UPDATE upload SET expires_us = 1"))
        assert store.transactions() == []
        for call in (lambda: tx.write_bytes("n", b""), tx.commit):
            with pytest.raises(ConflictError, match="has expired"):
                call()


class TestParts:
    def test_a_part_is_all_or_nothing(self, namespace: Namespace) -> None:
        tx = namespace.transaction()
        with pytest.raises(ZeroDivisionError), tx.part("one") as part:  # noqa: PT012 - as above
            part.write_bytes("half", b"1")
            raise ZeroDivisionError
        assert tx.parts() == []
        tx.write_bytes("n", b"1")
        assert files_of(tx.commit().version) == {**BASE, "n": b"1"}

    def test_the_same_name_again_replaces_it(self, namespace: Namespace) -> None:
        tx = namespace.transaction()
        for name, body in [("first", b"1"), ("second", b"2")]:
            with tx.part("one") as part:
                part.write_bytes(name, body)
        with pytest.raises(ZeroDivisionError), tx.part("one") as part:  # noqa: PT012 - as above
            part.write_bytes("third", b"3")
            raise ZeroDivisionError
        assert files_of(tx.commit(expected_parts=1).version) == {**BASE, "second": b"2"}

    def test_two_parts_that_differ_over_a_path_are_named(self, namespace: Namespace) -> None:
        tx = namespace.transaction()
        for name in ("shard-1", "shard-2"):
            with tx.part(name) as part:
                part.write_bytes("same", b"s")
                part.write_text("both", name)
        with pytest.raises(ConflictError, match="parts 'shard-1' and 'shard-2' both write 'both'") as caught:
            tx.commit()
        assert caught.value.paths == ("both",)
        with tx.part("shard-2") as part:
            part.write_bytes("same", b"s")
        assert files_of(tx.commit().version) == {**BASE, "same": b"s", "both": b"shard-1"}

    def test_the_number_of_parts_is_compared(self, namespace: Namespace) -> None:
        tx = namespace.transaction()
        with tx.part("one") as part:
            part.write_bytes("n", b"1")
        with pytest.raises(ConflictError, match="has 1 parts, expected 2: one"):
            tx.commit(expected_parts=2)
        assert tx.commit(expected_parts=1).version.number == 2

    @pytest.mark.parametrize("name", ["", ".scratch", "a" * 1000, "nul\x00"])
    def test_names_that_are_none(self, namespace: Namespace, name: str) -> None:
        tx = namespace.transaction()
        with pytest.raises(InvalidInputError):
            tx.part(name)
        tx.abort()
