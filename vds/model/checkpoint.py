"""A checkpoint: all entries of one version as a change list in a blob, so that who replays a history need not begin at its start.

Its key says whose it is, of which version, and the digest of its rows; a row is there for each file of the version.
"""

from __future__ import annotations

from typing import NamedTuple

from vds.model.digest import Digest
from vds.model.ulid import is_ulid

CHECKPOINT_PREFIX = "checkpoints/"
_NUMBER_DIGITS = 16


class CheckpointKey(NamedTuple):
    """What the key of a checkpoint says."""

    namespace: str
    number: int
    digest: bytes
    generation: str

    def __str__(self) -> str:
        return f"{checkpoint_prefix(self.namespace)}{self.number:0{_NUMBER_DIGITS}d}-{self.digest.hex()}.{self.generation}"


def checkpoint_prefix(namespace: str) -> str:
    """Return what the keys of a namespace's checkpoints begin with; they sort by the number of the version."""
    return f"{CHECKPOINT_PREFIX}{namespace}/"


def parse_checkpoint_key(key: str) -> CheckpointKey | None:
    """Return what a key says, or None when it is not that of a checkpoint."""
    namespace, _, name = key.removeprefix(CHECKPOINT_PREFIX).partition("/")
    number, _, rest = name.partition("-")
    digest, _, generation = rest.partition(".")
    if not (is_ulid(namespace) and number.isascii() and number.isdigit() and is_ulid(generation)):
        return None
    try:
        found = CheckpointKey(namespace, int(number), Digest(f"b3:{digest}").raw, generation)
    except ValueError:
        return None
    return found if str(found) == key and found.number else None


def holds_everything(added: int, modified: int, file_count: int) -> bool:
    """Return whether the change list of a version names each file of it, and so is as good as a checkpoint.

    It is so for the first version, and for one that replaced all there was.
    """
    return added + modified == file_count
