"""Sortable unique names: 48 bits of milliseconds, then 80 random bits, in Crockford's base 32 (26 characters, lower case).

Source: https://github.com/ulid/spec, but for the lower case: keys of blobs are lower case throughout.
"""

from __future__ import annotations

import re

RANDOM_BYTES = 10
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_TEXT = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")


def new_ulid(now_ms: int, randomness: bytes) -> str:
    """Return the ulid of a moment (milliseconds since 1970) and 10 random bytes."""
    assert 0 <= now_ms < 1 << 48, now_ms
    assert len(randomness) == RANDOM_BYTES, len(randomness)
    number = now_ms << 80 | int.from_bytes(randomness, "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def is_ulid(text: str) -> bool:
    """Return whether `text` is a ulid as `new_ulid` writes it."""
    return _TEXT.fullmatch(text) is not None


def ulid_ms(ulid: str) -> int:
    """Return the moment inside a ulid, in milliseconds since 1970."""
    assert is_ulid(ulid), ulid
    number = 0
    for character in ulid[:10]:
        number = number << 5 | _ALPHABET.index(character)
    return number
