"""`vds expire`, `vds gc`: names, and then bytes, of what is not needed any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from vds.cli.options import command
from vds.cli.results import PATHS_SHOWN_MAX
from vds.cli.shell import Shell
from vds.cli.text import columns, count_text, moment_text, size_text
from vds.model.ref import format_moment

if TYPE_CHECKING:
    from vds.ops.collect import CollectReport
    from vds.ops.erase import EraseReport
    from vds.ops.expire import ExpireReport
    from vds.ops.uncollect import UndoReport

GC_STATE = "every blob is whole or gone, and nothing that is needed went; the same command goes on from there"


def add_to(group: click.Group) -> None:
    """Add these commands."""
    _add_expire(group)
    _add_gc(group)


def _add_expire(group: click.Group) -> None:
    @command(
        group,
        "expire",
        (
            "vds expire 'team/raw' --keep-last 10              what would go",
            "vds expire team/raw --keep-last 10 --yes",
            "vds expire team/raw --keep-daily 14 --keep-weekly 8 --keep-within 2d --yes",
            "vds expire team/raw@12 --yes -m 'holds test data'    this very version",
            "vds expire --yes                                  by the [expire] tables of vds.toml",
        ),
        interrupted="of each namespace either all or nothing has expired; vds log shows which",
    )
    @click.argument("names", nargs=-1, metavar="[NS[@N]]...")
    @click.option("--keep-last", type=int, metavar="N", help="Keep the N newest versions of each namespace.")
    @click.option("--keep-daily", type=int, metavar="N", help="Keep the newest version of each of N days that have one (UTC).")
    @click.option("--keep-weekly", type=int, metavar="N", help="Keep the newest version of each of N weeks that have one.")
    @click.option("--keep-within", metavar="SPAN", help="Keep what is younger than this: 12h, 30d, 8w, 2y.")
    @click.option(
        "--keep-tagged/--no-keep-tagged",
        default=True,
        show_default=True,
        help="Keep what a release names; otherwise only what a tag shows.",
    )
    @click.option("-m", "--reason", default="", metavar="TEXT", help="Why; recorded in the store's log.")
    @click.option("--yes", is_flag=True, help="Do it; without this, only say what would expire.")
    def expire(
        shell: Shell,
        names: tuple[str, ...],
        keep_last: int | None,
        keep_daily: int | None,
        keep_weekly: int | None,
        keep_within: str | None,
        keep_tagged: bool,
        reason: str,
        yes: bool,
    ) -> None:
        """Take the names of old versions away.

        Says what would expire, and how many bytes only those versions keep; with --yes it is done. The newest version of a
        namespace never expires, one that a release or a tag names only when it is named here itself. The bytes stay until
        `vds gc` has taken them, and `vds gc --undo` brings the names back until then.
        """
        with shell.connect(read_only=not yes) as store:
            report = store.expire(
                names or None,
                keep_last=keep_last,
                keep_daily=keep_daily,
                keep_weekly=keep_weekly,
                keep_within=keep_within,
                keep_tagged=keep_tagged,
                reason=reason,
                dry_run=not yes,
            )
        _answer_expire(shell, report)


def _answer_expire(shell: Shell, report: ExpireReport) -> None:
    uris = [f"{one.namespace}@{one.number}" for one in report.versions]
    verb = "would expire" if report.dry_run else "expired"
    held = f", {report.held} of them only by a release or a tag" if report.held else ""
    lines = [
        f"{verb} {count_text(len(uris), 'version')}, {report.kept} kept{held};"
        f" only they keep {count_text(report.objects, 'object')} ({size_text(report.size_bytes)})"
    ]
    rows = [(uri, moment_text(one.created_at)) for uri, one in zip(uris, report.versions, strict=True)]
    shell.answer(
        text=[*columns(rows), *lines] if rows else lines,
        quiet=uris,
        document={
            "versions": [
                {"namespace": one.namespace, "number": one.number, "created_at": format_moment(one.created_at)}
                for one in report.versions
            ],
            "kept": report.kept,
            "held": report.held,
            "objects": report.objects,
            "size_bytes": report.size_bytes,
            "dry_run": report.dry_run,
        },
    )
    if report.versions:
        shell.note("nothing was changed; do it with --yes" if report.dry_run else "their bytes are there until: vds gc --yes")


def _add_gc(group: click.Group) -> None:
    @command(
        group,
        "gc",
        (
            "vds gc                                what would go",
            "vds gc --yes                          condemn what nobody needs; delete what was condemned a day ago",
            "vds gc --yes --grace-hours 0          delete at once",
            "vds gc --undo                         bring back what is only condemned",
            "vds gc --erase b3:9f86d081… --reason 'request 4711' --yes",
        ),
        interrupted=GC_STATE,
    )
    @click.option("--yes", is_flag=True, help="Do it; without this, only say what would be done.")
    @click.option("--undo", is_flag=True, help="Bring back what is only condemned, and the versions it belongs to.")
    @click.option("--erase", metavar="DIGEST", help="Destroy one content for ever, in all versions that hold it.")
    @click.option("--reason", default="", metavar="TEXT", help="Why it is erased; shown to whoever reads it.")
    @click.option("--grace-hours", type=float, default=24.0, show_default=True, metavar="N", help="How long undo is possible.")
    @click.option("--max-share", type=float, default=0.5, show_default=True, metavar="SHARE", help="Refuse to take more.")
    @click.option("--repack/--no-repack", default=True, show_default=True, help="Make packs that are mostly dead anew.")
    def gc(
        shell: Shell, yes: bool, undo: bool, erase: str | None, reason: str, grace_hours: float, max_share: float, repack: bool
    ) -> None:
        """Collect the bytes that no version needs.

        First they are condemned, later, when the grace is over, deleted; what will be deleted is in the store's log before. Any
        number of writers and collectors may be at work. It needs the right to delete blobs, which nobody else needs.
        """
        if undo and erase:
            raise click.UsageError("--undo and --erase are two things")
        if reason and not erase:
            raise click.UsageError("--reason goes with --erase")
        with shell.connect(read_only=not yes and not undo) as store:
            if undo:
                _answer_undo(shell, store.undo_gc())
            elif erase:
                _answer_erase(shell, store.erase(erase, reason=reason, dry_run=not yes, show_progress=shell.shows_progress))
            else:
                report = store.gc(
                    not yes,
                    grace_hours=grace_hours,
                    max_share=max_share,
                    repack=repack,
                    show_progress=shell.shows_progress,
                )
                _answer_gc(shell, report)


def _answer_gc(shell: Shell, report: CollectReport) -> None:
    would = "would be " if report.dry_run else ""
    facts = [
        (would + "condemned", report.condemned, report.condemned_bytes),
        (would + "repacked", report.repacked, report.repacked_bytes),
        (would + "deleted", report.deleted, report.deleted_bytes),
        (would + "deleted (unfinished)", report.abandoned, 0),
        ("waiting for their grace", report.waiting, report.waiting_bytes),
    ]
    rows = [(what, str(count), size_text(size_bytes)) for what, count, size_bytes in facts]
    for key, reason in list(report.left.items())[:PATHS_SHOWN_MAX]:
        shell.note(f"left: {key}: {reason}")
    shell.answer(
        text=columns([("BLOBS", "COUNT", "BYTES"), *rows], right=(1, 2)),
        quiet=[*report.condemned_keys, *report.deleted_keys],
        document={
            "condemned": report.condemned,
            "condemned_bytes": report.condemned_bytes,
            "repacked": report.repacked,
            "repacked_bytes": report.repacked_bytes,
            "deleted": report.deleted,
            "deleted_bytes": report.deleted_bytes,
            "abandoned": report.abandoned,
            "waiting": report.waiting,
            "waiting_bytes": report.waiting_bytes,
            "aborted_uploads": report.aborted_uploads,
            "entries_set_aside": report.entries_set_aside,
            "store_bytes": report.store_bytes,
            "left": report.left,
            "condemned_keys": report.condemned_keys,
            "deleted_keys": report.deleted_keys,
            "refusal": report.refusal,
            "dry_run": report.dry_run,
        },
    )
    if report.refusal:
        shell.note(f"it would be refused: {report.refusal}; allow it with --max-share")
    elif report.dry_run and (report.condemned or report.deleted or report.repacked or report.abandoned):
        shell.note("nothing was changed; do it with --yes")


def _answer_undo(shell: Shell, report: UndoReport) -> None:
    restored = [f"{namespace}@{number}" for namespace, numbers in sorted(report.restored.items()) for number in numbers]
    for namespace, reason in sorted(report.lost.items()):
        shell.note(f"the expired versions of {namespace} stay expired: {reason}")
    shell.answer(
        text=[
            f"{count_text(report.revived, 'blob')} ({size_text(report.revived_bytes)})"
            f" and {count_text(len(restored), 'version')} are back",
            *restored,
        ],
        quiet=restored,
        document={
            "revived": report.revived,
            "revived_bytes": report.revived_bytes,
            "restored": report.restored,
            "lost": report.lost,
        },
    )


def _answer_erase(shell: Shell, report: EraseReport) -> None:
    verb = "would be erased" if report.dry_run else "is erased"
    lines = [f"{place.namespace}@{place.first}..{place.last}/{place.path}" for place in report.places]
    shell.answer(
        text=[f"{report.digest} ({size_text(report.size_bytes)}) {verb}; {count_text(len(lines), 'place')} held it:", *lines],
        quiet=lines,
        document={
            "digest": str(report.digest),
            "size_bytes": report.size_bytes,
            "places": [
                {"namespace": place.namespace, "path": place.path, "first": place.first, "last": place.last}
                for place in report.places
            ],
            "deleted_keys": report.deleted_keys,
            "outside": report.outside,
            "dry_run": report.dry_run,
        },
    )
    for place in report.outside:
        shell.note(f"vds does not delete what it adopted; delete it yourself: plain blob {place}")
    if report.dry_run:
        shell.note("nothing was changed; do it with --yes. It cannot be undone")
    else:
        shell.note("caches of other machines, exports and copies may still have it; there: vds cache prune")
