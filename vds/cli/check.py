"""`vds verify`, `vds demo`: checks that can fail."""

from __future__ import annotations

import click

from vds.cli.errors import EXIT_NO
from vds.cli.options import command
from vds.cli.shell import Shell
from vds.cli.text import columns, count_text, size_text


def add_to(group: click.Group) -> None:
    """Add these commands."""
    _add_verify(group)
    _add_demo(group)


def parse_sample(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """Return a share of the files, `1%` or `0.01`, as a number in (0, 1]."""
    if value is None:
        return None
    try:
        share = float(value[:-1]) / 100 if value.endswith("%") else float(value)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise click.BadParameter(f"{value!r} is not a share: write 1% or 0.01", context, parameter)
    return share


def _add_verify(group: click.Group) -> None:
    @command(
        group,
        "verify",
        (
            "vds verify customers:prod",
            "vds verify team/raw@12/images --sample 1%",
            "vds verify customers:prod -q || echo damaged",
        ),
    )
    @click.argument("ref", metavar="REF[/PATH]")
    @click.option("--sample", callback=parse_sample, metavar="SHARE", help="Read only a random share of the files: 1%.")
    @click.pass_context
    def verify(context: click.Context, shell: Shell, ref: str, sample: float | None) -> None:
        """Read bytes back and compare their digests.

        Exit 1 when some are not whole: that is the answer. Exit 5 means that damage kept the question from being answered.
        """
        with shell.connect(read_only=True) as store:
            version = store.get(ref)
            report = version.verify(sample, show_progress=shell.shows_progress)
        lines = [f"{path}: {reason}" for path, reason in sorted(report.failures.items())]
        state = "whole" if report.ok else f"{count_text(len(lines))} damaged"
        if not report.files and version.file_count:
            shell.note("the sample took no file: give a larger share")
        shell.answer(
            text=[f"{version.uri}: {count_text(report.files)} read ({size_text(report.bytes)}), {state}", *lines],
            quiet=sorted(report.failures),
            document={
                "uri": version.uri,
                "ok": report.ok,
                "files": report.files,
                "size_bytes": report.bytes,
                "failures": dict(sorted(report.failures.items())),
            },
        )
        if not report.ok:
            context.exit(EXIT_NO)


def _add_demo(group: click.Group) -> None:
    @command(
        group,
        "demo",
        ("vds demo", "vds demo --dir ~/data/images", "vds demo --keep        leaves the store in ./.demo to look at"),
        interrupted="the demo's own directory may be left behind; no store of yours is touched",
    )
    @click.option("--dir", "directory", metavar="DIR", help="Real files to use; Python's standard library by default.")
    @click.option("--keep", is_flag=True, help="Work in ./.demo and leave it there.")
    @click.pass_context
    def demo(context: click.Context, shell: Shell, directory: str | None, keep: bool) -> None:
        """Run the main job on real files, and check it.

        Two jobs write at once, a result is released and tagged, a bad write is found and undone, the release is
        read back. Every byte that comes back is compared with its source. Exit 1 when one differs.
        """
        from vds.demo import run_demo

        report = run_demo(directory, keep=keep, say=shell.note)
        rows = [("STEP", "FILES", "BYTES", "SECONDS", "URI")]
        rows += [(s.name, str(s.files), str(s.size_bytes), f"{s.seconds:.2f}", s.uri) for s in report.steps]
        state = "all comparisons hold" if report.ok else f"FAILED: {len(report.failures)} comparisons"
        shell.answer(
            text=["", *columns(rows, right=(1, 2, 3)), "", state, *report.failures],
            quiet="ok" if report.ok else "failed",
            document={
                "ok": report.ok,
                "failures": list(report.failures),
                "steps": [
                    {"name": s.name, "files": s.files, "size_bytes": s.size_bytes, "seconds": round(s.seconds, 3), "uri": s.uri}
                    for s in report.steps
                ],
            },
        )
        if not report.ok:
            context.exit(EXIT_NO)
