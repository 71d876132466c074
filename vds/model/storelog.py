"""The store's own log: what happened to the store as a whole, from which a lost index learns what no version tells.

Records are dense from 1, hash-chained, and written with *put if absent*: of a collector and a rebuild that want the same number,
one is told that it is late. Canonical JSON, at most 1 MiB.

| kind | fields |
|---|---|
| `namespace-created` | `namespace` (id), `name` |
| `versions-expired` | `namespace`, `numbers` (ranges), `author`, `reason` |
| `versions-restored` | `namespace`, `numbers`, `author` |
| `keys-deleting` | `keys`, `size_bytes`, `why` (gc, reap, erase), `author`: before the first is deleted |
| `object-erased` | `digest`, `author`, `reason` |
| `index-replaced` | `incarnation`, `address`, `host`: what index serves the store from here on |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vds.errors import CorruptionError, InvalidInputError
from vds.model.digest import Digest
from vds.model.fields import HINT, Fields
from vds.model.ref import format_moment, parse_name
from vds.model.ulid import is_ulid
from vds.model.version import (
    NUMBER_MAX,
    RECORD_BYTES_MAX,
    STORE_CONTEXT,
    canonical_json,
    parse_record,
    parse_written_moment,
    record_digest,
)

STORE_PREFIX = "store/"

KEYS_MAX = 4000
"""How many keys one record names: with 200 characters each it stays under 1 MiB."""

RANGES_MAX = 20_000
"""How many ranges of version numbers one record names."""


def store_key(number: int) -> str:
    """Return the key of a record of the store's log; zero-padded so that listings sort."""
    return f"{STORE_PREFIX}{number:016d}"


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """One record of the store's log; `fields` are those of its kind."""

    store: str
    number: int
    parent: bytes
    kind: str
    created_at: datetime
    fields: Mapping[str, Any]

    def encode(self) -> bytes:
        """Return the record's bytes.

        Raises:
            InvalidInputError: they are more than 1 MiB.
        """
        body = canonical_json(
            {
                "format": 1,
                "store": self.store,
                "number": self.number,
                "parent": str(Digest.from_raw(self.parent)),
                "kind": self.kind,
                "created_at": format_moment(self.created_at),
                **self.fields,
            }
        )
        if len(body) > RECORD_BYTES_MAX:
            raise InvalidInputError(
                f"the record for the store's log would be {len(body)} bytes, the limit is {RECORD_BYTES_MAX}",
                hint="give a shorter reason, or name fewer versions at once",
            )
        return body

    @classmethod
    def decode(cls, body: bytes, key: str) -> StoreRecord:
        """Parse a record.

        Raises:
            CorruptionError: the bytes are no record of a store's log; the message names `key`.
            FormatError: a newer vds wrote it.
        """
        read = parse_record(body, f"store record {key!r}")
        kind = read.one_of("kind", _TEXTS)
        try:
            _check_fields(kind, read)
        except (TypeError, ValueError) as err:
            raise CorruptionError(f"store record {key!r} cannot be read: {err}", hint=HINT) from err
        return cls(
            read.word("store", is_ulid),
            read.number("number", 1, NUMBER_MAX),
            read.digest("parent"),
            kind,
            read.parsed("created_at", parse_written_moment),
            {name: value for name, value in read.raw.items() if name not in _COMMON},
        )

    @property
    def digest(self) -> bytes:
        """What the next record names as its parent."""
        return record_digest(STORE_CONTEXT, self.encode())


_COMMON = {"format", "store", "number", "parent", "kind", "created_at"}


def pack_numbers(numbers: Iterable[int]) -> list[list[int]]:
    """Return ascending version numbers as ranges, first and last of each."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ranges


def unpack_numbers(ranges: Iterable[Iterable[int]]) -> Iterator[tuple[int, int]]:
    """Yield the first and last number of each range.

    Raises:
        ValueError: they are no ascending ranges of version numbers.
    """
    previous = 0
    for first, last in ranges:
        if not previous < _natural(first) <= _natural(last):
            raise ValueError(f"{first!r} to {last!r} is not a range of versions after {previous}")
        previous = last
        yield first, last


def _natural(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**62:
        raise ValueError(f"{value!r} is not a number of a record")
    return value


def _check_fields(kind: str, fields: Fields) -> None:
    """Check the fields of a kind.

    Raises:
        CorruptionError, ValueError, TypeError: they are not what the kind has.
    """
    for name in _TEXTS[kind]:
        fields.text(name)
    if "namespace" in _TEXTS[kind]:
        fields.word("namespace", is_ulid)
    if kind == "namespace-created":
        fields.parsed("name", parse_name)
    elif kind in ("versions-expired", "versions-restored"):
        list(unpack_numbers(_list(fields, "numbers", RANGES_MAX)))
    elif kind == "keys-deleting":
        fields.number("size_bytes")
        if not all(isinstance(key, str) for key in _list(fields, "keys", KEYS_MAX)):
            raise fields.wrong("keys", "of which one is no text")
    elif kind == "object-erased":
        fields.digest("digest")
    elif kind == "index-replaced":
        fields.word("incarnation", is_ulid)


def _list(fields: Fields, name: str, count_max: int) -> list[Any]:
    value = fields.raw.get(name)
    if not isinstance(value, list):
        raise fields.wrong(name, "expected a list")
    if len(value) > count_max:
        raise fields.wrong(name, f"{len(value)} in all, the limit is {count_max}")
    return value


_TEXTS: Mapping[str, tuple[str, ...]] = {
    "namespace-created": ("namespace", "name"),
    "versions-expired": ("namespace", "author", "reason"),
    "versions-restored": ("namespace", "author"),
    "keys-deleting": ("author", "why"),
    "object-erased": ("digest", "author", "reason"),
    "index-replaced": ("incarnation", "address", "host"),
}
