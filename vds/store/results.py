"""What a write hands back."""

from __future__ import annotations

from dataclasses import dataclass, field

from vds.model.ref import version_uri
from vds.ops.restore import TagLeftBehind
from vds.store.version import Version


@dataclass(frozen=True)
class UploadResult:
    """What one write did.

    Attributes:
        version: the version that holds what was asked; an earlier one when nothing changed.
        created: False when nothing changed and no version was made.
        created_namespace: whether the namespace is new: a misspelt name shows here.
        target_path: where in the version it went.
        uploaded: files that were added or modified.
        modified: of them, those that took the place of another content.
        skipped: files that were there already and stayed as they were.
        changed_but_skipped: with overwrite=False, paths that stayed although their contents differ from the source's.
        removed: how many files were taken away.
        removed_paths: which; the first ten thousand.
        tags_left_behind: after rollback and revert, the tags that still show what was undone, each with the command that
            moves it.
        bytes_read: of the source files whose contents were read.
        bytes_sent: to the container, retries not counted.
        bytes_new: of contents the store did not have; a dry run sends nothing, and these are what would be sent.
        bytes_saved: of this upload's files that need not be sent, because the store has them or another file brings them.
        objects_new: contents the store did not have.
        seconds: how long it took.
        dry_run: whether this only says what would be done.
    """

    version: Version
    created: bool
    created_namespace: bool = False
    target_path: str = ""
    uploaded: int = 0
    modified: int = 0
    skipped: int = 0
    changed_but_skipped: list[str] = field(default_factory=list)
    removed: int = 0
    removed_paths: list[str] = field(default_factory=list)
    tags_left_behind: list[TagLeftBehind] = field(default_factory=list)
    bytes_read: int = 0
    bytes_sent: int = 0
    bytes_new: int = 0
    bytes_saved: int = 0
    objects_new: int = 0
    seconds: float = 0.0
    dry_run: bool = False

    @property
    def added(self) -> int:
        """How many files were uploaded to paths where none had been."""
        return self.uploaded - self.modified

    @property
    def namespace(self) -> str:
        """The name of the namespace that was written to."""
        return self.version.namespace

    @property
    def uri(self) -> str:
        """The uri of what was written: `vds://NAMESPACE@NUMBER/TARGET`."""
        return version_uri(self.version.namespace, self.version.number, self.target_path)
