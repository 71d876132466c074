"""Bad days: all through a scripted flow calls and statements go wrong, and requests arrive late, twice and out of order.

Whoever repeats each step until it succeeds ends where a good day ends. One seed is one day, the same each time.
"""

from __future__ import annotations

import os
import random
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import vds
from tests.fault.every_check import check_garbage, look
from tests.fault.every_flow import STEPS, Site, Step
from tests.fault.every_index import SqliteIndex
from tests.fault.every_run import Run, prepare
from tests.fault.sqlfaults import Kind as SqlKind
from tests.fault.sqlfaults import SqlFaults, Statement
from tests.simulator import Kind, Service, drawn
from vds.errors import OutcomeUnknownError, VdsError
from vds.index.database import Database
from vds.index.migrate import upgrade

SEEDS = range(int(os.environ.get("VDS_TEST_SEEDS", "12")))
TRIES_MAX = 60
FAULTS_A_TRY = 0.6
"""How many of the blob calls of a step go wrong on average, and likewise of its statements."""
DELAY_S_MAX = 3.0  # some three hundred requests
KINDS: list[Kind] = ["refused", "throttled", "lost", "late", "retried", "repeated", "full", "short"]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SqlFaults, Path]]:
    """Return what decides over all statements, and a directory with an empty index."""
    root, sql = tmp_path_factory.mktemp("seeds"), SqlFaults()
    database = Database(root / "empty.sqlite")
    upgrade(database)
    database.close()
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch, Service("nobody"), sql)
        yield sql, root


def make_site(sites: tuple[SqlFaults, Path], patch: pytest.MonkeyPatch) -> Site:
    sql, root = sites
    service = Service(f"seed-{uuid.uuid4().hex}")
    service.serve(patch)
    index = Path(shutil.copy(root / "empty.sqlite", root / f"{service.name}.sqlite"))
    return Site(service, sql, SqliteIndex(index), root / "trees")


@pytest.fixture(scope="module")
def good_day(sites: tuple[SqlFaults, Path]) -> Run:
    """Return how it goes when nothing goes wrong."""
    with pytest.MonkeyPatch.context() as patch:
        return Run(make_site(sites, patch))


class BadDay:
    """One use of a site on which things go wrong.

    Attributes:
        errors: how many were seen.
    """

    def __init__(self, site: Site, seed: int, good_day: Run) -> None:
        self.site = site
        self._good_day = good_day
        self.errors = 0
        self._seed = seed
        self._chance = random.Random(seed)
        self._store: vds.Store | None = None
        self._unknown = ""

    def live_through(self, step: Step) -> None:
        """Repeat a step until it succeeds, on the open store or on one opened anew."""
        if step.prepare is not None:
            with self._open_on_a_good_moment() as store:
                step.prepare(self.site, store)
        if step.is_begun:
            self.close()
        for number in range(TRIES_MAX):
            self._arm(step, f"{self._seed}/{step.name}/{number}")
            try:
                self._try_once(step)
                return
            except VdsError as err:
                self.errors += 1
                if isinstance(err, OutcomeUnknownError) and err.commit_id:
                    self._unknown = err.commit_id
                if self._chance.random() < 0.5:
                    self.close()
            finally:
                self.site.mend()
        raise AssertionError(f"{step.name} did not succeed in {TRIES_MAX} tries")

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()
        self._store = None

    def _try_once(self, step: Step) -> None:
        self._store = self._store or step.begin(self.site)
        if self._unknown and self._store.outcome(self._unknown) is not None:
            self._unknown = ""
            return
        self._unknown = ""
        step.run(self.site, self._store)

    def _open_on_a_good_moment(self) -> vds.Store:
        self.close()
        return self.site.place.connect()

    def _arm(self, step: Step, seed: str) -> None:
        self.site.service.begin_log()
        self.site.sql.begin_log()
        calls, statements = self._good_day.calls, self._good_day.statements
        # The store may have to be opened too.
        share = FAULTS_A_TRY / (len(calls[step.name]) + len(calls["open"]))
        self.site.service.plan = drawn(seed, share, KINDS, DELAY_S_MAX)
        share = FAULTS_A_TRY / (len(statements[step.name]) + len(statements["open"]))

        def plan(statement: Statement) -> SqlKind | None:
            chance = random.Random(f"{seed}/{statement.place}")
            return chance.choice(statement.kinds) if chance.random() < share else None

        self.site.sql.plan = plan


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bad_day_ends_as_a_good_one(seed: int, sites: tuple[SqlFaults, Path], good_day: Run) -> None:
    with pytest.MonkeyPatch.context() as patch:
        site = make_site(sites, patch)
        day = BadDay(site, seed, good_day)
        try:
            for step in STEPS:
                day.live_through(step)
        finally:
            site.mend()
            day.close()
        site.service.settle()
        assert day.errors > 5
        assert look(site) == good_day.after[STEPS[-1].name]
        check_garbage(site)
