"""The null blob server: compiled on first use, started on a free port, ended with this process.

It takes what a blob service takes, forgets the bytes, and answers after a settable latency. What it remembers and what it leaves
out stands at the top of nullserver/service.c.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACCOUNT = "devstoreaccount1"
CONTAINER = "bench"
# Public, the same for every emulator; the null server checks no signature.
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

# One thread takes 8 GB/s of plain HTTP, more than the clients of two cores send. Decryption is bound to its core, so it gets two.
PLAIN_THREADS = 1
TLS_THREADS = 2

_SOURCES = Path(__file__).parent / "nullserver"
_CACHE = Path(__file__).resolve().parents[1] / ".bench"


class ServerError(RuntimeError):
    """The null server could not be built or started; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate for 127.0.0.1, its key, and the authority that clients must trust."""

    path: Path
    key_path: Path
    ca_path: Path


@dataclass(frozen=True, slots=True)
class NullServer:
    """A running null server.

    Attributes:
        ca_path: the authority that clients must trust; None when the server speaks plain HTTP.
    """

    port: int
    latency_ms: float
    ca_path: Path | None
    pid: int

    @property
    def account_url(self) -> str:
        """Where the account answers, as in http://127.0.0.1:PORT/devstoreaccount1."""
        return f"{'https' if self.ca_path else 'http'}://127.0.0.1:{self.port}/{ACCOUNT}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which clients in any language trust the server; empty for plain HTTP."""
        if self.ca_path is None:
            return {}
        return {name: str(self.ca_path) for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")}

    def reset(self, *, counters_only: bool = False) -> None:
        """Forget all blobs and counters, or the counters alone."""
        ask(self.account_url, "/_reset?counters" if counters_only else "/_reset")

    def stats(self) -> dict[str, Any]:
        """Return the counters since the last reset; times are of the clock that `time.monotonic` shows."""
        counters: dict[str, Any] = json.loads(ask(self.account_url, "/_stats"))
        return counters

    def cpu_s(self) -> float:
        """Return the CPU seconds the server has used: beside a run's seconds, how near it was to being the limit."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask(account_url: str, path: str) -> bytes:
    """Return what the server that answers at `account_url` says of itself at `path`."""
    scheme, _, rest = account_url.partition("://")
    context = None
    if scheme == "https":
        context = ssl._create_unverified_context()
    with urllib.request.urlopen(f"{scheme}://{rest.partition('/')[0]}{path}", context=context, timeout=60) as answer:
        body: bytes = answer.read()
        return body


@contextmanager
def null_server(
    *, latency_ms: float = 0, is_tls: bool = False, keeps_bodies: bool = False, port: int = 0
) -> Iterator[NullServer]:
    """Run a null server on `port` (0: any free one) until the block ends.

    With `keeps_bodies` it holds all blobs in memory and gives them back.

    Raises:
        ServerError: there is no compiler or no OpenSSL, or it does not start.
    """
    certificate = find_certificate() if is_tls else None
    command = [str(build()), "--port", str(port), "--latency-ms", str(latency_ms)]
    command += ["--threads", str(TLS_THREADS if is_tls else PLAIN_THREADS)]
    if keeps_bodies:
        command += ["--keep", "1"]
    if certificate:
        command += ["--cert", str(certificate.path), "--key", str(certificate.key_path)]
    # Its standard input is ours to hold: when this process dies, the server ends with it.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            raise ServerError(f"the null server did not start on port {port}: it ended with {process.wait()}")
        yield NullServer(int(line.split()[-1]), latency_ms, certificate.ca_path if certificate else None, process.pid)
    finally:
        process.stdin.close()
        process.wait(timeout=10)
        process.stdout.close()


def build(cache: Path = _CACHE) -> Path:
    """Return the server's program, compiled anew when its sources have changed.

    Raises:
        ServerError: there is no C compiler, or the headers of OpenSSL are not installed.
    """
    sources = sorted(_SOURCES.glob("*.[ch]"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    program = cache / f"nullserver-{digest}"
    if program.exists():
        return program
    hint = "on Debian: apt-get install gcc libssl-dev"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise ServerError(f"the null server is written in C and there is no compiler; {hint}")
    cache.mkdir(exist_ok=True)
    fresh = program.with_suffix(f".{os.getpid()}")
    units = [str(source) for source in sources if source.suffix == ".c"]
    command = [compiler, "-O2", "-Wall", "-o", str(fresh), *units, "-lssl", "-lcrypto", "-lpthread"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        raise ServerError(f"the null server does not compile; {hint}\n{made.stderr}")
    fresh.replace(program)
    return program


def find_certificate(cache: Path = _CACHE) -> Certificate:
    """Return a certificate for 127.0.0.1 and the authority that signed it, made on first use and valid for ten years.

    Raises:
        ServerError: the program `openssl` is missing or refuses.
    """
    found = cache / "tls"
    if not found.is_dir():
        cache.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as text:
            made = Path(text) / "tls"
            made.mkdir()
            try:
                _make_certificate(made)
            except (OSError, subprocess.CalledProcessError) as err:
                raise ServerError(f"no certificate for the null server: {err}; on Debian: apt-get install openssl") from err
            made.rename(found)
    return Certificate(found / "server.pem", found / "server.key", found / "ca.pem")


def _make_certificate(directory: Path) -> None:
    # RSA, since that is what the public service shows. The authority is apart: rustls refuses one that is its own server.
    days, key = ["-days", "3650"], ["-newkey", "rsa:2048", "-nodes"]
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
    usage = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth"]
    authority = ["-x509", "-subj", "/CN=null server authority", "-keyout", "ca.key", "-out", "ca.pem"]
    server = ["-x509", "-CA", "ca.pem", "-CAkey", "ca.key", "-subj", "/CN=null server", "-addext", names, *usage]
    for rest in (authority, [*server, "-keyout", "server.key", "-out", "server.pem"]):
        subprocess.run(["openssl", "req", *key, *days, *rest], cwd=directory, capture_output=True, check=True)
