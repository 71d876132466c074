"""Runs the flow once without faults, and then any of its steps again with one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import vds
from tests.fault.every_check import check_garbage, look
from tests.fault.every_flow import INLINE_CHANGES_BYTES_MAX, STEPS, Site, Step
from tests.fault.faults import make_quick
from tests.fault.sqlfaults import SqlFaults, Statement
from tests.simulator import Call, Service
from vds.errors import OutcomeUnknownError, VdsError


class _NoWait:
    """A clock on which waiting takes no time."""

    def sleep(self, seconds: float) -> None:
        pass

    def monotonic(self) -> float:
        return 0.0


def prepare(patch: pytest.MonkeyPatch, service: Service, sql: SqlFaults) -> None:
    """Have every store that is opened from now on be at the mercy of these two, and let nothing wait."""
    make_quick(patch)
    patch.setattr("vds.index.database.time", _NoWait())
    patch.setattr("vds.engine.commit.INLINE_CHANGES_BYTES_MAX", INLINE_CHANGES_BYTES_MAX)
    # Nothing here loses power.
    patch.setattr("vds.index.database._SQLITE_PRAGMAS", ("journal_mode=WAL", "synchronous=OFF", "foreign_keys=ON"))
    patch.setenv("VDS_CACHE_MAX", "0")
    service.serve(patch)
    sql.inject(patch)


class Run:
    """The flow without faults: what each step begins with, what it asks for, and where it ends.

    Attributes:
        calls: step → its blob calls.
        statements: step → its SQL statements.
        after: step → what a user sees then.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.calls: dict[str, list[Call]] = {}
        self.statements: dict[str, list[Statement]] = {}
        self._before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}
        state: dict[str, Any] = {"versions": {}, "events": {}}
        for step in STEPS:
            if step.prepare is not None:
                with site.place.connect() as store:
                    step.prepare(site, store)
                state = state if step.is_begun else look(site)
            site.save(step.name)
            self._before[step.name] = state
            with self._begin(step) as store:
                step.run(site, store)
                self.calls[step.name], self.statements[step.name] = site.service.log[:], site.sql.log[:]
            state = self.after[step.name] = look(site)

    def _begin(self, step: Step, arm: Callable[[], None] = lambda: None) -> vds.Store:
        """Open the store, armed from the step's own first call on, from which calls are counted too."""
        store = None if step.is_begun else step.begin(self.site)
        self.site.service.begin_log()
        self.site.sql.begin_log()
        arm()
        return store or step.begin(self.site)

    def try_step(self, step: Step, arm: Callable[[], None], *, reopens: bool, collects: bool = False) -> str:
        """Begin anew and run a step with a fault; mend everything, run it again if it failed, and return its error's kind.

        Args:
            step: which.
            arm: sets the fault.
            reopens: whether, after an error, the store is opened anew and looked at, or used on as it is.
            collects: whether, in the end, garbage is collected and looked for.
        """
        site = self.site
        site.restore(step.name)
        store, error = None, None
        try:
            try:
                store = self._begin(step, arm)
                step.run(site, store)
            except VdsError as err:
                error = err
            site.mend()
            if error is not None:
                if store is not None and reopens:
                    store.close()
                    self._check_between(step, error)
                if store is None or reopens:
                    store = step.begin(site)
                if not _is_done(store, error):
                    step.run(site, store)
            site.service.settle()
        finally:
            site.mend()
            if store is not None:
                store.close()
        seen = look(site)
        assert seen == self.after[step.name], f"after {error!r} and a retry: {seen} != {self.after[step.name]}"
        if collects:
            check_garbage(site)
        return error.kind if error is not None else ""

    def _check_between(self, step: Step, error: VdsError) -> None:
        """Check that a store is as the error of a call says: as before, unless the error says that nobody knows."""
        states = [self._before[step.name]]
        if isinstance(error, OutcomeUnknownError) or not step.is_one:
            states.append(self.after[step.name])
        seen = look(self.site)
        assert seen in states, f"after {error!r}: {seen} not in {states}"


def _is_done(store: vds.Store, error: VdsError) -> bool:
    """Return whether the call that ended with `error` took effect all the same, asked for as the error says."""
    return isinstance(error, OutcomeUnknownError) and bool(error.commit_id) and store.outcome(error.commit_id) is not None
