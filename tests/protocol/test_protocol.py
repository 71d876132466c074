"""The protocol of uploads, commits, collection and rebuilds, searched through exhaustively: every state within reach is sound.

And the same search finds the loss when a rule is left out: each field of `Rules` has a case here. What a case prints
(`pytest -s`) is the shortest way to the loss, step by step.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import pytest

from tests.protocol import scenarios
from tests.protocol.play import Rules
from tests.protocol.promises import find_broken, is_clean
from tests.protocol.scenarios import Make
from tests.protocol.search import explore, find_stuck
from tests.protocol.setting import moves_of


@dataclass(frozen=True)
class World:
    """A scenario, how many states it has at least, and what must happen in it: a model in which nothing happens is sound, too."""

    make: Make
    states_min: int
    events: tuple[str, ...]
    rules: Rules = field(default_factory=Rules)


WORLDS = {
    "revival": World(
        scenarios.revival,
        50_000,
        (
            "W0 revives blobs [0]",
            "W0 begins blob 2",
            "W0 gives up",
            "G0 holds blob 0; counts: blob 0 is used",
            "G0 forgets version 1",
            "G0 deletes key 0",
            "DELETE of key 0 lands",
            "W0 acknowledges version 4",
            "W1 acknowledges version 4",
        ),
    ),
    "revival in statements": World(
        scenarios.revival_in_statements,
        15_000,
        ("holds its upload and what it needs", "G0 condemns blob 0", "revives blobs [0]", "takes back that [1] expired"),
    ),
    "two in statements": World(
        scenarios.two_in_statements,
        15_000,
        ("holds the blobs of stale placements", "moves stale placements", "finishes blob 2: condemned", "revives blobs [0]"),
    ),
    "commit against condemn": World(
        scenarios.commit_against_condemn, 100, ("G0 condemns blob 0", "G0 leaves blob 0", "W0 acknowledges version 3")
    ),
    "same content": World(
        scenarios.same_content,
        20_000,
        ("G0 reaps blob 1", "is told that its upload was aborted", "adopts the placements of others", "not its own any more"),
    ),
    "take over": World(
        scenarios.take_over, 50_000, ("W1 takes blob 1 over", "W0 crashes", "G0 reaps blob 1", "W1 acknowledges version 2")
    ),
    "undo against upload": World(
        scenarios.undo_against_upload, 15_000, ("finds that versions [] can be had back", "takes back that [1] expired")
    ),
    "reuse": World(scenarios.reuse, 400, ("W0 begins blob 0", "DELETE of key 0 lands", "W0 acknowledges version 3")),
    "cleaning": World(
        scenarios.cleaning, 20_000, ("switches to pack 2", "G0 deletes key 0", "reaps blob 1", "forgets version 1")
    ),
    "repack": World(
        scenarios.repack,
        50_000,
        ("switches to pack 1", "drops its copy", "not as listed, and plans again", "W0 revives blobs [0]", "G0 deletes key 1"),
    ),
    "repack in statements": World(
        scenarios.repack_in_statements, 30_000, ("switches to pack 1", "drops its copy", "not as listed, and plans again")
    ),
    "undo": World(
        scenarios.undo,
        3_000,
        ("takes back that [1, 2] expired", "takes back that [1] expired", "G1 forgets version 2", "deletes key 2"),
    ),
    "two collectors": World(scenarios.two_collectors, 500, ("G0 begins to count", "G1 sets", "G1 deletes key 0", "acknowledges")),
    "restore": World(scenarios.restore, 8_000, ("puts the copy back", "W0 is refused", "G0 is refused", "G0 deletes key 0")),
    "restore under two": World(
        scenarios.restore_under_two, 15_000, ("puts the copy back", "W1 is refused", "G0 is refused", "W0 crashes", "and stops")
    ),
    "rebuild": World(
        scenarios.rebuild,
        40_000,
        (
            "finds the fence of a rebuild",
            "W0 acknowledges version 3",
            "W1 acknowledges version 3",
            "W1 acknowledges version 4",
            "G0 deletes key 0",
            "G0 finds another record under log/2",
            "rebuild crashes",
        ),
    ),
    "rebuild and collect": World(
        scenarios.rebuild_and_collect, 8_000, ("G1 deletes key 0", "G1 holds blob 0", "W0 acknowledges version 3")
    ),
    "rebuild under two collectors": World(
        scenarios.rebuild_under_two_collectors, 1_000, ("G1 finds blob 0 deleting", "and stops")
    ),
    "rebuild under two records": World(scenarios.rebuild_under_two_records, 20_000, ("G0 deletes key 0", "G1 puts log/3")),
    "rebuild and undo": World(
        scenarios.rebuild_and_undo, 400, ("is told that [1] are there again", "and stops", "G1 deletes key 0")
    ),
    "two rebuilds": World(
        scenarios.two_rebuilds, 20_000, ("that another rebuild began later, and stops", "W1 acknowledges", "W2 acknowledges")
    ),
}


def check_world(name: str, world: World) -> None:
    scenario = world.make(world.rules)
    found = explore(scenario.start, moves_of(scenario), find_broken(scenario))
    print(f"{name}: {found}")
    assert found.broken is None, str(found)
    assert found.is_complete, str(found)
    assert found.states >= world.states_min, f"the model stops early: {found}"
    missing = [event for event in world.events if not any(event in label for label in found.labels)]
    assert missing == [], f"in {found.states} states these never happen: {missing}"


@pytest.mark.parametrize("name", WORLDS)
def test_every_state_is_sound(name: str) -> None:
    check_world(name, WORLDS[name])


LOOKS_AGAIN = Rules(looks_again_at_index=True)


@pytest.mark.slow
def test_a_failover_to_an_older_copy_is_sound_for_who_looks_again() -> None:
    events = ("puts the copy back", "finds that its index is not what it was", "W0 acknowledges version 3", "G0 deletes key 0")
    check_world("failover", World(scenarios.failover, 250_000, events, LOOKS_AGAIN))


@pytest.mark.parametrize(
    ("make", "rules"),
    [
        pytest.param(scenarios.commit_against_condemn, {"looks_again": False}, id="what is condemned is believed to be unused"),
        pytest.param(scenarios.revival_in_statements, {"looks_again": False}, id="so it is beside an undo"),
        pytest.param(scenarios.restore, {"checks_fresh": "next"}, id="an opening looks at the next record alone"),
        pytest.param(scenarios.rebuild, {"checks_fresh": "next"}, id="so it does before a rebuild"),
        pytest.param(scenarios.rebuild, {"look": "flush"}, id="a writer flushes the log and looks at the next record"),
        pytest.param(scenarios.undo_against_upload, {"undo_checks": "live"}, id="an undo that has the turn looks for live blobs"),
    ],
)
def test_what_is_as_good(make: Make, rules: dict[str, object]) -> None:
    scenario = make(replace(Rules(), **rules))  # type: ignore[arg-type]
    found = explore(scenario.start, moves_of(scenario), find_broken(scenario))
    assert (found.broken, found.is_complete) == (None, True), str(found)


@dataclass(frozen=True)
class Mistake:
    """A rule that is left out, what that breaks, and what must stand in the shortest way there.

    Attributes:
        promises: those looked at, when not all: the first that breaks may be one that only foretells the loss.
    """

    make: Make
    rules: dict[str, object]
    breaks: str
    steps: tuple[str, ...]
    promises: tuple[str, ...] = ()


GONE = "was acknowledged, and the bytes of"
UNKNOWN = "was acknowledged, and the index does not know it"

MISTAKES = {
    "what exists is not sent, what nothing refers to is deleted": Mistake(
        scenarios.naive, {}, GONE, ("finds its content in the container", "G0 deletes key 0", "W0 commits version 2")
    ),
    "keys are used again, and deleted without a condition": Mistake(
        scenarios.reuse,
        {"keys_are_fresh": False, "deletes_conditionally": False},
        "blob 0, which is not there",
        ("G0 deletes key 0", "W0 begins blob 0", "W0 acknowledges", "DELETE of key 0 lands"),
    ),
    "condemning is one statement": Mistake(
        scenarios.commit_against_condemn,
        {"judges_in_second_statement": False},
        "whose blob 0 is condemned",
        (
            "W0 holds its upload and what it needs",
            "finds blob 0 unused, and goes for its row",
            "W0 commits",
            "G0 condemns blob 0",
        ),
    ),
    "condemning is one statement, and so is deleting": Mistake(
        scenarios.commit_against_condemn,
        {"judges_in_second_statement": False, "looks_again": False},
        "is placed nowhere",
        ("finds blob 0 unused, and goes for its row", "W0 commits version 3", "G0 condemns blob 0", "moves blob 0 to deleting"),
        ("readable",),
    ),
    "a commit does not hold what it needs": Mistake(
        scenarios.commit_against_condemn,
        {"commit_holds_needs": False},
        "whose blob 0 is condemned",
        ("is not used", "W0 commits"),
    ),
    "a commit does not look at moves": Mistake(
        scenarios.repack,
        {"commit_checks_moves": False},
        "whose blob 1 is condemned",
        ("W1 lists its needs: ((0, 0),)", "switches to pack 1", "W1 holds its upload and what it needs"),
    ),
    "a repack does not look again at what is used": Mistake(
        scenarios.repack, {"switch_checks_used": False}, "whose blob 0 is condemned", ("copies b of pack 0", "switches to pack 1")
    ),
    "a repack does not look again, seen by readers": Mistake(
        scenarios.repack,
        {"switch_checks_used": False, "looks_again": False},
        "is placed nowhere",
        ("copies b of",),
        ("readable",),
    ),
    "deleting is revived by an uploader": Mistake(
        scenarios.revival, {"revives_condemned_only": False}, GONE, ("moves blob 0 to deleting", "W0 revives blobs [0]")
    ),
    "deleting is revived by an undo": Mistake(
        scenarios.undo,
        {"revives_condemned_only": False},
        GONE,
        ("to deleting", "takes back that [1, 2] expired"),
    ),
    "collectors take no turns: a use is lost": Mistake(
        scenarios.two_collectors,
        {"collectors_take_turns": False},
        "whose blob 0 is condemned",
        ("W0 commits version 3", "begins to count", "finds that versions [1] expired", "has counted up to version 3", "sets"),
    ),
    "collectors take no turns: an undo is lost": Mistake(
        scenarios.undo,
        {"collectors_take_turns": False},
        "the index has other entries of it",
        ("finds that versions [1] expired", "takes back that [1] expired", "sets"),
    ),
    "an undo looks for live blobs, and has neither them nor the turn": Mistake(
        scenarios.undo_against_upload,
        {"undo_checks": "live", "collectors_take_turns": False},
        "version 1 was acknowledged, and p (a) is placed nowhere",
        ("lists blobs [0] for an undo", "moves stale placements", "moves blob 2 to deleting", "takes back that [1] expired"),
        ("readable",),
    ),
    "an undo does not look": Mistake(
        scenarios.undo,
        {"undo_checks": "no"},
        "is placed nowhere",
        ("to deleting", "takes back that [1, 2] expired"),
        ("readable",),
    ),
    "an undo is told before its record is in the container": Mistake(
        scenarios.rebuild_and_undo,
        {"undo_tells_log_first": False},
        "says that it is expired",
        ("[1] are there again", "the fence"),
    ),
    "DELETE before deleting is committed": Mistake(
        scenarios.revival,
        {"deletes_after_commit": False},
        GONE,
        ("sends DELETE of key 0 before", "W0 revives blobs [0]", "DELETE of"),
    ),
    "DELETE before its record is in the container": Mistake(
        scenarios.rebuild,
        {"deletes_after_record": False},
        GONE,
        ("to deleting", "the fence", "deletes key 0", "W1 finds its contents"),
    ),
    "DELETE of what another collector has not told": Mistake(
        scenarios.rebuild_under_two_collectors,
        {"flushes_for_what_it_found": False},
        GONE,
        ("moves blob 0 to deleting", "G1 finds blob 0 deleting", "the fence", "G1 deletes key 0", "W1 acknowledges"),
    ),
    "a reap does not look at the state": Mistake(
        scenarios.same_content,
        {"reap_checks_state": False},
        "is nowhere",
        ("finds blob 1 abandoned", "finishes blob 1", "reaps blob 1"),
    ),
    "a reap does not look at the owner": Mistake(
        scenarios.take_over,
        {"reap_checks_owner": False},
        "is taken away from an upload that is alive",
        ("finds blob 1 abandoned", "W1 takes blob 1 over", "G0 reaps blob 1"),
    ),
    "a rebuild does not fence": Mistake(
        scenarios.rebuild, {"rebuild_fences": False}, UNKNOWN, ("rebuild reads the journal", "W0 acknowledges version 3")
    ),
    "a rebuild believes what is about to be deleted": Mistake(
        scenarios.rebuild,
        {"rebuild_believes_log": False},
        GONE,
        ("deleting 0", "the fence", "W1 finds its contents in the store"),
    ),
    "a rebuild lists blobs first": Mistake(
        scenarios.rebuild, {"rebuild_reads_names_first": False}, "is nowhere", ("lists the blobs", "PUT of key 2", "journal/3")
    ),
    "a rebuild lists format records after its look": Mistake(
        scenarios.two_rebuilds,
        {"rebuild_lists_formats_first": False},
        UNKNOWN,
        ("R1 finds no later fence", "R2 puts", "R1 has the"),
    ),
    "the store's log has holes": Mistake(
        scenarios.rebuild_under_two_records, {"log_is_in_order": False}, GONE, ("the fence", "puts log/3: deleting 0")
    ),
    "a writer does not look for the fence": Mistake(
        scenarios.rebuild, {"look": "no"}, UNKNOWN, ("the fence", "PUT of journal/3 lands", "W0 acknowledges version 3")
    ),
    "a writer looks behind what its index knows": Mistake(
        scenarios.rebuild, {"look": "next"}, UNKNOWN, ("to deleting", "puts log/2: the fence", "W0 acknowledges version 3")
    ),
    "asking for the outcome does not look": Mistake(
        scenarios.rebuild,
        {"outcome_looks": False},
        UNKNOWN,
        ("finds the fence of a rebuild", "W0 is told by its index that there is"),
    ),
    "a restored index is not held against its store": Mistake(
        scenarios.restore,
        {"checks_fresh": "no"},
        GONE,
        ("acknowledges version 3", "puts the copy back", "moves blob 0 to deleting"),
    ),
    "an index is put back under who is at work: a writer": Mistake(
        scenarios.failover,
        {"looks_again_at_index": False},
        "is not in the container",
        ("commits version 3", "puts the copy back"),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_noticed(name: str) -> None:
    mistake = MISTAKES[name]
    scenario = mistake.make(replace(Rules(), **mistake.rules))  # type: ignore[arg-type]
    if mistake.promises:
        scenario = replace(scenario, promises=mistake.promises)
    found = explore(scenario.start, moves_of(scenario), find_broken(scenario))
    print(f"{name}: {found}")
    assert found.broken is not None, str(found)
    assert mistake.breaks in found.broken, str(found)
    place = 0
    for step in mistake.steps:
        following = [number for number, label in enumerate(found.trace) if number >= place and step in label]
        assert following, f"{step!r} does not come where it should: {found}"
        place = following[0]


def test_each_rule_has_a_mistake() -> None:
    assert {one.name for one in fields(Rules)} == {rule for mistake in MISTAKES.values() for rule in mistake.rules}


@pytest.mark.parametrize("make", [scenarios.same_content, scenarios.cleaning, scenarios.undo, scenarios.two_collectors])
def test_garbage_can_always_go(make: Make) -> None:
    scenario = make(Rules())
    found, goals = find_stuck(scenario.start, moves_of(scenario), is_clean)
    print(f"{scenario.name}: {found}, {goals} of them clean")
    assert found.broken is None, str(found)
    assert goals > 100


def test_garbage_that_cannot_go_is_noticed() -> None:
    scenario = scenarios.two_in_statements(Rules())  # there nobody ends the upload of a writer that is gone
    found, goals = find_stuck(scenario.start, moves_of(scenario), is_clean)
    assert goals
    assert found.broken is not None
