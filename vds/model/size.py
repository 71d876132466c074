"""Sizes as people write them: 200GB, 1.5 GiB, 500000."""

from __future__ import annotations

import re
from decimal import Decimal

from vds.errors import InvalidInputError

_SIZE = re.compile(r"([0-9]{1,18})(\.[0-9]{1,9})? ?(?:([kmgt]i?)?b)?")
_UNITS = {"": 1}
_UNITS |= {prefix: 1000**power for power, prefix in enumerate("kmgt", 1)}
_UNITS |= {f"{prefix}i": 1024**power for power, prefix in enumerate("kmgt", 1)}


def parse_size(text: str, source: str) -> int:
    """Return a size in bytes.

    Args:
        text: a number, alone or with kB, MB, GB, TB (powers of 1 000) or KiB, MiB, GiB, TiB (of 1 024), in any case of letters.
        source: where it was given, for the error.

    Raises:
        InvalidInputError: it is none.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None or (match[2] and not match[3]):  # there are no parts of bytes
        raise InvalidInputError(f"{source}: {text!r} is no size", hint="write 200GB, 1.5GiB, 500MB, or a number of bytes")
    return int(Decimal(match[1] + (match[2] or "")) * _UNITS[match[3] or ""])
