"""What a person types to mean a version: the one parser, used by every door.

    ref = NAME ["@" POINT ["~" INT]]  |  NAME ":" (INT | TAG | "latest") ["@" MOMENT]
    uri = "vds://" ref "/" PATH

`@` picks a version of a namespace, `:` a release or tag of a dataset. A url parser is of no use here: it would read
`customers:prod` as host and port.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from vds.errors import InvalidInputError
from vds.model.path import EntryPath, directory_path

SCHEME = "vds://"
NAME_CHARS_MAX = 200
TAG_CHARS_MAX = 64
LATEST = "latest"

_SEGMENT = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_NAME = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_TAG = re.compile(_SEGMENT)
_INT = re.compile(r"v?([0-9]{1,15})")
_DIGEST_PREFIX = re.compile(r"b3:([0-9a-f]{8,64})")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:[Zz]|[+-]\d\d:\d\d)")
_FORMS = "examples: team/raw, team/raw@12, team/raw@latest~2, team/raw@2026-03-01T12:00Z, customers:prod, customers:3"


@dataclass(frozen=True, slots=True)
class Point:
    """A place in the line of versions: exactly one of the first three is set, or none for the latest."""

    number: int | None = None
    digest_prefix: str | None = None
    moment: datetime | None = None
    back: int = 0

    @property
    def is_fixed(self) -> bool:
        """Whether it names the same version for ever; a moment does once it has passed."""
        return self.number is not None or self.digest_prefix is not None


@dataclass(frozen=True, slots=True)
class NamespaceRef:
    """A version of a namespace."""

    name: str
    point: Point = Point()


@dataclass(frozen=True, slots=True)
class DatasetRef:
    """A release of a dataset: by number, by tag, or (both None) the latest; `moment` looks at the tag as it was then."""

    name: str
    release: int | None = None
    tag: str | None = None
    moment: datetime | None = None


Ref = NamespaceRef | DatasetRef


def parse_name(text: str, what: str = "namespace") -> str:
    """Return `text` if it can name a namespace or dataset.

    Raises:
        InvalidInputError: it cannot.
    """
    if not isinstance(text, str) or len(text) > NAME_CHARS_MAX or not _NAME.fullmatch(text):
        raise InvalidInputError(
            f"{text!r} is not a {what} name",
            hint=f"use letters, digits, '.', '_', '-' in segments joined by '/', at most {NAME_CHARS_MAX} characters",
        )
    return text


def parse_tag(text: str) -> str:
    """Return `text` if it can name a tag.

    Raises:
        InvalidInputError: it is not one segment of at most 64 characters, or is `latest` or a number.
    """
    if not isinstance(text, str) or len(text) > TAG_CHARS_MAX or not _TAG.fullmatch(text):
        raise InvalidInputError(
            f"{text!r} is not a tag", hint=f"use letters, digits, '.', '_', '-', at most {TAG_CHARS_MAX} characters"
        )
    if text.lower() == LATEST or _INT.fullmatch(text.lower()):
        raise InvalidInputError(f"{text!r} cannot be a tag: it already means a release", hint="choose a word, for example prod")
    return text


def parse_int(text: str) -> int | None:
    """Return the number that `12` or `v12` writes, or None."""
    match = _INT.fullmatch(text)
    return int(match.group(1)) if match else None


def parse_moment(text: str) -> datetime:
    """Return the moment that RFC 3339 `text` writes, in UTC, to the microsecond.

    Raises:
        InvalidInputError: it is not RFC 3339 with a zone.
    """
    if _MOMENT.fullmatch(text):
        trimmed = re.sub(r"(\.\d{6})\d+", r"\1", text.upper())
        try:
            return datetime.fromisoformat(trimmed).astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # a 13th month: the same error as any other text
    raise InvalidInputError(
        f"{text!r} is not a moment", hint="write RFC 3339 with a zone, for example 2026-03-01T12:00Z or 2026-03-01T13:00+01:00"
    )


def format_moment(moment: datetime) -> str:
    """Return `moment` as RFC 3339 in UTC with microseconds: the one form that is stored."""
    # Not strftime: its %Y writes years before 1000 without their zeros on some systems.
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def parse_point(point: str | int | datetime) -> Point:
    """Parse what may follow `@`: 12, v12, latest, latest~2, b3:1234abcd, or a moment.

    Raises:
        InvalidInputError: it is none of these.
    """
    if isinstance(point, bool) or not isinstance(point, str | int | datetime):
        raise InvalidInputError(f"{point!r} does not name a version", hint=_FORMS)
    if isinstance(point, int):
        if point < 0:
            raise InvalidInputError(f"version {point} cannot exist", hint="versions are numbered from 0, the empty one")
        return Point(number=point)
    if isinstance(point, datetime):
        if point.tzinfo is None:
            raise InvalidInputError(f"the moment {point!r} has no zone", hint="pass an aware datetime, for example in UTC")
        return Point(moment=point.astimezone(UTC))
    text, tilde, back_text = point.partition("~")
    back = 0
    if tilde:
        if not re.fullmatch(r"[0-9]{1,15}", back_text):
            raise InvalidInputError(f"{point!r}: '~' must be followed by a number", hint=_FORMS)
        back = int(back_text)
    if text == LATEST:
        return Point(back=back)
    if (number := parse_int(text)) is not None:
        return Point(number=number, back=back)
    if text.startswith("b3:"):
        if match := _DIGEST_PREFIX.fullmatch(text):
            return Point(digest_prefix=match.group(1), back=back)
        raise InvalidInputError(f"{text!r} is not a version digest", hint="give b3: and 8 to 64 lower-case hex digits")
    if text[:1].isdigit():
        return Point(moment=parse_moment(text), back=back)
    raise InvalidInputError(f"{point!r} does not name a version", hint=_FORMS)


def parse_release(name: str, text: str | int) -> DatasetRef:
    """Parse what may follow `:` for the dataset `name`: 3, v3, latest, a tag, a tag and `@` a moment.

    Raises:
        InvalidInputError: it is none of these.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        text = str(text)
    if not isinstance(text, str):
        raise InvalidInputError(f"{text!r} does not name a release", hint=_FORMS)
    target, at, moment_text = text.partition("@")
    moment = parse_moment(moment_text) if at else None
    if target == LATEST:
        return DatasetRef(name, moment=moment)
    if (number := parse_int(target)) is not None:
        return DatasetRef(name, release=number, moment=moment)
    return DatasetRef(name, tag=parse_tag(target), moment=moment)


def parse_ref(text: str) -> Ref:
    """Parse a ref without a path.

    Raises:
        InvalidInputError: it does not parse; the hint shows the forms that do.
    """
    ref, path = parse_ref_path(text)
    if path:
        raise InvalidInputError(f"{text!r} names the path {path!r} too, where only a version is wanted", hint=_FORMS)
    return ref


def parse_ref_path(text: str) -> tuple[Ref, EntryPath]:
    """Parse `REF`, `REF/PATH` or a `vds://` uri into a ref and a path (the root when there is none).

    A ref that carries `@` or `:` ends at the first `/` after it; one that carries neither is a namespace as a whole.

    Raises:
        InvalidInputError: it does not parse; the hint shows the forms that do.
    """
    if not isinstance(text, str) or not text:
        raise InvalidInputError(f"{text!r} is not a ref", hint=_FORMS)
    is_uri = text.startswith(SCHEME)
    body = text[len(SCHEME) :] if is_uri else text
    if is_uri and "//" in re.split("[@:]", body, maxsplit=1)[0]:
        raise InvalidInputError(f"{text!r}: a store inside a uri is not supported yet", hint="pass the store to connect()")
    separator = re.search("[@:]", body)
    if separator is None:
        if is_uri:
            raise InvalidInputError(f"{text!r}: a uri must pin or name a version with '@' or ':'", hint=_FORMS)
        return NamespaceRef(parse_name(body.rstrip("/") or body)), EntryPath("")
    name, rest = body[: separator.start()], body[separator.end() :]
    target, slash, path_text = rest.partition("/")
    path = directory_path(path_text) if slash else EntryPath("")
    if separator.group() == "@":
        return NamespaceRef(parse_name(name), parse_point(target)), path
    return parse_release(parse_name(name, "dataset"), target), path


def version_uri(namespace: str, number: int, path: str = "") -> str:
    """Return the uri of a version, or of a path in it."""
    return f"{SCHEME}{namespace}@{number}/{path}"
