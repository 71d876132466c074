"""Each blob call and each SQL statement of a scripted flow goes wrong once, in every way: the result is success or one of our
errors, what was acknowledged stays, and a retry ends where the flow without faults ends.

Every step begins from a copy of the store as it was before it, so one try costs one step.
"""

from __future__ import annotations

import os
import traceback
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import vds
from tests.fault.every_check import look
from tests.fault.every_flow import INLINE_CHANGES_BYTES_MAX, STEPS, Site, Step
from tests.fault.every_index import SqliteIndex
from tests.fault.faults import make_quick
from tests.fault.sqlfaults import SqlFaults, Statement, statement_at
from tests.simulator import Call, Service, fault_at, kinds_of
from vds.errors import OutcomeUnknownError, VdsError
from vds.index.database import Database
from vds.index.migrate import upgrade

BY_NAME = {step.name: step for step in STEPS}


class NoWait:
    """A clock on which waiting takes no time."""

    def sleep(self, seconds: float) -> None:
        """Return at once."""


class Run:
    """The flow without faults: what each step begins with, what it asks for, and where it ends."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}
        self.calls: dict[str, list[Call]] = {}
        self.statements: dict[str, list[Statement]] = {}
        state: dict[str, Any] = {"versions": {}, "events": {}}
        for step in STEPS:
            if step.prepare is not None:
                with site.place.connect() as store:
                    step.prepare(site, store)
                if not step.opens:
                    state = look(site)
            site.save(step.name)
            self.before[step.name] = state
            store = self.begin(step)
            step.run(site, store)
            self.calls[step.name], self.statements[step.name] = site.service.log[:], site.sql.log[:]
            store.close()
            state = self.after[step.name] = look(site)

    def begin(self, step: Step) -> vds.Store:
        """Open the store, and count from the step's own first call on."""
        if not step.opens:
            store = self.site.place.connect()
        self.site.service.log.clear()
        self.site.sql.log.clear()
        return self.site.place.connect(create=True) if step.opens else store

    def try_step(self, step: Step, arm: Callable[[], None], reopens: bool) -> str:
        """Run a step with a fault, mend everything, run it again if it failed, and return the kind of its error."""
        site = self.site
        site.restore(step.name)
        store = None if step.opens else site.place.connect()
        site.service.log.clear()
        site.sql.log.clear()
        arm()
        error = None
        try:
            try:
                store = store or site.place.connect(create=True)
                step.run(site, store)
            except VdsError as err:
                error = err
            site.mend()
            if error is not None:
                if reopens or store is None:
                    if store is not None:
                        store.close()
                    if not step.opens:
                        seen = look(site)
                        states = [self.before[step.name]]
                        if isinstance(error, OutcomeUnknownError) or not step.is_one:
                            states.append(self.after[step.name])
                        assert seen in states, f"after {error!r} the store is not as it was"
                    store = site.place.connect(create=step.opens)
                if not is_done(store, error):
                    step.run(site, store)
            site.service.settle()
        except BaseException as err:
            if error is not None: err.add_note("AFTER " + repr(error) + "".join(traceback.format_exception(error)[-6:]))
            raise
        finally:
            site.mend()
            if store is not None:
                store.close()
        try:
            assert look(site) == self.after[step.name]
        except BaseException as err:
            if error is not None: err.add_note("AFTER " + repr(error)+ "".join(traceback.format_exception(error)[-6:]))
            raise
        return error.kind if error is not None else ""


def is_done(store: vds.Store, error: Exception) -> bool:
    """Return whether the call that ended with `error` took effect all the same, asked for as the error says."""
    return isinstance(error, OutcomeUnknownError) and bool(error.commit_id) and store.outcome(error.commit_id) is not None


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    """Give what lasts as long as this module."""
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        patch.setattr("vds.index.database.time", NoWait())
        patch.setattr("vds.engine.commit.INLINE_CHANGES_BYTES_MAX", INLINE_CHANGES_BYTES_MAX, raising=False)
        # Nothing here loses power.
        patch.setattr("vds.index.database._SQLITE_PRAGMAS", ("journal_mode=WAL", "synchronous=OFF", "foreign_keys=ON"))
        patch.setenv("VDS_CACHE_MAX", "0")
        yield patch


@pytest.fixture(scope="module")
def flow(patched: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("every")
    service = Service(f"every-{uuid.uuid4().hex}")
    service.serve(patched)
    sql = SqlFaults()
    index = SqliteIndex(root / "index.sqlite")
    made = Database(index.path)
    upgrade(made)
    made.close()
    sql.inject(patched)
    return Run(Site(service, sql, index, root / "trees"))

def test_counts(flow: Run) -> None:
    for step in STEPS:
        print(step.name, len(flow.calls[step.name]), len(flow.statements[step.name]), [(c.name, c.key[:9]) for c in flow.calls[step.name]], flow.after[step.name])
    print(sum(map(len, flow.calls.values())), sum(map(len, flow.statements.values())))

@pytest.mark.parametrize("name", list(BY_NAME))
def test_every_blob_call(name: str, flow: Run) -> None:
    step = BY_NAME[name]
    seen = []
    failures = []
    for call in flow.calls[name]:
        for kind in kinds_of(call.name):
            if kind == "garbled":
                continue
            def arm() -> None:
                flow.site.service.plan = fault_at(call.place, kind)

            try:
                seen.append((kind, flow.try_step(step, arm, bool(len(seen)%2))))
            except Exception as err:
                flow.site.mend()
                tb = traceback.extract_tb(err.__traceback__)
                failures.append(f"{name}: {kind} at blob call {call}: {err!r}\n" + "".join(traceback.format_exception(err))[-int(os.environ.get('TB','600')):])
    print(name, seen)
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("name", list(BY_NAME))
def test_every_statement(name: str, flow: Run) -> None:
    step = BY_NAME[name]
    seen = []
    failures = []
    for statement in flow.statements[name]:
        kinds = statement.kinds if statement.text == "COMMIT" else statement.kinds[statement.number%len(statement.kinds):][:1]
        for kind in kinds:
            def arm() -> None:
                flow.site.sql.plan = statement_at(statement.place, kind)

            try:
                seen.append((kind, flow.try_step(step, arm, bool(len(seen)%2))))
            except Exception as err:
                flow.site.mend()
                failures.append(f"{name}: {kind} at statement {statement}: {err!r}\n" + "".join(traceback.format_exception(err))[-int(os.environ.get('TB','600')):])
    print(name, seen)
    assert not failures, "\n".join(failures)
