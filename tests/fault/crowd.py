"""Writers, readers and a collector at work on one store, killed at random and begun again: `python -m tests.fault.crowd`.

Told what to do as `tests.support` says. Everything is loaded once; each worker is a fork, which says into a pipe what was
acknowledged to it, or what it saw that must not be. Who is killed, and when, is drawn from the seed. At the end all are stopped,
the store is collected, and everything that was ever acknowledged is looked at.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support import Place, list_keys, say, take_task, write_tree
from vds.errors import ConflictError, NotFoundError, OutcomeUnknownError, UnavailableError
from vds.store import Store, Version

NAMESPACES = ["team/raw", "team/good", "runs/a"]
LARGE_BYTES = 1024 * 1024 + 5
KEEP_LAST = 4
PAUSE_S_MAX = 1.0
WRITERS, READERS, COLLECTORS = 8, 2, 1
LISTS = ("objects/", "packs/", "changes/", "checkpoints/")


@dataclass
class Worker:
    """One fork at work; `report` is where it says things, one line of JSON each."""

    place: Place
    report: int
    number: int
    chance: random.Random
    work: Path

    def say(self, **facts: Any) -> None:
        os.write(self.report, json.dumps(facts).encode() + b"\n")  # in one write, which a kill cannot cut

    def write(self) -> None:
        """Make versions without end: new contents, contents that others have too, and copies."""
        store = self.place.connect()
        for turn in itertools.count():
            name = self.chance.choice(NAMESPACES)
            try:
                version = self.write_once(store, name, f"{self.number}-{turn}")
            except (ConflictError, UnavailableError, OutcomeUnknownError, NotFoundError):
                continue  # somebody else was in the way, the source of a copy expired, or nobody can tell: nothing was promised
            self.say(name=name, number=version.number, content=version.content_digest)

    def write_once(self, store: Store, name: str, stamp: str) -> Version:
        namespace = store.namespace(name)
        kind = self.chance.randrange(4)
        if kind == 0:
            return namespace.copy(self.chance.choice(NAMESPACES), f"copy-{self.number}").version
        if kind == 1:
            with namespace.transaction() as tx:
                tx.write_bytes(f"tx/{self.number}", stamp.encode())
                tx.write_bytes("tx/shared", str(self.chance.randrange(5)).encode())
            assert tx.version is not None
            return tx.version
        files = {f"set/{self.number}-{i}": f"{stamp}-{i} ".encode() * 50 for i in range(3)}
        files["common"] = str(self.chance.randrange(6)).encode() * 100  # what others may just be condemning
        if kind == 3:
            files[f"large/{self.chance.randrange(3)}"] = str(self.chance.randrange(8)).encode().ljust(LARGE_BYTES, b"x")
        tree = write_tree(self.work / f"{os.getpid()}-{stamp}", files)
        return namespace.upload(tree, mirror=self.chance.random() < 0.3, allow_shrink=True, show_progress=False).version

    def read(self) -> None:
        """Read versions without end: each is whole, or its name has gone."""
        store = self.place.connect()
        while True:
            try:
                for version in store.namespace(self.chance.choice(NAMESPACES)).log(limit=KEEP_LAST):
                    for entry in version.entries():
                        version.read_bytes(entry.path)
            except (NotFoundError, UnavailableError):
                continue

    def collect(self) -> None:
        """Expire and collect without end, with no grace at all."""
        store = self.place.connect()
        while True:
            try:
                for name in NAMESPACES:
                    store.expire(name, keep_last=KEEP_LAST, dry_run=False)
                store.gc(False, grace_hours=0, max_share=1, show_progress=False)
            except (NotFoundError, UnavailableError, ConflictError):
                continue


@dataclass
class Crowd:
    """Begins workers, kills them, and begins them again."""

    place: Place
    seed: int
    work: Path
    chance: random.Random = field(init=False)
    pids: dict[int, str] = field(default_factory=dict)
    pipes: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    acknowledged: dict[tuple[str, int], str] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def begin(self, kind: str) -> None:
        number = next(self.numbers)
        receive, report = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(receive)
                worker = Worker(self.place, report, number, random.Random(f"{self.seed}/{number}"), self.work)
                work: dict[str, Callable[[], None]] = {"writer": worker.write, "reader": worker.read, "collector": worker.collect}
                work[kind]()
            finally:
                kind_, error, _ = sys.exc_info()
                os.write(
                    report, json.dumps({"wrong": f"{kind} {number}: {kind_.__name__ if kind_ else ''}: {error}"}).encode() + b"\n"
                )
                sys.excepthook(*sys.exc_info())
                sys.stderr.flush()
                os._exit(3)
        os.close(report)
        self.pids[pid] = kind
        self.pipes[pid] = (receive, b"")

    def kill(self, pid: int) -> str:
        """Kill one, hear what it said to its end, and return what it was."""
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.listen(pid, to_the_end=True)
        os.close(self.pipes.pop(pid)[0])
        return self.pids.pop(pid)

    def listen(self, pid: int, *, to_the_end: bool = False) -> None:
        descriptor, rest = self.pipes[pid]
        while to_the_end or select.select([descriptor], [], [], 0)[0]:
            data = os.read(descriptor, 65536)
            if not data:
                break
            rest += data
        *lines, rest = rest.split(b"\n")
        self.pipes[pid] = (descriptor, rest)
        for line in lines:
            self.take(json.loads(line))

    def take(self, facts: dict[str, Any]) -> None:
        assert "wrong" not in facts, facts["wrong"]
        place = (facts["name"], facts["number"])
        known = self.acknowledged.setdefault(place, facts["content"])
        assert known == facts["content"], f"{place} was acknowledged twice, with two contents"

    def run(self, kills: int) -> None:
        for kind, count in (("writer", WRITERS), ("reader", READERS), ("collector", COLLECTORS)):
            for _ in range(count):
                self.begin(kind)
        try:
            for _ in range(kills):
                self.let_work()
                self.begin(self.kill(self.chance.choice(list(self.pids))))
        finally:
            for pid in list(self.pids):
                os.kill(pid, signal.SIGKILL)
        for pid in list(self.pids):
            self.kill(pid)

    def let_work(self) -> None:
        """Wait for a moment, or for a few versions to be acknowledged: on a slow machine too something is to be lost."""
        wanted = len(self.acknowledged) + self.chance.randrange(4)
        until = time.monotonic() + PAUSE_S_MAX
        time.sleep(self.chance.random() * PAUSE_S_MAX / 10)
        while len(self.acknowledged) < wanted and time.monotonic() < until:
            select.select([descriptor for descriptor, _ in self.pipes.values()], [], [], until - time.monotonic())
            for pid in list(self.pids):
                self.listen(pid)

    def check(self) -> dict[str, Any]:
        """Look at everything that was acknowledged, and at what is left in the container after collection."""
        wait_for_the_database(self.place)
        with self.place.connect() as store:
            store.gc(False, grace_hours=0, max_share=1, show_progress=False)
            kept = {(name, v.number): v for name in NAMESPACES for v in store.namespace(name).log()}
            expired = 0
            for (name, number), content in self.acknowledged.items():
                version = kept.get((name, number))
                if version is None:
                    expired += 1
                    with pytest.raises(NotFoundError, match=f"version {number} of '{name}' was expired"):
                        store.get(f"{name}@{number}")
                    continue
                assert version.content_digest == content, version.uri
            for version in kept.values():
                report = version.verify()
                assert report.ok, (version.uri, report.failures)
            garbage = self.garbage(store)
        return {"acknowledged": len(self.acknowledged), "expired": expired, "kept": len(kept), **garbage}

    def garbage(self, store: Store) -> dict[str, int]:
        """Count blobs that nobody needs and collection left: requests of the dead that came in after everything."""
        blobs, database = self.place.blobs(), self.place.database()
        with database.read() as connection:
            known = {row[0]: row[1] for row in connection.exec_driver_sql("SELECT key, state FROM blob")}
        listed = [key for prefix in LISTS for key in list_keys(blobs, prefix)]
        missing = [key for key, state in known.items() if state == "live" and key not in listed]
        assert not missing, missing[:5]
        left = [key for key in listed if known.get(key) != "live"]
        blobs.close()
        database.close()
        return {"blobs": len(listed), "garbage": len(left)}


def wait_for_the_database(place: Place) -> None:
    """Wait until PostgreSQL has noticed that the dead are gone: until then a COMMIT of theirs may still go through."""
    if place.index is None:
        return
    database = place.database()
    others = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with database.read() as connection:
        while connection.exec_driver_sql(others).scalar_one():
            time.sleep(0.01)
    database.close()


def main() -> None:
    """Run one crowd, and say what became of it."""
    task = take_task()
    place = Place(task["url"], task["index"])
    with place.connect(create=True) as store:
        for name in NAMESPACES:
            with store.namespace(name).transaction() as tx:
                tx.write_bytes("first", name.encode())
    store._handle.close()
    with tempfile.TemporaryDirectory() as work:
        crowd = Crowd(place, task["seed"], Path(work))
        try:
            crowd.run(task["kills"])
            facts = crowd.check()
        except BaseException:
            print(f"this happened with seed {task['seed']} and {task['kills']} kills", file=sys.stderr)
            raise
    say(seed=task["seed"], kills=task["kills"], **facts)


if __name__ == "__main__":
    main()
