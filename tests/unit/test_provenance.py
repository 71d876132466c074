"""What is recorded of where a version came from, and what never is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from vds import provenance
from vds.provenance import author, collect_provenance, cut, describe_command

# The shape of an account key: 64 bytes in base 64.
ACCOUNT_KEY = "A" * 86 + "=="


def test_facts_of_this_process(tmp_path: Path) -> None:
    facts = collect_provenance({"USER": "me"}, ["job.py", "--epochs", "3"], cwd=tmp_path)
    assert {"host", "pid", "user", "python", "vds", "command"} <= set(facts)
    assert facts["user"] == "me"
    assert facts["command"] == "job.py --epochs 3"
    assert all(isinstance(value, str) for value in facts.values())


def test_only_listed_variables_are_taken(tmp_path: Path) -> None:
    environ = {
        "AZUREML_RUN_ID": "run-1",
        "AZURE_ML_INPUT_raw": "/mnt/raw",
        "GITHUB_SHA": "abc",
        "AZUREML_RUN_TOKEN": "x",
        "AZURE_CLIENT_SECRET": "x",
        "SOMETHING": "x",
    }
    facts = collect_provenance(environ, [], cwd=tmp_path)
    assert {"AZUREML_RUN_ID", "AZURE_ML_INPUT_raw", "GITHUB_SHA"} <= set(facts)
    assert not {"AZUREML_RUN_TOKEN", "AZURE_CLIENT_SECRET", "SOMETHING"} & set(facts)


@pytest.mark.parametrize(
    "secret",
    [
        "https://a.blob.core.windows.net/c?sig=abc",
        "AccountKey=abc",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        ACCOUNT_KEY,
        '{"token": "abc"}',
    ],
)
def test_listed_variables_that_look_secret_are_left_out(tmp_path: Path, secret: str) -> None:
    facts = collect_provenance({"AZUREML_CR_COMPUTE_CONTEXT": secret}, [secret], cwd=tmp_path)
    assert "AZUREML_CR_COMPUTE_CONTEXT" not in facts
    assert secret not in facts["command"]


def test_userinfo_of_urls_is_taken_off(tmp_path: Path) -> None:
    environ = {
        "MLFLOW_TRACKING_URI": "https://me:hunter2@mlflow.example/x",
        "AZUREML_GIT_REPOSITORY_URI": "https://ghp_0123456789abcdefghij@github.example/team/code.git",
    }
    facts = collect_provenance(environ, [], cwd=tmp_path)
    assert facts["MLFLOW_TRACKING_URI"] == "https://mlflow.example/x"
    assert facts["AZUREML_GIT_REPOSITORY_URI"] == "https://github.example/team/code.git"


@pytest.mark.parametrize(
    "argv",
    [
        ["--password", "hunter2"],
        ["--password=hunter2"],
        ["--db-password", "hunter2"],
        ["--api-key", "hunter2"],
        ["-account_key", "hunter2"],
        ["--connection-string", "hunter2"],
        ["postgresql://me:hunter2@host/db"],
        ["https://a/c?sv=1&sig=hunter2"],
    ],
)
def test_secrets_on_the_command_line(argv: list[str]) -> None:
    shown = describe_command(["job.py", *argv])
    assert "hunter2" not in shown
    assert "***" in shown


def test_ordinary_arguments_stay() -> None:
    assert describe_command(["job.py", "--monkey", "1", "a b"]) == "job.py --monkey 1 'a b'"


def test_command_at_its_limit_and_past_it() -> None:
    whole = "x." * (provenance.COMMAND_BYTES_MAX // 2)
    assert describe_command([whole]) == whole
    longer = describe_command([whole + "x"])
    assert longer.endswith("…")
    assert len(longer.encode()) <= provenance.COMMAND_BYTES_MAX


def test_values_are_bounded_valid_text(tmp_path: Path) -> None:
    environ = {f"AZURE_ML_INPUT_{number:04}": "ü." * 1000 for number in range(200)}
    environ["AZUREML_RUN_ID"] = "a\udcff\x1b[2J\nb"
    facts = collect_provenance(environ, [], cwd=tmp_path)
    assert sum(name.startswith("AZURE_ML_INPUT_") for name in facts) == provenance.NAMED_VALUES_MAX
    assert max(len(value.encode()) for value in facts.values()) <= provenance.VALUE_BYTES_MAX
    assert facts["AZUREML_RUN_ID"] == "a\\udcff [2J b"


def test_cut_never_splits_a_character() -> None:
    assert cut("üüü", 6) == "üüü"
    assert cut("üüüü", 6) == "ü…"


def test_author() -> None:
    assert author({"VDS_AUTHOR": "ana", "USER": "os"}, "principal") == "ana"
    assert author({"USER": "os"}, "principal") == "principal"
    assert author({"USER": "os"}) == "os"
    assert author({}) != ""


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_commit_and_dirty_flag(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "first")
    clean = collect_provenance({}, [], cwd=tmp_path)
    assert (clean["git.commit"], clean["git.dirty"]) == (git("rev-parse", "HEAD"), "false")
    (tmp_path / "a").write_text("2")
    again = collect_provenance({}, [], cwd=tmp_path)
    assert again["git.dirty"] == "false", "asked once a process and directory"
    provenance._git_facts.cache_clear()
    assert collect_provenance({}, [], cwd=tmp_path)["git.dirty"] == "true"


def test_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    provenance._git_facts.cache_clear()
    assert "git.commit" not in collect_provenance({}, [], cwd=tmp_path)
