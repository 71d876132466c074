"""`vds log`, `vds diff`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import click

from vds.cli.errors import EXIT_NO
from vds.cli.options import command
from vds.cli.shapes import change_shape, version_shape
from vds.cli.shell import Shell, has_colour
from vds.cli.text import count_text, first_line, moment_text, size_text
from vds.errors import NotFoundError
from vds.model.entry import Change
from vds.model.ref import format_moment
from vds.model.run import RUN_FIELD

if TYPE_CHECKING:
    from vds.store import Dataset, Store, Version

_MARKS = {"added": ("+", "green"), "modified": ("~", "yellow"), "removed": ("-", "red")}


def add_to(group: click.Group) -> None:
    """Add these commands."""
    _add_log(group)
    _add_diff(group)


def _add_log(group: click.Group) -> None:
    @command(
        group,
        "log",
        (
            "vds log team/raw -n 10                   the last ten versions",
            "vds log team/raw --path images/cat.png   those that changed a file or directory",
            "vds log customers:                       releases and tags of a dataset",
            "vds log customers:prod                   where a tag has been",
        ),
    )
    @click.argument("name", metavar="NS|DS:[TAG]")
    @click.option("--path", default="", metavar="PATH", help="Only versions that changed this file or directory.")
    @click.option("-n", "limit", type=click.IntRange(min=1), metavar="N", help="At most N.")
    def log(shell: Shell, name: str, path: str, limit: int | None) -> None:
        """Show a history, newest first.

        The versions of a namespace; the releases and tag moves of a dataset.
        """
        dataset, colon, tag = name.partition(":")
        with shell.connect(read_only=True) as store:
            if colon:
                if path:
                    raise click.UsageError("--path is for namespaces; a dataset has releases and tags")
                _dataset_log(shell, store.dataset(dataset), tag or None, limit)
                return
            try:
                versions = iter(store.namespace(name).log(path=path, limit=limit))
                first = list(islice(versions, 1))  # a namespace that is not there shows itself at the first row
            except NotFoundError:
                if path or not _is_dataset(store, name):
                    raise
                _dataset_log(shell, store.dataset(name), None, limit)
                return
            shell.answer_list(
                {"namespace": name},
                "versions",
                chain(first, versions),
                line=_version_line,
                quiet=lambda version: version.uri,
                shape=version_shape,
            )


def _version_line(version: Version) -> str:
    facts = f"{version.namespace}@{version.number}  {moment_text(version.created_at)}  {version.author}"
    content = f"{count_text(version.file_count)}, {size_text(version.size_bytes)}"
    run = version.provenance.get(RUN_FIELD)
    return (
        f"{facts}  {content}" + (f"  run {run}" if run else "") + (f"  {first_line(version.message)}" if version.message else "")
    )


def _is_dataset(store: Store, name: str) -> bool:
    return any(dataset.name == name for dataset in store.datasets(prefix=name))


def _dataset_log(shell: Shell, dataset: Dataset, tag: str | None, limit: int | None) -> None:
    shell.answer_list(
        {"dataset": dataset.name},
        "events",
        islice(dataset.history(tag), limit),
        line=lambda event: _event_line(dataset.name, event),
        quiet=lambda event: str(event.seq),
        shape=_event_shape,
    )


def _event_line(dataset: str, event: Any) -> str:
    what = f"registered {dataset}:{event.release}"
    if event.kind == "tag":
        what = f"{dataset}:{event.tag} -> {event.release}" + (f" (was {event.previous})" if event.previous is not None else "")
    elif event.kind == "untag":
        what = f"{dataset}:{event.tag} removed (was {event.previous})"
    line = f"{event.seq:>4}  {moment_text(event.created_at)}  {event.author}  {what}"
    return line + (f"  {first_line(event.reason)}" if event.reason else "")


def _event_shape(event: Any) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "kind": event.kind,
        "tag": event.tag,
        "release": event.release,
        "previous": event.previous,
        "author": event.author,
        "reason": event.reason,
        "created_at": format_moment(event.created_at),
        "digest": str(event.digest),
    }


def _add_diff(group: click.Group) -> None:
    @command(
        group,
        "diff",
        (
            "vds diff team/raw@12                       what version 12 changed",
            "vds diff customers:prod team/raw           what prod lacks",
            "vds diff team/raw@11 team/raw@12 --stat",
            "vds diff customers:prod team/raw --exit-code -q || echo differs",
        ),
    )
    @click.argument("ref", metavar="REF[/PATH]")
    @click.argument("other", required=False, metavar="[REF[/PATH]]")
    @click.option("--stat", is_flag=True, help="Only counts and sizes.")
    @click.option("--exit-code", "tells", is_flag=True, help="Exit 1 when there is a difference.")
    @click.pass_context
    def diff(context: click.Context, shell: Shell, ref: str, other: str | None, stat: bool, tells: bool) -> None:
        """Show what changed between two versions.

        From the first to the second; with one, what that one changed itself. Sorted by path.
        """
        with shell.connect(read_only=True) as store:
            first = store.get(ref)
            changes = first.diff() if other is None else store.get(other).diff(first)
            head = {"from": first.uri if other is not None else None, "to": first.uri if other is None else store.get(other).uri}
            count = _answer_stat(shell, head, iter(changes)) if stat else _answer_changes(shell, head, iter(changes))
        if not count:
            shell.note("no difference")
        if count and tells:
            context.exit(EXIT_NO)


def _answer_changes(shell: Shell, head: dict[str, Any], changes: Iterator[Change]) -> int:
    coloured = has_colour(sys.stdout)

    def line(change: Change) -> str:
        mark, colour = _MARKS[change.kind]
        text = f"{mark} {change.path}" + (f"  ({_sizes(change)})" if change.before or change.after else "")
        return text if not coloured else f"{click.style(mark, fg=colour)}{text[1:]}"

    return shell.answer_list(head, "changes", changes, line=line, quiet=lambda change: change.path, shape=change_shape)


def _sizes(change: Change) -> str:
    before, after = (None if entry is None else size_text(entry.size_bytes) for entry in (change.before, change.after))
    return f"{before} -> {after}" if before and after else before or after or ""


def _answer_stat(shell: Shell, head: dict[str, Any], changes: Iterator[Change]) -> int:
    counts: Counter[str] = Counter()
    bytes_before = bytes_after = 0
    for change in changes:
        counts[change.kind] += 1
        bytes_before += change.before.size_bytes if change.before else 0
        bytes_after += change.after.size_bytes if change.after else 0
    kinds = {kind: counts[kind] for kind in _MARKS}
    summary = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    shell.answer(
        text=f"{summary}; {size_text(bytes_before)} -> {size_text(bytes_after)}",
        document={**head, **kinds, "bytes_before": bytes_before, "bytes_after": bytes_after},
    )
    return counts.total()
