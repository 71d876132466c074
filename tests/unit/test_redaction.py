"""No text that people or logs see holds a secret, in whatever form it came; and what is none is left alone."""

from __future__ import annotations

import io
import json
import logging
import pickle
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_errors import all_errors
from vds.cli import main as cli_main
from vds.cli.errors import document_line, error_document
from vds.cli.shell import Shell, log_to_stderr, prepare_streams
from vds.config import without_secret
from vds.errors import TransferError, UnavailableError, VdsError, redact
from vds.provenance import collect_provenance, describe_command

SECRET = "kJ8zQ4vN1xW7"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJvaWQiOiJrSjh6UTR2TjF4VzcifQ.c2lnbmF0dXJlLWtKOHpRNA"
SAS = "sv=2024-01-01&se=2030-01-01T00%3A00%3A00Z&sr=c&sp=rl&sig=kJ8zQ4vN1xW7%2Bab%2FkJ8zQ4%3D"

SHAPES: dict[str, str] = {
    "a SAS in a url": f"https://a.blob.core.windows.net/c?{SAS}",
    "a SAS in a url in a url": f"https://login/?next={quote(f'https://a.blob/c?{SAS}', safe='')}",
    "a SAS with the signature in front": f"https://a/c?sig={SECRET}%3D&sv=2024",
    "a request line": f"GET /c/blob?comp=block&{SAS} HTTP/1.1",
    "a line of urllib3's log": f'https://a.blob.core.windows.net:443 "PUT /c/b?{SAS} HTTP/1.1" 201 0',
    "a pool's error": f"HTTPSConnectionPool(host='a', port=443): Max retries exceeded with url: /c?comp=list&{SAS} (Caused by X)",
    "a connection string": f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={KEY};EndpointSuffix=core.windows.net",
    "a connection string with a SAS": f"BlobEndpoint=https://a.blob;SharedAccessSignature={SAS}",
    "a service bus string": f"Endpoint=sb://x/;SharedAccessKeyName=root;SharedAccessKey={SECRET}=",
    "an account key alone": f"the key {KEY} was refused",
    "a web token alone": f"got {TOKEN} from the server",
    "a header": f"Authorization: Bearer {TOKEN}",
    "a short header": f"Authorization: Bearer {SECRET}",
    "a header with a key": f"authorization: SharedKey account:{SECRET}+/=",
    "a header with a lite key": f"Authorization: SharedKeyLite account:{SECRET}=",
    "a header for a proxy": f"proxy-authorization: Basic {SECRET}==",
    "a header of another kind": f"Authorization: {SECRET}",
    "headers in a dict": f"{{'Authorization': 'Bearer {SECRET}', 'x-ms-date': 'now'}}",
    "headers in a dict of bytes": f"{{b'Authorization': b'Bearer {SECRET}'}}",
    "headers in tuples": f"[('Authorization', 'Bearer {SECRET}')]",
    "the bytes of a request": repr(f"GET / HTTP/1.1\r\nauthorization: Bearer {SECRET}\r\nhost: a\r\n".encode()),
    "a bearer token": f"sent Bearer {SECRET}{SECRET} to it",
    "a password in a url": f"postgresql+psycopg://ada:{SECRET}@db.example:5432/vds",
    "a password with an at": f"postgresql://ada:p@{SECRET}@db.example/vds",
    "a password with a slash": f"postgresql://ada:p/{SECRET}@db.example/vds",
    "a password with a colon": f"postgresql://ada:p:{SECRET}!@db.example/vds",
    "a password with a quote": f"postgresql://ada:p'{SECRET}@db.example/vds",
    "a password without a user": f"redis://:{SECRET}@cache.example",
    "a password of digits in front": f"postgresql://ada:5432/{SECRET}@db.example/vds",
    "a password in a url in quotes": f"index 'postgresql://ada:{SECRET}@db/vds' does not answer",
    "a keyword of libpq": f"host=db user=ada password={SECRET} dbname=vds",
    "a quoted keyword": f"host=db password='two words {SECRET}' dbname=vds",
    "a quoted keyword with escapes": rf"password='it\'s {SECRET}' dbname=vds",
    "a quoted keyword cut short": f"password='{SECRET}",
    "a password that begins with a slash": f"password=/{SECRET}",
    "a password with stops": f"password=a;{SECRET},b;{SECRET} next",
    "a password with a quote in it": f"password=a'{SECRET} next",
    "parameters of a url": f"postgresql://db/vds?user=ada&password={SECRET}&sslmode=require",
    "the password of a certificate": f"postgresql://db/vds?sslpassword={SECRET}&sslkey=/k",
    "parameters, encoded": f"next=%2Fdb%3Fpassword%3D{SECRET}",
    "an option": f"train.py --api-key {SECRET} --epochs 3",
    "an option in quotes": f"train.py --api-key 'two words {SECRET}' --epochs 3",
    "an option with a sign": f"train.py --storage-token={SECRET}",
    "a variable": f"AZURE_CLIENT_SECRET={SECRET}",
    "our own variable": f"AZURE_STORAGE_KEY={SECRET}",
    "a variable of libpq": f"PGPASSWORD={SECRET} psql",
    "JSON": json.dumps({"client_secret": SECRET, "tenant": "t"}),
    "JSON in JSON": json.dumps({"body": json.dumps({"client_secret": SECRET})}),
    "JSON with spaces": json.dumps({"password": f"two words {SECRET}"}, indent=2),
    "a repr": repr({"accountKey": SECRET, "x": 1}),
    "a repr of bytes": repr({"access_token": SECRET.encode()}),
    "yaml": f"account_key: {SECRET}",
    "yaml with quotes": f'passphrase: "two words {SECRET}"',
    "a token of a code host": "https://ghp_kJ8zQ4vN1xW7kJ8zQ4vN1xW7@github.example/x",
}
"""How secrets come; in each, no more than eight characters in a row of one may be left."""

WRAPPINGS: dict[str, Callable[[str], str]] = {
    "alone": lambda text: text,
    "in a sentence": lambda text: f"the service at {text} said no",
    "in quotes": lambda text: f"cannot open {text!r}: no",
    "in JSON": lambda text: json.dumps({"error": {"message": text}}),
    "on a line of many": lambda text: f"first\n  {text}\nlast",
}


def is_clean(text: str) -> bool:
    """Return whether nothing of any secret shows."""
    return not any(
        secret[at : at + 8] in text for secret in (SECRET, KEY, TOKEN.partition(".")[2]) for at in range(len(secret) - 7)
    )


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_secret_is_left(shape: str, wrapping: str) -> None:
    shown = redact(WRAPPINGS[wrapping](SHAPES[shape]))
    assert is_clean(shown), shown
    assert "***" in shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "vds://customers:prod@2026-03-01T12:00Z/a",
        "vds://team/raw@12/data/token.txt",
        "https://account.blob.core.windows.net/container/prefix",
        "http://127.0.0.1:10000/devstoreaccount1/c/a@b",
        "azurite://127.0.0.1:10000/c/a@b",
        "az://data@account/prefix and abfss://data@account.dfs.core.windows.net/p",
        "postgresql://db.example:5432/vds?sslmode=verify-full",
        "git@example.com:team/code.git",
        "mail ada@example.com: no",
        "PWD=/home/ada OLDPWD=/home/ada/x pwd: /tmp",
        "pass credentials as credential=, or in AZURE_STORAGE_* variables",
        "no token from DefaultAzureCredential",
        "design=5 assign=7 signature matches",
        "--max-tokens 512 --tokenizer=bert monkey=1 keys: 3",
        "object b3:4cca48057f7f49d3dd is corrupt: read b3:00f1 at 12:30:45",
        "objects/4c/4cca48057f7f49d3dd0c1b0b1b8a7f0e4cca48057f7f49d3dd0c1b0b1b8a7f0e.01aryz6s41000g40r40m30e209",
        "secret://vault/x token://y",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text
    assert redact(f"cannot open {text!r}") == f"cannot open {text!r}"


plain = st.text(st.sampled_from("abcXYZ0189-._~!*+/=$%^(){}[]|<>?:;@#,"), min_size=12, max_size=40)
TEMPLATES: list[Callable[[str], str]] = [
    lambda secret: f"https://a.blob.core.windows.net/c?sv=1&sig={quote(secret, safe='')}",
    lambda secret: f"postgresql://ada:{quote(secret, safe='')}@db/vds",
    lambda secret: f"postgresql://db/vds?user=ada&password={quote(secret, safe='')}&x=1",
    lambda secret: json.dumps({"password": secret}),
    lambda secret: repr({"password": secret}),
    lambda secret: f"host=db password='{secret}' dbname=vds",
]


@given(secret=plain, number=st.integers(0, len(TEMPLATES) - 1))
def test_any_secret_in_any_place(secret: str, number: int) -> None:
    written = TEMPLATES[number]("Aa1" + secret)
    shown = redact(f"the service at {written} said no")
    for form in ("Aa1" + secret, quote("Aa1" + secret, safe="")):
        assert form[:10] not in shown


@given(st.text(max_size=200) | st.text(st.sampled_from("ab=:@/'\" &?;,.sigpwdtoken-*\\%\n"), max_size=80))
def test_redacting_twice_changes_nothing(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@pytest.mark.parametrize(
    "text", ["a." * 100_000, "://a:" * 20_000, "eyJ" * 20_000, "password=" * 10_000, "'" * 50_000, "a@b:" * 20_000]
)
def test_long_texts_are_read_once(text: str) -> None:
    """Nothing is asked of the time; a pattern that goes back again and again would not end at all."""
    assert len(redact(text)) <= len(text) + 4


ERRORS = sorted(all_errors(), key=lambda error: error.__name__)


@pytest.mark.parametrize("error_type", ERRORS, ids=[error.__name__ for error in ERRORS])
def test_no_error_tells(error_type: type[VdsError]) -> None:
    for shape in SHAPES.values():
        more: dict[str, Any] = {"failures": {"a": f"read {shape}"}} if issubclass(error_type, TransferError) else {}
        error = error_type(f"asked {shape} for it", hint=f"look at {shape}", **more)
        try:
            raise error
        except VdsError as caught:
            texts = [str(caught), repr(caught), caught.hint, "".join(traceback.format_exception(caught))]
        texts += [repr(error.__dict__), repr(pickle.loads(pickle.dumps(error)).__dict__), document_line(error_document(error))]
        assert all(map(is_clean, texts)), texts


def chained(shape: str) -> None:
    """Fail as a door does: our error, made of a foreign one whose text nobody has cleaned, made of yet another."""
    try:
        try:
            raise ValueError(f"cannot parse {shape}")
        except ValueError as err:
            raise OSError(f"Max retries exceeded with url: {shape}") from err
    except OSError as err:
        raise UnavailableError("the service did not answer") from err


@contextmanager
def captured(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Collect what goes to stderr."""
    stream = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        yield stream


def run(monkeypatch: pytest.MonkeyPatch, fail: Callable[[], None], *options: str) -> str:
    """Run a command that fails, and return what it says."""

    @click.command()
    def broken() -> None:
        fail()

    with captured(monkeypatch) as stream:
        monkeypatch.setattr(cli_main, "cli", broken)
        shell = Shell(verbose="-v" in options, json="--json" in options)
        assert cli_main.run([], shell) != 0
    return stream.getvalue()


def fail_unexpectedly(shape: str) -> None:
    raise RuntimeError(f"no answer from {shape}")


def fail_as_usage(shape: str) -> None:
    raise click.UsageError(f"Got unexpected extra argument ({shape})")


@pytest.mark.parametrize("options", [[], ["-v"], ["--json"], ["-v", "--json"]], ids=" ".join)
@pytest.mark.parametrize("fail", [chained, fail_unexpectedly, fail_as_usage])
def test_the_command_line_tells_nothing(fail: Callable[[str], None], options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, shape in SHAPES.items():
        said = run(monkeypatch, lambda shape=shape: fail(shape), *options)  # type: ignore[misc]
        assert is_clean(said), (name, said)
        assert ("Traceback" in said) is ("-v" in options and fail is not fail_as_usage)
        if "--json" in options:
            assert json.loads(said.splitlines()[-1])["error"]["kind"] in ("unavailable", "bug", "usage")


def test_a_cause_is_shown_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    said = run(monkeypatch, lambda: chained(SHAPES["a SAS in a url"]), "-v")
    assert "OSError: Max retries exceeded with url: https://a.blob.core.windows.net/c?sv=2024-01-01" in said
    assert "sig=***" in said


def test_the_log_that_v_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    root, own = logging.getLogger(), logging.getLogger("vds")
    handlers, level = list(root.handlers), own.level
    with captured(monkeypatch) as stream:
        try:
            log_to_stderr()
            for shape in SHAPES.values():
                logging.getLogger("vds.files").debug("cache %s: %s", shape, {"password": SECRET})
                logging.getLogger("azure.identity").warning("asked %s", shape)
                try:
                    chained(shape)
                except UnavailableError:
                    logging.getLogger("vds.engine").exception("after %s", shape)
        finally:
            root.handlers[:], own.level = handlers, level
    assert stream.getvalue().count("Traceback") >= len(SHAPES)
    assert is_clean(stream.getvalue())


def test_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    with captured(monkeypatch) as stream, warnings.catch_warnings():
        show = warnings.showwarning
        try:
            prepare_streams()
            warnings.simplefilter("always")
            for shape in SHAPES.values():
                warnings.warn(f"deprecated: {shape}", UserWarning, stacklevel=1)
        finally:
            warnings.showwarning = show
    assert stream.getvalue().count("deprecated") == len(SHAPES)
    assert is_clean(stream.getvalue())


class TestProvenance:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_an_argument_of_a_job(self, shape: str) -> None:
        shown = describe_command(["train.py", SHAPES[shape], "--epochs", "3"])
        assert is_clean(shown), shown
        assert shown.startswith("train.py ")
        assert shown.endswith("--epochs 3")

    @pytest.mark.parametrize(
        "argv",
        [
            ["--password", SECRET],
            ["--db.password", SECRET],
            ["--key", SECRET],
            [f"--key={SECRET}"],
            [f"--account-key={SECRET}"],
            [f"--sas={SECRET}"],
            ["--sas", SECRET],
            ["--auth", f"ada:{SECRET}"],
            ["--pass", SECRET],
            ["--connection-string", f"x {SECRET}"],
            [f"--connection_string=x {SECRET}"],
            [f"db.password={SECRET}"],
            [f"--index=postgresql://ada:two words {SECRET}@db/vds"],
            ["--index", f"postgresql://ada:it's {SECRET}@db/vds"],
            [f"postgresql://ada:p/{SECRET} x@db/vds"],
            ["-H", f"Authorization: Bearer {SECRET}"],
            ["-c", f"connect(password='{SECRET}')"],
            [f"https://x:{SECRET}@host"],
            ["x" * 4090 + f" password={SECRET}{SECRET}"],
            ["x" * 4060 + f" postgresql://ada:{SECRET}{SECRET}@db"],
            ["x" * 4000 + " " + TOKEN],
        ],
        ids=str,
    )
    def test_a_command(self, argv: list[str]) -> None:
        shown = describe_command(["train.py", *argv])
        assert is_clean(shown), shown

    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_variable_that_is_recorded(self, shape: str) -> None:
        environ = {
            "AZUREML_CR_COMPUTE_CONTEXT": SHAPES[shape],
            "MLFLOW_TRACKING_URI": SHAPES[shape],
            "AZURE_ML_INPUT_x": SHAPES[shape],
        }
        assert is_clean(repr(collect_provenance(environ, [], cwd="/")))
        long = {"AZUREML_CR_COMPUTE_CONTEXT": "x" * 1000 + " " + SHAPES[shape]}
        assert is_clean(repr(collect_provenance(long, [], cwd="/")))

    def test_what_is_no_secret_is_recorded(self) -> None:
        for argument in (
            "vds://customers:prod@2026-03-01T12:00Z",
            "http://127.0.0.1:10000/acct/c/a@b",
            "--max-tokens",
            "--monkey=1",
        ):
            assert describe_command(["job.py", argument, "1"]) == f"job.py {argument} 1"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://ada:pw@db:5432/vds?sslmode=require", "postgresql://ada@db:5432/vds?sslmode=require"),
        ("postgresql://ada:p@ss@db/vds", "postgresql://ada@db/vds"),
        ("postgresql://ada:p/w@db/vds", "postgresql://ada@db/vds"),
        ("postgresql://ada:two words@db/vds", "postgresql://ada@db/vds"),
        ("postgresql://db/vds?user=ada&sslpassword=x", "postgresql://db/vds"),
        (f"https://a.blob.core.windows.net/c/p?{SAS}", "https://a.blob.core.windows.net/c/p"),
        ("http://127.0.0.1:10000/devstoreaccount1/c/a@b", "http://127.0.0.1:10000/devstoreaccount1/c/a@b"),
        ("az://data@account/p", "az://data@account/p"),
    ],
)
def test_what_a_settings_file_would_hold(url: str, expected: str) -> None:
    assert without_secret(url) == expected
    assert without_secret(expected) == expected
