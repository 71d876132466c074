"""`vds fsck`: is everything there that must be, and as it was written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from vds.cli.check import parse_sample
from vds.cli.errors import CODES
from vds.cli.options import command
from vds.cli.shell import Shell
from vds.cli.text import count_text, size_text
from vds.errors import CorruptionError

if TYPE_CHECKING:
    from vds.ops.findings import Problem, Touch
    from vds.ops.fsck import FsckReport

FSCK_STATE = "what was found so far is noted in the index; with --full or --shard the same command goes on from there"
PROBLEMS_SHOWN_MAX = 20
TOUCHES_SHOWN_MAX = 10


def add_to(group: click.Group) -> None:
    """Add this command."""

    @command(
        group,
        "fsck",
        (
            "vds fsck                                 every day: index, records and listing",
            "vds fsck --sample 1%                     and the bytes of a hundredth of the blobs",
            "vds fsck --shard 3/30                    and those of a thirtieth: all of them in a month",
            "vds fsck --full --chain                  everything; goes on after a kill",
            "vds fsck --repair-from ~/originals       whatever files there have the contents that are damaged here",
            "vds fsck --repair-from az://backup@acct  another container that is a copy of this one",
        ),
        interrupted=FSCK_STATE,
    )
    @click.option("--structure/--no-structure", default=True, help="Hold index, records and listing against each other.")
    @click.option("--chain", is_flag=True, help="Read every change list too, and compare what they add up to with the index.")
    @click.option("--sample", callback=parse_sample, metavar="SHARE", help="Read the bytes of a random share of the blobs: 1%.")
    @click.option("--shard", callback=parse_shard, metavar="I/N", help="Read those of the i-th of n parts: 3/7.")
    @click.option("--full", is_flag=True, help="Read all bytes.")
    @click.option("--repair", is_flag=True, help="Write again from the index what is missing and can be.")
    @click.option("--repair-from", metavar="DIR|URL", help="Take what is lost here from files, or from another container.")
    @click.option("--replace-damaged", is_flag=True, help="Delete a damaged record or list when a good one is at hand.")
    @click.option("--read-only", is_flag=True, help="Note nothing in the index; also for an index that writers refuse.")
    @click.option("--dry-run", is_flag=True, help="Write nothing; say what a repair could mend.")
    @click.option("--seed", default="", metavar="TEXT", help="Choose the sample as it was chosen before.")
    @click.option("--no-resume", is_flag=True, help="Begin anew, and keep no progress.")
    @click.pass_context
    def fsck(
        context: click.Context,
        shell: Shell,
        structure: bool,
        chain: bool,
        sample: float | None,
        shard: tuple[int, int] | None,
        full: bool,
        repair: bool,
        repair_from: str | None,
        replace_damaged: bool,
        read_only: bool,
        dry_run: bool,
        seed: str,
        no_resume: bool,
    ) -> None:
        """Check the store, and mend what can be.

        What it costs: by default a request for each version, event and log record, one for 5 000 blobs, and some walks through
        the index. --chain reads all change lists as well, a few bytes for each file that ever changed. --sample, --shard and
        --full read bytes of objects, which costs what downloading them costs.

        Damaged objects are named with every version, path, release and tag they touch. Their reads fail until they are whole;
        uploading such a file again heals it. Exit 5 when something is damaged and was not mended.
        """
        with shell.connect(read_only=read_only) as store:
            report = store.fsck(
                structure=structure,
                chain=chain,
                sample=sample,
                shard=shard,
                full=full,
                repair=repair,
                repair_from=repair_from,
                replace_damaged=replace_damaged,
                seed=seed,
                resume=not no_resume,
                show_progress=shell.shows_progress,
                dry_run=dry_run,
            )
        _answer(shell, report)
        if not report.ok:
            context.exit(CODES[CorruptionError])


def parse_shard(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Return `3/7` as two numbers."""
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", value)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise click.BadParameter(f"{value!r} is not a part of all: write 3/7 for the third of seven", context, parameter)
    return int(found[1]), int(found[2])


def _answer(shell: Shell, report: FsckReport) -> None:
    if shell.json:
        shell.answer_list(_head(report), "problems", report.problems, line=str, quiet=str, shape=problem_shape)
        return
    shell.answer(
        text=_lines(report), quiet=[f"{one.kind} {one.key or one.digest}".rstrip() for one in report.problems], document={}
    )


def _head(report: FsckReport) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "counts": dict(report.counts),
        "mended": dict(report.mended),
        "examined": {
            "records": report.examined.records,
            "lists": report.examined.lists,
            "blobs": report.examined.blobs,
            "objects": report.examined.objects,
            "size_bytes": report.examined.size_bytes,
        },
        "seed": report.seed or None,
        "resumed": report.resumed,
    }


def problem_shape(problem: Problem) -> dict[str, Any]:
    """Return one problem as a JSON document has it."""
    return {
        "kind": problem.kind,
        "severity": problem.severity,
        "key": problem.key or None,
        "digest": problem.digest or None,
        "detail": problem.detail,
        "touches": [
            {
                "namespace": touch.namespace,
                "path": touch.path,
                "first_version": touch.first_version,
                "last_version": touch.last_version,
            }
            for touch in problem.touches
        ],
        "releases": list(problem.releases),
        "tags": list(problem.tags),
        "repaired": problem.repaired or None,
    }


def _lines(report: FsckReport) -> Iterator[str]:
    from vds.ops.findings import HINTS, KINDS  # here, as it loads what a help text does not need

    for kind, some in groupby(report.problems, lambda one: one.kind):
        severity, meaning = KINDS[kind]
        problems = list(some)
        yield f"{severity}: {count_text(report.counts[kind], kind)}: {meaning}"
        for problem in problems[:PROBLEMS_SHOWN_MAX]:
            yield from _problem_lines(problem)
        if report.counts[kind] > PROBLEMS_SHOWN_MAX:
            yield f"  … and {report.counts[kind] - PROBLEMS_SHOWN_MAX} more (--json)"
        if kind in HINTS and any(not problem.repaired for problem in problems):
            yield f"  to do: {HINTS[kind]}"
    yield _summary(report)


def _problem_lines(problem: Problem) -> Iterator[str]:
    facts = [fact for fact in (problem.digest, problem.key, problem.detail) if fact]
    yield "  " + ": ".join(facts) + (f" [{problem.repaired}]" if problem.repaired else "")
    for touch in problem.touches[:TOUCHES_SHOWN_MAX]:
        yield f"    {_touch_text(touch)}"
    if len(problem.touches) > TOUCHES_SHOWN_MAX:
        yield f"    … and {len(problem.touches) - TOUCHES_SHOWN_MAX} more files"
    if problem.releases:
        yield f"    shown by {', '.join([*problem.releases, *problem.tags])}"


def _touch_text(touch: Touch) -> str:
    if touch.last_version == touch.first_version:
        return f"{touch.namespace}@{touch.first_version}/{touch.path}"
    last = "latest" if touch.last_version is None else touch.last_version
    return f"{touch.namespace}@{touch.first_version} to @{last}: {touch.path}"


def _summary(report: FsckReport) -> str:
    examined = report.examined
    parts = [
        count_text(examined.records, "record"),
        count_text(examined.lists, "list"),
        count_text(examined.blobs, "blob"),
        f"{count_text(examined.objects, 'object')} read ({size_text(examined.size_bytes)})",
    ]
    mended = sum(report.mended.values())
    state = ("well" if not mended else f"well, {mended} mended") if report.ok else "DAMAGED"
    notes = [note for note in (f"seed {report.seed}" if report.seed else "", "resumed" if report.resumed else "") if note]
    return f"{', '.join([*parts, *notes])}: {state}"
