"""Which plain blobs are to be adopted, and under which paths: what a listing says, before anything is read."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

from vds.blobs.outside import check_adoptable, home_of, unrouted
from vds.blobs.plain import PlainPlace, container_url, name_place, open_place, parse_place
from vds.blobs.plaindriver import PlainBlob
from vds.engine.doors import Doors
from vds.errors import InvalidInputError, NotFoundError, UploadError, failures_message
from vds.model.path import EntryPath, entry_path, join, relative_to
from vds.progress import Progress


@dataclass(frozen=True, slots=True)
class AdoptSource:
    """Which plain blobs, and where they go.

    Attributes:
        prefix: a blob, or what stands before "/" in the names of the blobs that are meant; empty for all.
        target: the directory in the namespace; None for the paths that the names are.
        container: the address of their container as records have it: empty for the store's own.
    """

    place: PlainPlace
    prefix: str
    target: EntryPath | None
    container: str

    def list(self) -> Iterator[PlainBlob]:
        """Yield the blobs, by name."""
        if not self.prefix:
            return self.place.list()
        return self._list_below()

    def _list_below(self) -> Iterator[PlainBlob]:
        own = self.place.find(self.prefix)
        if own is not None:
            yield own
        yield from self.place.list(f"{self.prefix}/")

    def path_of(self, name: str) -> EntryPath:
        """Return the path that a blob gets.

        Raises:
            InvalidInputError: its name can be no path.
        """
        path = entry_path(name)
        return path if self.target is None else entry_path(join(self.target, relative_to(path, _normal(self.prefix))))

    @property
    def shown_target(self) -> EntryPath:
        """Where in the version all of it is."""
        return EntryPath(_normal(self.prefix)) if self.target is None else self.target


def open_source(doors: Doors, url: str, prefix: str, target: EntryPath | None, credential: object = None) -> AdoptSource:
    """Return plain blobs as a source; no call is made.

    Raises:
        InvalidInputError: url, prefix or credential is none we know, or others who read the store could not reach the place.
    """
    location = parse_place(url)
    home = home_of(doors.blobs)
    check_adoptable(home, location)
    prefix = prefix.rstrip("/")
    if prefix.startswith("/"):
        raise InvalidInputError(f"prefix {prefix!r} begins with a slash", hint="name it as the blobs are named: data/2026")
    name_place(location, credential)
    container = container_url(location)
    return AdoptSource(
        open_place(location, credential, unrouted(doors.blobs)),
        prefix,
        target,
        "" if container == container_url(home) else container,
    )


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text)


@dataclass
class Surveyed:
    """What is to be adopted, and what of it needs care.

    Attributes:
        folders: the names of empty blobs that stand for directories, as other blobs lie below them.
        renamed: path → name, of those whose names are in another Unicode form than paths have.
    """

    files: int = 0
    size_bytes: int = 0
    folders: set[str] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)


def survey(source: AdoptSource, progress: Progress) -> Surveyed:
    """Look over all names before the first byte is read.

    Raises:
        NotFoundError: there is no such blob, and none below.
        UploadError: some names can be no paths; each is named.
    """
    found, empty, failures = Surveyed(), set[str](), dict[str, str]()
    for blob in source.list():
        for above in _ancestors(blob.name):
            if above in empty:
                found.folders.add(above)
        if not blob.size_bytes:
            empty.add(blob.name)
        if is_folder(blob):
            continue
        found.files += 1
        found.size_bytes += blob.size_bytes
        try:
            path = source.path_of(blob.name)
        except InvalidInputError as err:
            failures[blob.name] = err.message
            continue
        if _normal(blob.name) != blob.name and found.renamed.setdefault(path, blob.name) != blob.name:
            failures[blob.name] = f"has the same path as {found.renamed[path]!r}"
    check_failures(failures)
    found.files -= len(found.folders)
    if not found.files:
        what = f"no blob {source.prefix!r}, and none below it," if source.prefix else "no blob"
        raise NotFoundError(f"there is {what} in {source.place.url!r}", hint="check url and prefix")
    progress.found(found.files, found.size_bytes)
    progress.scanned()
    return found


def _ancestors(name: str) -> Iterator[str]:
    end = name.rfind("/")
    while end > 0:
        yield name[:end]
        end = name.rfind("/", 0, end)


def is_folder(blob: PlainBlob) -> bool:
    """Return whether a blob stands for a directory by its name."""
    return not blob.size_bytes and blob.name.endswith("/")


def check_failures(failures: dict[str, str]) -> None:
    """Check that every blob can be adopted.

    Raises:
        UploadError: some cannot; each is named.
    """
    if failures:
        raise UploadError(
            failures_message("adopted", failures),
            failures=failures,
            hint="nothing was committed; mend these blobs, or choose others with the prefix",
        )
