"""What a path, a reference or a dataset means: the files of one or several versions, pinned when the selection is made."""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from vds.azureml.exceptions import ConflictException, NotFoundException, UserErrorException
from vds.azureml.faces import DatastoreFace
from vds.azureml.globs import clean_path, fixed_part, glob_regex, has_magic
from vds.azureml.views import view_of
from vds.errors import NotFoundError
from vds.model.digest import Digest
from vds.model.entry import Entry
from vds.model.manifest import ContentHasher
from vds.model.path import EntryPath, join, relative_to
from vds.store import Store, Version

PATTERNS_A_CALL = 500
"""How many single files one call of `download` is asked for: they become one regular expression."""


class SelectedFile(NamedTuple):
    """One file of a selection.

    Attributes:
        path: as seen from the selection.
        digest: 32 bytes that say what is in it.
    """

    path: str
    digest: bytes
    mode: int
    size_bytes: int


class Part(Protocol):
    """Files from one place."""

    @property
    def version(self) -> Version | None:
        """The version they are pinned to, seen from their directory; None for plain blobs."""

    @property
    def prefix(self) -> str:
        """What their paths are put below, because other parts have the same names; mostly empty."""

    @property
    def origin(self) -> str:
        """A directory name for them that tells people where they are from."""

    def files(self) -> Iterator[SelectedFile]:
        """Yield the files, by path."""

    def place(self, directory: Path, *, link: bool = True) -> Path:
        """Bring the files into a directory, and return the path of the only file, or of the directory of all of them.

        With `link` they may be second names of files in the cache, which nobody may write to.
        """

    def describe(self) -> str:
        """Return where they are, for people: `vds://raw@3/2024`."""


@runtime_checkable
class Selectable(Protocol):
    """What stands for data: datasets, references, paths, the inputs of a step."""

    def vds_selection(self) -> Selection:
        """Return the files it stands for."""


@dataclass(frozen=True)
class VersionPart:
    """The files of a version below a directory: all of them, or those that match a glob.

    Attributes:
        view: the version, seen from the directory; or from the only file.
        is_file: whether it is seen from a file.
        pattern: which files, relative to the directory; None for all.
        names: which of those, as they are listed; None for all.
        prefix: see `Part`.
        store: where the version is.
    """

    store: Store
    view: Version
    is_file: bool = False
    pattern: str | None = None
    prefix: str = ""
    names: frozenset[str] | None = None

    @property
    def version(self) -> Version:
        """The version they are pinned to, seen from their directory."""
        return self.view

    @property
    def origin(self) -> str:
        """`team_raw@3/2024`: the namespace and number, then the directory."""
        place = self.view.path if not self.is_file else self.view.path.rpartition("/")[0]
        return join(f"{self.view.namespace.replace('/', '_')}@{self.view.number}", place)

    def files(self) -> Iterator[SelectedFile]:
        """Yield the files, by path."""
        for entry in self._entries():
            yield SelectedFile(join(self.prefix, entry.path), entry.digest.raw, entry.mode, entry.size_bytes)

    @property
    def is_all(self) -> bool:
        """Whether these are all files of the directory."""
        return self.pattern is None and self.names is None

    def place(self, directory: Path, *, link: bool = True) -> Path:
        """Bring the files into a directory; returns the path of the only file, or of the directory."""
        target = directory / self.prefix
        target.mkdir(parents=True, exist_ok=True)
        if self.is_all:
            self.view.download(target, link=link, show_progress=False)
        else:
            paths = (glob.escape(entry.path) for entry in self._entries())
            while chunk := list(itertools.islice(paths, PATTERNS_A_CALL)):
                self.view.download(target, allow_patterns=chunk, link=link, show_progress=False)
        return target / self.view.path.rpartition("/")[2] if self.is_file else target

    def describe(self) -> str:
        """Return its uri, with the glob, and a name of the choice among its files where there is one."""
        text = self.view.uri + ("" if self.pattern is None else ("/" if self.view.path else "") + self.pattern)
        if self.names is None:
            return text
        return f"{text} ({len(self.names)} files: {Digest.of(chr(0).join(sorted(self.names)).encode()).hex[:12]})"

    def _entries(self) -> Iterator[Entry]:
        wanted = _matcher(self.pattern)
        for entry in self.view.entries():
            if (wanted is None or wanted.match(entry.path)) and (self.names is None or entry.path in self.names):
                yield entry


class Selection:
    """The files that something means, pinned: what they are never changes. It pickles without secrets."""

    def __init__(self, store: Store, parts: Sequence[Part]) -> None:
        self.store = store
        self.parts = tuple(parts)

    def __repr__(self) -> str:
        return f"<Selection {self.describe()}>"

    def pins(self) -> list[Version]:
        """Return the versions that the files are pinned to, each seen from its path; none for plain blobs."""
        return [part.version for part in self.parts if part.version is not None]

    def whole(self) -> VersionPart | None:
        """Return the one directory (or file) of one version that this is all of; None when it is something else."""
        [first, *more] = self.parts
        is_whole = not more and isinstance(first, VersionPart) and first.is_all and not first.prefix
        return first if isinstance(first, VersionPart) and is_whole else None

    def only(self, names: Iterable[str]) -> Selection:
        """Return the selection of some of its files, by their paths.

        Raises:
            UserErrorException: none is left, or they are plain blobs, which are chosen by globs.
        """
        wanted = frozenset(names)
        parts: list[Part] = []
        for part in self.parts:
            if not isinstance(part, VersionPart):
                raise UserErrorException("plain blobs are chosen by a path or a glob", hint="register the dataset first")
            start = len(part.prefix) + 1 if part.prefix else 0
            own = frozenset(file.path[start:] for file in part.files() if file.path in wanted)
            if own:
                parts.append(replace(part, names=own))
        if not parts:
            raise UserErrorException(f"no file of {self.describe()} is left")
        return Selection(self.store, parts)

    def digest(self) -> str:
        """Return 64 hex digits that are equal exactly when paths, contents and modes are, whatever the versions and places."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        if (whole := self.whole()) is not None:
            return whole.view.content_digest.hex
        hasher = ContentHasher()
        for file in self.listed():
            hasher.add(file.path, file.digest, file.mode)
        return hasher.digest().hex()

    def listed(self) -> list[SelectedFile]:
        """Return the files, by path, each once.

        Raises:
            ConflictException: two parts have one path and different contents.
        """
        found: dict[str, SelectedFile] = {}
        for file in itertools.chain.from_iterable(part.files() for part in self.parts):
            if found.setdefault(file.path, file).digest != file.digest:
                raise ConflictException(f"{self.describe()} holds two different files {file.path!r}", paths=[file.path])
        return [found[path] for path in sorted(found)]

    def files(self) -> list[str]:
        """Return the paths of the files, sorted."""
        return [file.path for file in self.listed()]

    def place(self) -> Path:
        """Return a read-only local directory with the files, or the path of the file where it is one; made once a process.

        Raises:
            DownloadError: some files could not be fetched.
            NoSpaceError: the disk has too little room.
        """
        return view_of(f"{self.store.id} {self.describe()}", self._fill)

    def _fill(self, directory: Path) -> Path:
        return self.copy_to(directory / self.parts[0].origin if len(self.parts) == 1 else directory / "several", link=True)

    def copy_to(self, directory: Path, *, link: bool = False) -> Path:
        """Bring the files into a directory of the caller's; returns the path of the only file, or of the directory."""
        places = [part.place(directory, link=link) for part in self.parts]
        return places[0] if len(places) == 1 else directory

    def describe(self) -> str:
        """Return where the files are, for people: `vds://raw@3/2024`."""
        return ", ".join(part.describe() for part in self.parts)

    def record(self, name: str | None = None) -> None:
        """Note on the current run, if there is one, that it read this."""
        for version in self.pins():
            self.store.record_input(version, name or "")


def select(source: object) -> Selection:
    """Return the files that something stands for, pinned now unless it was pinned before.

    Args:
        source: a dataset, DataReference, DataPath, the input of a step, a `(datastore, path)` tuple, or a list of such.

    Raises:
        NotFoundException: there is nothing at a path.
        UserErrorException: it stands for no data.
    """
    if isinstance(source, Selection):
        return source
    if isinstance(source, Selectable):
        return source.vds_selection()
    if isinstance(source, tuple) and len(source) == 2 and hasattr(source[0], "vds_pin"):
        return pin(source[0], source[1])
    if isinstance(source, list) and source:
        return merge([select(one) for one in source])
    raise UserErrorException(
        f"{source!r} stands for no data", hint="give a dataset, a DataReference, a DataPath or a tuple (datastore, path)"
    )


def pin(datastore: DatastoreFace, path: str | None, version: Version | None = None) -> Selection:
    """Return the files of a datastore at a path or glob, as of its newest version, or of `version`.

    Raises:
        NotFoundException: there is nothing.
        UserErrorException: it is no path.
    """
    place = clean_path(path)
    store = datastore.workspace.store
    found = version if version is not None else find_latest(datastore)
    if found is not None and (part := _find_part(store, found, place)) is not None:
        return Selection(store, [part])
    plain = datastore.vds_pin(place) if version is None else None
    if plain is not None:
        return Selection(store, [plain])
    raise NotFoundException(
        f"there is nothing at {place or '/'!r} in datastore {datastore.name!r}"
        + (f" (version {found.number})" if found is not None else ", to which nothing was uploaded yet"),
        hint=f"vds ls {datastore.name} shows what there is",
    )


def find_latest(datastore: DatastoreFace) -> Version | None:
    """Return the newest version of a datastore; None when nothing was uploaded to it."""
    try:
        return datastore.workspace.store.namespace(datastore.name).latest()
    except NotFoundError:
        return None


def _find_part(store: Store, version: Version, place: EntryPath) -> VersionPart | None:
    if not place:
        return VersionPart(store, version) if version.file_count else None
    if version.exists(place):
        view = version.at(place)
        return VersionPart(store, view, is_file=_is_file(view))
    if not has_magic(place):
        return None
    base = fixed_part(place)
    if base and not version.exists(base):
        return None
    part = VersionPart(store, version.at(base) if base else version, pattern=relative_to(place, base))
    return part if next(part.files(), None) is not None else None


def _is_file(view: Version) -> bool:
    return not view.children()


def merge(selections: Sequence[Selection]) -> Selection:
    """Return several selections as one; where they come from different directories, their paths tell which."""
    if len(selections) == 1:
        return selections[0]
    parts = [part for selection in selections for part in selection.parts]
    return Selection(selections[0].store, _prefixed(parts))


def _prefixed(parts: Iterable[Part]) -> list[Part]:
    """Put parts of several directories below what their directories do not have in common."""
    listed = list(parts)
    views = [part for part in listed if isinstance(part, VersionPart)]
    if len(views) < len(listed):
        return listed  # plain blobs: paths are told apart by their directories only where they clash
    places = [_directory(part) for part in views]
    common = _common_directory(places)
    return [replace(part, prefix=place[len(common) :].lstrip("/")) for part, place in zip(views, places, strict=True)]


def _directory(part: VersionPart) -> str:
    path = part.view.path.rpartition("/")[0] if part.is_file else part.view.path
    return join(part.view.namespace, path)


def _common_directory(places: Sequence[str]) -> str:
    segments = [place.split("/") for place in places]
    shared = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*segments, strict=False))
    return "/".join(column[0] for column in shared)


def _matcher(pattern: str | None) -> re.Pattern[str] | None:
    return None if pattern is None else glob_regex(pattern)
