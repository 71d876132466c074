"""The world of the protocol, as values: indexes, container, requests under way, actors, and what was promised to users.

Contents are small numbers, shown as letters. A blob and its key have one number, the same in every index; each actor has keys of
its own to give out, so that the order of two who ask makes no difference. What a real store adds to this (sizes, digests,
messages, clocks) decides nothing.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

T = TypeVar("T")

LETTERS = "abcdefgh"

OPEN = 99
"""The end of an interval that is not closed (`vds.index.schema.OPEN`)."""

NOWHERE = -1
"""Where an object is that has no placement, and whose a blob is that was there from the beginning."""

ANY = -2
"""The etag of a DELETE without a condition."""


class Blob(NamedTuple):
    """A row of `blob`, of the state "" while there is none; `moves` and `checked` are the columns of these names.

    `owner` is the upload it belongs to, and stands for the etag, too.
    """

    state: str = ""
    owner: int = -1
    moves: int = 0
    checked: bool = False


class Entry(NamedTuple):
    """A row of `entry` or `expired_entry`: in versions from `first` to before `end`, this path has this content."""

    path: str
    first: int
    end: int
    content: int


class Commit(NamedTuple):
    """A record of the journal: which commit made the version, and what it changed."""

    commit_id: int
    changes: tuple[tuple[str, int], ...]


class Version(NamedTuple):
    """A row of `version`; its number is its place in the table, from 1."""

    record: Commit
    expired: bool = False
    aside: bool = False
    collected: bool = False


class LogRecord(NamedTuple):
    """A record of the store's log. `life` stands for its time and parent: two lives of an index write different bytes."""

    kind: str
    items: tuple[int, ...]
    life: int


class Index(NamedTuple):
    """What is committed in one index.

    Attributes:
        blobs: by key.
        objects: by content, the blob that holds it, or NOWHERE.
        uploads: by actor, the state of its upload; empty before it has one.
        uses: by content, `object_use`; `counted` is the watermark.
        queue: ("log" or "journal", number) of records not known to be in the container.
        incarnation: which index this is; `life` is that, too, and counts how often it was restored from a copy.
    """

    blobs: tuple[Blob, ...]
    objects: tuple[int, ...]
    uploads: tuple[str, ...]
    entries: tuple[Entry, ...]
    aside: tuple[Entry, ...]
    versions: tuple[Version, ...]
    uses: tuple[int, ...]
    counted: int
    log: tuple[LogRecord, ...] = ()
    queue: tuple[tuple[str, int], ...] = ()
    incarnation: int = 0
    life: int = 0


class Body(NamedTuple):
    """The bytes under a key: which contents, and the etag they were written with."""

    contents: tuple[int, ...]
    etag: int


class Container(NamedTuple):
    """What the blob service holds.

    Attributes:
        bodies: by key.
        journal: by number less one; `log` likewise. None where there is none: a line may have a hole for a while.
        formats: by format record, the incarnation of the index that serves the store; the last one counts.
    """

    bodies: tuple[Body | None, ...]
    journal: tuple[Commit | None, ...] = ()
    log: tuple[LogRecord | None, ...] = ()
    formats: tuple[int, ...] = (0,)

    @property
    def incarnation(self) -> int:
        """Of the index that serves the store."""
        return self.formats[-1]


class Request(NamedTuple):
    """A PUT, DELETE or JOURNAL (a PUT of a record) under way: it may land at any time, `left` times.

    `key` is the number of a record for JOURNAL; an etag of ANY is an unconditional DELETE.
    """

    kind: str
    key: int
    body: Body | Commit | None
    etag: int
    left: int


class Lock(NamedTuple):
    """A row lock that a transaction holds until its end, FOR UPDATE or FOR SHARE: the table, the index, the row's number."""

    row: tuple[str, int, int]
    is_exclusive: bool


class Actor(NamedTuple):
    """Where an actor is in its program, and what it remembers.

    Attributes:
        mem: what it knows from before its transaction.
        seen: what the statements of its transaction returned.
        locks: what its transaction holds; empty outside of one.
        given: how many of its keys it has given out.
    """

    step: str
    mem: tuple[object, ...] = ()
    seen: tuple[object, ...] = ()
    locks: tuple[Lock, ...] = ()
    given: int = 0


class Promise(NamedTuple):
    """A version that was acknowledged: what a reader of it must find, until it is expired."""

    number: int
    commit_id: int
    contents: tuple[tuple[str, int], ...]


class State(NamedTuple):
    """Everything there is at one moment.

    Attributes:
        dbs: the indexes by incarnation; those after the first are made by rebuilds.
        copy: an earlier copy of the first.
        expired: numbers of versions that users asked to expire, and were not told to have back.
    """

    dbs: tuple[Index | None, ...]
    copy: Index | None
    container: Container
    net: frozenset[Request]
    actors: tuple[Actor, ...]
    promises: tuple[Promise, ...]
    expired: frozenset[int]


def put(items: tuple[T, ...], place: int, item: T) -> tuple[T, ...]:
    """Return the items with one replaced."""
    return (*items[:place], item, *items[place + 1 :])


def add(items: tuple[T, ...], place: int, item: T, empty: T) -> tuple[T, ...]:
    """Return the items with one at a place that may be beyond their end."""
    return put((*items, *[empty] * (place + 1 - len(items))), place, item)


def contents_at(entries: tuple[Entry, ...], number: int) -> tuple[tuple[str, int], ...]:
    """Return path and content of every file of a version, by path."""
    return tuple(sorted((entry.path, entry.content) for entry in entries if entry.first <= number < entry.end))


def apply_changes(entries: tuple[Entry, ...], number: int, changes: tuple[tuple[str, int], ...]) -> tuple[Entry, ...]:
    """Return the entries after a version: intervals of the changed paths are closed, new ones opened."""
    changed = dict(changes)
    closed = [e._replace(end=number) if e.end == OPEN and e.path in changed else e for e in entries]
    return tuple(sorted([*closed, *(Entry(path, number, OPEN, content) for path, content in changes)]))


def is_live(db: Index, content: int) -> bool:
    """Return whether a content need not be sent (`vds.index.placements.find_live`)."""
    return db.objects[content] != NOWHERE and db.blobs[db.objects[content]].state == "live"


def name_of(content: int) -> str:
    """Return how a content is shown."""
    return LETTERS[content]


def number_of(letter: str) -> int:
    """Return the content that a letter stands for."""
    return LETTERS.index(letter)


def objects_in(db: Index, blob_id: int) -> list[int]:
    """Return the contents that are placed in a blob."""
    return [content for content, place in enumerate(db.objects) if place == blob_id]
