"""`vds cache`: what it shows, removes and finds damaged; it needs no store."""

from __future__ import annotations

from pathlib import Path

import pytest
from blake3 import blake3

from tests.cli.conftest import Cli
from vds.files.cache import Cache

BODIES = [bytes([number]) * 1000 for number in range(3)]


@pytest.fixture
def cache(vds: Cli) -> Cache:
    """A cache of three objects and a range, where the command line looks for it."""
    cache = Cache(vds.directory / "cache")
    for body in BODIES:
        assert cache.put_object(blake3(body).digest(), [body], size_bytes=len(body)) is not None
    cache.put_range("store", "key", 0, b"range")
    return cache


def run(vds: Cli, *arguments: str, code: int = 0, **environ: str) -> object:
    outcome = vds("cache", *arguments, environ={"VDS_CACHE": str(vds.directory / "cache"), **environ})
    assert outcome.code == code, outcome
    return outcome.document if "--json" in arguments else outcome.out


def objects(cache: Cache) -> list[Path]:
    return sorted(cache.root.glob("objects/*/*"))


def test_list(vds: Cli, cache: Cache) -> None:
    text = run(vds, "list", VDS_CACHE_MAX="2GB")
    assert isinstance(text, str)
    lines = text.splitlines()
    assert lines[0] == f"{cache.root}: 2.9 KiB of at most 1.9 GiB"
    assert lines[1].split() == ["KIND", "FILES", "SIZE", "OLDEST", "USE", "NEWEST", "USE"]
    assert [line.split()[:2] for line in lines[2:]] == [
        ["objects", "3"],
        ["ranges", "1"],
        ["manifests", "0"],
        ["partial", "0"],
        ["stat", "0"],
    ]
    assert run(vds, "list", "-q") == f"{cache.root}\n"


def test_list_as_json(vds: Cli, cache: Cache) -> None:
    cache.hold_object(blake3(BODIES[0]).digest())
    document = run(vds, "list", "--json", VDS_CACHE_MAX="2GB")
    assert isinstance(document, dict)
    kinds = document.pop("kinds")
    assert document == {
        "root": str(cache.root),
        "size_bytes": 3005,
        "bytes_max": 2 * 10**9,
        "held_files": 1,
        "held_bytes": 1000,
    }
    assert list(kinds) == ["objects", "ranges", "manifests", "partial", "stat"]
    assert (kinds["objects"]["files"], kinds["objects"]["size_bytes"]) == (3, 3000)
    assert kinds["objects"]["oldest_use"] <= kinds["objects"]["newest_use"]
    assert kinds["manifests"] == {"files": 0, "size_bytes": 0, "oldest_use": None, "newest_use": None}
    assert "running programs hold 1 file (1000 B)" in str(run(vds, "list"))


def test_a_cache_that_is_not_there(vds: Cli) -> None:
    assert "0 B of at most" in str(run(vds, "list"))
    assert "0 files removed" in str(run(vds, "prune", "--to", "0"))
    assert run(vds, "verify", "--json") == {"ok": True, "files": 0, "size_bytes": 0, "failures": {}}
    assert not (vds.directory / "cache").exists()


def test_prune(vds: Cli, cache: Cache) -> None:
    assert run(vds, "prune", "-q") == "0\n"
    assert run(vds, "prune", "--to", "2.5kB", "-q") == "1000\n"
    assert len(objects(cache)) == 2
    assert run(vds, "prune", "--json", VDS_CACHE_MAX="0") == {
        "files": 3,
        "size_bytes": 2005,
        "leftover_files": 0,
        "leftover_bytes": 0,
        "kept_bytes": 0,
        "held_bytes": 0,
    }
    assert objects(cache) == []


def test_prune_spares_what_another_process_holds(vds: Cli, cache: Cache) -> None:
    held = cache.hold_object(blake3(BODIES[1]).digest())
    (cache.root / "partial").joinpath("left-1000").write_bytes(b"half")
    text = run(vds, "prune", "--to", "0")
    assert text == (
        "3 files removed (2.0 KiB), 1000 B left\n1 file of killed programs removed (4 B)\nrunning programs hold 1000 B\n"
    )
    assert objects(cache) == [held]


def test_verify(vds: Cli, cache: Cache) -> None:
    assert run(vds, "verify") == "4 files read (2.9 KiB), whole\n"
    damaged = objects(cache)[0]
    damaged.chmod(0o600)
    damaged.write_bytes(b"x" * 1000)
    fault = f"expected b3:{damaged.name}, read b3:{blake3(b'x' * 1000).hexdigest()}"
    assert run(vds, "verify", code=1) == f"4 files read (2.9 KiB), 1 file damaged, and removed\n{damaged}: {fault}\n"
    assert not damaged.exists()
    assert run(vds, "verify", "-q") == ""
    other = objects(cache)[0]
    other.chmod(0o600)
    other.write_bytes(b"")
    assert run(vds, "verify", "--json", code=1) == {
        "ok": False,
        "files": 3,
        "size_bytes": 1005,
        "failures": {str(other): f"expected b3:{other.name}, read b3:{blake3(b'').hexdigest()}"},
    }


@pytest.mark.parametrize("arguments", [("prune", "--to", "much"), ("prune", "--to", "-1"), ("prune", "--to", "10G"), ("show",)])
def test_usage(vds: Cli, cache: Cache, arguments: tuple[str, ...]) -> None:
    assert run(vds, *arguments, code=2) == ""
    assert len(objects(cache)) == 3


def test_a_cap_that_is_no_size(vds: Cli, cache: Cache) -> None:
    outcome = vds("cache", "list", "--json", environ={"VDS_CACHE_MAX": "lots"})
    assert outcome.code == 2
    assert "VDS_CACHE_MAX: 'lots' is no size" in outcome.error["message"]


def test_a_place_that_cannot_be_one(vds: Cli) -> None:
    (vds.directory / "cache").write_bytes(b"a file")
    assert run(vds, "list", "-q") == f"{vds.directory / 'cache'}\n"
    assert (vds.directory / "cache").read_bytes() == b"a file"
