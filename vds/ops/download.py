"""Copy a version, or a part of it, into a directory of the user's; nothing there is removed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from vds.errors import DownloadError, failures_message
from vds.files.place import Target
from vds.model.batch import grouped
from vds.model.entry import Entry
from vds.model.patterns import Patterns, path_filter
from vds.ops.placing import ObjectSource, check_target, place_entries
from vds.pipeline import HASH_WORKERS, TRANSFER_LIMITS, Limits, parallel_map
from vds.progress import Progress

_EXAMINED_AT_ONCE = 64
_EXAMINED_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Present:
    """What stands where an entry is to go.

    Attributes:
        digest_raw: None when it is not worth knowing, since the sizes differ already.
        mode: None where the system keeps none.
        size_bytes: of a regular file.
    """

    digest_raw: bytes | None
    mode: int | None
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DownloadPlan:
    """What a download does, each list in the order of the paths.

    Attributes:
        replaced_bytes: of the files that others take the place of, each gone only then.
    """

    to_add: tuple[Entry, ...]
    to_replace: tuple[Entry, ...]
    unchanged: tuple[Entry, ...]
    replaced_bytes: int = 0

    @property
    def to_place(self) -> tuple[Entry, ...]:
        """What will be written."""
        return tuple(sorted((*self.to_add, *self.to_replace), key=lambda entry: entry.path)) if self.to_replace else self.to_add

    @property
    def size_bytes(self) -> int:
        """The bytes that will be written."""
        return sum(entry.size_bytes for entry in (*self.to_add, *self.to_replace))


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """What a download did, or would do.

    Attributes:
        files: that were asked for, and are there now.
        placed: how many of them were written.
        bytes: that were written.
        skipped: how many were there already with the same bytes.
        seconds: it took.
        plan: what was decided.
        dry_run: True when nothing was done.
    """

    files: int
    placed: int
    bytes: int
    skipped: int
    seconds: float
    plan: DownloadPlan
    dry_run: bool


def download(
    source: ObjectSource,
    entries: Iterable[Entry],
    dst: str | os.PathLike[str],
    progress: Progress,
    *,
    allow_patterns: Patterns = None,
    ignore_patterns: Patterns = None,
    dry_run: bool = False,
    limits: Limits = TRANSFER_LIMITS,
    clock: Callable[[], float] = time.monotonic,
) -> DownloadResult:
    """Make the files below `dst` that `entries` names; files with the same bytes are kept, others of their names replaced.

    Every file is whole or absent at every moment. What was placed before an error stays, so the same call goes on from there.

    Args:
        source: of the objects.
        entries: sorted by path; paths are relative to `dst`.
        dst: made if it is not there.
        progress: is told of stages, files and bytes.
        allow_patterns: see `vds.model.patterns`.
        ignore_patterns: likewise.
        dry_run: only decide.
        limits: on workers and bytes in flight.
        clock: for `seconds`.

    Raises:
        DownloadError: some files cannot be placed here, are damaged or were refused; all others are there.
        NoSpaceError: the disk is too small; found before the first byte, unless others fill it meanwhile.
        UnavailableError: the service does not answer.
    """
    begun_s = clock()
    wanted = path_filter(allow_patterns, ignore_patterns)
    chosen = [entry for entry in entries if wanted.takes(entry.path)]
    with Target(dst) as target:
        progress.stage("comparing", files=len(chosen))
        plan = plan_download(chosen, find_present(target, chosen, progress))
        if not dry_run:
            paths = (entry.path for entry in chosen)
            check_target(target, plan.to_place, paths, replaced_bytes=plan.replaced_bytes)
            progress.stage("downloading", files=len(plan.to_place), bytes=plan.size_bytes)
            outcome = place_entries(source, target, plan.to_place, progress, limits=limits)
            if outcome.failures:
                raise DownloadError(failures_message("downloaded", outcome.failures), failures=outcome.failures)
    return DownloadResult(
        files=len(chosen),
        placed=len(plan.to_place),
        bytes=plan.size_bytes,
        skipped=len(plan.unchanged),
        seconds=clock() - begun_s,
        plan=plan,
        dry_run=dry_run,
    )


def plan_download(entries: Iterable[Entry], present: Mapping[str, Present]) -> DownloadPlan:
    """Decide for each entry whether its file is added, replaced or left as it is."""
    to_add, to_replace, unchanged = [], [], []
    replaced_bytes = 0
    for entry in entries:
        found = present.get(entry.path)
        if found is None:
            to_add.append(entry)
        elif found.digest_raw == entry.digest.raw and found.mode in (None, entry.mode):
            unchanged.append(entry)
        else:
            to_replace.append(entry)
            replaced_bytes += found.size_bytes
    return DownloadPlan(tuple(to_add), tuple(to_replace), tuple(unchanged), replaced_bytes)


def find_present(target: Target, entries: Iterable[Entry], progress: Progress) -> dict[str, Present]:
    """Return what stands at the paths of `entries`; only files of the right size are read, in parallel."""
    if target.is_empty():
        return {}

    def examine(batch: list[Entry]) -> list[tuple[str, Present]]:
        found: list[tuple[str, Present]] = []
        for entry in batch:
            state = target.find_state(entry.path)
            if state is not None:
                same_size = state.is_file and state.size_bytes == entry.size_bytes
                digest_raw = target.find_digest(entry.path) if same_size else None
                size_bytes = state.size_bytes if state.is_file else 0
                found.append((entry.path, Present(digest_raw, state.mode, size_bytes)))
        progress.add(files=len(batch))
        return found

    groups = grouped(entries, lambda entry: entry.size_bytes, count_max=_EXAMINED_AT_ONCE, bytes_max=_EXAMINED_BYTES)
    return {path: present for result in parallel_map(examine, groups, workers=HASH_WORKERS) for path, present in result}
