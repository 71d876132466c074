"""`vds adopt`: a version of blobs that another tool wrote, by reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vds.cli import options
from vds.cli.options import command
from vds.cli.shapes import result_shape
from vds.cli.shell import Shell
from vds.cli.text import count_text, size_text

if TYPE_CHECKING:
    from vds.store import UploadResult


def add_to(group: click.Group) -> None:
    """Add this command."""

    @command(
        group,
        "adopt",
        (
            "vds adopt team/raw az://azureml@acct preprocessed             all below preprocessed/, under these paths",
            "vds adopt team/raw az://azureml@acct preprocessed --to raw    the same, below raw/",
            "vds adopt team/raw file:///data/old -m 'before vds'           a directory, for a store on this machine",
            "vds adopt team/raw az://azureml@acct preprocessed --dry-run   what would be adopted: read, and nothing is done",
        ),
    )
    @click.argument("namespace", metavar="NS")
    @click.argument("url", metavar="URL")
    @click.argument("prefix", default="", metavar="[PREFIX]")
    @click.option("--to", "target_path", metavar="PATH", help="The directory in NS; by default blobs keep their names as paths.")
    @options.message
    @options.labels
    @options.expected_parent
    @options.dry_run
    def adopt(shell: Shell, namespace: str, url: str, prefix: str, **given: Any) -> None:
        """Make a version of plain blobs, by reference.

        They are what another tool wrote. No byte is moved, copied or renamed: each blob is read once, to know its content, and
        stays where it is. PREFIX is a blob or a directory of them; all by default. Again adopts only what is new or changed.

        vds never changes or deletes these blobs. Should somebody else do so, reading that file is an error that names the blob;
        `vds fsck` finds them all. To have bytes of the store's own, upload the files.
        """
        if not given["dry_run"]:
            shell.interrupted = f"nothing of this is visible unless `vds log {namespace}` shows it; the blobs are as they were"
            shell.interrupted_hint = "the same command goes on from there"
        with shell.connect() as store:
            result = store.namespace(namespace).adopt(url, prefix, show_progress=shell.shows_progress, **given)
            _answer(shell, result)


def _answer(shell: Shell, result: UploadResult) -> None:
    if result.created_namespace:
        shell.note(f"{'would create' if result.dry_run else 'created'} namespace {result.namespace!r}")
    verb = "would adopt" if result.dry_run else "adopted"
    facts = [f"{verb} {count_text(result.uploaded)} ({result.added} new, {result.modified} changed)"]
    if result.skipped:
        facts.append(f"{result.skipped} unchanged")
    facts.append(f"{size_text(result.bytes_read)} read, none moved")
    if not result.created and not result.dry_run:
        facts.append("no new version was made")
    shell.answer(text=[", ".join(facts), result.uri], quiet=result.uri, document=result_shape(result))
