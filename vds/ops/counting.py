"""Count the uses of contents up to now, in slices that hold nobody up for long."""

from __future__ import annotations

from functools import partial

from vds.engine.doors import Doors
from vds.index.uses import count_uses, find_slice_end, list_uncounted


def count_everything(doors: Doors) -> None:
    """Count what was committed since the last time."""
    while True:
        with doors.index.read() as connection:
            left = list_uncounted(connection, doors.store.id)
            ends = [(owner, find_slice_end(connection, doors.store.id, owner, low, high)) for owner, low, high in left]
        if not ends:
            return
        for owner, end in ends:
            doors.index.run(partial(count_uses, store_id=doors.store.id, namespace_id=owner, up_to=end))
