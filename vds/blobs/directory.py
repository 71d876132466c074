"""Blobs as plain files under a directory: for one machine, or a share that several machines mount in the same way.

    ROOT/<key>                         the bytes of a blob, nothing else
    ROOT/.vds-meta/<key>/<etag>        its metadata as JSON, only where there is any
    ROOT/.vds-tmp/put-…                a file being written; without its final name until its bytes are on the disk
    ROOT/.vds-tmp/blocks/<key>/<hex of block id>       staged blocks; `/` in the key is `,`
    ROOT/.vds-tmp/claims/<key>/…       where links are missing, see `disk.claim_if_absent`

Guarantees beyond the contract:
- nothing outside the root is read or written: keys cannot climb, symbolic links are refused;
- what a crash leaves lies in `.vds-tmp`, is never listed, and is removed a week later, as Azure does with uncommitted blocks.

An etag is modification time and size, so a store is moved with a tool that keeps times (cp -a, rsync -a, tar). Keys that differ
only in case, or where one is a directory of the other, cannot both be held; vds makes none.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from vds.blobs import disk
from vds.blobs.driver import METADATA_BYTES_MAX, Blob, Block, Buffer, check_key, check_metadata, is_key, no_signing_error
from vds.errors import BlobExistsError, ConflictError, CorruptionError, InvalidInputError, NotFoundError
from vds.pace import Pace

REQUESTS_AT_ONCE = 3
LEFTOVER_AGE_S = 7 * 24 * 3600

_TEMP = ".vds-tmp"
_META = ".vds-meta"


class DirectoryDriver:
    """The directory `root` as a container; see the contract in `vds.blobs.driver`.

    Args:
        root: the directory; made by `create_container`, and must be there for everything else.
        links: False when hard links must not be tried, as on a file system that has none.
    """

    def __init__(self, root: Path, *, links: bool = True) -> None:
        self._root = Path(os.path.abspath(root))
        self._links = links
        self._temp = self._root / _TEMP
        self._meta = self._root / _META
        # Directories known to be there, on the disk, and no symbolic links; saves system calls, is never relied on.
        self._made: set[Path] = set()
        self._pace = Pace(REQUESTS_AT_ONCE, REQUESTS_AT_ONCE)

    @property
    def url(self) -> str:
        """The address: `file:///DIR`."""
        return self._root.as_uri()

    @property
    def pace(self) -> Pace:
        """A few at once: a disk gains nothing from more, and never asks for less."""
        return self._pace

    def __repr__(self) -> str:
        return f"DirectoryDriver({str(self._root)!r})"

    def create_container(self) -> None:
        """Make the directory and its parents if they are not there; idempotent."""
        with disk.translated(self._root, "make a store"):
            existing = next(parent for parent in (self._root, *self._root.parents) if parent.exists())
            if existing != self._root:
                disk.make_directory(self._root, existing)
            self._make(self._temp)

    def put_if_absent(self, key: str, body: Buffer, metadata: Mapping[str, str] | None = None) -> str:
        """Store `body` whole under `key` and return its etag; `BlobExistsError` if the key is taken."""
        return self._put(key, metadata, lambda target: disk.write_all(target, body))

    def stage_block(self, key: str, block_id: str, body: Buffer) -> None:
        """Stage one block; the same id again replaces it."""
        with disk.translated(self._root, f"stage a block of {key!r}"):
            self._make(self._temp)
            temp = self._new_temp()
            # Synced, since a resumed upload believes what is listed here: a block cut short by a crash must not be.
            with disk.new_file(temp) as target:
                disk.write_all(target, body)
            block = self._block(key, block_id)
            self._make(block.parent)
            try:
                os.replace(temp, block)
            except FileNotFoundError:  # a put of the same key dropped its staged blocks, directory and all
                self._make(block.parent)
                os.replace(temp, block)

    def list_blocks(self, key: str) -> list[Block]:
        """Return the staged blocks of `key`; empty when there are none."""
        with disk.translated(self._root, f"list the blocks of {key!r}"):
            found = []
            for name in _names(self._blocks(key)):
                # Committed or swept meanwhile; or not ours, such as the names NFS gives to files removed while open.
                with suppress(FileNotFoundError, ValueError):
                    block_id = bytes.fromhex(name).decode("ascii")
                    found.append(Block(block_id, (self._blocks(key) / name).stat().st_size))
            if not found:
                self._refuse_missing_root()
            return found

    def commit_blocks(self, key: str, block_ids: Sequence[str], metadata: Mapping[str, str] | None = None) -> str:
        """Make the blob out of these staged blocks, in this order, and return its etag; raises as the contract says."""

        def join_blocks(target: int) -> None:
            for block_id in block_ids:
                try:
                    disk.append_file(target, self._block(key, block_id))
                except FileNotFoundError as err:
                    # The commit of another writer takes the staged blocks away.
                    self._refuse_taken(key)
                    raise NotFoundError(f"block {block_id!r} of {key!r} is not staged", hint="upload the file again") from err

        return self._put(key, metadata, join_blocks)

    def find_blob(self, key: str) -> Blob | None:
        """Return size, etag and metadata, or None when it is not there."""
        with disk.translated(self._root, f"look for blob {key!r}"):
            found = self._stat(key)
            if found is None:
                self._refuse_missing_root()
                return None
            return Blob(key, found.st_size, _etag(found), self._read_metadata(key, _etag(found)))

    def read_range(self, key: str, offset_bytes: int = 0, length_bytes: int | None = None) -> bytes:
        """Return exactly `length_bytes` from `offset_bytes` (None: up to the end); raises as the contract says."""
        with disk.translated(self._root, f"read blob {key!r}"):
            self._get_stat(key)
            with disk.open_blob(self._root / key) as source:
                size_bytes = os.fstat(source).st_size
                wanted_bytes = max(size_bytes - offset_bytes, 0) if length_bytes is None else length_bytes
                assert offset_bytes >= 0 <= wanted_bytes, (offset_bytes, length_bytes)
                body = disk.read_at(source, offset_bytes, wanted_bytes)
        if offset_bytes > size_bytes or len(body) != wanted_bytes:
            raise _past_end(key, size_bytes, offset_bytes, offset_bytes + wanted_bytes)
        return body

    def read_range_into(self, key: str, offset_bytes: int, target: memoryview) -> None:
        """Fill `target` with the bytes from `offset_bytes` on; raises as the contract says."""
        assert offset_bytes >= 0 < len(target), (offset_bytes, len(target))
        with disk.translated(self._root, f"read blob {key!r}"):
            self._get_stat(key)
            with disk.open_blob(self._root / key) as source:
                size_bytes = os.fstat(source).st_size
                count = disk.read_into(source, offset_bytes, target)
        if count != len(target):
            raise _past_end(key, size_bytes, offset_bytes, offset_bytes + len(target))

    def list_blobs(self, prefix: str = "", start_after: str = "") -> Iterator[Blob]:
        """Yield blobs by key; holds the names of one directory at a time and each of its parents."""
        above = prefix.rpartition("/")[0]
        start = self._root / above if is_key(above) else self._root
        with disk.translated(self._root, "list blobs"):
            self._refuse_missing_root()
            self._refuse_symlinks(start)
        for key in self._walk(start, f"{above}/" if start != self._root else "", prefix, start_after):
            blob = self.find_blob(key)
            if blob is not None:  # else deleted since its directory was read
                yield blob

    def copy_blob(self, source_key: str, target_key: str) -> str:
        """Copy, metadata included, and return the new etag; `BlobExistsError` if the target is taken."""
        source = self.find_blob(source_key)
        if source is None:
            raise self._not_found(source_key)
        return self._put(target_key, source.metadata, lambda target: disk.append_file(target, self._root / source_key))

    def delete_blob(self, key: str, etag: str | None = None) -> bool:
        """Delete the blob; False when it was not there. `ConflictError` when `etag` is given and differs.

        Comparing and deleting are two steps: sound because vds never gives a deleted key to another blob.
        """
        with disk.translated(self._root, f"delete blob {key!r}"):
            found = self._stat(key)
            if found is None:
                self._refuse_missing_root()
                return False
            if etag is not None and etag != _etag(found):
                raise ConflictError(f"blob {key!r} has the etag {_etag(found)!r}, expected {etag!r}", hint="look at it again")
            deleted = disk.remove(self._root / key)
            disk.sync_directory((self._root / key).parent)
            # A crash here leaves metadata without a blob: harmless, its etag never comes again.
            shutil.rmtree(self._meta / key, ignore_errors=True)
            return deleted

    def sign_reads(self, blobs: Sequence[tuple[str, str]], *, starts_at: datetime, expires_at: datetime) -> list[str]:
        """Raise `InvalidInputError`: there is nobody to ask for a blob."""
        raise no_signing_error(self.url)

    def find_principal(self) -> None:
        """Return None: nobody is asked who they are here."""

    def close(self) -> None:
        """Do nothing: no file stays open between calls."""

    def _put(self, key: str, metadata: Mapping[str, str] | None, fill: Callable[[int], None]) -> str:
        checked = check_metadata(metadata)
        with disk.translated(self._root, f"put blob {key!r}"):
            self._refuse_taken(key)  # spares the writing in the usual case; the step that decides is in _place
            self._make(self._temp)
            temp = self._new_temp()
            with disk.new_file(temp) as target:
                fill(target)
            etag = _etag(temp.stat())
            sidecar = self._write_metadata(key, etag, checked)
            # A crash here leaves a temp file and metadata of an etag that no blob has: harmless.
            try:
                self._make((self._root / key).parent)
                self._place(temp, key)
            except BaseException:
                sidecar.unlink(missing_ok=True)
                raise
            finally:
                temp.unlink(missing_ok=True)
            disk.sync_directory((self._root / key).parent)
            shutil.rmtree(self._blocks(key), ignore_errors=True)
            self._made.discard(self._blocks(key))
            return etag

    def _place(self, temp: Path, key: str) -> None:
        target = self._root / key
        try:
            if self._links and disk.link_if_absent(temp, target):
                return
            self._links = False
            self._make(self._temp / "claims")
            disk.claim_if_absent(temp, target, self._temp / "claims" / _flat(key))
        except FileExistsError as err:
            self._refuse_taken(key)
            raise self._taken(key) from err  # taken when we tried, deleted since

    def _write_metadata(self, key: str, etag: str, metadata: Mapping[str, str]) -> Path:
        sidecar = self._meta / key / etag
        if metadata:
            self._make(sidecar.parent)
            with disk.new_file(sidecar) as target:
                disk.write_all(target, json.dumps(metadata, sort_keys=True).encode("ascii"))
            disk.sync_directory(sidecar.parent)
        return sidecar

    def _read_metadata(self, key: str, etag: str) -> dict[str, str]:
        names = _names(self._meta / key)
        if etag not in names:
            # After a copy that dropped modification times the one sidecar of this size is the blob's; elsewhere losers of a
            # race remove theirs, so a wrong one needs a crash as well.
            size = etag.partition("-")[2]
            names = [name for name in names if name.partition("-")[2] == size]
            if len(names) != 1:
                return {}
            etag = names[0]
        try:
            with disk.open_blob(self._meta / key / etag) as source:
                return check_metadata(json.loads(disk.read_at(source, 0, 2 * METADATA_BYTES_MAX)))
        except FileNotFoundError:  # deleted meanwhile
            return {}
        except (ValueError, AttributeError, TypeError, RecursionError) as err:
            raise CorruptionError(
                f"the metadata of blob {key!r} in {str(self._root)!r} is damaged", hint="run: vds fsck"
            ) from err

    def _walk(self, directory: Path, above: str, prefix: str, start_after: str) -> Iterator[str]:
        """Yield keys below `directory`, whose keys begin with `above`, in order; names that are no keys are not ours."""
        names = []
        gone = suppress(FileNotFoundError, NotADirectoryError)  # the directory of a prefix may be a blob, or not be
        with disk.translated(self._root, "list blobs"), gone, os.scandir(directory) as entries:
            for entry in entries:
                if is_key(entry.name):
                    if entry.is_symlink():
                        raise self._symlink(above + entry.name)
                    names.append(f"{entry.name}/" if entry.is_dir() else entry.name)
        # A directory sorts with its slash: "a-b" < "a/b" < "a0", as the keys do.
        for name in sorted(names):
            key = above + name
            if not name.endswith("/"):
                if key.startswith(prefix) and key > start_after:
                    yield key
            elif (key.startswith(prefix) or prefix.startswith(key)) and (key > start_after or start_after.startswith(key)):
                yield from self._walk(directory / name, key, prefix, start_after)

    def _make(self, directory: Path) -> None:
        if directory in self._made and directory.is_dir():
            return
        if self._temp not in self._made:
            self._temp.mkdir(exist_ok=True)
            self._made.add(self._temp)
            _sweep(self._temp)
        disk.make_directory(directory, self._root)
        self._refuse_symlinks(directory)
        self._made.add(directory)

    def _stat(self, key: str) -> os.stat_result | None:
        path = self._root / check_key(key)
        if path.parent not in self._made:
            self._refuse_symlinks(path.parent)
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISLNK(found.st_mode):
            raise self._symlink(key)
        return found if stat.S_ISREG(found.st_mode) else None

    def _get_stat(self, key: str) -> os.stat_result:
        found = self._stat(key)
        if found is None:
            raise self._not_found(key)
        return found

    def _refuse_symlinks(self, directory: Path) -> None:
        while directory != self._root:
            if directory.is_symlink():
                raise self._symlink(directory.relative_to(self._root).as_posix())
            directory = directory.parent

    def _symlink(self, key: str) -> CorruptionError:
        return CorruptionError(
            f"{key!r} in {str(self._root)!r} is a symbolic link", hint="put the file or directory itself there"
        )

    def _refuse_taken(self, key: str) -> None:
        if self._stat(key) is not None:
            raise self._taken(key)
        if (self._root / key).is_dir():
            raise InvalidInputError(f"{key!r} is a directory of keys, not the key of a blob")

    def _taken(self, key: str) -> BlobExistsError:
        return BlobExistsError(f"there is a blob {key!r} already in {self.url!r}")

    def _not_found(self, key: str) -> NotFoundError:
        with disk.translated(self._root, f"look for blob {key!r}"):
            self._refuse_missing_root()
        return NotFoundError(f"there is no blob {key!r} in {self.url!r}", hint="run: vds fsck")

    def _refuse_missing_root(self) -> None:
        if not self._root.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._root))

    def _blocks(self, key: str) -> Path:
        return self._temp / "blocks" / _flat(check_key(key))

    def _block(self, key: str, block_id: str) -> Path:
        return self._blocks(key) / block_id.encode("ascii").hex()

    def _new_temp(self) -> Path:
        return self._temp / f"put-{secrets.token_hex(8)}"


def _past_end(key: str, size_bytes: int, start_bytes: int, end_bytes: int) -> CorruptionError:
    return CorruptionError(f"blob {key!r} has {size_bytes} bytes: cannot read {start_bytes} to {end_bytes}", hint="run: vds fsck")


def _names(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _flat(key: str) -> str:
    return key.replace("/", ",")  # keys hold no comma


def _etag(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns:x}-{found.st_size:x}"


def _sweep(temp: Path) -> None:
    """Remove what writers left that died, or stopped, more than a week ago; claims stay, they hold bytes of a blob."""
    oldest_s = time.time() - LEFTOVER_AGE_S
    for path in (*temp.glob("put-*"), *temp.glob("blocks/*")):
        with suppress(OSError):  # someone else sweeps too, or may not
            if path.lstat().st_mtime >= oldest_s:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
