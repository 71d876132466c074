"""Continue interrupted uploads of large files: which pending blob may be taken over, and from whom.

Taking over is safe whoever the other is: one guarded UPDATE decides who may finish a blob, and the loser sends again. To spare a
writer who is at work, only blobs are taken whose upload has ended, whose process on this machine is gone, or that fell silent.
"""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

from vds.blobs.objects import fresh_ulid, is_stream_key, object_key, stream_key
from vds.engine.large import Intent
from vds.index.database import Connection
from vds.index.placements import add_pending_blobs
from vds.index.resume import ResumableRow, find_resumable, take_over_blob

HEARTBEAT_S = 20.0
SILENT_US = 120 * 1_000_000
"""Six missed heartbeats."""


def begin_large(connection: Connection, store_id: int, upload_id: int, fingerprint: str, digest: bytes | None) -> Intent:
    """Return the pending blob for a large file: one that an interrupted upload left, or a new one."""
    for row in find_resumable(connection, store_id, fingerprint):
        # A key that names a digest must hold what it names, and the samples do not prove that this file is it.
        fits = is_stream_key(row.key) or (digest is not None and digest.hex() in row.key)
        if fits and is_abandoned(row, upload_id) and take_over_blob(connection, row.blob_id, row.upload_id, upload_id):
            return Intent(row.blob_id, row.key, is_resumed=True)
    key = stream_key(fresh_ulid()) if digest is None else object_key(digest, fresh_ulid())
    [blob_id] = add_pending_blobs(connection, store_id, [key], upload_id, fingerprint=fingerprint)
    return Intent(blob_id, key)


def is_abandoned(row: ResumableRow, upload_id: int) -> bool:
    """Return whether nobody works on a pending blob any more."""
    if row.upload_id == upload_id:
        return False  # another file of this very upload
    if row.upload_state != "open" or row.now_us - row.heartbeat_us > SILENT_US:
        return True
    return is_gone(row.process)


def own_process() -> str:
    """Return what tells this process from every other, on this machine and elsewhere: `host/boot/pid space/pid/start`."""
    return "/".join([*_machine(), str(os.getpid()), _start_of(os.getpid())])


def is_gone(process: str) -> bool:
    """Return whether a process is known to have ended: it was one of this machine, and its pid is free or another's.

    Only where pids mean the same is anything known: containers of one machine may share its name and boot, but not its pids.
    """
    parts = process.split("/")
    if len(parts) != 5 or not parts[1] or tuple(parts[:3]) != _machine() or not parts[3].isdecimal():
        return False
    return _start_of(int(parts[3])) != parts[4]


@cache
def _machine() -> tuple[str, str, str]:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = space = ""  # not Linux: only silence tells then
    return socket.gethostname().replace("/", "_"), boot, space


def _start_of(pid: int) -> str:
    """Return when a process began, in the kernel's ticks; empty when there is none."""
    try:
        # The name, in brackets, may hold anything; the start is the 20th field behind it.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
