"""Urls with which somebody without an account reads files of a version for a while, straight from the blob service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from vds.blobs.objects import OBJECT_PREFIX, Placement
from vds.errors import InvalidInputError, redact
from vds.model.adoption import ADOPTED_PREFIX
from vds.model.batch import batched
from vds.model.digest import Digest
from vds.model.entry import Entry
from vds.model.path import EntryPath
from vds.ops.placing import LOOKUP_MAX, ObjectSource

HOURS_MIN = 1
HOURS_MAX = 7 * 24
"""What a user delegation key lives at most; an account key could sign for years, and a url that leaks would be good as long."""
CLOCK_SKEW = timedelta(minutes=15)
_NAMED_MAX = 10


@dataclass(frozen=True, slots=True)
class Shared:
    """A file, and the url with which whoever has it reads it.

    Attributes:
        path: relative to the view the file was shared from.
        url: a secret, since it needs no other proof; repr and str leave its signature out.
        expires_at: when it ends, in UTC. Before that it ends with the key that signed it.
    """

    path: EntryPath
    url: str
    expires_at: datetime
    size_bytes: int
    digest: Digest

    def __repr__(self) -> str:
        return (
            f"Shared(path={self.path!r}, url={redact(self.url)!r}, expires_at={self.expires_at!r},"
            f" size_bytes={self.size_bytes}, digest={self.digest!r})"
        )


class UnshareableError(InvalidInputError):
    """Some files are no blobs of their own, so no url can be good for one of them alone. Nothing was signed.

    Attributes:
        paths: of all of them.
    """

    def __init__(self, message: str, *, paths: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.paths = tuple(paths)


def utc_now() -> datetime:
    """Return this machine's time."""
    return datetime.now(UTC)


def share(
    source: ObjectSource, entries: Iterable[Entry], hours: float = 24, *, now: Callable[[], datetime] = utc_now
) -> list[Shared]:
    """Return a url for each entry, in their order; all are signed here, with one request at most.

    Nothing is written anywhere, and a url cannot be taken back by itself: it ends with its time, or with the key it was signed
    with (rotate the account key, or revoke the user delegation keys of the account). It also ends when the file's blob is
    collected, which no version that is kept lets happen.

    Args:
        source: of the objects.
        entries: what to share.
        hours: how long the urls are good.
        now: this machine's clock; the service compares with its own.

    Raises:
        InvalidInputError: `hours` is out of bounds, or the store cannot sign: it is in no storage account, or opened with a SAS.
        UnshareableError: some files stand in one blob with others, or have no bytes.
        AccessDeniedError: the signed-in user may not sign.
        CorruptionError: the index has no place of a file.
    """
    if not HOURS_MIN <= hours <= HOURS_MAX:
        raise InvalidInputError(
            f"hours {hours!r} is not between {HOURS_MIN} and {HOURS_MAX}", hint="share again when it has ended"
        )
    begins = now().replace(microsecond=0)  # a signature holds whole seconds
    expires_at = begins + timedelta(hours=hours)
    chosen = list(entries)
    keys = _find_keys(source, chosen)
    urls = source.driver.sign_reads(
        [(key, entry.path.rpartition("/")[2]) for key, entry in zip(keys, chosen, strict=True)],
        starts_at=max(begins - CLOCK_SKEW, expires_at - timedelta(hours=HOURS_MAX)),
        expires_at=expires_at,
    )
    return [Shared(entry.path, url, expires_at, entry.size_bytes, entry.digest) for entry, url in zip(chosen, urls, strict=True)]


def _is_whole_blob(placement: Placement) -> bool:
    # Only packs hold more than one object, and they have keys of their own.
    return placement.key.startswith((OBJECT_PREFIX, ADOPTED_PREFIX))


def _find_keys(source: ObjectSource, entries: list[Entry]) -> list[str]:
    keys: list[str] = []
    together: list[str] = []
    for batch in batched(entries, LOOKUP_MAX):
        found = source.find_placements([entry for entry in batch if entry.size_bytes])
        for entry in batch:
            placement = found.get(entry.digest.raw)
            if entry.size_bytes and (placement is None or placement.length_bytes != entry.size_bytes):
                raise source.missing(entry)
            if placement is None or not _is_whole_blob(placement):
                together.append(entry.path)
            else:
                keys.append(placement.key)
    if together:
        more = f" and {len(together) - _NAMED_MAX} more" if len(together) > _NAMED_MAX else ""
        named = ", ".join(map(repr, together[:_NAMED_MAX]))
        raise UnshareableError(
            f"no url can be good for one of these alone: {named}{more}; files under 1 MiB stand in one blob with others",
            paths=together,
            hint="hand them over as plain blobs: vds export REF URL",
        )
    return keys
