"""Write a version back as plain files or blobs, for tools that know nothing of vds."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

from vds.errors import ConflictError, ExportError, InvalidInputError, failures_message
from vds.model.digest import Digest
from vds.model.entry import Entry
from vds.model.manifest import ContentHasher
from vds.model.moment import micros_of
from vds.model.path import is_under
from vds.model.patterns import Patterns, path_filter
from vds.model.ref import format_moment
from vds.ops.exporting import MARKER_PATH, Place, Seen, open_place
from vds.ops.placing import ObjectSource
from vds.progress import Progress

_NAMED_MAX = 10
_CONFLICTS_MAX = 100


@dataclass(frozen=True, slots=True)
class Origin:
    """The version that is exported, as the marker tells of it.

    Attributes:
        uri: with the directory it is seen from.
        path: that directory.
    """

    uri: str
    namespace: str
    number: int
    path: str
    digest: Digest
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What an export does, each list in the order of the paths.

    Attributes:
        foreign: paths of files that stand there and are not of the version, the first thousand; they are left alone.
    """

    to_add: tuple[Entry, ...]
    to_replace: tuple[Entry, ...]
    unchanged: tuple[Entry, ...]
    foreign: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        """The bytes that will be written."""
        return sum(entry.size_bytes for entry in (*self.to_add, *self.to_replace))


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export did, or would do.

    Attributes:
        url: where to, without any secret.
        files: that were asked for, and are there now.
        placed: how many of them were written.
        bytes: that were written.
        copied: how many files of `placed` the service copied by itself; their bytes did not come by here.
        skipped: how many were there already.
        foreign_count: how many files are there besides.
        seconds: it took.
        plan: what was decided.
        dry_run: True when nothing was done.
    """

    url: str
    files: int
    placed: int
    bytes: int
    copied: int
    skipped: int
    foreign_count: int
    seconds: float
    plan: ExportPlan
    dry_run: bool


def export(
    source: ObjectSource,
    origin: Origin,
    entries: Iterable[Entry],
    url: str | os.PathLike[str],
    progress: Progress,
    *,
    allow_patterns: Patterns = None,
    ignore_patterns: Patterns = None,
    overwrite: bool = False,
    dry_run: bool = False,
    credential: object = None,
    clock: Callable[[], float] = time.monotonic,
) -> ExportResult:
    """Make the files that `entries` names at `url`, and then the marker `_VDS_EXPORT.json`, which says what they are.

    A reader that sees the marker sees all of them. It is removed before anything is written over an older export, and written
    when everything is there. Files that are there with the same content are left as they are, so the same call goes on after
    whatever stopped it. In a container they are told by their size and the digest that vds wrote beside them.

    What vds reads it checks against the digest before the file appears. What the service copies by itself was checked when it was
    stored, and is compared by size afterwards: its bytes are not read again.

    Args:
        source: of the objects.
        origin: what the marker tells.
        entries: sorted by path; paths are relative to `url`.
        url: a container or a prefix in one, or a directory; made if it is not there.
        progress: is told of stages, files and bytes.
        allow_patterns: see `vds.model.patterns`.
        ignore_patterns: likewise.
        overwrite: replace files of other content.
        dry_run: only decide.
        credential: for another account than the store's; see `vds.blobs.credential`.
        clock: for `seconds`.

    Raises:
        InvalidInputError: `url` is no such place, or a store; or the version has a file where the marker goes.
        ConflictError: other content stands there, and overwrite was not given; nothing was written.
        ExportError: some files cannot be held there, are damaged or were refused; all others are there, and no marker.
        NoSpaceError: the disk is too small; nothing was written.
        UnavailableError, AccessDeniedError: the service failed; no marker was written.
    """
    begun_s = clock()
    wanted = path_filter(allow_patterns, ignore_patterns)
    chosen: dict[str, Entry] = {entry.path: entry for entry in entries if wanted.takes(entry.path)}
    marker = make_marker(origin, chosen.values())
    with closing(open_place(url, source, credential)) as place:
        _check_place(place, chosen)
        progress.stage("comparing", files=len(chosen))
        seen = place.look(chosen, progress)
        plan = plan_export(chosen.values(), seen)
        if plan.to_replace and not overwrite:
            raise _conflict(place.url, plan)
        copied = 0
        if not dry_run and (plan.to_add or plan.to_replace or seen.marker != Digest.of(marker)):
            # From here on a crash leaves no marker: what is there says nothing of being complete.
            place.begin(seen, plan.size_bytes)
            copied = _put(source, place, plan, seen, chosen, progress)
            place.put_marker(marker, micros_of(origin.created_at) * 1000)
        shown = place.url
    placed = len(plan.to_add) + len(plan.to_replace)
    return ExportResult(
        url=shown,
        files=len(chosen),
        placed=placed,
        bytes=plan.size_bytes,
        copied=copied,
        skipped=len(plan.unchanged),
        foreign_count=seen.foreign_count,
        seconds=clock() - begun_s,
        plan=plan,
        dry_run=dry_run,
    )


def plan_export(entries: Iterable[Entry], seen: Seen) -> ExportPlan:
    """Decide for each entry whether its file is added, replaced or left as it is."""
    to_add, to_replace, unchanged = [], [], []
    for entry in entries:
        if entry.path in seen.equal:
            unchanged.append(entry)
        elif entry.path in seen.other:
            to_replace.append(entry)
        else:
            to_add.append(entry)
    return ExportPlan(tuple(to_add), tuple(to_replace), tuple(unchanged), tuple(seen.foreign))


def make_marker(origin: Origin, entries: Iterable[Entry]) -> bytes:
    """Return the marker of these files: the same bytes whenever and wherever they are exported."""
    hasher, files, size_bytes = ContentHasher(), 0, 0
    for entry in entries:
        hasher.add(entry.path, entry.digest.raw, entry.mode)
        files, size_bytes = files + 1, size_bytes + entry.size_bytes
    fields = {
        "uri": origin.uri,
        "namespace": origin.namespace,
        "version": origin.number,
        "path": origin.path,
        "digest": str(origin.digest),
        "created_at": format_moment(origin.created_at),
        "content_digest": str(Digest.from_raw(hasher.digest())),
        "files": files,
        "bytes": size_bytes,
    }
    return (json.dumps(fields, indent=2, ensure_ascii=False) + "\n").encode()


def _check_place(place: Place, chosen: Mapping[str, Entry]) -> None:
    own = next((path for path in chosen if is_under(path, MARKER_PATH)), None)
    if own is not None:
        raise InvalidInputError(
            f"the version has a file {own!r} where the marker of an export goes", hint=f"leave it out: --ignore '{MARKER_PATH}*'"
        )
    store = place.find_store()
    if store is not None:
        raise InvalidInputError(
            f"{place.url!r} and the store {store!r} lie in one another",
            hint="export to a container, prefix or directory beside it",
        )
    faults = place.find_faults(chosen.values())
    if faults:
        hint = "choose another place, or leave them out with a pattern"
        raise ExportError(failures_message("held there", faults), failures=faults, hint=hint)


def _conflict(url: str, plan: ExportPlan) -> ConflictError:
    paths = [entry.path for entry in plan.to_replace]
    more = f" and {len(paths) - _NAMED_MAX} more" if len(paths) > _NAMED_MAX else ""
    named = ", ".join(map(repr, paths[:_NAMED_MAX]))
    return ConflictError(
        f"other content stands in {url!r}: {named}{more}",
        paths=paths[:_CONFLICTS_MAX],
        hint="choose an empty place, or use overwrite (--overwrite) to replace it",
    )


def _put(
    source: ObjectSource, place: Place, plan: ExportPlan, seen: Seen, chosen: Mapping[str, Entry], progress: Progress
) -> int:
    """Put what the plan says, look whether everything is there then, and return how many files the service copied."""
    to_put = sorted((*plan.to_add, *plan.to_replace), key=lambda entry: entry.path)
    if not to_put:
        return 0
    progress.stage("exporting", files=len(to_put), bytes=plan.size_bytes)
    outcome = place.put(source, to_put, seen.other, progress)
    failures = outcome.failures or place.find_missing(chosen)
    if failures:
        hint = "run it again: it goes on from here"
        raise ExportError(failures_message("exported", failures), failures=failures, hint=hint)
    return outcome.copied
