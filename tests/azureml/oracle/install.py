"""The real SDK, in an environment of its own: `.tools/azureml`, made on first use and kept.

`python -m tests.azureml.oracle.install` makes it beforehand.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

SDK = "azureml-core==1.61.0.post4"
PYTHON = "python3.11"
"""What the SDK's last release runs on; it asks for less than 3.12."""

INSTALL_TIMEOUT_S = 900
_PLACE = Path(__file__).resolve().parents[3] / ".tools" / "azureml"


class SdkError(RuntimeError):
    """The SDK cannot be had here; the text says why."""


def find_sdk() -> str:
    """Return the Python that has the SDK; it is installed now if it is not.

    Raises:
        SdkError: it cannot be installed here.
    """
    python = _PLACE / "bin" / "python"
    stamp = _PLACE / SDK
    if stamp.exists():
        return str(python)
    _PLACE.parent.mkdir(parents=True, exist_ok=True)
    with open(_PLACE.with_suffix(".lock"), "w") as lock:  # other workers wait for the one that installs
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists():
            _install(python)
            stamp.touch()
    return str(python)


def _install(python: Path) -> None:
    base = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which(PYTHON)
    if base is None:
        raise SdkError(f"the SDK needs {PYTHON}, which is not here")
    shutil.rmtree(_PLACE, ignore_errors=True)
    steps = [[base, "-m", "venv", str(_PLACE)], [str(python), "-m", "pip", "install", "--quiet", SDK]]
    for step in steps:
        try:
            done = subprocess.run(step, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
        except subprocess.TimeoutExpired as err:
            raise SdkError(f"{SDK} was not installed within {INSTALL_TIMEOUT_S} s") from err
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise SdkError(f"{SDK} cannot be installed: {last}")


if __name__ == "__main__":
    print(find_sdk())
