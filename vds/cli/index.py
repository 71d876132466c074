"""`vds index`: upgrade, rebuild, grants."""

from __future__ import annotations

import click

from vds.cli import rebuild
from vds.cli.options import command
from vds.cli.shell import Shell
from vds.model.access import ACCESSES, Access


def add_to(group: click.Group) -> None:
    """Add these commands."""

    @group.group("index", epilog="\b\nExamples:\n  vds index upgrade\n  vds index grants reader training_jobs")
    def index() -> None:
        """Look after a store's database."""

    _add_upgrade(index)
    rebuild.add_to(index)
    _add_grants(index)


def _add_upgrade(group: click.Group) -> None:
    @command(
        group,
        "upgrade",
        ("vds index upgrade", "vds index upgrade --store az://data@account --index postgresql://owner@host/vds"),
        interrupted="the index has its old or its new format, never half of one on PostgreSQL; run the same command again",
    )
    def upgrade(shell: Shell) -> None:
        """Bring the index to the format of this vds.

        Older programs may stop working with it; the store says so to them. It is for the owner of the tables; other roles may
        need new rights afterwards: `vds index grants` prints them.
        """
        import vds

        before, after = vds.upgrade_index(shell.store, index=shell.index)
        if before is not None and before != after:
            shell.note("where others have roles of their own, run for each what vds index grants prints now")
        moved = f"upgraded from {before or 'nothing'} to {after}" if before != after else f"is at {after} already"
        shell.answer(text=f"the index {moved}", quiet=after, document={"before": before, "after": after})


def _add_grants(group: click.Group) -> None:
    @command(
        group,
        "grants",
        (
            "vds index grants reader training_jobs                       what a role needs that reads",
            'vds index grants writer etl -q | psql "postgresql://owner@host/vds"',
            "vds index grants collector nightly_gc --json",
        ),
    )
    @click.argument("access", type=click.Choice(ACCESSES))
    @click.argument("role")
    def grants(shell: Shell, access: Access, role: str) -> None:
        """Print what gives a role its rights.

        A reader changes nothing; a writer makes versions and deletes no bytes; a collector also expires versions and deletes
        what nothing needs. Printed are SQL for the index (with -q nothing else) and lines of `az` for the container. Nothing
        is changed, and the database is not asked: ROLE need not be there yet.
        """
        from vds.store.connect import find_grants

        found = find_grants(access, role, shell.store, index=shell.index)
        sql = ["BEGIN;", *found.sql, "COMMIT;"] if found.sql else []
        for note in found.notes:
            shell.note(f"note: {note}")
        shell.answer(
            text=[*sql, *([""] if sql and found.az else []), *found.az],
            quiet=sql,
            document={
                "access": found.access,
                "role": found.role,
                "index": found.index,
                "sql": found.sql,
                "az": found.az,
                "notes": found.notes,
            },
        )
