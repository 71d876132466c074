"""Tokens for the index's database: from the credential that was passed in, else the environment's; errors say who was asked."""

from __future__ import annotations

import os
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ServiceRequestError

from tests.support import NEEDS_FORK, exit_code, in_fork
from vds.blobs import entra
from vds.blobs.entra import ask_token
from vds.errors import AccessDeniedError, UnavailableError, VdsError

SCOPE = "https://ossrdbms-aad.database.windows.net/.default"


class Credential:
    """Gives one token for each scope, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[str] = []

    def get_token(self, scope: str) -> SimpleNamespace:
        self.asked.append(scope)
        if self.error is not None:
            raise self.error
        return SimpleNamespace(token=f"token {len(self.asked)}", expires_on=0)


class NewerCredential:
    """Has only the newer of the two methods."""

    def get_token_info(self, scope: str) -> SimpleNamespace:
        return SimpleNamespace(token=f"for {scope}", expires_on=0)


@pytest.fixture
def default(monkeypatch: pytest.MonkeyPatch) -> Credential:
    """The environment's own credential."""
    made = Credential()
    monkeypatch.setattr(entra, "DefaultAzureCredential", lambda: made)
    entra._default_credential.cache_clear()
    return made


def test_the_credential_passed_in_is_asked_each_time(default: Credential) -> None:
    credential = Credential()
    assert [ask_token(credential, SCOPE) for _ in range(2)] == ["token 1", "token 2"]
    assert ask_token(NewerCredential(), SCOPE) == f"for {SCOPE}"
    assert (credential.asked, default.asked) == ([SCOPE, SCOPE], [])


@pytest.mark.parametrize("credential", [None, "a2V5", "sv=1&sig=x", SimpleNamespace(signature="sig=x")])
def test_what_opens_only_the_container_is_no_token_credential(default: Credential, credential: object) -> None:
    assert ask_token(credential, SCOPE) == "token 1"
    assert default.asked == [SCOPE]


def test_the_environments_credential_is_made_once_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def make() -> Credential:
        made.append(os.getpid())
        return Credential()

    monkeypatch.setattr(entra, "DefaultAzureCredential", make)
    entra._default_credential.cache_clear()
    ask_token(None, SCOPE)
    ask_token(None, SCOPE)
    assert made == [os.getpid()]


@NEEDS_FORK
def test_a_forked_child_makes_its_own(default: Credential, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_token(None, SCOPE)

    def child() -> None:
        monkeypatch.setattr(entra, "DefaultAzureCredential", Credential)
        assert ask_token(None, SCOPE) == "token 1"  # the parent's would give its second

    assert exit_code(in_fork(child)) == 0


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: ClientAuthenticationError("secret detail"), AccessDeniedError),
        (lambda: ServiceRequestError("no route"), UnavailableError),
        (lambda: HttpResponseError("503"), UnavailableError),
    ],
)
def test_no_token_says_who_was_asked_and_what_to_do(make: Callable[[], Exception], expected: type[VdsError]) -> None:
    with pytest.raises(expected, match="Credential") as caught:
        ask_token(Credential(make()), SCOPE)
    assert SCOPE in str(caught.value)
    assert "secret detail" not in str(caught.value)
    assert caught.value.hint
