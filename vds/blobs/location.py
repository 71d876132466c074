"""Parse where a store's blobs are: the url or path that people give to `connect` and the command line.

https://ACCOUNT.blob.core.windows.net/CONTAINER[/PREFIX]     any cloud, private endpoints too
http(s)://HOST:PORT/ACCOUNT/CONTAINER[/PREFIX]               an emulator, or a gateway in front of one
abfss://CONTAINER@ACCOUNT.dfs.core.windows.net[/PREFIX]      as Spark writes it
az://CONTAINER@ACCOUNT[/PREFIX]                              the public cloud, in short
azurite://[HOST:PORT/]CONTAINER[/PREFIX]                     Azurite on this machine
file:///DIR, or a path with a separator, "." or "~" or a drive letter
memory://NAME                                                this process
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from urllib.parse import SplitResult, quote, unquote, urlsplit

from vds.blobs.driver import is_key
from vds.errors import InvalidInputError

AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_HOST = "127.0.0.1"
AZURITE_PORT = 10000

_SCHEMES = ("https", "http", "abfss", "az", "azurite", "file", "memory")
_HINT = "a store is https://ACCOUNT.blob.core.windows.net/CONTAINER, az://CONTAINER@ACCOUNT, file:///DIR or memory://NAME"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # two characters at least: "C:" is a drive
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTAINER = re.compile(r"(?=.{3,63}$)[a-z0-9]+(?:-[a-z0-9]+)*")
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_ENDPOINT = re.compile(r"([a-z0-9-]+)\.((?:[a-z0-9-]+\.)*)(blob|dfs)\.(.+)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SECRET_PARTS = (
    re.compile(r"(//)[^/@]*:[^/@]*(?=@)"),
    re.compile(r"(?i)^(https?://)[^/@]*(?=@)"),  # of the other schemes it is the container
    re.compile(r"(?i)^(https?://[^/:@[]*:)(?!\d+(?:/|$)).*(?=@)"),
    re.compile(r"(?i)^(https?://[^/:@[]*:)(?!\d+(?:/|$)|\*)[^/]*"),
)


@dataclass(frozen=True, slots=True)
class AzureLocation:
    """A container, or a prefix in one, of an Azure storage account or of an emulator.

    Attributes:
        account_url: where the account answers; requests go below it.
        sas: the shared access signature that came in the url, without `?`; never part of `url`, repr or comparison.
    """

    account: str
    account_url: str
    container: str
    prefix: str = ""
    sas: str = field(default="", repr=False, compare=False)

    @property
    def url(self) -> str:
        """The address of container and prefix, without any secret."""
        return "/".join(filter(None, (self.account_url, self.container, quote(self.prefix))))

    @property
    def is_encrypted(self) -> bool:
        """Whether what is sent there cannot be read on the way."""
        return self.account_url.startswith("https://")

    @property
    def is_this_machine(self) -> bool:
        """Whether the address is a loopback one."""
        host = urlsplit(self.account_url).hostname or ""
        return host == "localhost" or (_is_ip(host) and ipaddress.ip_address(host).is_loopback)


@dataclass(frozen=True, slots=True)
class DirectoryLocation:
    """A directory of this machine."""

    path: Path


@dataclass(frozen=True, slots=True)
class MemoryLocation:
    """A container in the memory of this process."""

    name: str


Location = AzureLocation | DirectoryLocation | MemoryLocation


def parse_location(text: str) -> Location | None:
    """Return where `text` points to, or None when it is a bare word: a name for vds.toml to explain.

    Raises:
        InvalidInputError: it is neither; the text shows no secret that the url carries.
    """
    if not text.strip():
        raise InvalidInputError("the url of the store is empty", hint=_HINT)
    scheme = _SCHEME.match(text)
    if scheme is None:
        is_path = any(mark in text for mark in ("/", os.sep, "\\")) or text[0] in ".~" or _DRIVE.match(text)
        return DirectoryLocation(_absolute(text)) if is_path else None
    name = scheme.group(1).lower()
    if name not in _SCHEMES:
        near = difflib.get_close_matches(name, _SCHEMES, n=1)
        _refuse(text, f"has the unknown scheme {name!r}", f"did you mean {near[0]}://? {_HINT}" if near else _HINT)
    if not text[scheme.end() :].startswith("//"):
        _refuse(text, "has no // after its scheme", _HINT)
    if name == "file":
        return DirectoryLocation(_file_path(text))
    if name == "memory":
        if not _NAME.fullmatch(text[scheme.end() + 2 :]):
            _refuse(text, "has no plain name", "write memory://NAME; letters, digits, '.', '_' and '-'")
        return MemoryLocation(text[scheme.end() + 2 :])
    return _azure(text, name)


def _azure(text: str, scheme: str) -> AzureLocation:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        _refuse(text, "has no valid host and port", _HINT)
    sas = parts.query
    if sas and not re.search(r"(?:^|&)sig=", sas):
        _refuse(text, "has a query that is no shared access signature", "take away what follows the '?'")
    if parts.fragment:
        _refuse(text, "has a '#'", "take away what follows the '#'")
    if scheme in ("abfss", "az"):
        return _container_at_account(text, parts, scheme)
    if parts.username is not None:
        _refuse(text, "names a user", "pass credentials as credential=, or in AZURE_STORAGE_* variables")
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    host = parts.hostname or ""
    if scheme == "azurite":
        if port is None and host != "localhost" and not _is_ip(host):
            segments, host = [*filter(None, [parts.netloc]), *segments], AZURITE_HOST
        base = f"http://{_bracketed(host)}:{port or AZURITE_PORT}/{AZURITE_ACCOUNT}"
        return _checked(text, AZURITE_ACCOUNT, base, segments, sas)
    endpoint = _ENDPOINT.fullmatch(host)
    if endpoint is None and (port is not None or host == "localhost" or _is_ip(host)):
        if not segments:
            _refuse(text, "names no account", "write http(s)://HOST:PORT/ACCOUNT/CONTAINER")
        address = _bracketed(host) + (f":{port}" if port is not None else "")
        return _checked(text, segments[0], f"{scheme}://{address}/{segments[0]}", segments[1:], sas)
    if "." not in host:
        _refuse(text, f"has no full host name: {host!r}", _HINT)
    if endpoint is not None:
        host = f"{endpoint[1]}.{endpoint[2]}blob.{endpoint[4]}"  # the dfs endpoint speaks another protocol
    address = host + (f":{port}" if port is not None else "")
    return _checked(text, host.partition(".")[0], f"{scheme}://{address}", segments, sas)


def _container_at_account(text: str, parts: SplitResult, scheme: str) -> AzureLocation:
    container, at, host = parts.netloc.rpartition("@")
    form = f"write {scheme}://CONTAINER@ACCOUNT{'.dfs.core.windows.net' if scheme == 'abfss' else ''}[/PREFIX]"
    if not at or not container or ":" in parts.netloc:
        _refuse(text, "does not read CONTAINER@ACCOUNT", form)
    host = host.lower() if "." in host else host
    if scheme == "az" and _ACCOUNT.fullmatch(host):
        host = f"{host}.blob.core.windows.net"
    endpoint = _ENDPOINT.fullmatch(host)
    if endpoint is None:
        _refuse(text, f"names no storage account: {host!r} (accounts have 3 to 24 lower-case letters and digits)", form)
    segments = [container, *(unquote(segment) for segment in parts.path.split("/") if segment)]
    return _checked(text, endpoint[1], f"https://{endpoint[1]}.{endpoint[2]}blob.{endpoint[4]}", segments, parts.query)


def _checked(text: str, account: str, account_url: str, segments: list[str], sas: str) -> AzureLocation:
    if not segments:
        _refuse(
            text, "names no container", "put its name behind the account, as in https://ACCOUNT.blob.core.windows.net/CONTAINER"
        )
    container, prefix = segments[0], "/".join(segments[1:])
    if not _CONTAINER.fullmatch(container):
        _refuse(
            text,
            f"names the container {container!r}",
            "containers have 3 to 63 lower-case letters, digits and single hyphens, and begin and end with a letter or digit",
        )
    if prefix and not is_key(prefix):
        _refuse(
            text, f"has the prefix {prefix!r}", "prefixes have letters, digits and . _ ~ @ + = - between slashes, at most 200"
        )
    return AzureLocation(account, account_url, container, prefix, sas)


def _file_path(text: str) -> Path:
    parts = urlsplit(text)
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/"):
        _refuse(text, "names a host", "write file:///DIR with three slashes and the whole path")
    return _absolute(path[1:] if _DRIVE.match(path[1:]) else path)


def _absolute(text: str) -> Path:
    if "\0" in text:
        raise InvalidInputError(f"path {text!r} holds a null character")
    try:
        return Path(os.path.abspath(Path(text).expanduser()))
    except RuntimeError:
        raise InvalidInputError(f"path {text!r} names a user whose home is not known") from None


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _refuse(text: str, reason: str, hint: str) -> NoReturn:
    # Query, fragment, user, and what is no port where one stands may hold secrets; what is left says enough.
    shown = re.split(r"[?#]", text)[0]
    for secret in _SECRET_PARTS:
        shown = secret.sub(r"\1***", shown)
    raise InvalidInputError(f"store url {shown!r} {reason}", hint=hint) from None  # a cause would quote what is hidden here
