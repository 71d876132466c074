"""From an error to an exit code and to what a person, or a program, reads about it.

The whole table of exit codes: 0 ok · 1 the answer is "no" (diff --exit-code, status, verify, doctor, lock --check,
cache verify) · 2 usage · 3 not found · 4 conflict · 5 corruption · 6 unavailable · 7 outcome unknown · 8 denied · 9 format ·
10 some files failed · 11 no space · 70 a bug · 130 interrupted · 141 the reader of the output went away.
"""

from __future__ import annotations

import json
from typing import Any

from vds import errors

EXIT_NO = 1
EXIT_USAGE = 2
EXIT_BUG = 70
EXIT_INTERRUPTED = 130
EXIT_CLOSED_PIPE = 141  # as the shell reports a process that SIGPIPE ended; 0 or 1 would be an answer that was not given

CODES: dict[type[errors.VdsError], int] = {
    errors.InvalidInputError: EXIT_USAGE,
    errors.NotFoundError: 3,
    errors.ConflictError: 4,
    errors.CorruptionError: 5,
    errors.UnavailableError: 6,
    errors.OutcomeUnknownError: 7,
    errors.AccessDeniedError: 8,
    errors.FormatError: 9,
    errors.TransferError: 10,
    errors.NoSpaceError: 11,
}

# What an error carries besides its message, for programs.
_DETAILS = ("paths", "versions", "failures", "commit_id", "needed_bytes", "free_bytes")


class OutputClosedError(Exception):
    """Whoever read our output stopped reading: `vds ls | head`."""


def exit_code(error: errors.VdsError) -> int:
    """Return the exit code of `error`: that of the nearest listed type it is one of."""
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), EXIT_BUG)


def error_lines(message: str, hint: str) -> list[str]:
    """Return what a person reads: one `error:` and, where there is one, one `hint:`."""
    return [f"error: {message}"] + ([f"hint: {hint}"] if hint else [])


def error_document(error: errors.VdsError) -> dict[str, Any]:
    """Return what a program reads of an error."""
    details = {name: getattr(error, name) for name in _DETAILS if getattr(error, name, None)}
    return document(error.kind, error.message, error.hint, exit_code(error), **details)


def document(kind: str, message: str, hint: str, code: int, **details: Any) -> dict[str, Any]:
    """Return the one shape of an error in JSON."""
    return {"error": {"kind": kind, "message": message, "hint": hint, "exit_code": code, **details}}


def document_line(shape: dict[str, Any]) -> str:
    """Return a document as one line, so that it can be told from the notes before it on stderr."""
    return json.dumps(shape)
