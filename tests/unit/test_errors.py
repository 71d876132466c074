"""Errors: stable kinds, a place in the hierarchy, whole after pickling, and never a secret in any text of theirs."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
import traceback
from collections.abc import Iterator

import pytest

import vds
from vds import errors
from vds.errors import (
    AccessDeniedError,
    BlobExistsError,
    ConflictError,
    CorruptionError,
    DownloadError,
    EntryNotFoundError,
    ErasedError,
    ExportError,
    FormatError,
    InvalidInputError,
    NoSpaceError,
    NotFoundError,
    OutcomeUnknownError,
    TransferError,
    UnavailableError,
    UploadError,
    VdsError,
    failures_message,
    redact,
)

KINDS = {
    "VdsError": "error",
    "InvalidInputError": "invalid-input",
    "NotFoundError": "not-found",
    "EntryNotFoundError": "not-found",
    "ErasedError": "erased",
    "ConflictError": "conflict",
    "RowsOutdatedError": "rows-outdated",
    "BlobExistsError": "blob-exists",
    "CorruptionError": "corruption",
    "UnavailableError": "unavailable",
    "OutcomeUnknownError": "outcome-unknown",
    "AccessDeniedError": "denied",
    "FormatError": "format",
    "NoSpaceError": "no-space",
    "TransferError": "transfer",
    "UploadError": "upload",
    "DownloadError": "download",
    "ExportError": "export",
    "UnshareableError": "invalid-input",
    "OfflineError": "offline",
    "ReadOnlyError": "invalid-input",
    "SourceChangedError": "source-changed",
    "RecordDivergedError": "record-diverged",
    "ObjectsGoneError": "objects-gone",
    "BlobMissingError": "not-found",
    "ActivityFailedException": "activity-failed",
    "AdoptedChangedError": "adopted-changed",
    "AzureMLException": "error",
    "ComputeTargetException": "invalid-input",
    "ConflictException": "conflict",
    "NoStoreError": "not-found",
    "NotFoundException": "not-found",
    "NotInVdsError": "invalid-input",
    "PlainChangedError": "plain-changed",
    "RunEnvironmentException": "invalid-input",
    "UserErrorException": "invalid-input",
    "RangeError": "invalid-input",
}
"""What programs branch on: a kind never changes between releases."""

BASES: list[tuple[type[VdsError], type[BaseException]]] = [
    (InvalidInputError, ValueError),
    (NotFoundError, LookupError),
    (EntryNotFoundError, FileNotFoundError),
    (EntryNotFoundError, NotFoundError),
    (ErasedError, FileNotFoundError),
    (ErasedError, NotFoundError),
    (UnavailableError, ConnectionError),
    (AccessDeniedError, PermissionError),
    (NoSpaceError, OSError),
    (BlobExistsError, ConflictError),
    (UploadError, TransferError),
    (DownloadError, TransferError),
    (ExportError, TransferError),
]

EXAMPLES: list[VdsError] = [
    VdsError("m", hint="h"),
    InvalidInputError("m", hint="h"),
    NotFoundError("m", hint="h"),
    EntryNotFoundError("m", hint="h"),
    ErasedError("m", hint="h"),
    ConflictError("m", paths=["a", "b"], versions=[1, 2], hint="h"),
    BlobExistsError("m", paths=["a"], hint="h"),
    CorruptionError("m", hint="h"),
    UnavailableError("m", hint="h"),
    OutcomeUnknownError("m", commit_id="01jq", hint="h"),
    AccessDeniedError("m", hint="h"),
    FormatError("m", hint="h"),
    NoSpaceError("m", needed_bytes=2, free_bytes=1, hint="h"),
    TransferError("m", failures={"a": "why"}, hint="h"),
    UploadError("m", failures={"a": "why", "b": "too"}, hint="h"),
    DownloadError("m", failures={}, hint="h"),
    ExportError("m", failures={"a": "why"}, hint="h"),
]

SECRET = "kJ8zQ4vN1xW7"
"""What must never show."""
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
SHAPES = {
    "a SAS in a url": f"https://a.blob.core.windows.net/c?sv=2024-01-01&se=2030&sig={SECRET}%3D&sp=r",
    "a SAS alone": f"sv=2024&SIG={SECRET}",
    "a connection string": f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={SECRET}==;EndpointSuffix=core.windows.net",
    "a shared access signature": f"BlobEndpoint=https://a;SharedAccessSignature={SECRET}",
    "a header": f"Authorization: Bearer {SECRET}",
    "a header with a key": f"Authorization: SharedKey account:{SECRET}",
    "a header in a dict": f"{{'Authorization': 'Bearer {SECRET}', 'x-ms-date': 'now'}}",
    "a password in a url": f"postgresql+psycopg://ada:{SECRET}@db.example:5432/vds",
    "a password with signs in a url": f"postgresql://ada:p:{SECRET}!@db.example/vds",
    "a keyword of libpq": f"host=db user=ada password={SECRET} dbname=vds",
    "a quoted password": f"password='{SECRET}'",
    "a parameter of a url": f"postgresql://db.example/vds?user=ada&password={SECRET}&sslmode=require",
    "an option": f"train.py --api-key {SECRET} --epochs 3",
    "an option with a sign": f"train.py --storage-token={SECRET}",
    "a variable": f"AZURE_CLIENT_SECRET={SECRET}",
    "JSON": f'{{"client_secret": "{SECRET}", "tenant": "t"}}',
    "yaml": f"account_key: {SECRET}",
}


def all_errors() -> Iterator[type[VdsError]]:
    """Yield every error class of the package, those of its inner modules too."""
    for module in pkgutil.walk_packages(vds.__path__, "vds."):
        if not module.name.startswith(("vds.migrations", "vds.demo")):
            importlib.import_module(module.name)
    seen, waiting = [VdsError], [VdsError]
    while waiting:
        for subclass in waiting.pop().__subclasses__():
            if subclass.__module__.startswith("vds."):
                seen.append(subclass)
                waiting.append(subclass)
    yield from dict.fromkeys(seen)


def test_kinds_are_stable() -> None:
    found = {error.__name__: error.kind for error in all_errors() if not error.__name__.startswith("_")}
    assert found == KINDS


@pytest.mark.parametrize(("error", "base"), BASES)
def test_errors_are_caught_as_what_callers_know(error: type[VdsError], base: type[BaseException]) -> None:
    assert issubclass(error, base)
    assert issubclass(error, VdsError)


def test_every_error_has_an_example_here() -> None:
    assert {type(example) for example in EXAMPLES} == {error for error in all_errors() if error.__module__ == errors.__name__}


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling(error: VdsError, protocol: int) -> None:
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is type(error)
    assert again.__dict__ == error.__dict__
    assert (str(again), again.args, again.kind) == ("m", ("m",), error.kind)
    assert copy.copy(error).__dict__ == error.__dict__


ALL = sorted(all_errors(), key=lambda error: error.__name__)


@pytest.mark.parametrize("error_type", ALL, ids=[error.__name__ for error in ALL])
def test_the_text_of_an_error_is_its_message(error_type: type[VdsError]) -> None:
    """OSError and its kin would show an errno, LookupError a repr."""
    error = error_type("what went wrong", failures={}) if issubclass(error_type, TransferError) else error_type("what went wrong")
    assert (str(error), error.message, error.args) == ("what went wrong", "what went wrong", ("what went wrong",))
    assert error.hint == ""
    assert "what went wrong" in repr(error)


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda error: type(error).__name__)
def test_no_secret_shows_in_any_text(example: VdsError, shape: str) -> None:
    secret = SHAPES[shape]
    more = {"failures": {"a": secret}} if isinstance(example, TransferError) else {}
    error = type(example)(f"the service at {secret} said no", hint=f"try {secret}", **more)
    shown = "".join(
        [str(error), repr(error), repr(error.args), error.hint, repr(error.__dict__), *traceback.format_exception(error)]
    )
    assert SECRET not in shown
    assert SECRET.encode() not in pickle.dumps(error)
    assert "***" in error.message
    assert "***" in error.hint


def test_the_key_of_the_emulator_is_hidden_too() -> None:
    assert KEY not in redact(f"AccountName=devstoreaccount1;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:10000")


@pytest.mark.parametrize(
    "text",
    [
        "vds://team/raw@12/data/token.txt",
        "https://account.blob.core.windows.net/container/prefix",
        "postgresql://db.example:5432/vds",
        "file:///data/a@b/c",
        "no transaction 'x' in this store",
        "expected b3:ba78, read b3:00f1 at 12:30:45",
        "3 files could not be uploaded",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_redacting_twice_changes_nothing() -> None:
    for shape in SHAPES.values():
        assert redact(redact(shape)) == redact(shape)


def test_failures_are_counted_and_the_first_ones_named() -> None:
    one = failures_message("uploaded", {"a": "broken"})
    assert one == "1 file could not be uploaded:\n  a: broken"
    many = failures_message("downloaded", {f"f{n:02d}": "no" for n in range(12)}).splitlines()
    assert many[0] == "12 files could not be downloaded:"
    assert (many[1], many[10], many[11]) == ("  f00: no", "  f09: no", "  … and 2 more")


def test_conflicts_hold_tuples() -> None:
    error = ConflictError("m", paths=["a"], versions=range(3))
    assert (error.paths, error.versions) == (("a",), (0, 1, 2))
    assert (ConflictError("m").paths, ConflictError("m").versions) == ((), ())
