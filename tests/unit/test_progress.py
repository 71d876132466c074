from __future__ import annotations

import io
import subprocess
import sys

import pytest

from vds.progress import SilentProgress, Standing, describe, format_bytes, open_progress


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_silence() -> None:
    stream = io.StringIO()
    with open_progress(False, "upload", stream=stream) as progress:
        assert isinstance(progress, SilentProgress)
        progress.stage("hashing")
        progress.add(files=1, bytes=10)
    assert stream.getvalue() == ""


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_short_work_shows_nothing(stream: io.StringIO) -> None:
    clock = Clock()
    with open_progress(True, "upload", stream=stream, clock=clock) as progress:
        progress.stage("hashing", files=1)
        clock.now_s = 1.9
        progress.add(files=1, bytes=10)
    assert stream.getvalue() == ""


def test_a_line_every_30_seconds_and_one_at_the_end() -> None:
    clock, stream = Clock(), io.StringIO()
    with open_progress(True, "upload", stream=stream, clock=clock) as progress:
        progress.stage("sending", files=4, bytes=4096)
        for clock.now_s in (10.0, 29.9, 30.0, 31.0, 59.0, 61.0):
            progress.add(files=1, bytes=1024)
    assert stream.getvalue().splitlines() == [
        "upload: sending, 3 of 4 files, 3.0 KiB of 4.0 KiB, 102 B/s",
        "upload: sending, 6 of 4 files, 6.0 KiB of 4.0 KiB, 101 B/s",
        "upload: sending, 6 of 4 files, 6.0 KiB of 4.0 KiB, 101 B/s",
    ]


def test_a_bar_on_a_terminal() -> None:
    clock, stream = Clock(), Terminal()
    with open_progress(True, "upload", stream=stream, clock=clock) as progress:
        progress.stage("sending", bytes=2048)
        clock.now_s = 3.0
        progress.add(files=1, bytes=2048)
    assert "upload" in stream.getvalue()
    assert "2.0 KiB of 2.0 KiB" in stream.getvalue()


def test_rich_is_imported_only_for_a_bar() -> None:
    program = (
        "import sys; from vds.progress import open_progress\n"
        "with open_progress(True, 't') as p: p.add(files=1)\n"
        "sys.exit('rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_words_for_people() -> None:
    assert describe(Standing("hashing")) == "hashing"
    assert describe(Standing("listing", files=1234)) == "listing, 1,234 files"
    assert [format_bytes(size) for size in (0, 1023, 1024, 1536, 5 * 2**30, 5000 * 2**40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "5.0 GiB",
        "5000.0 TiB",
    ]
