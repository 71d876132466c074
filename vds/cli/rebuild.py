"""`vds index rebuild`: a new index from the container alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vds.cli.options import command
from vds.cli.results import PATHS_SHOWN_MAX
from vds.cli.shell import Shell
from vds.cli.text import columns, count_text

if TYPE_CHECKING:
    from vds.ops.rebuilding import RebuildGap, RebuildReport

EXIT_GAPS = 5
"""As for any other damage."""

REBUILD_STATE = "the container is as it was, and nothing can be written to the store until the same command has come to its end"


def add_to(group: click.Group) -> None:
    """Add this command to those of the index."""

    @command(
        group,
        "rebuild",
        (
            "vds index rebuild                                          where the store says its index is",
            "vds index rebuild --index postgresql://owner@host/vds     in another database",
            "vds index rebuild --index embedded                        in SQLite on this machine",
            "vds index rebuild --json > report.json",
        ),
        interrupted=REBUILD_STATE,
    )
    @click.pass_context
    def rebuild(context: click.Context, shell: Shell) -> None:
        """Make the index anew from the container.

        No version changes: numbers, digests, times, releases and tags are as before. Whoever writes through the old index, or
        collects with it, is refused from now on; who reads goes on until the new one is whole, and then connects again. What
        was uploaded and not committed yet has to be uploaded again. The damaged file of a SQLite index is moved aside.

        Exit 5 when the container does not say everything any more: what is missing is listed and remembered, nothing is
        collected, and nothing is written after a gap in a history. Bring back what is listed and run it again.
        """
        import vds

        report = vds.rebuild_index(shell.store, index=shell.index, show_progress=shell.shows_progress)
        if report.moved_aside is not None:
            shell.note(f"the damaged file of the old index is now {report.moved_aside}")
        for line in _gap_lines(report):
            shell.note(line)
        _answer(shell, report)
        if not report.ok:
            context.exit(EXIT_GAPS)


def _answer(shell: Shell, report: RebuildReport) -> None:
    rows = [
        ("namespaces", report.namespaces),
        ("versions", report.versions),
        ("entries", report.entries),
        ("datasets", report.datasets),
        ("events", report.events),
        ("blobs", report.blobs),
        ("objects", report.objects),
        ("copied", report.copied),
        ("gaps", report.gap_count),
    ]
    state = "is whole" if report.ok else f"has {count_text(report.gap_count, 'gap')}"
    shell.answer(
        text=[
            *columns([(what, f"{count:,}".replace(",", " ")) for what, count in rows], right=(1,)),
            f"the new index at {report.index} {state}; made in {report.seconds:.1f} s",
        ],
        quiet=report.incarnation,
        document={
            "ok": report.ok,
            "store": report.store,
            "index": report.index,
            "incarnation": report.incarnation,
            "moved_aside": report.moved_aside,
            **dict(rows[:-1]),
            "seconds": round(report.seconds, 3),
            "gap_count": report.gap_count,
            "gaps": [_gap_document(gap) for gap in report.gaps],
        },
    )


def _gap_document(gap: RebuildGap) -> dict[str, object]:
    return {
        "kind": gap.kind,
        "key": gap.key,
        "name": gap.name,
        "versions": [list(pair) for pair in gap.versions],
        "paths": list(gap.paths),
        "detail": gap.detail,
    }


def _gap_lines(report: RebuildReport) -> list[str]:
    lines = [_gap_line(gap) for gap in report.gaps[:PATHS_SHOWN_MAX]]
    left = report.gap_count - len(lines)
    return [*lines, f"and {count_text(left, 'more gap')}; --json lists a thousand"] if left else lines


def _range_text(first: int, last: int | None) -> str:
    if last is None:
        return f"{first} and all after it"
    return str(first) if first == last else f"{first} to {last}"


def _gap_line(gap: RebuildGap) -> str:
    where = f" of {gap.name}" if gap.name else ""
    versions = ", ".join(_range_text(first, last) for first, last in gap.versions)
    paths = f" ({', '.join(gap.paths[:3])}{', …' if len(gap.paths) > 3 else ''})" if gap.paths else ""
    return f"gap: {gap.kind}{where}{f' {versions}' if versions else ''}: {gap.key}: {gap.detail}{paths}"
