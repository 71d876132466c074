"""The way to a host: proxies and certificates, in the words of the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests.utils

from tests.unit.blobs.conftest import CA_NAMES
from vds.blobs.route import Route, find_certificates, find_route
from vds.errors import InvalidInputError

pytestmark = pytest.mark.usefixtures("plain_environment")


def found(url: str) -> Route:
    route = find_route(url)
    assert route is not None
    return route


@pytest.mark.parametrize(
    ("url", "authority", "port"),
    [
        ("http://127.0.0.1:10000/devstoreaccount1", "127.0.0.1:10000", 10000),
        ("http://host", "host", 80),
        ("https://acct.blob.core.windows.net", "acct.blob.core.windows.net", 443),
        ("https://acct.blob.core.windows.net:444", "acct.blob.core.windows.net:444", 444),
        ("http://[::1]:10000/acct", "[::1]:10000", 10000),
    ],
)
def test_a_direct_way(url: str, authority: str, port: int) -> None:
    route = found(url)
    assert (route.authority, route.port, route.proxy) == (authority, port, None)
    assert (route.context is not None) == url.startswith("https")


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy"])
@pytest.mark.parametrize("value", ["http://user:p%40ss@proxy:3128", "user:p%40ss@proxy:3128"])
def test_a_proxy_for_encrypted_hosts_is_asked_for_a_tunnel(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    route = found("https://acct.blob.core.windows.net")
    assert route.proxy == ("proxy", 3128)
    assert route.proxy_headers == {"Proxy-Authorization": "Basic dXNlcjpwQHNz"}
    assert "dXNl" not in repr(route)
    assert "p%40ss" not in repr(route)


@pytest.mark.parametrize(
    ("proxy", "url"),
    [
        ("http_proxy=http://proxy:1", "http://gateway/acct"),
        ("https_proxy=socks5://proxy:1", "https://acct.blob.core.windows.net"),
        ("https_proxy=https://proxy:1", "https://acct.blob.core.windows.net"),
    ],
)
def test_other_proxies_are_for_the_sdk(monkeypatch: pytest.MonkeyPatch, proxy: str, url: str) -> None:
    name, _, value = proxy.partition("=")
    monkeypatch.setenv(name, value)
    assert find_route(url) is None


@pytest.mark.parametrize("excepted", ["*", ".core.windows.net", "acct.blob.core.windows.net"])
def test_hosts_excepted_from_the_proxy(monkeypatch: pytest.MonkeyPatch, excepted: str) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    monkeypatch.setenv("no_proxy", excepted)
    assert found("https://acct.blob.core.windows.net").proxy is None


def test_certificates_in_the_order_of_requests_then_openssl(tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    assert find_certificates(environ) == requests.utils.DEFAULT_CA_BUNDLE_PATH
    for name in reversed(CA_NAMES):
        (tmp_path / name).touch()
        environ[name] = str(tmp_path / name)
        assert find_certificates(environ) == environ[name]


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_that_are_not_there(name: str) -> None:
    with pytest.raises(InvalidInputError, match=name):
        find_certificates({name: "/nowhere/ca.pem"})


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_what_openssl_would_overlook_is_overlooked(name: str) -> None:
    assert find_certificates({name: "/nowhere/ca.pem"}) == requests.utils.DEFAULT_CA_BUNDLE_PATH


def test_a_file_that_holds_no_certificate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with pytest.raises(InvalidInputError, match=r"ca\.pem"):
        find_route("https://acct.blob.core.windows.net")
