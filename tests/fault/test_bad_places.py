"""Full and foreign disks, services that go away, containers of someone else, hostile names: clear errors, nothing lost."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

import vds
import vds.engine.commit
from tests import services
from tests.fault.nursery import Trap
from tests.support import (
    NEEDS_FORK,
    SERVICES,
    Checker,
    Place,
    exit_code,
    in_fork,
    make_place,
    read_tree,
    read_version,
    write_tree,
)
from vds.errors import (
    AccessDeniedError,
    DownloadError,
    FormatError,
    InvalidInputError,
    NoSpaceError,
    NotFoundError,
    UnavailableError,
    VdsError,
)
from vds.index.commit import commit_staged
from vds.model.format import format_key

NAMESPACE = "team/raw"
FILES = {"a": b"one", "d/b": b"two" * 50, "large": bytes(range(256)) * 5000}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(str(tmp_path / "store"))
    with made.connect(create=True) as store:
        upload(store, tmp_path, FILES)
    return made


def upload(store: vds.Store, tmp_path: Path, files: dict[str, bytes]) -> vds.Version:
    with tempfile.TemporaryDirectory(dir=tmp_path) as source:
        return store.namespace(NAMESPACE).upload(write_tree(Path(source), files), show_progress=False).version


def find_error(call: Callable[[], object]) -> VdsError | None:
    try:
        call()
    except VdsError as err:
        return err
    return None


def check_intact(place: Place, count: int = 1) -> None:
    with place.connect() as store:
        assert len(Checker(place, NAMESPACE).check(store)) == count
        assert read_version(store.namespace(NAMESPACE).get(1)) == FILES


# Disks


@pytest.mark.parametrize("call", ["write", "fsync", "mkdir", "link"])
def test_a_full_disk_under_the_blobs(call: str, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = getattr(os, call)
    more = {"new/a": b"new", "new/large": bytes(reversed(range(256))) * 5000}
    with place.connect() as store:
        for count in range(100):
            left = iter(range(count))

            def full(*args: Any, left: Iterator[int] = left, **options: Any) -> Any:
                if next(left, None) is None:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return real(*args, **options)

            source = write_tree(tmp_path / f"more-{count}", {path: body + str(count).encode() for path, body in more.items()})
            with monkeypatch.context() as patched:
                patched.setattr(os, call, full)
                error = find_error(partial(store.namespace(NAMESPACE).upload, source, show_progress=False))
            if error is None:
                break
            assert isinstance(error, NoSpaceError) or isinstance(error.__cause__, NoSpaceError), error
            assert error.hint
        assert count > 0
    with place.connect() as store:
        versions = Checker(place, NAMESPACE).check(store)
        assert len(versions) >= 2
        assert read_version(versions[0]) == FILES


def test_a_full_disk_under_the_index(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = real(*args, **options)
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    real = sqlite3.connect
    many = {f"many/{i:05d}": b"" for i in range(3000)}
    with monkeypatch.context() as patched:
        patched.setattr(sqlite3, "connect", connect)
        with place.connect() as store, pytest.raises(NoSpaceError) as caught:
            upload(store, tmp_path, many)
        assert "disk" in caught.value.hint
    check_intact(place)
    with place.connect() as store:
        assert upload(store, tmp_path, many).file_count == 3000 + len(FILES)


def test_a_full_disk_under_a_download(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, dst = os.write, tmp_path / "dst"

    def full(descriptor: int, data: Any) -> int:
        if len(data) > 1000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    with place.connect() as store:
        version = store.namespace(NAMESPACE).latest()
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(NoSpaceError) as caught:
                version.download(dst, show_progress=False)
            assert caught.value.hint
        assert read_tree(dst).items() <= FILES.items()
        version.download(dst, show_progress=False)
        assert read_tree(dst) == FILES


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Return a directory that anybody may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as text:
        Path(text).chmod(0o755)
        yield Path(text)
        for path in Path(text).rglob("*"):
            path.chmod(0o755)


@NEEDS_FORK
def test_a_directory_that_may_not_be_written(open_directory: Path) -> None:
    place = Place(str(open_directory / "store"))
    with place.connect(create=True) as store:
        upload(store, open_directory, FILES)
    source = write_tree(open_directory / "source", {"new": b"new"})
    sealed = open_directory / "sealed"
    sealed.mkdir(mode=0o555)
    for path in (Path(place.url), *Path(place.url).rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)

    def work() -> None:
        become_nobody()
        with pytest.raises(AccessDeniedError) as caught:
            vds.connect(sealed / "store", create=True)
        assert caught.value.hint
        with pytest.raises(AccessDeniedError) as caught:
            place.connect().namespace(NAMESPACE).upload(source, show_progress=False)
        assert caught.value.hint
        # SQLite needs a file beside the index even for reading, while its write-ahead log is on.
        with pytest.raises(AccessDeniedError):
            vds.connect(place.url, read_only=True)

    assert exit_code(in_fork(work)) == 0
    for path in (Path(place.url), *Path(place.url).rglob("*")):
        path.chmod(0o755)
    check_intact(place)
    assert list(sealed.iterdir()) == []


@NEEDS_FORK
def test_a_target_that_may_not_be_written(open_directory: Path) -> None:
    place = Place(str(open_directory / "store"))
    with place.connect(create=True) as store:
        version = upload(store, open_directory, FILES)
        version.download(open_directory / "fine", show_progress=False)  # loads what is needed, while it can be read
    sealed = open_directory / "sealed"
    sealed.mkdir(mode=0o555)
    for path in (Path(place.url), *Path(place.url).rglob("*")):
        path.chmod(0o777)

    def work() -> None:
        become_nobody()
        with vds.connect(place.url, read_only=True) as store:
            version = store.namespace(NAMESPACE).latest()
            for target in (sealed, sealed / "below"):
                with pytest.raises(InvalidInputError, match="cannot be written"):
                    version.download(target, show_progress=False)
            with pytest.raises(AccessDeniedError):
                store.namespace(NAMESPACE).upload(open_directory, show_progress=False)

    assert exit_code(in_fork(work)) == 0
    assert list(sealed.iterdir()) == []


def become_nobody() -> None:
    """Give up the rights of root, to whom nothing is read-only."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


# Services


def terminate_backends(database_url: str) -> int:
    """End every other connection to the database and return how many there were."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'vds'"
        ).fetchall()
    return len(rows)


@SERVICES
@pytest.mark.parametrize("after", [False, True])
def test_a_database_that_goes_away_in_the_middle_of_a_commit(
    after: bool, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place("directory+postgresql", request)
    assert place.index is not None
    url = place.index
    real, left = commit_staged, iter(range(1))

    def commit_and_lose(connection: Any, *args: Any) -> Any:
        # Paused inside the transaction: before its first statement, or after its last and before COMMIT.
        if not after and next(left, None) is not None:
            assert terminate_backends(url) > 0
        outcome = real(connection, *args)
        if after and next(left, None) is not None:
            assert terminate_backends(url) > 0
        return outcome

    with place.connect(create=True) as store:
        upload(store, tmp_path, FILES)
        monkeypatch.setattr(vds.engine.commit, "commit_staged", commit_and_lose)
        if after:
            assert upload(store, tmp_path, {"new": b"new"}).number == 2  # asked again by its commit id
        else:
            with pytest.raises(UnavailableError) as caught:
                upload(store, tmp_path, {"new": b"new"})
            assert caught.value.hint
            assert store.namespace(NAMESPACE).latest().number == 1
            assert upload(store, tmp_path, {"new": b"new"}).number == 2
    check_intact(place, 2)


@SERVICES
def test_a_database_that_loses_the_answer_to_a_commit(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_place("directory+postgresql", request)
    assert place.index is not None
    url, left = place.index, iter(range(1))
    real = sa.engine.Transaction.commit

    def commit_and_lose(self: Any) -> None:
        is_ours = armed and next(left, None) is not None
        real(self)
        if is_ours:
            raise sa.exc.OperationalError("COMMIT", None, psycopg.OperationalError("server closed the connection"))

    armed = False
    with place.connect(create=True) as store:
        upload(store, tmp_path, FILES)

        def arm(*args: Any) -> Any:
            nonlocal armed
            armed = True
            return commit_staged(*args)

        monkeypatch.setattr(vds.engine.commit, "commit_staged", arm)
        monkeypatch.setattr(sa.engine.Transaction, "commit", commit_and_lose)
        assert upload(store, tmp_path, {"new": b"new"}).number == 2
        assert next(left, None) is None
        assert terminate_backends(url) >= 0
    check_intact(place, 2)


@SERVICES
def test_a_database_server_that_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VDS_TEST_POSTGRES_URL", raising=False)  # one of our own: no other test may miss it
    with ExitStack() as server:
        place = Place(str(tmp_path / "store"), server.enter_context(services.postgres()))
        store = place.connect(create=True)
        version = upload(store, tmp_path, FILES)
        server.close()
        for call in (lambda: upload(store, tmp_path, {"new": b"new"}), lambda: read_version(version), place.connect):
            with pytest.raises(UnavailableError) as caught:
                call()
            assert caught.value.hint
        store.close()


@pytest.mark.timeout(60)  # seconds, not the minutes for which a service that answers badly is asked again
def test_a_misspelt_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(host: str, *args: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises((UnavailableError, NotFoundError)) as caught:
        vds.connect("https://misspelt.blob.core.windows.net/data", credential="QUJD" * 21 + "QUI=")
    assert "misspelt" in str(caught.value) + caught.value.hint
    assert caught.value.hint


# Containers of someone else


def test_a_directory_that_is_not_a_store(tmp_path: Path) -> None:
    mine = write_tree(tmp_path / "mine", {"thesis.tex": b"years of work"})
    for url in (mine, tmp_path / "absent"):
        with pytest.raises(NotFoundError) as caught:
            vds.connect(url)
        assert "vds init" in caught.value.hint
    with pytest.raises(InvalidInputError, match="not empty"):
        vds.connect(mine, create=True)
    assert read_tree(mine) == {"thesis.tex": b"years of work"}
    assert not (tmp_path / "absent").exists()


@SERVICES
def test_a_container_that_is_not_a_store(container_url: str, database_url: str) -> None:
    place = Place(container_url, database_url)
    with pytest.raises(NotFoundError):
        place.connect()
    blobs = place.blobs()
    blobs.create_container()
    blobs.put_if_absent("thesis.tex", b"years of work")
    with pytest.raises(NotFoundError) as caught:
        place.connect()
    assert "vds init" in caught.value.hint
    assert [blob.key for blob in blobs.list_blobs()] == ["thesis.tex"]
    blobs.close()


def test_a_store_of_a_newer_format(place: Place) -> None:
    blobs = place.blobs()
    newer = blobs.read_range(format_key(1)).replace(b'"format":1', b'"format":2')
    blobs.put_if_absent(format_key(2), newer.replace(b'"min_writer":1', b'"min_writer":2'))
    with pytest.raises(FormatError) as caught:
        place.connect()
    assert "upgrade" in caught.value.hint
    with vds.connect(place.url, read_only=True) as store:  # still readable, as it says
        assert read_version(store.namespace(NAMESPACE).latest()) == FILES
    newest = newer.replace(b'"min_writer":1', b'"min_writer":2').replace(b'"min_reader":1', b'"min_reader":2')
    blobs.put_if_absent(format_key(3), newest)
    for read_only in (False, True):
        with pytest.raises(FormatError):
            vds.connect(place.url, read_only=read_only)


# Downloads


HOSTILE = ["../evil", "/evil", "d/../../evil", "./evil", "evil/", "a//evil", "evil\\..\\..\\evil", "..", ".vds/state", "d\nevil"]


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("verb", ["download", "checkout"])
def test_a_hostile_name_never_leaves_the_target(verb: str, hostile: str, place: Place, tmp_path: Path) -> None:
    database = place.database()
    with database.read() as connection:
        connection.exec_driver_sql("UPDATE entry SET path = ? WHERE path = 'a'", (hostile,))
        connection.exec_driver_sql("COMMIT")
    database.close()
    around = tmp_path / "around"
    dst = around / "one" / "two"
    dst.mkdir(parents=True)
    with place.connect() as store:
        version = store.namespace(NAMESPACE).latest()
        with pytest.raises(VdsError):
            getattr(version, verb)(dst, show_progress=False)
    found = {path for path in read_tree(around) if "/.vds/" not in path}
    assert found <= {f"one/two/{path}" for path in FILES}
    assert not Path("/evil").exists()
    assert "evil" not in "".join(found)


@pytest.mark.parametrize("verb", ["download", "checkout"])
def test_a_planted_symlink_is_not_followed(verb: str, place: Place, tmp_path: Path) -> None:
    outside = write_tree(tmp_path / "outside", {"secret": b"secret", "b": b"not ours"})
    dst = tmp_path / "dst"
    dst.mkdir()
    (dst / "d").symlink_to(outside, target_is_directory=True)
    (dst / "a").symlink_to(outside / "secret")
    with place.connect() as store:
        version = store.namespace(NAMESPACE).latest()
        with pytest.raises(VdsError) as caught:
            getattr(version, verb)(dst, show_progress=False)
        if isinstance(caught.value, DownloadError):
            assert set(caught.value.failures) == {"a", "d/b"}
    assert read_tree(outside) == {"secret": b"secret", "b": b"not ours"}
    assert (dst / "a").is_symlink()


@NEEDS_FORK
@pytest.mark.parametrize("verb", ["download", "checkout"])
def test_a_killed_download_leaves_each_file_whole_or_absent(verb: str, place: Place, tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    old = {path: b"old" + body for path, body in FILES.items()}
    with place.connect() as store:
        upload(store, tmp_path, old)
    cut = 0
    for at in range(1, 60, 2):
        shutil.rmtree(dst, ignore_errors=True)
        with place.connect() as store:
            store.namespace(NAMESPACE).get(2).checkout(dst, show_progress=False)

        def work(at: int = at) -> None:
            trap = Trap(at, after=at % 4 == 1)
            for name in ("write", "fsync", "replace", "unlink", "mkdir", "rename", "open"):
                setattr(os, name, trap.around(getattr(os, name)))
            with place.connect() as store:
                getattr(store.namespace(NAMESPACE).get(1), verb)(dst, show_progress=False)

        code = exit_code(in_fork(work))
        assert code in (0, -signal.SIGKILL)
        cut += code != 0
        found = {path: body for path, body in read_tree(dst).items() if not path.startswith(".vds/")}
        assert set(found) == set(FILES)
        assert all(body in (FILES[path], old[path]) for path, body in found.items()), f"torn by a kill at call {at}"
        with place.connect() as store:
            options = {"force": True} if verb == "checkout" else {}
            getattr(store.namespace(NAMESPACE).get(1), verb)(dst, show_progress=False, **options)
        found = {path: body for path, body in read_tree(dst).items() if not path.startswith(".vds/")}
        assert found == FILES
    assert cut > 5
    check_intact(place, 2)
