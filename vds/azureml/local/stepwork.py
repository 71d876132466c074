"""One step, from its inputs to its outputs.

Its order is what makes it safe: inputs are pinned and brought here; the key is worked out; a result that is there already is
linked; else the script runs, and only when it has succeeded do its outputs become versions, then datasets. What it printed is
kept either way.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from vds.azureml.data.data_reference import DataReference
from vds.azureml.globs import clean_path
from vds.azureml.local.execution import Execution
from vds.azureml.local.spec import Input, InputPath, Output, OutputPath, Port, StepSpec, is_below_run, place_of
from vds.azureml.local.stepkey import digest_of, key_parts
from vds.azureml.local.work import Made, StepResult, Work
from vds.azureml.selection import Selection, VersionPart
from vds.errors import EntryNotFoundError, NotFoundError, VdsError
from vds.model.manifest import ContentHasher
from vds.provenance import describe_command, working_for
from vds.store import Run, RunInfo, RunPlace, Store

REUSE_TRIED_MAX = 20
"""How many earlier runs with the same key are looked at for one whose outputs are still there."""
EMPTY_DIGEST = "empty"


def carry_out(work: Work, step: StepSpec, made: Mapping[Port, Made], before: Sequence[str] = ()) -> StepResult:
    """Run one step, or link its earlier result; called in a thread of its own.

    Args:
        work: of all steps.
        step: this one.
        made: what the steps before it put out.
        before: their runs.
    """
    try:
        code = work.code_of(step.source_directory)
        inputs = {given.name: _find_input(work, given, made, before) for given in step.inputs}
        digests = {given.name: _digest(given, inputs[given.name]) for given in step.inputs}
    except VdsError as err:
        return StepResult(step.name, _note_failure(work, step, err.message), "failed", error=err.message)
    parts = key_parts(step, code, digests, {output.port.name: _goal(work, output.port) for output in step.outputs})
    key = digest_of(parts)
    reused = _find_result(work, step, key)
    run = work.store.run(
        step.name,
        inputs={},
        params=_params(work, step),
        kind="step",
        parent=work.parent,
        key=key if step.allow_reuse else "",
        key_parts=parts,
    )
    work.on_begin(step.name, run.id, "" if reused is None else reused.id)
    try:
        for name, selection in inputs.items():
            for version in [] if selection is None else selection.pins():
                run.input(version, name)
        if reused is not None:
            return _link(work, step, run, reused)
        return _run_step(work, step, run, Execution(work, step, run, code, inputs))
    except (VdsError, OSError) as err:
        run.end("failed", str(err))
        return StepResult(step.name, run.id, "failed", error=str(err))
    except BaseException as err:
        run.end("failed", f"{type(err).__name__}: {err}")
        raise


def _note_failure(work: Work, step: StepSpec, why: str) -> str:
    run = work.store.run(step.name, params=_params(work, step), kind="step", parent=work.parent)
    run.end("failed", why)
    return run.id


def _params(work: Work, step: StepSpec) -> dict[str, str]:
    return {
        **work.params,
        "script": step.script,
        "source_directory": os.fspath(step.source_directory.resolve()),
        "arguments": describe_command(_word(argument) for argument in step.arguments),
    }


def _word(argument: object) -> str:
    if isinstance(argument, InputPath):
        return f"<{argument.name}>"
    return f"<{argument.port.name}>" if isinstance(argument, OutputPath) else str(argument)


def _find_input(work: Work, given: Input, made: Mapping[Port, Made], before: Sequence[str]) -> Selection | None:
    if isinstance(given.source, Port):
        return made[given.source].selection
    return work.pin(given, is_late=True, before=before)


def _digest(given: Input, selection: Selection | None) -> str:
    """Return what is in an input; of a whole datastore, without what runs have put there under their ids.

    Each run adds to that, so that nothing which reads the datastore could ever be used again. Who knows the id of a run has it
    from another input.
    """
    if selection is None:
        return EMPTY_DIGEST
    if not isinstance(given.source, DataReference) or clean_path(given.source.path_on_datastore):
        return selection.digest()
    hasher = ContentHasher()
    for file in selection.listed():
        if not is_below_run(file.path):
            hasher.add(file.path, file.digest, file.mode)
    return hasher.digest().hex()


def _goal(work: Work, port: Port) -> str:
    """Return where an output goes, whatever the run."""
    kind = "" if port.is_directory else " as a file"
    return f"{work.namespace_of(port)}/{place_of(port, '{run-id}')}{kind}"


def _find_result(work: Work, step: StepSpec, key: str) -> RunInfo | None:
    """Return the newest run with this key that succeeded and whose outputs are all still there."""
    if not step.allow_reuse or work.regenerates:
        return None
    names = {output.port.name for output in step.outputs}
    for info in work.store.runs(key=key, status="completed", limit=REUSE_TRIED_MAX):
        if names <= {place.name for place in info.outputs} and all(_is_there(work.store, place) for place in info.outputs):
            return info
    return None


def _is_there(store: Store, place: RunPlace) -> bool:
    try:
        store.namespace(place.namespace).get(place.number)
    except NotFoundError:  # expired
        return False
    return True


def _run_step(work: Work, step: StepSpec, run: Run, execution: Execution) -> StepResult:
    failed = execution.run_script()
    if failed is not None:
        return failed
    numbers = execution.commit()
    outputs = {}
    for output in step.outputs:
        namespace = work.namespace_of(output.port)
        local = os.fspath(execution.outputs[output.port])
        outputs[output.port] = _hand_out(
            work, run, output, RunPlace(output.port.name, namespace, numbers[namespace], output.port.own_place(run.id), local)
        )
    run.end("completed")
    return StepResult(step.name, run.id, "completed", outputs)


def _link(work: Work, step: StepSpec, run: Run, reused: RunInfo) -> StepResult:
    outputs = {}
    for output in step.outputs:
        place = reused.output(output.port.name)
        assert place is not None
        made = outputs[output.port] = _hand_out(work, run, output, place)
        if output.port.is_shared and made.selection is not None:
            with working_for(run.id, is_inherited=False):
                _put_back(work, step, output.port, made.selection)
    run.end("completed", reused=reused.reused or reused.id)
    return StepResult(step.name, run.id, "completed", outputs, reused=reused.reused or reused.id)


def _put_back(work: Work, step: StepSpec, port: Port, selection: Selection) -> None:
    """Have the place that runs share hold this result again: other runs may have put theirs there since. No byte moves."""
    place = place_of(port, "")
    whole = selection.whole()
    assert whole is not None
    with work.store.namespace(work.namespace_of(port)).transaction(f"outputs of step {step.name}") as tx:
        if whole.is_file:
            tx.write_bytes(place, whole.view.read_bytes(""))
        else:
            tx.copy(whole.view, place)


def _hand_out(work: Work, run: Run, output: Output, place: RunPlace) -> Made:
    """Record an output, and register it where that was asked for."""
    version = work.store.namespace(place.namespace).get(place.number)
    run.output(version, place.name, place.asked, path=place.path)
    selection = None
    try:
        view = version.at(place.path) if place.path else version
        selection = Selection(work.store, [VersionPart(work.store, view, is_file=not view.children())])
    except EntryNotFoundError:
        pass  # it wrote no file
    if selection is not None:
        for registration in output.all_registrations:
            work.register(selection, registration)
    return Made(place, selection)
