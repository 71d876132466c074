"""`vds init`, `vds doctor`."""

from __future__ import annotations

import click

from vds.cli.errors import EXIT_NO
from vds.cli.options import command
from vds.cli.shell import Shell
from vds.cli.text import columns


def add_to(group: click.Group) -> None:
    """Add these commands."""
    _add_init(group)
    _add_doctor(group)


def _add_init(group: click.Group) -> None:
    @command(
        group,
        "init",
        (
            "vds init ./store                                     a directory and an index on this machine",
            "vds init az://data@account --index postgresql://user@host/vds",
            "vds init az://data@account --index postgresql://user@host/vds --user     for all my work",
        ),
        interrupted="the store may be half made; the same command finishes it",
    )
    @click.argument("url", required=False)
    @click.option("--user", is_flag=True, help="Write the user's settings instead of ./vds.toml.")
    def init(shell: Shell, url: str | None, user: bool) -> None:
        """Make a store, and name it in ./vds.toml.

        A store that is there is opened and named. Passwords and signatures are never written: they come from the environment.
        """
        import vds
        from vds.config import find_store_settings, plan_store_settings, write_store_settings

        settings = find_store_settings(url or shell.store, shell.index)
        plan_store_settings(settings.url, settings.index, user)  # a conflict must show before a store is made
        with vds.connect(settings.url, index=settings.index, create=True) as store:
            path = write_store_settings(settings.url, settings.index, user)
            shell.note(f"store {store.id} at {store.url}, named in {path}")
            document = {"url": store.url, "id": store.id, "index": store.index, "settings": str(path)}
            shell.answer(text=store.url, document=document)


def _add_doctor(group: click.Group) -> None:
    @command(
        group,
        "doctor",
        ("vds doctor", "vds doctor --write-test        also write, read and delete one blob"),
        interrupted="a test blob may be left in the container; gc takes it",
    )
    @click.option("--write-test", is_flag=True, help="Write, read and delete a blob, too.")
    @click.pass_context
    def doctor(context: click.Context, shell: Shell, write_test: bool) -> None:
        """Check that the store can be used from here.

        Says what to do where it cannot, and exits 1.
        """
        from vds.config import find_store_settings

        settings = find_store_settings(shell.store, shell.index)
        shell.note(f"the store comes from {settings.source}")
        with shell.connect(read_only=not write_test) as store:
            report = store.doctor(write_test=write_test)
        rows = [("ok" if check.ok else "FAILED", check.name, check.detail) for check in report.checks]
        hints = [f"hint: {check.hint}" for check in report.checks if not check.ok and check.hint]
        checks = [{"name": c.name, "ok": c.ok, "detail": c.detail, "hint": c.hint} for c in report.checks]
        shell.answer(
            text=[*columns(rows), *hints],
            quiet=[name for state, name, _ in rows if state != "ok"],
            document={"ok": report.ok, "source": settings.source, "checks": checks},
        )
        if not report.ok:
            context.exit(EXIT_NO)
