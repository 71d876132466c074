"""The same calls on the real AzureML SDK and on vds: equal, but for what is written down as a difference."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import vds.azureml
from tests.azureml.oracle.cases import CASES, Case
from tests.azureml.oracle.install import SdkError, find_sdk

Results = dict[str, dict[str, Any]]
PLAYER = Path(__file__).with_name("player.py")


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Results]:
    """Return what the SDK did, and what vds did, by case."""
    try:
        python = find_sdk()
    except SdkError as err:
        pytest.skip(str(err))
    root = tmp_path_factory.mktemp("oracle")
    (root / "cases.json").write_text(json.dumps([asdict(case) for case in CASES]))
    sides = []
    for side, interpreter in (("sdk", python), ("vds", sys.executable)):
        lay_out(root)
        sides.append(run(interpreter, side, root))
    return sides[0], sides[1]


def lay_out(root: Path) -> None:
    """Make the directories of all cases anew: the same names in the same order, so that a listing has one order on both sides."""
    for number, case in enumerate(CASES):
        place = root / f"case{number}"
        shutil.rmtree(place, ignore_errors=True)
        for name in case.directories:
            (place / name).mkdir(parents=True, exist_ok=True)
        for name, text in case.files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text)
        place.mkdir(exist_ok=True)
        for name, target in case.links.items():
            (place / name).symlink_to(target)


def run(python: str, side: str, root: Path) -> Results:
    """Play all cases against one side."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("AZUREML_", "VDS_STORE"))}
    environ["PYTHONPATH"] = "" if side == "sdk" else os.pathsep.join(sys.path)
    done = subprocess.run(
        [python, str(PLAYER), side, str(root / "cases.json"), str(root)], capture_output=True, text=True, env=environ, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found: Results = json.loads(done.stdout.splitlines()[-1])
    return found


def fields(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is compared, by the names that differences have."""
    found = {"blobs": result["blobs"], "local": result["local"]}
    for number, step in enumerate(result["steps"]):
        found.update({f"{number}.{name}": step.get(name) for name in ("error", "returned", "lines")})
    return found


@pytest.mark.sdk
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_vds_does_what_the_sdk_does(results: tuple[Results, Results], case: Case) -> None:
    sdk, own = (fields(side[case.name]) for side in results)
    assert case.differences.keys() <= sdk.keys()
    is_free = {name.partition(".")[0] for name in case.differences if name.endswith(".error")}
    for name, theirs in sdk.items():
        if name in case.differences:
            assert own[name] != theirs, f"{name} does not differ any more"
        elif name.partition(".")[0] not in is_free:  # where only one side raises, it is the only one with no result
            assert own[name] == theirs, name


def test_the_page_gives_every_reason() -> None:
    page = (Path(vds.azureml.__file__).parent / "README.md").read_text(encoding="utf-8")
    reasons = {reason for case in CASES for reason in case.differences.values()}
    assert {reason for reason in reasons if f"- {reason}" not in page} == set()
    assert f"{len(CASES)} cases" in page


def test_there_are_enough_cases_with_names_of_their_own() -> None:
    assert len(CASES) >= 45
    assert len({case.name for case in CASES}) == len(CASES)
