"""Trees of files on disk, and versions as plain dicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from vds.blobs.driver import Blob, Buffer
from vds.blobs.memory import MemoryDriver
from vds.blobs.reads import RangeRead
from vds.errors import UnavailableError
from vds.store import Version


def write_tree(root: Path, files: Mapping[str, bytes], *, executable: Sequence[str] = ()) -> Path:
    """Make `root` hold exactly these files, and return it."""
    if root.exists():
        for path in sorted(root.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
    root.mkdir(parents=True, exist_ok=True)
    for name, body in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        path.chmod(0o755 if name in executable else 0o644)
    return root


def files_of(version: Version) -> dict[str, bytes]:
    """Return path → content, read from the store."""
    return {entry.path: version.read_bytes(entry.path) for entry in version.entries()}


class WatchedDriver(MemoryDriver):
    """Blobs in memory; puts are counted by the first segment of the key, and can be refused or lose their answer."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.puts: Counter[str] = Counter()
        self.refused = ""
        """Puts of keys that begin so raise, and store nothing."""
        self.answerless = ""
        """Puts of keys that begin so are done, and then raise."""

    def put_if_absent(self, key: str, body: Buffer, metadata: Mapping[str, str] | None = None) -> str:
        return self._watch(key, lambda: super(WatchedDriver, self).put_if_absent(key, body, metadata))

    def commit_blocks(self, key: str, block_ids: Sequence[str], metadata: Mapping[str, str] | None = None) -> str:
        return self._watch(key, lambda: super(WatchedDriver, self).commit_blocks(key, block_ids, metadata))

    def _watch(self, key: str, put: Callable[[], str]) -> str:
        if self.refused and key.startswith(self.refused):
            raise UnavailableError(f"put of {key} refused by the test")
        etag = put()
        self.puts[key.split("/")[0]] += 1
        if self.answerless and key.startswith(self.answerless):
            raise UnavailableError(f"the answer to the put of {key} was lost by the test")
        return etag


class ReadDriver(WatchedDriver):
    """Counts reads as well, and can have its blobs damaged."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.reads: list[RangeRead] = []
        self.is_away = False
        """Whether it answers no reads and no listings."""

    def list_blobs(self, prefix: str = "", start_after: str = "") -> Iterator[Blob]:
        self._answer()
        return super().list_blobs(prefix, start_after)

    def _answer(self) -> None:
        if self.is_away:
            raise UnavailableError("the service is away")

    def read_range(self, key: str, offset_bytes: int = 0, length_bytes: int | None = None) -> bytes:
        self._answer()
        found = super().read_range(key, offset_bytes, length_bytes)
        if key.startswith(("packs/", "objects/")):
            self.reads.append(RangeRead(key, offset_bytes, len(found), ()))
        return found

    def read_range_into(self, key: str, offset_bytes: int, target: memoryview) -> None:
        target[:] = self.read_range(key, offset_bytes, len(target))

    def replace(self, body: bytes, other: bytes | None) -> str:
        """Put other bytes, or nothing, where the blob is that is this whole object; return its key."""
        [key] = [blob.key for blob in self.list_blobs("objects/") if super(ReadDriver, self).read_range(blob.key) == body]
        self.delete_blob(key)
        if other is not None:
            super().put_if_absent(key, other)
        return key

    def move(self, body: bytes) -> tuple[str, str]:
        """Move the blob that holds these bytes to another key, and return both."""
        blobs = [*self.list_blobs("objects/"), *self.list_blobs("packs/")]
        [old] = [blob.key for blob in blobs if body in super(ReadDriver, self).read_range(blob.key)]
        self.copy_blob(old, f"{old}-moved")
        self.delete_blob(old)
        return old, f"{old}-moved"
