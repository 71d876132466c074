"""Objects and manifests in the local cache: whole or not there, and never the reason why a read fails."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import shutil
import stat
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pytest
from blake3 import blake3

from vds import config
from vds.errors import AccessDeniedError, CorruptionError, InvalidInputError, UnavailableError
from vds.files.cache import Cache, open_cache
from vds.files.localmanifest import write_manifest

posix = pytest.mark.skipif(sys.platform == "win32", reason="modes and symlinks of POSIX")

BODY = b"0123456789" * 1000
DIGEST = blake3(BODY).digest()
VERSION = blake3(b"a version").digest()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache that nothing was put into."""
    return Cache(tmp_path / "cache", bytes_max=1_000_000)


def put(cache: Cache, body: bytes = BODY) -> Path | None:
    return cache.put_object(blake3(body).digest(), [body], size_bytes=len(body))


def files(cache: Cache) -> set[str]:
    """Return what was put, or left half written."""
    kinds = ("objects", "ranges", "manifests", "partial")
    return {
        path.relative_to(cache.root).as_posix() for kind in kinds for path in (cache.root / kind).rglob("*") if not path.is_dir()
    }


def test_nothing_is_made_before_something_is_put(cache: Cache) -> None:
    assert cache.find_object(DIGEST) is cache.hold_object(DIGEST) is None
    assert cache.find_manifest(DIGEST) is cache.hold_manifest(DIGEST) is None
    assert cache.find_range("store", "key", 0, 10) is None
    cache.drop_object(DIGEST)
    cache.drop_range("store", "key", 0, 10)
    assert cache.manifests() == []
    assert cache.list().size_bytes == 0
    assert cache.prune().files == 0
    assert cache.verify().ok
    assert not cache.root.exists()


def test_an_object_is_found_once_it_was_put(cache: Cache) -> None:
    path = cache.put_object(DIGEST, [BODY[:5000], bytearray(BODY[5000:7000]), memoryview(BODY)[7000:]], size_bytes=len(BODY))
    assert path is not None
    assert path.read_bytes() == BODY
    assert (
        cache.find_object(DIGEST) == cache.hold_object(DIGEST) == path == cache.root / "objects" / DIGEST.hex()[:2] / DIGEST.hex()
    )
    assert Cache(cache.root).find_object(DIGEST) == path
    assert files(cache) == {path.relative_to(cache.root).as_posix()}


def test_an_empty_object_is_one(cache: Cache) -> None:
    path = put(cache, b"")
    assert path is not None
    assert path.read_bytes() == b""


@posix
def test_files_are_read_only_and_directories_private(cache: Cache) -> None:
    path = put(cache)
    assert path is not None
    assert stat.S_IMODE(path.stat().st_mode) == 0o444 & ~_umask()
    manifest = cache.put_manifest(VERSION, lambda file: None)
    assert manifest is not None
    assert stat.S_IMODE(manifest.stat().st_mode) == 0o444 & ~_umask()
    directories = [cache.root, *(found for found in cache.root.rglob("*") if found.is_dir())]
    assert len(directories) >= 4
    assert {stat.S_IMODE(directory.stat().st_mode) for directory in directories} == {0o700}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_is_there_is_not_asked_for_again(cache: Cache) -> None:
    path = put(cache)

    def chunks() -> Iterator[bytes]:
        raise AssertionError("asked for")
        yield b""

    assert cache.put_object(DIGEST, chunks(), size_bytes=len(BODY)) == path


@pytest.mark.parametrize("body", [BODY[:-1], BODY + b"x", BODY[:-1] + b"x", b""])
def test_other_bytes_are_not_kept(cache: Cache, body: bytes) -> None:
    with pytest.raises(CorruptionError, match=DIGEST.hex()):
        cache.put_object(DIGEST, [body], size_bytes=len(BODY))
    assert files(cache) == set()
    assert put(cache) is not None


def test_an_endless_source_is_left_when_it_has_given_too_much(cache: Cache) -> None:
    given = 0

    def endless() -> Iterator[bytes]:
        nonlocal given
        while True:
            given += 1
            yield BODY

    with pytest.raises(CorruptionError, match="read more"):
        cache.put_object(DIGEST, endless(), size_bytes=len(BODY))
    assert given == 2


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "not the cache's disk"), KeyboardInterrupt(), ValueError("x")])
def test_an_error_of_the_source_passes_through(cache: Cache, error: BaseException) -> None:
    def chunks() -> Iterator[bytes]:
        yield BODY[:10]
        raise error

    def write_some(file: BinaryIO) -> None:
        file.write(b"some")
        raise error

    with pytest.raises(type(error)) as caught:
        cache.put_object(DIGEST, chunks(), size_bytes=len(BODY))
    assert caught.value is error
    with pytest.raises(type(error)) as caught:
        cache.put_manifest(VERSION, write_some)
    assert caught.value is error
    assert files(cache) == set()
    assert cache.prune().kept_bytes == 0


def test_a_manifest_that_many_want_is_written_once(cache: Cache) -> None:
    written: list[int] = []
    together = threading.Barrier(4)

    def write(file: BinaryIO) -> None:
        written.append(threading.get_ident())
        file.write(BODY)

    def put(_: int) -> Path | None:
        own = Cache(cache.root, bytes_max=1 << 20)
        together.wait(30)
        return own.put_manifest(VERSION, write)

    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(put, range(4)))
    assert len(written) == 1
    [path] = paths
    assert path is not None
    assert path.read_bytes() == BODY


def test_an_object_of_another_length_is_replaced(cache: Cache) -> None:
    path = put(cache)
    assert path is not None
    path.chmod(0o600)
    path.write_bytes(b"cut")
    assert put(cache) == path
    assert path.read_bytes() == BODY


def test_a_dropped_object_is_gone(cache: Cache) -> None:
    put(cache)
    cache.drop_object(DIGEST)
    assert cache.find_object(DIGEST) is None
    cache.drop_object(DIGEST)


def test_manifests(cache: Cache) -> None:
    def write_and_seek(file: BinaryIO) -> None:
        file.write(b"?" * 8)
        assert file.tell() == 8
        file.write(b" body")
        file.seek(0)
        file.write(b"manifest")

    path = cache.put_manifest(VERSION, write_and_seek)
    assert path is not None
    assert path.read_bytes() == b"manifest body"
    assert cache.find_manifest(VERSION) == cache.hold_manifest(VERSION) == path == cache.root / "manifests" / VERSION.hex()
    other = cache.put_manifest(DIGEST, lambda file: None)
    assert cache.manifests() == sorted([path, other or path])
    before = path.read_bytes()
    assert cache.put_manifest(VERSION, lambda file: None) == path
    assert path.read_bytes() == before, "what is there is not written again"
    assert len(files(cache)) == 2


@pytest.mark.parametrize("size_bytes", [999, 1000, 1001])
def test_the_cap_is_one_for_all_kinds(tmp_path: Path, size_bytes: int, caplog: pytest.LogCaptureFixture) -> None:
    body = b"x" * size_bytes
    fits = size_bytes <= 1000
    for number in range(3):
        cache = Cache(tmp_path / str(number), bytes_max=1000)
        done = (
            put(cache, body),
            cache.put_range("s", "k", 0, body),
            cache.put_manifest(VERSION, lambda file: _write(file, body)),
        )
        assert bool(done[number]) is fits, number
        assert (cache.list().size_bytes <= 1000) is True
    if not fits:
        assert "more than its cap of 1000" in caplog.text


def _write(file: BinaryIO, body: bytes) -> None:
    file.write(body)


def test_a_cache_of_no_bytes_takes_only_what_is_empty(tmp_path: Path) -> None:
    cache = Cache(tmp_path, bytes_max=0)
    assert put(cache) is None
    assert put(cache, b"") is not None


def test_a_full_disk_is_no_error(cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert put(cache) is None
    assert put(cache, b"another") is None
    assert cache.put_manifest(VERSION, lambda file: None) is None
    assert files(cache) == set()
    assert [record.levelno for record in caplog.records] == [logging.WARNING], "said once"
    assert str(cache.root) in caplog.text
    monkeypatch.undo()
    assert put(cache) is not None
    assert cache.prune().kept_bytes == len(BODY), "what was not written does not count"


@posix
def test_a_write_that_the_system_cuts_is_no_error(cache: Cache) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    put(cache, b"so that the directories are there")
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # a limit on each file: the only full disk that a test can have
    try:
        assert put(cache) is None
        assert not cache.put_range("store", "key", 0, BODY)
        assert cache.put_manifest(VERSION, lambda file: _write(file, BODY)) is None
        assert put(cache, BODY[:4096]) is not None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(files(cache)) == 2


def test_a_cache_that_cannot_be_written(cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    path = put(cache)
    real = os.open

    def read_only(path: str, flags: int, *rest: int, **options: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", read_only)
    assert put(cache, b"another") is None
    assert not cache.put_range("store", "key", 0, b"bytes")
    assert cache.put_manifest(VERSION, lambda file: None) is None
    assert cache.find_object(DIGEST) == cache.hold_object(DIGEST) == path, "nothing is evicted from such a disk"
    assert cache.list().kinds[0].files == 1
    assert cache.verify().ok
    assert len(caplog.records) == 1
    with pytest.raises(UnavailableError, match="cannot be used"):
        cache.prune(0)


def test_a_cache_of_another_user_is_as_none(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(cache)
    cache.put_range("store", "key", 0, b"bytes")

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    for name in ("open", "lstat", "scandir", "listdir", "mkdir"):
        monkeypatch.setattr(os, name, refuse)
    theirs = Cache(cache.root, bytes_max=10**6)
    assert theirs.find_object(DIGEST) is theirs.hold_object(DIGEST) is theirs.find_manifest(DIGEST) is None
    assert theirs.find_range("store", "key", 0, 5) is None
    assert put(theirs) is None
    assert not theirs.put_range("store", "key", 0, b"bytes")
    theirs.drop_object(DIGEST)
    theirs.drop_range("store", "key", 0, 5)
    assert theirs.manifests() == []
    assert len(caplog.records) == 1, "said once"
    for call in (theirs.list, theirs.prune, theirs.verify):
        with pytest.raises(AccessDeniedError, match="not open to this user") as caught:
            call()
        assert "VDS_CACHE" in caught.value.hint


def test_a_file_in_place_of_the_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    cache = Cache(tmp_path / "file", bytes_max=10**6)
    assert put(cache) is cache.find_object(DIGEST) is cache.hold_object(DIGEST) is None
    assert cache.find_range("store", "key", 0, 5) is None
    assert not cache.put_range("store", "key", 0, b"bytes")
    assert (tmp_path / "file").read_bytes() == b"x"


@posix
@pytest.mark.parametrize("planted", ["objects", f"objects/{DIGEST.hex()[:2]}", "partial"])
def test_nothing_is_written_through_a_symlink(cache: Cache, tmp_path: Path, planted: str) -> None:
    (tmp_path / "outside").mkdir()
    link = cache.root / planted
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "outside")
    assert put(cache) is None
    assert list((tmp_path / "outside").iterdir()) == []


@posix
def test_a_symlink_is_no_object(cache: Cache, tmp_path: Path) -> None:
    path = put(cache)
    assert path is not None
    outside = tmp_path / "outside"
    outside.write_bytes(BODY)
    path.unlink()
    path.symlink_to(outside)
    assert cache.find_object(DIGEST) is cache.hold_object(DIGEST) is None
    assert put(cache) == path
    assert not path.is_symlink()
    assert outside.read_bytes() == BODY
    (cache.root / "total").unlink()
    (cache.root / "total").symlink_to(outside)
    assert put(cache, b"another") is None
    assert outside.read_bytes() == BODY


def test_a_cache_that_is_removed_while_it_is_used(cache: Cache) -> None:
    put(cache)
    assert cache.hold_object(DIGEST) is not None
    cache.put_range("store", "key", 0, b"bytes")
    shutil.rmtree(cache.root)
    assert cache.find_object(DIGEST) is cache.hold_object(DIGEST) is None
    assert cache.find_range("store", "key", 0, 5) is None
    assert put(cache) is not None
    assert cache.put_range("store", "key", 0, b"bytes")
    assert cache.hold_object(DIGEST) is not None
    cache.prune(0)
    assert cache.find_object(DIGEST) is not None, "held in the new one too"


def test_threads_that_put_and_drop_the_same_object(cache: Cache) -> None:
    def work(number: int) -> None:
        for _ in range(20):
            path = put(cache)
            assert path is not None
            with suppress(FileNotFoundError):
                assert path.read_bytes() == BODY
            if number % 2:
                cache.drop_object(DIGEST)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert put(cache) is not None
    assert len(files(cache)) == 1


def test_a_cache_pickles(cache: Cache) -> None:
    put(cache)
    cache.hold_object(DIGEST)
    again = pickle.loads(pickle.dumps(cache))
    assert (again.root, again.bytes_max) == (cache.root, cache.bytes_max)
    assert again.find_object(DIGEST) == cache.find_object(DIGEST)


def test_verify_removes_what_is_damaged(cache: Cache, tmp_path: Path) -> None:
    good, bad = put(cache), put(cache, b"another body")
    assert good is not None
    assert bad is not None
    bad.chmod(0o600)
    bad.write_bytes(b"another bodY")
    cache.put_range("store", "key", 0, BODY)
    cache.put_range("store", "key", 50_000, BODY)
    [cut] = cache.root.glob("ranges/*/*/50000-*")
    cut.chmod(0o600)
    cut.write_bytes(BODY[:-1])
    cache.put_manifest(VERSION, lambda file: _write(file, b"no manifest"))
    whole = cache.put_manifest(DIGEST, lambda file: write_manifest(file, [], lambda numbers: {}, lambda digests: {}, {}))
    assert whole is not None
    whole_bytes = whole.stat().st_size
    used_ns = os.stat(good).st_atime_ns - 10**12
    os.utime(good, ns=(used_ns, os.stat(good).st_mtime_ns))

    result = cache.verify()

    assert not result.ok
    assert (result.files, result.size_bytes) == (6, 3 * len(BODY) - 1 + len(b"another body") + len(b"no manifest") + whole_bytes)
    assert {Path(path).name: fault for path, fault in result.failures.items()} == {
        bad.name: f"expected b3:{bad.name}, read b3:{blake3(b'another bodY').hexdigest()}",
        cut.name: f"expected {len(BODY)} bytes, found {len(BODY) - 1}",
        VERSION.hex(): "its sum is not that of its bytes",
    }
    assert cache.verify().ok
    assert cache.verify().files == 3
    assert cache.find_object(blake3(b"another body").digest()) is None
    assert cache.prune().kept_bytes == 2 * len(BODY) + whole_bytes
    if hasattr(os, "O_NOATIME"):
        assert os.stat(good).st_atime_ns == used_ns, "a check is no use"


def test_list(cache: Cache) -> None:
    put(cache)
    put(cache, b"another")
    cache.hold_object(DIGEST)
    cache.put_range("store", "key", 5, b"bytes")
    cache.put_manifest(VERSION, lambda file: _write(file, b"manifest"))
    (cache.root / "stat").mkdir()
    (cache.root / "stat" / "x.frames").write_bytes(b"stat")
    old = cache.find_object(blake3(b"another").digest())
    assert old is not None
    os.utime(old, (1_000_000_000, os.stat(old).st_mtime))
    listing = cache.list()
    assert {kind.kind: (kind.files, kind.size_bytes) for kind in listing.kinds} == {
        "objects": (2, len(BODY) + 7),
        "ranges": (1, 5),
        "manifests": (1, 8),
        "partial": (0, 0),
        "stat": (1, 4),
    }
    assert (listing.root, listing.bytes_max, listing.size_bytes) == (str(cache.root), 1_000_000, len(BODY) + 20)
    assert (listing.held_files, listing.held_bytes) == (1, len(BODY))
    objects, partial = listing.kinds[0], listing.kinds[3]
    assert objects.oldest_use is not None
    assert objects.newest_use is not None
    assert objects.oldest_use.timestamp() == 1_000_000_000 < objects.newest_use.timestamp()
    assert partial.oldest_use is partial.newest_use is None


def test_open_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = {"VDS_CACHE": str(tmp_path / "c")}
    cache = open_cache({**root, "VDS_CACHE_MAX": "200GB"})
    assert cache is not None
    assert (cache.root, cache.bytes_max) == (tmp_path / "c", 200 * 10**9)
    assert open_cache({**root, "VDS_CACHE_MAX": "0"}) is None
    with pytest.raises(InvalidInputError, match="VDS_CACHE_MAX: 'much'"):
        open_cache({**root, "VDS_CACHE_MAX": "much"})
    monkeypatch.setattr(config, "cache_directory", lambda environ: None)
    monkeypatch.setattr("vds.files.cache.cache_directory", lambda environ: None)
    assert open_cache({}) is None
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("disk_bytes", "bytes_max"), [(100 * 10**9, 20 * 10**9), (250 * 10**9, 50 * 10**9), (10**13, 50 * 10**9)]
)
def test_the_default_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk_bytes: int, bytes_max: int) -> None:
    asked = []

    def usage(path: Path) -> object:
        asked.append(path)
        return shutil._ntuple_diskusage(disk_bytes, 0, 0)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    assert config.cache_bytes_max(tmp_path / "not" / "there", {}) == bytes_max
    assert config.cache_bytes_max(tmp_path, {"VDS_CACHE_MAX": ""}) == bytes_max
    assert asked == [tmp_path, tmp_path]
    assert Cache(tmp_path).bytes_max == bytes_max


@pytest.mark.parametrize("is_same", [True, False])
def test_an_object_that_was_written_to_is_hashed_again(cache: Cache, caplog: pytest.LogCaptureFixture, is_same: bool) -> None:
    path = cache.put_object(DIGEST, [BODY], size_bytes=len(BODY))
    assert path is not None
    other = path.with_name("linked")
    os.link(path, other)
    other.chmod(0o644)
    other.write_bytes(BODY if is_same else BODY[::-1])
    assert cache.find_object(DIGEST) == (path if is_same else None)
    assert cache.hold_object(DIGEST) == (path if is_same else None)
    assert path.exists() is is_same
    assert ("was changed" in caplog.text) is not is_same
    other.unlink()
    assert cache.put_object(DIGEST, [BODY], size_bytes=len(BODY)) == path
