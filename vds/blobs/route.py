"""How to reach the host of a url: through which proxy, trusting whom. The same words as for `requests`, which the SDK uses."""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

import requests.utils

from vds.errors import InvalidInputError

_REQUESTS_NAMES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_OPENSSL_NAMES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True, slots=True)
class Route:
    """One host, and the way there.

    Attributes:
        context: how to encrypt; None where nothing is.
        proxy: host and port of a proxy that is asked for a tunnel; None for a direct connection.
        proxy_headers: what the proxy wants to know of us; may hold a password.
    """

    host: str
    port: int
    context: ssl.SSLContext | None = None
    proxy: tuple[str, int] | None = None
    proxy_headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.context else 80) else f"{host}:{self.port}"


def find_route(url: str) -> Route | None:
    """Return the way to the host of `url`, or None where only the SDK knows one: SOCKS, or plain HTTP through a proxy.

    Raises:
        InvalidInputError: the certificates that the environment names are not there, or are none.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    context = _make_context() if parts.scheme == "https" else None
    port = parts.port or (443 if context else 80)
    proxy_url = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
    if not proxy_url:
        return Route(host, port, context)
    proxy = urlsplit(proxy_url if "://" in proxy_url else f"http://{proxy_url}")
    if context is None or proxy.scheme != "http" or not proxy.hostname:
        return None
    headers = {}
    if proxy.username is not None:
        secret = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(secret.encode()).decode()}"
    return Route(host, port, context, (proxy.hostname, proxy.port or 80), headers)


def find_certificates(environ: Mapping[str, str]) -> str:
    """Return the file or directory of the certificates to trust: what the environment names, else those of certifi.

    What OpenSSL's own variables name may be missing: systems set them for everybody, and other programs overlook it.

    Raises:
        InvalidInputError: a variable of requests or curl names nothing that is there.
    """
    for name in _REQUESTS_NAMES:
        if place := environ.get(name):
            if not os.path.exists(place):
                raise InvalidInputError(
                    f"{name} names {place!r}, which is not there", hint="name a file or directory of certificates"
                )
            return place
    places = (environ.get(name, "") for name in _OPENSSL_NAMES)
    return next((place for place in places if place and os.path.exists(place)), requests.utils.DEFAULT_CA_BUNDLE_PATH)


def _make_context() -> ssl.SSLContext:
    place = find_certificates(os.environ)
    is_directory = os.path.isdir(place)
    try:
        context = ssl.create_default_context(cafile=None if is_directory else place, capath=place if is_directory else None)
    except OSError as err:
        raise InvalidInputError(f"the certificates in {place!r} cannot be read: {err}", hint="name a PEM file") from err
    context.set_alpn_protocols(["http/1.1"])
    return context
