"""Versions made of rows alone: staged straight into the index and committed, so that no file is needed for an entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

from vds.engine.commit import commit
from vds.engine.session import session
from vds.index.schema import staged
from vds.index.staging import WRITTEN
from vds.model.path import EntryPath
from vds.ops.upload import UploadPlan
from vds.store import Store


def row_path(number: int) -> str:
    """Return the path of the n-th row."""
    return f"{number % 1000:03}/{number:08}.png"


def put_rows(
    store: Store,
    name: str,
    contents: Iterable[tuple[bytes, int]],
    *,
    timed: Callable[[str], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> None:
    """Commit a version of the namespace `name` that has an entry for each (raw digest, size in bytes) of `contents`.

    Args:
        store: holds the contents already, but for empty ones.
        name: of the namespace.
        contents: one for each row.
        timed: is given the name of each step, and runs it.
    """
    doors, intent = store._handle.doors, store._handle.intent()
    with session(doors, name, intent) as opened:
        values = (
            (doors.store.id, opened.part_id, row_path(number), WRITTEN, 1, 0, digest_raw, size_bytes, 0o644, number)
            for number, (digest_raw, size_bytes) in enumerate(contents)
        )
        with timed("stage"):
            doors.index.run(lambda connection: doors.index.insert_rows(connection, staged, values))
        with timed("plan and commit"):
            commit(doors, UploadPlan(opened.area, EntryPath(""), True, False).request(doors, opened, intent))
