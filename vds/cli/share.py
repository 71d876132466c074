"""`vds share`, `vds export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vds.cli import options
from vds.cli.options import command
from vds.cli.results import PATHS_SHOWN_MAX
from vds.cli.shell import Shell
from vds.cli.text import count_text, size_text
from vds.model.ref import format_moment

if TYPE_CHECKING:
    from vds.ops.export import ExportResult
    from vds.ops.share import Shared

EXPORT_STATE = "every file in the target is whole or absent, and the marker is not there; the same command goes on from there"


def add_to(group: click.Group) -> None:
    """Add these commands."""
    _add_share(group)
    _add_export(group)


def _add_share(group: click.Group) -> None:
    @command(
        group,
        "share",
        (
            "vds share customers:prod/model.bin --hours 4",
            "vds share customers:prod/models -q > urls.txt",
            'curl -OJ "$(vds share customers:prod/model.bin -q)"',
        ),
    )
    @click.argument("ref", metavar="REF[/PATH]")
    @click.option("--hours", type=float, default=24, show_default=True, metavar="N", help="How long the urls are good, 1 to 168.")
    def share(shell: Shell, ref: str, hours: float) -> None:
        """Print urls that read files without an account.

        One a line, in the order of the paths. Whoever has a url reads that file, and nothing else, until it ends. Files under
        1 MiB stand in one blob with others and cannot be shared: export them.
        """
        with shell.connect(read_only=True) as store:
            version = store.get(ref)
            shared = version.share(hours=hours)
        if shared:
            shell.note(f"{count_text(len(shared))}, for whoever has the url, until {format_moment(shared[0].expires_at)}")
        else:
            shell.note("no files")
        shell.answer(
            text=[one.url for one in shared], document={"uri": version.uri, "files": [_shared_shape(one) for one in shared]}
        )


def _shared_shape(shared: Shared) -> dict[str, Any]:
    return {
        "path": shared.path,
        "url": shared.url,
        "expires_at": format_moment(shared.expires_at),
        "size_bytes": shared.size_bytes,
        "digest": str(shared.digest),
    }


def _add_export(group: click.Group) -> None:
    @command(
        group,
        "export",
        (
            "vds export customers:prod az://plain@myaccount/customers",
            "vds export team/raw@12/images /mnt/share/images --allow '*.png'",
            "vds export customers:prod az://plain@myaccount/customers --dry-run",
        ),
        interrupted=EXPORT_STATE,
    )
    @click.argument("ref", metavar="REF[/PATH]")
    @click.argument("url", metavar="URL|DIR")
    @options.allow
    @options.ignore
    @click.option("--overwrite", is_flag=True, help="Replace files of other content.")
    @options.dry_run
    def export(
        shell: Shell, ref: str, url: str, allow_patterns: Any, ignore_patterns: Any, overwrite: bool, dry_run: bool
    ) -> None:
        """Write a version back as plain blobs or files.

        For tools that know nothing of vds. When everything is there, _VDS_EXPORT.json is written beside it and says what it is.
        Nothing is removed; files that are there with the same content are not sent again.
        """
        with shell.connect(read_only=True) as store:
            version = store.get(ref)
            result = version.export(
                url,
                allow_patterns=options.patterns(allow_patterns),
                ignore_patterns=options.patterns(ignore_patterns),
                overwrite=overwrite,
                show_progress=shell.shows_progress,
                dry_run=dry_run,
            )
            _answer(shell, version.uri, result)


def _answer(shell: Shell, uri: str, result: ExportResult) -> None:
    foreign = result.plan.foreign[:PATHS_SHOWN_MAX]
    for path in foreign:
        shell.note(f"not of this version, left alone: {path}")
    if result.foreign_count > len(foreign):
        shell.note(f"… and {result.foreign_count - len(foreign)} more")
    verb = "would export" if result.dry_run else "exported"
    facts = [f"{verb} {count_text(result.placed)} ({size_text(result.bytes)})"]
    if result.copied:
        facts.append(f"{result.copied} copied by the service")
    shell.answer(
        text=[", ".join([*facts, f"{result.skipped} already there"]), result.url],
        quiet=result.url,
        document={
            "uri": uri,
            "url": result.url,
            "files": result.files,
            "placed": result.placed,
            "size_bytes": result.bytes,
            "copied": result.copied,
            "replaced": len(result.plan.to_replace),
            "skipped": result.skipped,
            "foreign_count": result.foreign_count,
            "foreign_paths": list(result.plan.foreign),
            "seconds": round(result.seconds, 3),
            "dry_run": result.dry_run,
        },
    )
