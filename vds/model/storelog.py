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

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vds.errors import CorruptionError, InvalidInputError
from vds.model.digest import Digest
from vds.model.ref import format_moment, parse_moment
from vds.model.ulid import is_ulid
from vds.model.version import RECORD_BYTES_MAX, STORE_CONTEXT, canonical_json, record_digest

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
        """
        if len(body) > RECORD_BYTES_MAX:
            raise CorruptionError(f"store record {key!r} has {len(body)} bytes, the limit is {RECORD_BYTES_MAX}")
        try:
            raw = json.loads(body)
            fields = {name: raw[name] for name in raw if name not in _COMMON}
            record = cls(
                raw["store"],
                _natural(raw["number"]),
                Digest(raw["parent"]).raw,
                raw["kind"],
                parse_moment(raw["created_at"]),
                fields,
            )
            _check_fields(record.kind, fields)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as err:
            raise CorruptionError(f"store record {key!r} cannot be read: {type(err).__name__}: {err}") from err
        return record

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


def _check_fields(kind: str, fields: Mapping[str, Any]) -> None:
    """Check the fields of a kind.

    Raises:
        ValueError, KeyError, TypeError: they are not what the kind has.
    """
    for name in _TEXTS[kind]:
        if not isinstance(fields[name], str):
            raise ValueError(f"{name} is {fields[name]!r}, which is no text")
    if kind in ("versions-expired", "versions-restored"):
        if len(fields["numbers"]) > RANGES_MAX:
            raise ValueError(f"{len(fields['numbers'])} ranges of versions, the limit is {RANGES_MAX}")
        list(unpack_numbers(fields["numbers"]))
    elif kind == "keys-deleting":
        if len(fields["keys"]) > KEYS_MAX:
            raise ValueError(f"{len(fields['keys'])} keys, the limit is {KEYS_MAX}")
        if not all(isinstance(key, str) for key in fields["keys"]):
            raise ValueError("a key is no text")
    elif kind == "object-erased":
        Digest(fields["digest"])
    elif kind == "index-replaced" and not is_ulid(fields["incarnation"]):
        raise ValueError(f"{fields['incarnation']!r} is not an incarnation")


_TEXTS: Mapping[str, tuple[str, ...]] = {
    "namespace-created": ("namespace", "name"),
    "versions-expired": ("namespace", "author", "reason"),
    "versions-restored": ("namespace", "author"),
    "keys-deleting": ("author", "why"),
    "object-erased": ("digest", "author", "reason"),
    "index-replaced": ("incarnation", "address", "host"),
}
