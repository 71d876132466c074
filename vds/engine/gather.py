"""Read and hash source files in groups: a thread takes a group at a time, as one file at a time would cost twice as much.

Small files are read straight into the pack that may carry them, and files of up to one block into the buffer they are sent from;
larger ones are only hashed here. Which contents are new is for the index to say, once a whole group is read.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from blake3 import blake3

from vds.blobs.objects import SINGLE_PUT_BYTES_MAX, block_size_bytes
from vds.blobs.packs import MEMBER_BYTES_END, PACK_MEMBERS_MAX, PACK_TARGET_BYTES, ROW_BYTES, pack_rows
from vds.buffers import BufferPool, Loan
from vds.errors import VdsError
from vds.files.read import BlockHashes, check_file, hash_blocks, read_into
from vds.files.scan import SourceFile
from vds.model.content import Member, SourceChangedError
from vds.model.digest import EMPTY_RAW

GROUP_FILES_MAX = 512
"""Of files that are not read into one buffer: those known already, and those only looked at."""

Kind = Literal["known", "pack", "whole", "hash", "look"]
"""What is done with a group: nothing, read into a pack, read into a buffer, hash only, see whether it can be read."""


class Found(NamedTuple):
    """Files as the scan met them, each with its digest where that is known without reading."""

    files: Sequence[SourceFile]
    digests: Sequence[bytes | None]


class Group(NamedTuple):
    """Files that one thread takes care of."""

    kind: Kind
    files: Sequence[SourceFile]
    digests: Sequence[bytes] = ()


@dataclass(slots=True)
class Read:
    """What became of a group.

    Attributes:
        digests: one a file; empty for a file that failed.
        failures: path → reason.
        bodies: each distinct content once, where it stands in `loan`.
        rows: of the pack that `loan` holds, of a group of small files.
        block_hashes: digest → fingerprints of the blocks, of large files that were only hashed.
        read_at_ns: when reading began.
    """

    group: Group
    digests: Sequence[bytes]
    bodies: list[Member] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    loan: Loan | None = None
    rows: bytes = b""
    block_hashes: dict[bytes, BlockHashes] = field(default_factory=dict)
    read_at_ns: int = 0


def is_large(file: SourceFile) -> bool:
    """Return whether a file is cut into blocks."""
    return file.size_bytes > SINGLE_PUT_BYTES_MAX


class Grouper:
    """Collects files of one kind until they fill a group."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._count_max = {"pack": PACK_MEMBERS_MAX, "whole": PACK_MEMBERS_MAX, "hash": 1}.get(kind, GROUP_FILES_MAX)
        self._files: list[SourceFile] = []
        self._digests: list[bytes] = []
        self._bytes = 0

    def add(self, file: SourceFile, digest: bytes = b"") -> Group | None:
        """Take in a file and return the group that is full because of it."""
        needed = file.size_bytes + ROW_BYTES
        full = None
        if self._files and self._kind in ("pack", "whole") and self._bytes + needed > PACK_TARGET_BYTES - ROW_BYTES:
            full = self.flush()
        self._files.append(file)
        self._digests.append(digest)
        self._bytes += needed
        return full or (self.flush() if len(self._files) == self._count_max else None)

    def flush(self) -> Group | None:
        """Return what was collected, or None."""
        if not self._files:
            return None
        group = Group(self._kind, self._files, self._digests)
        self._files, self._digests, self._bytes = [], [], 0
        return group


def read_group(group: Group, pool: BufferPool) -> Read:
    """Do with the files of a group what its kind says; called in worker threads."""
    if group.kind == "known":
        return Read(group, group.digests)
    read_at_ns = time.time_ns()
    if group.kind in ("pack", "whole"):
        loan = pool.lend()
        contents = read_files(group.files, loan.view)
        rows = pack_rows(loan.view, contents.bodies) if group.kind == "pack" else b""
        return Read(group, *contents, loan, rows, read_at_ns=read_at_ns)
    read = _hash(group) if group.kind == "hash" else _look(group)
    read.read_at_ns = read_at_ns
    return read


class Contents(NamedTuple):
    """What was read into a buffer: a digest a file (empty for one that failed), each distinct content once, path → reason."""

    digests: list[bytes]
    bodies: list[Member]
    failures: dict[str, str]


def read_files(files: Iterable[SourceFile], view: memoryview) -> Contents:
    """Read files back to back into a buffer that has room for all of them."""
    contents = Contents([], [], {})
    digests, bodies, failures = contents
    seen: set[bytes] = {EMPTY_RAW}
    position = 0
    for file in files:
        size_bytes = file.size_bytes
        target = view[position : position + size_bytes]
        try:
            if size_bytes:
                read_into(file, target)
            else:
                check_file(file)
        except (OSError, SourceChangedError) as err:
            failures[file.path] = reason_of(err)
            digests.append(b"")
            continue
        digest = blake3(target).digest()
        digests.append(digest)
        if digest not in seen:
            seen.add(digest)
            bodies.append(Member(digest, position, size_bytes))
            position += size_bytes
    return contents


def _hash(group: Group) -> Read:
    digests: list[bytes] = []
    read = Read(group, digests)
    for file in group.files:
        try:
            hashes = hash_blocks(file, block_size_bytes(file.size_bytes))
        except (OSError, SourceChangedError) as err:
            read.failures[file.path] = reason_of(err)
            digests.append(b"")
            continue
        digests.append(hashes.digest)
        read.block_hashes[hashes.digest] = hashes
    return read


def _look(group: Group) -> Read:
    """See only whether the files can be opened: the upload has failed already, and its error should name all that is wrong."""
    read = Read(group, [b""] * len(group.files))
    for file in group.files:
        try:
            os.close(os.open(file.os_path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)))
        except OSError as err:
            read.failures[file.path] = reason_of(err)
    return read


def reason_of(err: Exception) -> str:
    """Return why a file could not be read, for the list of failures."""
    if isinstance(err, VdsError):
        return str(err)
    return f"{type(err).__name__}: {err.strerror or err}" if isinstance(err, OSError) else str(err)


assert MEMBER_BYTES_END <= SINGLE_PUT_BYTES_MAX <= PACK_TARGET_BYTES
