"""The search itself, on graphs that one can draw."""

from __future__ import annotations

from collections.abc import Iterator

from tests.protocol.search import explore, find_stuck

Edges = dict[int, list[int]]


def walk(edges: Edges, state: int) -> Iterator[tuple[str, int]]:
    for after in edges.get(state, []):
        yield f"{state} to {after}", after


RING: Edges = {0: [1, 2], 1: [3], 2: [4], 3: [0], 4: [5], 5: [0]}


def test_every_state_is_looked_at_once() -> None:
    looked_at: list[int] = []

    def find_broken(state: int) -> str | None:
        looked_at.append(state)
        return None

    found = explore(0, lambda state: walk(RING, state), find_broken)
    assert sorted(looked_at) == [0, 1, 2, 3, 4, 5]
    assert (found.states, found.transitions, found.depth, found.is_complete) == (6, 7, 3, True)
    assert found.labels == {"0 to 1", "0 to 2", "1 to 3", "2 to 4", "3 to 0", "4 to 5", "5 to 0"}
    assert str(found) == "6 states, 7 transitions, depth 3: all of them sound"


def test_the_way_to_a_broken_state_is_the_shortest() -> None:
    edges: Edges = {0: [1, 5], 1: [2], 2: [9], 5: [9]}
    found = explore(0, lambda state: walk(edges, state), lambda state: "nine" if state == 9 else None)
    assert (found.broken, found.trace, found.is_complete) == ("nine", ("0 to 5", "5 to 9"), False)
    assert str(found).splitlines()[1:] == ["  1. 0 to 5", "  2. 5 to 9"]


def test_a_start_may_be_broken() -> None:
    found = explore(0, lambda state: walk(RING, state), lambda state: "so it is")
    assert (found.states, found.broken, found.trace) == (1, "so it is", ())


def test_a_search_that_stops_early_says_so() -> None:
    found = explore(0, lambda state: [("next", state + 1)], lambda state: None, states_max=50)
    assert not found.is_complete
    assert "NOT ALL OF THEM" in str(found)


def test_a_search_of_just_the_limit_is_complete() -> None:
    found = explore(0, lambda state: [("next", state + 1)] if state < 49 else [], lambda state: None, states_max=50)
    assert (found.states, found.is_complete) == (50, True)


def test_a_state_without_a_way_to_the_goal_is_found() -> None:
    edges: Edges = {0: [1, 2], 1: [3], 2: [4], 4: [2]}  # 2 and 4 go round and round
    found, goals = find_stuck(0, lambda state: walk(edges, state), lambda state: state == 3)
    assert (found.states, goals) == (5, 1)
    assert found.broken == "from 2 states no way leads to a goal"
    assert found.trace == ("0 to 2",)


def test_every_state_has_a_way_to_the_goal() -> None:
    found, goals = find_stuck(0, lambda state: walk(RING, state), lambda state: state in (3, 5))
    assert (found.broken, found.is_complete, goals) == (None, True, 2)


def test_without_a_goal_all_are_stuck() -> None:
    found, goals = find_stuck(0, lambda state: walk(RING, state), lambda state: False)
    assert (found.broken, goals) == ("from 6 states no way leads to a goal", 0)
