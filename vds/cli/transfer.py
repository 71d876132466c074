"""`vds download`, `vds checkout`, `vds status`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from vds.cli import options
from vds.cli.errors import EXIT_NO
from vds.cli.options import PLACE_STATE, command
from vds.cli.results import PATHS_SHOWN_MAX
from vds.cli.shell import Shell
from vds.cli.text import count_text, size_text

if TYPE_CHECKING:
    from vds.ops.checkout import CheckoutResult
    from vds.ops.download import DownloadResult
    from vds.store import Version


def add_to(group: click.Group) -> None:
    """Add these commands."""
    _add_download(group)
    _add_checkout(group)
    _add_status(group)


def _common_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add what both commands take; it comes as `given`."""
    function = click.option("--lock-file", metavar="PATH", help="The vds.lock for --locked, which it implies.")(function)
    function = click.option("--locked", is_flag=True, help="Take the version that vds.lock has; see `vds lock`.")(function)
    function = click.option(
        "--link", is_flag=True, help="Link files of 1 MiB and more to the cache, read-only, where nothing else saves a copy."
    )(function)
    return options.allow(options.ignore(options.dry_run(function)))


def _how(shell: Shell, given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `Version` that stand for what both commands take."""
    return {
        "allow_patterns": options.patterns(given["allow_patterns"]),
        "ignore_patterns": options.patterns(given["ignore_patterns"]),
        "link": given["link"],
        "show_progress": shell.shows_progress,
        "dry_run": given["dry_run"],
    }


@contextmanager
def _unindexed(shell: Shell, ref: str) -> Iterator[Version]:
    """Give the version that a ref means, from the container alone."""
    from vds.store.noindex import open_version

    version = open_version(shell.store, ref, show_progress=shell.shows_progress)
    with closing(version._handle):
        yield version


@contextmanager
def _version(shell: Shell, ref: str, locked: bool, lock_file: str | None) -> Iterator[Version]:
    """Give the version that a ref means, or that it is locked to: then what it means by now is not even asked."""
    import vds

    if not locked and lock_file is None:
        with shell.connect(read_only=True) as store:
            yield store.get(ref)
        return
    lock = vds.load_lock(lock_file)
    opened = shell.connect_if_named(read_only=True)
    with nullcontext() if opened is None else opened:
        yield lock.get(ref, opened)


def _add_download(group: click.Group) -> None:
    @command(
        group,
        "download",
        (
            "vds download customers:prod data/",
            "vds download team/raw@12/images data/images --allow '*.png'",
            "vds download customers:prod data/ --dry-run",
            "vds download customers:prod data/ --locked",
            "vds download --no-index team/raw@12 data/",
        ),
        interrupted=PLACE_STATE,
    )
    @click.argument("ref", metavar="REF[/PATH]")
    @click.argument("directory", metavar="DIR")
    @click.option("--no-index", is_flag=True, help="Read from the container alone, where the index is lost or out of reach.")
    @_common_options
    def download(shell: Shell, ref: str, directory: str, no_index: bool, **given: Any) -> None:
        """Copy a version, or a part of it, into DIR.

        Other files in DIR are left alone.
        """
        locked, lock_file = given["locked"], given["lock_file"]
        if no_index and (locked or lock_file is not None or shell.index is not None):
            raise click.UsageError("--no-index goes with neither --index nor --locked: name the version, as team/raw@12")
        with _unindexed(shell, ref) if no_index else _version(shell, ref, locked, lock_file) as version:
            result = version.download(directory, **_how(shell, given))
            _answer(shell, version.uri, directory, result, "would download" if result.dry_run else "downloaded")


def _add_checkout(group: click.Group) -> None:
    @command(
        group,
        "checkout",
        (
            "vds checkout customers:prod data/",
            "vds checkout team/raw@11 data/ --dry-run",
            "vds checkout team/raw@11 data/ --force",
            "vds checkout customers:prod data/ --allow 'images/*'",
        ),
        interrupted=PLACE_STATE,
    )
    @click.argument("ref", metavar="REF[/PATH]")
    @click.argument("directory", metavar="DIR")
    @click.option("--force", is_flag=True, help="Replace files that were edited here, too.")
    @_common_options
    def checkout(shell: Shell, ref: str, directory: str, force: bool, **given: Any) -> None:
        """Make DIR equal to a version.

        Files that vds never placed there stay, and are listed. With --allow or --ignore, DIR becomes equal to that part of it.
        """
        with _version(shell, ref, given["locked"], given["lock_file"]) as version:
            result = version.checkout(directory, force=force, **_how(shell, given))
            _answer(shell, version.uri, directory, result, "would check out" if result.dry_run else "checked out")


def _answer(shell: Shell, uri: str, directory: str, result: DownloadResult | CheckoutResult, verb: str) -> None:
    # Only a checkout takes files away, and looks at those that are not vds's.
    removed, foreign = list(getattr(result, "removed", ())), list(getattr(result, "foreign", ()))
    for path in foreign[:PATHS_SHOWN_MAX]:
        shell.note(f"not placed by vds, left alone: {path}")
    if len(foreign) > PATHS_SHOWN_MAX:
        shell.note(f"… and {len(foreign) - PATHS_SHOWN_MAX} more")
    summary = f"{verb} {count_text(result.placed)} ({size_text(result.bytes)}), {result.skipped} already there"
    document = {
        "uri": uri,
        "directory": directory,
        "files": result.files,
        "placed": result.placed,
        "size_bytes": result.bytes,
        "skipped": result.skipped,
        "removed_paths": removed,
        "foreign_paths": foreign,
        "seconds": round(result.seconds, 3),
        "dry_run": result.dry_run,
    }
    shell.answer(
        text=[summary + (f", {len(removed)} removed" if removed else ""), *(f"- {path}" for path in removed), uri],
        quiet=uri,
        document=document,
    )


def _add_status(group: click.Group) -> None:
    @command(group, "status", ("vds status data/", "vds status data/ -q && echo clean"))
    @click.argument("directory", metavar="DIR")
    @click.pass_context
    def status(context: click.Context, shell: Shell, directory: str) -> None:
        """Say how a directory differs from its checkout.

        Exit 1 when it does.
        """
        import vds

        found = vds.status(directory)
        kinds = (("added", found.added), ("modified", found.modified), ("removed", found.removed))
        lines = [f"{kind:8}  {path}" for kind, paths in kinds for path in paths]
        shell.answer(
            text=[f"{found.uri}: {'differs' if lines else 'no changes'}", *lines],
            quiet=[path for _, paths in kinds for path in paths],
            document={"uri": found.uri, "clean": not lines, **{kind: list(paths) for kind, paths in kinds}},
        )
        if lines:
            context.exit(EXIT_NO)
