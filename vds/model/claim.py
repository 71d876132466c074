"""The claim of a name: `namespaces/<b3 of the case-folded name>` gives one name one id, for ever."""

from __future__ import annotations

from dataclasses import dataclass

from vds.errors import CorruptionError
from vds.model.fields import HINT
from vds.model.ref import parse_name
from vds.model.ulid import is_ulid
from vds.model.version import RECORD_FORMAT, canonical_json, name_digest, parse_record

CLAIM_PREFIX = "namespaces/"


@dataclass(frozen=True, slots=True)
class NamespaceClaim:
    """What a claim holds.

    Attributes:
        namespace: the id.
        name: as it was first written; names are unique blind to case.
    """

    namespace: str
    name: str

    @property
    def key(self) -> str:
        """Where the claim is."""
        return f"{CLAIM_PREFIX}{name_digest(self.name)}"

    def encode(self) -> bytes:
        """Return the claim's bytes."""
        return canonical_json({"format": RECORD_FORMAT, "id": self.namespace, "name": self.name})

    @classmethod
    def decode(cls, body: bytes, key: str) -> NamespaceClaim:
        """Parse the claim under `key`.

        Raises:
            CorruptionError: the bytes are no claim, or that of a name which belongs under another key.
            FormatError: a newer vds wrote it.
        """
        fields = parse_record(body, f"namespace record {key!r}")
        claim = cls(fields.word("id", is_ulid), fields.parsed("name", parse_name))
        if claim.key != key:
            raise CorruptionError(f"namespace record {key!r} is that of {claim.name!r}, which belongs elsewhere", hint=HINT)
        return claim
