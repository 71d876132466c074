"""The stat cache: whatever is doubtful is unknown, whatever happens to its files."""

from __future__ import annotations

import errno
import logging
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from vds.files import statcache, statframes, statspool
from vds.files.scan import ScanReport, SourceFile, scan_directory
from vds.files.statcache import COARSE_TICK_NS, TICK_NS, StatCache, open_stat_cache, settle_delay_s
from vds.model.entry import MODE_FILE
from vds.model.path import EntryPath

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither these modes, locks nor signals")

NOW_NS = 1_800_000_000_123_456_789
OLD_NS = NOW_NS - 60_000_000_003


def source(path: str, number: int = 0, *, size_bytes: int = 7) -> SourceFile:
    """Return a file that was written long ago."""
    return SourceFile(EntryPath(path), f"/src/{path}", size_bytes, OLD_NS + number, OLD_NS + number + 1, 1000 + number, MODE_FILE)


def digest(file: SourceFile) -> bytes:
    """Return what stands for the file's content: another one for each path and mtime."""
    return f"{file.path} {file.modified_ns}".encode().ljust(32, b".")[-32:]


def with_column(file: SourceFile, column: str, value: int) -> SourceFile:
    return SourceFile(**{**file._asdict(), column: value})


FILES = [source(f"d/{number:02}", number) for number in range(9)]
DIGESTS = [digest(file) for file in FILES]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    return tmp_path / "tree"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The directory of caches; not there yet."""
    return tmp_path / "caches" / "vds"


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of two rows, and a spool that is written to after every fourth row."""
    for module in (statcache, statspool):
        monkeypatch.setattr(module, "FRAME_ROWS", 2)
    monkeypatch.setattr(statspool, "FRAME_ROWS_MAX", 4)
    monkeypatch.setattr(statcache, "_BUFFER_ROWS", 4)


def keep(root: Path, home: Path, files: Iterable[SourceFile], *, is_complete: bool = True) -> None:
    """Go through an upload of `files` that reads whatever is unknown."""
    cache = open_stat_cache(str(root), home)
    upload(cache, files)
    cache.save(is_complete=is_complete)
    cache.close()


def upload(cache: StatCache, files: Iterable[SourceFile]) -> None:
    for file in files:
        if cache.find([file]) == [None]:
            cache.add([file], [digest(file)], NOW_NS)


def known(root: Path, home: Path, files: list[SourceFile]) -> list[bytes | None]:
    cache = open_stat_cache(str(root), home)
    found = cache.find(files)
    cache.close()
    return found


def own_files(home: Path) -> list[str]:
    return sorted(path.suffix for path in (home / "stat").iterdir()) if (home / "stat").exists() else []


def the_file(home: Path) -> Path:
    (path,) = (home / "stat").glob("*.stat")
    return path


@pytest.mark.parametrize("batch", [1, 2, 4, 9])
@pytest.mark.usefixtures("small")
def test_what_was_kept_is_found(root: Path, home: Path, batch: int) -> None:
    keep(root, home, FILES)
    cache = open_stat_cache(str(root), home)
    assert [raw for at in range(0, 9, batch) for raw in cache.find(FILES[at : at + batch])] == DIGESTS
    cache.close()


@pytest.mark.parametrize("column", ["size_bytes", "modified_ns", "changed_ns", "inode"])
@pytest.mark.parametrize("difference", [-1, 1])
def test_a_difference_in_any_column_is_unknown(root: Path, home: Path, column: str, difference: int) -> None:
    keep(root, home, FILES)
    changed = with_column(FILES[4], column, getattr(FILES[4], column) + difference)
    assert known(root, home, [*FILES[:4], changed, *FILES[5:]]) == [*DIGESTS[:4], None, *DIGESTS[5:]]


def test_the_mode_and_the_name_on_disk_do_not_matter(root: Path, home: Path) -> None:
    keep(root, home, FILES[:1])
    assert known(root, home, [FILES[0]._replace(mode=0o755, os_path="elsewhere")]) == DIGESTS[:1]


@pytest.mark.usefixtures("small")
def test_paths_that_are_not_there_are_unknown(root: Path, home: Path) -> None:
    keep(root, home, FILES[1::2])
    assert known(root, home, FILES) == [None, *[raw for pair in zip(DIGESTS[1::2], [None] * 4, strict=True) for raw in pair]]
    assert known(root, home, [source("a"), source("d"), source("d/1"), source("z")]) == [None] * 4


@pytest.mark.usefixtures("small")
def test_a_file_out_of_order_is_unknown_at_worst(root: Path, home: Path) -> None:
    keep(root, home, FILES)
    found = known(root, home, FILES[::-1])
    assert found[0] == DIGESTS[-1]
    assert all(raw in (None, expected) for raw, expected in zip(found, DIGESTS[::-1], strict=True))


def test_a_stat_that_has_no_place_in_a_record_is_unknown(root: Path, home: Path) -> None:
    odd = [
        source("a")._replace(modified_ns=2**63),
        source("b")._replace(inode=2**64),
        source("c")._replace(changed_ns=-(2**63) - 1),
    ]
    keep(root, home, odd)
    assert known(root, home, odd) == [None] * 3
    assert not home.exists()


def test_the_greatest_numbers_and_times_before_1970_are_kept(root: Path, home: Path) -> None:
    odd = [source("a", size_bytes=2**64 - 1)._replace(inode=2**64 - 1), source("b")._replace(modified_ns=-1)]
    keep(root, home, odd)
    assert known(root, home, odd) == [digest(file) for file in odd]


def test_a_root_is_known_by_its_real_path(root: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(root, home, FILES)
    monkeypatch.chdir(root.parent)
    assert known(Path("tree"), home, FILES) == DIGESTS
    if sys.platform != "win32":
        (root.parent / "link").symlink_to(root)
        assert known(root.parent / "link", home, FILES) == DIGESTS
    (root.parent / "other").mkdir()
    assert known(root.parent / "other", home, FILES) == [None] * 9


def test_a_file_under_another_roots_name_is_unknown_and_replaced(root: Path, home: Path) -> None:
    other = root.parent / "other"
    keep(root, home, FILES)
    mine = the_file(home)
    keep(other, home, [FILES[0]._replace(inode=5)])
    (theirs,) = set((home / "stat").glob("*.stat")) - {mine}
    theirs.write_bytes(mine.read_bytes())
    assert known(other, home, FILES) == [None] * 9
    keep(other, home, FILES[:1])
    assert known(other, home, FILES[:1]) == DIGESTS[:1]


def test_without_a_directory_nothing_is_known_or_kept(root: Path, home: Path) -> None:
    cache = open_stat_cache(str(root), None)
    cache.add(FILES, DIGESTS, NOW_NS)
    assert cache.find(FILES) == [None] * 9
    cache.save(is_complete=True)
    cache.close()
    assert not home.exists()


def test_nothing_is_made_before_something_is_kept(root: Path, home: Path) -> None:
    cache = open_stat_cache(str(root), home)
    assert cache.find(FILES) == [None] * 9
    cache.save(is_complete=True)
    cache.close()
    assert not home.exists()


def test_an_unchanged_tree_writes_nothing(root: Path, home: Path) -> None:
    keep(root, home, FILES)
    before = the_file(home).stat()
    keep(root, home, FILES)
    after = the_file(home).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.usefixtures("small")
def test_a_complete_save_drops_what_was_not_asked_for(root: Path, home: Path) -> None:
    keep(root, home, FILES)
    keep(root, home, FILES[2:6])
    assert known(root, home, FILES) == [None, None, *DIGESTS[2:6], None, None, None]
    keep(root, home, [])
    assert known(root, home, FILES) == [None] * 9


@pytest.mark.usefixtures("small")
def test_an_incomplete_save_keeps_it(root: Path, home: Path) -> None:
    keep(root, home, FILES)
    changed = FILES[3]._replace(modified_ns=OLD_NS + 77)
    keep(root, home, [changed], is_complete=False)
    assert known(root, home, [*FILES[:3], changed, *FILES[4:]]) == [*DIGESTS[:3], digest(changed), *DIGESTS[4:]]


def test_a_row_that_is_out_of_date_goes_with_the_next_save(root: Path, home: Path) -> None:
    keep(root, home, FILES)
    keep(root, home, [FILES[0]._replace(modified_ns=NOW_NS), source("e")], is_complete=False)
    assert known(root, home, FILES) == [None, *DIGESTS[1:]]


def test_small_updates_do_not_leave_ever_smaller_frames(root: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statcache, "FRAME_ROWS", 8)
    monkeypatch.setattr(statspool, "FRAME_ROWS", 8)
    monkeypatch.setattr(statspool, "FRAME_ROWS_MAX", 16)
    files = [source(f"{number:03}", number) for number in range(0, 400, 10)]
    keep(root, home, files)
    for number in (1, 5, 101, 103, 251, 385, 391, 399):
        files.append(source(f"{number:03}", number))
        keep(root, home, files[-1:], is_complete=False)
    _, frames = frames_of(the_file(home), root)
    assert len(frames) <= len(files) // 4, "all but the last are at least half full"
    assert known(root, home, sorted(files)) == [digest(file) for file in sorted(files)]
    left = sorted(files)[::9]
    keep(root, home, left)
    _, frames = frames_of(the_file(home), root)
    assert len(frames) == 1, "what is left of several frames is put together"
    assert known(root, home, left) == [digest(file) for file in left]


def test_what_is_not_saved_is_dropped(root: Path, home: Path) -> None:
    cache = open_stat_cache(str(root), home)
    cache.add(FILES, DIGESTS, NOW_NS)
    cache.close()
    cache.close()
    cache.add(FILES, DIGESTS, NOW_NS)
    cache.save(is_complete=True)
    assert cache.find(FILES) == [None] * 9
    assert not home.exists()


def test_saving_twice_keeps_both(root: Path, home: Path) -> None:
    cache = open_stat_cache(str(root), home)
    cache.add(FILES[:4], DIGESTS[:4], NOW_NS)
    cache.save(is_complete=True)
    cache.add(FILES[4:], DIGESTS[4:], NOW_NS)
    cache.save(is_complete=True)
    cache.close()
    assert known(root, home, FILES) == DIGESTS


@pytest.mark.parametrize("order", [[3, 1, 2, 0], [0, 1, 2, 3], [3, 2, 1, 0]])
@pytest.mark.usefixtures("small")
def test_rows_are_added_in_any_order(root: Path, home: Path, order: list[int]) -> None:
    files = [source(f"{number:03}", number) for number in range(40)]
    cache = open_stat_cache(str(root), home)
    for at in order:
        part = files[at::4]
        cache.add(part[::-1], [digest(file) for file in part[::-1]], NOW_NS)
    cache.save(is_complete=True)
    cache.close()
    assert known(root, home, files) == [digest(file) for file in files]
    assert own_files(home) == [".stat"]


@pytest.mark.usefixtures("small")
def test_much_reading_is_spooled_although_the_rows_are_few(root: Path, home: Path) -> None:
    cache = open_stat_cache(str(root), home)
    cache.add([source("a", size_bytes=1 << 29)], [b"a" * 32], NOW_NS)
    assert own_files(home) == []
    cache.add([source("b", size_bytes=1 << 29)], [b"b" * 32], NOW_NS)
    assert own_files(home) == [".run"]
    cache.close()
    assert own_files(home) == []


@posix
def test_only_the_owner_can_read_it(root: Path, home: Path) -> None:
    keep(root, home, FILES)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (home, home / "stat", the_file(home))] == [0o700, 0o700, 0o600]


@posix
def test_what_another_user_wrote_is_unknown(root: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(root, home, FILES)
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    assert known(root, home, FILES) == [None] * 9


@posix
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("nowhere", path)])
def test_something_else_in_the_place_of_the_file_is_harmless(root: Path, home: Path, make: Callable[[Path], None]) -> None:
    keep(root, home, FILES)
    path = the_file(home)
    path.unlink()
    make(path)
    keep(root, home, FILES)
    assert known(root, home, FILES) in (DIGESTS, [None] * 9)


NAMES = ["a/b", "a-b", "a.b", "a0", "a/b-/c", "a/b0", "é", "z", "Z", "ﬀ", "😀", "a/é/1", "日本/\ue000", "日本/\U0001f600"]


@pytest.mark.usefixtures("small")
def test_paths_of_a_real_tree_in_its_order(root: Path, home: Path) -> None:
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    files = list(scan_directory(root, ScanReport()))
    assert known(root, home, files) == [None] * len(NAMES)
    cache = open_stat_cache(str(root), home)
    cache.add(files, [digest(file) for file in files], time.time_ns() + 10**10)
    cache.save(is_complete=True)
    cache.close()
    assert known(root, home, files) == [digest(file) for file in files]


RACY = [
    (TICK_NS, True),
    (TICK_NS - 1, False),
    (0, False),
    (-5, False),
]


@pytest.mark.parametrize("column", ["modified_ns", "changed_ns"])
@pytest.mark.parametrize(("age_ns", "is_kept"), RACY)
def test_a_row_is_kept_when_its_times_are_a_tick_old(root: Path, home: Path, column: str, age_ns: int, is_kept: bool) -> None:
    file = with_column(source("a"), column, NOW_NS - age_ns)
    keep(root, home, [file])
    assert known(root, home, [file]) == [digest(file) if is_kept else None]


@pytest.mark.parametrize("column", ["modified_ns", "changed_ns"])
@pytest.mark.parametrize(("early_ns", "is_kept"), [(0, True), (1, False)])
def test_a_time_in_whole_seconds_takes_longer(root: Path, home: Path, column: str, early_ns: int, is_kept: bool) -> None:
    whole_ns = 1_700_000_000 * 10**9
    file = with_column(source("a")._replace(modified_ns=5, changed_ns=5), column, whole_ns)
    cache = open_stat_cache(str(root), home)
    cache.add([file], [digest(file)], whole_ns + COARSE_TICK_NS - early_ns)
    cache.save(is_complete=True)
    cache.close()
    assert known(root, home, [file]) == [digest(file) if is_kept else None]


def test_a_changed_file_that_is_racy_loses_its_old_row(root: Path, home: Path) -> None:
    keep(root, home, FILES)
    racy = FILES[0]._replace(modified_ns=NOW_NS)
    keep(root, home, [racy, *FILES[1:8]])
    assert known(root, home, [racy, *FILES[1:]]) == [None, *DIGESTS[1:8], None]


def test_settling() -> None:
    def delay(*ages_ns: int) -> float:
        return settle_delay_s([source("a")._replace(changed_ns=NOW_NS - age) for age in ages_ns], NOW_NS)

    assert delay() == delay(TICK_NS) == delay(10 * COARSE_TICK_NS) == 0
    assert delay(0) == pytest.approx(0.021)
    assert delay(TICK_NS - 1) == pytest.approx(0.001)
    assert delay(TICK_NS - 5_000_000, TICK_NS - 2_000_000, 10**12) == pytest.approx(0.006)
    assert delay(-1) == delay(-(10**12)) == 0  # a time in the future is not waited for
    assert delay(-1, 0) == pytest.approx(0.021)
    assert settle_delay_s([source("a")._replace(modified_ns=NOW_NS)], NOW_NS) == pytest.approx(0.021)
    whole = 1_700_000_000 * 10**9
    assert settle_delay_s([source("a")._replace(modified_ns=5, changed_ns=whole)], whole + 10**9) == 0
    soon = settle_delay_s([source("a")._replace(modified_ns=5, changed_ns=whole)], whole + COARSE_TICK_NS - 10**7)
    assert soon == pytest.approx(0.011)


def test_after_the_delay_all_rows_are_kept(root: Path, home: Path) -> None:
    files = [source(f"{number:02}")._replace(changed_ns=NOW_NS - number * 1_000_000) for number in range(30)]
    later_ns = NOW_NS + int(settle_delay_s(files, NOW_NS) * 1e9)
    cache = open_stat_cache(str(root), home)
    cache.add(files, [digest(file) for file in files], later_ns)
    cache.save(is_complete=True)
    cache.close()
    assert None not in known(root, home, files)


def is_believable(found: list[bytes | None]) -> bool:
    return len(found) == 9 and all(raw in (None, expected) for raw, expected in zip(found, DIGESTS, strict=True))


def every_damage(sound: bytes) -> Iterable[bytes]:
    for at in range(len(sound)):
        yield sound[:at]
        yield sound[:at] + bytes([sound[at] ^ 0xFF]) + sound[at + 1 :]
        yield sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :]
        yield sound[:at] + b"\0" * 64 + sound[at + 64 :]
        yield sound[:at] + sound[at + 1 :]
    yield sound + b"more"


@pytest.mark.usefixtures("small")
def test_damage_is_unknown_and_never_an_error(root: Path, home: Path) -> None:
    keep(root, home, FILES)
    path = the_file(home)
    sound = path.read_bytes()
    partial = 0
    for damaged in every_damage(sound):
        path.write_bytes(damaged)
        found = known(root, home, FILES)
        assert is_believable(found)
        assert None in found or damaged.startswith(sound)
        partial += found[0] is not None
    assert partial > len(sound), "frames before the damage count"


@pytest.mark.usefixtures("small")
def test_a_damaged_file_is_replaced_by_the_next_save(root: Path, home: Path) -> None:
    keep(root, home, FILES)
    path = the_file(home)
    sound = path.read_bytes()
    for at in (0, 9, 50, len(sound) // 2, len(sound) - 1):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 4]) + sound[at + 1 :])
        keep(root, home, FILES)
        assert known(root, home, FILES) == DIGESTS
    path.write_bytes(sound + b"more")
    keep(root, home, FILES)
    assert len(path.read_bytes()) == len(sound)


def frames_of(path: Path, root: Path) -> tuple[bytes, list[bytes]]:
    file = statframes.find_frame_file(path, os.fsencode(os.path.realpath(root)))
    assert file is not None
    offsets = [place.offset for place, _ in file.places()]
    file.close()
    data = path.read_bytes()
    return data[: offsets[0]], [data[at:end] for at, end in zip(offsets, [*offsets[1:], len(data)], strict=True)]


@pytest.mark.usefixtures("small")
def test_sound_frames_in_the_wrong_place_do_not_count(root: Path, home: Path) -> None:
    keep(root, home, FILES)
    path = the_file(home)
    header, frames = frames_of(path, root)
    path.write_bytes(header + frames[1] + frames[0] + b"".join(frames[2:]))
    assert known(root, home, FILES) == [None] * 9
    path.write_bytes(header + frames[0] + frames[2])
    assert known(root, home, FILES) == [*DIGESTS[:2], *[None] * 7]
    path.unlink()
    changed = [file._replace(modified_ns=OLD_NS + 777) for file in FILES]
    keep(root, home, changed)
    newer, _ = frames_of(path, root)
    path.write_bytes(newer + b"".join(frames))  # an older file's blocks, under the newer one's header
    assert known(root, home, FILES) == [None] * 9


def test_a_newer_format_is_unknown_and_replaced(root: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as newer:
        newer.setattr(statframes, "_FORMAT", 2)
        keep(root, home, FILES)
    assert known(root, home, FILES) == [None] * 9
    keep(root, home, FILES[:1])
    assert known(root, home, FILES) == [DIGESTS[0], *[None] * 8]


@pytest.mark.usefixtures("small")
def test_what_another_process_saved_meanwhile_stays(root: Path, home: Path) -> None:
    keep(root, home, FILES[:3])
    ours, theirs = open_stat_cache(str(root), home), open_stat_cache(str(root), home)
    upload(ours, FILES[:6])
    upload(theirs, [*FILES[:3], *FILES[6:]])
    theirs.save(is_complete=True)
    ours.save(is_complete=True)
    theirs.close()
    ours.close()
    assert known(root, home, FILES) == DIGESTS
    assert own_files(home) == [".stat"]


@pytest.mark.parametrize("rivals", [1, 100])
def test_a_save_in_the_middle_of_ours(root: Path, home: Path, monkeypatch: pytest.MonkeyPatch, rivals: int) -> None:
    saved: list[SourceFile] = []
    sync = statframes.FrameFile.sync

    def sync_late(file: statframes.FrameFile) -> None:
        sync(file)
        if len(saved) < rivals:
            saved.append(source(f"z{len(saved)}"))
            with monkeypatch.context() as undisturbed:
                undisturbed.setattr(statframes.FrameFile, "sync", sync)
                keep(root, home, saved[-1:], is_complete=False)

    monkeypatch.setattr(statframes.FrameFile, "sync", sync_late)
    keep(root, home, FILES)
    assert len(saved) == min(rivals, 3), "it ends, whatever the others do"
    assert known(root, home, [*FILES, source("z0")]) == [*DIGESTS, digest(source("z0"))]
    assert own_files(home) == [".stat"]


@posix
@pytest.mark.usefixtures("small")
def test_the_spool_of_a_live_process_is_left_alone(root: Path, home: Path) -> None:
    ours = open_stat_cache(str(root), home)
    upload(ours, FILES[:5])
    assert own_files(home) == [".run"]
    keep(root, home, FILES[7:], is_complete=False)
    assert own_files(home) == [".run", ".stat"]
    upload(ours, FILES[5:7])
    ours.save(is_complete=False)
    ours.close()
    assert known(root, home, FILES) == DIGESTS
    assert own_files(home) == [".stat"]


@posix
@pytest.mark.usefixtures("small")
def test_without_locks_age_decides_and_a_wrong_guess_is_harmless(root: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr("fcntl.flock", no_locks)
    ours = open_stat_cache(str(root), home)
    upload(ours, FILES[:4])
    assert known(root, home, FILES) == [None] * 9
    (run,) = (home / "stat").glob("*.run")
    os.utime(run, (1, 1))
    assert known(root, home, FILES) == [*DIGESTS[:4], *[None] * 5]
    assert not run.exists()
    upload(ours, FILES[4:])
    ours.save(is_complete=False)
    ours.close()
    assert known(root, home, FILES) == DIGESTS


CHILD = """
    import os, signal, sys, time
    from pathlib import Path
    from tests.unit.files.test_statcache import FILES, DIGESTS, NOW_NS, digest, keep, source, upload
    from vds.files import statcache, statframes, statspool
    for module in (statcache, statspool):
        module.FRAME_ROWS = 2
    statspool.FRAME_ROWS_MAX = 4
    statcache._BUFFER_ROWS = 4
    root, home = map(Path, sys.argv[1:3])
    cache = statcache.open_stat_cache(str(root), home)
    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def child(root: Path, home: Path, code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(CHILD) + textwrap.dedent(code), str(root), str(home)])


@posix
def test_work_of_a_killed_process_is_adopted(root: Path, home: Path) -> None:
    assert child(root, home, "upload(cache, FILES); die()").wait() == -signal.SIGKILL
    assert own_files(home) == [".run"]
    assert known(root, home, FILES) == [*DIGESTS[:8], None], "the last row was still in the buffer"
    assert own_files(home) == [".stat"]


@posix
@pytest.mark.parametrize("step", ["statframes.FrameFile.sync", "os.replace"])
def test_killed_in_the_middle_of_a_save(root: Path, home: Path, step: str) -> None:
    keep(root, home, FILES[:2])
    assert child(root, home, f"upload(cache, FILES); {step} = die; cache.save(is_complete=True)").wait() == -signal.SIGKILL
    assert own_files(home) == [".run", ".run", ".stat"]
    assert known(root, home, FILES) == DIGESTS
    assert own_files(home) == [".stat"]


@posix
def test_killed_in_the_middle_of_an_adoption(root: Path, home: Path) -> None:
    assert child(root, home, "upload(cache, FILES); die()").wait() == -signal.SIGKILL
    again = "cache.close(); os.replace = die; statcache.open_stat_cache(str(root), home)"
    # The child opens the cache first, which adopts; so the spool is put aside until it has.
    (run,) = (home / "stat").glob("*.run")
    data = run.read_bytes()
    run.unlink()
    put_back = f"Path({str(run)!r}).write_bytes({data!r}); "
    assert child(root, home, put_back + again).wait() == -signal.SIGKILL
    assert own_files(home) == [".run", ".run"]
    assert known(root, home, FILES) == [*DIGESTS[:8], None]
    assert own_files(home) == [".stat"]


@posix
def test_a_damaged_spool_counts_up_to_the_damage(root: Path, home: Path) -> None:
    assert child(root, home, "upload(cache, FILES); die()").wait() == -signal.SIGKILL
    (run,) = (home / "stat").glob("*.run")
    sound = run.read_bytes()
    for damaged in (sound[: len(sound) - at] for at in range(0, len(sound), 7)):
        run.write_bytes(damaged)
        assert is_believable(known(root, home, FILES))
        for path in (home / "stat").iterdir():
            path.unlink()
    run.write_bytes(sound[:10])
    os.utime(run, (1, 1))
    assert known(root, home, FILES) == [None] * 9
    assert own_files(home) == [], "one without a header is removed when it is old"


@posix
def test_two_processes_at_once_on_one_root(root: Path, home: Path) -> None:
    code = """
    cache.close()
    own = [source(f"d/{sys.argv[3]}{n}", n) for n in range(30)]
    for round in range(25):
        keep(root, home, own[:round + 5], is_complete=round % 2 == 0)
        cache = statcache.open_stat_cache(str(root), home)
        wrong = [raw for file, raw in zip(own, cache.find(own)) if raw not in (None, digest(file))]
        cache.close()
        assert not wrong
    """
    text = textwrap.dedent(CHILD) + textwrap.dedent(code)
    children = [subprocess.Popen([sys.executable, "-W", "error", "-c", text, str(root), str(home), name]) for name in "ab"]
    assert [process.wait() for process in children] == [0, 0]
    assert own_files(home) == [".stat"]


def refuse(number: int) -> Callable[..., object]:
    def refused(*_: object, **__: object) -> object:
        raise OSError(number, os.strerror(number))

    return refused


@pytest.mark.parametrize("step", ["os.replace", "os.fsync", "os.mkdir"])
def test_a_directory_that_cannot_be_written_only_costs_the_cache(
    root: Path, home: Path, step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if step != "os.mkdir":
        keep(root, home, FILES[:2])
    with monkeypatch.context() as full, caplog.at_level(logging.DEBUG):
        full.setattr(step, refuse(errno.EROFS))
        keep(root, home, FILES)
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    expected: list[bytes | None] = [*DIGESTS[:2]] if step != "os.mkdir" else [None, None]
    assert known(root, home, FILES) == [*expected, *[None] * 7]
    assert ".run" not in own_files(home)


@pytest.mark.usefixtures("small")
def test_a_spool_that_cannot_be_written_only_costs_the_cache(
    root: Path, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keep(root, home, FILES[:2])
    with monkeypatch.context() as full, caplog.at_level(logging.DEBUG):
        full.setattr(statframes.FrameFile, "append", refuse(errno.ENOSPC))
        keep(root, home, FILES)
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert known(root, home, FILES) == [*DIGESTS[:2], *[None] * 7]
    assert own_files(home) == [".stat"]


def test_a_cache_that_cannot_be_opened_is_none(
    root: Path, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keep(root, home, FILES)
    with monkeypatch.context() as closed, caplog.at_level(logging.DEBUG):
        closed.setattr(statcache, "find_frame_file", refuse(errno.EACCES))
        assert known(root, home, FILES) == [None] * 9
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert known(root, home, FILES) == DIGESTS


@posix
@pytest.mark.parametrize("limit_bytes", [0, 20, 150, 400, 600])
def test_a_full_disk_only_costs_the_cache(root: Path, home: Path, limit_bytes: int) -> None:
    keep(root, home, FILES[:2])
    code = f"""
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, ({limit_bytes}, {limit_bytes}))
    upload(cache, FILES)
    cache.save(is_complete=True)
    cache.close()
    """
    assert child(root, home, code).wait() == 0
    assert known(root, home, FILES) == [*DIGESTS[:2], *[None] * 7]
    assert own_files(home) == [".stat"]


def test_an_interrupted_save_leaves_the_old_file(root: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(root, home, FILES[:2])
    cache = open_stat_cache(str(root), home)
    upload(cache, FILES)

    def interrupt(file: statframes.FrameFile) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr(statframes.FrameFile, "sync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            cache.save(is_complete=True)
    assert own_files(home) == [".stat"]
    cache.save(is_complete=False)
    cache.close()
    assert known(root, home, FILES) == DIGESTS
