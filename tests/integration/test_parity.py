"""One script on every kind of store: the same contents have the same digest, wherever they are and however they came about."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
from blake3 import blake3

import vds
from tests.support import SERVICES, Place, make_place, read_version, write_tree

PLACES = [
    "memory+sqlite",
    "directory+sqlite",
    pytest.param("directory+postgresql", marks=SERVICES),
    pytest.param("azurite+postgresql", marks=SERVICES),
]
RAW, PROD = "team/raw", "team/prod"

FIRST = {"a.txt": b"one", "d/b.bin": b"\x00two", "d/empty": b"", "d/é/ü": b"three", "d.x": b"beside d", "large": b"x" * 1_200_000}
SECOND = {"b.bin": b"two again", "c": b"new"}
MIRROR = {"b.bin": b"two again", "only": b"this"}

Contents = dict[str, bytes]
STREAM = b"s" * 20_000_000
EXECUTABLE = "a.txt"


def expected() -> dict[str, list[Contents]]:
    """Return what each version must hold, worked out by hand."""
    below = {path: body for path, body in FIRST.items() if path.startswith("d/")}
    second = {**FIRST, "d/b.bin": SECOND["b.bin"], "d/c": SECOND["c"]}
    third = {path: body for path, body in second.items() if path not in ("d/c", "a.txt")}
    third |= {"t/bytes": b"written", "t/stream": STREAM, "t/moved": SECOND["c"]}
    third |= {f"t/copied/{path[2:]}": body for path, body in below.items()}
    fourth = {path: body for path, body in third.items() if not path.startswith("d/")}
    fourth |= {f"d/{path}": body for path, body in MIRROR.items()}
    raw = [{}, FIRST, second, third, fourth, {**FIRST, **fourth}, second, {**second, "again/d.x": FIRST["d.x"]}, second, FIRST]
    from_raw = {f"from-raw/{path[2:]}": body for path, body in third.items() if path.startswith("d/")}
    return {RAW: raw, PROD: [{}, FIRST, {**FIRST, **from_raw}, FIRST]}


def digest_of(contents: Contents) -> str:
    """Work out a content digest as the format describes it, without the program."""
    hasher = blake3(derive_key_context="vds content 1")
    for path, body in sorted((path.encode(), body) for path, body in contents.items()):
        kind = 2 if path == EXECUTABLE.encode() else 1
        hasher.update(len(path).to_bytes(2, "little") + bytes([kind]) + path + blake3(body).digest())
    return "b3:" + hasher.hexdigest()


def play(store: vds.Store, work: Path) -> None:
    """Use everything that makes versions."""
    raw, prod = store.namespace(RAW), store.namespace(PROD)
    first = write_tree(work / "first", FIRST)
    (first / EXECUTABLE).chmod(0o755)
    raw.upload(first, show_progress=False, message="first", labels={"step": "1"})
    raw.upload(write_tree(work / "second", SECOND), "d", show_progress=False)
    with raw.transaction("several") as tx:
        tx.write_bytes("t/bytes", b"written")
        with tx.open("t/stream") as file:
            file.write(STREAM)
        tx.move("d/c", "t/moved")
        tx.delete("a.txt")
        tx.copy(f"{RAW}@1/d", "t/copied")
    raw.upload(write_tree(work / "mirror", MIRROR), "d", mirror=True, show_progress=False)
    prod.copy(raw.get(1))
    prod.copy(f"{RAW}@3/d", "from-raw")
    raw.upload(first, overwrite=False, show_progress=False)
    raw.rollback(2)
    raw.upload_files([first / "d.x"], relative_root=first, target_path="again", show_progress=False)
    raw.revert(7)
    raw.rollback(1)
    prod.upload(first, mirror=True, show_progress=False)
    dataset = store.dataset("customers")
    dataset.register(raw.get(1), "d", tags=["prod"])
    dataset.tag("prod", raw.latest())


def digests(store: vds.Store) -> dict[str, list[str]]:
    """Return the content digest of every version, the empty one first."""
    return {
        name: [str(store.namespace(name).get(0).content_digest)]
        + [str(version.content_digest) for version in store.namespace(name).log()[::-1]]
        for name in (RAW, PROD)
    }


@pytest.mark.skipif(os.name == "nt", reason="the script has an executable file")
@pytest.mark.parametrize("kind", PLACES)
def test_the_same_script_makes_the_same_contents(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    place: Place = make_place(kind, request)
    with place.connect(create=True) as store:
        play(store, tmp_path / "work")
        found = digests(store)
        assert found == {name: [digest_of(contents) for contents in line] for name, line in expected().items()}
        raw, prod = store.namespace(RAW), store.namespace(PROD)
        check_paths_to_one_content(store, found)
        assert [read_version(version) for version in raw.log()[::-1]] == expected()[RAW][1:]
        assert [read_version(version) for version in prod.log()[::-1]] == expected()[PROD][1:]
        for before, after in pairwise(raw.log()[::-1]):
            assert bool(raw.diff(before, after)) == (before.content_digest != after.content_digest)
    with place.connect() as store:
        assert digests(store) == found  # kept, and the same when opened anew
        assert store.get("customers:1").content_digest == store.namespace(RAW).get(1).at("d").content_digest
        assert str(store.get("customers:prod").content_digest) == found[RAW][-1]


def check_paths_to_one_content(store: vds.Store, found: dict[str, list[str]]) -> None:
    """Check contents that were reached in several ways: by upload, by copy, by rollback, by revert, by a mirror."""
    raw, prod = store.namespace(RAW), store.namespace(PROD)
    operations = {version.number: version.operation for version in raw.log()}
    assert [operations[number] for number in sorted(operations)] == [
        *("upload", "upload", "transaction", "mirror", "upload", "rollback", "upload", "revert", "rollback")
    ]
    assert found[RAW][6] == found[RAW][2]  # rollback
    assert found[RAW][9] == found[RAW][1]  # rollback over all else
    assert found[PROD][1] == found[RAW][1]  # copy to another namespace
    assert found[PROD][3] == found[RAW][1]  # mirror of the same directory
    assert raw.get(3).at("t/copied").content_digest == raw.get(1).at("d").content_digest
    assert prod.get(2).at("from-raw").content_digest == raw.get(3).at("d").content_digest
    assert found[RAW][8] == found[RAW][6]  # revert of what lies between
    assert raw.get(1).digest != raw.get(9).digest  # the history tells them apart
