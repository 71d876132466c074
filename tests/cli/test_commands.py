"""Each command does what its Python twin does, and prints text, the one thing a script needs, or one JSON document."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

VERSION_KEYS = {
    *("namespace", "number", "path", "uri", "operation", "digest", "parent", "created_at", "author", "message", "labels"),
    *("run", "file_count", "size_bytes"),
}
RESULT_KEYS = {
    *("uri", "namespace", "number", "created", "created_namespace", "uploaded", "skipped", "changed_but_skipped", "removed"),
    *("removed_paths", "dry_run", "bytes_read", "bytes_sent", "objects_new", "seconds", "tags_left_behind"),
    *("added", "modified", "bytes_new", "bytes_saved"),
}


@pytest.fixture
def store(vds: Cli) -> Cli:
    """An empty store, named in vds.toml."""
    vds.ok("init", "./store")
    return vds


def test_init_writes_settings_once(vds: Cli) -> None:
    document = vds.ok("init", "./store", "--json").document
    assert set(document) == {"url", "id", "index", "settings"}
    assert (vds.directory / "vds.toml").read_text(encoding="utf-8") == 'store = "./store"\n'
    assert vds.ok("init", "./store", "--json").document == document, "again opens the same store"
    assert vds("init", "./other").code == 4
    assert not (vds.directory / "other").exists(), "a conflict shows before a store is made"


def test_store_option_beats_settings(shared: Cli) -> None:
    assert shared("ls", "--store", "./nowhere").code == 3
    assert shared("ls", environ={"VDS_STORE": "./nowhere"}).code == 3
    assert shared.ok("ls", "--store", "./store", "-q").out == "team/raw\ncustomers:\n"


def test_upload_quiet_prints_the_uri_only(store: Cli) -> None:
    store.write("out/a", "1")
    outcome = store.ok("upload", "out", "ns", "-q")
    assert (outcome.out, outcome.err) == ("vds://ns@1/\n", "")


def test_upload_says_that_a_namespace_is_new(store: Cli) -> None:
    store.write("out/a", "1")
    assert "created namespace 'ns'" in store.ok("upload", "out", "ns").err
    again = store.ok("upload", "out", "ns", "--json")
    assert "created namespace" not in again.err
    assert set(again.document) == RESULT_KEYS
    assert again.document["created"] is False
    assert again.document["number"] == 1


def test_upload_one_directory_files_and_both(store: Cli) -> None:
    store.write("out/deep/a", "1")
    store.write("b", "2")
    store.write("more/c", "3")
    store.ok("upload", "out", "one")
    store.ok("upload", "b", "more/c", "two")
    store.ok("upload", "out", "more", "b", "three", "--to", "x")
    paths = {name: store.ok("ls", name, "-R", "-q").out.split() for name in ("one", "two", "three")}
    assert paths == {"one": ["deep/a"], "two": ["b", "more/c"], "three": ["x/b", "x/c", "x/deep/a"]}
    assert store.ok("show", "three", "--json").document["number"] == 1, "several sources are one version"


def test_upload_refuses_two_sources_of_one_path(store: Cli) -> None:
    store.write("out/a", "1")
    store.write("more/a", "2")
    outcome = store("upload", "out", "more", "ns")
    assert outcome.code == 2
    assert "'a' comes from 'out' and from 'more'" in outcome.err


def test_upload_options(store: Cli) -> None:
    store.write("out/a.csv", "1")
    store.write("out/b.tmp", "2")
    store.ok("upload", "out", "ns", "--ignore", "*.tmp", "--label", "k=v", "--label", "w=x=y", "-m", "why")
    shown = store.ok("show", "ns", "--json").document
    assert (shown["labels"], shown["message"], shown["file_count"]) == ({"k": "v", "w": "x=y"}, "why", 1)
    store.write("out/a.csv", "other")
    kept = store.ok("upload", "out", "ns", "--skip-existing", "--json")
    assert kept.document["changed_but_skipped"] == ["a.csv"]
    assert "skipped although it differs: a.csv" in kept.err
    assert store.ok("cat", "ns@latest/a.csv").out == "1"


def test_upload_mirror_dry_run_changes_nothing(store: Cli) -> None:
    store.write("out/a", "1")
    store.write("out/b", "2")
    store.ok("upload", "out", "ns")
    (store.directory / "out" / "b").unlink()
    planned = store.ok("upload", "out", "ns", "--mirror", "--dry-run")
    assert "- b" in planned.out.splitlines()
    assert store.ok("ls", "ns", "-q").out == "a\nb\n"
    store.ok("upload", "out", "ns", "--mirror")
    assert store.ok("ls", "ns", "-q").out == "a\n"


def test_upload_and_tag(store: Cli) -> None:
    store.write("out/a", "1")
    document = store.ok("upload", "out", "ns", "--tag", "customers:prod", "--json").document
    assert (document["release"], document["tag"]) == (1, "customers:prod")
    assert store.ok("cat", "customers:prod/a").out == "1"


def test_ls_of_names_and_levels(shared: Cli) -> None:
    document = shared.ok("ls", "--json").document
    assert [(entry["name"], entry["head"]) for entry in document["namespaces"]] == [("team/raw", 2)]
    assert document["datasets"] == [{"name": "customers", "releases": 1}]
    assert shared.ok("ls", "team/raw").out == "a.txt\nsub/\n"
    assert shared.ok("ls", "team/raw@2/sub", "-q").out == "b.txt\nc.txt\n"
    assert shared.ok("ls", "team/raw", "-R", "-q").out == "a.txt\nsub/b.txt\nsub/c.txt\n"
    entries = shared.ok("ls", "team/raw", "--json").document["entries"]
    assert set(entries[0]) == {"path", "size_bytes", "digest", "executable", "modified_at"}
    assert entries[1] == {"path": "sub/", "file_count": 2, "size_bytes": 4}
    assert shared.ok("ls", "team/raw@0", "--json").document["entries"] == []


def test_ls_long_lines_up(shared: Cli) -> None:
    first, second = shared.ok("ls", "team/raw", "-l").out.splitlines()
    assert first.index("a.txt") == second.index("sub/")


def test_cat_is_raw(store: Cli) -> None:
    (store.directory / "out").mkdir()
    (store.directory / "out" / "raw").write_bytes(b"\r\n\x00\xff")
    store.ok("upload", "out", "ns")
    store.ok("download", "ns@1/raw", "copied")
    assert (store.directory / "copied" / "raw").read_bytes() == b"\r\n\x00\xff"
    store.write("text", "ä\n")
    store.ok("upload", "text", "ns")
    assert store.ok("cat", "vds://ns@2/text").out == "ä\n"
    assert store("cat", "ns@2").code == 2


def test_show(shared: Cli) -> None:
    document = shared.ok("show", "customers:prod", "--json").document
    assert set(document) == VERSION_KEYS | {"provenance"}
    assert (document["uri"], document["parent"], document["labels"]) == ("vds://team/raw@1/", 0, {"split": "train"})
    assert document["provenance"]["command"].endswith("customers:prod")
    assert datetime.fromisoformat(document["created_at"]).tzinfo is not None
    assert "first" in shared.ok("show", "team/raw@1").out
    assert shared.ok("show", "customers:prod", "-q").out == "vds://team/raw@1/\n"


def test_log(shared: Cli) -> None:
    versions = shared.ok("log", "team/raw", "--json").document["versions"]
    assert [version["number"] for version in versions] == [2, 1]
    assert set(versions[0]) == VERSION_KEYS
    assert shared.ok("log", "team/raw", "-n", "1", "-q").out == "vds://team/raw@2/\n"
    assert shared.ok("log", "team/raw", "--path", "sub/b.txt", "-q").out == "vds://team/raw@1/\n"
    by_colon, by_name = shared.ok("log", "customers:", "--json").document, shared.ok("log", "customers", "--json").document
    assert by_colon == by_name
    assert [event["kind"] for event in by_colon["events"]] == ["tag", "register"]
    assert [event["tag"] for event in shared.ok("log", "customers:prod", "--json").document["events"]] == ["prod"]
    assert shared("log", "nope").code == 3


def test_diff(shared: Cli) -> None:
    assert shared.ok("diff", "team/raw@1", "team/raw@2", "-q").out == "a.txt\nsub/c.txt\n"
    assert shared.ok("diff", "team/raw@2").out == "~ a.txt  (6 B -> 13 B)\n+ sub/c.txt  (2 B)\n"
    document = shared.ok("diff", "team/raw@2", "customers:prod", "--json").document
    assert (document["from"], document["to"]) == ("vds://team/raw@2/", "vds://team/raw@1/")
    assert [(change["kind"], change["path"]) for change in document["changes"]] == [
        ("modified", "a.txt"),
        ("removed", "sub/c.txt"),
    ]
    assert document["changes"][1]["after"] is None
    stat = shared.ok("diff", "team/raw@2", "--stat", "--json").document
    assert (stat["added"], stat["modified"], stat["removed"], stat["bytes_before"], stat["bytes_after"]) == (1, 1, 0, 6, 15)


def test_download_and_checkout_and_status(store: Cli) -> None:
    store.write("out/a", "1")
    store.write("out/sub/b", "2")
    store.ok("upload", "out", "ns")
    assert store.ok("download", "ns@1", "never", "--dry-run", "--json").document["placed"] == 2
    assert not (store.directory / "never" / "a").exists()
    assert store.ok("download", "ns@1/sub", "part", "-q").out == "vds://ns@1/sub\n"
    assert (store.directory / "part" / "b").read_text(encoding="utf-8") == "2"
    store.ok("checkout", "ns@1", "work")
    clean = store.ok("status", "work", "--json").document
    assert clean == {"uri": "vds://ns@1/", "clean": True, "added": [], "modified": [], "removed": []}
    edited = store.directory / "work" / "a"
    edited.chmod(0o644)
    edited.write_text("edited", encoding="utf-8")
    (store.directory / "work" / "foreign").write_text("mine", encoding="utf-8")
    dirty = store("status", "work", "--json")
    assert dirty.code == 1
    assert dirty.document["modified"] == ["a"]
    (store.directory / "out" / "a").write_text("other", encoding="utf-8")
    store.ok("upload", "out", "ns")
    assert store("checkout", "ns@2", "work").code == 4
    forced = store.ok("checkout", "ns@2", "work", "--force", "--json")
    assert forced.document["foreign_paths"] == ["foreign"]
    assert edited.read_text(encoding="utf-8") == "other"
    assert store("status", "part").code == 3, "a download is no checkout"


def test_a_part_is_checked_out_and_large_files_are_linked(store: Cli) -> None:
    store.write("big/large.bin", "x" * 1_200_000)
    store.ok("upload", "big", "big", "-q")
    store.ok("checkout", "big@1", "linked", "--link")
    store.ok("checkout", "big@1", "copied")
    linked = store.directory / "linked" / "large.bin"
    assert linked.read_text() == (store.directory / "copied" / "large.bin").read_text() == "x" * 1_200_000
    assert (store.directory / "copied" / "large.bin").stat().st_mode & 0o200
    store.write("two/a/1", "1")
    store.write("two/b/2", "2")
    store.ok("upload", "two", "two", "-q")
    part = store.ok("checkout", "two@1", "part", "--allow", "a/", "--json")
    assert part.document["files"] == 1
    assert sorted(path.name for path in (store.directory / "part").iterdir()) == [".vds", "a"]
    assert store.ok("status", "part", "-q").out == ""
    whole = store.ok("checkout", "two@1", "part", "--json")
    assert (whole.document["placed"], whole.document["skipped"]) == (1, 1)
    smaller = store.ok("checkout", "two@1", "part", "--ignore", "a/", "--json")
    assert smaller.document["removed_paths"] == ["a/1"]


def test_rollback_names_the_tags_left_behind(store: Cli) -> None:
    store.write("out/a", "good")
    store.ok("upload", "out", "ns")
    store.write("out/a", "bad")
    store.ok("upload", "out", "ns", "--tag", "customers:prod")
    assert store.ok("rollback", "ns", "--to", "1", "--dry-run", "--json").document["created"] is False
    done = store.ok("rollback", "ns", "--to", "1", "--json")
    assert (done.document["number"], done.document["created"]) == (3, True)
    (left,) = done.document["tags_left_behind"]
    assert (left["tag"], left["version"]) == ("customers:prod", 2)
    assert left["command"] in done.err
    store.ok(*left["command"].split()[1:])
    assert store.ok("cat", "customers:prod/a").out == "good"


def test_revert_copy_rm(store: Cli) -> None:
    store.write("out/a", "1")
    store.ok("upload", "out", "ns")
    store.write("out/b", "2")
    store.ok("upload", "out", "ns")
    store.write("out/c", "3")
    store.ok("upload", "out", "ns")
    assert store.ok("revert", "ns@2", "-q").out == "vds://ns@4/\n"
    assert store.ok("ls", "ns", "-q").out == "a\nc\n"
    assert store("revert", "ns").code == 2
    copied = store.ok("copy", "ns@2", "promoted", "--to", "x", "--json").document
    assert (copied["bytes_sent"], copied["created_namespace"]) == (0, True)
    assert store.ok("ls", "promoted", "-R", "-q").out == "x/a\nx/b\n"
    removed = store.ok("rm", "promoted", "x/a", "--json").document
    assert (removed["number"], removed["removed"]) == (2, 1)
    assert store("rm", "promoted", "x/a").code == 3
    assert store.ok("cat", "promoted@1/x/a").out == "1"


def test_register_tag_untag(store: Cli) -> None:
    store.write("out/sub/a", "1")
    store.ok("upload", "out", "ns")
    document = store.ok("register", "customers", "ns@1/sub", "--tag", "prod", "--description", "d", "--json").document
    assert (document["number"], document["path"], document["tags"], document["description"]) == (1, "sub", ["prod"], "d")
    assert store.ok("register", "customers", "ns@1/sub", "-q").out == "vds://customers:1/\n", "the same release"
    assert store.ok("cat", "customers:prod/a").out == "1"
    moved = store.ok("tag", "customers:prod", "ns@1", "--reason", "all of it", "--expected", "1", "--json").document
    assert (moved["tag"], moved["number"]) == ("customers:prod", 2)
    store.ok("tag", "customers:prod", "v1")
    assert store("tag", "customers:prod", "2", "--expected", "2").code == 4
    assert store.ok("untag", "customers:prod", "--json").document == {"tag": "customers:prod", "removed": True}
    assert store("cat", "customers:prod/a").code == 3
    reasons = [event["reason"] for event in store.ok("log", "customers:", "--json").document["events"]]
    assert "all of it" in reasons


def test_transaction_of_many_processes(store: Cli) -> None:
    store.write("one/a", "1")
    store.write("two/b", "2")
    token = store.ok("tx", "begin", "ns", "-q", "-m", "both").out.strip()
    (listed,) = store.ok("tx", "list", "--json").document["transactions"]
    assert (listed["token"], listed["namespace"], listed["message"]) == (token, "ns", "both")
    store.ok("tx", "add", token, "one", "--part", "first")
    store.ok("tx", "add", token, "two/b", "--part", "second", "--to", "x")
    assert store("tx", "add", token, "nope", "--part", "third").code == 3
    assert store("tx", "commit", token, "--expected-parts", "3").code == 4
    document = store.ok("tx", "commit", token, "--expected-parts", "2", "--json").document
    assert (document["number"], document["uploaded"]) == (1, 2)
    assert store.ok("ls", "ns", "-R", "-q").out == "a\nx/b\n"
    dropped = store.ok("tx", "begin", "ns", "-q").out.strip()
    assert store.ok("tx", "abort", dropped, "--json").document == {"token": dropped, "aborted": True}
    assert store("tx", "commit", "nonsense").code == 2


def test_verify_says_no_when_bytes_are_damaged(store: Cli) -> None:
    store.write("out/a", "1" * 100)
    store.write("out/b", "2" * 100)
    store.ok("upload", "out", "ns")
    whole = store.ok("verify", "ns", "--json").document
    assert whole == {"uri": "vds://ns@1/", "ok": True, "files": 2, "size_bytes": 200, "failures": {}}
    (pack,) = [path for path in Path(store.directory / "store").rglob("*.pack*") if b"1" * 100 in path.read_bytes()]
    pack.chmod(0o644)
    pack.write_bytes(pack.read_bytes().replace(b"1" * 100, b"x" * 100))
    outcome = store("verify", "ns", "--json")
    assert outcome.code == 1
    assert list(outcome.document["failures"]) == ["a"]
    assert store("verify", "ns", "-q").out == "a\n"
    assert store("cat", "ns@1/a").code == 5


def test_doctor(shared: Cli) -> None:
    document = shared.ok("doctor", "--write-test", "--json").document
    assert document["ok"] is True
    assert all(set(check) == {"name", "ok", "detail", "hint"} for check in document["checks"])
    assert shared("doctor", "--store", "./nowhere").code == 3


def test_index_upgrade(shared: Cli) -> None:
    document = shared.ok("index", "upgrade", "--json").document
    assert document["before"] == document["after"]


def test_an_empty_directory_is_a_warning_in_plain_words(store: Cli) -> None:
    (store.directory / "empty").mkdir()
    assert store.ok("upload", "empty", "ns").err.startswith("warning: empty holds no files")
