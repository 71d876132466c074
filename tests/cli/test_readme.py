"""Every command and snippet of the README runs, in order, as a newcomer would type them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
VDS = Path(sys.executable).with_name("vds")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def shell_lines(block: str) -> list[str]:
    return [line.removeprefix("$ ").split(" #")[0].strip() for line in block.splitlines() if line.startswith("$ ")]


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("VDS_", "AZURE_"))}
    path = f"{VDS.parent}{os.pathsep}{kept.get('PATH', '')}"
    return {**kept, "PATH": path, "HOME": str(home), "XDG_CONFIG_HOME": str(home / "config")}


@pytest.mark.slow
def test_the_shell_sessions_of_the_readme_run(tmp_path: Path) -> None:
    for sign, count in (("vds init ./store", 8), ("vds lock customers:prod", 5), ("vds expire team/raw", 8)):
        block = next(block for block in blocks("console") if sign in block)
        lines = [line for line in shell_lines(block) if not line.startswith("pip ")]
        assert len(lines) >= count
        # One shell for a session: what it exports holds for the lines after it.
        script = "\n".join(lines)
        done = subprocess.run(["sh", "-exc", script], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "copy" / "a.txt").read_text() == "hello\n"
    assert (tmp_path / "data" / "a.txt").read_text() == "hello\n"
    assert (tmp_path / "work" / "a.txt").read_text() == "hello\n"
    assert "customers:prod" in (tmp_path / "vds.lock").read_text()
    assert (tmp_path / "rescued" / "a.txt").read_text() == "hello\n"


@pytest.mark.slow
def test_the_python_snippets_of_the_readme_run(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("hello\n")
    snippets = blocks("python")
    assert len(snippets) >= 2
    for snippet in snippets:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", snippet],
            cwd=tmp_path,
            env=environment(tmp_path),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{snippet}\n{done.stderr}"
    assert (tmp_path / "copy" / "a.txt").read_text() == "hello\n"


def test_every_command_of_the_readme_exists() -> None:
    commands = {shlex.split(line)[1] for block in blocks("console") for line in shell_lines(block) if line.startswith("vds ")}
    helped = subprocess.run([VDS, "--help"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"^  ([a-z]+)  ", helped, re.MULTILINE))
    assert commands
    assert commands <= known


def test_the_make_targets_of_the_readme_exist() -> None:
    targets = {line.split()[1] for block in blocks("console") for line in shell_lines(block) if line.startswith("make ")}
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    assert targets == {"demo", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
