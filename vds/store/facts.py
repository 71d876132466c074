"""What is known of a version: its pin, and what its writer said. Asked of this machine where it knows, else of the index."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from vds.index.versions import VersionRow
from vds.model.digest import Digest
from vds.model.path import EntryPath
from vds.model.ref import version_uri
from vds.store.pinned import Pinned


class VersionFacts:
    """A pinned version, seen from a directory: what it is, apart from its files."""

    def __init__(self, pinned: Pinned, path: str = "") -> None:
        self._pinned = pinned
        self._path = EntryPath(path)

    def __repr__(self) -> str:
        return f"<Version {self.uri} {self.digest[:15]}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, VersionFacts):
            return NotImplemented
        return self._pin == other._pin

    def __hash__(self) -> int:
        return hash(self._pin)

    @property
    def _pin(self) -> tuple[str, str, int, str, str]:
        return (self._pinned.handle.address.url, self.namespace, self.number, str(self.digest), str(self._path))

    @property
    def _row(self) -> VersionRow:
        return self._pinned.row

    @property
    def namespace(self) -> str:
        """The name of its namespace."""
        return self._pinned.name

    @property
    def number(self) -> int:
        """Its number, from 1; 0 is the empty version of every namespace."""
        return self._pinned.number

    @property
    def digest(self) -> Digest:
        """The digest of its history: two versions with equal digests have equal pasts."""
        return self._pinned.digest

    @property
    def path(self) -> EntryPath:
        """The directory (or file) it is seen from; empty for the root."""
        return self._path

    @property
    def uri(self) -> str:
        """`vds://NAMESPACE@NUMBER/PATH`."""
        return version_uri(self.namespace, self.number, self._path)

    @property
    def created_at(self) -> datetime:
        """When it was committed, in UTC, by the database's clock."""
        return self._row.created_at

    @property
    def author(self) -> str:
        """Who wrote it."""
        return self._row.author

    @property
    def message(self) -> str:
        """What its writer said."""
        return self._row.message

    @property
    def operation(self) -> str:
        """What made it: upload, mirror, copy, transaction, rollback or revert."""
        return self._row.operation

    @property
    def labels(self) -> Mapping[str, str]:
        """What its writer labelled it with."""
        return dict(self._row.labels)

    @property
    def provenance(self) -> Mapping[str, str]:
        """Where it came from: host, pid, command, git commit, job variables."""
        return dict(self._row.provenance)

    @property
    def commit_id(self) -> str:
        """The id under which `store.outcome` finds it."""
        return self._row.commit_id
