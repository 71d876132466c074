"""Where an export goes: a directory of this machine, or a container of an Azure storage account."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vds.blobs.location import AzureLocation, DirectoryLocation, parse_location
from vds.errors import InvalidInputError, NotFoundError
from vds.files.place import Target
from vds.files.scan import ScanReport, scan_directory
from vds.model.batch import grouped
from vds.model.digest import Digest
from vds.model.entry import MODE_FILE, Entry
from vds.model.format import format_key
from vds.ops.placing import ObjectSource, place_entries
from vds.ops.putting import PutOutcome, put_entries
from vds.pipeline import HASH_WORKERS, parallel_map
from vds.progress import Progress

if TYPE_CHECKING:
    from vds.blobs.export import PathBlobs

MARKER_PATH = "_VDS_EXPORT.json"
"""Written last: a reader that finds it finds everything."""
FOREIGN_NAMED_MAX = 1000
_EXAMINED_AT_ONCE = 64
_EXAMINED_BYTES = 8 * 1024 * 1024


@dataclass
class Seen:
    """What stands where an export goes.

    Attributes:
        equal: the paths of files that are there already.
        other: path → etag, of those where something else is; the etag is empty where there are none.
        foreign: paths of files that are not of this export, the first thousand.
        foreign_count: how many those are in all.
        marker: the digest of the marker; None when there is none.
        marker_etag: its etag, where there are any.
    """

    equal: set[str] = field(default_factory=set)
    other: dict[str, str] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    foreign_count: int = 0
    marker: str | None = None
    marker_etag: str = ""

    def add_foreign(self, path: str) -> None:
        """Count a file that is not of this export."""
        self.foreign_count += 1
        if len(self.foreign) < FOREIGN_NAMED_MAX:
            self.foreign.append(path)


class Place(Protocol):
    """Where an export goes. Close it when done."""

    @property
    def url(self) -> str:
        """Its address, without any secret."""
        ...

    def find_store(self) -> str | None:
        """Return the address of a store that it is in, or that is in it; None when it is clear of any."""
        ...

    def find_faults(self, entries: Iterable[Entry]) -> dict[str, str]:
        """Return the paths that it cannot hold, each with the reason."""
        ...

    def look(self, entries: Mapping[str, Entry], progress: Progress) -> Seen:
        """Return what is there; nothing is made."""
        ...

    def begin(self, seen: Seen, needed_bytes: int) -> None:
        """Make the place if it is not there, and take away the marker of an older export."""
        ...

    def put(self, source: ObjectSource, entries: Sequence[Entry], replaces: Mapping[str, str], progress: Progress) -> PutOutcome:
        """Put these files."""
        ...

    def find_missing(self, entries: Mapping[str, Entry]) -> dict[str, str]:
        """Look again after the puts, and return the paths of files that are not there whole, each with the reason."""
        ...

    def put_marker(self, body: bytes, modified_ns: int) -> None:
        """Write the marker."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def open_place(url: str | os.PathLike[str], source: ObjectSource, credential: object = None) -> Place:
    """Return the place at `url`, which is text, or the path of a directory; no call is made.

    Raises:
        InvalidInputError: the url is none, or names memory, which nobody else could read.
    """
    location = parse_location(url) if isinstance(url, str) else DirectoryLocation(Path(os.path.abspath(url)))
    if isinstance(location, DirectoryLocation):
        return DirectoryPlace(location.path, source.driver.url)
    if isinstance(location, AzureLocation):
        # Loading the Azure SDK takes half a second, which an export to a directory need not pay.
        from vds.blobs.export import open_path_blobs

        return ContainerPlace(open_path_blobs(location, source.driver, credential))
    if location is None:
        raise InvalidInputError(
            f"{url!r} is a name, not a place", hint=f"write ./{url} for a directory, or az://CONTAINER@ACCOUNT"
        )
    raise InvalidInputError(f"{url!r} is the memory of this process, where nobody finds an export", hint="name a directory")


class DirectoryPlace:
    """A directory of this machine."""

    def __init__(self, root: Path, store_url: str) -> None:
        self._target = Target(root)
        self._root = root
        self._store_url = store_url

    @property
    def url(self) -> str:
        """Its address: `file:///DIR`."""
        return self._root.as_uri()

    def find_store(self) -> str | None:
        """Return the address of a store in a directory above or below, as far as those are known."""
        store = parse_location(self._store_url)
        if isinstance(store, DirectoryLocation) and store.path.is_relative_to(self._root):
            return self._store_url
        above = (parent for parent in (self._root, *self._root.parents) if (parent / format_key(1)).is_file())
        return next((parent.as_uri() for parent in above), None)

    def find_faults(self, entries: Iterable[Entry]) -> dict[str, str]:
        """Return the names that this system or disk does not hold."""
        return self._target.find_unholdable(entry.path for entry in entries)

    def look(self, entries: Mapping[str, Entry], progress: Progress) -> Seen:
        """Return what is there; files of the right size are read, in parallel."""
        seen = Seen()
        if not self._root.is_dir():
            return seen
        groups = grouped(entries.values(), lambda entry: entry.size_bytes, count_max=_EXAMINED_AT_ONCE, bytes_max=_EXAMINED_BYTES)
        for found in parallel_map(self._examine, groups, workers=HASH_WORKERS):
            for path, is_equal in found:
                if is_equal:
                    seen.equal.add(path)
                else:
                    seen.other[path] = ""
            progress.add(files=len(found))
        for file in scan_directory(self._root, ScanReport()):
            if file.path not in entries and file.path != MARKER_PATH:
                seen.add_foreign(file.path)
        digest_raw = self._target.find_digest(MARKER_PATH)
        seen.marker = Digest.from_raw(digest_raw) if digest_raw is not None else None
        return seen

    def begin(self, seen: Seen, needed_bytes: int) -> None:
        """Make the directory, check that the disk has room, and take away the marker."""
        self._target.open()
        self._target.check_space(needed_bytes)
        self._target.remove(MARKER_PATH)

    def put(self, source: ObjectSource, entries: Sequence[Entry], replaces: Mapping[str, str], progress: Progress) -> PutOutcome:
        """Place the files; each is checked against its digest before it appears."""
        outcome = place_entries(source, self._target, entries, progress)
        return PutOutcome(files=len(outcome.placed), failures=outcome.failures)

    def find_missing(self, entries: Mapping[str, Entry]) -> dict[str, str]:
        """Return nothing: a file that was placed was checked on its way, and is on the disk."""
        return {}

    def put_marker(self, body: bytes, modified_ns: int) -> None:
        """Write the marker."""
        self._target.place(MARKER_PATH, [body], mode=MODE_FILE, modified_ns=modified_ns)

    def close(self) -> None:
        """Remove what was temporary."""
        self._target.close()

    def _examine(self, batch: list[Entry]) -> list[tuple[str, bool]]:
        found: list[tuple[str, bool]] = []
        for entry in batch:
            state = self._target.find_state(entry.path)
            if state is not None:
                is_same = state.is_file and state.size_bytes == entry.size_bytes and state.mode in (None, entry.mode)
                found.append((entry.path, is_same and self._target.find_digest(entry.path) == entry.digest.raw))
        return found


class ContainerPlace:
    """A container, or a prefix in one."""

    def __init__(self, blobs: PathBlobs) -> None:
        self._blobs = blobs
        self._is_missing = False

    @property
    def url(self) -> str:
        """Its address."""
        return self._blobs.url

    def find_store(self) -> str | None:
        """Return the address of a store at, above or, where that is this one, below the prefix."""
        return self._blobs.find_store()

    def find_faults(self, entries: Iterable[Entry]) -> dict[str, str]:
        """Return the names that the service does not keep."""
        faults = ((entry.path, self._blobs.find_fault(entry.path)) for entry in entries)
        return {path: fault for path, fault in faults if fault is not None}

    def look(self, entries: Mapping[str, Entry], progress: Progress) -> Seen:
        """Return what is there, by its size and the digest in its metadata: a request for 5 000 blobs, whatever they are."""
        seen = Seen()
        for path, etag, size_bytes, digest in self._list():
            entry = entries.get(path)
            if path == MARKER_PATH:
                seen.marker, seen.marker_etag = digest or "", etag
            elif entry is None:
                seen.add_foreign(path)
            elif (size_bytes, digest) == (entry.size_bytes, entry.digest):
                seen.equal.add(path)
                progress.add(files=1)
            else:
                seen.other[path] = etag
        return seen

    def begin(self, seen: Seen, needed_bytes: int) -> None:
        """Make the container if the look found none, and take away the marker."""
        if self._is_missing:  # not asked again: who may write blobs may not always look at their container
            self._blobs.create_container()
        if seen.marker is not None:
            self._blobs.delete_blob(MARKER_PATH, seen.marker_etag)

    def put(self, source: ObjectSource, entries: Sequence[Entry], replaces: Mapping[str, str], progress: Progress) -> PutOutcome:
        """Put the files, or have the service copy them."""
        return put_entries(source, self._blobs, entries, replaces, progress)

    def find_missing(self, entries: Mapping[str, Entry]) -> dict[str, str]:
        """Hold every file's size and digest against a listing."""
        left = dict.fromkeys(entries, "it is not there any more: somebody else removed it meanwhile")
        for path, _, size_bytes, digest in self._list():
            entry = entries.get(path)
            if entry is None:
                continue
            if (size_bytes, digest) == (entry.size_bytes, entry.digest):
                del left[path]
            else:
                left[path] = f"it has {size_bytes} bytes and the digest {digest}, expected {entry.size_bytes} and {entry.digest}"
        return left

    def put_marker(self, body: bytes, modified_ns: int) -> None:
        """Write the marker."""
        self._blobs.put_file(MARKER_PATH, body, Digest.of(body))

    def close(self) -> None:
        """Let go of connections."""
        self._blobs.close()

    def _list(self) -> Iterator[tuple[str, str, int, str | None]]:
        try:
            for blob in self._blobs.list_blobs():
                yield blob.key, blob.etag, blob.size_bytes, blob.metadata.get("vds_digest")
        except NotFoundError:
            self._is_missing = True
