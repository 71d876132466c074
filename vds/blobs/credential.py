"""Choose the credential for an Azure location: what was passed in, the url, the environment, then `DefaultAzureCredential`.

Knows no azure module: what it returns says what to make, and which words to use for it in an error.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from vds.blobs.location import AZURITE_ACCOUNT, AzureLocation
from vds.errors import InvalidInputError
from vds.model.webtoken import claims_of

# Public, the same for every Azurite; see its README.
_AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

_KEY_NAMES = ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY")
_SAS_NAME = "AZURE_STORAGE_SAS_TOKEN"
_CONNECTION_NAME = "AZURE_STORAGE_CONNECTION_STRING"
_FORMS = "pass a TokenCredential, an account key, a SAS, or a connection string"


@dataclass(frozen=True, slots=True)
class Credential:
    """One way to prove who we are; at most one of `key`, `sas` and `token` is set, none means `DefaultAzureCredential`.

    Attributes:
        origin: where it came from, in words for an error; never its value.
    """

    origin: str
    account: str = ""
    key: str = field(default="", repr=False)
    sas: str = field(default="", repr=False)
    token: Any = field(default=None, repr=False)


def choose_credential(location: AzureLocation, explicit: object, environ: Mapping[str, str]) -> Credential:
    """Return the first credential there is, in the order of this module's title.

    Raises:
        InvalidInputError: `explicit` is none we know, is of another account, or would be readable on the way.
    """
    chosen = (
        _from_explicit(location, explicit)
        if explicit is not None
        else _from_url(location) or _from_environment(location, environ) or _fallback(location)
    )
    is_bearer = not chosen.key and not chosen.sas
    if not location.is_encrypted and (is_bearer or (chosen.sas and not location.is_this_machine)):
        raise InvalidInputError(
            f"{chosen.origin} would be readable on the way to {location.url!r}",
            hint="use https, or an account key, which is not sent",
        )
    return chosen


def _from_url(location: AzureLocation) -> Credential | None:
    return Credential("the SAS in the url", location.account, sas=location.sas) if location.sas else None


def _from_explicit(location: AzureLocation, explicit: object) -> Credential:
    origin = "the credential passed in"
    if isinstance(explicit, str):
        text = explicit.strip()
        if _is_connection_string(text):
            found = _from_connection_string(location, text, f"{origin} (a connection string)")
            if found is None:
                raise InvalidInputError(f"the connection string passed in is not of account {location.account!r}", hint=_FORMS)
            return found
        if "sig=" in text:
            return Credential(f"{origin} (a SAS)", location.account, sas=text.lstrip("?"))
        return Credential(f"{origin} (an account key)", location.account, key=_checked_key(text, origin))
    if named_key := getattr(explicit, "named_key", None):
        if named_key.name != location.account:
            raise InvalidInputError(f"the key passed in is of account {named_key.name!r}, the store's is {location.account!r}")
        return Credential(f"{origin} (an account key)", location.account, key=_checked_key(named_key.key, origin))
    if signature := getattr(explicit, "signature", None):
        return Credential(f"{origin} (a SAS)", location.account, sas=str(signature).lstrip("?"))
    if hasattr(explicit, "get_token") or hasattr(explicit, "get_token_info"):
        return Credential(f"{origin} ({type(explicit).__name__})", location.account, token=explicit)
    raise InvalidInputError(f"a credential cannot be of type {type(explicit).__name__}", hint=_FORMS)


def _from_environment(location: AzureLocation, environ: Mapping[str, str]) -> Credential | None:
    if text := environ.get(_CONNECTION_NAME, "").strip():
        found = _from_connection_string(location, text, f"the variable {_CONNECTION_NAME}")
        if found is not None:
            return found
    if environ.get("AZURE_STORAGE_ACCOUNT", "").strip() not in ("", location.account):
        return None  # the variables speak of another account
    for name in _KEY_NAMES:
        if text := environ.get(name, "").strip():
            return Credential(f"the variable {name}", location.account, key=_checked_key(text, f"the variable {name}"))
    if text := environ.get(_SAS_NAME, "").strip():
        return Credential(f"the variable {_SAS_NAME}", location.account, sas=text.lstrip("?"))
    return None


def _fallback(location: AzureLocation) -> Credential:
    if location.account == AZURITE_ACCOUNT:
        return Credential("Azurite's public key", location.account, key=_AZURITE_KEY)
    return Credential("DefaultAzureCredential", location.account)


def _is_connection_string(text: str) -> bool:
    names = {part.partition("=")[0].strip().lower() for part in text.split(";")}
    return bool(names & {"accountkey", "sharedaccesssignature", "blobendpoint", "usedevelopmentstorage", "accountname"})


def _from_connection_string(location: AzureLocation, text: str, origin: str) -> Credential | None:
    """Return the key or SAS of a connection string, or None when it is of another account or holds neither."""
    fields = {name.strip().lower(): value.strip() for name, _, value in (part.partition("=") for part in text.split(";"))}
    if fields.get("usedevelopmentstorage", "").lower() == "true":
        fields = {"accountname": AZURITE_ACCOUNT, "accountkey": _AZURITE_KEY}
    endpoint = urlsplit(fields.get("blobendpoint", ""))
    of_endpoint = endpoint.path.strip("/") or (endpoint.hostname or "").partition(".")[0]
    if (fields.get("accountname") or of_endpoint) != location.account:
        return None
    if key := fields.get("accountkey"):
        return Credential(origin, location.account, key=_checked_key(key, origin))
    if sas := fields.get("sharedaccesssignature"):
        return Credential(origin, location.account, sas=sas.lstrip("?"))
    return None


def _checked_key(text: str, origin: str) -> str:
    try:
        if base64.b64decode(text, validate=True):
            return text
    except (binascii.Error, ValueError):
        pass
    raise InvalidInputError(f"{origin} is no account key: it is not base64", hint=_FORMS)


def principal_of(token: str) -> str | None:
    """Return the user or application that a JSON web token names, or None when it names nobody in a way we know.

    The token is not verified: it is our own, and the name is for the log.

    Source: https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
    """
    claims = claims_of(token)
    found = [claims.get(name) for name in ("upn", "preferred_username", "unique_name", "appid", "oid")]
    return next((str(value)[:200] for value in found if value), None)
