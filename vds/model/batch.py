"""Cut an iterable into lists (itertools.batched came with Python 3.12)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of at most `size` items, lazily and in order; none is empty."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
