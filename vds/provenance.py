"""Say where a version came from: machine, program, code, job.

Guarantees:
- only what is on a list is taken from the environment, and nothing that looks like a secret, so a record can be shown to anyone;
- every value is text of bounded size, valid Unicode without control characters;
- nothing here raises or waits: what cannot be found out within two seconds is left out.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from blake3 import blake3

from vds._version import __version__
from vds.errors import redact
from vds.model.run import RUN_FIELD
from vds.model.ulid import is_ulid

COMMAND_BYTES_MAX = 4096
VALUE_BYTES_MAX = 1024
NAMED_VALUES_MAX = 64
GIT_TIMEOUT_S = 2.0

RUN_VARIABLE = "VDS_RUN"
"""Names the run that a process works for; its children inherit it."""

_VARIABLES = (
    *("AZUREML_RUN_ID", "AZUREML_ARM_SUBSCRIPTION", "AZUREML_ARM_RESOURCEGROUP", "AZUREML_ARM_WORKSPACE_NAME"),
    *("AZUREML_ARM_PROJECT_NAME", "AZUREML_EXPERIMENT_ID", "AZUREML_WORKSPACE_ID"),
    *("AZUREML_SERVICE_ENDPOINT", "AZUREML_DISCOVERY_SERVICE_ENDPOINT", "AZUREML_EXPERIMENTATION_HOST"),
    *("AZUREML_GIT_REPOSITORY_URI", "AZUREML_GIT_BRANCH", "AZUREML_GIT_COMMIT", "AZUREML_GIT_DIRTY"),
    *("AZUREML_GIT_BUILD_ID", "AZUREML_GIT_BUILD_URI"),
    *("AZUREML_DATASET_ENVIRONMENT_VARS", "AZUREML_DATASET_FILE_OUTPUTS", "AZUREML_LINK_DATASET_OUTPUTS"),
    *("AZUREML_CR_NODE_RANK", "AZ_BATCHAI_TASK_TYPE", "AZ_BATCHAI_TASK_INDEX", "AZUREML_CR_COMPUTE_CONTEXT"),
    *("AZUREML_CR_AZUREML_CONTEXT", "AZUREML_TARGET_TYPE", "AZUREML_COMMUNICATOR", "CI_NAME", "AZUREML_ENTRY_SCRIPT"),
    *("DEFAULT_IDENTITY_CLIENT_ID", "AZUREML_IDENTITY_IN_USE", "AZUREML_OBO_ENABLED", "ENABLE_SAI_AUTH"),
    *("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI"),
    *("GITHUB_RUN_ID", "GITHUB_SHA", "GITHUB_REPOSITORY", "BUILD_BUILDID", "CI_COMMIT_SHA", "SLURM_JOB_ID"),
)
_VARIABLE_PREFIXES = ("AZUREML_DATAREFERENCE_", "AZURE_ML_INPUT_")
_USER_VARIABLES = ("LOGNAME", "USER", "LNAME", "USERNAME")

_SECRET_FLAG = re.compile(
    r"(?i)--?(?:[\w.-]*(?:passw(?:or)?d|passphrase|pwd|secret|token|credential|connection[_-]?string|sas)|(?:[\w.-]+[_-])?key|pass|auth)"
)
_USERINFO = re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]{0,40}://)[^/?#\s'\"]*@")
# In an argument, where a password may hold spaces and quotes as well.
_PASSWORD = re.compile(
    r"(\b(?!vds:)[A-Za-z][A-Za-z0-9+.-]{0,40}://[^/:@\s]*:)[^/?#\n]*(?=@)|(\bpostgres[\w+]*://[^/:@\s]*:)[^@\n]*(?=@)"
)


def collect_provenance(
    environ: Mapping[str, str] | None = None, argv: Sequence[str] | None = None, cwd: str | os.PathLike[str] | None = None
) -> dict[str, str]:
    """Return what is known of this process: host, pid, user, command, versions, git commit, and the job's variables.

    Args:
        environ: the environment to read; this process's own by default.
        argv: the command line; this process's own by default.
        cwd: the directory whose git commit is recorded; the current one by default.
    """
    run = find_run() if environ is None else _run_in(environ)
    environ = os.environ if environ is None else environ
    found = {
        RUN_FIELD: run,
        "host": socket.gethostname(),
        "pid": str(os.getpid()),
        "user": _find_user(environ),
        "python": platform.python_version(),
        "vds": __version__,
        **_git_facts(os.path.abspath(cwd) if cwd is not None else _current_directory(), os.getpid()),
        **_job_variables(environ),
    }
    facts = {key: cut(value, VALUE_BYTES_MAX) for key, value in found.items() if value}
    facts["command"] = describe_command(sys.argv if argv is None else argv)
    return facts


_run: ContextVar[str] = ContextVar("vds_run", default="")


@contextmanager
def working_for(run: str, *, is_inherited: bool = True) -> Iterator[None]:
    """Have what this thread writes, and what the processes write that are started meanwhile, be of a run.

    A process has one environment: of runs that overlap in several threads, its children inherit the one that began first.

    Args:
        run: its id.
        is_inherited: whether it is said in the environment too.
    """
    token = _run.set(run)
    if not is_inherited:
        try:
            yield
        finally:
            _run.reset(token)
        return
    is_first = not os.environ.get(RUN_VARIABLE)
    before = os.environ.get(RUN_VARIABLE, "")
    is_inner = before != "" and before == token.old_value
    if is_first or is_inner:
        os.environ[RUN_VARIABLE] = run
    try:
        yield
    finally:
        _run.reset(token)
        if os.environ.get(RUN_VARIABLE) == run:
            if before:
                os.environ[RUN_VARIABLE] = before
            else:
                del os.environ[RUN_VARIABLE]


def find_run() -> str:
    """Return the run that this thread, else this process, works for; empty for none."""
    return _run.get() or _run_in(os.environ)


def _run_in(environ: Mapping[str, str]) -> str:
    run = environ.get(RUN_VARIABLE, "")
    return run if is_ulid(run) else ""


def describe_code(argv: Sequence[str] | None = None) -> dict[str, str]:
    """Return the script of a command line and the digest of its bytes; nothing where there is no such file."""
    argv = sys.argv if argv is None else argv
    path = Path(argv[0]) if argv else Path()
    try:
        return {"code": cut(str(path), VALUE_BYTES_MAX), "code.digest": f"b3:{blake3(path.read_bytes()).hexdigest()}"}
    except OSError:
        return {}


@functools.cache
def describe_environment() -> dict[str, str]:
    """Return the interpreter, the platform, and one digest of all installed packages and their versions."""
    found = {f"{each.metadata['Name']}=={each.version}".lower() for each in importlib.metadata.distributions() if each.metadata}
    packages = "\n".join(sorted(found))
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": str(len(found)),
        "packages.digest": f"b3:{blake3(packages.encode()).hexdigest()}",
    }


def author(environ: Mapping[str, str] | None = None, credential_principal: str | None = None) -> str:
    """Return who is writing: VDS_AUTHOR, else the credential's principal, else the user of this machine."""
    environ = os.environ if environ is None else environ
    name = environ.get("VDS_AUTHOR") or credential_principal or _find_user(environ) or "unknown"
    return cut(name, VALUE_BYTES_MAX)


def describe_command(argv: Iterable[str]) -> str:
    """Return a command line as a shell would read it, without its secrets, at most 4 KiB."""
    # Cut only now: half of a secret no longer looks like one.
    return cut(" ".join(shlex.quote(cut(word, COMMAND_BYTES_MAX)) for word in safe_words(argv)), COMMAND_BYTES_MAX)


def safe_words(argv: Iterable[str]) -> list[str]:
    """Return the words of a command line, `***` in the place of its secrets."""
    shown, secret_follows = [], False
    for argument in argv:
        name, is_pair, _ = argument.partition("=")
        if secret_follows and not argument.startswith("--"):
            shown.append("***")
        elif is_pair and _SECRET_FLAG.fullmatch(name):
            shown.append(f"{name}=***")
        else:
            shown.append(_without_passwords(argument))
        secret_follows = _SECRET_FLAG.fullmatch(argument) is not None
    return shown


def without_secrets(values: Mapping[str, str]) -> dict[str, str]:
    """Return named values, `***` in the place of each that is called like a secret, and of what looks like one in others."""
    return {name: "***" if _SECRET_FLAG.fullmatch(f"--{name}") else _without_passwords(value) for name, value in values.items()}


def _without_passwords(text: str) -> str:
    return redact(_PASSWORD.sub(lambda match: f"{match[1] or match[2]}***", text))


def cut(text: str, bytes_max: int) -> str:
    """Return `text` as valid Unicode on one line, at most `bytes_max` bytes of UTF-8, its end marked when cut."""
    clean = text.encode(errors="backslashreplace").decode()
    clean = "".join(character if character.isprintable() else " " for character in clean).strip()
    encoded = clean.encode()
    if len(encoded) <= bytes_max:
        return clean
    return encoded[: bytes_max - len("…".encode())].decode(errors="ignore") + "…"


def _job_variables(environ: Mapping[str, str]) -> dict[str, str]:
    prefixed = sorted(name for name in environ if name.startswith(_VARIABLE_PREFIXES))[:NAMED_VALUES_MAX]
    found = {}
    for name in (*_VARIABLES, *prefixed):
        whole = _USERINFO.sub(r"\1", environ.get(name, ""))
        value = cut(whole, VALUE_BYTES_MAX)
        # What looks like a secret is left out whole: half of one, or its place, is of no use to anyone.
        if value and redact(whole) == whole:
            found[name] = value
    return found


def _find_user(environ: Mapping[str, str]) -> str:
    for name in _USER_VARIABLES:
        if environ.get(name):
            return environ[name]
    try:
        import pwd  # not on Windows, where USERNAME is always set

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else ""


def _current_directory() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # it was removed
        return ""


@functools.lru_cache(maxsize=16)
def _git_facts(cwd: str, pid: int) -> dict[str, str]:
    # `pid` is part of the cache's key: a forked worker may run long after its parent asked.
    if not cwd or (commit := _git(cwd, "rev-parse", "--verify", "HEAD")) is None:
        return {}
    facts = {"git.commit": commit}
    if (changes := _git(cwd, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty")) is not None:
        facts["git.dirty"] = "true" if changes else "false"
    return facts


def _git(cwd: str, *arguments: str) -> str | None:
    # Without optional locks `git status` writes nothing, so it cannot disturb a git command of the user's; without the monitor it
    # starts no program that the repository names.
    environ = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", "-C", cwd, *arguments],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):  # no git, or it took too long
        return None
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None
