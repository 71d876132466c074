"""A store: one container and one index, opened together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any

from vds.engine.journal import check_serving, check_store_fresh, flush_line
from vds.engine.resolve import resolve
from vds.index.commit import find_commit_place
from vds.index.datasets import list_datasets
from vds.index.staging import list_open_uploads
from vds.index.stores import list_namespaces, read_namespace
from vds.model.digest import Digest
from vds.model.moment import moment_of
from vds.model.path import EntryPath
from vds.model.ref import Point, parse_ref_path
from vds.ops.collect import GRACE_HOURS, MAX_SHARE, CollectReport, CollectTerms, collect
from vds.ops.doctor import Report, examine
from vds.ops.erase import EraseReport, erase
from vds.ops.expire import ExpireReport
from vds.ops.fsck import FsckReport, FsckTerms, fsck
from vds.ops.mending import MendTerms, mend
from vds.ops.now import now
from vds.ops.uncollect import UndoReport, uncollect
from vds.progress import open_progress
from vds.store.copies import open_copies
from vds.store.dataset import Dataset
from vds.store.namespace import Namespace, NamespaceInfo
from vds.store.source import find_version
from vds.store.storeruns import StoreRuns
from vds.store.transaction import Transaction
from vds.store.upkeep import digest_of, expire_versions, rules_of
from vds.store.version import Version


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a ref means now.

    Attributes:
        requested: the ref as it was typed.
        release: the release's number, when the ref named a dataset.
        path: where in the version it points.
        pinned: whether it will mean the same for ever, or for as long as VDS_AS_OF stays as it is.
    """

    requested: str
    namespace: str
    number: int
    digest: Digest
    release: int | None
    path: EntryPath
    pinned: bool


@dataclass(frozen=True, slots=True)
class DatasetInfo:
    """A dataset in a listing."""

    name: str
    releases: int


@dataclass(frozen=True, slots=True)
class TransactionInfo:
    """An open transaction in a listing."""

    token: str
    namespace: str
    created_at: datetime
    expires_at: datetime
    author: str
    message: str
    parts: int


class Store(StoreRuns):
    """An open store. Thread-safe; it pickles as its address, without secrets, and survives fork."""

    def __repr__(self) -> str:
        return f"<Store {self.url}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Store, (self._handle,))

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def url(self) -> str:
        """The address of its container, without any secret."""
        return self._handle.address.url

    @property
    def index(self) -> str:
        """The address of its index, without any secret; `embedded` for SQLite on this machine."""
        return self._handle.address.index

    @property
    def id(self) -> str:
        """Its id, made once and kept in the container."""
        return self._handle.doors.store.uid

    @property
    def read_only(self) -> bool:
        """Whether it was opened for reading."""
        return self._handle.address.read_only

    def close(self) -> None:
        """Let go of connections. Using the store again opens them again."""
        self._handle.close()

    def namespace(self, name: str) -> Namespace:
        """Return a namespace; lazy: no call is made, and it need not exist before its first write."""
        return Namespace(self._handle, name)

    def dataset(self, name: str) -> Dataset:
        """Return a dataset; lazy: no call is made, and it need not exist before its first registration."""
        return Dataset(self._handle, name)

    def get(self, ref: str) -> Version:
        """Return the version that a ref names, seen from the ref's path.

        Raises:
            InvalidInputError: the ref does not parse.
            NotFoundError: there is no such version.
        """
        return find_version(self._handle, ref)

    def resolve(self, ref: str) -> Resolved:
        """Return what a ref means now, and whether it will always mean that.

        Raises:
            InvalidInputError: the ref does not parse.
            NotFoundError: there is no such version.
        """
        parsed, path = parse_ref_path(ref)
        found = resolve(self._handle.doors, parsed, path)
        return Resolved(
            requested=ref,
            namespace=found.namespace.name,
            number=found.version.number,
            digest=Digest.from_raw(found.version.digest),
            release=found.release.number if found.release is not None else None,
            path=EntryPath(found.path),
            pinned=found.is_pinned,
        )

    def now(self) -> datetime:
        """Return the present moment of this store, in UTC: what VDS_AS_OF takes, so that all steps of a run see the same data.

        Everything acknowledged before the call is part of it, and whatever shows later has a later time: each ref that can move
        has one answer as of this moment, whoever asks and when. It holds up no writer.

        Raises:
            UnavailableError: a commit under way, or the record of one, took longer than 10 s, or the database's clock was set
                back: it stands behind what was recorded. One that is set back after this returned breaks the promise.
            AccessDeniedError: the index is a standby of its database, or an embedded one that may not be written.
        """
        return now(self._handle.doors)

    def namespaces(self, prefix: str = "") -> list[NamespaceInfo]:
        """Return the namespaces called `prefix` or `prefix/…` that have a version, by name."""
        doors = self._handle.doors
        with doors.index.read() as connection:
            rows = list(list_namespaces(connection, doors.store.id, prefix.rstrip("/")))
        check_serving(doors)
        # A name that was claimed by a write which then failed is not there yet.
        return [NamespaceInfo(row.name, row.visible, moment_of(row.created_us)) for row in rows if row.visible]

    def datasets(self, prefix: str = "") -> list[DatasetInfo]:
        """Return the datasets called `prefix` or `prefix/…`, by name."""
        doors = self._handle.doors
        with doors.index.read() as connection:
            rows = list(list_datasets(connection, doors.store.id, prefix.rstrip("/")))
        check_serving(doors)
        return [DatasetInfo(row.name, releases) for row, releases in rows if row.visible]

    def transactions(self) -> list[TransactionInfo]:
        """Return the open transactions, oldest first."""
        return list(self._transactions())

    def outcome(self, commit_id: str) -> Version | None:
        """Return the version that a commit made, or None when it made none: what to ask after an OutcomeUnknownError.

        None is final only once the process that committed has ended or given up.
        """
        doors = self._handle.doors
        if not doors.read_only:
            flush_line(doors)
        with doors.index.read() as connection:
            place = find_commit_place(connection, doors.store.id, commit_id)
            namespace = read_namespace(connection, place.namespace_id) if place else None
        check_store_fresh(doors)  # as an acknowledgement is: another index may have been made without it
        if place is None or namespace is None or place.number > namespace.visible:
            return None
        return self.namespace(namespace.name)._version(Point(number=place.number))

    def doctor(self, write_test: bool = False) -> Report:
        """Check that everything this store needs works, and say what to do about what does not."""
        return examine(self._handle.doors, write_test=write_test)

    def fsck(
        self,
        *,
        structure: bool = True,
        chain: bool = False,
        sample: float | None = None,
        shard: tuple[int, int] | None = None,
        full: bool = False,
        repair: bool = False,
        repair_from: str | os.PathLike[str] | None = None,
        replace_damaged: bool = False,
        seed: str = "",
        resume: bool = True,
        show_progress: bool = True,
        dry_run: bool = False,
    ) -> FsckReport:
        """Check the store: that index, records and blobs agree, and with more time that all bytes are what they must be.

        What is found is reported, never raised. Damaged objects are noted in the index, unless it is opened for reading: they are
        not counted on any more, so that uploading such a file again brings its content back, and nothing is collected meanwhile.

        Args:
            structure: index, records and listing: a request for each record, one for 5 000 blobs, some walks through the index.
            chain: read every change list too, and hold what they add up to against the entries of each version.
            sample: read the bytes of this share of the blobs.
            shard: `(3, 7)` reads those of the third of seven parts, the same whenever it is asked for.
            full: read all bytes.
            repair: write records and lists that are missing again from the index, and forget damaged objects nobody needs.
            repair_from: a directory of files, or the url of another container: what is lost here and good there is copied.
            replace_damaged: with a repair, delete records and lists that are damaged, when good ones are at hand.
            seed: chooses the sample again as it was chosen before.
            resume: go on where a killed `full` or `shard` was on this machine.
            show_progress: show progress on stderr.
            dry_run: write nothing; say what a repair could mend.

        Raises:
            InvalidInputError: there is no such share, shard or place.
            ConflictError: the same long check runs on this machine.
            AccessDeniedError: a repair of a store that was opened for reading.
        """
        terms = FsckTerms(structure, chain, sample, shard, full, seed, resume, dry_run).check()
        doors = self._handle.doors
        mends = repair or repair_from is not None or replace_damaged
        if mends and not dry_run:
            doors.check_writable()
        with open_copies(repair_from) as copies, open_progress(show_progress, "fsck") as progress:
            mender = partial(mend, terms=MendTerms(copies, replace_damaged)) if mends else None
            return fsck(doors, terms, progress, mend=mender)

    def expire(
        self,
        names: str | Sequence[str] | None = None,
        *,
        keep_last: int | None = None,
        keep_daily: int | None = None,
        keep_weekly: int | None = None,
        keep_within: str | timedelta | None = None,
        keep_tagged: bool = True,
        reason: str = "",
        dry_run: bool = True,
    ) -> ExpireReport:
        """Take the names of old versions away; their bytes are `gc`'s to take, and can be brought back until then.

        Args:
            names: namespaces, or single versions such as `team/raw@12`. None: every namespace that the rules are for.
            keep_last: keep this many of the newest versions of each. Without any such rule the policies of vds.toml count.
            keep_daily: the newest one of each of this many days that have one, in UTC.
            keep_weekly: likewise of weeks.
            keep_within: what is younger than this, such as `30d`.
            keep_tagged: keep every version that a release names. If False, only those that a tag shows. One that is named itself
                expires whatever names it, but never the newest.
            reason: why; recorded in the store's log.
            dry_run: only say what would expire, and how many bytes only those versions keep.

        Raises:
            NotFoundError: a namespace or version is not there, or nothing says which versions of it to keep.
            InvalidInputError: a rule is none, or the newest version is named.
        """
        rules = rules_of(
            keep_last=keep_last,
            keep_daily=keep_daily,
            keep_weekly=keep_weekly,
            keep_within=keep_within,
            keep_tagged=keep_tagged,
        )
        return expire_versions(self._handle, names, rules, reason=reason, dry_run=dry_run)

    def gc(
        self,
        dry_run: bool = True,
        *,
        grace_hours: float = GRACE_HOURS,
        max_share: float = MAX_SHARE,
        repack: bool = True,
        show_progress: bool = True,
    ) -> CollectReport:
        """Collect the bytes that no version needs: condemn them, and delete what was condemned longer ago than the grace.

        Safe beside any number of writers and collectors. What it will delete is in the store's log before it is deleted.

        Args:
            dry_run: only say what would be done.
            grace_hours: how long condemned bytes can be brought back with `undo_gc`.
            max_share: the share of the store's bytes that one run may take.
            repack: make packs that are mostly dead anew.
            show_progress: show progress on stderr.

        Raises:
            InvalidInputError: more than the share would go; nothing was done.
            FormatError: the index is older than its store, or was replaced; nothing was done.
            CorruptionError: journal and index disagree, something is damaged or missing; nothing was deleted.
        """
        author = "" if dry_run else self._handle.intent().author
        terms = CollectTerms(grace_hours=grace_hours, max_share=max_share, repacks=repack, author=author)
        with open_progress(show_progress, "gc") as progress:
            return collect(self._handle.doors, terms, progress, dry_run=dry_run)

    def undo_gc(self, dry_run: bool = False) -> UndoReport:
        """Bring back what `gc` has only condemned, and the versions that expired since it last deleted anything of theirs.

        Raises:
            FormatError, CorruptionError: as `gc`; nothing was done.
        """
        author = "" if dry_run else self._handle.intent().author
        return uncollect(self._handle.doors, author=author, dry_run=dry_run)

    def erase(self, digest: str | Digest, *, reason: str = "", dry_run: bool = True, show_progress: bool = True) -> EraseReport:
        """Destroy one content for ever, in all versions that hold it; it cannot be undone.

        The versions and their digests stay. Whoever reads such a file is told who erased it, when and why, and nobody can upload
        the content again. Caches of other machines, exports and copies of the container are not reached.

        Args:
            digest: of the content, `b3:` and 64 digits.
            reason: why; needed.
            dry_run: only say which files have it.
            show_progress: show progress on stderr.

        Raises:
            InvalidInputError: no reason is given, or it is no digest.
            NotFoundError: the store never had it.
            CorruptionError: a part of the container cannot be read, so that nobody can say whether a copy is there.
        """
        wanted = digest_of(digest)
        author = "" if dry_run else self._handle.intent().author
        with open_progress(show_progress, "erase") as progress:
            report = erase(self._handle.doors, wanted, author=author, reason=reason, progress=progress, dry_run=dry_run)
        if not dry_run and self._handle.cache is not None:
            self._handle.cache.drop_object(wanted.raw)
        return report

    def _transactions(self) -> Iterator[TransactionInfo]:
        doors = self._handle.doors
        with doors.index.read() as connection:
            rows = list(list_open_uploads(connection, doors.store.id))
        check_serving(doors)
        for upload, namespace, parts in rows:
            yield TransactionInfo(
                token=Transaction.token_of(self._handle, upload.token),
                namespace=namespace,
                created_at=moment_of(upload.created_us),
                expires_at=moment_of(upload.expires_us),
                author=upload.author,
                message=upload.message,
                parts=parts,
            )
