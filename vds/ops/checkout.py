"""Make a directory equal to a version, without losing anything of the user's; and say how a directory differs from its checkout.

What vds placed is written down (see `vds.files.record`). A file that is neither in that record nor in the version is never
touched; one that was changed since it was placed is neither overwritten nor removed unless forced.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from vds.errors import ConflictError, DownloadError, NotFoundError, failures_message
from vds.files.outcome import Outcome
from vds.files.place import Target
from vds.files.record import PlacedRecord, expected_row, find_record, merge_rows, placed_row, put_record
from vds.model.entry import Entry
from vds.model.path import EntryPath
from vds.model.patterns import Patterns, path_filter
from vds.ops.compare import CheckoutPlan, Spot, compare, find_foreign, plan_checkout
from vds.ops.placing import ObjectSource, check_target, place_entries
from vds.pipeline import TRANSFER_LIMITS, Limits
from vds.progress import Progress, SilentProgress

_NAMED_MAX = 10


@dataclass(frozen=True, slots=True)
class CheckoutResult:
    """What a checkout did, or would do.

    Attributes:
        files: of the version, all there now.
        placed: how many were written.
        bytes: that were written.
        kept: how many stood there already.
        removed: paths of files that vds had placed and the version has not.
        foreign: paths that vds never placed and the version has not; they were left alone.
        seconds: it took.
        plan: what was decided.
        dry_run: True when nothing was done.
    """

    files: int
    placed: int
    bytes: int
    kept: int
    removed: tuple[EntryPath, ...]
    foreign: tuple[str, ...]
    seconds: float
    plan: CheckoutPlan
    dry_run: bool

    @property
    def skipped(self) -> int:
        """`kept`, as results of uploads and downloads call it."""
        return self.kept


@dataclass(frozen=True, slots=True)
class Status:
    """How a directory differs from what was checked out into it; paths are sorted.

    Attributes:
        uri: of the version.
        added: what vds did not place. Where only a part was checked out, files of the rest of the version count too.
        modified: files that are not what they were, and what stands in their place.
        removed: files that are gone.
        allow_patterns: which files of the version were checked out; None for all.
        ignore_patterns: which were not.
    """

    uri: str
    added: tuple[str, ...]
    modified: tuple[str, ...]
    removed: tuple[str, ...]
    allow_patterns: tuple[str, ...] | None = None
    ignore_patterns: tuple[str, ...] | None = None

    @property
    def is_clean(self) -> bool:
        """Whether nothing differs."""
        return not (self.added or self.modified or self.removed)


def checkout(
    source: ObjectSource,
    entries: Iterable[Entry],
    dst: str | os.PathLike[str],
    progress: Progress,
    *,
    uri: str,
    digest: str = "",
    allow_patterns: Patterns = None,
    ignore_patterns: Patterns = None,
    force: bool = False,
    dry_run: bool = False,
    limits: Limits = TRANSFER_LIMITS,
    clock: Callable[[], float] = time.monotonic,
) -> CheckoutResult:
    """Make `dst` equal to `entries`, but for files that vds never placed there.

    With patterns, it becomes equal to the part of them that they select: a file that vds placed before and that is now left out
    is removed, as any other that is no longer wanted. Where just this was checked out last, and nothing was touched since,
    nothing is read: neither the files nor `entries`.

    Args:
        source: of the objects.
        entries: sorted by path; paths are relative to `dst`. Best lazy.
        dst: made if it is not there. One checkout at a time may run in it.
        progress: is told of stages, files and bytes.
        uri: of the version, for the record.
        digest: of the history of the version: with `uri` it says which entries these are. Without it they are always read.
        allow_patterns: see `vds.model.patterns`.
        ignore_patterns: likewise.
        force: overwrite and remove files that were changed here; and overwrite, never remove, files that vds did not place.
        dry_run: only decide.
        limits: on workers and bytes in flight.
        clock: for `seconds`.

    Raises:
        ConflictError: files were changed here, or stand in the way; nothing was done.
        DownloadError: some files cannot be placed here, are damaged or were refused; the same call goes on from there.
        NoSpaceError: the disk is too small; found before the first byte, unless others fill it meanwhile.
        UnavailableError: the service does not answer; the same call goes on from there.
    """
    begun_s = clock()
    wanted = path_filter(allow_patterns, ignore_patterns)
    after = PlacedRecord(uri, True, [], digest, _listed(allow_patterns), _listed(ignore_patterns))
    with Target(dst) as target:
        before = find_record(target) or PlacedRecord("", True, [])
        progress.stage("comparing")
        foreign = find_foreign(target.root, before.rows) if before.complete and before.asks_for(after) else None
        if foreign is not None:
            plan = CheckoutPlan((), (), tuple(before.rows), foreign, (), ())
        else:
            chosen = entries if wanted.takes_all else (entry for entry in entries if wanted.takes(entry.path))
            if target.is_empty():
                plan = CheckoutPlan(tuple(chosen), (), (), (), (), ())
            else:
                plan = plan_checkout(compare(target, chosen, before.rows, progress), force=force)
            _check_plan(plan, target.root)
            if not dry_run:
                _check_target(target, plan)
                progress.stage("checking out", files=len(plan.to_place), bytes=sum(entry.size_bytes for entry in plan.to_place))
                _carry_out(target, plan, before, after, partial(place_entries, source, target, progress=progress, limits=limits))
    return CheckoutResult(
        files=len(plan.to_place) + len(plan.kept),
        placed=len(plan.to_place),
        bytes=sum(entry.size_bytes for entry in plan.to_place),
        kept=len(plan.kept),
        removed=plan.to_remove,
        foreign=plan.foreign,
        seconds=clock() - begun_s,
        plan=plan,
        dry_run=dry_run,
    )


def _listed(patterns: Patterns) -> tuple[str, ...] | None:
    return (patterns,) if isinstance(patterns, str) else None if patterns is None else tuple(patterns)


def _check_target(target: Target, plan: CheckoutPlan) -> None:
    paths = sorted([entry.path for entry in plan.to_place] + [row.path for row in plan.kept])
    check_target(target, plan.to_place, paths, removed_bytes=plan.removed_bytes, replaced_bytes=plan.replaced_bytes)


def _check_plan(plan: CheckoutPlan, root: str) -> None:
    if plan.changed:
        raise ConflictError(
            f"{_named(plan.changed)} in {root!r} would be lost: changed here, or not placed by vds",
            paths=plan.changed,
            hint="upload or move them away first, or use force (--force) to lose them",
        )
    if plan.blocked:
        raise ConflictError(
            f"{_named(plan.blocked)} in {root!r} cannot be placed: a file stands where a directory is needed, or the reverse",
            paths=plan.blocked,
            hint="move away what is in the way: vds did not place it",
        )


def _named(paths: tuple[str, ...]) -> str:
    more = f" and {len(paths) - _NAMED_MAX} more" if len(paths) > _NAMED_MAX else ""
    return ", ".join(repr(path) for path in paths[:_NAMED_MAX]) + more


def _carry_out(
    target: Target,
    plan: CheckoutPlan,
    before: PlacedRecord,
    after: PlacedRecord,
    place: Callable[..., Outcome],
) -> None:
    def prepare() -> None:
        if plan.to_place or plan.to_remove:
            # A crash anywhere after this line leaves a record that knows both what was there and what was to be there.
            rows = merge_rows(before.rows, plan.kept, map(expected_row, plan.to_place))
            put_record(target, replace(after, complete=False), rows)
        for path in plan.to_remove:  # first, as a directory that becomes a file must be empty by then
            target.remove(path)

    outcome = place(plan.to_place, prepare=prepare)
    if outcome.failures:
        raise DownloadError(failures_message("checked out", outcome.failures), failures=outcome.failures)
    if outcome.placed or replace(after, rows=list(plan.kept)) != before:
        outcome.placed.sort(key=lambda file: file.entry.path)
        put_record(target, after, merge_rows(plan.kept, (placed_row(file.entry, file.stamp) for file in outcome.placed)))


def status(dst: str | os.PathLike[str] = ".") -> Status:
    """Return how `dst` differs from what was last checked out into it; no store is needed.

    Raises:
        NotFoundError: nothing was checked out there.
        ConflictError: the last checkout there did not end.
    """
    with Target(dst) as target:
        record = find_record(target)
        if record is None:
            raise NotFoundError(f"nothing was checked out into {target.root!r}", hint=f"vds checkout REF {target.root}")
        if not record.complete:
            raise ConflictError(
                f"the checkout of {record.uri} into {target.root!r} did not end", hint=_command(record, target.root)
            )
        foreign = find_foreign(target.root, record.rows)
        if foreign is not None:
            return Status(record.uri, foreign, (), (), record.allow_patterns, record.ignore_patterns)
        wanted = [Entry(row.path, row.digest, row.size_bytes, row.mode, row.modified_ns) for row in record.rows]
        return _describe(record, compare(target, wanted, record.rows, SilentProgress()))


def _command(record: PlacedRecord, root: str) -> str:
    patterns = [("--allow", pattern) for pattern in record.allow_patterns or ()]
    patterns += [("--ignore", pattern) for pattern in record.ignore_patterns or ()]
    return " ".join(["vds checkout", record.uri, root, *(f"{option} {shlex.quote(pattern)}" for option, pattern in patterns)])


def _describe(record: PlacedRecord, spots: Iterable[Spot]) -> Status:
    added, modified, removed = [], [], []
    for spot in spots:
        if spot.entry is None:
            added.append(spot.path)
        elif spot.found is None and not spot.is_odd:
            removed.append(spot.path)
        elif not spot.is_equal:
            modified.append(spot.path)
    paths = tuple(added), tuple(modified), tuple(removed)
    return Status(record.uri, *paths, record.allow_patterns, record.ignore_patterns)
