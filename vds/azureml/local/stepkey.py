"""What the result of a step depends on: its code, its inputs, its arguments, its environment. Equal keys, equal results.

Where things are is not in it: an input is the digest of its content, whatever version, datastore or path it came from, and the
arguments hold names in the place of paths. Nor are secrets: a new password makes no new result, and keys are for anyone to read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from blake3 import blake3

from vds.azureml.local.code import Code
from vds.azureml.local.spec import InputPath, OutputPath, StepSpec
from vds.provenance import describe_environment, safe_words, without_secrets

KEY_CONTEXT = "vds step key 1"
FILES_MAX = 1000
"""How many files of code are told apart in a key; of more only that something differs is known."""
PART_BYTES_MAX, SHOWN_CHARS = 4096, 200
_ENVIRONMENT = ("python", "packages.digest")


def key_parts(step: StepSpec, code: Code, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> dict[str, str]:
    """Return each thing that a step's result depends on, by name.

    Args:
        step: the step.
        code: of its directory.
        inputs: name → digest of its content.
        outputs: name → where it goes.
    """
    parts = {"script": json.dumps([step.script, *map(_shown, step.command)])}
    if len(code.digests) <= FILES_MAX:
        parts.update({f"code {path}": digest for path, digest in code.digests.items()})
    else:
        parts["code"] = code.digest
    parts.update({f"input {name}": digest for name, digest in inputs.items()})
    parts["arguments"] = json.dumps(safe_words(_shown(argument) for argument in step.arguments))
    parts.update({f"output {name}": place for name, place in outputs.items()})
    installed = describe_environment()
    parts.update({f"environment {name}": installed[name] for name in _ENVIRONMENT})
    parts.update({f"environment {name}": value for name, value in step.environment.items()})
    parts.update({f"variable {name}": _unreadable(value) for name, value in without_secrets(step.variables).items()})
    return {name: _bounded(value) for name, value in parts.items()}


def digest_of(parts: Mapping[str, str]) -> str:
    """Return the key of these parts."""
    text = json.dumps(dict(parts), sort_keys=True, ensure_ascii=False)
    return f"b3:{blake3(text.encode(), derive_key_context=KEY_CONTEXT).hexdigest()}"


def _shown(argument: object) -> str:
    if isinstance(argument, InputPath):
        return f"<input {argument.name}>"
    if isinstance(argument, OutputPath):
        return f"<output {argument.port.name}>"
    return str(argument)


def _unreadable(value: str) -> str:
    """Return a value of which nobody reads what it was: whatever stands in the environment may be secret."""
    return value if value == "***" else f"b3:{blake3(value.encode(), derive_key_context=KEY_CONTEXT).hexdigest(8)}"


def _bounded(value: str) -> str:
    """Return a part as a record can hold it."""
    if len(value.encode()) <= PART_BYTES_MAX:
        return value
    return f"{value[:SHOWN_CHARS]}… b3:{blake3(value.encode()).hexdigest()}"
