"""Which files a transfer takes: `allow_patterns` and `ignore_patterns`, as huggingface_hub means them.

A pattern is matched (fnmatch, case counts) against the whole path relative to what is moved: `*` crosses `/`, `?` is one
character, `[ab]` one of a set. A pattern that ends in `/` means everything below. A file is taken when some allow pattern matches
(or none were given) and no ignore pattern does. An empty list of allow patterns takes nothing.
"""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vds.errors import InvalidInputError

Patterns = str | Sequence[str] | None


@dataclass(frozen=True, slots=True)
class PathFilter:
    """Decides about paths; made by `path_filter`."""

    _allowed: re.Pattern[str] | None
    _ignored: re.Pattern[str] | None
    _ignored_directories: re.Pattern[str] | None

    @property
    def takes_all(self) -> bool:
        """Whether no pattern was given."""
        return self._allowed is None and self._ignored is None

    def takes(self, path: str) -> bool:
        """Return whether the file at `path` is taken."""
        if self._ignored is not None and self._ignored.match(path):
            return False
        return self._allowed is None or self._allowed.match(path) is not None

    def prunes(self, directory: str) -> bool:
        """Return whether every file below `directory` is certainly ignored, so that it need not be listed."""
        return self._ignored_directories is not None and self._ignored_directories.match(f"{directory}/") is not None


def path_filter(allow_patterns: Patterns = None, ignore_patterns: Patterns = None) -> PathFilter:
    """Parse the two arguments; each is one pattern, a sequence of them, or None.

    Raises:
        InvalidInputError: a pattern is empty or not text.
    """
    allowed = _parse("allow_patterns", allow_patterns)
    ignored = _parse("ignore_patterns", ignore_patterns)
    # What `cache/*` ignores, it ignores at any depth: a directory that matches up to the last star holds nothing to take.
    deep = [stem for pattern in ignored or () if (stem := pattern.rstrip("*")) != pattern and stem.endswith("/")]
    return PathFilter(
        None if allowed is None else _compile(allowed),
        None if ignored is None else _compile(ignored),
        _compile(deep) if deep else None,
    )


def _parse(argument: str, patterns: Patterns) -> list[str] | None:
    if patterns is None:
        return None
    found = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        if not isinstance(pattern, str) or not pattern:
            raise InvalidInputError(f"{argument} holds {pattern!r}, which is not a pattern", hint=f"{argument}=['*.csv', 'raw/']")
        normal = unicodedata.normalize("NFC", pattern)
        found.append(f"{normal}*" if normal.endswith("/") else normal)
    return found


def _compile(patterns: Iterable[str]) -> re.Pattern[str]:
    # No pattern at all must match nothing, where an empty regular expression would match everything.
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns) or r"(?!)")
