"""Cut an iterable into lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of at most `size` items, lazily and in order; none is empty (itertools.batched came with Python 3.12)."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def grouped(items: Iterable[T], weigh: Callable[[T], int], *, count_max: int, bytes_max: int) -> Iterator[list[T]]:
    """Cut items into lists for `parallel_map`: handing over a list costs as much as handing over one small item.

    A list ends when it has `count_max` items or reaches `bytes_max`, so that heavy items are spread over the workers.
    """
    group: list[T] = []
    group_bytes = 0
    for item in items:
        group.append(item)
        group_bytes += weigh(item)
        if len(group) == count_max or group_bytes >= bytes_max:
            yield group
            group, group_bytes = [], 0
    if group:
        yield group
