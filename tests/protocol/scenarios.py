"""The small worlds that are searched through, each exhausted in seconds: together they cover what a large one would.

All begin with a history: version 1 gives the path `p` a content, version 2 another. Content `a` is what only version 1 has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.protocol.play import Role, Rules, Scenario
from tests.protocol.setting import ALL, begin, collector_of, operator_of, rebuild_of, writer_of

Make = Callable[[Rules], Scenario]

BYTES = frozenset({"condemn", "delete"})
NAMES = frozenset({"set aside", "forget"})

HISTORY = ({"p": "a"}, {"p": "b"})


def revival(rules: Rules) -> Scenario:
    """Two writers want a content while it is expired, condemned and deleted; requests land late and again."""
    roles = (
        writer_of("W0", 2, q="a"),
        writer_of("W1", r="a"),
        collector_of("G0", step="run", acts=BYTES | NAMES),
        operator_of(),
    )
    start = begin(roles, *HISTORY, blobs=("a", "b"), acts=("expire 1",))
    return Scenario("revival", start, roles, rules, publishes_at_once=True, repeats=1)


def revival_in_statements(rules: Rules) -> Scenario:
    """The same on PostgreSQL, with an undo."""
    roles = (writer_of("W0", 2, q="a"), collector_of("G0", step="run", acts=BYTES | NAMES), operator_of())
    start = begin(roles, *HISTORY, blobs=("a", "b"), acts=("expire 1", "undo"))
    return Scenario("revival in statements", start, roles, rules, is_sqlite=False, publishes_at_once=True)


def undo_against_upload(rules: Rules) -> Scenario:
    """An undo on PostgreSQL while a writer, who may be taken for dead, puts what it wants back somewhere else."""
    roles = (writer_of("W0", 2, q="a"), collector_of("G0", step="run", acts=BYTES | {"reap"}), operator_of())
    start = begin(roles, *HISTORY, blobs=("a", "b"), expired=(1,), acts=("undo",))
    return Scenario("undo against upload", start, roles, rules, is_sqlite=False, publishes_at_once=True)


def two_in_statements(rules: Rules) -> Scenario:
    """Two writers and the collector on PostgreSQL: one sends again what the other revives."""
    roles = (writer_of("W0", 2, q="a"), writer_of("W1", r="a"), collector_of("G0", step="run", acts=BYTES))
    start = begin(roles, *HISTORY, blobs=("a", "b"), expired=(1,))
    return Scenario("two in statements", start, roles, rules, is_sqlite=False, publishes_at_once=True)


def commit_against_condemn(rules: Rules) -> Scenario:
    """The smallest race there is, on PostgreSQL."""
    roles = (writer_of("W0", q="a"), collector_of("G0", step="run", acts=BYTES))
    start = begin(roles, *HISTORY, blobs=("a", "b"), expired=(1,))
    return Scenario("commit against condemn", start, roles, rules, is_sqlite=False, publishes_at_once=True)


def same_content(rules: Rules) -> Scenario:
    """Two writers send one new content; either may be taken for dead while it works."""
    roles = (writer_of("W0", 1, q="b"), writer_of("W1", 2, r="b"), collector_of("G0", step="run", acts=BYTES | {"reap"}))
    start = begin(roles, {"p": "a"}, blobs=("a",))
    return Scenario("same content", start, roles, rules, publishes_at_once=True)


def take_over(rules: Rules) -> Scenario:
    """A writer continues what another left, who is dead or only slow; the collector takes nobody for dead who is not."""
    roles = (
        writer_of("W0", 1, q="b"),
        writer_of("W1", 2, r="b"),
        collector_of("G0", step="run", acts=BYTES | {"reap the dead"}),
    )
    start = begin(roles, {"p": "a"}, blobs=("a",))
    promises = ("recoverable", "readable", "held", "spared")
    return Scenario("take over", start, roles, rules, publishes_at_once=True, resumes=True, promises=promises)


def cleaning(rules: Rules) -> Scenario:
    """All that a collector does, while a writer comes and a version expires: for whether garbage always goes."""
    roles = (
        writer_of("W0", 1, q="c"),
        collector_of("G0", 2, step="run", acts=ALL | {"repack"}),
        operator_of(),
    )
    start = begin(roles, *HISTORY, blobs=("ab",), acts=("expire 1",))
    return Scenario("cleaning", start, roles, rules, publishes_at_once=True)


def reuse(rules: Rules) -> Scenario:
    """A key is given out again once its blob is deleted. What a rebuild would make of that is left out."""
    roles = (writer_of("W0", 0, q="a"), collector_of("G0", step="run", acts=BYTES | NAMES), operator_of())
    start = begin(roles, *HISTORY, blobs=("a", "b"), acts=("expire 1",))
    rules = replace(rules, keys_are_fresh=False)
    return Scenario("reuse", start, roles, rules, publishes_at_once=True, repeats=1, promises=("readable", "held"))


def repack(rules: Rules) -> Scenario:
    """A pack of which one member is dead is made anew while one writer wants the dead member and another the one that is used."""
    return _repack("repack", rules, is_sqlite=True, undo=True)


def repack_in_statements(rules: Rules) -> Scenario:
    """The same on PostgreSQL, without an undo."""
    return _repack("repack in statements", rules, is_sqlite=False, undo=False)


def _repack(name: str, rules: Rules, *, is_sqlite: bool, undo: bool) -> Scenario:
    roles = (
        writer_of("W0", p="a"),
        writer_of("W1", q="b"),
        collector_of("G0", 1, step="run", acts=BYTES | {"repack", "set aside"}),
        operator_of(),
    )
    start = begin(roles, *HISTORY, blobs=("ab",), expired=(1,), acts=("expire 2", "undo") if undo else ("expire 2",))
    return Scenario(name, start, roles, rules, is_sqlite=is_sqlite, publishes_at_once=True)


def undo(rules: Rules) -> Scenario:
    """Two collectors against a person who expires two versions with an entry in common, and wants them back, twice."""
    roles = (
        collector_of("G0", step="run", acts=BYTES | NAMES),
        collector_of("G1", step="run", acts=BYTES | NAMES),
        operator_of(),
    )
    history = ({"p": "a", "q": "c"}, {"p": "b"}, {"q": "a"})
    start = begin(roles, *history, blobs=("a", "b", "c"), acts=("expire 1", "expire 2", "undo", "undo"))
    return Scenario("undo", start, roles, rules, is_sqlite=False, publishes_at_once=True)


def two_collectors(rules: Rules) -> Scenario:
    """A writer takes a content into use while one collector counts and another sets its last counted use aside."""
    roles = (
        writer_of("W0", q="a"),
        collector_of("G0", step="run", acts=BYTES | NAMES),
        collector_of("G1", step="run", acts=BYTES | NAMES),
        operator_of(),
    )
    start = begin(roles, *HISTORY, blobs=("a", "b"), acts=("expire 1",))
    return Scenario("two collectors", start, roles, rules, is_sqlite=False, publishes_at_once=True)


def restore(rules: Rules) -> Scenario:
    """The index is copied at any time and the copy put back; then everybody goes on with it."""
    roles = (writer_of("W0", r="a"), collector_of("G0", acts=BYTES | {"set aside"}), operator_of())
    start = begin(roles, *HISTORY, blobs=("a", "b"), acts=("expire 1", "copy", "restore"))
    return Scenario("restore", start, roles, rules)


def restore_under_two(rules: Rules) -> Scenario:
    """The oldest copy is put back after or amid a commit of new content, a commit of old content, and a collection."""
    roles = (writer_of("W0", 2, q="c"), writer_of("W1", r="a"), collector_of("G0", acts=BYTES), operator_of())
    start = begin(roles, *HISTORY, blobs=("a", "b"), expired=(1,), acts=("restore",))
    return Scenario("restore under two", start._replace(copy=start.dbs[0]), roles, rules)


def failover(rules: Rules) -> Scenario:
    """The database fails over to a standby that lags: nobody is cut off.

    What is promised is less: a rebuild has to copy bytes whose key is named as deleted.
    """
    roles = (writer_of("W0", q="a"), writer_of("W1", r="b"), collector_of("G0", acts=BYTES), operator_of())
    start = begin(roles, *HISTORY, blobs=("a", "b"), expired=(1,), acts=("copy", "restore"))
    return Scenario("failover", start, roles, rules, cuts_off=False, promises=("stored", "readable"))


def rebuild(rules: Rules) -> Scenario:
    """A rebuild while a writer of the old index is anywhere, and a collector of it before, in or after its DELETE."""
    roles = (
        writer_of("W0", 2, q="c"),
        collector_of("G0", acts=BYTES),
        rebuild_of(),
        writer_of("W1", 3, db=1, r="a"),
    )
    start = begin(roles, *HISTORY, blobs=("a", "b"), expired=(1,))
    return Scenario("rebuild", start, roles, rules)


def rebuild_and_collect(rules: Rules) -> Scenario:
    """Likewise, and a collector of the new index takes what that does not know to be used."""
    roles = (
        writer_of("W0", q="a"),
        collector_of("G0", acts=BYTES),
        rebuild_of(),
        collector_of("G1", db=1, acts=BYTES),
    )
    start = begin(roles, *HISTORY, blobs=("a", "b"), expired=(1,))
    return Scenario("rebuild and collect", start, roles, rules)


def rebuild_under_two_collectors(rules: Rules) -> Scenario:
    """Two collectors of the old index, one of which finds what the other began."""
    roles = (
        collector_of("G0", acts=BYTES),
        collector_of("G1", acts=BYTES),
        rebuild_of(),
        writer_of("W1", db=1, r="a"),
    )
    start = begin(roles, *HISTORY, blobs=("a", "b"), expired=(1,))
    return Scenario("rebuild under two collectors", start, roles, rules)


def rebuild_under_two_records(rules: Rules) -> Scenario:
    """Two collectors of the old index that each delete a blob, and a writer of the new one that wants what one of them takes."""
    roles = (
        collector_of("G0", acts=frozenset({"delete"})),
        collector_of("G1", acts=frozenset({"delete"})),
        rebuild_of(),
        writer_of("W1", db=1, q="a"),
    )
    start = begin(roles, {"p": "a"}, {"p": "c"}, {"p": "b"}, blobs=("a", "c", "b"), expired=(1, 2), condemned=(0, 1))
    return Scenario("rebuild under two records", start, roles, rules)


def rebuild_and_undo(rules: Rules) -> Scenario:
    """A person expires a version and takes it back, while the index is rebuilt and the new one's collector is at work."""
    roles = (operator_of(), rebuild_of(), collector_of("G1", db=1, acts=ALL))
    start = begin(roles, *HISTORY, blobs=("a", "b"), expired=(1,), acts=("undo", "expire 1", "undo"))
    return Scenario("rebuild and undo", start, roles, rules)


def two_rebuilds(rules: Rules) -> Scenario:
    """Two rebuilds at once, and writers of all three indexes."""
    roles: tuple[Role, ...] = (
        rebuild_of("R1", db=1),
        rebuild_of("R2", db=2),
        writer_of("W0", q="b"),
        writer_of("W1", db=1, r="b"),
        writer_of("W2", db=2, s="b"),
    )
    start = begin(roles, *HISTORY, blobs=("a", "b"), expired=(1,))
    return Scenario("two rebuilds", start, roles, rules)


def naive(rules: Rules) -> Scenario:
    """How not to do it."""
    roles = (writer_of("W0", step="naive look", q="a"), collector_of("G0", step="naive"))
    start = begin(roles, {"p": "b"}, blobs=("a", "b"))
    return Scenario("naive", start, roles, rules, promises=("recoverable",))
