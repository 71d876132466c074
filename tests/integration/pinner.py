"""A process that commits, releases and moves a tag in a loop: `python -m tests.integration.pinner`, as `tests.support` says."""

from __future__ import annotations

import sys

import vds
from tests.support import say, take_task


def main() -> int:
    """Write to one namespace and one dataset as often as asked, and say which version was acknowledged last."""
    task = take_task()
    number = 0
    with vds.connect(task["url"], index=task["index"]) as store:
        for turn in range(task["turns"]):
            with store.namespace(task["namespace"]).transaction() as tx:
                tx.write_text("a", f"{task['namespace']} {turn}")
            number = tx.version.number
            store.dataset(task["dataset"]).register(f"{task['namespace']}@{number}", tags=["prod"])
    say(number=number)
    return 0


if __name__ == "__main__":
    sys.exit(main())
