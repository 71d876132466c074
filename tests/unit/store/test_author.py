"""Who is recorded as a version's author: VDS_AUTHOR, else whom the credential names, else the user of this machine."""

from __future__ import annotations

import pytest

from tests.unit.store.trees import WatchedDriver
from vds.provenance import author
from vds.store import Store


def commit_one(store: Store, name: str) -> str:
    with store.namespace("team/raw").transaction() as tx:
        tx.write_text(name, name)
    return tx.version.author


def test_the_credential_names_the_author(watched: Store, driver: WatchedDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def find_principal() -> str:
        asked.append("asked")
        return "ada@example.com"

    monkeypatch.delenv("VDS_AUTHOR", raising=False)
    watched.namespace("team/raw")._handle._author = None
    monkeypatch.setattr(driver, "find_principal", find_principal)
    assert commit_one(watched, "a") == "ada@example.com"
    assert commit_one(watched, "b") == "ada@example.com"
    assert asked == ["asked"]  # a token a store, not a token a commit


def test_vds_author_is_believed_first_and_asks_nobody(
    watched: Store, driver: WatchedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "find_principal", lambda: pytest.fail("asked for a token"))
    monkeypatch.setenv("VDS_AUTHOR", "nightly job")
    assert commit_one(watched, "a") == "nightly job"


def test_else_it_is_the_user_of_this_machine(watched: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VDS_AUTHOR", raising=False)
    assert commit_one(watched, "a") == author()
