"""Undo what one run wrote, in every namespace, and move back the tags that show it."""

from __future__ import annotations

from vds.engine.namespaces import get_namespace
from vds.index.runs import list_family, list_written
from vds.ops import runs as ops
from vds.ops.restore import TagLeftBehind, find_tags_left
from vds.store.dataset import Dataset, Release
from vds.store.handle import Handle
from vds.store.namespace import Namespace
from vds.store.runs import RunInfo, RunUndoReport, TagMove, Undone, run_info


def undo_run(handle: Handle, run: str, *, reason: str, dry_run: bool) -> RunUndoReport:
    """Undo a run; see `Store.rollback_run`."""
    doors = handle.doors
    written: dict[str, list[int]] = {}
    with doors.index.read() as connection:
        runs = list_family(connection, doors.store.id, run)
        for own in runs:
            for _, name, number in list_written(connection, doors.store.id, own):
                written.setdefault(name, []).append(number)
    if not written:
        ops.get(doors, run)  # or NotFoundError
        return RunUndoReport(run, (), (), (), (), dry_run)
    readers = _find_readers(handle, runs, written)
    moves, left = _find_tags(handle, written)
    message = f"rollback of run {run}" + (f": {reason}" if reason else "")
    if not dry_run:  # readers of tags first: they see the good data before the namespaces are mended
        for move in moves:
            _move(handle, move, message)
    undone = tuple(_undo(handle, name, numbers, runs, message, dry_run) for name, numbers in sorted(written.items()))
    return RunUndoReport(run, undone, readers, moves, left, dry_run)


def _undo(handle: Handle, name: str, numbers: list[int], runs: list[str], message: str, dry_run: bool) -> Undone:
    result = Namespace(handle, name).undo_runs(runs, message=message, dry_run=dry_run)
    return Undone(name, tuple(sorted(numbers)), result.version.number, result.created, result.uploaded, result.removed)


def _find_readers(handle: Handle, runs: list[str], written: dict[str, list[int]]) -> tuple[RunInfo, ...]:
    doors = handle.doors
    found: dict[str, RunInfo] = {}
    for name, numbers in written.items():
        namespace = get_namespace(doors, name)
        for number in numbers:
            for facts, _ in ops.find_users(doors, namespace, number):
                if facts.row.uid not in runs:
                    found[facts.row.uid] = run_info(facts)
    return tuple(found[uid] for uid in sorted(found))


def _find_tags(handle: Handle, written: dict[str, list[int]]) -> tuple[tuple[TagMove, ...], tuple[TagLeftBehind, ...]]:
    doors = handle.doors
    moves, left = [], []
    for name, numbers in written.items():
        namespace = get_namespace(doors, name)
        for shown in find_tags_left(doors, namespace, min(numbers), namespace.head + 1, namespace.head + 1):
            if shown.version in numbers:
                moves.append(_plan_move(handle, shown, written))
            else:
                left.append(shown)
    return tuple(moves), tuple(left)


def _plan_move(handle: Handle, shown: TagLeftBehind, written: dict[str, list[int]]) -> TagMove:
    """Return the move of a tag to what it showed last that the run did not write."""
    name, _, tag = shown.tag.rpartition(":")
    dataset = Dataset(handle, name)
    releases = {release.number: release for release in dataset.releases()}
    good = (
        event.release
        for event in dataset.history(tag)
        if event.release is not None and not _is_written(releases, event.release, written)
    )
    return TagMove(shown.tag, shown.release, next(good, None))


def _is_written(releases: dict[int, Release], number: int, written: dict[str, list[int]]) -> bool:
    release = releases.get(number)
    if release is None or release.expired_at is not None:
        return True  # what cannot be read is no place to go back to
    return release.version.number in written.get(release.version.namespace, ())


def _move(handle: Handle, move: TagMove, reason: str) -> None:
    name, _, tag = move.tag.rpartition(":")
    dataset = Dataset(handle, name)
    if move.after is None:
        dataset.untag(tag, reason=reason, expected=move.before)
    else:
        dataset.tag(tag, move.after, reason=reason, expected=move.before)
