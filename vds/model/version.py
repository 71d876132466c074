"""The journal record of a version: the bytes from which a lost index is rebuilt, and whose digest names the version.

A record is canonical JSON (UTF-8, keys sorted, no spaces, one line feed at the end), so that whoever writes it writes the same
bytes. Each carries the digest of the one before: a hash chain per namespace.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from blake3 import blake3

from vds.errors import CorruptionError, FormatError, InvalidInputError
from vds.model.digest import DIGEST_SIZE_BYTES, Digest
from vds.model.fields import HINT, Fields, parse_fields
from vds.model.manifest import changes_key
from vds.model.ref import format_moment, parse_moment, parse_name
from vds.model.ulid import is_ulid

RECORD_BYTES_MAX = 1024 * 1024
MESSAGE_BYTES_MAX = 64 * 1024
LABELS_MAX = 64
LABEL_BYTES_MAX = 1024
INLINE_CHANGES_BYTES_MAX = 64 * 1024
NUMBER_MAX = 10**16 - 1
"""Of a version, an event or a record: what the sixteen digits of its key hold."""
RECORD_FORMAT = 1

VERSION_CONTEXT = "vds version 1"
EVENT_CONTEXT = "vds dataset event 1"
STORE_CONTEXT = "vds store record 1"

_OPERATION = re.compile(r"[a-z][a-z-]{0,31}")

NO_PARENT = bytes(DIGEST_SIZE_BYTES)
"""Stands where a chain begins."""


def canonical_json(value: Mapping[str, Any]) -> bytes:
    """Return the one way to write `value` as JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def encode_record(value: Mapping[str, Any], hint: str) -> bytes:
    """Return the bytes of a record; `hint` says what to shorten.

    Raises:
        InvalidInputError: they are more than 1 MiB.
    """
    body = canonical_json(value)
    if len(body) > RECORD_BYTES_MAX:
        raise InvalidInputError(f"the record would be {len(body)} bytes, the limit is {RECORD_BYTES_MAX}", hint=hint)
    return body


def parse_record(body: bytes, what: str) -> Fields:
    """Return the fields of a record; `what` names it in errors. Fields that this program does not know are let through.

    Raises:
        CorruptionError: it is not canonical JSON, or longer than 1 MiB.
        FormatError: a newer vds wrote it.
    """
    fields = parse_fields(body, what, bytes_max=RECORD_BYTES_MAX)
    found = fields.number("format", 1)
    if found > RECORD_FORMAT:
        raise FormatError(f"{what} has format {found}, this vds reads {RECORD_FORMAT}", hint="pip install --upgrade vds")
    try:
        is_canonical = canonical_json(fields.raw) == body
    except (ValueError, RecursionError):  # half of a surrogate pair, an infinity
        is_canonical = False
    if not is_canonical:
        raise CorruptionError(f"{what} is not canonical JSON: no vds wrote it so", hint=HINT)
    return fields


def parse_written_moment(text: str) -> datetime:
    """Return a moment that a record holds, in the one way records write it.

    Raises:
        ValueError: it is written otherwise.
    """
    moment = parse_moment(text)
    if format_moment(moment) != text:
        raise ValueError("which is not how records write a moment")
    return moment


def record_digest(context: str, body: bytes) -> bytes:
    """Return the 32 bytes that name a record; `context` keeps kinds of records apart."""
    return blake3(body, derive_key_context=context).digest()


@dataclass(frozen=True, slots=True)
class ChangeListRef:
    """Where the change list of a version is: inside its record, or in a blob of its own.

    Attributes:
        digest: of the list's rows, uncompressed (32 bytes).
        count: how many rows.
        key: the blob's key, or None when the list is inline.
        inline: the encoded list, or None when it is in a blob.
    """

    digest: bytes
    count: int
    key: str | None = None
    inline: bytes | None = None


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """What is written down for ever about one version."""

    store: str
    namespace: str
    namespace_name: str
    number: int
    parent: bytes
    commit_id: str
    created_at: datetime
    operation: str
    author: str
    message: str
    labels: Mapping[str, str]
    provenance: Mapping[str, str]
    changes: ChangeListRef
    added: int
    modified: int
    removed: int
    file_count: int
    size_bytes: int

    def encode(self) -> bytes:
        """Return the record's bytes.

        Raises:
            InvalidInputError: they are more than 1 MiB (labels and provenance are too large).
        """
        changes: dict[str, Any] = {"count": self.changes.count, "digest": str(Digest.from_raw(self.changes.digest))}
        if self.changes.key is not None:
            changes["key"] = self.changes.key
        if self.changes.inline is not None:
            changes["inline"] = base64.b64encode(self.changes.inline).decode()
        return encode_record(
            {
                "format": RECORD_FORMAT,
                "store": self.store,
                "namespace": self.namespace,
                "name": self.namespace_name,
                "number": self.number,
                "parent": str(Digest.from_raw(self.parent)),
                "commit_id": self.commit_id,
                "created_at": format_moment(self.created_at),
                "operation": self.operation,
                "author": self.author,
                "message": self.message,
                "labels": dict(self.labels),
                "provenance": dict(self.provenance),
                "changes": changes,
                "added": self.added,
                "modified": self.modified,
                "removed": self.removed,
                "file_count": self.file_count,
                "size_bytes": self.size_bytes,
            },
            "shorten the message, the labels or VDS provenance",
        )

    @classmethod
    def decode(cls, body: bytes, key: str = "") -> VersionRecord:
        """Parse a record. Whether it is the one that belongs under `key` is for the chain of digests to say.

        Raises:
            CorruptionError: the bytes are not a version record; the message names `key`.
            FormatError: a newer vds wrote it.
        """
        fields = parse_record(body, f"journal record {key!r}")
        return cls(
            store=fields.word("store", is_ulid),
            namespace=fields.word("namespace", is_ulid),
            namespace_name=fields.parsed("name", parse_name),
            number=fields.number("number", 1, NUMBER_MAX),
            parent=fields.digest("parent"),
            commit_id=fields.word("commit_id", is_ulid),
            created_at=fields.parsed("created_at", parse_written_moment),
            operation=fields.word("operation", _OPERATION.fullmatch),
            author=fields.text("author"),
            message=fields.text("message"),
            labels=parse_labels(fields),
            provenance=fields.texts("provenance"),
            changes=_parse_changes(fields.inner("changes")),
            added=fields.number("added"),
            modified=fields.number("modified"),
            removed=fields.number("removed"),
            file_count=fields.number("file_count"),
            size_bytes=fields.number("size_bytes"),
        )


def _parse_changes(fields: Fields) -> ChangeListRef:
    digest, count = fields.digest("digest"), fields.number("count")
    if fields.has("key") == fields.has("inline"):
        raise fields.wrong("inline", "expected either this or a key")
    if fields.has("key"):
        return ChangeListRef(digest, count, key=fields.word("key", lambda key: _is_changes_key(key, digest)))
    text = fields.text("inline", -(-INLINE_CHANGES_BYTES_MAX // 3) * 4)
    try:
        inline = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as err:
        raise fields.wrong("inline", f"which is not base 64: {err}") from err
    if base64.b64encode(inline).decode() != text:
        raise fields.wrong("inline", "which is not how these bytes are written")
    return ChangeListRef(digest, count, inline=inline)


def _is_changes_key(key: str, digest: bytes) -> bool:
    generation = key.rpartition(".")[2]
    return is_ulid(generation) and key == changes_key(digest, generation)


def parse_labels(fields: Fields) -> dict[str, str]:
    """Return the labels of a record.

    Raises:
        CorruptionError: they could not have been recorded.
    """
    labels = fields.texts("labels")
    try:
        return check_labels(labels)
    except InvalidInputError as err:
        raise fields.wrong("labels", err.message) from err


def journal_key(namespace: str, number: int) -> str:
    """Return the key of a version's record; zero-padded so that listings sort."""
    return f"journal/{namespace}/{number:016d}"


def check_message(message: str) -> str:
    """Return `message` if it may be recorded.

    Raises:
        InvalidInputError: it is longer than 64 KiB, not text, or not valid Unicode.
    """
    if not isinstance(message, str):
        raise InvalidInputError(f"message must be text, not {type(message).__name__}")
    size_bytes = len(_encoded("message", message))
    if size_bytes > MESSAGE_BYTES_MAX:
        raise InvalidInputError(f"the message has {size_bytes} bytes, the limit is {MESSAGE_BYTES_MAX}")
    return message


def check_labels(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Return `labels` as a plain dict if they may be recorded.

    Raises:
        InvalidInputError: more than 64, longer than 1 KiB each, an empty key, or not text.
    """
    labels = dict(labels or {})
    if len(labels) > LABELS_MAX:
        raise InvalidInputError(f"{len(labels)} labels, the limit is {LABELS_MAX}")
    for key, value in labels.items():
        if not isinstance(key, str) or not isinstance(value, str) or not key:
            raise InvalidInputError(f"label {key!r}={value!r}: keys and values must be text", hint="labels={'split': 'train'}")
        size_bytes = len(_encoded("label", key)) + len(_encoded("label", value))
        if size_bytes > LABEL_BYTES_MAX:
            raise InvalidInputError(f"label {key!r} has {size_bytes} bytes, the limit is {LABEL_BYTES_MAX}")
    return labels


def _encoded(what: str, text: str) -> bytes:
    try:
        encoded = text.encode()
    except UnicodeEncodeError as err:
        raise InvalidInputError(f"the {what} {text!r} is not valid Unicode") from err
    if b"\x00" in encoded:  # PostgreSQL's TEXT cannot hold it
        raise InvalidInputError(f"the {what} {text!r} holds a NUL character")
    return encoded


def name_digest(name: str) -> str:
    """Return the hex digest under which a name is kept in the container; names are unique blind to case."""
    return blake3(name.casefold().encode()).hexdigest()
