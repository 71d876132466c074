"""`vds run`: run a command, and record what it reads and writes."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vds.cli.options import command
from vds.cli.shell import Shell
from vds.errors import InvalidInputError, NotFoundError
from vds.provenance import describe_command

if TYPE_CHECKING:
    from vds.store import Run, Store


NAME_CHARS_MAX = 100
"""Of a command line that names a run."""


def add_to(group: click.Group) -> None:
    """Add this command."""

    @command(
        group,
        "run",
        (
            "vds run train.py --epochs 3                       a script written for AzureML, as it is: import azureml finds vds",
            "vds run --name nightly -- make features           any command, as a run",
            "vds run --input customers:prod --output models=out -- python train.py   out/ is uploaded when it has succeeded",
            "vds run --no-reuse pipeline.py                    every step runs, whatever could be used again",
        ),
        interrupted="the run is recorded as canceled",
    )
    @click.option("--name", metavar="NAME", help="What the run is called; by default the command.")
    @click.option(
        "--input", "inputs", multiple=True, metavar="[NAME=]REF", help="What it reads; recorded as the version it is now."
    )
    @click.option("--param", "params", multiple=True, metavar="K=V", help="What else it depends on.")
    @click.option("--output", "outputs", multiple=True, metavar="NS=DIR", help="Upload DIR to NS when it has succeeded.")
    @click.option("--azureml/--no-azureml", "face", default=None, help="Let `import azureml` find vds, or leave it alone.")
    @click.option("--no-reuse", is_flag=True, help="Run every step of a pipeline.")
    @click.option("--ignore-comments", is_flag=True, help="Comments and layout of Python files make no difference to reuse.")
    @click.argument("command_line", nargs=-1, required=True, type=click.UNPROCESSED, metavar="[--] CMD...")
    @click.pass_context
    def run(
        context: click.Context,
        shell: Shell,
        name: str | None,
        inputs: Sequence[str],
        params: Sequence[str],
        outputs: Sequence[str],
        face: bool | None,
        no_reuse: bool,
        ignore_comments: bool,
        command_line: Sequence[str],
    ) -> None:
        """Run a command, and record what it reads and writes.

        A Python script finds vds where it imports azureml, unless the real package is installed. Exits as the command does.
        """
        is_script = command_line[0].endswith(".py")
        if is_script and face is None:
            _check_no_sdk()
        has_face = face if face is not None else is_script
        environ = _environ(has_face=has_face, no_reuse=no_reuse, ignore_comments=ignore_comments)
        words = [sys.executable, *command_line] if is_script else list(command_line)
        _check_command(words, is_script=is_script)
        named_inputs = dict(_named_input(one) for one in inputs)
        named_params = {"command": describe_command(command_line), **dict(_pair(one, "--param") for one in params)}
        wanted = [_pair(one, "--output") for one in outputs]
        with ExitStack() as stack:
            store = stack.enter_context(_connect(shell, has_face=has_face))
            label = name or (Path(command_line[0]).name if is_script else describe_command(command_line)[:NAME_CHARS_MAX])
            opened = stack.enter_context(store.run(label, inputs=named_inputs, params=named_params))
            # Only now: entering the run has put its id into the environment.
            code = _carry_out(words, {**os.environ, **environ, **_store_variables(store)})
            if code == 0:
                _put_out(store, opened, wanted, shell)
            else:
                opened.end("canceled" if code in (-signal.SIGINT, 130) else "failed", f"exit code {code}")
        shell.note(f"run {opened.id} {opened.status}")
        context.exit(code if code >= 0 else 128 - code)

    run.allow_interspersed_args = False  # what stands behind the command is the command's


def _check_no_sdk() -> None:
    if importlib.util.find_spec("azureml") is not None:
        raise InvalidInputError(
            "the real azureml package can be imported here: which one is the script to find?",
            hint="vds run --azureml SCRIPT has it find vds, vds run --no-azureml SCRIPT leaves the package alone",
        )


def _check_command(words: Sequence[str], *, is_script: bool) -> None:
    if is_script and not Path(words[1]).is_file():
        raise NotFoundError(f"there is no script {words[1]!r}", hint="vds run --help")
    if not is_script and shutil.which(words[0]) is None:
        raise NotFoundError(f"there is no command {words[0]!r}", hint="vds run --help")


def _environ(*, has_face: bool, no_reuse: bool, ignore_comments: bool) -> dict[str, str]:
    """Return what the command's environment has beside this one's."""
    found = {}
    if has_face:
        import vds.azureml.shim

        shim = Path(vds.azureml.shim.__file__).parent
        own = Path(vds.__file__).parent.parent
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(shim), os.environ.get("PYTHONPATH", ""), str(own)]))
    if no_reuse:
        found["VDS_NO_REUSE"] = "1"
    if ignore_comments:
        found["VDS_IGNORE_COMMENTS"] = "1"
    return found


def _connect(shell: Shell, *, has_face: bool) -> Store:
    """Return the store; a script written for AzureML gets a local one where none is configured, as it would by itself."""
    store = shell.connect_if_named()
    if store is not None:
        return store
    if not has_face:
        return shell.connect()  # which says what to do
    from vds.azureml.configuration import find_settings, open_store

    return open_store(find_settings())


def _store_variables(store: Store) -> Mapping[str, str]:
    return {"VDS_STORE": store.url, **({} if "VDS_INDEX" in os.environ else {"VDS_INDEX": store.index})}


def _carry_out(words: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the command with this terminal, and return its exit code; Ctrl-C is its to answer."""
    process = subprocess.Popen(words, env=dict(environ))
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # it was sent to the command too: how that ends is what counts


def _put_out(store: Store, run: Run, wanted: Sequence[tuple[str, str]], shell: Shell) -> None:
    for namespace, directory in wanted:
        result = store.namespace(namespace).upload(directory, show_progress=shell.shows_progress, message=f"output of {run.name}")
        run.output(result, namespace, directory)


def _named_input(text: str) -> tuple[str, str]:
    name, is_named, ref = text.partition("=")
    return (name, ref) if is_named else (text, text)


def _pair(text: str, option: str) -> tuple[str, str]:
    name, is_pair, value = text.partition("=")
    if not is_pair or not name or not value:
        raise InvalidInputError(f"{option} {text!r} is no pair", hint=f"{option} NAME=VALUE")
    return name, value
