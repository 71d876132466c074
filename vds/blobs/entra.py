"""Ask Entra ID for tokens that are not the blob service's: the database of the index takes them as passwords."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.identity import DefaultAzureCredential

from vds.errors import AccessDeniedError, UnavailableError

_HINT = "sign in with az login, or run as the managed identity or application that the database knows"


def ask_token(credential: object, scope: str) -> str:
    """Return a token for `scope`; thread-safe. The credential keeps one until shortly before it expires.

    Args:
        credential: what `connect` was given; a key or a SAS opens no database, so `DefaultAzureCredential` is asked in its place.
        scope: what the token is for.

    Raises:
        AccessDeniedError: the credential gives none.
        UnavailableError: Entra ID does not answer.
    """
    chosen: Any = credential if _is_token_credential(credential) else _default_credential(os.getpid())
    name = type(chosen).__name__
    try:
        found = chosen.get_token(scope) if hasattr(chosen, "get_token") else chosen.get_token_info(scope)
    except ClientAuthenticationError as err:
        raise AccessDeniedError(f"no token for {scope} from {name}", hint=_HINT) from err
    except AzureError as err:
        reason = type(getattr(err, "inner_exception", None) or err).__name__
        raise UnavailableError(f"no answer to {name}, which asked for a token for {scope} ({reason})", hint="try again") from err
    return str(found.token)


def _is_token_credential(credential: object) -> bool:
    return hasattr(credential, "get_token") or hasattr(credential, "get_token_info")


@cache
def _default_credential(pid: int) -> DefaultAzureCredential:  # a forked child makes its own: a lock in it may be held for ever
    return DefaultAzureCredential()
