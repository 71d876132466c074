"""Install the peers into .bench/ and find them there: two virtual environments, an npm package and two of Debian.

Nothing of the machine is changed, and none of it is needed to use or test vds. What cannot be installed is said with its reason,
here and in every result.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.catalog import Peer
from tests.services import ServiceError, find_node

ROOT = Path(__file__).resolve().parents[1]
BENCH = ROOT / ".bench"

PYTHON_PACKAGES = {
    "peers": ("azure-storage-blob", "aiohttp", "requests", "obstore", "adlfs", "blake3"),
    "azureml": ("azureml-core",),
}
AZCOPY_PACKAGE = "@azure-tools/azcopy-linux"
DEBIAN_PACKAGES = ("rclone", "libsecret-1-0")  # azcopy is linked to the second

_ABSENT = BENCH / "absent.json"


def main(words: Sequence[str]) -> int:
    """Install everything that is not there, and print what could not be. Not being able to is no error."""
    del words
    BENCH.mkdir(exist_ok=True)
    steps: dict[str, Callable[[], None]] = {name: partial(_install_python, name) for name in PYTHON_PACKAGES}
    steps |= {"azcopy": _install_azcopy, "rclone": _install_debian}
    absent = {}
    for name, step in steps.items():
        try:
            step()
        except (OSError, ServiceError, subprocess.CalledProcessError) as err:
            absent[name] = _reason(err)
            print(f"{name}: not installed: {absent[name]}", file=sys.stderr)
        else:
            print(f"{name}: installed")
    _ABSENT.write_text(json.dumps(absent, indent=2) + "\n")
    return 0


def find_absence(peer: Peer) -> str | None:
    """Return why a peer cannot run here, or None when it can."""
    known = json.loads(_ABSENT.read_text()) if _ABSENT.exists() else {}
    hint = "not installed: run python -m benchmarks install"
    if not python_of(peer).exists():
        return str(known.get(peer.environment, hint))
    if peer.distribution in ("azcopy", "rclone") and find_tool(peer.distribution) is None:
        return str(known.get(peer.distribution, hint))
    return None if find_version(peer) else str(known.get(peer.distribution, f"it does not start; {hint}"))


def python_of(peer: Peer) -> Path:
    """Return the Python that runs a peer, there or not."""
    return Path(sys.executable) if peer.is_vds else BENCH / peer.environment / "bin" / "python"


def find_tool(name: str) -> Path | None:
    """Return the program of azcopy or rclone: ours, else the machine's."""
    ours = sorted(
        BENCH.glob(f"npm/node_modules/{AZCOPY_PACKAGE}/dist/bin/azcopy*" if name == "azcopy" else "debian/usr/bin/rclone")
    )
    found = shutil.which(name)
    return ours[0] if ours else Path(found) if found else None


def tool_environment() -> dict[str, str]:
    """Return the variables by which the peers find their tools, and azcopy its library."""
    tools = {f"BENCH_{name.upper()}": str(find_tool(name)) for name in ("azcopy", "rclone")}
    libraries = sorted({str(path.parent) for path in BENCH.glob("debian/usr/lib/*/libsecret-1.so*")})
    return tools | ({"LD_LIBRARY_PATH": os.pathsep.join(libraries)} if libraries else {})


def find_version(peer: Peer) -> str | None:
    """Return the version of what is measured, or None when it cannot be asked."""
    if peer.distribution in ("azcopy", "rclone"):
        command = [str(find_tool(peer.distribution)), "--version"]
    else:
        command = [str(python_of(peer)), "-c", f"import importlib.metadata as m; print(m.version({peer.distribution!r}))"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | tool_environment())
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.splitlines()[0].split()[-1]  # the tools say their name before it


def _install_python(name: str) -> None:
    directory = BENCH / name
    python = directory / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", str(directory)])
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PYTHON_PACKAGES[name]])


def _install_azcopy() -> None:
    if find_tool("azcopy") is None:
        npm = find_node()[1]
        _run([*npm, "install", "--no-audit", "--no-fund", "--prefix", str(BENCH / "npm"), AZCOPY_PACKAGE])
    program = find_tool("azcopy")
    assert program is not None
    if program.is_relative_to(BENCH):
        program.chmod(0o755)  # npm unpacks it without


def _install_debian() -> None:
    """Unpack Debian's packages below .bench/, which needs no rights."""
    if (BENCH / "debian").exists():
        return
    packages = BENCH / "packages"
    packages.mkdir(exist_ok=True)
    _run(["apt-get", "download", *DEBIAN_PACKAGES], cwd=packages)
    for package in sorted(packages.glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(BENCH / "debian")])
    shutil.rmtree(packages)


def _run(command: Sequence[str], cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)


def _reason(err: Exception) -> str:
    said = err.stderr.strip().splitlines() if isinstance(err, subprocess.CalledProcessError) and err.stderr else []
    return (said[-1] if said else str(err))[:300]
