"""Blobs that the SDK wrote, found through a registered datastore where the store has nothing at a path.

They are read as they are, pinned by their ETags: one that was changed since is an error, never other bytes. Registering a dataset
of them adopts them first: they become entries of a version, by reference.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vds.azureml.exceptions import ConflictException
from vds.azureml.faces import DatastoreFace
from vds.azureml.globs import fixed_part, glob_regex, has_magic
from vds.azureml.notices import say_once
from vds.azureml.selection import Part, SelectedFile, pin
from vds.errors import NotFoundError
from vds.model.digest import Digest
from vds.model.entry import MODE_FILE
from vds.model.path import entry_path, join, relative_to
from vds.pipeline import parallel_map
from vds.store.plain import PlainBlob, PlainContainer, open_plain

WORKERS = 8
ADOPTED_ONE_BY_ONE_MAX = 32
"""Up to so many blobs that a glob took are adopted each for itself, more of them with the directory they are in."""

_containers: dict[tuple[str, str | None], PlainContainer] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class PlainPart:
    """Plain blobs at a path or glob.

    Attributes:
        place_asked: the path or glob.
        base: the directory that their paths are relative to.
        blobs: by name.
        is_file: whether `place_asked` is one blob.
    """

    datastore: DatastoreFace
    place_asked: str
    base: str
    blobs: tuple[PlainBlob, ...]
    is_file: bool = False
    prefix: str = ""

    version = None

    @property
    def origin(self) -> str:
        """A directory name that tells people where they are from."""
        return join(f"{self.datastore.container_name}@plain", self.base)

    def files(self) -> Iterator[SelectedFile]:
        """Yield the blobs, by path, each with a digest of its ETag."""
        for blob in self.blobs:
            digest = Digest.of(f"etag {blob.etag}".encode()).raw
            yield SelectedFile(join(self.prefix, relative_to(blob.name, self.base)), digest, MODE_FILE, blob.size_bytes)

    def place(self, directory: Path, *, link: bool = True) -> Path:
        """Download the blobs into a directory; returns the path of the only one, or of the directory.

        Raises:
            ConflictError: one was changed since it was pinned.
        """
        target = directory / self.prefix
        target.mkdir(parents=True, exist_ok=True)
        download_blobs(self.datastore, [(blob, target / relative_to(blob.name, self.base)) for blob in self.blobs])
        return target / self.blobs[0].name.rpartition("/")[2] if self.is_file else target

    def describe(self) -> str:
        """Return where they are, with a name of their states."""
        states = Digest.of("\0".join(f"{blob.name}\0{blob.etag}" for blob in self.blobs).encode()).hex[:12]
        return f"{plain_url(self.datastore)}/{self.place_asked} ({len(self.blobs)} plain blobs, {states})"

    def adopted(self) -> Part:
        """Make them entries of a version of the datastore's namespace, by reference, and return them there.

        Raises:
            ConflictException: one was changed since it was pinned.
        """
        namespace, url = self.datastore.namespace, plain_url(self.datastore)
        assert url is not None
        say_once(f"datastore {self.datastore.name!r}: plain blobs of {url} become entries of a version, where they are")
        is_glob = not self.is_file and self.base != self.place_asked
        few = is_glob and len(self.blobs) <= ADOPTED_ONE_BY_ONE_MAX
        for prefix in [blob.name for blob in self.blobs] if few else [self.place_asked if self.is_file else self.base]:
            made = namespace.adopt(url, prefix, message=f"adopt {prefix or 'all'}", credential=_secret(self.datastore))
        container = open_container(self.datastore)
        changed = [blob.name for blob in self.blobs if (now := container.find(blob.name)) is None or now.etag != blob.etag]
        if changed:
            raise ConflictException(
                f"{len(changed)} plain blobs were changed since the dataset was made: {', '.join(changed[:5])}",
                paths=changed[:100],
                hint="make the dataset again",
            )
        return pin(self.datastore, self.place_asked, made.version).parts[0]


def plain_url(datastore: DatastoreFace) -> str | None:
    """Return the url of the container that was registered for a datastore; None when none was."""
    return datastore.registration.container_url


def open_container(datastore: DatastoreFace) -> PlainContainer:
    """Return the container that was registered for a datastore; one for all who ask in this process."""
    url = plain_url(datastore)
    assert url is not None
    key = (url, _secret(datastore))
    with _lock:
        if key not in _containers:
            _containers[key] = open_plain(url, key[1])
        return _containers[key]


def find_plain(datastore: DatastoreFace, place: str) -> PlainPart | None:
    """Return the plain blobs at a path or glob; None when there are none, or no container is registered."""
    if plain_url(datastore) is None:
        return None
    container = open_container(datastore)
    try:
        blob = container.find(place) if place else None
        if blob is not None and blob.size_bytes:  # an empty one may only mark a directory
            return _told(PlainPart(datastore, place, place.rpartition("/")[0], (blob,), is_file=True))
        below = tuple(_files(container.list(f"{place}/" if place else "")))
        if below:
            return _told(PlainPart(datastore, place, place, below))
        if blob is not None:
            return _told(PlainPart(datastore, place, place.rpartition("/")[0], (blob,), is_file=True))
        if not has_magic(place):
            return None
        base = fixed_part(place)
        wanted = glob_regex(place)
        found = tuple(one for one in _files(container.list(f"{base}/" if base else "")) if wanted.match(one.name))
    except NotFoundError:
        return None
    return _told(PlainPart(datastore, place, base, found)) if found else None


def list_plain(datastore: DatastoreFace, prefix: str) -> list[PlainBlob]:
    """Return the plain blobs whose names begin with a text, by name; none when no container is registered."""
    if plain_url(datastore) is None:
        return []
    try:
        found = _files(open_container(datastore).list(prefix))
    except NotFoundError:
        return []
    if found:
        _tell(datastore)
    return found


def download_blobs(datastore: DatastoreFace, wanted: Iterable[tuple[PlainBlob, Path]]) -> None:
    """Download blobs, some at a time; each file appears whole or not at all.

    Raises:
        ConflictError: one was changed since it was listed.
        InvalidInputError: the name of one can be no path.
    """
    container = open_container(datastore)
    pairs = list(wanted)
    for blob, _ in pairs:
        entry_path(blob.name)  # a name that climbs or is absolute must not leave the directory
    done = parallel_map(partial(_download, container), pairs, workers=WORKERS, in_flight_max=2 * WORKERS)
    with closing(done) as results:
        for _ in results:
            pass


def _download(container: PlainContainer, pair: tuple[PlainBlob, Path]) -> None:
    container.download(*pair)


def _files(blobs: Iterable[PlainBlob]) -> list[PlainBlob]:
    """Return blobs without the empty ones that only mark directories."""
    listed = list(blobs)
    folders = {name for blob in listed for name in _above(blob.name)}
    return [blob for blob in listed if blob.size_bytes or not (blob.name.endswith("/") or blob.name in folders)]


def _above(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _told(part: PlainPart) -> PlainPart:
    _tell(part.datastore)
    return part


def _tell(datastore: DatastoreFace) -> None:
    url = plain_url(datastore)
    say_once(f"datastore {datastore.name!r}: what the store does not have is read from the plain blobs of {url}")


def _secret(datastore: DatastoreFace) -> str | None:
    return datastore.sas_token or datastore.account_key
