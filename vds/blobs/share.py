"""Signed urls (shared access signatures) with which whoever has one reads one blob for a while, without an account.

Guarantees:
- a url reads, and does nothing else; it is good for one blob, for seven days at most;
- it is good over https alone; only a store on this machine (Azurite) may hand out urls of http;
- an account key never leaves this machine, nor does a user delegation key: both only sign.

Source: https://learn.microsoft.com/rest/api/storageservices/create-user-delegation-sas
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from azure.storage.blob import BlobSasPermissions, generate_blob_sas

from vds.blobs.answers import Asked
from vds.blobs.credential import Credential
from vds.blobs.location import AzureLocation
from vds.blobs.sdk import open_service, translated
from vds.blobs.signing import quoted_path
from vds.errors import AccessDeniedError, InvalidInputError
from vds.pace import Pace

Sign = Callable[[str, datetime, str], str]
"""(name of a blob in the container, when the url ends, the file's name or "") → the url."""

DAYS_MAX = timedelta(days=7)
"""What a user delegation key lives at most. An account key could sign for years."""
_TOKEN = re.compile(r"[A-Za-z0-9._ +@=-]+")
_ATTRIBUTE_CHARS = "!#$&+-.^_`|~"  # what RFC 5987 lets stand as it is, besides letters and digits


def open_signer(location: AzureLocation, credential: Credential, ask_key: Callable[[], Any]) -> Sign:
    """Return what makes urls of blobs in a container.

    Args:
        location: of the container.
        credential: an account key signs by itself; with a token, `ask_key` is called once, now.
        ask_key: returns a user delegation key of the service.

    Raises:
        InvalidInputError: the credential is a SAS, which cannot sign another one; or a url would be readable on its way.
        VdsError: what `ask_key` raises.
    """
    if not location.is_encrypted and not location.is_this_machine:
        raise InvalidInputError(
            f"a url of {location.url!r} would be readable on its way, and is all the proof that is asked for",
            hint="open the store by https",
        )
    if credential.sas:
        raise InvalidInputError(
            f"{credential.origin} cannot sign urls for others: only an account key or a signed-in user can",
            hint="open the store with an account key, or sign in (az login); or hand the files over with vds export",
        )
    options: dict[str, Any] = {"account_key": credential.key} if credential.key else {"user_delegation_key": ask_key()}
    if location.is_encrypted:
        options["protocol"] = "https"

    def sign(name: str, expires_at: datetime, file_name: str) -> str:
        # No start: it is good at once by the service's clock, whatever this machine's says.
        sas = generate_blob_sas(
            credential.account,
            location.container,
            name,
            permission=BlobSasPermissions(read=True),
            expiry=expires_at,
            content_disposition=content_disposition(file_name) if file_name else None,
            **options,
        )
        return f"{location.account_url}/{quoted_path(location.container, name)}?{sas}"

    return sign


def check_times(starts_at: datetime, expires_at: datetime) -> None:
    """Check how long urls are to be good.

    Raises:
        InvalidInputError: longer than seven days, or for no time at all.
    """
    if not timedelta() < expires_at - starts_at <= DAYS_MAX:
        raise InvalidInputError(
            f"urls cannot be good from {starts_at.isoformat()} to {expires_at.isoformat()}", hint="at most seven days at once"
        )


def ask_delegation_key(asked: Asked, credential: Any, pace: Pace, starts_at: datetime, expires_at: datetime) -> Any:
    """Ask the service for a key that signs on behalf of the user or application that `credential` stands for; one request.

    Raises:
        AccessDeniedError: the role of that user does not allow it.
        InvalidInputError: the service takes no such times.
    """
    session, service = open_service(asked.location, credential, pace)
    with session:
        try:
            with translated(asked):
                return service.get_user_delegation_key(starts_at, expires_at)
        except AccessDeniedError as err:
            account = asked.location.account
            raise AccessDeniedError(
                err.message,
                hint=f"this needs the role 'Storage Blob Delegator' on the storage account {account!r}, not only on a container",
            ) from err
        except InvalidInputError as err:
            raise InvalidInputError(err.message, hint="ask for fewer hours, and check this machine's clock") from err


def content_disposition(file_name: str) -> str:
    """Return the header that makes a browser or `curl -OJ` save a download under `file_name`.

    What is not plain ASCII comes twice: spelt out in UTF-8, and for those who cannot read that with `_` in its place.

    Source: RFC 6266, RFC 5987.
    """
    if _TOKEN.fullmatch(file_name):
        return f'attachment; filename="{file_name}"'
    plain = re.sub(r'[^ -~]|["\\%]', "_", file_name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(file_name, safe=_ATTRIBUTE_CHARS)}"
