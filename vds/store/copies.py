"""Where a check may mend a store from, as a caller names it: a directory of files, or another container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vds.blobs.location import DirectoryLocation, parse_location
from vds.blobs.open import open_driver
from vds.blobs.outside import RoutedDriver
from vds.errors import InvalidInputError
from vds.model.format import FORMAT_PREFIX
from vds.ops.goodcopies import ContainerCopies, GoodCopies, LocalCopies, NoCopies
from vds.ops.open import find_format, not_a_store


@contextmanager
def open_copies(place: str | os.PathLike[str] | None) -> Iterator[GoodCopies]:
    """Lend what a place holds: the files below a directory or, where it is a container of a store, its blobs.

    Raises:
        InvalidInputError: it is no directory that is there, and no url of a container.
        NotFoundError: the container is not a store.
    """
    if place is None:
        yield NoCopies()
        return
    text = os.fspath(place)
    location = parse_location(text)
    if location is None or isinstance(location, DirectoryLocation):
        root = Path(text) if location is None else location.path
        if not root.is_dir():
            raise InvalidInputError(
                f"{text!r} is no directory", hint="name a directory of files, or the url of another container"
            )
        if not (root / FORMAT_PREFIX).is_dir():
            yield LocalCopies(root)
            return
    blobs = RoutedDriver(open_driver(text if location is not None else os.path.abspath(text)))
    try:
        if find_format(blobs, read_only=True) is None:
            raise not_a_store(blobs.url)
        yield ContainerCopies(blobs)
    finally:
        blobs.close()
