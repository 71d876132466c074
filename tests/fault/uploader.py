"""A process that uploads and may stop on its way: `python -m tests.fault.uploader`, told what to do as `tests.support` says.

Tasks: `url`, `index`, `namespace`, `directory`, and
- `kill_after`: end at once, by SIGKILL, when so many blocks were staged;
- `hold_after`: wait when so many blocks were staged, say `holding`, and go on when told `go`;
- `begin`: begin a transaction, and say its token, instead;
- `token`: upload into this transaction instead, as a part.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import vds
from tests.integration.watch import Requests, watch_blobs
from tests.support import Place, say, take_task


def stop_after(driver: type, count: int, stop: Callable[[], None]) -> None:
    """Call `stop` when the driver has staged so many blocks, before it returns from the last of them."""
    stage = driver.stage_block  # type: ignore[attr-defined]  # any driver has it
    lock = threading.Lock()
    staged: list[str] = []

    def stage_and_stop(self: Any, key: str, block_id: str, body: Any) -> None:
        stage(self, key, block_id, body)
        with lock:
            staged.append(block_id)
            if len(staged) == count:
                stop()

    driver.stage_block = stage_and_stop  # type: ignore[attr-defined]


def hold() -> None:
    """Say so, and wait to be told to go on."""
    say(holding=True)
    assert sys.stdin.readline() == "go\n"


def upload(task: dict[str, Any], requests: Requests) -> None:
    """Upload and say what that did."""
    if task.get("token"):
        with vds.join(task["token"]).part("one") as part:
            part.upload(task["directory"], show_progress=False)
        say(blocks=[block_id for _, block_id, _ in requests.staged])
        return
    with Place(task["url"], task["index"]).connect() as store:
        if task.get("begin"):
            say(token=store.namespace(task["namespace"]).transaction().token)
            return
        result = store.namespace(task["namespace"]).upload(task["directory"], show_progress=False)
        say(
            number=result.version.number,
            bytes_sent=result.bytes_sent,
            blocks=[block_id for _, block_id, _ in requests.staged],
            ok=result.version.verify().ok,
        )


def main() -> int:
    task = take_task()
    place = Place(task["url"], task["index"])
    driver = type(place.blobs())
    requests = watch_blobs(pytest.MonkeyPatch(), driver)
    if count := task.get("kill_after"):
        stop_after(driver, count, lambda: os.kill(os.getpid(), signal.SIGKILL))
    if count := task.get("hold_after"):
        stop_after(driver, count, hold)
    upload(task, requests)
    return 0


if __name__ == "__main__":
    sys.exit(main())
