"""Local views: theirs who asked, and gone with them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vds.azureml.views import view_of

DEAD = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)


def fill(directory: Path) -> Path:
    (directory / "sub").mkdir()
    (directory / "sub" / "a.txt").write_text("a")
    return directory / "sub"


def test_a_view_is_made_once_and_read_only(own_cache: Path) -> None:
    place = view_of("key", fill)
    assert view_of("key", lambda _: pytest.fail("made again")) == place
    assert own_cache in place.parents
    assert not (place / "a.txt").stat().st_mode & 0o222
    assert not place.stat().st_mode & 0o222


def test_a_failure_leaves_nothing(own_cache: Path) -> None:
    def broken(directory: Path) -> Path:
        fill(directory)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        view_of("broken", broken)
    assert not list((own_cache / "views").rglob("a.txt"))
    assert view_of("broken", fill).is_dir()


def test_views_of_dead_processes_go_and_those_of_others_stay(own_cache: Path) -> None:
    machine = os.uname().nodename.replace("-", "_")
    left = own_cache / "views" / f"{machine}-{DEAD.stdout.strip()}-x"
    other = own_cache / "views" / f"elsewhere-{DEAD.stdout.strip()}-x"
    alive = own_cache / "views" / f"{machine}-{os.getppid()}-x"
    for directory in (left, other, alive):
        directory.mkdir(parents=True)
        fill(directory).chmod(0o555)
    view_of("key", fill)
    assert [directory.exists() for directory in (left, other, alive)] == [False, True, True]


def test_a_process_takes_its_views_with_it(own_cache: Path) -> None:
    code = (
        "from pathlib import Path; from vds.azureml.views import view_of\n"
        "def fill(directory):\n (directory / 'a').write_text('a'); return directory\n"
        "print(view_of('key', fill))\n"
        "import os\npid = os.fork()\n"
        "if not pid:\n raise SystemExit\n"
        "os.waitpid(pid, 0); assert view_of('key', None).joinpath('a').exists()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not Path(done.stdout.strip()).exists()
    assert not list((own_cache / "views").iterdir())
