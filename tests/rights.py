"""A store whose owner let readers, writers and collectors in, each with its own rights and no more; and all that can be read.

On PostgreSQL each is a role that has run nothing but what `vds index grants` prints for it; its driver refuses what its role in
Azure would.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

import vds
import vds.store.handle
from tests.support import read_tree, read_version, write_tree
from vds.blobs.driver import Buffer
from vds.blobs.memory import MemoryDriver
from vds.errors import AccessDeniedError
from vds.model.access import ACCESSES, Access
from vds.store.connect import find_grants
from vds.store.lock import lock_refs

CONNECT = import_module("vds.store.connect")  # `vds.store.connect` is the function
SCHEMA = "team_raw"
FILES = {"a.txt": b"a", "sub/b.txt": b"b" * 5000, "sub/c.bin": bytes(range(256)) * 8192}  # a pack, and a blob of its own


class LimitedDriver(MemoryDriver):
    """Blobs in memory, of which one may do only what a role in Azure lets one; what was refused is counted."""

    def __init__(self, name: str, access: Access) -> None:
        super().__init__(name)
        self._access = access
        self.refused: Counter[str] = Counter()

    def _check(self, what: str, *allowed: Access) -> None:
        if self._access not in allowed:
            self.refused[what] += 1
            raise AccessDeniedError(f"{what}: a {self._access} may not")

    def create_container(self) -> None:
        self._check("create")

    def put_if_absent(self, key: str, body: Buffer, metadata: Mapping[str, str] | None = None) -> str:
        self._check("put", "writer", "collector")
        return super().put_if_absent(key, body, metadata)

    def stage_block(self, key: str, block_id: str, body: Buffer) -> None:
        self._check("stage", "writer", "collector")
        super().stage_block(key, block_id, body)

    def commit_blocks(self, key: str, block_ids: Sequence[str], metadata: Mapping[str, str] | None = None) -> str:
        self._check("commit", "writer", "collector")
        return super().commit_blocks(key, block_ids, metadata)

    def copy_blob(self, source_key: str, target_key: str) -> str:
        self._check("copy", "writer", "collector")
        return super().copy_blob(source_key, target_key)

    def delete_blob(self, key: str, etag: str | None = None) -> bool:
        self._check("delete", "collector")
        return super().delete_blob(key, etag)


@dataclass
class Site:
    """A store whose owner let others in: each logs in as a role of its own."""

    name: str
    owner_url: str
    urls: dict[Access, str]

    def login(self, access: Access, monkeypatch: pytest.MonkeyPatch) -> LimitedDriver:
        """Have this test reach the store as `access`, in the index and in the container."""
        driver = LimitedDriver(self.name, access)
        for module in (CONNECT, vds.store.handle):
            monkeypatch.setattr(module, "open_driver", lambda url, credential=None: driver)
        monkeypatch.setenv("VDS_INDEX", self.urls[access])
        return driver

    def connect(self, *, read_only: bool = False) -> vds.Store:
        return vds.connect(f"memory://{self.name}", read_only=read_only)

    def snapshot(self) -> dict[str, list[Any]]:
        """Return every row of the index, and every blob."""
        with psycopg.connect(self.owner_url) as connection:
            connection.execute(f"SET search_path = {SCHEMA}".encode())
            names = [row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", (SCHEMA,))]
            rows = {name: sorted(connection.execute(f'SELECT * FROM "{name}"'.encode()), key=repr) for name in names}
        driver = MemoryDriver(self.name)
        return {**rows, "blobs": [(blob.key, blob.etag) for blob in driver.list_blobs()]}


def let_in(index: str, store_url: str, roles: Mapping[Access, str]) -> dict[Access, str]:
    """Make the roles, have the owner of the index run what is printed for each, and return the urls they log in with."""
    parts = urlsplit(index)
    urls = {}
    with psycopg.connect(parts._replace(query="").geturl()) as owner:
        for access, role in roles.items():
            owner.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD 'pw'".encode())
            for statement in find_grants(access, role, store_url, index=index).sql:
                owner.execute(statement.encode())
            urls[access] = parts._replace(netloc=f"{role}:pw@{parts.hostname}:{parts.port}").geturl()
    return urls


def make_site(database_url: str, tmp_path: Path) -> Site:
    name = f"rights-{uuid.uuid4().hex}"
    index = f"{database_url}?schema={SCHEMA}"
    with psycopg.connect(database_url, autocommit=True) as owner:
        # As careful owners have it: nobody comes in unasked.
        owner.execute(f"REVOKE ALL ON DATABASE {urlsplit(database_url).path[1:]} FROM PUBLIC".encode())
    with vds.connect(f"memory://{name}", index=index, create=True) as store:
        raw = store.namespace("team/raw")
        first = raw.upload(write_tree(tmp_path / "first", FILES), message="first", show_progress=False)
        raw.upload(write_tree(tmp_path / "second", {**FILES, "a.txt": b"another"}), message="second", show_progress=False)
        store.dataset("customers").register(first.version, tags=["prod"])
        raw.transaction(message="left open")
    roles: dict[Access, str] = {access: f"{access}-{name[-8:]}" for access in ACCESSES}
    return Site(name, database_url, let_in(index, f"memory://{name}", roles))


def spoil_large(site: Site) -> None:
    """Have the container hold other bytes of the same length for the one large object."""
    blobs = MemoryDriver(site.name)._container.blobs
    key = next(key for key in blobs if key.startswith("objects/"))
    blobs[key] = replace(blobs[key], body=bytes(len(blobs[key].body)))


def forget(site: Site, *prefixes: str) -> None:
    """Have the container lose what is below the prefixes."""
    blobs = MemoryDriver(site.name)._container.blobs
    for key in [key for key in blobs if key.startswith(prefixes)]:
        del blobs[key]


READS: dict[str, Callable[[vds.Store, Path], object]] = {
    "get": lambda s, d: read_version(s.get("team/raw@1")),
    "resolve": lambda s, d: s.resolve("customers:prod"),
    "ls": lambda s, d: (s.namespaces(), s.datasets(), list(s.get("team/raw").entries("sub")), s.get("team/raw").children()),
    "open": lambda s, d: s.get("team/raw").open("sub/c.bin").read(70_000),
    "range": lambda s, d: s.get("team/raw").read_bytes("sub/c.bin", 1000, 20),
    "read_many": lambda s, d: list(s.get("team/raw").read_many(["a.txt", "sub/b.txt"])),
    "stream": lambda s, d: list(s.get("team/raw").stream(shuffle_seed=1)),
    "fetch": lambda s, d: s.get("team/raw").fetch("a.txt").read_bytes(),
    "download": lambda s, d: (s.get("team/raw@1").download(d / "out", show_progress=False), read_tree(d / "out") == FILES),
    "checkout": lambda s, d: s.get("team/raw@1").checkout(d / "work", show_progress=False),
    "export": lambda s, d: s.get("team/raw@1").export(d / "plain", show_progress=False),
    "diff": lambda s, d: (s.namespace("team/raw").diff(1, 2), s.get("team/raw").diff()),
    "log": lambda s, d: (s.namespace("team/raw").log(), s.namespace("team/raw").log("a.txt"), s.get("team/raw").parent),
    "tags": lambda s, d: (s.dataset("customers").tags(), s.dataset("customers").releases()),
    "history": lambda s, d: (s.dataset("customers").history(), s.dataset("customers").latest()),
    "transactions": lambda s, d: s.transactions()[0].message,
    "verify": lambda s, d: s.get("team/raw").verify().ok,
    "content digest": lambda s, d: s.get("team/raw").content_digest,
    "lock": lambda s, d: lock_refs(["customers:prod"], s, d / "vds.lock"),
    "now": lambda s, d: s.now(),
    "doctor": lambda s, d: s.doctor().ok,
    "fsck": lambda s, d: s.fsck(chain=True, full=True, resume=False, show_progress=False).ok,
    "what would expire": lambda s, d: s.expire("team/raw", keep_last=1),
    "what would be collected": lambda s, d: s.gc(show_progress=False),
}
