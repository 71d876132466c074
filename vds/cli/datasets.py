"""`vds register`, `vds tag`, `vds untag`: what consumers read."""

from __future__ import annotations

from typing import Any

import click

from vds.cli import options
from vds.cli.options import COMMIT_STATE, command
from vds.cli.shapes import release_shape
from vds.cli.shell import Shell
from vds.model.ref import parse_int


def add_to(group: click.Group) -> None:
    """Add these commands."""
    _add_register(group)
    _add_tag(group)
    _add_untag(group)


def _add_register(group: click.Group) -> None:
    @command(
        group,
        "register",
        (
            "vds register customers team/raw@12",
            "vds register customers team/raw@12/clean --tag prod --description 'March, cleaned'",
        ),
        interrupted=COMMIT_STATE,
    )
    @click.argument("dataset", metavar="DS")
    @click.argument("ref", metavar="REF[/PATH]")
    @click.option("--tag", "tags", multiple=True, metavar="T", help="Move this tag to the release; may be repeated.")
    @click.option("--description", metavar="TEXT", help="What the release holds.")
    @options.labels
    def register(shell: Shell, dataset: str, ref: str, tags: tuple[str, ...], **given: Any) -> None:
        """Make a version a release of a dataset.

        Or a directory of it. The same version and path again is the same release. Prints the release's uri.
        """
        with shell.connect() as store:
            release = store.dataset(dataset).register(ref, tags=tags, **given)
            shown = "".join(f", tagged {tag}" for tag in tags)
            shell.answer(
                text=f"{dataset}:{release.number} is {release.version.uri}{shown}",
                quiet=release.uri,
                document={**release_shape(release), "tags": list(tags)},
            )


def _add_tag(group: click.Group) -> None:
    @command(
        group,
        "tag",
        (
            "vds tag customers:prod 3 --reason 'passed review'",
            "vds tag customers:prod team/raw@13                      releases the version if needed",
            "vds tag customers:prod 3 --expected 2                   fails unless it shows release 2 now",
        ),
        interrupted=COMMIT_STATE,
    )
    @click.argument("tag", callback=options.parse_tag_target, metavar="DS:TAG")
    @click.argument("target", metavar="REF|N")
    @options.reason
    @options.expected
    def move(shell: Shell, tag: tuple[str, str], target: str, reason: str, expected: Any) -> None:
        """Let a tag show a release.

        REF|N is the number of a release, or any ref. Every move is kept in the dataset's history.
        """
        dataset, name = tag
        number = parse_int(target)
        with shell.connect() as store:
            release = store.dataset(dataset).tag(name, target if number is None else number, reason=reason, expected=expected)
            shell.answer(
                text=f"{dataset}:{name} is now release {release.number}, {release.version.uri}",
                quiet=release.uri,
                document={**release_shape(release), "tag": f"{dataset}:{name}"},
            )


def _add_untag(group: click.Group) -> None:
    @command(group, "untag", ("vds untag customers:staging --reason 'not used any more'",), interrupted=COMMIT_STATE)
    @click.argument("tag", callback=options.parse_tag_target, metavar="DS:TAG")
    @options.reason
    @click.option("--expected", type=int, metavar="N", help="Fail unless the tag shows release N.")
    def untag(shell: Shell, tag: tuple[str, str], reason: str, expected: int | None) -> None:
        """Remove a tag. Its releases and its history stay."""
        dataset, name = tag
        with shell.connect() as store:
            store.dataset(dataset).untag(name, reason=reason, expected=expected)
            shell.answer(text=f"{dataset}:{name} removed", quiet=(), document={"tag": f"{dataset}:{name}", "removed": True})
