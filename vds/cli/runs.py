"""`vds runs`, `vds where`, `vds why`, `vds graph`: which run wrote what, from what, and why a step ran."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from vds.cli.options import command
from vds.cli.shapes import version_shape
from vds.cli.shell import Shell
from vds.cli.text import columns, first_line, moment_text
from vds.errors import NotFoundError
from vds.model.ref import format_moment
from vds.model.ulid import is_ulid

if TYPE_CHECKING:
    from vds.store import RunInfo, Store
    from vds.store.lineage import Graph
    from vds.store.where import Where

RUNS_SHOWN = 20
STATUSES = ("running", "completed", "failed", "canceled", "abandoned")
STEPS_LOOKED_AT = 50


def add_to(group: click.Group) -> None:
    """Add these commands."""
    _add_runs(group)
    _add_where(group)
    _add_why(group)
    _add_graph(group)


def run_shape(info: RunInfo) -> dict[str, Any]:
    """Return everything that is known of a run."""
    return {
        "run": info.id,
        "name": info.name,
        "kind": info.kind,
        "status": info.status,
        "parent": info.parent or None,
        "author": info.author,
        "started_at": format_moment(info.started_at),
        "ended_at": None if info.ended_at is None else format_moment(info.ended_at),
        "params": dict(info.params),
        "inputs": [{"name": place.name, "uri": place.uri, "asked": place.asked} for place in info.inputs],
        "outputs": [{"name": place.name, "uri": place.uri, "local_path": place.asked} for place in info.outputs],
        "written": list(info.written),
        "reused": info.reused or None,
        "error": info.error or None,
        "provenance": dict(info.provenance),
    }


def _add_runs(group: click.Group) -> None:
    @command(
        group,
        "runs",
        (
            "vds runs                         the last runs",
            "vds runs --name train -n 5       of one program",
            "vds runs --status failed",
            "vds runs 01jk…                   all about one: what it read, what it wrote, its steps",
        ),
    )
    @click.argument("run", required=False, metavar="[RUN]")
    @click.option("--name", metavar="NAME", help="Only runs called so; steps too.")
    @click.option("--status", type=click.Choice(STATUSES), help="Only runs that are so now.")
    @click.option(
        "-n", "limit", type=click.IntRange(min=1), default=RUNS_SHOWN, show_default=True, metavar="N", help="At most N."
    )
    def runs(shell: Shell, run: str | None, name: str | None, status: str | None, limit: int) -> None:
        """Show runs, newest first, or all about one."""
        with shell.connect(read_only=True) as store:
            if run is not None:
                _show_run(shell, store, run)
                return
            parent = None if name or status else ""
            found = store.runs(name, parent=parent, status=status, limit=limit)  # type: ignore[arg-type]  # one of the choices
            if shell.json or shell.quiet:
                shell.answer_list({}, "runs", found, line=_line, quiet=lambda info: info.id, shape=run_shape)
            else:
                shell.answer(text=columns([_cells(info) for info in found]), document={})
            if not found:
                shell.note("no runs")


def _cells(info: RunInfo) -> list[str]:
    return [info.id, info.name, _status(info), moment_text(info.started_at), _duration(info), first_line(info.error, 60)]


def _line(info: RunInfo) -> str:
    return "  ".join(_cells(info)).rstrip()


def _status(info: RunInfo) -> str:
    return (info.status or "unknown") + (" (reused)" if info.reused else "")


def _duration(info: RunInfo) -> str:
    if info.status == "abandoned":
        return ""
    seconds = ((info.ended_at or datetime.now(UTC)) - info.started_at).total_seconds()
    return f"{max(0.0, seconds):.1f} s" if seconds < 60 else f"{int(seconds) // 60} min {int(seconds) % 60} s"


def _show_run(shell: Shell, store: Store, run: str) -> None:
    info = store.get_run(run)
    steps = list(reversed(store.runs(parent=info.id)))
    document = {**run_shape(info), "steps": [run_shape(step) for step in steps]}
    shell.answer(text=_describe(info, steps), quiet=list(info.written), document=document)


def _describe(info: RunInfo, steps: Sequence[RunInfo]) -> Iterator[str]:
    yield f"run      {info.id}  {info.name}  {_status(info)}"
    yield f"started  {moment_text(info.started_at)}  {_duration(info)}  by {info.author}"
    if info.parent:
        yield f"part of  {info.parent}"
    if info.error:
        yield f"error    {info.error}"
    if info.reused:
        yield f"reused   {info.reused}"
    for name, value in info.params.items():
        yield f"param    {name} = {first_line(value)}"
    for place in info.inputs:
        yield f"read     {place.uri}" + (f"  as {place.name}" if place.name != place.namespace else "")
    for place in info.outputs:
        yield f"put out  {place.uri}  as {place.name}"
    for written in info.written:
        yield f"wrote    {written}"
    if command_line := info.provenance.get("command"):
        yield f"command  {first_line(command_line)} on {info.provenance.get('host', 'unknown')}"
    if commit := info.provenance.get("git.commit"):
        yield f"commit   {commit}" + (" and changes" if info.provenance.get("git.dirty") == "true" else "")
    for step in steps:
        yield f"step     {_line(step)}"


def _add_where(group: click.Group) -> None:
    @command(
        group,
        "where",
        (
            "vds where azureml/01jk…/prepared   the end of a path that a script has printed: whose is it?",
            "vds where team/raw@12               who made this version, from what, who has read it?",
            "vds where azureml://datastores/workspaceblobstore/paths/raw",
        ),
    )
    @click.argument("path", metavar="PATH-OR-URI")
    def where(shell: Shell, path: str) -> None:
        """Say whose a path is, or who made a version.

        A local path that a run wrote to or read from: its run, step and version. A version: its run, and what that run read.
        """
        from vds.store.where import find_where

        with shell.connect(read_only=True) as store:
            found = find_where(store, path)
            shell.answer(text=_where_lines(found), quiet=_quiet_where(found), document=_where_shape(found))


def _where_lines(found: Where) -> Iterator[str]:
    version, run = found.version, found.run
    if version is not None:
        yield f"version  {version.uri}  of {moment_text(version.created_at)} by {version.author}"
    if run is None:
        yield "run      none: it was written outside of any run"
        if version is not None and (command_line := version.provenance.get("command")):
            yield f"command  {first_line(command_line)} on {version.provenance.get('host', 'unknown')}"
    else:
        yield f"run      {run.id}  {run.name}  {_status(run)}" + (f"  in {run.parent}" if run.parent else "")
        if found.output:
            is_expired = run.output(found.output) is not None
            missing = "its version has expired" if is_expired else f"not there: the run is {_status(run)}"
            yield f"output   {found.output}" + ("" if version is not None else f"  {missing}")
        for place in run.inputs:
            yield f"from     {place.uri}"
    for user in found.used_by:
        yield f"read by  {user.id}  {user.name}"


def _quiet_where(found: Where) -> list[str]:
    if found.version is not None:
        return [found.version.uri]
    return [found.run.id] if found.run is not None else []


def _where_shape(found: Where) -> dict[str, Any]:
    return {
        "asked": found.asked,
        "version": None if found.version is None else version_shape(found.version),
        "run": None if found.run is None else run_shape(found.run),
        "output": found.output or None,
        "used_by": [run_shape(info) for info in found.used_by],
    }


def _add_why(group: click.Group) -> None:
    @command(
        group,
        "why",
        ("vds why train            the last run of the step train: was its result used again, and if not, what had changed?",),
    )
    @click.argument("step", metavar="STEP|RUN")
    def why(shell: Shell, step: str) -> None:
        """Say why a step ran, or was not run again."""
        with shell.connect(read_only=True) as store:
            now, before = _find_steps(store, step)
            differing = _differing(now, before)
            is_hit = bool(now.reused)
            shell.answer(
                text=_why_lines(now, before, differing),
                quiet=["hit"] if is_hit else ["miss", *(name for name, _, _ in differing)],
                document={
                    "step": now.name,
                    "run": now.id,
                    "result": "hit" if is_hit else "miss",
                    "reused": now.reused or None,
                    "compared_with": None if before is None else before.id,
                    "differs": [{"part": name, "before": old, "after": new} for name, old, new in differing],
                },
            )


def _find_steps(store: Store, step: str) -> tuple[RunInfo, RunInfo | None]:
    """Return the run of a step that is asked about, and the one before it that succeeded."""
    chosen = store.get_run(step) if is_ulid(step) else None
    found = store.runs(chosen.name if chosen is not None else step, kind="step", limit=STEPS_LOOKED_AT)
    if chosen is None:
        if not found:
            raise NotFoundError(f"no step {step!r} has run in this store", hint="vds runs")
        chosen = found[0]
    earlier = [info for info in found if info.id < chosen.id and info.status == "completed" and info.key_parts]
    return chosen, earlier[0] if earlier else None


def _differing(now: RunInfo, before: RunInfo | None) -> list[tuple[str, str | None, str | None]]:
    if before is None:
        return []
    names = sorted({*now.key_parts, *before.key_parts})
    pairs = [(name, before.key_parts.get(name), now.key_parts.get(name)) for name in names]
    return [(name, old, new) for name, old, new in pairs if old != new]


def _why_lines(now: RunInfo, before: RunInfo | None, differing: Sequence[tuple[str, str | None, str | None]]) -> Iterator[str]:
    if now.reused:
        same = "its code, inputs, arguments and environment are those of"
        yield f"hit: step {now.name} was not run ({now.id}); {same} {now.reused}"
        return
    yield f"miss: step {now.name} was run ({now.id}), and is {_status(now)}"
    if before is None:
        yield "no earlier run of it had succeeded" if now.key_parts else "it ended before its inputs were known"
        return
    if not differing:
        yield f"nothing differs from {before.id}: reuse was off (allow_reuse, regenerate_outputs), or its outputs have expired"
        return
    yield f"since {before.id}:"
    for name, old, new in differing:
        if old is None or new is None:
            yield f"  {name} is {'new' if old is None else 'gone'}"
        else:
            yield f"  {name} changed: {_short(old)} -> {_short(new)}"


def _short(value: str) -> str:
    return first_line(value, 60) if ":" not in value[:4] else value[:15]


def _add_graph(group: click.Group) -> None:
    @command(
        group,
        "graph",
        (
            "vds graph                        the last pipeline: its steps, what they read and put out",
            "vds graph 01jk…                  one run",
            "vds graph customers:prod         all runs that led to a version",
            "vds graph --mermaid > graph.md   for a page that draws Mermaid",
        ),
    )
    @click.argument("what", required=False, metavar="[RUN|REF]")
    @click.option("--mermaid", is_flag=True, help="Print a flowchart in Mermaid's language.")
    def graph(shell: Shell, what: str | None, mermaid: bool) -> None:
        """Show what came from what.

        Runs, and the versions they read and wrote: of a pipeline, or all that led to a version.
        """
        from vds.store.lineage import graph_of_run, graph_of_version

        with shell.connect(read_only=True) as store:
            chosen = what or _last_run(store)
            found = graph_of_run(store, chosen) if is_ulid(chosen) else graph_of_version(store, chosen)
            shell.answer(text=_mermaid(found) if mermaid else _tree(found), document=_graph_shape(found))
            if found.is_cut:
                shell.note(f"there are more than {len(found.runs)} runs; these are the last")


def _last_run(store: Store) -> str:
    found = store.runs(kind="pipeline", limit=1) or store.runs(parent="", limit=1)
    if not found:
        raise NotFoundError("there are no runs in this store", hint="vds run -- COMMAND records one")
    return found[0].id


def _tree(graph: Graph) -> Iterator[str]:
    for info in graph.runs.values():
        yield f"{info.name}  {_status(info)}  {info.id}"
        for uri, run, name in graph.reads:
            if run == info.id:
                yield f"  <- {uri}" + (f"  ({name})" if name else "")
        for run, uri, name in graph.writes:
            if run == info.id:
                yield f"  -> {uri}" + (f"  ({name})" if name else "")


def _mermaid(graph: Graph) -> Iterator[str]:
    nodes = {uri: f"v{number}" for number, uri in enumerate(graph.versions)}
    steps = {run: f"r{number}" for number, run in enumerate(graph.runs)}
    yield "flowchart LR"
    for run, node in steps.items():
        yield f"  {node}[{_quoted(f'{graph.runs[run].name} ({_status(graph.runs[run])})')}]"
    for uri, node in nodes.items():
        yield f"  {node}([{_quoted(uri.removeprefix('vds://'))}])"
    for uri, run, _ in graph.reads:
        yield f"  {nodes[uri]} --> {steps[run]}"
    for run, uri, _ in graph.writes:
        yield f"  {steps[run]} --> {nodes[uri]}"


def _quoted(text: str) -> str:
    """Return a text as Mermaid has it: quotes would end it."""
    return json.dumps(text.replace('"', "'"), ensure_ascii=False)


def _graph_shape(graph: Graph) -> dict[str, Any]:
    return {
        "runs": [run_shape(info) for info in graph.runs.values()],
        "versions": list(graph.versions),
        "reads": [{"uri": uri, "run": run, "name": name} for uri, run, name in graph.reads],
        "writes": [{"run": run, "uri": uri, "name": name} for run, uri, name in graph.writes],
        "is_cut": graph.is_cut,
    }
