"""Breadth-first search through every state that a model can reach, and the shortest way to one that breaks a promise.

A state is any hashable value. A model is a function from a state to what may happen next: labels, and the states after.
"""

from __future__ import annotations

import gc
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

S = TypeVar("S", bound=Hashable)

Moves = Callable[[S], Iterable[tuple[str, S]]]
"""Returns what may happen in a state, with a label for each."""

STATES_MAX = 1_500_000
"""A space larger than this is a mistake in a scenario; so many take about 2 GiB."""


@dataclass(frozen=True)
class Explored:
    """What a search found.

    Attributes:
        states: how many were reached.
        transitions: how many moves were looked at.
        depth: how many moves the farthest state is away.
        labels: of the moves, each once.
        broken: what is broken in the first broken state, or None.
        trace: the labels of the shortest way there.
        is_complete: whether no state is left that was not looked at.
    """

    states: int
    transitions: int
    depth: int
    labels: frozenset[str] = frozenset()
    broken: str | None = None
    trace: tuple[str, ...] = ()
    is_complete: bool = False

    def __str__(self) -> str:
        size = f"{self.states} states, {self.transitions} transitions, depth {self.depth}"
        if self.broken is None:
            return f"{size}: {'all of them sound' if self.is_complete else 'NOT ALL OF THEM LOOKED AT'}"
        steps = "\n".join(f"{number:3}. {label}" for number, label in enumerate(self.trace, 1))
        return f"{size}: BROKEN: {self.broken}\n{steps}"


def explore(start: S, moves: Moves[S], find_broken: Callable[[S], str | None], *, states_max: int = STATES_MAX) -> Explored:
    """Look at every reachable state, nearest first, until one is broken or none is left."""
    came_from: dict[S, S | None] = {start: None}
    labels: set[str] = set()
    if (what := find_broken(start)) is not None:
        return Explored(1, 0, 0, broken=what)
    level, depth, transitions = [start], 0, 0
    with _no_cycles():
        while level:
            following: list[S] = []
            for state in level:
                for label, after in moves(state):
                    transitions += 1
                    labels.add(label)
                    known = len(came_from)
                    came_from.setdefault(after, state)
                    if len(came_from) == known:
                        continue
                    if (what := find_broken(after)) is not None:
                        trace = trace_to(after, came_from, moves)
                        return Explored(known + 1, transitions, depth + 1, frozenset(labels), what, trace)
                    following.append(after)
            if len(came_from) > states_max:
                return Explored(len(came_from), transitions, depth, frozenset(labels))
            level = following
            depth += bool(level)
    return Explored(len(came_from), transitions, depth, frozenset(labels), is_complete=True)


@contextmanager
def _no_cycles() -> Iterator[None]:
    """Keep Python from looking for cycles among millions of tuples, which have none: a quarter of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def trace_to(state: S, came_from: dict[S, S | None], moves: Moves[S]) -> tuple[str, ...]:
    """Return the labels of the way on which a state was first reached."""
    labels: list[str] = []
    while (before := came_from[state]) is not None:
        labels.append(next(label for label, after in moves(before) if after == state))
        state = before
    return tuple(reversed(labels))


def find_stuck(start: S, moves: Moves[S], is_goal: Callable[[S], bool]) -> tuple[Explored, int]:
    """Look for states from which no way leads to a goal.

    Returns what was explored, broken when there is such a state, with the way to the nearest; and how many goals there are.
    """
    came_from: dict[S, S | None] = {start: None}
    numbers: dict[S, int] = {start: 0}
    states, sources, targets = [start], array("I"), array("I")
    with _no_cycles():
        for number, state in enumerate(states):  # the list grows while it is walked: nearest first
            for _, after in moves(state):
                if after not in numbers:
                    numbers[after] = len(states)
                    came_from[after] = state
                    states.append(after)
                sources.append(number)
                targets.append(numbers[after])
    goals = [number for number, state in enumerate(states) if is_goal(state)]
    leads = _find_leading(len(states), sources, targets, goals)
    stuck = next((state for number, state in enumerate(states) if not leads[number]), None)
    if stuck is None:
        return Explored(len(states), len(sources), 0, is_complete=True), len(goals)
    what = f"from {len(states) - sum(leads)} states no way leads to a goal"
    trace = trace_to(stuck, came_from, moves)
    return Explored(len(states), len(sources), 0, broken=what, trace=trace, is_complete=True), len(goals)


def _find_leading(count: int, sources: array[int], targets: array[int], goals: list[int]) -> bytearray:
    """Return, by state, whether a way leads from it to a goal."""
    ends = array("I", bytes(4 * (count + 1)))  # where the list of a state's predecessors ends, in `before`
    for target in targets:
        ends[target + 1] += 1
    for number in range(count):
        ends[number + 1] += ends[number]
    places, before = array("I", ends), array("I", bytes(4 * len(sources)))
    for source, target in zip(sources, targets, strict=True):
        before[places[target]] = source
        places[target] += 1
    leads, left = bytearray(count), list(goals)
    for goal in goals:
        leads[goal] = 1
    while left:
        number = left.pop()
        for source in before[ends[number] : ends[number + 1]]:
            if not leads[source]:
                leads[source] = 1
                left.append(source)
    return leads
