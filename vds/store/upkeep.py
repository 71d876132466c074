"""What a platform owner does to a store: expire names, collect bytes, erase a content. The verbs are in `vds.ops`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from fnmatch import fnmatchcase

from vds.config import find_expire_policies
from vds.errors import InvalidInputError, NotFoundError
from vds.index.stores import list_namespaces
from vds.model.digest import Digest
from vds.model.ref import NamespaceRef, parse_ref
from vds.model.retention import Retention, parse_span
from vds.ops.expire import ExpireReport, Order, expire
from vds.store.handle import Handle


def expire_versions(
    handle: Handle,
    names: str | Sequence[str] | None,
    rules: Retention | None,
    *,
    reason: str,
    dry_run: bool,
) -> ExpireReport:
    """Expire what is named, or what the rules, else the policies of vds.toml, do not keep; see `Store.expire`."""
    asked = [names] if isinstance(names, str) else list(names or ())
    doors = handle.doors
    with doors.index.read() as connection:
        known = [row.name for row in list_namespaces(connection, doors.store.id) if row.visible]
    policies = _Policies(rules)
    orders: list[Order] = []
    named: dict[str, list[int]] = {}
    for text in asked:
        namespace, number = _parse(text)
        if number is None:
            orders.append(Order(namespace, policies.get(namespace)))
        else:
            named.setdefault(namespace, []).append(number)
    if not asked:
        found = {name: policies.find(name) for name in known}
        orders = [Order(name, policy) for name, policy in found.items() if policy is not None]
        if not orders and rules is None:
            raise InvalidInputError(
                "nothing says which versions to keep",
                hint='vds expire NAMESPACE --keep-last 10, or [expire."runs/*"] in vds.toml',
            )
    orders += [Order(name, None, tuple(numbers)) for name, numbers in named.items()]
    author = handle.intent().author if not dry_run else ""
    return expire(doors, orders, author=author, reason=reason, dry_run=dry_run)


class _Policies:
    """Which policy a namespace has: the rules of the call, else the first pattern of the settings that fits its name."""

    def __init__(self, rules: Retention | None) -> None:
        self._rules = rules
        self._source, self._patterns = ("", []) if rules is not None else find_expire_policies()

    def find(self, name: str) -> Retention | None:
        if self._rules is not None:
            return self._rules
        exact = [policy for pattern, policy in self._patterns if pattern == name]
        fitting = exact or [policy for pattern, policy in self._patterns if fnmatchcase(name, pattern)]
        for policy in fitting[:1]:
            if not policy.says_anything:
                raise InvalidInputError(f"{self._source}: the policy for {name!r} keeps nothing", hint="keep-last = 10")
            return policy
        return None

    def get(self, name: str) -> Retention:
        policy = self.find(name)
        if policy is None:
            raise NotFoundError(f"nothing says which versions of {name!r} to keep", hint=f"vds expire {name} --keep-last 10")
        return policy


def digest_of(text: str) -> Digest:
    """Return a digest that somebody typed.

    Raises:
        InvalidInputError: it is none.
    """
    try:
        return Digest(text)
    except ValueError as err:
        raise InvalidInputError(str(err), hint="vds ls -l REF shows digests") from err


def _parse(text: str) -> tuple[str, int | None]:
    """Return the namespace and, when one is named, the version's number."""
    ref = parse_ref(text)
    if not isinstance(ref, NamespaceRef):
        raise InvalidInputError(f"{text!r} is not a namespace or a version of one", hint="vds expire team/raw@12")
    if "@" not in text:
        return ref.name, None
    if ref.point.number is None or ref.point.back:
        raise InvalidInputError(f"{text!r} does not name a version by its number", hint=f"vds expire {ref.name}@12")
    return ref.name, ref.point.number


def rules_of(
    *,
    keep_last: int | None,
    keep_daily: int | None,
    keep_weekly: int | None,
    keep_within: str | timedelta | None,
    keep_tagged: bool,
) -> Retention | None:
    """Return the policy that the arguments of a call make; None when they say nothing.

    Raises:
        InvalidInputError: one is no such rule.
    """
    span = None if keep_within is None else parse_span(keep_within)
    rules = Retention(keep_last, keep_daily, keep_weekly, span, keep_tagged)
    return rules if rules.says_anything else None
