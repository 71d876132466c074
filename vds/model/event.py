"""One event of a dataset: a release was registered, or a tag was moved or taken away. Dense from 1, and hash-chained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, cast, get_args

from vds.model.digest import Digest
from vds.model.fields import Fields
from vds.model.path import EntryPath, directory_path
from vds.model.ref import format_moment, parse_name, parse_tag
from vds.model.ulid import is_ulid
from vds.model.version import (
    NUMBER_MAX,
    RECORD_FORMAT,
    encode_record,
    name_digest,
    parse_labels,
    parse_record,
    parse_written_moment,
)

EventKind = Literal["register", "tag", "untag"]

EVENT_PREFIX = "datasets/"


@dataclass(frozen=True, slots=True)
class Registered:
    """What a release is: a version of a namespace, or a path of it.

    Attributes:
        namespace: the id.
        version_digest: the 32 bytes of the version's digest.
        path: empty for all of the version.
    """

    namespace: str
    namespace_name: str
    version: int
    version_digest: bytes
    path: EntryPath
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, Any]:
        """What the event's record says of it."""
        return {
            "namespace": self.namespace,
            "namespace_name": self.namespace_name,
            "version": self.version,
            "version_digest": str(Digest.from_raw(self.version_digest)),
            "path": self.path,
            "description": self.description,
            "labels": dict(self.labels),
        }

    @classmethod
    def parse(cls, fields: Fields) -> Registered:
        """Return what an event's record says of its release.

        Raises:
            CorruptionError: it is not what a release has.
        """
        return cls(
            namespace=fields.word("namespace", is_ulid),
            namespace_name=fields.parsed("namespace_name", parse_name),
            version=fields.number("version", 1, NUMBER_MAX),
            version_digest=fields.digest("version_digest"),
            path=fields.parsed("path", _parse_written_path),
            description=fields.text("description"),
            labels=parse_labels(fields),
        )


@dataclass(frozen=True, slots=True)
class DatasetEvent:
    """What is written down for ever about one step of a dataset.

    Attributes:
        parent: the 32 bytes of the digest of the event before.
        tag: which was moved; None when a release was registered.
        release: that was registered, or that the tag shows from now on; None when it was taken away.
        previous: the release that the tag showed before.
        registered: what the release is; None when a tag was moved.
    """

    store: str
    dataset: str
    number: int
    parent: bytes
    kind: EventKind
    tag: str | None
    release: int | None
    previous: int | None
    author: str
    reason: str
    created_at: datetime
    registered: Registered | None = None

    @property
    def key(self) -> str:
        """Where the event's record is."""
        return event_key(self.dataset, self.number)

    def encode(self) -> bytes:
        """Return the record's bytes.

        Raises:
            InvalidInputError: they are more than 1 MiB.
        """
        return encode_record(
            {
                "format": RECORD_FORMAT,
                "store": self.store,
                "dataset": self.dataset,
                "number": self.number,
                "parent": str(Digest.from_raw(self.parent)),
                "kind": self.kind,
                "tag": self.tag,
                "release": self.release,
                "previous": self.previous,
                "author": self.author,
                "reason": self.reason,
                "created_at": format_moment(self.created_at),
                **(self.registered.fields if self.registered is not None else {}),
            },
            "shorten the description, the labels or the reason",
        )

    @classmethod
    def decode(cls, body: bytes, key: str) -> DatasetEvent:
        """Parse a record. Whether it is the one that belongs under `key` is for the chain of digests to say.

        Raises:
            CorruptionError: the bytes are no event of a dataset; the message names `key`.
            FormatError: a newer vds wrote it.
        """
        fields = parse_record(body, f"dataset event {key!r}")
        kind = cast(EventKind, fields.one_of("kind", get_args(EventKind)))
        # What a kind does not have is there, and null: a field too many is as wrong as one too few.
        for name, is_wanted in (("tag", kind != "register"), ("release", kind != "untag")):
            if fields.is_null(name) is is_wanted:
                raise fields.wrong(name, f"which is not what an event of kind {kind!r} has")
        return cls(
            store=fields.word("store", is_ulid),
            dataset=fields.parsed("dataset", parse_name),
            number=fields.number("number", 1, NUMBER_MAX),
            parent=fields.digest("parent"),
            kind=kind,
            tag=None if fields.is_null("tag") else fields.parsed("tag", parse_tag),
            release=_optional_number(fields, "release"),
            previous=_optional_number(fields, "previous"),
            author=fields.text("author"),
            reason=fields.text("reason"),
            created_at=fields.parsed("created_at", parse_written_moment),
            registered=Registered.parse(fields) if kind == "register" else None,
        )


def _optional_number(fields: Fields, name: str) -> int | None:
    return None if fields.is_null(name) else fields.number(name, 1, NUMBER_MAX)


def _parse_written_path(text: str) -> EntryPath:
    path = directory_path(text)
    if path != text:
        raise ValueError("which is not how records write a path")
    return path


def event_key(dataset: str, number: int) -> str:
    """Return the key of a dataset's event; zero-padded so that listings sort."""
    return f"{EVENT_PREFIX}{name_digest(dataset)}/{number:016d}"
