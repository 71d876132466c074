"""`vds cache`: what of the stores' bytes is kept on this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from vds.cli.errors import EXIT_NO
from vds.cli.options import command
from vds.cli.shell import Shell
from vds.cli.text import columns, count_text, moment_text, size_text
from vds.errors import NotFoundError
from vds.model.ref import format_moment
from vds.model.size import parse_size

if TYPE_CHECKING:
    from vds.files.cache import Cache
    from vds.files.cachelist import CacheListing, KindListing


def add_to(group: click.Group) -> None:
    """Add these commands."""

    @group.group(
        "cache",
        epilog="\b\nExamples:\n  vds cache list\n  vds cache prune --to 10GB\n"
        "  VDS_CACHE_MAX=200GB vds download customers:prod data/",
    )
    def cache() -> None:
        """Look after the files that this machine keeps.

        All programs of a user share one cache: VDS_CACHE, or a directory of the system. It holds at most VDS_CACHE_MAX (by
        default 50 GB or a fifth of the disk, whichever is less; 0 turns it off), and drops what was not used for longest.
        """

    _add_list(cache)
    _add_prune(cache)
    _add_verify(cache)


def open_cache() -> Cache:
    """Return the cache, also one that is turned off: what is in it can be looked at and removed."""
    from vds.config import cache_bytes_max, cache_directory
    from vds.files.cache import Cache

    root = cache_directory()
    if root is None:
        raise NotFoundError("this user has no cache: there is no home directory", hint="set VDS_CACHE to a directory")
    return Cache(root, bytes_max=cache_bytes_max(root))


def parse_target(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Return a size as bytes."""
    return None if value is None else parse_size(value, "--to")


def _add_list(cache: click.Group) -> None:
    @command(cache, "list", ("vds cache list", "vds cache list --json", "vds cache list -q        its directory only"))
    def list_cache(shell: Shell) -> None:
        """Show what the cache holds and when it was used."""
        listing = open_cache().list()
        state = f"{size_text(listing.size_bytes)} of at most {size_text(listing.bytes_max)}"
        if listing.held_files:
            state += f"; running programs hold {count_text(listing.held_files)} ({size_text(listing.held_bytes)})"
        shell.answer(text=[f"{listing.root}: {state}", *_table(listing)], quiet=listing.root, document=_shape(listing))


def _table(listing: CacheListing) -> list[str]:
    rows = [("KIND", "FILES", "SIZE", "OLDEST USE", "NEWEST USE")]
    for kind in listing.kinds:
        uses = [moment_text(used) if used else "-" for used in (kind.oldest_use, kind.newest_use)]
        rows.append((kind.kind, str(kind.files), size_text(kind.size_bytes), uses[0], uses[1]))
    return columns(rows, right=(1, 2))


def _shape(listing: CacheListing) -> dict[str, object]:
    return {
        "root": listing.root,
        "size_bytes": listing.size_bytes,
        "bytes_max": listing.bytes_max,
        "held_files": listing.held_files,
        "held_bytes": listing.held_bytes,
        "kinds": {kind.kind: _kind_shape(kind) for kind in listing.kinds},
    }


def _kind_shape(kind: KindListing) -> dict[str, object]:
    oldest, newest = (format_moment(used) if used else None for used in (kind.oldest_use, kind.newest_use))
    return {"files": kind.files, "size_bytes": kind.size_bytes, "oldest_use": oldest, "newest_use": newest}


def _add_prune(cache: click.Group) -> None:
    @command(
        cache,
        "prune",
        ("vds cache prune", "vds cache prune --to 10GB", "vds cache prune --to 0    everything that no program holds"),
        interrupted="some files may be gone from the cache; they are fetched again when they are needed",
    )
    @click.option("--to", "to_bytes", callback=parse_target, metavar="SIZE", help="What may stay; the cap by default.")
    def prune(shell: Shell, to_bytes: int | None) -> None:
        """Remove what was not used for longest.

        What running programs hold stays. What killed programs left half written goes too.
        """
        result = open_cache().prune(to_bytes)
        lines = [f"{count_text(result.files)} removed ({size_text(result.size_bytes)}), {size_text(result.kept_bytes)} left"]
        if result.leftover_files:
            lines.append(f"{count_text(result.leftover_files)} of killed programs removed ({size_text(result.leftover_bytes)})")
        if result.held_bytes:
            lines.append(f"running programs hold {size_text(result.held_bytes)}")
        shell.answer(text=lines, quiet=str(result.size_bytes), document=asdict(result))


def _add_verify(cache: click.Group) -> None:
    @command(
        cache,
        "verify",
        ("vds cache verify", "vds cache verify -q || echo damaged"),
        interrupted="what was found damaged so far is removed",
    )
    @click.pass_context
    def verify(context: click.Context, shell: Shell) -> None:
        """Read the cache and remove what is damaged.

        Objects are compared with their digests, manifests with their sums; of ranges only the length is looked at, their readers
        compare digests. Exit 1 when something was damaged; it is fetched again when it is needed.
        """
        result = open_cache().verify()
        state = "whole" if result.ok else f"{count_text(len(result.failures))} damaged, and removed"
        lines = [f"{path}: {fault}" for path, fault in result.failures.items()]
        shell.answer(
            text=[f"{count_text(result.files)} read ({size_text(result.size_bytes)}), {state}", *lines],
            quiet=list(result.failures),
            document={"ok": result.ok, "files": result.files, "size_bytes": result.size_bytes, "failures": result.failures},
        )
        if not result.ok:
            context.exit(EXIT_NO)
