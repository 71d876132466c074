"""`vds expire` and `vds gc`: what they print, ask for, refuse, and how they end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from vds.model.digest import Digest


@pytest.fixture
def grown(vds: Cli) -> Cli:
    """A store with four versions of one namespace, each with a large file of its own."""
    vds.ok("init", "./store", "-q")
    out = vds.directory / "out"
    out.mkdir()
    for number in range(1, 5):
        (out / "large.bin").write_bytes(str(number).encode() * 1_200_000)
        (out / "small.txt").write_text("the same")
        vds.ok("upload", "out", "team/raw", "-q")
    return vds


def numbers(vds: Cli) -> list[int]:
    return [version["number"] for version in vds.ok("log", "team/raw", "--json").document["versions"]]


def objects(directory: Path) -> int:
    return sum(path.is_file() for path in (directory / "store" / "objects").rglob("*"))


def test_expire_and_collect(grown: Cli) -> None:
    planned = grown.ok("expire", "team/raw", "--keep-last", "1")
    assert planned.out.splitlines()[-1] == "would expire 3 versions, 1 kept; only they keep 3 objects (3.4 MiB)"
    assert planned.err == "nothing was changed; do it with --yes\n"
    assert numbers(grown) == [4, 3, 2, 1]
    done = grown.ok("expire", "team/raw", "--keep-last", "1", "--yes", "-m", "tidy", "--json")
    assert [version["number"] for version in done.document["versions"]] == [1, 2, 3]
    assert numbers(grown) == [4]
    gone = grown("ls", "team/raw@2", "--json")
    assert (gone.code, gone.error["kind"]) == (3, "not-found")

    seen = grown.ok("gc")
    assert "would be condemned" in seen.out
    assert "it would be refused: 75% of the store's" in seen.err
    refused = grown("gc", "--yes", "--json")
    assert (refused.code, refused.error["kind"]) == (2, "invalid-input")
    assert objects(grown.directory) == 4
    condemned = grown.ok("gc", "--yes", "--max-share", "0.8", "--json")
    assert (condemned.document["condemned"], condemned.document["deleted"], condemned.document["waiting"]) == (3, 0, 3)
    assert objects(grown.directory) == 4
    deleted = grown.ok("gc", "--yes", "--max-share", "0.8", "--grace-hours", "0", "-q")
    assert len(deleted.out.splitlines()) == 3
    assert objects(grown.directory) == 1
    grown.ok("verify", "team/raw")


def test_undo(grown: Cli) -> None:
    grown.ok("expire", "team/raw@1", "team/raw@3", "--yes")
    grown.ok("gc", "--yes", "--max-share", "1")
    back = grown.ok("gc", "--undo")
    assert back.out.splitlines()[0] == "2 blobs (2.3 MiB) and 2 versions are back"
    assert numbers(grown) == [4, 3, 2, 1]
    grown.ok("verify", "team/raw@1")


def test_policies_of_the_settings(grown: Cli) -> None:
    missing = grown("expire", "--yes")
    assert (missing.code, "vds.toml" in missing.err) == (2, True)
    settings = grown.directory / "vds.toml"
    settings.write_text(settings.read_text() + '\n[expire."team/*"]\nkeep-last = 2\n')
    assert grown.ok("expire", "-q").out.split() == ["team/raw@1", "team/raw@2"]
    assert grown.ok("expire", "team/raw", "--keep-last", "3", "-q").out.split() == ["team/raw@1"]
    settings.write_text(settings.read_text().replace("keep-last", "keep-lots"))
    wrong = grown("expire")
    assert (wrong.code, "unknown key 'keep-lots'" in wrong.err) == (2, True)
    settings.write_text(settings.read_text().replace("keep-lots = 2", "keep-tagged = true"))
    assert "keeps nothing" in grown("expire").err
    grown.ok("log", "team/raw")  # other commands do not mind


REFUSED = [
    (("expire", "team/raw@4", "--yes"), 2),
    (("expire", "team/raw@9", "--yes"), 3),
    (("expire", "team/none", "--keep-last", "1"), 3),
    (("expire", "customers:prod", "--yes"), 2),
    (("expire", "team/raw@latest", "--yes"), 2),
    (("expire", "team/raw", "--keep-last", "0"), 2),
    (("expire", "team/raw", "--keep-within", "soon"), 2),
    (("gc", "--grace-hours", "-1"), 2),
    (("gc", "--undo", "--erase", "b3:" + "0" * 64), 2),
    (("gc", "--reason", "why"), 2),
    (("gc", "--erase", "b3:1"), 2),
    (("gc", "--erase", "b3:" + "0" * 64), 3),
]


def test_what_is_refused(grown: Cli) -> None:
    for arguments, code in REFUSED:
        outcome = grown(*arguments)
        assert outcome.code == code, (arguments, outcome.err)
        assert "hint:" in outcome.err or "Usage" in outcome.err, arguments
    assert numbers(grown) == [4, 3, 2, 1]


def test_erase(grown: Cli) -> None:
    digest = str(Digest.of(b"2" * 1_200_000))
    planned = grown.ok("gc", "--erase", digest)
    assert planned.out.splitlines() == [f"{digest} (1.1 MiB) would be erased; 1 place held it:", "team/raw@2..2/large.bin"]
    assert "It cannot be undone" in planned.err
    assert grown("gc", "--erase", digest, "--yes").code == 2  # without a reason
    done = grown.ok("gc", "--erase", digest, "--reason", "request 7", "--yes", "--json", "-q")
    assert len(done.document["deleted_keys"]) == 1
    assert objects(grown.directory) == 3
    read = grown("cat", "team/raw@2/large.bin", "--json")
    assert (read.code, read.error["kind"]) == (3, "erased")
    assert "request 7" in read.error["message"]
    (grown.directory / "out" / "large.bin").write_bytes(b"2" * 1_200_000)
    again = grown("upload", "out", "team/raw")
    assert (again.code, "was erased by" in again.err) == (10, True)
