"""Everything a store keeps, damaged in every way, under everything that is done with a store.

Damage is found by whoever looks at what is damaged, with an error of ours or in a report; it never spreads: nothing that could be
read before cannot be read after, no version has wrong bytes, and a file is read as it was written or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

import vds
from tests.damages import (
    DATASET,
    RAW,
    RUN,
    SMALL,
    FilePlace,
    Sample,
    delete,
    digests_of,
    flip,
    flip_at,
    make_sample,
    put_in_place,
    read_all,
    truncate,
)
from tests.support import Place, write_tree
from vds.errors import VdsError
from vds.model.version import name_digest

DAMAGES = ("truncated", "flipped", "deleted", "replaced")
OPERATIONS = ("read", "verify", "gc", "rebuild", "upload", "fsck")
ROW_BYTES = 56
"""Of a row of a pack's table; its trailer is as long."""


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """One store for all cells; each has a copy."""
    scratch = tmp_path_factory.mktemp("sample")
    return make_sample(Place(str(scratch / "store")), scratch)


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let nothing be kept on this machine: what one copy held would hide what another has lost."""
    monkeypatch.setenv("VDS_CACHE_MAX", "0")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@dataclass(frozen=True)
class Kept:
    """Something a store keeps: where it is, what another of its kind is, and who must notice when it is damaged.

    Attributes:
        find: returns its file.
        find_other: returns the file whose bytes replace it.
        hurt: the paths whose content it holds; empty for what holds none.
        noticed_by: besides `fsck`.
    """

    find: Callable[[Sample], Path]
    find_other: Callable[[Sample], Path]
    hurt: tuple[str, ...] = ()
    noticed_by: tuple[str, ...] = ()


def _journal(sample: Sample, number: int) -> Path:
    return sample.find("journal/*/0000000000000005").with_name(f"{number:016d}")


SMALL_PATHS = tuple(f"small/{number:02}" for number in range(SMALL))
BLOBS = {
    "whole object": Kept(
        lambda s: s.object_file(s.versions[RAW, 1]["whole"]),
        lambda s: s.object_file(s.versions[RAW, 1]["twin"]),
        ("whole",),
        ("read", "verify"),
    ),
    "stream": Kept(
        lambda s: s.find("objects/~~/*"), lambda s: s.object_file(s.versions[RAW, 1]["twin"]), ("stream",), ("read", "verify")
    ),
    "pack": Kept(
        lambda s: s.pack_file(s.versions[RAW, 1]["small/00"]),
        lambda s: s.pack_file(s.versions[RUN, 1]["log"]),
        SMALL_PATHS,
        ("read", "verify"),
    ),
    "change list": Kept(lambda s: s.find("changes/*/*"), lambda s: s.find("checkpoints/*/*"), noticed_by=("rebuild",)),
    "checkpoint": Kept(lambda s: s.find("checkpoints/*/*"), lambda s: s.find("changes/*/*")),
    "record with a list inline": Kept(lambda s: _journal(s, 2), lambda s: _journal(s, 3), noticed_by=("rebuild",)),
    "record": Kept(lambda s: _journal(s, 1), lambda s: _journal(s, 2), noticed_by=("rebuild",)),
    "event": Kept(lambda s: s.find("datasets/*/*", 1), lambda s: s.find("datasets/*/*", 3), noticed_by=("rebuild",)),
    "log record": Kept(lambda s: s.find("store/*", 0), lambda s: s.find("store/*", 1), noticed_by=("rebuild",)),
    "claim": Kept(
        lambda s: s.find(f"namespaces/{name_digest(RAW)}"),
        lambda s: s.find(f"namespaces/{name_digest(RUN)}"),
        noticed_by=("rebuild",),
    ),
    "format": Kept(lambda s: s.find("format/*"), lambda s: s.find("store/*"), noticed_by=OPERATIONS),
}


def damage_blob(sample: Sample, name: str, damage: str) -> None:
    path, other = BLOBS[name].find(sample), BLOBS[name].find_other(sample)
    if damage == "replaced":
        put_in_place(path, other)
    else:
        {"truncated": truncate, "flipped": flip, "deleted": delete}[damage](path)


def damage_footer(sample: Sample, damage: str) -> None:
    """Damage the table at the end of a pack, and leave its bodies alone."""
    path, other = (BLOBS["pack"].find(sample), BLOBS["pack"].find_other(sample))
    body, taken = path.read_bytes(), other.read_bytes()
    if damage == "truncated":
        path.write_bytes(body[:-10])
    elif damage == "flipped":
        flip_at(path, len(body) - ROW_BYTES - 20)
    elif damage == "deleted":
        path.write_bytes(body[: -ROW_BYTES * (SMALL + 1)])
    else:
        path.write_bytes(body[: -ROW_BYTES * (SMALL + 1)] + taken[-ROW_BYTES * 2 :])


SECOND = "store_id = 1 AND namespace_id = 1 AND number = 2"
ONE_ENTRY = "store_id = 1 AND namespace_id = 1 AND path = 'small/05'"
ONE_OBJECT = f"store_id = 1 AND digest = (SELECT digest FROM entry WHERE {ONE_ENTRY})"
ITS_BLOB = f"id = (SELECT blob_id FROM object WHERE {ONE_OBJECT})"
TAG_MOVE = "store_id = 1 AND dataset_id = 1 AND number = 2"
WHOLE_ENTRY = "store_id = 1 AND namespace_id = 1 AND path = 'whole'"
OTHER_ENTRY = "store_id = 1 AND namespace_id = 1 AND path = 'small/07'"


def _flipped(column: str) -> str:
    """Return SQL for a value of bytes with its first bit flipped."""
    return f"CAST(CASE WHEN substr({column}, 1, 1) = X'00' THEN X'80' ELSE X'00' END || substr({column}, 2) AS BLOB)"


ROWS: dict[str, dict[str, str]] = {
    "version": {
        "truncated": f"UPDATE version SET digest = CAST(substr(digest, 1, 31) AS BLOB) WHERE {SECOND}",
        "flipped": f"UPDATE version SET digest = {_flipped('digest')} WHERE {SECOND}",
        "deleted": f"DELETE FROM version WHERE {SECOND}",
        "replaced": "UPDATE version SET (digest, parent) = (SELECT o.digest, o.parent FROM version o WHERE o.namespace_id = 2)"
        f" WHERE {SECOND}",
    },
    "entry": {
        "truncated": f"UPDATE entry SET digest = CAST(substr(digest, 1, 31) AS BLOB) WHERE {ONE_ENTRY}",
        "flipped": f"UPDATE entry SET digest = {_flipped('digest')} WHERE {ONE_ENTRY}",
        "deleted": f"DELETE FROM entry WHERE {ONE_ENTRY}",
        "replaced": f"UPDATE entry SET (digest, size_bytes) = (SELECT digest, size_bytes FROM entry WHERE {OTHER_ENTRY})"
        f" WHERE {ONE_ENTRY}",
    },
    "entry of a whole object": {
        "truncated": f"UPDATE entry SET digest = CAST(substr(digest, 1, 31) AS BLOB) WHERE {WHOLE_ENTRY}",
        "flipped": f"UPDATE entry SET digest = {_flipped('digest')} WHERE {WHOLE_ENTRY}",
        "deleted": f"DELETE FROM entry WHERE {WHOLE_ENTRY}",
        "replaced": f"UPDATE entry SET (digest, size_bytes) = (SELECT digest, size_bytes FROM entry WHERE {OTHER_ENTRY})"
        f" WHERE {WHOLE_ENTRY}",
    },
    "object": {
        "truncated": f"UPDATE object SET length_bytes = length_bytes - 1 WHERE {ONE_OBJECT}",
        "flipped": f"UPDATE object SET offset_bytes = (offset_bytes | 4) - (offset_bytes & 4) WHERE {ONE_OBJECT}",
        "deleted": f"DELETE FROM object WHERE {ONE_OBJECT}",
        "replaced": f"UPDATE object SET blob_id = (SELECT MAX(blob_id) FROM object) WHERE {ONE_OBJECT}",
    },
    "blob": {
        "truncated": f"UPDATE blob SET size_bytes = size_bytes / 2 WHERE {ITS_BLOB}",
        "flipped": f"UPDATE blob SET key = substr(key, 1, 20) || '0' || substr(key, 22) WHERE {ITS_BLOB}",
        "deleted": f"DELETE FROM blob WHERE {ITS_BLOB}",
        "replaced": "UPDATE blob SET (size_bytes, etag) = (SELECT size_bytes, etag FROM blob WHERE key LIKE 'objects/%' LIMIT 1)"
        f" WHERE {ITS_BLOB}",
    },
    "tag event": {
        "truncated": f"UPDATE tag_event SET digest = CAST(substr(digest, 1, 31) AS BLOB) WHERE {TAG_MOVE}",
        "flipped": f"UPDATE tag_event SET digest = {_flipped('digest')} WHERE {TAG_MOVE}",
        "deleted": f"DELETE FROM tag_event WHERE {TAG_MOVE}",
        "replaced": f"UPDATE tag_event SET release = 2 WHERE {TAG_MOVE}",
    },
    "head": {
        "truncated": "UPDATE namespace SET head = head - 1 WHERE id = 1",
        "flipped": f"UPDATE namespace SET head_digest = {_flipped('head_digest')} WHERE id = 1",
        "deleted": "DELETE FROM namespace WHERE id = 1",
        "replaced": "UPDATE namespace SET (head, head_digest) = (SELECT head, head_digest FROM namespace WHERE id = 2)"
        " WHERE id = 1",
    },
}
MISLED = {("entry", "replaced"), ("entry of a whole object", "replaced")}
"""Which content a path has, the index alone tells a reader. That it is another one than in the journal, a check finds."""


@dataclass
class Cell:
    """A damaged copy, and what could be read of it before anything else was done."""

    sample: Sample
    name: str
    damage: str

    def check_nothing_wrong(self) -> dict[FilePlace, str]:
        """Read everything, and return what was read: a file is as it was written, or an error."""
        try:
            with self.sample.place.connect() as store:
                found = read_all(store, self.sample.versions)
        except VdsError as err:
            return {(RAW, 0, ""): err.kind}
        sound = digests_of(self.sample.versions)
        wrong = {place: digest for place, digest in found.items() if digest.startswith("b3:") and sound.get(place) != digest}
        assert (self.name, self.damage) in MISLED or wrong == {}
        return found

    def check_nothing_lost(self, before: dict[FilePlace, str], *, but: int = 0) -> None:
        """Read everything again: what could be read before still can, but for one version that expired."""
        after = self.check_nothing_wrong()
        if (RAW, 0, "") not in after:
            assert {place: after[place] for place, digest in before.items() if digest.startswith("b3:") and place[1] != but} == {
                place: digest for place, digest in before.items() if digest.startswith("b3:") and place[1] != but
            }


def attempt(work: Callable[[], bool]) -> bool:
    """Do something and return whether it said that something is wrong, by its answer or with an error of ours."""
    try:
        return work()
    except VdsError:
        return True


def do_read(cell: Cell) -> bool:
    return any(not digest.startswith("b3:") for digest in cell.check_nothing_wrong().values())


def do_verify(cell: Cell) -> bool:
    failures: set[str] = set()
    with vds.connect(cell.sample.place.url, read_only=True) as store:
        for namespace, number in cell.sample.versions:
            try:
                failures |= set(store.get(f"{namespace}@{number}").verify(show_progress=False).failures)
            except VdsError:
                failures.add("")
    if cell.name in BLOBS:
        assert failures <= {"", *BLOBS[cell.name].hurt}
    return bool(failures)


def do_gc(cell: Cell) -> bool:
    before = cell.check_nothing_wrong()

    def collect() -> bool:
        with cell.sample.place.connect() as store:
            store.expire(f"{RAW}@4", dry_run=False)
            store.gc(dry_run=False, grace_hours=0, show_progress=False)
            store.gc(dry_run=False, grace_hours=0, show_progress=False)
        return False

    noticed = attempt(collect)
    cell.check_nothing_lost(before, but=4)
    if cell.name in ROWS:  # the container was sound, and still holds all of it
        vds.rebuild_index(cell.sample.place.url, show_progress=False)
        sound = digests_of({version: files for version, files in cell.sample.versions.items() if version != (RAW, 4)})
        found = cell.check_nothing_wrong()
        assert {place: found[place] for place in sound} == sound
    return noticed


def do_rebuild(cell: Cell) -> bool:
    gaps = vds.rebuild_index(cell.sample.place.url, show_progress=False).gaps
    cell.check_nothing_wrong()
    with cell.sample.place.connect() as store:
        report = store.fsck(chain=True, show_progress=False)
        assert not gaps or not report.ok  # what was lost stays a finding
    return bool(gaps)


def do_upload(cell: Cell) -> bool:
    before = cell.check_nothing_wrong()
    source = write_tree(cell.sample.root.parent / "again", cell.sample.versions[RAW, 5])

    def upload() -> bool:
        with cell.sample.place.connect() as store:
            made = [store.namespace(name).upload(source, show_progress=False).version for name in ("new/one", RAW)]
            sound = digests_of({("", 0): cell.sample.versions[RAW, 5]})
            for version in made:
                for place, digest in read_all(store, {(version.namespace, version.number): {}}).items():
                    is_right = not digest.startswith("b3:") or digest == sound["", 0, place[2]]
                    assert is_right or (cell.name, cell.damage) in MISLED
        return False

    noticed = attempt(upload)
    cell.check_nothing_lost(before)
    return noticed


def do_fsck(cell: Cell) -> bool:
    with vds.connect(cell.sample.place.url, read_only=True) as store:
        seen = store.fsck(chain=True, full=True, show_progress=False)
        assert cell.name not in BLOBS or {touch.path for one in seen.problems for touch in one.touches} <= set(
            BLOBS[cell.name].hurt
        )
    with cell.sample.place.connect() as store:
        report = store.fsck(chain=True, full=True, show_progress=False)
        assert report.counts == seen.counts
    return not report.ok


DO: dict[str, Callable[[Cell], bool]] = {
    "read": do_read,
    "verify": do_verify,
    "gc": do_gc,
    "rebuild": do_rebuild,
    "upload": do_upload,
    "fsck": do_fsck,
}


@pytest.fixture
def copy(sample: Sample, tmp_path: Path) -> Sample:
    return sample.copy(tmp_path / "store")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", BLOBS)
def test_a_blob(name: str, damage: str, operation: str, copy: Sample) -> None:
    damage_blob(copy, name, damage)
    noticed = attempt(lambda: DO[operation](Cell(copy, name, damage)))
    if operation == "fsck" or operation in BLOBS[name].noticed_by:
        assert noticed


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_the_table_of_a_pack(damage: str, operation: str, copy: Sample) -> None:
    damage_footer(copy, damage)
    noticed = attempt(lambda: DO[operation](Cell(copy, "footer", damage)))
    if operation in ("fsck", "rebuild"):
        assert noticed
    elif operation in ("read", "verify"):
        assert not noticed


ROW_CELLS = list(product(ROWS, DAMAGES, OPERATIONS))


@pytest.mark.parametrize(("name", "damage", "operation"), ROW_CELLS)
def test_a_row(name: str, damage: str, operation: str, copy: Sample) -> None:
    copy.sql(ROWS[name][damage])
    noticed = attempt(lambda: DO[operation](Cell(copy, name, damage)))
    if operation == "fsck":
        assert noticed
    if operation == "rebuild":
        assert not noticed
        with copy.place.connect() as store:
            assert read_all(store, copy.versions) == digests_of(copy.versions)
            assert store.fsck(chain=True, show_progress=False).ok
            assert {tag: release.number for tag, release in store.dataset(DATASET).tags().items()} == {"prod": 2}
