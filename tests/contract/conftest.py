"""The index under both databases, shared by the index suites."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import services
from tests.unit.index.ledger import Ledger
from vds.index.database import Database
from vds.index.migrate import upgrade
from vds.index.stores import NamespaceRow


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """An upgraded index of this module alone, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        made = Database(tmp_path_factory.mktemp("index") / "index.sqlite")
        upgrade(made)
        yield made
        made.close()
        return
    with services.fresh_database(request.getfixturevalue("postgres_url")) as url:
        made = Database(url)
        upgrade(made)
        yield made
        made.close()


@pytest.fixture
def ledger(database: Database) -> Ledger:
    """A store of this test alone."""
    return Ledger(database)


@pytest.fixture
def namespace(ledger: Ledger) -> NamespaceRow:
    """A namespace in it."""
    return ledger.namespace()
