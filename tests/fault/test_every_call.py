"""Each blob call and each SQL statement of a scripted flow goes wrong once, in every way: the result is success or one of our
errors, what was acknowledged stays, and a retry ends where the flow without faults ends.

Every step begins from a copy of the store as it was before it, so one try costs one step.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests import services
from tests.fault.every_flow import STEPS, Site
from tests.fault.every_index import Index, PostgresIndex, SqliteIndex
from tests.fault.every_run import Run, prepare
from tests.fault.sqlfaults import Kind as SqlKind
from tests.fault.sqlfaults import SqlFaults, Statement, statement_at
from tests.simulator import Call, Kind, Service, fault_at, kinds_of
from vds.index.database import Database
from vds.index.migrate import upgrade

BY_NAME = {step.name: step for step in STEPS}
LONG = {"upload", "transaction", "condemn", "collect"}
NAMES = [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in BY_NAME]

NOT_HIT = "not hit"
"""What became of a fault whose turn never came: threads decide what goes into one transaction, and over how many connections."""

CONNECTION_STATEMENTS = 8
STRIDES = {"rebuild": 3}
"""Of how many statements of a step one goes wrong: a rebuild that fails anywhere is begun again from its beginning."""

POSTGRES_SEED = 1
POSTGRES_TRIES = 2
"""How many blob calls, and how many statements, of each step go wrong on PostgreSQL."""


def run_flow(index: Index, work: Path) -> Iterator[Run]:
    """Give the flow on an empty index, and everything that is opened meanwhile at the mercy of its plans."""
    service, sql = Service(f"every-{uuid.uuid4().hex}"), SqlFaults()
    database = Database(index.url)
    upgrade(database)  # making the tables takes longer than all the rest
    database.close()
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch, service, sql)
        yield Run(Site(service, sql, index, work))


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run the flow on SQLite."""
    root = tmp_path_factory.mktemp("every")
    yield from run_flow(SqliteIndex(root / "index.sqlite"), root / "trees")


@pytest.fixture
def postgres_flow(postgres_url: str, tmp_path: Path) -> Iterator[Run]:
    """Run the flow on PostgreSQL."""
    with ExitStack() as stack:
        index = PostgresIndex(stack.enter_context(services.fresh_database(postgres_url)))
        stack.callback(index.drop_copies)
        yield from run_flow(index, tmp_path / "trees")


def try_call(flow: Run, name: str, call: Call, kind: Kind, number: int) -> str:
    """Run a step with one blob call gone wrong."""

    def arm() -> None:
        flow.site.service.plan = fault_at(call.place, kind)

    try:
        outcome = flow.try_step(BY_NAME[name], arm, reopens=number % 2 == 0, collects=kind == "late")
        return outcome if flow.site.service.fired else NOT_HIT
    except BaseException as err:
        err.add_note(f"this is step {name}, {kind} at {call}")
        raise


def try_statement(flow: Run, name: str, statement: Statement, kind: SqlKind, number: int) -> str:
    """Run a step with one statement gone wrong."""

    def arm() -> None:
        flow.site.sql.plan = statement_at(statement.place, kind)

    try:
        outcome = flow.try_step(BY_NAME[name], arm, reopens=number % 2 == 0, collects=number % 20 == 0)
        return outcome if flow.site.sql.fired else NOT_HIT
    except BaseException as err:
        err.add_note(f"this is step {name}, {kind} at {statement}")
        raise


def call_faults(flow: Run, name: str) -> list[tuple[Call, Kind]]:
    """Return what can go wrong with the blob calls of a step; what is garbled unseen is for the tests of damage."""
    return [(call, kind) for call in flow.calls[name] for kind in kinds_of(call.name) if kind != "garbled"]


def statement_faults(flow: Run, name: str) -> list[tuple[Statement, SqlKind]]:
    """Return what can go wrong with the statements of a step: of all but a COMMIT one way each, in turn.

    However a statement fails inside a transaction, all of that is undone, and one line of vds tells the ways apart.
    """
    faults: list[tuple[Statement, SqlKind]] = []
    for statement in flow.statements[name][:: STRIDES.get(name, 1)]:
        kinds = statement.kinds
        chosen = kinds if statement.text == "COMMIT" else [kinds[statement.number % len(kinds)]]
        faults += [(statement, kind) for kind in chosen]
    return faults


def check_hits(outcomes: list[str]) -> None:
    """Check that nearly all faults came to pass: all but those of one connection more or less, and one in ten."""
    assert outcomes.count(NOT_HIT) <= len(outcomes) // 10 + CONNECTION_STATEMENTS


def test_the_flow_does_what_it_is_for(flow: Run) -> None:
    asked = {name: [(call.name, call.area) for call in calls] for name, calls in flow.calls.items()}
    assert {"stage_block", "commit_blocks"} <= {name for name, _ in asked["upload"]}
    assert ("put_if_absent", "changes") in asked["upload"]
    assert ("put_if_absent", "packs") in asked["condemn"]  # a pack that was mostly dead
    assert asked["collect"].count(("delete_blob", "objects")) == asked["collect"].count(("delete_blob", "packs")) == 1
    assert ("delete_blob", "packs") in asked["erase"]
    assert {statement.text for statement in flow.statements["upload"]} >= {"BEGIN IMMEDIATE", "COMMIT"}
    assert any("INSERT INTO staged" in statement.text for statement in flow.statements["upload"])  # by the driver's own cursor


@pytest.mark.parametrize("name", NAMES)
def test_every_blob_call(name: str, flow: Run) -> None:
    outcomes = [try_call(flow, name, *fault, number) for number, fault in enumerate(call_faults(flow, name))]
    check_hits(outcomes)
    assert "" in outcomes
    assert {"unavailable", "outcome-unknown"} & {*outcomes}


@pytest.mark.parametrize("name", NAMES)
def test_every_statement(name: str, flow: Run) -> None:
    outcomes = [try_statement(flow, name, *fault, number) for number, fault in enumerate(statement_faults(flow, name))]
    check_hits(outcomes)
    assert {"unavailable", "no-space", "outcome-unknown"} & {*outcomes}


# A cursor of the server's whose connection broke is not closed by SQLAlchemy, since there is nothing left to close.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <function ServerCursorMixin:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.services
def test_some_calls_and_statements_on_postgresql(postgres_flow: Run) -> None:
    texts = {statement.text for statements in postgres_flow.statements.values() for statement in statements}
    assert {"CONNECT", "COMMIT", "FETCH"} <= texts
    assert any(text.startswith("COPY staged") for text in texts)
    chance = random.Random(POSTGRES_SEED)
    for name in BY_NAME:
        calls, statements = call_faults(postgres_flow, name), statement_faults(postgres_flow, name)
        commits = [fault for fault in statements if fault[0].text == "COMMIT" and fault[1] == "lost"]
        for number, fault in enumerate(chance.sample(calls, min(len(calls), POSTGRES_TRIES))):
            try_call(postgres_flow, name, *fault, number)
        chosen = chance.sample(statements, POSTGRES_TRIES) + chance.sample(commits, min(len(commits), 1))
        for number, picked in enumerate(chosen):
            try_statement(postgres_flow, name, *picked, number)
