"""A run: one execution of somebody's program, what it read and what it wrote.

Its record is written twice, each time under a key of its own: when it begins, and when it has ended. Both are canonical JSON, as
the records of versions are. Which versions a run wrote is not in them: each version's own record names its run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, cast, get_args

from vds.errors import InvalidInputError
from vds.model.fields import Fields
from vds.model.ref import format_moment, parse_name
from vds.model.ulid import is_ulid
from vds.model.version import NUMBER_MAX, RECORD_FORMAT, encode_record, parse_record, parse_written_moment

RUN_PREFIX = "runs/"
RUN_FIELD = "vds.run"
"""What the provenance of a version calls the run that wrote it."""
NAME_BYTES_MAX = 512
PARAMS_MAX = 1024
PARAM_BYTES_MAX = 16 * 1024

RunKind = Literal["run", "pipeline", "step"]
EndStatus = Literal["completed", "failed", "canceled"]
RunStatus = Literal["running", "completed", "failed", "canceled", "abandoned"]


@dataclass(frozen=True, slots=True)
class Place:
    """A version of a namespace, seen from a path, as a run knows it.

    Attributes:
        name: what the run calls it.
        namespace: the id in the container.
        namespace_name: what it is called.
        asked: the ref as it was given, or the local path that it was written to.
    """

    name: str
    namespace: str
    namespace_name: str
    number: int
    path: str = ""
    asked: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """What a record says of it."""
        return {
            "name": self.name,
            "namespace": self.namespace,
            "namespace_name": self.namespace_name,
            "number": self.number,
            "path": self.path,
            "asked": self.asked,
        }

    @classmethod
    def parse(cls, fields: Fields) -> Place:
        """Return what a record says of one.

        Raises:
            CorruptionError: it is no place.
        """
        return cls(
            name=fields.text("name"),
            namespace=fields.word("namespace", is_ulid),
            namespace_name=fields.parsed("namespace_name", parse_name),
            number=fields.number("number", 0, NUMBER_MAX),
            path=fields.text("path"),
            asked=fields.text("asked"),
        )


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What is written down for ever about one run.

    Attributes:
        uid: its id, a ulid.
        parent: the run it belongs to; empty for none.
        key_parts: of a step: each thing its result depends on, and the digest of that.
        key: of a step: the digest of all of them; empty where it may not be used again.
        reused: the run whose outputs these are, when nothing had to be run.
        status: None until it has ended.
        error: how it failed, on one line.
    """

    store: str
    uid: str
    parent: str
    kind: RunKind
    name: str
    author: str
    started_at: datetime
    params: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    key_parts: Mapping[str, str] = field(default_factory=dict)
    reused: str = ""
    status: EndStatus | None = None
    ended_at: datetime | None = None
    error: str = ""
    inputs: Sequence[Place] = ()
    outputs: Sequence[Place] = ()

    @property
    def record_key(self) -> str:
        """Where the record is."""
        return run_key(self.uid, has_ended=self.status is not None)

    def encode(self) -> bytes:
        """Return the record's bytes.

        Raises:
            InvalidInputError: they are more than 1 MiB.
        """
        return encode_record(
            {
                "format": RECORD_FORMAT,
                "store": self.store,
                "run": self.uid,
                "parent": self.parent,
                "kind": self.kind,
                "name": self.name,
                "author": self.author,
                "started_at": format_moment(self.started_at),
                "params": dict(self.params),
                "provenance": dict(self.provenance),
                "key": self.key,
                "key_parts": dict(self.key_parts),
                "reused": self.reused,
                "status": self.status,
                "ended_at": None if self.ended_at is None else format_moment(self.ended_at),
                "error": self.error,
                "inputs": [place.fields for place in self.inputs],
                "outputs": [place.fields for place in self.outputs],
            },
            "give the run fewer or shorter params",
        )

    @classmethod
    def decode(cls, body: bytes, key: str) -> RunRecord:
        """Parse the record under `key`.

        Raises:
            CorruptionError: the bytes are no record of a run, or that of one which belongs under another key.
            FormatError: a newer vds wrote it.
        """
        fields = parse_record(body, f"run record {key!r}")
        is_open = fields.is_null("status")
        found = cls(
            store=fields.word("store", is_ulid),
            uid=fields.word("run", is_ulid),
            parent=fields.word("parent", lambda text: not text or is_ulid(text)),
            kind=cast(RunKind, fields.one_of("kind", get_args(RunKind))),
            name=fields.text("name"),
            author=fields.text("author"),
            started_at=fields.parsed("started_at", parse_written_moment),
            params=fields.texts("params"),
            provenance=fields.texts("provenance"),
            key=fields.text("key"),
            key_parts=fields.texts("key_parts"),
            reused=fields.word("reused", lambda text: not text or is_ulid(text)),
            status=None if is_open else cast(EndStatus, fields.one_of("status", get_args(EndStatus))),
            ended_at=None if fields.is_null("ended_at") else fields.parsed("ended_at", parse_written_moment),
            error=fields.text("error"),
            inputs=tuple(Place.parse(one) for one in fields.each("inputs")),
            outputs=tuple(Place.parse(one) for one in fields.each("outputs")),
        )
        if found.record_key != key or (found.ended_at is None) is not is_open:
            raise fields.wrong("run", "which does not belong under this key")
        return found


def run_key(uid: str, *, has_ended: bool) -> str:
    """Return the key of a run's first or last record."""
    return f"{RUN_PREFIX}{uid}/{'ended' if has_ended else 'begun'}"


def check_run_name(name: str) -> str:
    """Return `name` if a run may be called so.

    Raises:
        InvalidInputError: it is empty, longer than 512 bytes, or not printable text on one line.
    """
    if not isinstance(name, str) or not name or not name.isprintable() or len(name.encode()) > NAME_BYTES_MAX:
        raise InvalidInputError(f"{name!r} is no name for a run", hint="one line of text, at most 512 bytes")
    return name


def check_params(params: Mapping[str, object] | None) -> dict[str, str]:
    """Return parameters as text, if they may be recorded; what looks like a secret is for the caller not to pass.

    Raises:
        InvalidInputError: more than 1 024, or one without a name, longer than 16 KiB, or no text.
    """
    given = dict(params or {})
    if len(given) > PARAMS_MAX:
        raise InvalidInputError(f"{len(given)} params, the limit is {PARAMS_MAX}")
    for name in given:
        if not isinstance(name, str) or not name:
            raise InvalidInputError(f"param {name!r}: names must be text", hint="params={'learning_rate': 0.1}")
    texts = {name: str(value) for name, value in given.items()}
    for name, text in texts.items():
        if len(text.encode(errors="surrogatepass")) > PARAM_BYTES_MAX:
            raise InvalidInputError(
                f"param {name!r} has more than {PARAM_BYTES_MAX} bytes", hint="write it to a file, and upload that"
            )
        if "\0" in text + name or not _is_unicode(text + name):
            raise InvalidInputError(f"param {name!r} is no valid text")
    return texts


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
