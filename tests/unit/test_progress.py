from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest

from vds.counts import Row
from vds.progress import BAR_COLUMNS_MAX, LiveProgress, Progress, SilentProgress, open_progress

MIB = 2**20
WAIT_S = 30.0


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class GoneTerminal(Terminal):
    """A terminal that is closed while the work goes on."""

    is_gone = False

    def write(self, text: str) -> int:
        if self.is_gone:
            raise OSError(5, "Input/output error")
        return super().write(text)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "25")


def frame(drawn: str) -> list[str]:
    """Return the lines of the last frame that was drawn, without colours."""
    last = re.split(r"\r?\x1b\[2K(?:\x1b\[1A\x1b\[2K)*", drawn)[-1]
    return [line for line in re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", last).splitlines() if line.strip()]


def screen(drawn: str) -> list[str]:
    """Return the last frame without its bars."""
    return [re.sub(r"\s+", " ", re.sub(r"[━╸╺]+", "", line)).strip() for line in frame(drawn)]


def upload(progress: Progress, clock: Clock) -> None:
    """Tell of an upload of 4 files and 40 MiB, half of them in the store, until 20 s."""
    progress.upload()
    progress.found(4, 40 * MIB)
    progress.scanned()
    clock.now_s = 10.0
    progress.hashed(2, 20 * MIB, saved_bytes=10 * MIB)
    clock.now_s = 20.0
    progress.sent(5 * MIB)


MODES: list[Callable[[Progress], None]] = [
    lambda progress: progress.stage("x"),
    lambda progress: progress.add(files=1, bytes=1),
    lambda progress: progress.upload(),
    lambda progress: progress.found(1, 1),
    lambda progress: progress.scanned(),
    lambda progress: progress.hashed(1, 1, saved_bytes=1),
    lambda progress: progress.sent(1, saved_bytes=1),
]


def test_silence() -> None:
    stream = io.StringIO()
    with open_progress(False, "upload", stream=stream) as progress:
        assert isinstance(progress, SilentProgress)
        for call in MODES:
            call(progress)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("make_stream", [io.StringIO, Terminal])
def test_short_work_shows_nothing(make_stream: Callable[[], io.StringIO]) -> None:
    clock, stream = Clock(), make_stream()
    with open_progress(True, "upload", stream=stream, clock=clock) as progress:
        progress.stage("comparing", files=1)
        clock.now_s = 1.9
        progress.add(files=1, bytes=10)
        progress.upload()
        progress.found(1, 1)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("make_stream", [io.StringIO, Terminal])
def test_longer_work_leaves_a_line_even_if_nothing_was_drawn(make_stream: Callable[[], io.StringIO]) -> None:
    clock, stream = Clock(), make_stream()
    with open_progress(True, "verify", stream=stream, clock=clock) as progress:
        progress.add(files=1, bytes=10)
        clock.now_s = 2.0
    assert screen(stream.getvalue()) == ["verify: done in 0:02, 1 file, 10 B"]


class TestLines:
    def test_one_every_30_seconds_and_one_at_the_end(self) -> None:
        clock, stream = Clock(), io.StringIO()
        with open_progress(True, "download", stream=stream, clock=clock) as progress:
            progress.stage("downloading", files=4, bytes=4096)
            for clock.now_s in (10.0, 29.9, 30.0, 31.0, 59.0, 61.0):
                progress.add(files=1, bytes=1024)
        assert stream.getvalue().splitlines() == [
            "download: downloading 3 of 4 files, 3.0 KiB of 4.0 KiB, 102 B/s",  # 2 KiB in the 20 s since the first
            "download: downloading 6 of 4 files, 6.0 KiB of 4.0 KiB, 68 B/s",
            "download: done in 1:01, 6 files, 6.0 KiB",
        ]

    def test_an_upload_has_all_its_stages_in_one(self) -> None:
        clock, stream = Clock(), io.StringIO()
        with open_progress(True, "upload to n", stream=stream, clock=clock) as progress:
            upload(progress, clock)
            progress.sent(1 * MIB)
            clock.now_s = 30.0
            progress.hashed(2, 20 * MIB, saved_bytes=10 * MIB)
            progress.sent(14 * MIB)
            progress.stage("committing")
            clock.now_s = 60.0
            progress.add(files=4)
        assert stream.getvalue().splitlines() == [
            # 1 MiB in the 10 s since 5 MiB were there
            "upload to n: hashing 4 of 4 files, 40.0 MiB of 40.0 MiB; uploading 6.0 MiB of 20.0 MiB, 102.4 KiB/s, "
            "saved 20.0 MiB, 2:20 left",
            "upload to n: hashing 4 of 4 files, 40.0 MiB of 40.0 MiB; uploading 20.0 MiB of 20.0 MiB, saved 20.0 MiB; "
            "committing 4 files",
            "upload to n: done in 1:00, 4 files, 20.0 MiB sent, 20.0 MiB saved",
        ]

    def test_an_upload_that_begins_again_counts_anew(self) -> None:
        clock, stream = Clock(), io.StringIO()
        with open_progress(True, "upload to n", stream=stream, clock=clock) as progress:
            upload(progress, clock)
            progress.stage("committing")
            progress.upload()
            progress.found(1, 1)
            progress.hashed(1, 1)
            progress.sent(1)
        assert stream.getvalue() == "upload to n: done in 0:20, 1 file, 1 B sent\n"

    def test_what_was_stopped_says_how_far_it_came(self) -> None:
        clock, stream = Clock(), io.StringIO()
        with suppress(KeyboardInterrupt), open_progress(True, "upload to n", stream=stream, clock=clock) as progress:
            upload(progress, clock)
            raise KeyboardInterrupt
        assert stream.getvalue() == "upload to n: stopped after 0:20, 2 files hashed, 5.0 MiB sent, 10.0 MiB saved\n"

    def test_a_dry_run_says_what_would_be_sent(self) -> None:
        clock, stream = Clock(), io.StringIO()
        with open_progress(True, "upload to n", stream=stream, clock=clock) as progress:
            progress.upload(is_dry=True)
            progress.found(2, 2 * MIB)
            progress.scanned()
            clock.now_s = 3.0
            progress.hashed(2, 2 * MIB, saved_bytes=MIB)
        assert stream.getvalue() == "upload to n: done in 0:03, 2 files, 1.0 MiB would be sent, 1.0 MiB saved\n"

    def test_a_dumb_terminal_gets_lines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "dumb")
        clock, stream = Clock(), Terminal()
        with open_progress(True, "verify", stream=stream, clock=clock) as progress:
            clock.now_s = 30.0
            progress.add(files=1)
        assert stream.getvalue() == "verify: 1 file\nverify: done in 0:30, 1 file\n"


class TestBars:
    def test_an_upload_shows_hashing_and_uploading_at_the_same_time(self) -> None:
        clock, stream = Clock(), Terminal()
        with open_progress(True, "upload to n", stream=stream, clock=clock) as progress:
            upload(progress, clock)
            assert screen(stream.getvalue()) == [
                # nothing was hashed in the last 10 s, so nobody knows how long it will take
                "hashing 2 of 4 files, 20.0 MiB of 40.0 MiB",
                "uploading 5.0 MiB of 10.0 MiB+, 512.0 KiB/s, saved 10.0 MiB",
            ]
            clock.now_s = 21.0
            progress.hashed(2, 20 * MIB, saved_bytes=10 * MIB)
            progress.stage("committing")
            clock.now_s = 22.0
            progress.add(files=4)
            assert [line.split()[0] for line in screen(stream.getvalue())] == ["hashing", "uploading", "committing"]
        assert stream.getvalue().endswith("upload to n: done in 0:22, 4 files, 5.0 MiB sent, 20.0 MiB saved\n")

    def test_a_stage_takes_the_place_of_the_one_before(self) -> None:
        clock, stream = Clock(), Terminal()
        with open_progress(True, "download", stream=stream, clock=clock) as progress:
            progress.stage("comparing", files=2)
            clock.now_s = 2.0
            progress.add(files=2)
            assert screen(stream.getvalue()) == ["comparing 2 of 2 files"]
            clock.now_s = 3.0
            progress.stage("downloading", bytes=2048)
            assert screen(stream.getvalue()) == ["downloading 0 B of 2.0 KiB"]

    def test_it_is_drawn_ten_times_a_second_at_most(self) -> None:
        clock, stream = Clock(), Terminal()
        with open_progress(True, "verify", stream=stream, clock=clock) as progress:
            clock.now_s = 2.0
            progress.add(files=1)
            drawn = stream.getvalue()
            clock.now_s = 2.09
            progress.add(files=1)
            assert stream.getvalue() == drawn
            clock.now_s = 2.11
            progress.add(files=1)
            assert screen(stream.getvalue()) == ["3 files"]

    @pytest.mark.parametrize("columns", [40, 80, 200])
    def test_it_fits_and_the_bar_gives_way_first(self, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        clock, stream = Clock(), Terminal()
        with open_progress(True, "upload to n", stream=stream, clock=clock) as progress:
            progress.upload()
            progress.found(1_000_000, 999 * 2**30)
            progress.scanned()
            clock.now_s = 1000.0
            progress.hashed(500_000, 500 * 2**30, saved_bytes=250 * 2**30)
            clock.now_s = 1000.2
            progress.sent(249 * 2**30)
            lines = frame(stream.getvalue())
        assert max(map(len, lines)) <= columns
        assert any("500,000 of 1,000,000 files, 500.0 GiB of 999.0 GiB, 511.9 MiB/s" in line for line in lines) == (columns >= 80)
        assert any("249.0 GiB of 250.0 GiB+, 254.9 MiB/s, saved 250.0 GiB, 16:46 left" in line for line in lines) == (
            columns >= 80
        )
        bar_columns = [sum(line.count(part) for part in "━╸╺") for line in lines]
        assert (min(bar_columns) == BAR_COLUMNS_MAX) == (columns == 200)

    @pytest.mark.parametrize(("value", "is_coloured"), [("", True), ("1", False)])
    def test_no_colour_when_asked(self, value: str, is_coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_COLOR", value)
        clock, stream = Clock(), Terminal()
        with open_progress(True, "verify", stream=stream, clock=clock) as progress:
            progress.stage("verifying", files=2)
            clock.now_s = 3.0
            progress.add(files=1)
        assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]", stream.getvalue())) == is_coloured

    def test_names_are_not_markup(self) -> None:
        clock, stream = Clock(), Terminal()
        with open_progress(True, "download [red]x[/red]:smile:", stream=stream, clock=clock) as progress:
            progress.stage("[red]x")
            clock.now_s = 3.0
            progress.add(files=1)
            assert screen(stream.getvalue()) == ["[red]x 1 file"]
        assert "download [red]x[/red]:smile:: done in 0:03, 1 file\n" in stream.getvalue()


class TestNobodyReads:
    def test_a_terminal_that_goes_away_does_not_stop_the_work(self) -> None:
        clock, stream = Clock(), GoneTerminal()
        before = sys.stdout, sys.stderr
        with open_progress(True, "upload to n", stream=stream, clock=clock) as progress:
            upload(progress, clock)
            stream.is_gone = True
            for clock.now_s in (30.0, 40.0):
                progress.sent(1)
        assert (sys.stdout, sys.stderr) == before

    def test_a_log_that_is_closed_does_not_stop_the_work(self) -> None:
        clock, stream = Clock(), io.StringIO()
        with open_progress(True, "upload to n", stream=stream, clock=clock) as progress:
            stream.close()
            for clock.now_s in (30.0, 60.0):
                progress.add(files=1)

    def test_a_stream_that_is_closed_at_the_start_is_left_alone(self) -> None:
        stream = io.StringIO()
        stream.close()
        with open_progress(True, "upload", stream=stream) as progress:
            assert isinstance(progress, SilentProgress)

    def test_a_program_without_stderr(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stderr", None)
        with open_progress(True, "upload") as progress:
            assert isinstance(progress, SilentProgress)

    @pytest.mark.skipif(os.name == "nt", reason="closes a descriptor")
    def test_a_process_whose_stderr_was_closed(self) -> None:
        program = (
            "import os; from vds.progress import open_progress\n"
            "times = iter(range(0, 1000, 40))\n"
            "with open_progress(True, 't', clock=lambda: next(times)) as p:\n"
            "    os.close(2); p.add(files=1); p.add(files=1)\n"
            "print('done')"
        )
        done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("done\n", "")


class StuckDisplay:
    """A terminal that takes its time."""

    first_after_s = every_s = 1.0

    def __init__(self) -> None:
        self.is_drawing, self.go_on = threading.Event(), threading.Event()
        self.shown: list[str] = []

    def show(self, rows: Sequence[Row]) -> None:
        self.is_drawing.set()
        assert self.go_on.wait(WAIT_S)
        self.shown.append(rows[0].text)

    def close(self, line: str) -> None:
        self.shown.append(line)


class TestThreads:
    def test_a_slow_terminal_holds_up_one_thread_only(self) -> None:
        clock, display = Clock(), StuckDisplay()
        progress = LiveProgress("t", display, clock)
        clock.now_s = 1.0
        drawer = threading.Thread(target=progress.add, kwargs={"files": 1})
        drawer.start()
        assert display.is_drawing.wait(WAIT_S)
        clock.now_s = 5.0
        for _ in range(10):
            progress.add(files=1)  # would hang here
        display.go_on.set()
        drawer.join(WAIT_S)
        progress.close(is_done=True)
        assert display.shown == ["1 file", "t: done in 0:05, 11 files"]

    def test_no_count_is_lost(self) -> None:
        stream, clock = io.StringIO(), Clock()
        with open_progress(True, "upload", stream=stream, clock=clock) as progress:
            progress.upload()

            def work() -> None:
                for _ in range(500):
                    progress.found(1, 3)
                    progress.hashed(1, 3, saved_bytes=1)
                    progress.sent(2)

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(WAIT_S)
            clock.now_s = 2.0
        assert stream.getvalue() == "upload: done in 0:02, 2,000 files, 3.9 KiB sent, 2.0 KiB saved\n"


def test_rich_is_imported_only_for_bars() -> None:
    program = (
        "import sys; from vds.progress import open_progress\n"
        "with open_progress(True, 't') as p: p.add(files=1)\n"
        "sys.exit('rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
