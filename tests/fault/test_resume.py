"""An interrupted upload of a large file is continued: only what is missing is sent, and nobody at work is disturbed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from sqlalchemy import text

import vds
from tests.integration.watch import Requests, watch_blobs
from tests.support import (
    ROOT,
    SERVICES,
    Helper,
    Place,
    list_keys,
    make_place,
    read_tree,
    read_version,
    run_together,
    write_tree,
)
from vds.blobs.objects import BLOCK_BYTES_MIN, block_id
from vds.model.checks import fingerprint_of, leaf_checks
from vds.store.results import UploadResult

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGKILL and SIGINT are sent to single processes")

PLACES = ["directory+sqlite", pytest.param("azurite+postgresql", marks=SERVICES)]
UPLOADER = "tests.fault.uploader"
NAMESPACE = "team/raw"
BLOCKS = 5
LARGE = blake3(b"a large file").digest((BLOCKS - 1) * BLOCK_BYTES_MIN + 12345)
SILENT_S = 200


def ids_of(body: bytes) -> list[str]:
    """Return the ids of the blocks of a file, in order."""
    pieces = [body[start : start + BLOCK_BYTES_MIN] for start in range(0, len(body), BLOCK_BYTES_MIN)]
    return [block_id(i, fingerprint_of(leaf_checks(piece))) for i, piece in enumerate(pieces)]


@dataclass
class Scene:
    """A store that several processes use, and a directory with one large file.

    Attributes:
        requests: what this process asks of the container.
    """

    place: Place
    tree: Path
    requests: Requests

    def task(self, **more: Any) -> dict[str, Any]:
        """Return the task of an uploader."""
        return {
            "url": self.place.url,
            "index": self.place.index,
            "namespace": NAMESPACE,
            "directory": str(self.tree),
            **more,
        }

    def start(self, **more: Any) -> Helper:
        """Start an uploader that is at work when this returns."""
        helper = Helper.start(UPLOADER, self.task(**more))
        helper.wait_ready()
        helper.go()
        return helper

    def kill_after(self, blocks: int) -> set[str]:
        """Let an uploader be killed after so many blocks and return those that the service holds."""
        helper = self.start(kill_after=blocks)
        helper.process.communicate(timeout=60)
        assert helper.process.returncode == -signal.SIGKILL
        return self.staged()

    def hold_after(self, blocks: int, **more: Any) -> Helper:
        """Start an uploader, and return it when it has staged so many blocks and waits."""
        helper = self.start(hold_after=blocks, **more)
        assert helper.process.stdout is not None
        assert "holding" in helper.process.stdout.readline()
        return helper

    def staged(self) -> set[str]:
        """Return the blocks that the service holds of blobs that are not finished."""
        blobs, found = self.place.blobs(), set()
        for (key,) in self.ask("SELECT key FROM blob WHERE state = 'pending' AND fingerprint IS NOT NULL"):
            found |= {block.block_id for block in blobs.list_blocks(key)}
        blobs.close()
        return found

    def ask(self, sql: str, values: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run SQL on the index and return the rows, if it has any."""
        database = self.place.database()

        def work(connection: Any) -> list[tuple[Any, ...]]:
            done = connection.execute(text(sql), values or {})
            return [tuple(row) for row in done] if done.returns_rows else []

        rows = database.run(work)
        database.close()
        return rows

    def upload(self) -> UploadResult:
        """Upload from this process and check that the version holds what the directory holds."""
        self.requests.clear()
        with self.place.connect() as store:
            result: UploadResult = store.namespace(NAMESPACE).upload(self.tree, show_progress=False)
            assert read_version(result.version) == read_tree(self.tree)
        assert result.bytes_sent == self.requests.staged_bytes
        return result

    @property
    def sent(self) -> list[str]:
        """The blocks that the last upload of this process sent."""
        return sorted(block_id for _, block_id, _ in self.requests.staged)


@pytest.fixture
def scenes(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Scene]:
    """Return what makes a scene with an empty store."""
    monkeypatch.setenv("VDS_CACHE", str(tmp_path / "cache"))

    def make(kind: str) -> Scene:
        place = make_place(kind, request)
        place.connect(create=True).close()
        tree = write_tree(tmp_path / "tree", {"large": LARGE})
        blobs = place.blobs()
        blobs.close()
        return Scene(place, tree, watch_blobs(monkeypatch, type(blobs)))

    return make


@pytest.fixture
def scene(scenes: Callable[[str], Scene]) -> Scene:
    return scenes("directory+sqlite")


@pytest.mark.parametrize("kind", PLACES)
def test_after_a_kill_only_the_missing_blocks_are_sent(kind: str, scenes: Callable[[str], Scene]) -> None:
    scene = scenes(kind)
    held = scene.kill_after(1)
    assert 1 <= len(held) < BLOCKS
    result = scene.upload()
    # A service may still take in what was on its way when its sender died.
    assert set(scene.sent) <= set(ids_of(LARGE)) - held
    assert (result.version.number, result.bytes_new) == (1, len(LARGE))
    scene.upload()
    assert scene.sent == []


def test_an_upload_killed_twice_goes_on_from_both(scene: Scene) -> None:
    first = scene.kill_after(2)
    second = scene.kill_after(1)
    assert first < second
    scene.upload()
    assert scene.sent == sorted(set(ids_of(LARGE)) - second)


@pytest.mark.parametrize("is_silent", [True, False])
def test_another_machine_goes_on_only_when_the_first_fell_silent(is_silent: bool, scene: Scene) -> None:
    held = scene.kill_after(3)
    # To whoever is elsewhere, a process that was killed is like one that works on.
    scene.ask("UPDATE upload SET process = 'elsewhere/boot/1/1'")
    if is_silent:
        scene.ask("UPDATE upload SET heartbeat_us = heartbeat_us - :us", {"us": SILENT_S * 1_000_000})
    scene.upload()
    assert scene.sent == sorted(set(ids_of(LARGE)) - (held if is_silent else set()))


@pytest.mark.parametrize("process", ["as it is", "elsewhere/boot/1/1"])
def test_a_live_writer_keeps_its_blob(process: str, scene: Scene) -> None:
    writer = scene.hold_after(2)
    try:
        if process != "as it is":
            scene.ask("UPDATE upload SET process = :p WHERE state = 'open'", {"p": process})
        result = scene.upload()
        assert scene.sent == sorted(ids_of(LARGE))
        writer.go()
        (said,) = writer.finish()
    finally:
        writer.stop()
    assert (result.version.number, said["number"], said["ok"]) == (1, 1, True)
    assert len(list_keys(scene.place.blobs(), "objects/")) == 1  # whoever comes second commits nothing


def test_a_writer_that_joined_a_transaction_keeps_its_blob(scene: Scene) -> None:
    ((begun,),) = run_together(UPLOADER, [scene.task(begin=True)])  # by a process that has ended when this returns
    writer = scene.hold_after(2, token=begun["token"])
    try:
        scene.upload()
        assert scene.sent == sorted(ids_of(LARGE))
        writer.go()
        writer.finish()
    finally:
        writer.stop()
    assert vds.join(begun["token"]).commit(expected_parts=1).version.verify().ok


def test_of_a_file_that_changed_only_equal_blocks_are_used(scene: Scene) -> None:
    held = scene.kill_after(3)
    changed = bytearray(LARGE)
    changed[BLOCK_BYTES_MIN + 500_000] ^= 1  # where no sample is taken, so that it still seems to be the same file
    write_tree(scene.tree, {"large": bytes(changed)})
    scene.upload()
    assert scene.sent == sorted(set(ids_of(bytes(changed))) - held)
    assert ids_of(bytes(changed))[1] in scene.sent


def test_a_file_that_was_hashed_before_is_continued_too(scene: Scene) -> None:
    write_tree(scene.tree, {"large": LARGE})
    scene.upload()
    twin = bytearray(LARGE)
    twin[BLOCK_BYTES_MIN + 500_000] ^= 1
    write_tree(scene.tree, {"large": bytes(twin)})  # known by its samples, and not by its digest
    held = scene.kill_after(2)
    scene.upload()
    assert scene.sent == sorted(set(ids_of(bytes(twin))) - held)


@pytest.mark.parametrize("kind", PLACES)
def test_two_uploads_of_one_large_file_at_once(kind: str, scenes: Callable[[str], Scene], tmp_path: Path) -> None:
    scene = scenes(kind)
    tasks = [scene.task(), scene.task(namespace="other/raw", directory=str(shutil.copytree(scene.tree, tmp_path / "other")))]
    for (said,) in run_together(UPLOADER, tasks):
        assert (said["number"], said["ok"]) == (1, True)
    assert 1 <= len(list_keys(scene.place.blobs(), "objects/")) <= 2
    scene.upload()
    assert scene.sent == []


INTERRUPTED = """
import threading
from vds.blobs.directory import DirectoryDriver
from vds.cli import interrupt, main
from tests.fault.uploader import stop_after
stopping = threading.Event()
say = interrupt.say
def say_and_tell(text):
    say(text)
    stopping.set()
def tell_and_wait():
    print("staged", flush=True)
    assert stopping.wait(60)
interrupt.say = say_and_tell
stop_after(DirectoryDriver, 2, tell_and_wait)
main.main()
"""


def test_after_ctrl_c_nothing_is_visible_and_the_same_command_goes_on(scene: Scene) -> None:
    command = ["upload", str(scene.tree), NAMESPACE, "--store", scene.place.url]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "staged\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130, errors
    assert "interrupted: nothing of this upload is visible" in errors
    assert "Traceback" not in errors
    with scene.place.connect() as store:
        assert store.namespace(NAMESPACE).latest().number == 0
    held = scene.staged()
    assert 2 <= len(held) < BLOCKS
    result = scene.upload()
    assert result.version.number == 1
    assert scene.sent == sorted(set(ids_of(LARGE)) - held)
