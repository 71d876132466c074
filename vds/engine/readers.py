"""Who reads and hashes: threads, and once there are many small files, processes beside them.

A small file is five system calls and a few microseconds of hashing. In threads each call gives the interpreter away and waits to
get it back, so two threads read no more than one; a helper process fills the same buffers while this one looks after the index.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import cache
from threading import Condition
from typing import Any

from vds.blobs.packs import PACK_BUFFER_BYTES, pack_rows
from vds.buffers import BufferPool, map_buffer
from vds.engine.gather import Group, Read, read_files, read_group
from vds.files.scan import SourceFile
from vds.helper import Helper, HelperLostError
from vds.model.content import Member

HELPER_FILES = (500, 4_000, 16_000)
"""After how many small files each helper is started, when there are more: that costs 60 ms of CPU time, as reading 4 000 does."""
HELPERS_MAX = min(len(HELPER_FILES), (os.cpu_count() or 1) - 1)
_START_S = 0.02
"""How often a thread that waits for the first helper to start looks whether it has."""


class Readers:
    """Reads groups, from any number of threads; close it when done.

    Args:
        pool: of the buffers that are read into; helpers need one that is shared.
        helpers_max: processes at once.
    """

    def __init__(self, pool: BufferPool, helpers_max: int | None = None) -> None:
        self._pool = pool
        most = HELPERS_MAX if helpers_max is None else helpers_max
        self._helpers_max = most if pool.descriptor is not None else 0
        self._changed = Condition()
        self._helpers: list[Helper] = []
        self._starting: list[Helper] = []
        self._idle: list[Helper] = []
        self._files = 0
        self._alone = 0
        self._is_disk_slow = False

    def read(self, group: Group) -> Read:
        """Do with the files of a group what its kind says, as `read_group` does."""
        if group.kind != "pack":
            return read_group(group, self._pool)
        helper = self._take(len(group.files))
        if helper is None:
            return self._read_alone(group)
        loan = self._pool.lend()
        try:
            answer = helper.call((self._pool.descriptor, loan.offset_bytes, list(zip(*group.files, strict=True))))
        except HelperLostError:
            loan.release()
            self._lose()
            return read_group(group, self._pool)  # nothing is lost: it only read
        digests, bodies, failures, rows, read_at_ns, is_disk_slow = answer
        with self._changed:
            self._is_disk_slow = is_disk_slow
            self._idle.append(helper)
            self._changed.notify_all()
        return Read(group, digests, list(map(Member._make, bodies)), failures, loan, rows, read_at_ns=read_at_ns)

    def close(self) -> None:
        """End the helpers; no `read` may be running. Idempotent."""
        helpers, self._helpers = self._helpers, []
        for helper in helpers:
            helper.close()

    def _take(self, count: int) -> Helper | None:
        """Return a helper that is free, waiting for one if that is the faster way; None when the caller should read itself."""
        with self._changed:
            self._start()
            self._files += count
            while self._helpers_max and self._helpers:
                ready = [helper for helper in self._starting if helper.is_ready()]
                self._starting = [helper for helper in self._starting if helper not in ready]
                self._idle += ready
                if self._idle:
                    return self._idle.pop()
                # Two threads that read hold each other up, one does not. It is what reads until the first helper has started.
                # While files come from a disk that is slower than this, threads wait side by side.
                is_first = len(self._starting) == len(self._helpers)
                if self._is_disk_slow or (is_first and not self._alone):
                    break
                self._changed.wait(_START_S if is_first else None)
            self._alone += 1
            return None

    def _start(self) -> None:
        started = len(self._helpers)
        if started < self._helpers_max and self._files >= HELPER_FILES[started]:
            try:
                helper = Helper(__name__, read_for_parent.__name__, self._pool.descriptor or 0)
            except HelperLostError:
                self._helpers_max = started
                return
            self._helpers.append(helper)
            self._starting.append(helper)

    def _read_alone(self, group: Group) -> Read:
        try:
            return read_group(group, self._pool)
        finally:
            with self._changed:
                self._alone -= 1
                self._changed.notify_all()

    def _lose(self) -> None:
        with self._changed:
            self._helpers_max = 0  # what ended this one, such as a shortage of memory, would end the next
            self._changed.notify_all()


def read_for_parent(request: tuple[int, int, list[Sequence[Any]]]) -> tuple[Any, ...]:
    """Read files into a buffer of the parent's: what a helper runs."""
    descriptor, offset_bytes, columns = request
    read_at_ns, cpu_s, wall_s = time.time_ns(), time.process_time(), time.monotonic()
    view = _buffer(descriptor, offset_bytes)
    digests, bodies, failures = read_files(map(SourceFile._make, zip(*columns, strict=True)), view)
    rows = pack_rows(view, bodies)
    is_disk_slow = time.process_time() - cpu_s < (time.monotonic() - wall_s) / 4
    return digests, list(map(tuple, bodies)), failures, rows, read_at_ns, is_disk_slow


@cache
def _buffer(descriptor: int, offset_bytes: int) -> memoryview:
    return map_buffer(descriptor, offset_bytes, PACK_BUFFER_BYTES)
