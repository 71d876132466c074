"""`vds upload`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from vds.cli import options
from vds.cli.options import command
from vds.cli.results import answer_result
from vds.cli.shell import Shell
from vds.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from vds.store import Namespace, UploadResult


def add_to(group: click.Group) -> None:
    """Add these commands."""

    @command(
        group,
        "upload",
        (
            "vds upload out/ team/raw                               what is in out/, at the namespace's root",
            "vds upload out/ team/raw --to 2026/03 -m 'March'       under a directory",
            "vds upload model.bin metrics.json runs/abc             files, by their names",
            "vds upload out/ team/raw --dry-run                     the plan: files and bytes, and nothing is done",
            "vds upload out/ team/raw --mirror --dry-run            the same, with what would be removed",
            "vds upload out/ team/raw --dry-run --json              the plan for a program",
            "vds upload out/ team/raw --tag customers:prod          and release it",
        ),
    )
    @click.argument("sources", nargs=-1, required=True, metavar="SRC...")
    @click.argument("namespace", metavar="NS")
    @click.option("--to", "target_path", metavar="PATH", help="The directory in the namespace; its root by default.")
    @options.message
    @options.labels
    @click.option("--mirror", is_flag=True, help="Remove what is there and not in the source.")
    @click.option("--skip-existing", is_flag=True, help="Leave paths alone that are there already.")
    @options.allow
    @options.ignore
    @options.expected_parent
    @click.option(
        "--tag", callback=options.parse_tag_target, metavar="DS:TAG", help="Release the version and move this tag to it."
    )
    @options.allow_shrink
    @options.dry_run
    def upload(shell: Shell, sources: tuple[str, ...], namespace: str, tag: tuple[str, str] | None, **given: Any) -> None:
        """Upload files and directories as one version.

        A directory means its content; of several sources, two that bring the same path are an error. Prints the version's uri.

        Ctrl-C stops it: nothing of it is visible then, what was sent is kept for a while, and the same command goes on from
        there. Ctrl-C again ends it at once.
        """
        if tag and given["dry_run"]:
            raise click.UsageError("--tag moves a tag, --dry-run changes nothing: drop one")
        if not given["dry_run"]:
            shell.interrupted = f"nothing of this upload is visible unless `vds log {namespace}` shows it; what was sent is kept"
            shell.interrupted_hint = "this goes on from there and sends only what is missing"
        with shell.connect() as store:
            result = upload_sources(store.namespace(namespace), sources, given, shell.shows_progress)
            document = {}
            if tag:
                release = store.dataset(tag[0]).register(result.version, tags=[tag[1]])
                shell.note(f"{tag[0]}:{tag[1]} is now release {release.number}, {release.version.uri}")
                document = {"release": release.number, "tag": f"{tag[0]}:{tag[1]}"}
            answer_result(shell, result, "would upload" if given["dry_run"] else "uploaded", document)


def upload_sources(namespace: Namespace, sources: tuple[str, ...], given: dict[str, Any], progress: bool) -> UploadResult:
    """Upload what the command line names as one version: one directory, files, or both in one transaction."""
    directories = [source for source in sources if os.path.isdir(source)]
    files = [source for source in sources if not os.path.isdir(source)]
    patterns = check_sources(directories, files, given)
    target = given["target_path"]
    terms: dict[str, Any] = {name: given[name] for name in ("message", "labels", "expected_parent", "allow_shrink")}
    if not directories or len(sources) == 1:
        terms |= {"mirror": given["mirror"], "dry_run": given["dry_run"], "show_progress": progress}
        terms["overwrite"] = not given["skip_existing"]
        if directories:
            return namespace.upload(sources[0], target, **terms, **patterns)
        return namespace.upload_files(files, target_path=target, **terms)
    for name in ("mirror", "dry_run", "skip_existing"):
        if given[name]:
            raise click.UsageError(f"--{name.replace('_', '-')} takes one directory, or files only")
    check_disjoint(directories, files, patterns)
    with namespace.transaction(**terms) as transaction:
        for directory in directories:
            transaction.upload(directory, target, show_progress=progress, **patterns)
        if files:
            transaction.upload_files(files, target_path=target, show_progress=progress)
    assert transaction.result is not None  # it was committed when the block ended
    return transaction.result


def check_sources(directories: list[str], files: list[str], given: dict[str, Any]) -> dict[str, Any]:
    """Return the patterns that were given, once each source is known to be there.

    Raises:
        NotFoundError: one is not.
        click.UsageError: there are patterns, but no directory that they could choose from.
    """
    missing = [source for source in files if not os.path.lexists(source)]
    if missing:
        raise NotFoundError(f"{missing[0]!r} does not exist", hint="check the path, and that the job ran that was to make it")
    patterns = {name: options.patterns(given[name]) for name in ("allow_patterns", "ignore_patterns")}
    if not directories and any(patterns.values()):
        raise click.UsageError("--allow and --ignore choose among the files of a directory")
    return patterns


def check_disjoint(directories: list[str], files: list[str], patterns: dict[str, Any]) -> None:
    """Check that no two sources bring the same path: the later one would win without a word.

    Raises:
        InvalidInputError: two do; it names the path and both.
    """
    from vds.files.scan import ScanReport, scan_directory, scan_files  # here: it is slow to load, and rarely needed

    origin: dict[str, str] = {}
    scans = [(directory, scan_directory(directory, ScanReport(), **patterns)) for directory in directories]
    if files:
        scans.append(("the files named", scan_files(files, None, ScanReport())))
    for source, scan in scans:
        for file in scan:
            other = origin.setdefault(file.path, source)
            if other is not source:
                raise InvalidInputError(
                    f"{file.path!r} comes from {other!r} and from {source!r}", hint="upload them one at a time, with --to"
                )
