"""Take the names of old versions away: the bytes that only they keep are `vds.ops.collect`'s to take, later.

A version that a policy does not keep is marked, in the index and in the store's log, and is not read any more. Nothing else
changes: its entries and bytes stay until collection has set them aside and its grace is over, and can be given back till then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from vds.engine.doors import Doors
from vds.engine.journal import (
    AddedRecord,
    add_store_record,
    check_namespace_fresh,
    check_store_fresh,
    flush_line,
    publish_store_record,
)
from vds.engine.namespaces import get_namespace
from vds.errors import InvalidInputError, NotFoundError
from vds.index.database import Connection, now_us
from vds.index.expiry import list_kept, list_released, list_tagged, lock_kept, mark_expired
from vds.index.reach import measure_exclusive
from vds.index.stores import NamespaceRow
from vds.index.uses import Gap, list_kept_numbers, plan_gaps
from vds.index.versions import get_version
from vds.model.batch import batched
from vds.model.moment import moment_of
from vds.model.retention import Dated, Retention, plan_expiry
from vds.model.storelog import RANGES_MAX, pack_numbers
from vds.model.version import check_message


@dataclass(frozen=True, slots=True)
class Order:
    """What to expire of one namespace: what a policy does not keep, or the versions that are named."""

    namespace: str
    policy: Retention | None = None
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ExpiredVersion:
    """A version that expires."""

    namespace: str
    number: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ExpireReport:
    """What expired, or would.

    Attributes:
        versions: by namespace and number.
        kept: how many versions of those namespaces are left.
        held: how many of them only a release or a tag keeps.
        objects: contents that no other version has.
        size_bytes: of those contents: what collection can take.
        dry_run: whether nothing was done.
    """

    versions: list[ExpiredVersion]
    kept: int
    held: int
    objects: int
    size_bytes: int
    dry_run: bool


@dataclass(frozen=True, slots=True)
class _Planned:
    namespace: NamespaceRow
    is_named: bool
    versions: list[Dated]
    kept: int
    held: int
    gaps: list[Gap]


def expire(doors: Doors, orders: Sequence[Order], *, author: str, reason: str = "", dry_run: bool = True) -> ExpireReport:
    """Expire versions, and return which; each namespace is one step, all of it or nothing.

    The newest version of a namespace never expires. One that a release names expires only when it is named, or when the policy
    says so and no tag shows it.

    Raises:
        NotFoundError: there is no such namespace or version, or it has expired already.
        InvalidInputError: the newest version is named.
        FormatError: the index is older than its store.
    """
    check_message(reason)
    if not dry_run:
        doors.check_writable()
        flush_line(doors)
        check_store_fresh(doors)
    planned = [_plan(doors, order) for order in orders]
    with doors.index.read() as connection:
        objects, size_bytes = measure_exclusive(connection, doors.store.id, [gap for one in planned for gap in one.gaps])
    expired: list[ExpiredVersion] = []
    for one in planned:
        numbers = {version.number for version in one.versions}
        if not dry_run and numbers:
            check_namespace_fresh(doors, one.namespace)
            numbers = _carry_out(doors, one, author, reason)
        expired.extend(
            ExpiredVersion(one.namespace.name, version.number, version.created_at)
            for version in one.versions
            if version.number in numbers
        )
    kept, held = sum(one.kept for one in planned), sum(one.held for one in planned)
    return ExpireReport(expired, kept, held, objects, size_bytes, dry_run)


def _plan(doors: Doors, order: Order) -> _Planned:
    namespace = get_namespace(doors, order.namespace)
    with doors.index.read() as connection:
        versions = list_kept(connection, namespace)
        held = _list_held(connection, namespace, order)
        now = moment_of(now_us(connection))
        for number in order.numbers:
            if number in (0, namespace.visible):
                which = "latest" if number else "first and empty"
                raise InvalidInputError(
                    f"version {number} of {namespace.name!r} cannot expire: it is its {which} one",
                    hint=f"vds log {namespace.name}",
                )
            get_version(connection, namespace, number)
        if order.policy is not None:
            chosen = plan_expiry(versions, order.policy, held=held, now=now)
            held_alone = len(plan_expiry(versions, order.policy, held=(), now=now)) - len(chosen)
        else:
            chosen, held_alone = sorted(set(order.numbers)), 0
        kept = list_kept_numbers(connection, namespace.store_id, namespace.id)
    gone = set(chosen)
    gaps = plan_gaps(namespace.id, [number for number in kept if number not in gone], gone)
    going = [version for version in versions if version.number in gone]
    return _Planned(namespace, order.policy is None, going, len(versions) - len(going), held_alone, gaps)


def _list_held(connection: Connection, namespace: NamespaceRow, order: Order) -> set[int]:
    """Return the versions that this order may not take: none of those that are named."""
    if order.policy is None:
        return set()
    return list_released(connection, namespace) if order.policy.keep_tagged else list_tagged(connection, namespace)


def _carry_out(doors: Doors, planned: _Planned, author: str, reason: str) -> set[int]:
    """Mark the versions and return which: not those that were registered or expired meanwhile."""
    namespace = planned.namespace
    is_held_by_all = not planned.is_named
    done: set[int] = set()

    def work(connection: Connection, batch: list[int]) -> tuple[list[int], AddedRecord] | None:
        numbers = lock_kept(connection, namespace, batch)
        if is_held_by_all:  # looked at anew, now that nobody can register one of them
            held = list_released(connection, namespace).difference(released_before) | list_tagged(connection, namespace)
            numbers = [number for number in numbers if number not in held]
        if not numbers:
            return None
        fields = {"namespace": namespace.uid, "numbers": pack_numbers(numbers), "author": author, "reason": reason}
        added = add_store_record(connection, doors.store, "versions-expired", fields)
        mark_expired(connection, namespace, numbers, added.created_us)
        return numbers, added

    with doors.index.read() as connection:
        released_before = list_released(connection, namespace) & {version.number for version in planned.versions}
    for batch in batched([version.number for version in planned.versions], RANGES_MAX):
        outcome = doors.index.run(partial(work, batch=batch))
        if outcome is not None:
            done.update(outcome[0])
            publish_store_record(doors, outcome[1])
    return done


def orders_of(names: Sequence[tuple[str, int | None]], policy_of: dict[str, Retention]) -> list[Order]:
    """Return the orders for namespaces and single versions, given as (namespace, number or None).

    Raises:
        NotFoundError: a namespace is to be expired by a policy, and has none.
    """
    named: dict[str, list[int]] = {}
    orders: list[Order] = []
    for name, number in names:
        if number is not None:
            named.setdefault(name, []).append(number)
        elif name in policy_of:
            orders.append(Order(name, policy_of[name]))
        else:
            raise NotFoundError(f"nothing says which versions of {name!r} to keep", hint=f"vds expire {name} --keep-last 10")
    return [*orders, *(Order(name, None, tuple(numbers)) for name, numbers in named.items())]
