"""A store opened with a SAS and a password: afterwards neither is anywhere but where it was given."""

from __future__ import annotations

import base64
import json
import logging
import pickle
import sys
import traceback
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

import psycopg
import pytest
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

import vds
from tests.support import read_tree, write_tree
from tests.unit.test_secrets_objects import reach
from vds.blobs.credential import _AZURITE_KEY
from vds.blobs.location import AZURITE_ACCOUNT
from vds.blobs.open import open_driver
from vds.cli.main import run
from vds.cli.shell import Shell
from vds.errors import VdsError
from vds.fs.system import VdsFileSystem

pytestmark = pytest.mark.services

ARGUMENT = "kJ8zQ4vN1xW7"
"""What a job was given on its command line."""

COMMANDS = [
    ["init"],
    ["upload", "out", "team/raw", "-m", "first", "--tag", "customers:prod"],
    ["upload", "out", "team/raw", "--json"],
    ["ls"],
    ["ls", "team/raw", "--json"],
    ["log", "team/raw", "--json"],
    ["log", "customers:", "--json"],
    ["show", "team/raw@1", "--json"],
    ["doctor", "--write-test", "--json"],
    ["verify", "team/raw@1", "--json"],
    ["download", "team/raw@1", "copy", "--json"],
    ["checkout", "team/raw@1", "tree", "--json"],
    ["lock", "customers:prod"],
    ["tx", "begin", "team/raw", "--json"],
    ["index", "grants", "reader", "training_jobs"],
    ["expire", "team/raw", "--keep-last", "1", "--json"],
    ["gc", "--json"],
    ["fsck", "--json"],
    ["share", "team/raw@1/large"],  # refused: a SAS signs nothing
    ["cat", "team/raw@7/x"],
    ["ls", "no/such@1"],
    ["ls", "one", "too", "many"],
]


class Secrets:
    """Everything that must not show, in whatever form."""

    def __init__(self, *secrets: str) -> None:
        forms = {form for secret in secrets for form in (secret, quote(secret, safe=""), unquote(secret))}
        forms |= {base64.b64encode(secret.encode()).decode().rstrip("=") for secret in secrets}
        self._forms = forms

    def check(self, where: str, text: str | bytes) -> None:
        """Fail if one of them is in a text."""
        text = text.decode("latin-1") if isinstance(text, bytes) else text
        for form in self._forms:
            assert form not in text, f"{where}: …{text[max(0, text.index(form) - 60) : text.index(form) + 4]}…"


@pytest.fixture
def sas() -> str:
    """Return a signature that may do all in the account, for an hour."""
    made: str = generate_account_sas(
        AZURITE_ACCOUNT,
        _AZURITE_KEY,
        resource_types=ResourceTypes(container=True, object=True),
        permission=AccountSasPermissions(read=True, add=True, create=True, write=True, delete=True, list=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    return made


def test_nothing_that_is_written_or_said_holds_a_secret(
    container_url: str,
    sas: str,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    own_cache: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = Secrets(parse_qs(sas)["sig"][0], str(urlsplit(database_url).password), ARGUMENT)
    url = f"{container_url}/pre/fix?{sas}"
    write_tree(tmp_path / "out", {"a": b"1", "d/b": b"2", "large": bytes(1_100_000)})
    (tmp_path / ".git").mkdir()
    for name, value in {"VDS_STORE": url, "VDS_INDEX": database_url, "HOME": str(tmp_path), "PGOPTIONS": ""}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["train.py", "--api-key", ARGUMENT, url, f"--index={database_url}", f"--db.password={ARGUMENT}"]
    )

    handlers = list(logging.getLogger().handlers)
    for command in COMMANDS:
        for more in ([], ["-v"]):
            code = run([*command, *more], Shell())
            logging.getLogger().handlers[:] = handlers
            said = capsys.readouterr()
            secrets.check(" ".join([*command, *more]), said.out + said.err)
            assert code != 70, (command, said.err)
            assert code == 0 or command[0] in ("share", "cat", "ls"), (command, said.err[-500:])
    with vds.connect(url, index=database_url) as store:
        use_library(store, secrets)
    secrets.check("the log", caplog.text)
    for record in caplog.records:
        secrets.check(record.name, record.getMessage() + str(record.args) + str(record.exc_info))
    for path, body in (read_tree(tmp_path) | read_tree(own_cache)).items():
        secrets.check(path, body)
    assert {"vds.toml", "vds.lock", "tree/.vds/checkout.jsonl"} <= set(read_tree(tmp_path))
    check_container(f"{container_url}/pre/fix", secrets)
    check_database(database_url, secrets)


def use_library(store: vds.store.Store, secrets: Secrets) -> None:
    """Look at whatever the library hands out, and at what travels to other processes."""
    version = store.get("customers:prod")
    with store.namespace("team/raw").transaction() as tx:
        tx.write_bytes("more", b"more")
        secrets.check("a token", base64.urlsafe_b64decode(tx.token.partition("-")[2] + "=="))
        secrets.check("a token", tx.token)
    files = VdsFileSystem(ref="customers:prod")
    found = [store, store.namespace("team/raw"), store.dataset("customers"), version, tx, files, version.open("large")]
    for one in reach(found):
        secrets.check(type(one).__qualname__, repr(one) + str(one))
    for one in (store, version, files, version.entry("a")):
        secrets.check(type(one).__qualname__, pickle.dumps(one))
    secrets.check("what files say of themselves", repr(files.to_json()))
    for fail in (lambda: store.get("team/raw@99"), lambda: version.read_bytes("none"), lambda: version.share("large")):
        with suppress(VdsError):
            try:
                fail()
            except VdsError as err:
                secrets.check("an error", "".join(traceback.format_exception(err)) + repr(err.__dict__) + err.hint)
                secrets.check("an error that travels", pickle.dumps(err))
                raise


def check_container(url: str, secrets: Secrets) -> None:
    """Check every blob, its name and what it says of itself."""
    driver = open_driver(url)
    kinds = set()
    for blob in driver.list_blobs():
        kinds.add(blob.key.partition("/")[0])
        secrets.check(blob.key, blob.key + repr(blob.metadata))
        secrets.check(blob.key, driver.read_range(blob.key))
    assert {"format", "store", "namespaces", "journal", "datasets", "packs", "objects"} <= kinds
    [record] = [json.loads(driver.read_range(key.key)) for key in driver.list_blobs("journal/") if key.key.endswith("1")]
    assert "train.py --api-key" in record["provenance"]["command"]
    driver.close()


def check_database(url: str, secrets: Secrets) -> None:
    """Check every row of every table."""
    rows = 0
    with psycopg.connect(url) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (table,) in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'.encode()):
                rows += 1
                secrets.check(table, repr(row))
    assert rows > 20


def test_a_service_that_says_no(container_url: str, sas: str, database_url: str) -> None:
    """A signature that is refused, a password that is wrong, a database that is away: the error has none of them."""
    broken = sas.replace("sig=", "sig=kJ8zQ4vN1xW7")
    secrets = Secrets("kJ8zQ4vN1xW7", parse_qs(sas)["sig"][0])
    attempts = [
        (f"{container_url}?{broken}", database_url),
        (f"{container_url}?{sas}", database_url.replace(str(urlsplit(database_url).password), "kJ8zQ4vN1xW7")),
        (f"{container_url}?{sas}", "postgresql://ada:kJ8zQ4vN1xW7@127.0.0.1:9/vds"),
    ]
    for url, index in attempts:
        with pytest.raises(VdsError) as caught:
            vds.connect(url, index=index, create=True)
        secrets.check("an error", "".join(traceback.format_exception(caught.value)) + caught.value.hint)
