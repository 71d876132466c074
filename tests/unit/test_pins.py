"""Refs are resolved once a process: by all threads alike, until `vds.refresh()`, and per store."""

from __future__ import annotations

import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import vds
import vds.pins
from tests.support import NEEDS_FORK, exit_code, in_fork
from vds.errors import InvalidInputError, NotFoundError
from vds.pins import Pins
from vds.store import Store, Version

_numbers = itertools.count(1)


@pytest.fixture
def url() -> str:
    return f"memory://pins-{next(_numbers)}"


@pytest.fixture
def store(url: str) -> Store:
    made = vds.connect(url, create=True)
    for number in range(3):
        write(made, str(number))
    return made


def write(store: Store, text: str) -> Version:
    with store.namespace("team/raw").transaction() as tx:
        tx.write_text("a", text)
    version = tx.version
    assert version is not None
    return version


class TestRefs:
    def test_a_moving_ref_stays_until_it_is_dropped(self, store: Store) -> None:
        pins = Pins()
        assert pins.get(store, "team/raw@latest").number == 3
        write(store, "more")
        assert pins.get(store, "team/raw@latest").number == 3
        pins.drop()
        assert pins.get(store, "team/raw@latest").number == 4

    def test_refresh_is_public_and_says_it_to_this_process(self, store: Store) -> None:
        assert vds.pins.PINS.get(store, "team/raw@latest").number == 3
        generation = vds.pins.PINS.generation
        write(store, "more")
        vds.refresh()
        assert vds.pins.PINS.get(store, "team/raw@latest").number == 4
        assert vds.pins.PINS.generation == generation + 1

    def test_stores_do_not_share_pins(self, store: Store) -> None:
        pins = Pins()
        with vds.connect(f"memory://pins-{next(_numbers)}", create=True) as other:
            write(other, "only")
            assert pins.get(store, "team/raw@latest").number == 3
            assert pins.get(other, "team/raw@latest").number == 1

    def test_fixed_refs_are_kept_up_to_a_limit(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(vds.pins, "FIXED_MAX", 2)
        pins = Pins()
        first, second = pins.get(store, "team/raw@1"), pins.get(store, "team/raw@2")
        assert pins.get(store, "team/raw@1") is first
        pins.get(store, "team/raw@3")
        assert pins.get(store, "team/raw@2") is second
        again = pins.get(store, "team/raw@1")
        assert again == first
        assert again is not first

    def test_fixed_refs_do_not_push_moving_ones_out(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(vds.pins, "FIXED_MAX", 1)
        pins = Pins()
        moving = pins.get(store, "team/raw@latest")
        for number in (1, 2, 3):
            pins.get(store, f"team/raw@{number}")
        assert pins.get(store, "team/raw@latest") is moving

    def test_a_version_that_came_along_is_found_under_its_uri(self, store: Store) -> None:
        pins, version = Pins(), store.get("team/raw@2")
        pins.keep(store, version)
        assert pins.get(store, version.uri) is version

    def test_what_is_not_there_is_asked_for_again(self, store: Store) -> None:
        pins = Pins()
        with pytest.raises(NotFoundError):
            pins.get(store, "team/raw@4")
        write(store, "more")
        assert pins.get(store, "team/raw@4").number == 4

    def test_what_is_no_ref_is_refused(self, store: Store) -> None:
        with pytest.raises(InvalidInputError):
            Pins().get(store, "team//raw@")

    def test_threads_resolve_it_once(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []
        find = Store.get

        def count(self: Store, ref: str) -> Version:
            asked.append(ref)
            return find(self, ref)

        monkeypatch.setattr(Store, "get", count)
        pins, barrier = Pins(), threading.Barrier(8)

        def read(_: int) -> Version:
            barrier.wait()
            return pins.get(store, "team/raw@latest")

        with ThreadPoolExecutor(8) as pool:
            versions = list(pool.map(read, range(8)))
        assert asked == ["team/raw@latest"]
        assert len({id(version) for version in versions}) == 1

    @NEEDS_FORK
    def test_a_forked_child_has_the_pins_and_a_free_lock(self, store: Store) -> None:
        version = vds.pins.PINS.get(store, "team/raw@latest")

        def look() -> None:
            assert vds.pins.PINS.get(store, "team/raw@latest") is version
            vds.pins.PINS.drop()

        with vds.pins.PINS._lock:  # as if another thread were resolving just now
            pid = in_fork(look)
        assert exit_code(pid) == 0


class TestStores:
    def test_a_store_is_opened_once_and_for_reading(self, store: Store) -> None:
        pins = Pins()
        opened = pins.open_store(store.url, None)
        assert opened.read_only
        assert pins.open_store(store.url, None) is opened

    def test_another_credential_is_another_opening(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[object] = []

        def connect(url: str, *, credential: object, **_: Any) -> Store:
            asked.append(credential)
            return Store(store._handle)

        monkeypatch.setattr(vds.pins, "connect", connect)
        pins = Pins()
        one, two = object(), object()
        opened = {credential: pins.open_store(store.url, None, credential) for credential in (one, two, "key", None)}
        assert asked == [one, two, "key", None]
        assert len({id(each) for each in opened.values()}) == 4
        assert all(pins.open_store(store.url, None, credential) is each for credential, each in opened.items())

    def test_another_variable_is_another_store(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        pins = Pins()
        monkeypatch.setenv("VDS_STORE", store.url)
        assert pins.open_store(None, None).id == store.id
        with vds.connect(f"memory://pins-{next(_numbers)}", create=True) as other:
            monkeypatch.setenv("VDS_STORE", other.url)
            assert pins.open_store(None, None).id == other.id

    def test_a_store_that_cannot_be_opened_is_tried_again(self, url: str) -> None:
        pins = Pins()
        with pytest.raises(NotFoundError):
            pins.open_store(url, None)
        with vds.connect(url, create=True) as made:
            assert pins.open_store(url, None).id == made.id

    def test_no_store_is_ever_guessed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        assert "VDS_STORE" not in os.environ
        with pytest.raises(NotFoundError, match="no store is configured"):
            Pins().open_store(None, None)

    def test_a_store_that_came_along_does_not_replace_one(self, store: Store) -> None:
        pins = Pins()
        opened = pins.open_store(store.url, None)
        pins.keep_store(store.url, None, store)
        assert pins.open_store(store.url, None) is opened
        fresh = Pins()
        fresh.keep_store(store.url, None, store)
        assert fresh.open_store(store.url, None) is store
