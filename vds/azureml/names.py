"""Names that AzureML allows and vds does not, written as vds names; reversible.

A character that a vds name cannot hold becomes `_xHH_`, the bytes of its UTF-8 in hex: `my data` is `my_x20_data`. A segment that
does not begin with a letter or digit gets the prefix `aml.`. Slashes stay, so that `team/customers` is one name in both worlds.
"""

from __future__ import annotations

import re

from vds.azureml.exceptions import UserErrorException
from vds.model.ref import NAME_CHARS_MAX

INTERNAL = "azureml"
"""The first segment of the namespaces in which this face keeps what belongs to no datastore."""

_PREFIX = "aml."
_OTHER = re.compile(r"[^A-Za-z0-9._-]")
_ESCAPE = re.compile(r"_x((?:[0-9a-f]{2})+)_")
_LIKE_ESCAPE = re.compile(r"_(?=x[0-9a-f])")
_ALNUM = re.compile(r"[A-Za-z0-9]")
_DATASTORE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def dataset_name(name: str) -> str:
    """Return the vds name of a dataset that a script calls `name`.

    Raises:
        UserErrorException: `name` is empty, no text, or too long.
    """
    if not isinstance(name, str) or not name:
        raise UserErrorException(f"{name!r} is not a dataset name", hint='give a text, for example name="customers"')
    try:
        escaped = "/".join(map(_escape_segment, name.split("/")))
    except UnicodeEncodeError as err:
        raise UserErrorException(f"the dataset name {name!r} is not valid Unicode") from err
    if len(escaped) > NAME_CHARS_MAX:
        raise UserErrorException(
            f"the dataset name {name!r} is too long: {len(escaped)} characters, and what is no letter or digit is several",
            hint=f"at most {NAME_CHARS_MAX}",
        )
    return escaped


def shown_name(name: str) -> str:
    """Return what a script calls the dataset that vds calls `name`; the inverse of `dataset_name`."""
    return "/".join(map(_unescape_segment, name.split("/")))


def check_datastore_name(name: str) -> str:
    """Return `name` if it can name a datastore.

    Raises:
        UserErrorException: it cannot.
    """
    if not isinstance(name, str) or not _DATASTORE.fullmatch(name):
        raise UserErrorException(f"{name!r} is not a datastore name", hint="use letters, digits, '_' and '-'")
    return name


def is_internal(namespace: str) -> bool:
    """Return whether a namespace is no datastore, but one of this face's own."""
    return namespace.partition("/")[0].lower() == INTERNAL


def _escape_segment(segment: str) -> str:
    # An underscore that would read as the begin of an escape is escaped itself.
    guarded = _LIKE_ESCAPE.sub("_x5f_", segment)
    text = _OTHER.sub(lambda match: f"_x{match.group().encode().hex()}_", guarded)
    return _PREFIX + text if _needs_prefix(text) else text


def _unescape_segment(segment: str) -> str:
    rest = segment.removeprefix(_PREFIX)
    text = rest if rest != segment and _needs_prefix(rest) else segment
    try:
        return _ESCAPE.sub(lambda match: bytes.fromhex(match.group(1)).decode(), text)
    except UnicodeDecodeError:
        return segment  # a name made by hand, not by `dataset_name`


def _needs_prefix(text: str) -> bool:
    if text.startswith(_PREFIX):
        return _needs_prefix(text[len(_PREFIX) :])
    return not _ALNUM.match(text)
