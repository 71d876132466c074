"""`vds lock`, `vds now`: what keeps a project, or a run, on the versions it began with."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from vds.cli.errors import EXIT_NO
from vds.cli.options import command
from vds.cli.shell import Shell
from vds.cli.text import columns, count_text

if TYPE_CHECKING:
    from vds.model.lockfile import LockedRow
    from vds.store.lock import Lock, LockChange


def add_to(group: click.Group) -> None:
    """Add these commands."""
    _add_lock(group)
    _add_now(group)


def _add_lock(group: click.Group) -> None:
    @command(
        group,
        "lock",
        (
            "vds lock customers:prod team/raw              locks them in vds.lock, and moves them there when asked again",
            "vds lock --all                                moves every ref of the file to what it means now",
            "vds lock --check                              exit 1 when a tag has moved or a version is not there",
            "vds download customers:prod data/ --locked    reads what is locked",
        ),
        interrupted="vds.lock is as it was, or has all of the change",
    )
    @click.argument("refs", nargs=-1, metavar="REF...")
    @click.option("--all", "all_refs", is_flag=True, help="Every ref that is locked.")
    @click.option("--check", is_flag=True, help="Write nothing; say what differs from the store.")
    @click.option("--file", "path", metavar="PATH", help="The lock file; else the nearest vds.lock, or beside vds.toml.")
    @click.pass_context
    def lock(context: click.Context, shell: Shell, refs: tuple[str, ...], all_refs: bool, check: bool, path: str | None) -> None:
        """Keep refs at the versions they mean now.

        They are kept in vds.lock, for `--locked`; what else is locked there stays. Keep the file with your code.
        """
        if all_refs and refs:
            raise click.UsageError("name refs, or give --all")
        if check:
            if not _check(shell, refs, path):
                context.exit(EXIT_NO)
        elif refs or all_refs:
            _lock(shell, refs, path)
        else:
            raise click.UsageError("name refs to lock, or give --all to move every locked one, or --check")


def _lock(shell: Shell, refs: tuple[str, ...], path: str | None) -> None:
    from vds.store.lock import lock_refs

    # Each locked ref knows its store, so that moving all of them needs no other.
    opened = shell.connect(read_only=True) if refs else shell.connect_if_named(read_only=True)
    with nullcontext() if opened is None else opened:
        place, changes = lock_refs(refs or None, opened, path)
    moved = [change for change in changes if change.before != change.after]
    rows = [(change.after.ref, _change_text(change)) for change in changes]
    shell.note(f"{place}: {count_text(len(moved), 'change')}")
    shell.answer(
        text=columns(rows),
        quiet=[change.after.ref for change in moved],
        document={
            "file": str(place),
            "changes": [
                {"ref": change.after.ref, "before": _shape(change.before), "after": _shape(change.after)} for change in changes
            ],
        },
    )


def _check(shell: Shell, refs: tuple[str, ...], path: str | None) -> bool:
    lock = _load(path)
    opened = shell.connect_if_named(read_only=True)
    with nullcontext() if opened is None else opened:
        differences = lock.check(opened, refs or None)
    shell.note(f"{lock.path}: {count_text(len(refs or lock), 'ref')}, {count_text(len(differences), 'difference')}")
    shell.answer(
        text=columns([(found.ref, f"{found.locked} → {found.found}") for found in differences]),
        quiet=[found.ref for found in differences],
        document={
            "file": str(lock.path),
            "ok": not differences,
            "differences": [
                {"ref": found.ref, "kind": found.kind, "locked": found.locked, "found": found.found} for found in differences
            ],
        },
    )
    return not differences


def _load(path: str | None) -> Lock:
    import vds

    return vds.load_lock(path)


def _change_text(change: LockChange) -> str:
    before, after = change.before, change.after
    if before is None:
        return f"{after.label} (new)"
    if before == after:
        return f"{after.label} (unchanged)"
    if (before.store, before.url) != (after.store, after.url):
        return f"{before.label} in {before.url} → {after.label} in {after.url}"
    if before.label == after.label:
        return f"{before.label} of {before.digest[:11]} → {after.label} of {after.digest[:11]}"
    return f"{before.label} → {after.label}"


def _shape(row: LockedRow | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "store": row.store,
        "url": row.url,
        "name": row.name,
        "release": row.release,
        "namespace": row.namespace,
        "version": row.version,
        "path": row.path,
        "digest": row.digest,
        "content_digest": row.content_digest,
        "files": row.files,
        "size_bytes": row.bytes,
    }


def _add_now(group: click.Group) -> None:
    @command(
        group,
        "now",
        (
            'export VDS_AS_OF="$(vds now)"                 pins every command and process that follows',
            'VDS_AS_OF="$(vds now)" make all',
        ),
    )
    def now(shell: Shell) -> None:
        """Print the present moment of the store, for VDS_AS_OF.

        With it set, every ref that can move means what it meant at that moment: all steps of a run, on all machines,
        read the same versions. Numbers and digests mean what they always do, and writes do not look at it.
        """
        from vds.model.ref import format_moment

        with shell.connect() as store:
            moment = format_moment(store.now())
            shell.answer(text=moment, document={"as_of": moment, "store": store.id, "url": store.url})
