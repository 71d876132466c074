"""`vds lock`, `vds now`, `--locked`, as they are typed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from vds.store import connect
from vds.store.lock import lock_refs


@pytest.fixture
def project(vds: Cli) -> Cli:
    """A store whose customers:prod shows the first of two versions, and a lock on that; made here, without a process each."""
    vds.write("vds.toml", 'store = "./store"\n')
    with connect(vds.directory / "store", create=True) as store:
        for turn, text in enumerate(("one", "two")):
            vds.write("out/a.txt", text)
            version = store.namespace("team/raw").upload(vds.directory / "out", show_progress=False).version
            if not turn:
                store.dataset("customers").register(version, tags=["prod"])
                lock_refs(["customers:prod"], store, vds.directory / "vds.lock")
    return vds


def move(project: Cli) -> None:
    project.ok("tag", "customers:prod", "team/raw@2")


class TestLock:
    def test_what_changed_is_printed(self, project: Cli) -> None:
        outcome = project.ok("lock", "customers:prod", "team/raw")
        assert outcome.out.splitlines() == ["customers:prod  1 (unchanged)", "team/raw        2 (new)"]
        assert outcome.err.endswith("vds.lock: 1 change\n")
        move(project)
        assert project.ok("lock", "--all").out.splitlines() == ["customers:prod  1 → 2", "team/raw        2 (unchanged)"]
        assert project.ok("lock", "--all", "-q").out == ""
        assert project.ok("lock", "team/raw@1", "team/raw", "-q").out == "team/raw@1\n"

    def test_the_document(self, project: Cli) -> None:
        move(project)
        document = project.ok("lock", "customers:prod", "--json").document
        (change,) = document["changes"]
        assert (change["ref"], change["before"]["release"], change["after"]["release"]) == ("customers:prod", 1, 2)
        assert (change["after"]["namespace"], change["after"]["version"], change["after"]["files"]) == ("team/raw", 2, 1)
        locked = tomllib.loads(Path(document["file"]).read_text(encoding="utf-8"))["refs"]["customers:prod"]
        assert locked["digest"] == change["after"]["digest"] == project.ok("show", "team/raw@2", "--json").document["digest"]

    @pytest.mark.parametrize("arguments", [[], ["--all", "team/raw"], ["--all", "--check", "team/raw"]])
    def test_what_is_to_be_locked_must_be_said(self, project: Cli, arguments: list[str]) -> None:
        before = (project.directory / "vds.lock").read_bytes()
        assert project("lock", *arguments).code == 2
        assert (project.directory / "vds.lock").read_bytes() == before

    def test_errors(self, project: Cli) -> None:
        assert project("lock", "customers:none").code == 3
        assert project("lock", "customers:prod/a").code == 2
        assert project("lock", "--all", "--file", "none.lock").code == 3
        project.write("vds.lock", "format = 9\n")
        assert project("lock", "customers:prod").code == 9

    def test_another_file(self, project: Cli) -> None:
        project.ok("lock", "team/raw", "--file", "other.lock")
        assert list(tomllib.loads((project.directory / "other.lock").read_text())["refs"]) == ["team/raw"]

    def test_no_secret_is_written(self, project: Cli) -> None:
        text = (project.directory / "vds.lock").read_text()
        assert not re.search(r"(?i)sig=|key=|password|@[^\"]*:.*@", text)


class TestCheck:
    def test_0_and_1(self, project: Cli) -> None:
        assert project.ok("lock", "--check").out == ""
        move(project)
        outcome = project("lock", "--check")
        assert (outcome.code, outcome.out) == (1, "customers:prod  1 → 2\n")
        outcome = project("lock", "--check", "-q")
        assert (outcome.code, outcome.out, outcome.err) == (1, "customers:prod\n", "")
        document = project("lock", "--check", "--json").document
        assert not document["ok"]
        assert document["differences"] == [{"ref": "customers:prod", "kind": "moved", "locked": "1", "found": "2"}]

    def test_2_and_above_when_it_cannot_be_asked(self, project: Cli) -> None:
        assert project("lock", "--check", "team/raw").code == 3  # it is not locked
        assert project("lock", "--check", "--file", "none.lock").code == 3
        assert project("lock", "--check", "--store", "./none").code == 3
        away = {"VDS_INDEX": "postgresql://vds:hunter2@127.0.0.1:9/vds"}  # the discard port: nothing answers
        assert project("lock", "--check", environ=away).code in (2, 6)
        project.write("vds.lock", "<<<<<<< HEAD\n")
        outcome = project("lock", "--check")
        assert outcome.code == 2
        assert "line 1" in outcome.err

    def test_without_settings_the_store_of_the_lock_is_asked(self, project: Cli) -> None:
        (project.directory / "vds.toml").unlink()
        assert project.ok("lock", "--check").code == 0
        assert project.ok("lock", "--all").code == 0
        assert project("lock", "team/raw").code == 3  # in which store?


class TestLocked:
    @pytest.mark.parametrize("verb", ["download", "checkout"])
    def test_the_locked_version_is_taken(self, project: Cli, verb: str) -> None:
        move(project)
        assert project.ok(verb, "customers:prod", "there", "--locked", "-q").out == "vds://team/raw@1/\n"
        assert (project.directory / "there" / "a.txt").read_text() == "one"
        project.ok(verb, "customers:prod", "now", "-q")
        assert (project.directory / "now" / "a.txt").read_text() == "two"

    @pytest.mark.parametrize("verb", ["download", "checkout"])
    def test_what_is_not_locked_is_not_resolved(self, project: Cli, verb: str) -> None:
        outcome = project(verb, "team/raw", "there", "--locked")
        assert outcome.code == 3
        assert "vds lock team/raw" in outcome.err
        assert not (project.directory / "there").exists()

    def test_another_digest_is_an_error(self, project: Cli) -> None:
        lock = project.directory / "vds.lock"
        lock.write_text(re.sub(r'\ndigest = "b3:....', '\ndigest = "b3:0000', lock.read_text()))
        outcome = project("download", "customers:prod", "there", "--locked")
        assert outcome.code == 5
        assert not (project.directory / "there").exists()

    def test_a_file_of_another_name_and_a_path_in_the_ref(self, project: Cli) -> None:
        (project.directory / "vds.lock").rename(project.directory / "other.lock")
        assert project("download", "customers:prod", "there", "--locked").code == 3
        outcome = project.ok("download", "customers:prod/a.txt", "there", "--lock-file", "other.lock", "-q")
        assert outcome.out == "vds://team/raw@1/a.txt\n"

    def test_without_settings_the_store_of_the_lock_is_read(self, project: Cli) -> None:
        (project.directory / "vds.toml").unlink()
        project.ok("download", "customers:prod", "there", "--locked")
        assert (project.directory / "there" / "a.txt").read_text() == "one"

    def test_another_store_is_refused(self, project: Cli) -> None:
        project.ok("init", "./other", "--user")
        outcome = project("download", "customers:prod", "there", "--locked", "--store", "./other")
        assert outcome.code == 2
        assert "was locked in store" in outcome.err


class TestNow:
    def test_only_the_moment_is_printed(self, project: Cli) -> None:
        for quiet in ([], ["-q"]):
            outcome = project.ok("now", *quiet)
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\n", outcome.out)
            assert outcome.err == ""
        document = project.ok("now", "--json").document
        assert set(document) == {"as_of", "store", "url"}

    def test_a_run_that_is_pinned_to_it(self, project: Cli) -> None:
        pinned = {"VDS_AS_OF": project.ok("now").out.strip()}
        move(project)
        project.write("out/a.txt", "three")
        assert project("upload", "out", "team/raw", "-q", environ=pinned).out == "vds://team/raw@3/\n"
        assert project("cat", "customers:prod/a.txt", environ=pinned).out == "one"
        assert project("cat", "team/raw@latest/a.txt", environ=pinned).out == "two"
        assert project("cat", "team/raw@3/a.txt", environ=pinned).out == "three"
        assert project("show", "team/raw", "--json", environ=pinned).document["number"] == 2
        assert project("cat", "customers:prod/a.txt").out == "two"

    @pytest.mark.parametrize("text", ["", "soon", "2999-01-01T00:00Z"])
    def test_what_is_no_moment_of_the_store(self, project: Cli, text: str) -> None:
        outcome = project("show", "team/raw", environ={"VDS_AS_OF": text})
        assert outcome.code == 2
        assert "vds now" in outcome.err
