"""Check that everything a store needs works here, and say what to do about what does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vds.blobs.objects import fresh_ulid
from vds.engine.doors import Doors
from vds.engine.journal import check_store_fresh
from vds.errors import BlobExistsError, CorruptionError, VdsError
from vds.index.database import now_us
from vds.index.queue import list_records
from vds.index.stores import check_revision
from vds.model.moment import moment_of
from vds.model.ref import format_moment


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked; `hint` says what to do when it is not well."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All checks, in the order they were made."""

    checks: list[Check]

    @property
    def ok(self) -> bool:
        """Whether everything is well."""
        return all(check.ok for check in self.checks)


def examine(doors: Doors, *, write_test: bool = False) -> Report:
    """Return what works and what does not; nothing is raised, and nothing written unless `write_test` asks for it."""
    checks = [
        ("container readable", lambda: _list(doors)),
        ("index reachable", lambda: _clock(doors)),
        ("index schema", lambda: _schema(doors)),
        ("index and store agree", lambda: _fresh(doors)),
        ("journal queue", lambda: _queue(doors)),
    ]
    if write_test:
        checks.append(("container writable", lambda: _write(doors)))
    return Report([_check(name, probe) for name, probe in checks])


def _check(name: str, probe: Callable[[], str]) -> Check:
    try:
        return Check(name, True, probe())
    except VdsError as err:
        return Check(name, False, str(err), err.hint)


def _list(doors: Doors) -> str:
    count = sum(1 for _ in doors.blobs.list_blobs("format/"))
    return f"{doors.blobs.url}, {count} format record" + ("" if count == 1 else "s")


def _clock(doors: Doors) -> str:
    with doors.index.read() as connection:
        return f"{doors.index.address}, its clock says {format_moment(moment_of(now_us(connection)))}"


def _schema(doors: Doors) -> str:
    check_revision(doors.index)
    return "as this program needs it"


def _fresh(doors: Doors) -> str:
    check_store_fresh(doors)
    return f"store {doors.store.uid}, incarnation {doors.store.incarnation}"


def _queue(doors: Doors) -> str:
    with doors.index.read() as connection:
        count = len(list_records(connection, doors.store.id))
    return f"{count} records waiting to be written" if count else "empty"


def _write(doors: Doors) -> str:
    """Try every right a writer needs on a blob of its own, which is taken away again where that is allowed."""
    doors.check_writable()
    key, body = f"doctor/{fresh_ulid()}", b"vds doctor\n"
    doors.blobs.put_if_absent(key, body)
    try:
        doors.blobs.put_if_absent(key, b"another")
    except BlobExistsError:
        pass
    else:
        raise CorruptionError(
            "the container let a blob be overwritten", hint="this service does not keep its contract: do not use it"
        )
    if doors.blobs.read_range(key) != body:
        raise CorruptionError("the container returned other bytes than were written", hint="do not use it")
    try:
        doors.blobs.delete_blob(key)
    except VdsError:
        return f"put and read work; deleting is not allowed, so {key} stays (writers need no right to delete)"
    return "put, put-if-absent, read and delete work"
