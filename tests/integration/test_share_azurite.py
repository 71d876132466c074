"""Shared urls against a service that checks them: they read one blob, for a while, and do nothing else."""

from __future__ import annotations

import base64
import json
import logging
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
import requests
from azure.core.credentials import AccessToken

import vds
from tests import services
from tests.support import write_tree
from tests.unit.blobs.conftest import authority as authority
from vds.ops.share import share

pytestmark = pytest.mark.services

MIB = 1024 * 1024
BODIES = {"m/model.bin": os.urandom(MIB), "m/naïve 100% #1.bin": os.urandom(2 * MIB), "small.txt": b"small"}


@pytest.fixture
def version(container_url: str, tmp_path: Path) -> Iterator[vds.store.Version]:
    with vds.connect(f"{container_url}/pre/fix", index=f"sqlite:///{tmp_path / 'index.sqlite'}", create=True) as store:
        yield store.namespace("team/raw").upload(write_tree(tmp_path / "src", BODIES), show_progress=False).version


def get(url: str, **options: object) -> requests.Response:
    return requests.get(url, timeout=30, **options)  # type: ignore[arg-type]


def test_a_url_downloads_the_file_under_its_name(version: vds.store.Version, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    shared = version.share("m", hours=1)
    assert "sig=" not in caplog.text
    assert [one.path for one in shared] == ["m/model.bin", "m/naïve 100% #1.bin"]
    for one in shared:
        answer = get(one.url)
        assert answer.status_code == 200
        assert answer.content == BODIES[one.path]
    assert get(shared[0].url).headers["Content-Disposition"] == 'attachment; filename="model.bin"'
    said = get(shared[1].url).headers["Content-Disposition"]
    assert f"filename*=UTF-8''{quote('naïve 100% #1.bin', safe='#')}" in said
    [alone] = version.share("m/model.bin")
    assert alone.path == "m/model.bin"
    assert get(alone.url, headers={"Range": "bytes=5-9"}).content == BODIES["m/model.bin"][5:10]


def test_a_url_does_nothing_else(version: vds.store.Version, container_url: str) -> None:
    one, other = version.share("m", hours=1)
    address, _, proof = one.url.partition("?")
    container = address[: address.index("/pre/fix")]
    for refused in (
        get(f"{other.url.partition('?')[0]}?{proof}"),
        get(f"{container}/pre/fix/format/0000000000000001?{proof}"),
        get(f"{container}?restype=container&comp=list&{proof}"),
        requests.put(one.url, data=b"x", headers={"x-ms-blob-type": "BlockBlob"}, timeout=30),
        requests.delete(one.url, timeout=30),
        get(one.url.replace("sp=r", "sp=rw")),
        get(f"{address}?{proof[:-6]}"),
    ):
        assert refused.status_code == 403, refused.text
    assert get(one.url).content == BODIES[one.path]


def test_a_url_ends(version: vds.store.Version) -> None:
    entries = list(version.entries("m/model.bin"))
    [one] = share(version._objects, entries, 1, now=lambda: datetime.now(UTC) - timedelta(hours=1, seconds=5))
    assert one.expires_at < datetime.now(UTC)
    assert get(one.url).status_code == 403


class Token:
    """Somebody who signed in; Azurite looks at the claims and checks no signature."""

    def get_token(self, *scopes: str, **_: object) -> AccessToken:
        now = int(time.time())
        tenant = "8e3cd8c1-5b3a-4bd5-9d3a-5a2b4a1f0c11"
        who = {"aud": "https://storage.azure.com", "iss": f"https://sts.windows.net/{tenant}/", "oid": tenant, "tid": tenant}
        claims = {**who, "iat": now - 60, "nbf": now - 60, "exp": now + 3600}
        parts = [json.dumps(part).encode() for part in ({"typ": "JWT", "alg": "none"}, claims)]
        text = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in [*parts, b"x"])
        return AccessToken(text, now + 3600)


@pytest.fixture
def encrypted_url(authority: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run an Azurite that speaks https and takes tokens."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority / "ca.pem"))
    port = services.free_port()
    options = ["--oauth", "basic", "--cert", str(authority / "ca.pem"), "--key", str(authority / "key.pem")]
    common = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    command = [services.find_node()[0], str(services._AZURITE_MAIN), *common, *options, "--location", str(tmp_path / "azurite")]
    with services._running(command, tmp_path) as process:
        services._wait_until(process, lambda: services._accepts(port), tmp_path)
        yield f"https://127.0.0.1:{port}/devstoreaccount1"


def test_a_signed_in_user_signs_with_a_delegation_key(encrypted_url: str, tmp_path: Path) -> None:
    url = f"{encrypted_url}/data"
    with vds.connect(url, index=f"sqlite:///{tmp_path / 'index.sqlite'}", create=True, credential=Token()) as store:
        version = store.namespace("a").upload(write_tree(tmp_path / "src", BODIES), show_progress=False).version
        one, other = version.share("m", hours=2)
    assert "skoid=" in one.url
    assert "spr=https" in one.url
    bundle = os.environ["REQUESTS_CA_BUNDLE"]
    assert get(one.url, verify=bundle).content == BODIES[one.path]
    crossed = f"{other.url.partition('?')[0]}?{one.url.partition('?')[2]}"
    assert get(crossed, verify=bundle).status_code == 403
    assert requests.delete(one.url, timeout=30, verify=bundle).status_code == 403
