"""`vds rollback`, `vds revert`, `vds copy`, `vds rm`: new versions made of what is stored already."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from vds.cli import options
from vds.cli.options import COMMIT_STATE, command
from vds.cli.results import answer_result
from vds.cli.shell import Shell
from vds.cli.text import count_text
from vds.errors import InvalidInputError
from vds.model.ref import NamespaceRef, parse_ref

if TYPE_CHECKING:
    from vds.store import RunUndoReport


def add_to(group: click.Group) -> None:
    """Add these commands."""
    _add_rollback(group)
    _add_revert(group)
    _add_copy(group)
    _add_rm(group)


def _add_rollback(group: click.Group) -> None:
    @command(
        group,
        "rollback",
        (
            "vds rollback team/raw --to 11 --dry-run",
            "vds rollback team/raw --to 11 -m 'broken import'",
            "vds rollback team/raw --to 2026-03-01T12:00Z --path images",
            "vds rollback --run 01jk… --dry-run                what one run wrote, in every namespace",
        ),
        interrupted=COMMIT_STATE,
    )
    @click.argument("namespace", metavar="NS", required=False)
    @click.option("--to", metavar="N|MOMENT", help="The version, or the moment, to go back to.")
    @click.option("--path", default="", metavar="PATH", help="Only this file or directory.")
    @click.option("--run", metavar="RUN", help="Undo what this run and its steps wrote, everywhere, and move its tags back.")
    @options.message
    @options.dry_run
    def rollback(
        shell: Shell, namespace: str | None, to: str | None, path: str, run: str | None, message: str, dry_run: bool
    ) -> None:
        """Go back to an earlier version, in a new one.

        Nothing is erased; it can be undone the same way. Names each dataset tag that still shows what was undone, with the
        command that moves it. With --run: what others wrote since stays, and who has read what is undone is listed.
        """
        if (run is None) == (namespace is None or to is None) or (run is not None and (namespace or to or path)):
            raise click.UsageError("name a namespace and --to, or --run alone")
        with shell.connect() as store:
            if namespace is None or to is None:
                _answer_undo(shell, store.rollback_run(str(run), reason=message, dry_run=dry_run))
                return
            result = store.namespace(namespace).rollback(to, path, message=message, dry_run=dry_run)
            answer_result(shell, result, "would restore" if dry_run else "restored")


def _answer_undo(shell: Shell, report: RunUndoReport) -> None:
    shell.answer(
        text=_undo_lines(report),
        quiet=[f"{one.namespace}@{one.number}" for one in report.namespaces if one.created],
        document={
            "run": report.run,
            "dry_run": report.dry_run,
            "namespaces": [asdict(one) for one in report.namespaces],
            "readers": [{"run": info.id, "name": info.name} for info in report.readers],
            "tags": [asdict(move) for move in report.tags],
            "tags_left_behind": [asdict(left) for left in report.tags_left_behind],
        },
    )


def _undo_lines(report: RunUndoReport) -> Iterator[str]:
    if not report.namespaces:
        yield f"run {report.run} wrote nothing"
    would = "would be " if report.dry_run else ""
    for one in report.namespaces:
        versions = ", ".join(f"@{number}" for number in one.undone)
        counts = f"{count_text(one.restored)} restored, {one.removed} removed"
        made = (
            f" in {one.namespace}@{one.number}"
            if one.created
            else ("" if one.restored or one.removed else ": nothing is left of it")
        )
        yield f"{one.namespace} {versions}: {would}undone{made}; {counts}"
    for move in report.tags:
        yield f"tag {move.tag}: {would}moved from release {move.before} to {move.after or 'none: taken away'}"
    for left in report.tags_left_behind:
        yield f"tag {left.tag} shows version {left.version}, which others made of it; to move it: {left.command}"
    for info in report.readers:
        yield f"read by run {info.id} {info.name}: look at what it made"


def _add_revert(group: click.Group) -> None:
    @command(
        group,
        "revert",
        ("vds revert team/raw@12 --dry-run", "vds revert team/raw@12 -m 'labels were shifted'"),
        interrupted=COMMIT_STATE,
    )
    @click.argument("ref", metavar="NS@N")
    @options.message
    @options.dry_run
    def revert(shell: Shell, ref: str, message: str, dry_run: bool) -> None:
        """Undo one version, in a new one.

        What came after it is kept. A conflict when a later version changed one of its paths again: use
        rollback, or revert that one first.
        """
        parsed = parse_ref(ref)
        if not isinstance(parsed, NamespaceRef) or "@" not in ref:
            raise InvalidInputError(f"{ref!r} does not name a version of a namespace", hint="vds revert NS@N, as team/raw@12")
        with shell.connect() as store:
            number = store.get(ref).number
            result = store.namespace(parsed.name).revert(number, message=message, dry_run=dry_run)
            answer_result(shell, result, "would restore" if dry_run else "restored")


def _add_copy(group: click.Group) -> None:
    @command(
        group,
        "copy",
        (
            "vds copy runs/abc@latest/out team/clean --to 2026/03    promote a run's output: no byte moves",
            "vds copy customers:prod team/clean --mirror             and remove what is not in it",
        ),
        interrupted=COMMIT_STATE,
    )
    @click.argument("source", metavar="REF[/PATH]")
    @click.argument("namespace", metavar="NS")
    @click.option("--to", "target_path", default="", metavar="PATH", help="The directory in NS; its root by default.")
    @click.option("--mirror", is_flag=True, help="Remove what is there and not in the source.")
    @options.message
    @options.labels
    @options.expected_parent
    @options.allow_shrink
    def copy(shell: Shell, source: str, namespace: str, target_path: str, **given: Any) -> None:
        """Copy from any version into a namespace.

        No byte moves: the new version names the same objects.
        """
        with shell.connect() as store:
            result = store.namespace(namespace).copy(source, target_path, **given)
            answer_result(shell, result, "copied")


def _add_rm(group: click.Group) -> None:
    @command(
        group,
        "rm",
        ("vds rm team/raw images/cat.png", "vds rm team/raw tmp/ logs/ -m 'not data'"),
        interrupted=COMMIT_STATE,
    )
    @click.argument("namespace", metavar="NS")
    @click.argument("paths", nargs=-1, required=True, metavar="PATH...")
    @options.message
    @options.labels
    @options.expected_parent
    @options.allow_shrink
    def rm(shell: Shell, namespace: str, paths: tuple[str, ...], **given: Any) -> None:
        """Remove paths, in a new version.

        Earlier versions keep them.
        """
        with shell.connect() as store:
            with store.namespace(namespace).transaction(**given) as transaction:
                for path in paths:
                    transaction.delete(path)
            assert transaction.result is not None  # it was committed when the block ended
            answer_result(shell, transaction.result, "wrote")
