"""A driver in memory that counts requests, and can lose a response or damage a blob."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

from vds.blobs.driver import Block, Buffer
from vds.blobs.memory import MemoryDriver
from vds.errors import UnavailableError

_numbers = itertools.count()


class SpyDriver(MemoryDriver):
    def __init__(self) -> None:
        super().__init__(f"spy-{next(_numbers)}")
        self.create_container()
        self.requests: Counter[str] = Counter()
        self.sent_bytes = 0
        self.read_bytes = 0
        self.lost_responses = 0
        """How many of the next puts take effect and are then made again, as a client does that got no answer."""
        self.damaged: dict[str, int] = {}
        """Key → the byte whose lowest bit is read wrong."""
        self.down = False

    def put_if_absent(self, key: str, body: Buffer, metadata: Mapping[str, str] | None = None) -> str:
        self._count("put", len(body))
        if self.lost_responses:
            self.lost_responses -= 1
            super().put_if_absent(key, body, metadata)
        return super().put_if_absent(key, body, metadata)

    def stage_block(self, key: str, block_id: str, body: Buffer) -> None:
        self._count("stage", len(body))
        super().stage_block(key, block_id, body)

    def list_blocks(self, key: str) -> list[Block]:
        self._count("list_blocks")
        return super().list_blocks(key)

    def commit_blocks(self, key: str, block_ids: Sequence[str], metadata: Mapping[str, str] | None = None) -> str:
        self._count("commit")
        if self.lost_responses:
            self.lost_responses -= 1
            super().commit_blocks(key, block_ids, metadata)
        return super().commit_blocks(key, block_ids, metadata)

    def read_range(self, key: str, offset_bytes: int = 0, length_bytes: int | None = None) -> bytes:
        self._count("read")
        data = super().read_range(key, offset_bytes, length_bytes)
        self.read_bytes += len(data)
        place = self.damaged.get(key, -1) - offset_bytes
        if 0 <= place < len(data):
            return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        return data

    def _count(self, request: str, sent_bytes: int = 0) -> None:
        if self.down:
            raise UnavailableError("the blob service did not answer")
        self.requests[request] += 1
        self.sent_bytes += sent_bytes
