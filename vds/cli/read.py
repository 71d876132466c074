"""`vds ls`, `vds cat`, `vds show`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from vds.cli.options import command
from vds.cli.shapes import entry_shape, version_shape
from vds.cli.shell import Shell
from vds.cli.text import columns, count_text, moment_text, size_text
from vds.model.entry import Entry
from vds.model.moment import moment_of
from vds.model.ref import SCHEME, format_moment, parse_ref_path

if TYPE_CHECKING:
    from vds.store import Store

READ_BYTES = 1024 * 1024


def add_to(group: click.Group) -> None:
    """Add these commands."""
    _add_ls(group)
    _add_cat(group)
    _add_show(group)


@dataclass(frozen=True, slots=True)
class DirectoryRow:
    """A directory that a listing shows in place of what is below it."""

    path: str
    files: int
    size_bytes: int


def _add_ls(group: click.Group) -> None:
    @command(
        group,
        "ls",
        (
            "vds ls                              all namespaces and datasets",
            "vds ls customers:prod -l            one level, with sizes",
            "vds ls team/raw@12/images -R        every file below a directory",
        ),
    )
    @click.argument("ref", required=False, metavar="[REF[/PATH]]")
    @click.option("-l", "--long", "is_long", is_flag=True, help="Show sizes and times.")
    @click.option("-R", "--recursive", is_flag=True, help="List every file instead of directories.")
    def ls(shell: Shell, ref: str | None, is_long: bool, recursive: bool) -> None:
        """List names, or a version's files.

        Without REF, the namespaces and datasets of the store.
        """
        with shell.connect(read_only=True) as store:
            if ref is None:
                _list_names(shell, store)
                return
            version = store.get(ref)
            rows: Iterable[Entry | DirectoryRow] = version.entries() if recursive else collapse(version.entries())
            count = shell.answer_list(
                {"uri": version.uri},
                "entries",
                rows,
                line=_long_line if is_long else _name,
                quiet=_name,
                shape=_row_shape,
            )
        if not count:
            shell.note("no files")


def collapse(entries: Iterable[Entry]) -> Iterator[Entry | DirectoryRow]:
    """Yield entries with everything below a directory as one row; entries come sorted, so a directory's are together."""
    name, files, size_bytes = "", 0, 0
    for entry in entries:
        directory, slash, _ = entry.path.partition("/")
        if files and not (slash and directory == name):
            yield DirectoryRow(name, files, size_bytes)
            files, size_bytes = 0, 0
        if slash:
            name, files, size_bytes = directory, files + 1, size_bytes + entry.size_bytes
        else:
            yield entry
    if files:
        yield DirectoryRow(name, files, size_bytes)


def _name(row: Entry | DirectoryRow) -> str:
    return f"{row.path}/" if isinstance(row, DirectoryRow) else row.path


def _long_line(row: Entry | DirectoryRow) -> str:
    if isinstance(row, DirectoryRow):
        return f"{size_text(row.size_bytes):>12}  {count_text(row.files):>20}  {_name(row)}"
    # Sizes exact and times whole: a long listing is for comparing.
    return f"{row.size_bytes:>12}  {moment_text(moment_of(row.modified_ns // 1000)):>20}  {row.path}"


def _row_shape(row: Entry | DirectoryRow) -> dict[str, Any]:
    if isinstance(row, DirectoryRow):
        return {"path": _name(row), "file_count": row.files, "size_bytes": row.size_bytes}
    return entry_shape(row)


def _list_names(shell: Shell, store: Store) -> None:
    namespaces, datasets = list(store.namespaces()), list(store.datasets())
    rows = [(f"{n.name}@{n.head}", "namespace", moment_text(n.created_at)) for n in namespaces]
    rows += [(f"{d.name}:", "dataset", count_text(d.releases, "release")) for d in datasets]
    if not rows:
        shell.note("the store is empty")
    shell.answer(
        text=columns(rows),
        quiet=[*(n.name for n in namespaces), *(f"{d.name}:" for d in datasets)],
        document={
            "namespaces": [{"name": n.name, "head": n.head, "created_at": format_moment(n.created_at)} for n in namespaces],
            "datasets": [{"name": d.name, "releases": d.releases} for d in datasets],
        },
    )


def _add_cat(group: click.Group) -> None:
    @command(group, "cat", ("vds cat customers:prod/README.md", "vds cat team/raw@12/rows.csv | head"))
    @click.argument("ref", metavar="REF/PATH")
    def cat(shell: Shell, ref: str) -> None:
        """Write one file to stdout, as it is."""
        whole, path = split_ref(ref)
        if not path:
            raise click.UsageError(f"{ref!r} names no file: write REF/PATH, for example team/raw@latest/README.md")
        with shell.connect(read_only=True) as store, store.get(whole).open(path) as file:
            shell.write_bytes(iter(lambda: file.read(READ_BYTES), b""))


def split_ref(text: str) -> tuple[str, str]:
    """Return the ref and the path of `REF/PATH` or a uri; the path is empty when there is none.

    Raises:
        InvalidInputError: it does not parse.
    """
    path = parse_ref_path(text)[1]
    body = text.removeprefix(SCHEME)
    separator = re.search("[@:]", body)
    # A ref ends at the first "/" after its "@" or ":".
    return (body[: body.index("/", separator.end())], path) if separator and path else (body, "")


def _add_show(group: click.Group) -> None:
    @command(group, "show", ("vds show team/raw@12", "vds show customers:prod --json"))
    @click.argument("ref")
    def show(shell: Shell, ref: str) -> None:
        """Show what is known of a version.

        Who made it, when, why, from where, with what.
        """
        with shell.connect(read_only=True) as store:
            version = store.get(ref)
            document = {**version_shape(version), "provenance": dict(version.provenance)}
        rows = [
            ("version", document["uri"]),
            ("digest", document["digest"]),
            ("parent", "none" if document["parent"] is None else str(document["parent"])),
            ("created", document["created_at"]),
            ("author", document["author"]),
            ("content", f"{count_text(document['file_count'])}, {document['size_bytes']} bytes"),
        ]
        rows += [(f"label {key}", value) for key, value in sorted(document["labels"].items())]
        rows += [(key, value) for key, value in sorted(document["provenance"].items())]
        message = ["", *(f"    {line}" for line in document["message"].splitlines())] if document["message"] else []
        shell.answer(text=[*columns(rows), *message], quiet=document["uri"], document=document)
