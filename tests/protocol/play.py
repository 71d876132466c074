"""How actors move: one statement at a time, holding row locks like PostgreSQL, or a whole transaction at once like SQLite.

On PostgreSQL (READ COMMITTED) each step of a program is one statement: it sees what was committed when it began, and waits while
another transaction holds a row that it wants. What a transaction writes is applied by its last step, since nobody sees it before.
Who waits with locks in hand may be rolled back at any time, as the victim of a deadlock is. On SQLite nobody moves while somebody
is in a write transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.protocol.network import land, publish_all
from tests.protocol.world import Actor, Index, Lock, State, put

Move = tuple[str, State]

Row = tuple[str, int]
"""A table, and the number of a row in it."""


class Role(NamedTuple):
    """What an actor is there for; the same in all states of a scenario.

    Attributes:
        start: the first step of its program.
        db: which index it uses.
        keys: those it may give out, each once.
        changes: what a writer commits.
        acts: what a collector or an operator may do.
        after_crash: where it is found again; None for what does not crash.
    """

    name: str
    start: str
    db: int = 0
    keys: tuple[int, ...] = ()
    changes: tuple[tuple[str, int], ...] = ()
    acts: frozenset[str] = frozenset()
    after_crash: str | None = "dead"


@dataclass(frozen=True)
class Rules:
    """The protocol's rules, each of which a test breaks to see that its loss is noticed.

    Attributes:
        keys_are_fresh: no key is given out twice; else one whose blob is deleted is used again for the same content.
        deletes_conditionally: DELETE carries the etag.
        judges_in_second_statement: the collector locks, then looks at what is used; else one statement does both.
        looks_again: before `deleting`, whether something is used is looked at again.
        commit_holds_needs: a commit locks the blobs it refers to, shared, until its end.
        commit_checks_moves: the locked step of a commit holds the needs' `moves` against those listed.
        switch_checks_used: a repack looks under its locks whether something used was not copied.
        revives_condemned_only: else `deleting` is revived too, its placements being kept.
        collectors_take_turns: each transaction that judges what is used locks one row of the store first.
        deletes_after_commit: no DELETE before `deleting` is committed.
        deletes_after_record: no DELETE before the record that names its key is in the container.
        flushes_for_what_it_found: nor before that of another collector's, found `deleting`.
        reap_checks_state: only what is still pending is reaped.
        reap_checks_owner: only what still belongs to the upload that ended is reaped.
        undo_checks: undo gives back what it finds in blobs that it "held" before it looked; what is in blobs that are "live"; or
            all, with "no" look.
        undo_tells_log_first: an undo is acknowledged when its record is in the container.
        rebuild_fences: a rebuild begins by taking the next number of the store's log.
        rebuild_believes_log: a rebuild counts keys named in keys-deleting as gone.
        rebuild_reads_names_first: the journal before the listing of blobs.
        rebuild_lists_formats_first: it puts the format record after the last one that it saw before it looked for a later fence.
        log_is_in_order: a record of the store's log is put only when all before it are there.
        look: how a writer looks for the fence before it acknowledges: "walk" from a record known to be its index's own to
            the first absent one; "next" at the one after the last its index knows now; "flush" likewise, once all that its index
            knows is in the container; "no" does not.
        looks_again_at_index: once a record is in the container, and before anything follows from it, writers and collectors see
            whether their index still knows it: needed where an index may be put back under those who are at work.
        outcome_looks: asking for the outcome of a commit looks for the fence too.
        checks_fresh: how a session's opening holds its index against the container: "exact", "next" or "no".
    """

    keys_are_fresh: bool = True
    deletes_conditionally: bool = True
    judges_in_second_statement: bool = True
    looks_again: bool = True
    commit_holds_needs: bool = True
    commit_checks_moves: bool = True
    switch_checks_used: bool = True
    revives_condemned_only: bool = True
    collectors_take_turns: bool = True
    deletes_after_commit: bool = True
    deletes_after_record: bool = True
    flushes_for_what_it_found: bool = True
    reap_checks_state: bool = True
    reap_checks_owner: bool = True
    undo_checks: str = "held"
    undo_tells_log_first: bool = True
    rebuild_fences: bool = True
    rebuild_believes_log: bool = True
    rebuild_reads_names_first: bool = True
    rebuild_lists_formats_first: bool = True
    log_is_in_order: bool = True
    look: str = "walk"
    looks_again_at_index: bool = False
    outcome_looks: bool = True
    checks_fresh: str = "exact"


@dataclass(frozen=True)
class Scenario:
    """A small world to search through.

    Attributes:
        is_sqlite: transactions are one step; else each of their statements is.
        publishes_at_once: records are in the container as soon as they are committed: where nobody restores or rebuilds an index,
            their way there makes no difference.
        repeats: how often a request that landed may land again.
        cuts_off: an index that is put back ends all sessions; else they go on, as with a database that fails over.
        resumes: uploads take over pending blobs of others.
        promises: which promises are looked at, by name (`tests.protocol.promises`).
    """

    name: str
    start: State
    roles: tuple[Role, ...]
    rules: Rules = field(default_factory=Rules)
    is_sqlite: bool = True
    publishes_at_once: bool = False
    repeats: int = 0
    cuts_off: bool = True
    resumes: bool = False
    promises: tuple[str, ...] = ("recoverable", "readable", "held")


class Turn:
    """One actor at one moment, and the moves it makes from there."""

    __slots__ = ("_db", "actor", "i", "role", "rules", "s", "scenario")

    def __init__(self, scenario: Scenario, s: State, i: int) -> None:
        self.scenario = scenario
        self.rules = scenario.rules
        self.s = s
        self.i = i
        self.actor = s.actors[i]
        self.role = scenario.roles[i]
        self._db = s.dbs[self.role.db]

    @property
    def db(self) -> Index:
        """The index this actor uses."""
        assert self._db is not None
        return self._db

    @property
    def key(self) -> int | None:
        """The next key it would give out, or None when it has given out all."""
        return self.role.keys[self.actor.given] if self.actor.given < len(self.role.keys) else None

    @property
    def mem(self) -> tuple[Any, ...]:
        """What it remembers from before its transaction."""
        return self.actor.mem

    @property
    def seen(self) -> tuple[Any, ...]:
        """What its transaction saw."""
        return self.actor.seen

    def may(self, act: str) -> bool:
        """Return whether its role allows something."""
        return act in self.role.acts

    def go(
        self,
        what: str,
        step: str,
        *,
        mem: tuple[object, ...] | None = None,
        seen: tuple[object, ...] = (),
        locks: tuple[Lock, ...] = (),
        given: int | None = None,
        db: Index | None = None,
        **world: Any,
    ) -> Move:
        """Return one move: to a step, with what changes in the world. Locks that are not passed on are released."""
        actor = self.actor
        me = Actor(step, actor.mem if mem is None else mem, seen, locks, actor.given if given is None else given)
        world["actors"] = put(self.s.actors, self.i, me)
        if db is not None:
            world["dbs"] = put(self.s.dbs, self.role.db, db)
        after = self.s._replace(**world)
        if db is not None and db.queue and self.scenario.publishes_at_once:
            after = publish_all(after, self.role.db)
        return f"{self.role.name} {what}", after

    def lock(self, exclusive: Iterable[Row] = (), shared: Iterable[Row] = ()) -> tuple[Lock, ...] | None:
        """Return the locks held with these rows as well, or None while another transaction holds one of them against it."""
        n = self.role.db
        wanted = {Lock((table, n, row), True) for table, row in exclusive}
        wanted |= {Lock((table, n, row), False) for table, row in shared}
        for j, other in enumerate(self.s.actors):
            if j == self.i or not other.locks:
                continue
            for held in other.locks:
                if any(held.row == lock.row and (held.is_exclusive or lock.is_exclusive) for lock in wanted):
                    return None
        return tuple(sorted({*self.actor.locks, *wanted}))

    def wait(self, begin: str) -> Iterator[Move]:
        """Wait for a lock: who holds none just waits; else it may be a deadlock, whose victim begins again."""
        if self.actor.locks:
            yield self.go("waits for a lock, is rolled back and begins again", begin)


Step = Callable[[Turn], Iterator[Move]]


def play(scenario: Scenario, programs: dict[str, Step]) -> Callable[[State], Iterator[Move]]:
    """Return the function from a state to what may happen next."""

    def move(s: State, i: int) -> Iterator[Move]:
        step = programs.get(s.actors[i].step)
        if step is None:
            return  # done or dead
        for label, after in step(Turn(scenario, s, i)):
            if scenario.is_sqlite and after.actors[i].locks:
                for rest, committed in move(after, i):
                    yield f"{label}; {rest.partition(' ')[2]}", committed
            else:
                yield label, after

    def crash(s: State, i: int) -> Iterator[Move]:
        role, actor = scenario.roles[i], s.actors[i]
        if role.after_crash is not None and actor.step in programs and actor.step not in (role.start, role.after_crash):
            yield f"{role.name} crashes", s._replace(actors=put(s.actors, i, Actor(role.after_crash, given=actor.given)))

    def moves(s: State) -> Iterator[Move]:
        for i in range(len(s.actors)):
            yield from move(s, i)
            yield from crash(s, i)
        yield from land(s, is_tidy=scenario.rules.keys_are_fresh)

    return moves
