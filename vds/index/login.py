"""Log in to Azure Database for PostgreSQL with a token of Entra ID in place of a password.

Guarantees:
- each new connection asks for a token, so a connection that is made after an hour does not use one that has expired;
- a token goes to the driver and is kept nowhere: in no url, repr, log or error;
- it is not sent over a connection that others can read.

Source: https://learn.microsoft.com/azure/postgresql/flexible-server/how-to-configure-sign-in-azure-ad-authentication
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.engine import URL

from vds.errors import AccessDeniedError, InvalidInputError
from vds.index.address import parse_url
from vds.model.webtoken import claims_of

AskToken = Callable[[str], str]
"""Gives a token for a scope."""

# Source: `az cloud list`: endpoints.ossrdbmsResourceId, suffixes.postgresqlServerEndpoint.
_SCOPES = {
    ".postgres.database.azure.com": "https://ossrdbms-aad.database.windows.net/.default",
    ".postgres.database.usgovcloudapi.net": "https://ossrdbms-aad.database.usgovcloudapi.net/.default",
    ".postgres.database.chinacloudapi.cn": "https://ossrdbms-aad.database.chinacloudapi.cn/.default",
}
_ENCRYPTED = ("require", "verify-ca", "verify-full")
_OTHER_PROOFS = ("password", "passfile", "service")
_IDENTITY = re.compile(r"(?i).*/providers/microsoft\.managedidentity/userassignedidentities/([^/]+)")


@dataclass(frozen=True, slots=True)
class TokenLogin:
    """How to log in by tokens.

    Attributes:
        scope: what a token is asked for.
        ask: asks for one.
        sslmode: of the connection that it is sent over.
    """

    scope: str
    ask: AskToken = field(repr=False)
    sslmode: str = "require"

    def ask_parameters(self, user: str | None) -> dict[str, str]:
        """Ask for a token and return what the driver logs in with; without a user, as the role that Azure has for its bearer.

        Raises:
            AccessDeniedError: there is no token, or it names nobody.
        """
        token = self.ask(self.scope)
        return {"user": user or _user_of(token), "password": token, "sslmode": self.sslmode}


def find_token_login(index_url: str, ask: AskToken, environ: Mapping[str, str]) -> TokenLogin | None:
    """Return how to log in by tokens, where the url is of Azure and no password is given in any way; else None.

    Raises:
        InvalidInputError: the url asks for a connection that others can read.
    """
    url = parse_url(index_url)
    scope, host = find_scope(url), _host_of(url)
    if scope is None or _has_password(url, host, environ):
        return None
    said = url.query.get("sslmode")
    if said is not None and said not in _ENCRYPTED:
        raise InvalidInputError(
            f"with sslmode={said} a token would be readable on the way to {host!r}", hint="leave sslmode out, or use verify-full"
        )
    preset = environ.get("PGSSLMODE", "")
    return TokenLogin(scope, ask, str(said or (preset if preset in _ENCRYPTED else "require")))


def find_scope(url: URL) -> str | None:
    """Return what a token for this database is asked for, or None when its server is not one of Azure's."""
    return next((scope for suffix, scope in _SCOPES.items() if _host_of(url).endswith(suffix)), None)


def _host_of(url: URL) -> str:
    """Return the one server that a connection goes to; empty where the url says it in two ways, of which the driver takes one."""
    if "hostaddr" in url.query or (url.host and "host" in url.query):
        return ""
    host = url.host or url.query.get("host") or ""
    return host.lower().rstrip(".") if isinstance(host, str) else ""  # several hosts are no server of Azure's


def _has_password(url: URL, host: str, environ: Mapping[str, str]) -> bool:
    if url.password or any(name in url.query for name in _OTHER_PROOFS):
        return True
    return any(environ.get(f"PG{name.upper()}") for name in ("password", "passfile", "service")) or _is_in_file(host, environ)


def _is_in_file(host: str, environ: Mapping[str, str]) -> bool:
    """Return whether the user's own file of passwords, which the driver reads by itself, has one for this host."""
    if os.name == "nt":
        path = Path(environ.get("APPDATA", "")) / "postgresql" / "pgpass.conf"
    else:
        path = Path(environ.get("HOME", "")) / ".pgpass"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.partition(":")[0].lower() in ("*", host) for line in lines)


def _user_of(token: str) -> str:
    """Return the role that Azure has for the bearer of a token: the name of a managed identity, or of a person.

    Source: azure-postgresql-auth, azure_postgresql_auth/core.py: the claims it looks at, in its order.
    """
    claims = claims_of(token)
    identity = _IDENTITY.fullmatch(str(claims.get("xms_mirid") or ""))
    if identity is not None:
        return identity.group(1)
    for name in ("upn", "preferred_username", "unique_name"):
        if claims.get(name):
            return str(claims[name])
    bearer = str(claims.get("appid") or claims.get("azp") or claims.get("oid") or "unknown")
    raise AccessDeniedError(
        f"the token for the index (of {bearer}) does not say which role of the database it is for",
        hint="name it in the url: postgresql://ROLE@HOST/DATABASE, with %40 for an @ in its name",
    )
