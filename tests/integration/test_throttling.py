"""A service that asks for less, and answers that are lost: an upload adapts, waits as long as it is told, and loses nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import pytest
from blake3 import blake3

import vds
import vds.blobs.objects
import vds.engine.gather
from tests.integration.proxy import CUT, Front, go_by, throttled
from tests.support import Checker, Place, read_version, write_tree
from tests.unit.blobs.loopback import Received, Reply
from vds.errors import VdsError
from vds.store import Store
from vds.store.results import UploadResult

pytestmark = pytest.mark.services

MIB = 1024 * 1024
NAMESPACE = "team/raw"
AT_ONCE = 5
"""How many requests the throttling service takes at once: more than an upload begins with, fewer than it would like."""
RETRY_AFTER_S = 7


def content(name: str, size_bytes: int) -> bytes:
    """Return bytes that no other name has."""
    return blake3(name.encode()).digest(size_bytes)


@pytest.fixture
def front(container_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    """Return a proxy in front of a container; files of more than a mebibyte go out in blocks of one."""
    monkeypatch.setattr(vds.blobs.objects, "BLOCK_BYTES_MIN", MIB)
    monkeypatch.setattr(vds.engine.gather, "SINGLE_PUT_BYTES_MAX", MIB)
    with Front(container_url) as opened:
        go_by(opened.clock, monkeypatch)
        yield opened


@pytest.fixture
def store(front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Return a new store behind the proxy."""
    monkeypatch.setenv("VDS_CACHE", str(tmp_path / "cache"))
    with vds.connect(front.front_url, index=index_url(tmp_path), create=True) as opened:
        yield opened


def index_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'index.sqlite'}"


def upload(store: Store, tree: Path, namespace: str = NAMESPACE) -> UploadResult:
    return store.namespace(namespace).upload(tree, show_progress=False)


@dataclass
class Throttle:
    """Says no while too many requests are in flight, and notes who comes back before the time it asked for.

    Attributes:
        judged: for each request that counts, whether it was sent away.
        early: requests that were sent again too early.
    """

    front: Front
    status: int
    judged: list[bool] = field(default_factory=list)
    early: list[str] = field(default_factory=list)
    due_s: dict[str, float] = field(default_factory=dict)

    def __call__(self, request: Received) -> Reply | None:
        now_s = self.front.clock.now_s()
        if now_s < self.due_s.pop(request.line, now_s):
            self.early.append(request.line)
        is_refused = self.front.clock.in_flight > AT_ONCE
        self.judged.append(is_refused)
        if not is_refused:
            return None
        # The client hears of it a moment after this.
        self.due_s[request.line] = now_s + RETRY_AFTER_S
        return throttled(self.status, RETRY_AFTER_S)


@pytest.mark.parametrize("status", [503, 429])
def test_an_upload_adapts_to_a_service_that_throttles(
    status: int, store: Store, front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vds.engine.gather, "PACK_MEMBERS_MAX", 1)  # a request for every file
    files = {f"small/{i:03d}": content(str(i), 2000 + i) for i in range(400)}
    files |= {f"large/{i}": content(f"large {i}", 3 * MIB + i) for i in range(4)}
    front.judge = judge = Throttle(front, status)
    result = upload(store, write_tree(tmp_path / "tree", files))
    front.judge = lambda request: None
    assert (result.uploaded, result.objects_new) == (404, 404)
    report = result.version.verify()
    assert (report.files, report.failures) == (404, {})
    # What is asked for is heard at once, and does not become a game of ping-pong: nearly all of the second half goes through.
    half = len(judge.judged) // 2
    assert any(judge.judged)
    assert sum(judge.judged[half:]) <= len(judge.judged) // 20
    assert store._handle.doors.blobs.pace.limit <= AT_ONCE + 2
    assert judge.early == []


@dataclass
class Cut:
    """Ends the connection instead of giving the answer to one request, which took effect.

    Attributes:
        kind: of what kind of request; none when empty.
        at: which of that kind, from 0.
        seen: how many requests of each kind there were.
    """

    kind: str = ""
    at: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    lock: Lock = field(default_factory=Lock)

    def __call__(self, request: Received, answer: Reply) -> Reply:
        kind = kind_of(request.line)
        with self.lock:
            self.seen[kind] += 1
            return CUT if (kind, self.seen[kind]) == (self.kind, self.at + 1) else answer


def kind_of(line: str) -> str:
    """Return the method of a request, the first segment of the key, and what it does there."""
    method, target, _ = line.split()
    path, _, query = target.partition("?")
    what = [name for name in ("blocklist", "block") if f"comp={name}" in query][:1]
    return " ".join([method, path.split("/")[3], *what])


def test_an_upload_survives_the_loss_of_any_answer(store: Store, front: Front, tmp_path: Path) -> None:
    def upload_new(cut: Cut) -> None:
        name = f"{cut.kind.replace(' ', '-')}/{cut.at}" if cut.kind else "whole"
        files = {part: content(part + name, size) for part, size in (("small", 100), ("whole", MIB), ("large", 2 * MIB))}
        front.after = cut
        result = upload(store, write_tree(tmp_path / "tree", files), f"{NAMESPACE}/{name.lower()}")
        front.after = lambda request, answer: answer
        assert (result.version.number, result.objects_new) == (1, 3)
        assert read_version(result.version) == files

    whole = Cut()
    upload_new(whole)
    assert whole.seen.keys() >= {"PUT packs", "PUT objects", "PUT objects block", "PUT objects blocklist", "PUT journal"}
    for kind, count in whole.seen.items():
        for at in range(count):
            cut = Cut(kind, at)
            upload_new(cut)
            assert cut.seen[kind] > at
    assert not Checker(Place(front.url, index_url(tmp_path)), NAMESPACE).queued()


@pytest.mark.parametrize("what", ["packs", "blocklist", "journal"])
def test_while_the_service_only_throttles_nothing_is_visible(what: str, store: Store, front: Front, tmp_path: Path) -> None:
    files = {"small": content("small", 100), "large": content("large", 2 * MIB)}
    tree = write_tree(tmp_path / "tree", files)
    front.judge = lambda request: throttled(503, 1) if what in request.line else None
    with pytest.raises(VdsError, match="503"):
        upload(store, tree)
    front.judge = lambda request: None
    assert store.namespace(NAMESPACE).latest().number == 0
    assert read_version(upload(store, tree).version) == files
