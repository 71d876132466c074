"""JSON that anyone may have written, read field by field.

Guarantees:
- whatever is wrong is a CorruptionError that says what was read and names the field; nothing else is raised, whatever the bytes;
- a number is a whole number in its range (true is not 1, 1.0 is not 1), a text is valid Unicode without NUL and of bounded size;
- what comes twice, NaN, infinities and nesting beyond Python's depth are refused. How many bytes there are is bounded first.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeVar

from vds.errors import CorruptionError
from vds.model.digest import Digest

T = TypeVar("T")

INT64_MAX = 2**63 - 1
"""What a database's BIGINT holds."""
TEXT_BYTES_MAX = 64 * 1024
"""Of one text; messages, the longest of them, have the same limit when they are written."""
HINT = "run: vds fsck"
_SHORT_BYTES_MAX = 4096  # of names, digests, paths and moments, which errors show whole


def parse_fields(body: bytes, what: str, *, bytes_max: int) -> Fields:
    """Return the fields of a JSON object.

    Args:
        body: the object, in UTF-8.
        what: names it in errors.
        bytes_max: its limit.

    Raises:
        CorruptionError: it is no JSON object, is longer than its limit, or has a field twice.
    """
    if len(body) > bytes_max:
        raise CorruptionError(f"{what} has {len(body)} bytes, the limit is {bytes_max}", hint=HINT)
    try:
        # Decoded here: given bytes, the parser would guess at UTF-16 and UTF-32 too.
        raw = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as err:
        raise CorruptionError(f"{what} is not JSON: {err}", hint=HINT) from err
    if not isinstance(raw, dict):
        raise CorruptionError(f"{what} is {type(raw).__name__} in JSON, expected an object", hint=HINT)
    return Fields(raw, what)


class Fields:
    """The fields of one JSON object; each is checked when it is asked for, and fields that nobody asks for are ignored.

    Args:
        raw: the object.
        what: names it in errors.
        above: names the object that it is a field of.
    """

    def __init__(self, raw: dict[str, Any], what: str, above: str = "") -> None:
        self.raw = raw
        self._what = what
        self._above = above

    def has(self, name: str) -> bool:
        """Return whether a field is there."""
        return name in self.raw

    def is_null(self, name: str) -> bool:
        """Return whether a field is null; it must be there."""
        if name not in self.raw:
            raise self.wrong(name, "expected a value or null")
        return self.raw[name] is None

    def number(self, name: str, first: int = 0, last: int = INT64_MAX) -> int:
        """Return a whole number from `first` to `last`."""
        value = self.raw.get(name)
        if type(value) is not int or not first <= value <= last:
            raise self.wrong(name, f"expected a whole number from {first} to {last}")
        return value

    def text(self, name: str, bytes_max: int = TEXT_BYTES_MAX) -> str:
        """Return a text of at most `bytes_max` bytes in UTF-8."""
        value = self.raw.get(name)
        if not isinstance(value, str):
            raise self.wrong(name, "expected a text")
        try:
            size_bytes = len(value.encode())
        except UnicodeEncodeError:
            raise self.wrong(name, "which is not valid Unicode") from None
        if size_bytes > bytes_max:
            raise self.wrong(name, f"of {size_bytes} bytes, the limit is {bytes_max}")
        if "\0" in value:  # PostgreSQL's TEXT cannot hold it
            raise self.wrong(name, "which holds a NUL character")
        return value

    def parsed(self, name: str, parse: Callable[[str], T]) -> T:
        """Return what `parse` makes of a short text; its ValueError says why it is wrong."""
        text = self.text(name, _SHORT_BYTES_MAX)
        try:
            return parse(text)
        except ValueError as err:
            raise self.wrong(name, str(err)) from err

    def digest(self, name: str) -> bytes:
        """Return the 32 bytes of a digest."""
        return self.parsed(name, Digest).raw

    def word(self, name: str, is_one: Callable[[str], object]) -> str:
        """Return a short text of which `is_one` is true."""
        text = self.text(name, _SHORT_BYTES_MAX)
        if not is_one(text):
            raise self.wrong(name, "which is not of its form")
        return text

    def one_of(self, name: str, choices: Collection[str]) -> str:
        """Return a text that is one of `choices`."""
        text = self.text(name)
        if text not in choices:
            raise self.wrong(name, f"expected one of {', '.join(sorted(choices))}")
        return text

    def inner(self, name: str) -> Fields:
        """Return the fields of a field."""
        value = self.raw.get(name)
        if not isinstance(value, dict):
            raise self.wrong(name, "expected an object")
        return Fields(value, self._what, f"{self._above}{name}.")

    def each(self, name: str) -> list[Fields]:
        """Return the fields of each object of a field that is a list of objects."""
        value = self.raw.get(name)
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.wrong(name, "expected a list of objects")
        return [Fields(one, self._what, f"{self._above}{name}[{place}].") for place, one in enumerate(value)]

    def texts(self, name: str) -> dict[str, str]:
        """Return a field that is an object of texts, both its names and its values."""
        inner = self.inner(name)
        return {self._checked_name(name, key): inner.text(key) for key in inner.raw}

    def wrong(self, name: str, why: str) -> CorruptionError:
        """Return the error of a field."""
        value = reprlib.repr(self.raw[name]) if name in self.raw else "missing"
        return CorruptionError(f"{self._what}: {self._above}{name} is {value}, {why}", hint=HINT)

    def _checked_name(self, name: str, key: str) -> str:
        try:
            size_bytes = len(key.encode())
        except UnicodeEncodeError:
            raise self.wrong(name, "which has a name that is not valid Unicode") from None
        if size_bytes > TEXT_BYTES_MAX or "\0" in key:
            raise self.wrong(name, "which has a name that is too long or holds a NUL character")
        return key


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the field {reprlib.repr(name)} comes twice")
        found[name] = value
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")
