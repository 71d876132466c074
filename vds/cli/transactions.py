"""`vds tx`: one version written by many processes or machines."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from vds.cli import options
from vds.cli.options import COMMIT_STATE, command
from vds.cli.results import answer_result
from vds.cli.shell import Shell
from vds.cli.text import columns, moment_text
from vds.cli.upload import check_sources
from vds.model.ref import format_moment

if TYPE_CHECKING:
    from vds.store import Transaction


def add_to(group: click.Group) -> None:
    """Add these commands."""

    @group.group(
        "tx",
        epilog="\b\nExamples:\n  TOKEN=$(vds tx begin team/raw -q)\n  vds tx add $TOKEN out/ --part shard-03\n"
        "  vds tx commit $TOKEN --expected-parts 16",
    )
    def tx() -> None:
        """Write one version from many workers."""

    _add_begin(tx)
    _add_add(tx)
    _add_commit(tx)
    _add_abort(tx)
    _add_list(tx)


def _add_begin(tx: click.Group) -> None:
    @command(tx, "begin", ("TOKEN=$(vds tx begin team/raw -m 'nightly')", "vds tx begin team/raw --ttl-hours 72"))
    @click.argument("namespace", metavar="NS")
    @options.message
    @options.labels
    @options.expected_parent
    @options.allow_shrink
    @click.option("--ttl-hours", type=click.FloatRange(min=0, min_open=True), default=24, show_default=True, help="Its life.")
    def begin(shell: Shell, namespace: str, **given: Any) -> None:
        """Begin a transaction and print its token.

        The token names store and transaction and holds no secret.
        """
        with shell.connect() as store:
            transaction = store.namespace(namespace).transaction(**given)
            shell.note(
                f"open for {given['ttl_hours']:g} hours; vds tx add TOKEN SRC --part NAME in each worker, then vds tx commit"
            )
            shell.answer(text=transaction.token, document={"token": transaction.token, "namespace": namespace})


def _add_add(tx: click.Group) -> None:
    @command(
        tx,
        "add",
        ("vds tx add $TOKEN out/ --part shard-03", "vds tx add $TOKEN metrics.json --part driver --to reports"),
        interrupted="this part holds what it held before; the same command replaces it whole",
    )
    @click.argument("token")
    @click.argument("source", metavar="SRC")
    @click.option("--part", "part_name", required=True, metavar="NAME", help="Who adds; the same name again replaces the part.")
    @click.option("--to", "target_path", metavar="PATH", help="The directory in the namespace; its root by default.")
    @options.allow
    @options.ignore
    def add(shell: Shell, token: str, source: str, part_name: str, target_path: str | None, **given: Any) -> None:
        """Add a directory or a file as one part.

        All of it or nothing.
        """
        is_directory = os.path.isdir(source)
        patterns = check_sources([source] if is_directory else [], [] if is_directory else [source], given)
        with join(shell, token).part(part_name) as part:
            if is_directory:
                part.upload(source, target_path, show_progress=shell.shows_progress, **patterns)
            else:
                part.upload_files([source], target_path=target_path, show_progress=shell.shows_progress)
        shell.answer(text=f"part {part_name!r} added", quiet=part_name, document={"token": token, "part": part_name})


def _add_commit(tx: click.Group) -> None:
    @command(tx, "commit", ("vds tx commit $TOKEN --expected-parts 16",), interrupted=COMMIT_STATE)
    @click.argument("token")
    @click.option("--expected-parts", type=int, metavar="N", help="Fail unless there are N parts.")
    def commit(shell: Shell, token: str, expected_parts: int | None) -> None:
        """Make one version of all parts.

        Two parts with one path and different bytes are a conflict.
        """
        answer_result(shell, join(shell, token).commit(expected_parts=expected_parts), "committed")


def _add_abort(tx: click.Group) -> None:
    @command(tx, "abort", ("vds tx abort $TOKEN",), interrupted="the transaction may still be open: `vds tx list` shows it")
    @click.argument("token")
    def abort(shell: Shell, token: str) -> None:
        """Drop a transaction with all its parts."""
        join(shell, token).abort()
        shell.answer(text="aborted", quiet=(), document={"token": token, "aborted": True})


def join(shell: Shell, token: str) -> Transaction:
    """Join a transaction, in the store that its token names."""
    import vds

    if shell.store:
        raise click.UsageError("the token names the store: drop --store")
    if shell.index:
        # A joined store finds the password of its index where this process has it: in the environment.
        os.environ["VDS_INDEX"] = shell.index
    return vds.join(token)


def _add_list(tx: click.Group) -> None:
    @command(tx, "list", ("vds tx list", "vds tx list -q        tokens only"))
    def list_open(shell: Shell) -> None:
        """List the open transactions of the store."""
        with shell.connect(read_only=True) as store:
            found = list(store.transactions())
        rows = [("NAMESPACE", "PARTS", "BEGUN", "DROPPED AFTER", "AUTHOR", "TOKEN")] if found else []
        for t in found:
            times = moment_text(t.created_at), moment_text(t.expires_at)
            rows.append((t.namespace, str(t.parts), *times, t.author, t.token))
        if not found:
            shell.note("no open transaction")
        shell.answer(
            text=columns(rows),
            quiet=[t.token for t in found],
            document={
                "transactions": [
                    {
                        "token": t.token,
                        "namespace": t.namespace,
                        "created_at": format_moment(t.created_at),
                        "expires_at": format_moment(t.expires_at),
                        "author": t.author,
                        "message": t.message,
                        "parts": t.parts,
                    }
                    for t in found
                ]
            },
        )
