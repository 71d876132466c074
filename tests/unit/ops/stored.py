"""A version in memory: entries, and the blobs that hold their objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.unit.blobs.spy import SpyDriver
from vds.blobs.objects import Placement, object_key
from vds.blobs.packs import MEMBER_BYTES_END, PackBuilder
from vds.model.digest import Digest
from vds.model.entry import MODE_EXECUTABLE, MODE_FILE, Entry
from vds.model.path import entry_path
from vds.ops.placing import LOOKUP_MAX, ObjectSource

MODIFIED_NS = 1_600_000_000_000_000_000


class Stored:
    def __init__(self) -> None:
        self.driver = SpyDriver()
        self.placements: dict[bytes, Placement] = {}
        self.lookups = 0
        self._packs = 0

    @property
    def source(self) -> ObjectSource:
        return ObjectSource(self.driver, self.find_placements)

    def find_placements(self, entries: Sequence[Entry]) -> Mapping[bytes, Placement]:
        assert len(entries) <= LOOKUP_MAX
        self.lookups += 1
        digests = {entry.digest.raw for entry in entries}
        return {digest: self.placements[digest] for digest in digests if digest in self.placements}

    def version(self, files: Mapping[str, bytes], *, executable: Sequence[str] = ()) -> list[Entry]:
        """Store what is new, small objects in one pack in order of their paths, and return the entries."""
        builder = PackBuilder()
        members: list[tuple[bytes, int, int]] = []
        entries = []
        for path in sorted(files):
            body, digest = files[path], Digest.of(files[path])
            mode = MODE_EXECUTABLE if path in executable else MODE_FILE
            entries.append(Entry(entry_path(path), digest, len(body), mode, MODIFIED_NS))
            if not body or digest.raw in self.placements or any(member[0] == digest.raw for member in members):
                continue
            if len(body) < MEMBER_BYTES_END:
                members.append((digest.raw, builder.append(digest.raw, body), len(body)))
            else:
                key = object_key(digest.raw, "g")
                self.driver.put_if_absent(key, body)
                self.placements[digest.raw] = Placement(key, 0, len(body))
        if members:
            self._packs += 1
            key = f"packs/00/{self._packs}.pack"
            self.driver.put_if_absent(key, builder.finish())
            self.placements.update({raw: Placement(key, offset, length) for raw, offset, length in members})
        return entries
