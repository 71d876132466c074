"""A blob service at whose wires everything can go wrong: the blobs in memory, the network of our own making, time virtual.

Guarantees:
- without a plan, and under a plan of harmless faults, it keeps the contract of `vds.blobs.driver`;
- a plan decides call by call what goes wrong; one that is drawn from a seed decides the same for the same number of a call;
- nothing sleeps: each request takes a moment of virtual time, `advance` lets more of it pass;
- a request whose caller has given up stays under way and takes effect when it is due: later than requests sent after it;
- what was deleted can be had back, as with soft delete.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeVar

import pytest

from vds.blobs.driver import Blob, Block, Buffer
from vds.blobs.memory import REQUESTS_AT_ONCE, MemoryDriver
from vds.errors import BlobExistsError, CorruptionError, NoSpaceError, NotFoundError, UnavailableError, VdsError
from vds.pace import Pace

T = TypeVar("T")

REQUEST_S = 0.01
RETRY_AFTER_S = 5.0

Kind = Literal["refused", "throttled", "lost", "late", "retried", "repeated", "full", "short", "garbled"]
"""What goes wrong with a call:

- refused: 503, nothing happens;
- throttled: 429 with Retry-After, which the driver waits for before it asks again: then all is well;
- lost: it takes effect, its answer does not come;
- late: no answer comes, and it takes effect after its caller has given up;
- retried: its answer is lost, and the driver asks again: the answer is the second one's, 409 or 404 after our own success;
- repeated: all is well, and the network delivers the request once more, later;
- full: no space;
- short: the answer ends early, and the driver notices;
- garbled: a bit of the answer is wrong, and the driver does not notice.
"""

READS = frozenset({"find_blob", "read_range", "list_blobs", "list_blocks"})
CHANGES = frozenset({"create_container", "put_if_absent", "stage_block", "commit_blocks", "copy_blob", "delete_blob"})
IDEMPOTENT = READS | {"create_container", "stage_block"}

_CALLS: dict[Kind, frozenset[str]] = {
    "refused": READS | CHANGES,
    "throttled": READS | CHANGES,
    "lost": CHANGES,
    "late": CHANGES,
    "retried": CHANGES,
    "repeated": CHANGES,
    "full": CHANGES - {"delete_blob"},
    "short": frozenset({"read_range"}),
    "garbled": frozenset({"read_range"}),
}


def kinds_of(name: str) -> list[Kind]:
    """Return what can go wrong with a call of this name."""
    return [kind for kind, names in _CALLS.items() if name in names]


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong with one call; `delay_s` is for a request that takes effect later."""

    kind: Kind
    delay_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Call:
    """One request: the `number`-th since `begin_log`; a listing's key is its prefix.

    Attributes:
        nth: which one it is, since then, of those with its name and area.
    """

    number: int
    name: str
    key: str
    nth: int = 1
    fault: Fault | None = None

    @property
    def area(self) -> str:
        """The first part of its key, which is the same whenever the same thing is done."""
        return self.key.partition("/")[0]

    @property
    def place(self) -> tuple[str, str, int]:
        """What tells it from all others, also where threads run side by side, and where keys are fresh."""
        return self.name, self.area, self.nth


Plan = Callable[[Call], Fault | None]


def all_well(call: Call) -> None:
    """Let every call succeed."""


def fault_at(place: tuple[str, str, int], kind: Kind, delay_s: float = 60.0) -> Plan:
    """Return the plan by which one call goes wrong."""
    return lambda call: Fault(kind, delay_s) if call.place == place else None


def drawn(seed: object, share: float, kinds: Iterable[Kind] = tuple(_CALLS), delay_s_max: float = 120.0) -> Plan:
    """Return the plan by which a share of the calls goes wrong, each in a way that its place and the seed decide."""
    allowed = set(kinds)

    def plan(call: Call) -> Fault | None:
        chance = random.Random(f"{seed}/{call.place}")
        possible = [kind for kind in kinds_of(call.name) if kind in allowed]
        if not possible or chance.random() >= share:
            return None
        return Fault(chance.choice(possible), chance.uniform(0, delay_s_max))

    return plan


def harmless(seed: object) -> Plan:
    """Return the plan of a bad day that no caller may notice: waits, and requests that arrive twice before they are answered."""
    waits, twice = drawn(seed, 0.3, ["throttled", "repeated"], 0.0), drawn(seed, 0.5, ["retried"])
    return lambda call: waits(call) or (twice(call) if call.name in IDEMPOTENT else None)


@dataclass(frozen=True, slots=True)
class Saved:
    """What a service held at one moment."""

    exists: bool
    blobs: Mapping[str, Any]
    blocks: Mapping[str, Mapping[str, bytes]]
    deleted: Mapping[str, tuple[Any, ...]]


class Service:
    """One container behind a network; any number of drivers ask it.

    Attributes:
        plan: decides what goes wrong; may be set at any time.
        fired: how many calls went wrong since `begin_log`.
        log: every request since `begin_log`, in order.
        now_s: virtual time.
        late_keys: the keys of requests that took effect after their callers had gone on.
    """

    def __init__(self, name: str, plan: Plan = all_well) -> None:
        self.name = name
        self.plan = plan
        self.log: list[Call] = []
        self.fired = 0
        self.now_s = 0.0
        self.late_keys: set[str] = set()
        self._container = MemoryDriver(name)._container
        self._deleted: dict[str, list[Any]] = {}
        self._late: list[tuple[float, int, str, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._alike: Counter[tuple[str, str, int]] = Counter()
        self._lock = threading.Lock()

    def begin_log(self) -> None:
        """Count calls from here on."""
        self.log.clear()
        self._alike.clear()
        self.fired = 0

    def serve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have every driver opened for `memory://NAME` from now on ask this service."""
        monkeypatch.setattr(
            "vds.blobs.open.MemoryDriver", lambda name: SimulatedDriver(self) if name == self.name else MemoryDriver(name)
        )

    def counts(self) -> Counter[str]:
        """Return how often each call was asked for since the log was begun."""
        return Counter(call.name for call in self.log)

    def ask(self, name: str, key: str, effect: Callable[[], T], pace: Pace) -> T:
        """Make one request, or let it go wrong."""
        with self._lock:
            call = Call(len(self.log) + 1, name, key)
            self._alike[call.place] += 1
            call = replace(call, nth=self._alike[call.place])
            call = replace(call, fault=self.plan(call))
            self.log.append(call)
            self.fired += call.fault is not None
        assert call.fault is None or call.fault.kind in kinds_of(name), call
        self.advance(REQUEST_S)
        try:
            return effect() if call.fault is None else self._go_wrong(call, call.fault, effect, pace)
        finally:
            self._deliver()

    def advance(self, seconds: float) -> None:
        """Let time pass; what becomes due meanwhile takes effect, in the order in which it is due."""
        with self._lock:
            self.now_s += seconds
        self._deliver()

    def settle(self) -> int:
        """Let time pass until nothing is under way, and return how many requests took effect."""
        count = len(self._late)
        while self._late:
            self.advance(max(0.0, self._late[0][0] - self.now_s))
        return count

    def deleted(self) -> list[str]:
        """Return the keys that can be had back."""
        return sorted(self._deleted)

    def undelete(self, key: str) -> None:
        """Have back what was last deleted under a key.

        Raises:
            NotFoundError: nothing was.
            BlobExistsError: there is a blob again.
        """
        with self._lock:
            if not self._deleted.get(key):
                raise NotFoundError(f"no blob {key!r} was deleted")
            if key in self._container.blobs:
                raise BlobExistsError(f"there is a blob {key!r} again")
            self._container.blobs[key] = self._deleted[key].pop()
            if not self._deleted[key]:
                del self._deleted[key]

    def save(self) -> Saved:
        """Return what the service holds; what is under way is not part of it."""
        held = self._container
        return Saved(
            held.exists,
            dict(held.blobs),
            {key: dict(blocks) for key, blocks in held.blocks.items()},
            {key: tuple(bodies) for key, bodies in self._deleted.items()},
        )

    def restore(self, saved: Saved) -> None:
        """Hold again what was saved, and forget what is under way; etags are never given twice all the same."""
        self._late.clear()
        self.late_keys.clear()
        self._container.exists = saved.exists
        self._container.blobs = dict(saved.blobs)
        self._container.blocks = {key: dict(blocks) for key, blocks in saved.blocks.items()}
        self._deleted = {key: list(bodies) for key, bodies in saved.deleted.items()}

    def delete(self, key: str, delete: Callable[[], bool]) -> bool:
        """Delete a blob and keep what it was."""
        with self._lock:
            stored = self._container.blobs.get(key)
            was_there = delete()
            if was_there:
                self._deleted.setdefault(key, []).append(stored)
            return was_there

    def _go_wrong(self, call: Call, fault: Fault, effect: Callable[[], T], pace: Pace) -> T:
        what = f"{call.name} {call.key!r}"
        if fault.kind == "throttled":
            pace.throttled(RETRY_AFTER_S)
            self.advance(RETRY_AFTER_S)
            return effect()
        if fault.kind == "repeated":
            answer = effect()
            self._send_later(fault.delay_s, call.key, effect)
            return answer
        if fault.kind == "retried":
            with suppress(VdsError):
                effect()
            return effect()
        if fault.kind == "garbled":
            return _garbled(effect())
        if fault.kind == "lost":
            with suppress(VdsError):
                effect()
        elif fault.kind == "late":
            self._send_later(fault.delay_s, call.key, effect)
        elif fault.kind == "full":
            raise NoSpaceError(f"no space for {what}")
        elif fault.kind == "short":
            raise CorruptionError(f"the answer to {what} ended early", hint="run: vds fsck")
        raise UnavailableError(f"no answer to {what}" if fault.kind != "refused" else f"the service is too busy for {what}")

    def _send_later(self, delay_s: float, key: str, effect: Callable[[], object]) -> None:
        with self._lock:
            heapq.heappush(self._late, (self.now_s + delay_s, next(self._numbers), key, effect))

    def _deliver(self) -> None:
        while True:
            with self._lock:
                if not self._late or self._late[0][0] > self.now_s:
                    return
                _, _, key, effect = heapq.heappop(self._late)
            with suppress(VdsError):  # nobody waits for the answer
                effect()
                self.late_keys.add(key)


def _garbled(answer: T) -> T:
    if not isinstance(answer, bytes) or not answer:
        return answer
    changed = bytearray(answer)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)  # type: ignore[return-value]  # T is bytes here


class SimulatedDriver(MemoryDriver):
    """A driver that asks a simulated service; a listing asks once a page."""

    def __init__(self, service: Service) -> None:
        super().__init__(service.name)
        self._service = service
        self._pace = Pace(REQUESTS_AT_ONCE, REQUESTS_AT_ONCE, clock=lambda: service.now_s)

    def _ask(self, name: str, key: str, effect: Callable[[], T]) -> T:
        return self._service.ask(name, key, effect, self._pace)

    def create_container(self) -> None:
        self._ask("create_container", "", super().create_container)

    def put_if_absent(self, key: str, body: Buffer, metadata: Mapping[str, str] | None = None) -> str:
        # A request that is late carries its bytes as they were when it was sent: its sender has filled the buffer anew since.
        return self._ask("put_if_absent", key, partial(super().put_if_absent, key, bytes(body), metadata))

    def stage_block(self, key: str, block_id: str, body: Buffer) -> None:
        self._ask("stage_block", key, partial(super().stage_block, key, block_id, bytes(body)))

    def list_blocks(self, key: str) -> list[Block]:
        return self._ask("list_blocks", key, partial(super().list_blocks, key))

    def commit_blocks(self, key: str, block_ids: Sequence[str], metadata: Mapping[str, str] | None = None) -> str:
        return self._ask("commit_blocks", key, partial(super().commit_blocks, key, list(block_ids), metadata))

    def find_blob(self, key: str) -> Blob | None:
        return self._ask("find_blob", key, partial(super().find_blob, key))

    def read_range(self, key: str, offset_bytes: int = 0, length_bytes: int | None = None) -> bytes:
        return self._ask("read_range", key, partial(super().read_range, key, offset_bytes, length_bytes))

    def copy_blob(self, source_key: str, target_key: str) -> str:
        return self._ask("copy_blob", target_key, partial(super().copy_blob, source_key, target_key))

    def delete_blob(self, key: str, etag: str | None = None) -> bool:
        delete = partial(super().delete_blob, key, etag)
        return self._ask("delete_blob", key, lambda: self._service.delete(key, delete))

    def _list_page(self, prefix: str, start_after: str) -> list[Blob]:
        return self._ask("list_blobs", prefix, partial(super()._list_page, prefix, start_after))
