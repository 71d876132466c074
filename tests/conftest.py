"""Fixtures of all tests: the services, started once for all workers and only when a test may need them."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import services

_STARTED = pytest.StashKey[ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep this machine's own settings out of the tests; with xdist, start the services for the workers."""
    for name in list(os.environ):
        if name.startswith(("AZURE_", "VDS_")) and not name.startswith("VDS_TEST_"):
            del os.environ[name]
    is_worker = hasattr(config, "workerinput")
    if not is_worker:
        # A cancelled run gets SIGTERM; by default it would leave the services behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    has_workers = bool(config.getoption("numprocesses", None))
    if is_worker or not has_workers or config.option.collectonly or "not services" in config.option.markexpr:
        return  # without workers the fixtures below start each service when the first test asks for it
    started = config.stash[_STARTED] = ExitStack()
    # Workers inherit the environment.
    os.environ["VDS_TEST_AZURITE_URL"] = started.enter_context(services.azurite())
    os.environ["VDS_TEST_POSTGRES_URL"] = started.enter_context(services.postgres())


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was started, whatever became of the tests."""
    config.stash.get(_STARTED, ExitStack()).close()


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the caches of this worker's tests are."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def own_cache(caches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a cache of its own, which is made when something is put: what one test kept must not help another."""
    path = caches / uuid.uuid4().hex
    monkeypatch.setenv("VDS_CACHE", str(path))
    return path


@pytest.fixture(scope="session")
def azurite_url() -> Iterator[str]:
    """Return the url of a running Azurite, `azurite://127.0.0.1:PORT`; add `/CONTAINER[/PREFIX]`."""
    with services.azurite() as url:
        yield url


@pytest.fixture
def container_url(azurite_url: str) -> str:
    """Return the url of a container in Azurite that no other test uses; it is not made yet."""
    return f"{azurite_url}/test-{uuid.uuid4().hex}"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """Return the url of a running PostgreSQL server, `postgresql://USER:PW@127.0.0.1:PORT/DB`."""
    with services.postgres() as url:
        yield url


@pytest.fixture
def database_url(postgres_url: str) -> Iterator[str]:
    """Return the url of an empty PostgreSQL database of this test alone."""
    with services.fresh_database(postgres_url) as url:
        yield url
