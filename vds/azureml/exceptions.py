"""The errors of the AzureML SDK's names. Each is an error of vds too, with a `kind` and a `hint`."""

from __future__ import annotations

from typing import Any

from vds.errors import ConflictError, InvalidInputError, NotFoundError, VdsError

__all__ = [
    "ActivityFailedException",
    "AzureMLException",
    "ConflictException",
    "NotFoundException",
    "NotInVdsError",
    "RunEnvironmentException",
    "UserErrorException",
]


class AzureMLException(VdsError):
    """Base of the errors that the SDK's names raise themselves; those of the store pass through as they are."""

    def __init__(self, message: str, *, hint: str = "", **more: Any) -> None:
        super().__init__(message, hint=hint, **more)
        if self.hint:  # scripts end with a traceback: there is where people look
            self.add_note(f"hint: {self.hint}")


class ActivityFailedException(AzureMLException):
    """A run failed; the message says how, and what it printed last. What it put out is not visible."""

    kind = "activity-failed"


class UserErrorException(AzureMLException, InvalidInputError):
    """The call is wrong: change it. Nothing was written."""

    kind = "invalid-input"


class NotFoundException(UserErrorException, NotFoundError):
    """A datastore, dataset or path that was asked for is not there."""

    kind = "not-found"


class ConflictException(UserErrorException, ConflictError):
    """What is there stands in the way. Nothing was written."""

    kind = "conflict"


class NotInVdsError(UserErrorException, AttributeError):
    """This needs the AzureML service; the message names what to use instead, where there is something."""

    kind = "invalid-input"


class RunEnvironmentException(UserErrorException):
    """This works in a run only, and there is none."""

    kind = "invalid-input"
