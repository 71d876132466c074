"""What the blob service's answers mean, as errors of ours: one table, knowing no SDK."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies

from vds.blobs.credential import Credential
from vds.blobs.location import AzureLocation
from vds.errors import (
    AccessDeniedError,
    BlobExistsError,
    ConflictError,
    CorruptionError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    VdsError,
)

_UNAVAILABLE_CODES = {"ServerBusy", "InternalError", "OperationTimedOut", "ContainerBeingDeleted", "AccountBeingCreated"}
_CORRUPTION_CODES = {"Md5Mismatch", "Crc64Mismatch"}
_EXISTS_CODES = {"BlobAlreadyExists", "ContainerAlreadyExists"}
_NO_TRUST_WORD = "CERTIFICATE_VERIFY_FAILED"
_NO_ADDRESS_WORDS = ("resolve", "getaddrinfo", "not known")
RETRY_AFTER_S_MAX = 60.0


class BlobMissingError(NotFoundError):
    """The container is there, the blob is not."""


class RangeError(InvalidInputError):
    """The range begins at or past the end of the blob."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the service was asked for: where, by whom, and which words an error uses for it."""

    location: AzureLocation
    credential: Credential
    what: str
    writing: bool
    absent: bool = False
    """Whether the one condition sent was that the blob is not there."""

    @property
    def place(self) -> str:
        """The beginning of every message."""
        return f"{self.what} in {self.location.url!r}"


def retry_after_s(header: str | None) -> float:
    """Return how long the service wants to be left alone, from its Retry-After header: 0 for none, a minute at most."""
    return min(float(header), RETRY_AFTER_S_MAX) if header and header.isdecimal() else 0.0  # a date: the service sends seconds


def is_corruption(code: str) -> bool:
    """Return whether the service's error code says that a body is not what its check says."""
    return code in _CORRUPTION_CODES


def answer_error(asked: Asked, status: int, code: str) -> VdsError:
    """Return the error for an answer of HTTP status `status` with the service's error code `code`."""
    message = f"{asked.place}: the service answered {status} {code}"
    if code == "ContainerNotFound":
        container, account = asked.location.container, asked.location.account
        text = f"there is no container {container!r} in account {account!r}"
        return NotFoundError(text, hint="check the spelling, or make the store: vds init")
    if status == 404:
        return BlobMissingError(message, hint="run: vds fsck")
    if status in (401, 403):
        return AccessDeniedError(f"{message} to {asked.credential.origin}", hint=denied_hint(asked))
    if is_corruption(code):
        return CorruptionError(f"{message}: bytes changed on the way", hint="try again; if it stays, check memory and network")
    if status in (408, 429) or status >= 500 or code in _UNAVAILABLE_CODES:
        return UnavailableError(message, hint="try again later, or with fewer workers")
    if code in _EXISTS_CODES or (asked.absent and status == 412):
        return BlobExistsError(message)
    if status in (409, 412):
        return ConflictError(message, hint="look at it again: another writer, a lease or a policy stands in the way")
    if status == 416:
        return RangeError(message)
    if code in ("InvalidBlockList", "InvalidBlobOrBlock"):
        return NotFoundError(f"{message}: a block is not staged", hint="upload the file again")
    return InvalidInputError(message, hint="the service does not take this request: update vds, or report it with this text")


def no_answer_error(asked: Asked, reason: str, detail: str) -> UnavailableError:
    """Return the error for no answer at all; `detail` is only searched, since it may show the whole url."""
    host = asked.location.account_url.partition("//")[2].partition("/")[0]
    if any(word in detail for word in _NO_ADDRESS_WORDS):
        hint = f"check the spelling of the account {asked.location.account!r}: an account that does not exist has no address"
        return UnavailableError(f"{asked.place}: the host {host!r} has no address", hint=hint)
    if _NO_TRUST_WORD in detail:
        hint = "if this network has a certificate authority of its own, name its file: REQUESTS_CA_BUNDLE=/path/to/ca.pem"
        return UnavailableError(f"{asked.place}: the certificate of {host!r} is not trusted", hint=hint)
    hint = "check the network and proxies, then try again"
    return UnavailableError(f"{asked.place}: no answer from {host!r} ({reason})", hint=hint)


def check_address(asked: Asked, resolve: Callable[[str, None], object] = socket.getaddrinfo) -> None:
    """Check that the account's host has an address, where a token would be asked for first.

    Looking for a token can take a minute before it is refused; a misspelt account shows at once. Behind a proxy nothing can be
    told: the proxy resolves names.

    Raises:
        UnavailableError: it has none.
    """
    if asked.credential.key or asked.credential.sas or getproxies():
        return
    try:
        resolve(urlsplit(asked.location.account_url).hostname or "", None)
    except OSError as err:
        raise no_answer_error(asked, type(err).__name__, f"cannot resolve: {err}") from err


def no_token_error(asked: Asked) -> AccessDeniedError:
    """Return the error for a credential that could not be had."""
    return AccessDeniedError(f"{asked.place}: no token from {asked.credential.origin}", hint=denied_hint(asked))


def denied_hint(asked: Asked) -> str:
    """Return which credential was tried, and what it lacks."""
    origin, location = asked.credential.origin, asked.location
    if asked.credential.key or asked.credential.sas:
        return f"{origin} was refused: check that it is whole, not expired, and may {'write' if asked.writing else 'read'}"
    role = "Storage Blob Data Contributor" if asked.writing else "Storage Blob Data Reader"
    return (
        f"tried {origin}; sign in with az login, or give it the role {role!r} (being owner of the account is not enough): "
        f'az role assignment create --role "{role}" --assignee YOU --scope /subscriptions/SUBSCRIPTION/resourceGroups/GROUP'
        f"/providers/Microsoft.Storage/storageAccounts/{location.account}/blobServices/default/containers/{location.container}"
        "; the firewall of the account may also keep this machine out"
    )
