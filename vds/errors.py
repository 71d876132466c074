"""The errors of vds, grouped by what the caller does next; a few narrower ones live where they are raised.

Guarantees:
- each error has a stable `kind` (for programs) and a `hint` (the next command or step, for people);
- no error text carries a secret: messages and hints pass through `redact` on construction;
- each error survives pickling with all its attributes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

# `pwd` is also where a shell stands: a path after it is no secret.
_PRIVATE_NAMES = (
    r"(?:passw(?:or)?d|passphrase|pwd(?!['\"]?\s*[=:]\s*['\"]?/)|secret|token|credential"
    r"|(?:api|account|access|storage|shared|private|primary|secondary)[_-]?key)"
)
# In quotes, perhaps those of a text inside a text, to the end of them; else to the next space, without the stops before it.
# What begins with a stop is the text going on ("credential=, or"); what was taken out before stays as it is.
_PRIVATE_VALUE = (
    r"""(?:\*{3}|b?(?P<quote>\\*['"]).*?(?<!\\)(?P=quote)"""
    r"""|\\*['"]?(?![,;.)\]}])[^\s&]+?(?=[\\'",;)\]}]*(?:[\s&]|$)))"""
)
_PRIVATE_PATTERNS = (
    # The signature of a SAS, in a query string, on its own, or inside another url.
    re.compile(r"(?i)((?<![a-z])sig(?:=|%3D))(?:(?!%26)[^&\s'\"])+"),
    # Connection strings of Azure Storage.
    re.compile(r"(?i)\b((?:AccountKey|SharedAccessSignature|SharedAccessKey)=)[^;\s'\"]+"),
    # A header, on a line or in the repr of what holds it; a token that is announced by its kind alone.
    re.compile(
        r"(?i)(Authorization\\*['\"]?\s*[:=,]\s*(?:b(?=['\"]))?\\*['\"]?(?:(?:Bearer|SharedKey(?:Lite)?|Basic|Digest|Negotiate)\s+)?)[^\s'\"]+"
    ),
    re.compile(r"(?i)\b(Bearer\s+)[\w.~+/-]{20,}=*"),
    # name=value and name: value, then --name value, where the name says that the value is a secret.
    re.compile(rf"(?i)({_PRIVATE_NAMES}\\*['\"]?\s*(?:=|%3D|:(?!//))\s*){_PRIVATE_VALUE}"),
    re.compile(rf"(?i)(--?[\w-]{{0,40}}{_PRIVATE_NAMES}\s+){_PRIVATE_VALUE}"),
    # user:password@host in any url but our own, as far as the last @ before the path; that of a database may also hold a /.
    re.compile(r"(?i)((?<![a-z0-9+.-])(?!vds:)[a-z][a-z0-9+.-]{0,40}://[^/\s:@'\"]*:)[^\s/?#]*(?=@)"),
    re.compile(r"(?i)(\bpostgres[\w+]{0,20}://[^/\s:@'\"]*:)[^\s@]*(?=@)"),
    # What is a secret whatever stands before it: a JSON web token, the key of a storage account, tokens of the usual code hosts.
    re.compile(r"()\beyJ[\w-]{10,4000}\.[\w-]{1,8000}\.[\w-]*"),
    re.compile(r"()(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{86}=="),
    re.compile(r"()\b(?:gh[pousr]_|github_pat_|glpat-)\w{16,}"),
)


def redact(text: str) -> str:
    """Return `text` with every value that looks like a secret replaced by `***`."""
    for pattern in _PRIVATE_PATTERNS:
        text = pattern.sub(r"\1***", text)
    return text


class VdsError(Exception):
    """Base of all errors of vds.

    Attributes:
        kind: a stable word for programs; it never changes between releases.
        hint: what to do next, often a command; empty when there is nothing to say.
    """

    kind: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        self.message = redact(message)
        self.hint = redact(hint)
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions pickle by calling the class with `args`; keyword-only attributes would be lost.
        return (_rebuild, (type(self), dict(self.__dict__)))


def _rebuild(error_type: type[VdsError], attributes: dict[str, Any]) -> VdsError:
    # LookupError's own __new__ refuses a class that is an OSError too, as EntryNotFoundError is.
    make = OSError.__new__ if issubclass(error_type, OSError) else Exception.__new__
    error = make(error_type)
    error.__dict__.update(attributes)
    error.args = (error.message,)
    return error


class InvalidInputError(VdsError, ValueError):
    """The call itself is wrong: change it. Nothing was written."""

    kind = "invalid-input"


class NotFoundError(VdsError, LookupError):
    """A store, namespace, version, dataset, tag or transaction that was asked for is not there."""

    kind = "not-found"


class EntryNotFoundError(NotFoundError, FileNotFoundError):
    """A path that was asked for is not in the version."""

    kind = "not-found"


class ErasedError(NotFoundError, FileNotFoundError):
    """The content was destroyed on purpose, for ever; the message says by whom, when and why."""

    kind = "erased"


class ConflictError(VdsError):
    """Someone else's work stands in the way: read again, then retry. Nothing of this call is visible.

    Attributes:
        paths: the paths in conflict, sorted; may be cut to the first hundred.
        versions: the numbers of the versions in conflict.
    """

    kind = "conflict"

    def __init__(self, message: str, *, paths: Sequence[str] = (), versions: Sequence[int] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.paths = tuple(paths)
        self.versions = tuple(versions)


class BlobExistsError(ConflictError):
    """A put-if-absent found a blob at its key; the layer above decides whether it is our own."""

    kind = "blob-exists"


class CorruptionError(VdsError):
    """Stored bytes are not what they must be: stop. Wrong bytes are never returned."""

    kind = "corruption"


class UnavailableError(VdsError, ConnectionError):
    """A service did not answer: the same call may be made again. Nothing of this call is visible."""

    kind = "unavailable"


class OutcomeUnknownError(VdsError):
    """Whether a commit took effect cannot be told: ask `store.outcome(commit_id)` before retrying.

    Attributes:
        commit_id: the id under which the commit is (or is not) recorded.
    """

    kind = "outcome-unknown"

    def __init__(self, message: str, *, commit_id: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.commit_id = commit_id


class AccessDeniedError(VdsError, PermissionError):
    """The credential lacks a right, or was refused: change credentials."""

    kind = "denied"


class FormatError(VdsError):
    """The store or its index has another format than this program: upgrade one of them."""

    kind = "format"


class NoSpaceError(VdsError, OSError):
    """A disk is full.

    Attributes:
        needed_bytes: bytes that were to be written, or None when not known.
        free_bytes: bytes that were free, or None when not known.
    """

    kind = "no-space"

    def __init__(self, message: str, *, needed_bytes: int | None = None, free_bytes: int | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


class TransferError(VdsError):
    """Some files could not be moved. Every one is listed; nothing of this call is visible.

    Attributes:
        failures: path → what went wrong with it.
    """

    kind = "transfer"

    def __init__(self, message: str, *, failures: Mapping[str, str], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.failures = {path: redact(reason) for path, reason in failures.items()}


class UploadError(TransferError):
    """Some files could not be uploaded; no version was made."""

    kind = "upload"


class DownloadError(TransferError):
    """Some files could not be downloaded; each file in the target is either whole or absent."""

    kind = "download"


class ExportError(TransferError):
    """Some files could not be exported; what was put there before stays, without the marker that says it is complete."""

    kind = "export"


def failures_message(verb: str, failures: Mapping[str, str], shown_max: int = 10) -> str:
    """Return one message that counts `failures` and names the first ones with their reasons."""
    shown = [f"  {path}: {reason}" for path, reason in sorted(failures.items())[:shown_max]]
    if len(failures) > shown_max:
        shown.append(f"  … and {len(failures) - shown_max} more")
    noun = "file" if len(failures) == 1 else "files"
    return "\n".join([f"{len(failures)} {noun} could not be {verb}:", *shown])
