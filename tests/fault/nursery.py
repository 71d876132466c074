"""Processes that are killed while they write: `python -m tests.fault.nursery`, told what to do as `tests.support` says.

The nursery has loaded everything and opened nothing. For each try it forks a victim, which writes in an endless loop and says
into a pipe what was acknowledged; SIGKILL ends it; then the nursery opens the store and checks what must hold. What a victim has
written into the pipe survives it.

A victim dies in one of three ways, all drawn from the seed: `moment`, after a delay; `step`, just before or just after the n-th
call that changes the container or the index; `syscall`, likewise around the n-th call of the operating system that changes
anything on the disk.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vds
from tests.support import Checker, Place, say, take_task, write_tree
from vds.index.database import Database
from vds.model.manifest import ContentHasher

NAMESPACE, DATASET = "team/raw", "customers"
MOMENT_MS_MAX, STEPS_MAX, SYSCALLS_MAX = 150, 60, 400
LARGE_BYTES = 1024 * 1024 + 5
GROUPS = {"set": 3, "big": 2, "tx": 3, "copied": 3}
"""Directory → how many files it holds in every version that has it, all bearing the stamp of one commit."""

_BLOB_CALLS = ("create_container", "put_if_absent", "stage_block", "commit_blocks")
_SYSTEM_CALLS = ("fsync", "link", "mkdir", "unlink", "rename", "replace", "write", "utime", "rmdir")


@dataclass
class Trap:
    """Kills this process at its n-th call, before or after the call's effect."""

    at: int
    after: bool
    calls: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function` with the trap around it."""

        def call(*args: Any, **options: Any) -> Any:
            with self.lock:
                self.calls += 1
                is_due = self.calls == self.at
            if is_due and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return function(*args, **options)
            finally:
                if is_due:
                    os.kill(os.getpid(), signal.SIGKILL)

        return call


def arm(how: str, at: int, after: bool, place: Place) -> None:
    """Set the trap, in a victim."""
    trap = Trap(at, after)
    if how == "step":
        driver = type(place.blobs())
        for name in _BLOB_CALLS:
            setattr(driver, name, trap.around(getattr(driver, name)))
        Database._attempt = trap.around(Database._attempt)  # type: ignore[method-assign]
    elif how == "syscall":
        for name in _SYSTEM_CALLS:
            setattr(os, name, trap.around(getattr(os, name)))


@dataclass
class Victim:
    """Writes until it is killed, and says what was acknowledged."""

    place: Place
    report: int
    number: int
    work: Path

    def run(self) -> None:
        """Write in an endless loop."""
        store = self.place.connect(create=True)
        for turn in itertools.count():
            stamp = f"{self.number}-{turn}"
            verbs = (self.upload, self.transaction, self.tag, self.upload_large, self.rollback, self.copy)
            verbs[turn % len(verbs)](store, stamp)

    def acknowledge(self, **facts: Any) -> None:
        """Say it in one write, which a kill cannot cut."""
        os.write(self.report, json.dumps(facts).encode() + b"\n")

    def version(self, version: vds.Version) -> None:
        """Say that a version was acknowledged."""
        self.acknowledge(number=version.number, content_digest=version.content_digest)

    def upload(self, store: vds.Store, stamp: str) -> None:
        """Upload three small files."""
        files = {f"set/{i}": f"{stamp}\n{i}".encode() for i in range(3)}
        self.version(store.namespace(NAMESPACE).upload(self.tree(stamp, files), show_progress=False).version)

    def upload_large(self, store: vds.Store, stamp: str) -> None:
        """Upload an object of its own beside a small one."""
        files = {"big/large": f"{stamp}\n".encode().ljust(LARGE_BYTES, b"x"), "big/small": f"{stamp}\nsmall".encode()}
        self.version(store.namespace(NAMESPACE).upload(self.tree(stamp, files), show_progress=False).version)

    def transaction(self, store: vds.Store, stamp: str) -> None:
        """Write three files in three ways as one version."""
        with store.namespace(NAMESPACE).transaction() as tx:
            tx.write_bytes("tx/0", f"{stamp}\n0".encode())
            tx.upload(self.tree(stamp, {"1": f"{stamp}\n1".encode()}), "tx", show_progress=False)
            with tx.open("tx/2") as file:
                file.write(f"{stamp}\n2".encode())
        self.version(tx.version)

    def copy(self, store: vds.Store, stamp: str) -> None:
        """Copy one group over another."""
        latest = store.namespace(NAMESPACE).latest()
        self.version(store.namespace(NAMESPACE).copy(latest.at("set"), "copied").version)

    def rollback(self, store: vds.Store, stamp: str) -> None:
        """Go back by one version."""
        namespace = store.namespace(NAMESPACE)
        self.version(namespace.rollback(namespace.latest().number - 1).version)

    def tag(self, store: vds.Store, stamp: str) -> None:
        """Release the newest version and move a tag to it."""
        dataset = store.dataset(DATASET)
        release = dataset.register(store.namespace(NAMESPACE).latest())
        dataset.tag("prod", release, reason=stamp)
        self.acknowledge(release=release.number, version=release.version.number)

    def tree(self, stamp: str, files: dict[str, bytes]) -> Path:
        """Write files to upload."""
        return write_tree(self.work / f"{stamp}-{len(files)}", files)


@dataclass
class Nursery:
    """Kills one victim after the other on one store."""

    place: Place
    seed: int
    ways: list[str]
    work: Path
    checker: Checker
    one_by_one: bool
    acknowledged: dict[int, str] = field(default_factory=dict)
    releases: dict[int, int] = field(default_factory=dict)
    tagged: int = 0
    stamps: dict[str, str] = field(default_factory=dict)

    def try_once(self, number: int) -> dict[str, Any]:
        """Kill one victim, check the store, and return what happened."""
        chance = random.Random(f"{self.seed}/{number}")
        how = self.ways[number % len(self.ways)]
        limit = {"moment": MOMENT_MS_MAX, "step": STEPS_MAX, "syscall": SYSCALLS_MAX}[how]
        at, after = chance.randrange(1, limit), chance.random() < 0.5
        if self.one_by_one:
            at, after = number // 2 + 1, number % 2 == 1
        facts = {"seed": self.seed, "try": number, "how": how, "at": at, "after": after}
        try:
            said = self.kill(number, how, at, after)
            for line in said:
                self.take(line)
            self.wait_for_the_database()
            with self.place.connect(create=True) as store:
                count = self.check(store)
        except BaseException:
            print(f"this happened at {facts}", file=sys.stderr)
            raise
        return {**facts, "acknowledged": len(said), "versions": count}

    def kill(self, number: int, how: str, at: int, after: bool) -> list[dict[str, Any]]:
        """Fork a victim, see it killed, and return what it said."""
        receive, report = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(receive)
                arm(how, at, after, self.place)
                Victim(self.place, report, number, self.work).run()
            finally:
                sys.excepthook(*sys.exc_info())
                sys.stderr.flush()
                os._exit(3)
        os.close(report)
        if how == "moment":
            time.sleep(at / 1000)
            os.kill(pid, signal.SIGKILL)
        with os.fdopen(receive, "rb") as pipe:
            said = [json.loads(line) for line in pipe]
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), f"the victim ended by itself, with {os.waitstatus_to_exitcode(status)}"
        assert os.WTERMSIG(status) == signal.SIGKILL
        return said

    def take(self, line: dict[str, Any]) -> None:
        """Remember what a victim said."""
        if "release" in line:
            self.releases[line["release"]] = line["version"]
            self.tagged = line["release"]
        else:
            known = self.acknowledged.setdefault(line["number"], line["content_digest"])
            assert known == line["content_digest"], f"version {line['number']} was acknowledged twice, with two contents"

    def wait_for_the_database(self) -> None:
        """Wait until PostgreSQL has noticed that the victim is gone: until then a COMMIT of its may still go through."""
        database = self.place.database()
        if database.is_sqlite:
            return
        deadline = time.monotonic() + 30
        count = 1
        while count and time.monotonic() < deadline:
            with database.read() as connection:
                count = connection.exec_driver_sql(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
                ).scalar_one()
        database.close()
        assert not count

    def check(self, store: vds.Store) -> int:
        """Check what must hold after a kill, and return the number of visible versions."""
        versions = self.checker.check(store)
        assert max(self.acknowledged, default=0) <= len(versions)
        for version in versions:
            self.check_groups(version)
            if version.number in self.acknowledged:
                assert content_digest(version) == self.acknowledged[version.number], version.uri
        self.check_dataset(store)
        return len(versions)

    def check_groups(self, version: vds.Version) -> None:
        """Check that a version holds each commit's files all or not at all."""
        groups: dict[str, list[str]] = {}
        for entry in version.entries():
            if entry.digest not in self.stamps:
                self.stamps[entry.digest] = version.read_bytes(entry.path).partition(b"\n")[0].decode()
            groups.setdefault(entry.path.partition("/")[0], []).append(self.stamps[entry.digest])
        for name, stamps in groups.items():
            assert len(stamps) == GROUPS[name], f"{version.uri} holds a part of {name}"
            assert len(set(stamps)) == 1, f"{version.uri} mixes {name}: {stamps}"

    def check_dataset(self, store: vds.Store) -> None:
        """Check the chain of events, and that every acknowledged release and move of the tag is there."""
        if not store.datasets():
            assert not self.releases
            return
        dataset = store.dataset(DATASET)
        events = dataset.history()[::-1]
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
        for before, event in itertools.pairwise(events):
            assert event.parent == before.digest
        releases = {release.number: release.version.number for release in dataset.releases()}
        assert sorted(releases) == list(range(1, len(releases) + 1))
        assert {number: releases[number] for number in self.releases} == self.releases
        if self.tagged:
            assert dataset.get("prod").number >= self.tagged


def content_digest(version: vds.Version) -> str:
    """Work out the content digest anew; the one in the index may have been kept by the victim."""
    hasher = ContentHasher()
    for entry in version.entries():
        hasher.add(entry.path, entry.digest.raw, entry.mode)
    return "b3:" + hasher.digest().hex()


def main() -> int:
    """Kill as often as asked, on one store or on a fresh one each time."""
    task = take_task()
    __import__("vds.blobs.azure")  # what victims load once, here
    with tempfile.TemporaryDirectory() as work:
        for number in range(task["tries"]):
            if number == 0 or task["fresh"]:
                place = Place(task["url"] + (f"-{number}" if task["fresh"] else ""), task["index"])
                checker = Checker(place, NAMESPACE)
                # A store made anew each time is killed at its first step, at its second, and so on: before and after each.
                nursery = Nursery(place, task["seed"], task["ways"], Path(work), checker, one_by_one=task["fresh"])
            say(**nursery.try_once(number))
    return 0


if __name__ == "__main__":
    sys.exit(main())
