"""A scripted use of a whole store, in steps that can each be made again after they went wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest
from blake3 import blake3

import vds
from tests.fault.every_index import Index
from tests.fault.sqlfaults import SqlFaults
from tests.simulator import Fault, Saved, Service, all_well
from tests.support import Place, write_tree
from vds.errors import CorruptionError, NotFoundError, OutcomeUnknownError
from vds.provenance import working_for

RAW, GOOD, DATASET = "team/raw", "team/good", "customers"
BAD_RUN = "01jk0000000000000000000000"

LARGE = bytes(range(256)) * 4400  # 1.1 MB: three blocks
STREAM = LARGE[::-1]
MANY = {f"gone/many/{number:02}": b"%d" % number for number in range(16)}
"""What the second version leaves out: the pack they are in is mostly dead once the first one is gone."""
FIRST = {"a": b"one", "d/b": b"two", "d/empty": b"", "gone/large": LARGE} | MANY
WRITTEN = b"personal data"
INLINE_CHANGES_BYTES_MAX = 400
"""Such a length that the change list of the first version is a blob, and that of a copy is not."""


@dataclass
class Site:
    """A store behind a simulated service, on a database that goes wrong at will, and the trees that are uploaded to it.

    Attributes:
        acknowledged: the versions whose makers were told so, by namespace and number.
    """

    service: Service
    sql: SqlFaults
    index: Index
    work: Path
    acknowledged: set[tuple[str, int]] = field(default_factory=set)
    _saved: dict[str, tuple[Saved, set[tuple[str, int]]]] = field(default_factory=dict)

    @property
    def place(self) -> Place:
        """Where the store is."""
        return Place(f"memory://{self.service.name}", self.index.url)

    def tree(self, name: str, files: Mapping[str, bytes]) -> Path:
        """Return a directory that holds these files; made once."""
        root = self.work / name
        return root if root.exists() else write_tree(root, files)

    def take(self, version: vds.Version) -> None:
        """Note that a version was acknowledged."""
        self.acknowledged.add((version.namespace, version.number))

    def save(self, name: str) -> None:
        """Put aside the whole site; nobody may have the store open."""
        self.index.save(name)
        self._saved[name] = (self.service.save(), set(self.acknowledged))

    def restore(self, name: str) -> None:
        """Put it back as it was."""
        saved, acknowledged = self._saved[name]
        self.index.restore(name)
        self.service.restore(saved)
        self.acknowledged = set(acknowledged)

    def mend(self) -> None:
        """Let everything work again."""
        self.service.plan = all_well
        self.sql.plan = None


def make(site: Site) -> vds.Store:
    """Make the store."""
    return site.place.connect(create=True)


def open_(site: Site) -> vds.Store:
    """Open it."""
    return site.place.connect()


def rebuild(site: Site) -> vds.Store:
    """Make its index anew, once more if something seemed to be missing, and open it."""
    for _ in range(2):
        report = vds.rebuild_index(site.place.url, index=site.place.index, show_progress=False)
        if not report.gap_count:
            return site.place.connect()
    raise CorruptionError(f"missing: {report.gaps}")


def upload(site: Site, store: vds.Store) -> None:
    """Upload small files and a large one."""
    site.take(store.namespace(RAW).upload(site.tree("first", FIRST), show_progress=False).version)


def transaction(site: Site, store: vds.Store) -> None:
    """Write in two parts and by a stream, and remove a directory."""
    with store.namespace(RAW).transaction("several changes") as tx:
        with tx.part("one") as part:
            part.write_bytes("t/bytes", WRITTEN)
        with tx.part("two") as part:
            part.upload(site.tree("part", {"file": b"of a part"}), "t", show_progress=False)
        with tx.open("t/stream") as file:
            file.write(STREAM)
        tx.delete("gone", missing_ok=True)
    site.take(tx.version)


def copy(site: Site, store: vds.Store) -> None:
    """Copy into a namespace that is new."""
    site.take(store.namespace(GOOD).copy(f"{RAW}@2/t", "promoted").version)


def revert(site: Site, store: vds.Store) -> None:
    """Undo the transaction."""
    site.take(store.namespace(RAW).revert(2).version)


def rollback(site: Site, store: vds.Store) -> None:
    """Go back to it."""
    site.take(store.namespace(RAW).rollback(2).version)


def record(site: Site, store: vds.Store) -> None:
    """Record a run from its beginning to its end."""
    with store.run("train", inputs=[f"{RAW}@2"], params={"lr": 0.1}) as run:
        run.output(f"{GOOD}@1", "promoted")
    info = store.runs(limit=1)[0]
    assert (info.id, info.status) == (run.id, "completed")
    assert [place.uri for place in (*info.inputs, *info.outputs)] == [f"vds://{RAW}@2/", f"vds://{GOOD}@1/"]


def write_badly(site: Site, store: vds.Store) -> None:
    """Write what a run should not have written."""
    with working_for(BAD_RUN, is_inherited=False):
        site.take(
            store.namespace(GOOD)
            .upload(site.tree("bad", {"bad": b"bad", "promoted/t/bytes": b"bad"}), show_progress=False)
            .version
        )


def undo_run(site: Site, store: vds.Store) -> None:
    """Undo all that a run wrote."""
    store.rollback_run(BAD_RUN, dry_run=False)


def register(site: Site, store: vds.Store) -> None:
    """Make a release with its tag."""
    store.dataset(DATASET).register(f"{RAW}@2", tags=["first"], description="the first one")


def tag(site: Site, store: vds.Store) -> None:
    """Point a tag at it."""
    store.dataset(DATASET).tag("prod", 1, reason="better")


def untag(site: Site, store: vds.Store) -> None:
    """Take a tag away."""
    with suppress(NotFoundError):  # who repeats the step finds it done
        store.dataset(DATASET).untag("first")


def interrupt(site: Site, store: vds.Store) -> None:
    """Leave a version committed that no record shows, as a writer does that dies before it writes the record."""
    site.service.plan = lambda call: Fault("refused") if (call.name, call.area) == ("put_if_absent", "journal") else None
    with pytest.raises(OutcomeUnknownError):
        store.namespace(RAW).upload(site.tree("again", {"a": b"one more"}), show_progress=False)
    site.mend()


def nothing(site: Site, store: vds.Store) -> None:
    """Do no more than to open the store."""


def verify(site: Site, store: vds.Store) -> None:
    """Check every object of a version."""
    report = store.namespace(GOOD).latest().verify()
    if not report.ok:
        raise CorruptionError(f"found {report.failures}")


def expire(site: Site, store: vds.Store) -> None:
    """Expire all but the newest version and what is released."""
    store.expire(RAW, keep_last=1, reason="old", dry_run=False)


def foresee(site: Site, store: vds.Store) -> None:
    """Ask what collection would do."""
    store.gc(max_share=1, show_progress=False)


def condemn(site: Site, store: vds.Store) -> None:
    """Collect, and delete nothing yet."""
    store.gc(dry_run=False, max_share=1, show_progress=False)


def undo(site: Site, store: vds.Store) -> None:
    """Bring back what was condemned."""
    store.undo_gc()


def collect(site: Site, store: vds.Store) -> None:
    """Collect, and delete at once."""
    store.gc(dry_run=False, grace_hours=0, max_share=1, show_progress=False)


def erase(site: Site, store: vds.Store) -> None:
    """Erase a content."""
    store.erase(f"b3:{blake3(WRITTEN).hexdigest()}", reason="asked for", dry_run=False, show_progress=False)


def fsck(site: Site, store: vds.Store) -> None:
    """Check everything there is; what is found once and not again was on the way."""
    for _ in range(2):
        report = store.fsck(full=True, chain=True, resume=False, show_progress=False)
        if report.ok:
            return
    raise CorruptionError(f"found {report.problems}")


class Step(NamedTuple):
    """One step.

    Attributes:
        run: does it, with the store open; again after an error, it does what is left to do.
        begin: opens the store.
        is_begun: whether that is part of the step.
        is_one: whether the step shows all at once, or else not at all.
        prepare: brings the site into the state that the step begins with.
    """

    name: str
    run: Callable[[Site, vds.Store], None]
    begin: Callable[[Site], vds.Store] = open_
    is_begun: bool = False
    is_one: bool = True
    prepare: Callable[[Site, vds.Store], None] | None = None


STEPS = [
    Step("make", nothing, make, is_begun=True),
    Step("upload", upload),
    Step("transaction", transaction),
    Step("copy", copy),
    Step("revert", revert),
    Step("rollback", rollback),
    Step("record", record),
    Step("undo_run", undo_run, prepare=write_badly),
    Step("register", register),
    Step("tag", tag),
    Step("untag", untag),
    Step("open", nothing, is_begun=True, prepare=interrupt),
    Step("verify", verify),
    Step("expire", expire),
    Step("foresee", foresee),
    Step("condemn", condemn),
    Step("undo", undo, is_one=False),
    Step("collect", collect, prepare=expire),
    Step("erase", erase),
    Step("fsck", fsck),
    Step("rebuild", nothing, rebuild, is_begun=True),
]
