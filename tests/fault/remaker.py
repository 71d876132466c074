"""Rebuilds that are killed: `python -m tests.fault.remaker`, told what to do as `tests.support` says.

For each try it forks a victim, which makes the index of a store anew and is killed: just after its n-th step (a put into the
container, or a transaction of the index), or at a moment that is drawn from the seed, of the time that it takes whole. Then the
store either serves as before or says that its index is older than it; and a rebuild that is let through makes it whole.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import vds
from tests.fault.nursery import arm
from tests.logicaldump import Dump, dump_intervals, dump_store
from tests.support import Place, say, take_task, write_tree
from vds.errors import FormatError

NEVER = 1_000_000


def fill(store: vds.Store, directory: Path) -> None:
    """Write a few versions, with a release, a version that has expired, and one that has not."""
    raw = store.namespace("team/raw")
    for number in range(4):
        source = write_tree(directory / str(number), {"same": b"same", f"{number}": b"%d" % number})
        raw.upload(source, show_progress=False)
    store.namespace("other").copy(raw.get(2))
    store.dataset("d").register(raw.get(3), tags=["prod"])
    store.expire(["team/raw@1"], dry_run=False)
    store.gc(dry_run=False, grace_hours=0, max_share=1, show_progress=False)
    store.gc(dry_run=False, grace_hours=0, max_share=1, show_progress=False)


def rebuild(place: Place) -> None:
    """Make the index anew and see that nothing was missing."""
    report = vds.rebuild_index(place.url, index=place.index, show_progress=False)
    assert report.gaps == (), report.gaps


def kill_one(place: Place, how: str, at: float) -> bool:
    """Fork a victim and return whether it was killed; one that came through did all its steps."""
    pid = os.fork()
    if pid == 0:
        try:
            arm(how, int(at), True, place)
            rebuild(place)
            os._exit(0)
        finally:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            os._exit(3)
    if how == "moment":
        time.sleep(at / 1000)
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL), status
    return status != 0


def check(place: Place, before: Dump, intervals: list[list[Any]]) -> str:
    """Check what a kill has left, make it whole, and return what it was: `served` or `refused`."""
    try:
        with place.connect() as store:
            assert dump_store(store) == before
        found = "served"
    except FormatError:
        found = "refused"
    rebuild(place)
    with place.connect() as store:
        assert dump_store(store) == before
        assert dump_intervals(store) == intervals
        assert replaced(store) == 0
    return found


def replaced(store: vds.Store) -> int:
    """Return how many store rows there are beside the one that counts."""
    with store._handle.doors.index.read() as connection:
        return int(connection.exec_driver_sql("SELECT COUNT(*) FROM store").scalar_one()) - 1


def main() -> None:
    """Kill as often as the task says."""
    task = take_task()
    place = Place(task["url"], task["index"])
    with tempfile.TemporaryDirectory() as directory, place.connect(create=True) as store:
        fill(store, Path(directory))
        before, intervals = dump_store(store), dump_intervals(store)
    begun = time.monotonic()
    assert not kill_one(place, "step", NEVER)
    whole_ms = (time.monotonic() - begun) * 1000
    for number in range(task["tries"]):
        how, chance = task["how"], random.Random(f"{task['seed']}/{number}")
        at = number + 1 if how == "step" else chance.uniform(0, whole_ms)
        facts = {"seed": task["seed"], "try": number, "how": how, "at": at}
        try:
            killed = kill_one(place, how, at)
            say(**facts, killed=killed, found=check(place, before, intervals))
        except BaseException:
            print(f"this happened at {facts}", file=sys.stderr)
            raise
        if not killed and how == "step":
            return  # there are no more steps


if __name__ == "__main__":
    main()
