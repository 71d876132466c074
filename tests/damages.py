"""A store that has one of everything, and ways to damage what it keeps."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import text

import vds
import vds.engine.commit
from tests.support import Place, write_tree
from vds.engine.checkpoint import write_checkpoint
from vds.errors import VdsError
from vds.index.database import Connection
from vds.index.stores import find_namespace
from vds.model.digest import Digest

Files = dict[str, bytes]

RAW, RUN, DATASET = "team/raw", "runs/a", "customers"
SMALL = 8


@dataclass
class Sample:
    """A store, and what its versions hold.

    Attributes:
        versions: (namespace, number) → path → bytes.
    """

    place: Place
    versions: dict[tuple[str, int], Files] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The directory of its container."""
        return Path(self.place.url)

    def copy(self, root: Path) -> Sample:
        """Return a copy of it elsewhere; of one whose index is in its directory."""
        assert self.place.index is None
        shutil.copytree(self.root, root)
        return Sample(Place(str(root)), self.versions)

    def find(self, pattern: str, number: int = 0) -> Path:
        """Return the file of a blob: of those that a pattern fits, by key, the n-th."""
        return sorted(path for path in self.root.glob(pattern) if path.is_file())[number]

    def object_file(self, body: bytes) -> Path:
        """Return the file of the blob in which a whole object is."""
        (path,) = [
            path for path in self.root.glob("objects/*/*") if path.stat().st_size == len(body) and path.read_bytes() == body
        ]
        return path

    def pack_file(self, body: bytes) -> Path:
        """Return the file of a pack that holds an object."""
        return next(path for path in sorted(self.root.glob("packs/*/*")) if body in path.read_bytes())

    def key(self, path: Path) -> str:
        """Return the key of a blob's file."""
        return path.relative_to(self.root).as_posix()

    def sql(self, statement: str, **values: object) -> None:
        """Change the index behind everybody's back."""
        self.run(lambda connection: connection.execute(text(statement), values))

    def run(self, work: Callable[[Connection], object]) -> None:
        """Do something in a transaction of the index's."""
        database = self.place.database()
        database.run(work)
        database.close()


def make_sample(place: Place, scratch: Path) -> Sample:
    """Make the store: whole objects, a stream, packs, a change list in a blob, some inline, a checkpoint, releases and tags."""
    sample = Sample(place)
    chance = random.Random(5)
    raw: Files = {f"small/{number:02}": chance.randbytes(300 + number) for number in range(SMALL)}
    raw |= {"whole": chance.randbytes(1_100_000), "twin": chance.randbytes(1_100_001), "empty": b""}
    with place.connect(create=True) as store:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(vds.engine.commit, "INLINE_CHANGES_BYTES_MAX", 500)
            _upload(sample, store, RAW, raw, scratch / "1")
        raw = {path: body for path, body in raw.items() if path != "small/04"} | {"small/03": b"changed"}
        _upload(sample, store, RAW, raw, scratch / "2")
        stream = chance.randbytes(1_200_000)
        with store.namespace(RAW).transaction() as tx, tx.open("stream", "wb") as file:
            file.write(stream)
        raw = {**raw, "stream": stream}
        sample.versions[RAW, 3] = raw
        for number, body in ((4, b"fourth " * 9), (5, b"fifth " * 9)):
            raw = {**raw, "small/06": body}
            _upload(sample, store, RAW, raw, scratch / str(number))
        _upload(sample, store, RUN, {"log": chance.randbytes(900)}, scratch / "run")
        dataset = store.dataset(DATASET)
        dataset.register(f"{RAW}@1", tags=["prod"])
        dataset.register(f"{RAW}@2", "small")
        dataset.tag("prod", 2, reason="newer")
        doors = store._handle.doors
        with doors.index.read() as connection:
            namespace = find_namespace(connection, doors.store.id, RAW)
        assert namespace is not None
        assert write_checkpoint(doors, namespace, 2)
    return sample


def _upload(sample: Sample, store: vds.Store, namespace: str, files: Files, source: Path) -> None:
    result = store.namespace(namespace).upload(write_tree(source, files), mirror=True, show_progress=False)
    assert result.created
    sample.versions[namespace, result.version.number] = files


FilePlace = tuple[str, int, str]
"""A file of a version: namespace, number, path."""


def read_all(store: vds.Store, versions: Mapping[tuple[str, int], Files]) -> dict[FilePlace, str]:
    """Return what is at every path of these versions: its digest once it was read from there, or the kind of the error.

    A content that several versions have at one path is read from the first of them.
    """
    found: dict[FilePlace, str] = {}
    for (namespace, number), files in versions.items():
        entries: dict[str, str] = {}
        try:
            version = store.get(f"{namespace}@{number}")
            entries = {str(entry.path): str(entry.digest) for entry in version.entries()}
        except VdsError as err:
            found.update(((namespace, number, path), err.kind) for path in files)
            continue
        for path in sorted(files.keys() | entries.keys()):
            digest = entries.get(path, "not there")
            before = found.get((namespace, number - 1, path))
            found[namespace, number, path] = digest if before == digest else _read(version, path)
    return found


def _read(version: vds.Version, path: str) -> str:
    try:
        return str(Digest.of(version.read_bytes(path)))
    except VdsError as err:
        return err.kind


def digests_of(versions: Mapping[tuple[str, int], Files]) -> dict[FilePlace, str]:
    """Return what `read_all` returns of a sound store."""
    return {(*version, path): str(Digest.of(body)) for version, files in versions.items() for path, body in files.items()}


Damage = Callable[[Path], None]


def truncate(path: Path) -> None:
    """Cut the second half of a file off."""
    body = path.read_bytes()
    path.write_bytes(body[: len(body) // 2])


def flip(path: Path) -> None:
    """Flip a bit in the middle; nothing that the file system says of the file changes."""
    flip_at(path, path.stat().st_size // 2)


def flip_at(path: Path, position: int) -> None:
    """Flip a bit at a byte; nothing that the file system says of the file changes."""
    found = path.stat()
    body = bytearray(path.read_bytes())
    body[position] ^= 0x10
    path.write_bytes(body)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def delete(path: Path) -> None:
    """Remove a file."""
    path.unlink()


def put_in_place(path: Path, other: Path) -> None:
    """Write the bytes of another file over a file."""
    path.write_bytes(other.read_bytes())
