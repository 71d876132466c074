"""The main job on real files, as a check that can fail.

Two jobs write at once, a release is tagged, a bad write is undone, and what is read back is compared byte for byte. The jobs
are processes of their own (`python -m vds.demo STORE NAMESPACE ROOT LIST NAME`), which start writing at the same moment. The
store is a directory with an embedded index; no other store is touched, whatever the environment names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vds.errors import ConflictError, InvalidInputError, VdsError

if TYPE_CHECKING:
    from vds.store import Namespace, Store

NAMESPACE = "demo/raw"
DATASET = "demo/files"
TAG = "prod"
KEPT_DIRECTORY = ".demo"
FILES_MIN = 3  # each of two jobs has a file of its own, and one that both have
BAD_FILES = 3
GO = "go\n"
BLOCK_BYTES = 1024 * 1024
_SKIPPED = {"__pycache__", "site-packages", ".git", ".vds", KEPT_DIRECTORY}

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Step:
    """What one step did."""

    name: str
    files: int
    size_bytes: int
    seconds: float
    uri: str


@dataclass
class DemoReport:
    """What happened; `failures` names each comparison that did not hold."""

    steps: list[Step] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every comparison held."""
        return not self.failures

    def check(self, holds: bool, claim: str) -> None:
        """Keep `claim` as a failure unless it holds."""
        if not holds:
            self.failures.append(f"does not hold: {claim}")


@dataclass(frozen=True)
class _Demo:
    work: Path
    source: Path
    files: list[str]  # relative, "/"-separated, sorted
    say: Say
    report: DemoReport

    @contextmanager
    def step(self, name: str, say: str) -> Iterator[Callable[[int, int, str], None]]:
        self.say(f"{name}: {say}")
        began = time.perf_counter()

        def done(files: int, size_bytes: int, uri: str) -> None:
            self.report.steps.append(Step(name, files, size_bytes, time.perf_counter() - began, uri))

        yield done

    def size_bytes(self, files: Sequence[str]) -> int:
        return sum((self.source / file).stat().st_size for file in files)


def run_demo(directory: str | None = None, *, keep: bool = False, say: Say) -> DemoReport:
    """Run the demo and return what happened.

    Args:
        directory: the files to use; Python's standard library by default. It is only read.
        keep: work in ./.demo and leave it there, instead of in a temporary directory.
        say: told what is being done.

    Raises:
        InvalidInputError: the directory has fewer than three files.
        ConflictError: ./.demo is there already.
    """
    source = Path(directory or sysconfig.get_path("stdlib")).resolve()
    files = sorted(_find_files(source))
    if len(files) < FILES_MIN:
        raise InvalidInputError(
            f"{str(source)!r} has {len(files)} files, the demo needs {FILES_MIN}",
            hint="name a directory with more files, or none: vds demo",
        )
    report = DemoReport()
    if not keep:
        with tempfile.TemporaryDirectory(prefix="vds-demo-", ignore_cleanup_errors=True) as work:
            _run(_Demo(Path(work), source, files, say, report))
        return report
    work_kept = Path(KEPT_DIRECTORY).resolve()
    try:
        work_kept.mkdir()
    except FileExistsError as err:
        raise ConflictError(f"{work_kept} is there already", hint="remove it, or run without --keep") from err
    _run(_Demo(work_kept, source, files, say, report))
    say(f"kept: vds log {NAMESPACE} --store {os.path.join('.', KEPT_DIRECTORY, 'store')}")
    return report


def _find_files(root: Path) -> Iterator[str]:
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if name not in _SKIPPED and not os.path.islink(os.path.join(directory, name))]
        for name in files:
            path = os.path.join(directory, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield os.path.relpath(path, root).replace(os.sep, "/")


def _run(demo: _Demo) -> None:
    import vds

    with vds.connect(demo.work / "store", index="embedded", create=True) as store:
        namespace = store.namespace(NAMESPACE)
        if not _two_jobs(demo, store):
            return
        _release(demo, store)
        _bad_write(demo, namespace)
        _undo(demo, namespace)
        _read_back(demo, store)


def _two_jobs(demo: _Demo, store: Store) -> bool:
    third = len(demo.files) // 3
    shares = {"job a": demo.files[: -third or None], "job b": demo.files[third:]}
    common = len(shares["job a"]) + len(shares["job b"]) - len(demo.files)
    with demo.step("two jobs", f"two processes write {common} same and {2 * third} other files at once") as done:
        results = _run_jobs(demo, shares)
        numbers = {name: result["number"] for name, result in results.items() if result is not None}
        if len(numbers) < len(shares):
            return False
        done(len(demo.files), demo.size_bytes(demo.files), store.namespace(NAMESPACE).latest().uri)
    for name, result in results.items():
        assert result is not None
        demo.report.steps.append(Step(name, len(shares[name]), demo.size_bytes(shares[name]), result["seconds"], result["uri"]))
    _check_versions(demo, store.namespace(NAMESPACE), shares, numbers)
    return True


def _run_jobs(demo: _Demo, shares: dict[str, list[str]]) -> dict[str, dict[str, Any] | None]:
    results: dict[str, dict[str, Any] | None] = {}
    with ExitStack() as stack:
        processes = {name: stack.enter_context(_start_job(demo, name, files)) for name, files in shares.items()}
        for process in processes.values():
            stack.callback(process.kill)  # no job outlives the demo when it is stopped; one that has ended is left alone
        for process in processes.values():  # both are connected before either may write
            assert process.stdout is not None
            process.stdout.readline()
        for process in processes.values():
            assert process.stdin is not None
            with suppress(OSError):  # it has ended already: its exit code says so below
                process.stdin.write(GO)
                process.stdin.flush()
        for name, process in processes.items():
            output = process.communicate()[0]
            results[name] = json.loads(output) if process.returncode == 0 else None
            demo.report.check(process.returncode == 0, f"{name} ends with exit code 0 (it was {process.returncode})")
    return results


def _start_job(demo: _Demo, name: str, files: list[str]) -> subprocess.Popen[str]:
    listing = demo.work / f"{name.replace(' ', '-')}.list"
    listing.write_bytes(b"\0".join(os.fsencode(file) for file in files))
    command = [sys.executable, "-m", "vds.demo", str(demo.work / "store"), NAMESPACE, str(demo.source), str(listing), name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _check_versions(demo: _Demo, namespace: Namespace, shares: dict[str, list[str]], numbers: dict[str, int]) -> None:
    demo.report.check(sorted(numbers.values()) == [1, 2], f"the two jobs made the versions 1 and 2: {numbers}")
    first = min(numbers, key=lambda name: numbers[name])
    for number, wanted in ((1, shares[first]), (2, demo.files)):
        paths = sorted(entry.path for entry in namespace.get(number).entries())
        demo.report.check(
            paths == [_entry_name(file) for file in wanted],
            f"version {number} has the {len(wanted)} files of its job and of those before it",
        )
    demo.say(f"both versions are there: 1 from {first}, 2 with the files of both")


def _release(demo: _Demo, store: Store) -> None:
    with demo.step("release", f"register version 2 as {DATASET} and tag it {TAG}") as done:
        release = store.dataset(DATASET).register(f"{NAMESPACE}@2", tags=[TAG], description="what both jobs wrote")
        done(release.version.file_count, release.version.size_bytes, f"vds://{DATASET}:{TAG}/")
    demo.report.check(store.get(f"{DATASET}:{TAG}").number == 2, f"{DATASET}:{TAG} shows version 2")


def _bad_files(demo: _Demo) -> dict[str, bytes]:
    step = max(1, len(demo.files) // BAD_FILES)
    chosen = demo.files[::step][:BAD_FILES]
    return {file: b"broken by the demo\n" + (demo.source / file).read_bytes()[:100] for file in chosen}


def _bad_write(demo: _Demo, namespace: Namespace) -> None:
    bad = _bad_files(demo)
    for file, content in bad.items():
        path = demo.work / "bad" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    with demo.step("bad write", f"a third job writes {len(bad)} broken files over good ones") as done:
        result = namespace.upload(demo.work / "bad", show_progress=False, message="a bad write")
        done(len(bad), sum(len(content) for content in bad.values()), result.uri)
    with demo.step("diff", f"what changed from version 2 to {result.version.number}") as done:
        changes = list(namespace.diff(2, result.version.number))
        done(len(changes), sum(change.after.size_bytes for change in changes if change.after), result.uri)
    for change in changes:
        demo.say(f"  {change.kind}: {change.path}")
    found = sorted(str(change.path) for change in changes if change.kind == "modified")
    demo.report.check(
        found == sorted(map(_entry_name, bad)) and len(changes) == len(bad), "the diff names exactly the broken files"
    )
    for file, content in bad.items():
        demo.report.check(
            result.version.read_bytes(_entry_name(file)) == content, f"version {result.version.number} has the bad {file}"
        )
        demo.report.check(
            namespace.get(2).read_bytes(_entry_name(file)) == (demo.source / file).read_bytes(), f"version 2 still has {file}"
        )


def _undo(demo: _Demo, namespace: Namespace) -> None:
    with demo.step("rollback", "a new version with the content of version 2") as done:
        version = namespace.rollback(2, message="undo the bad write").version
        done(version.file_count, version.size_bytes, version.uri)
    same = version.content_digest == namespace.get(2).content_digest
    demo.report.check(same, f"version {version.number} has the content of version 2")
    demo.report.check(version.number == 4, f"history has the versions 1 to 4, the latest is {version.number}")


def _read_back(demo: _Demo, store: Store) -> None:
    target = demo.work / "read-back"
    with demo.step("download", f"{DATASET}:{TAG} into a new directory") as done:
        version = store.get(f"{DATASET}:{TAG}")
        version.download(target, show_progress=False)
        done(version.file_count, version.size_bytes, version.uri)
    with demo.step("compare", "each file with its source, byte for byte") as done:
        placed = sorted(_find_files(target))
        demo.report.check(
            placed == [_entry_name(file) for file in demo.files], f"the {len(demo.files)} source files, and no others, came back"
        )
        compared_bytes = 0
        for file in demo.files:
            size_bytes = _same_bytes(demo.source / file, target / _entry_name(file))
            demo.report.check(size_bytes is not None, f"{file} is equal to its source")
            compared_bytes += size_bytes or 0
        done(len(demo.files), compared_bytes, version.uri)


def _entry_name(file: str) -> str:
    return unicodedata.normalize("NFC", file)  # macOS hands out decomposed names, a version holds composed ones


def _same_bytes(one: Path, other: Path) -> int | None:
    """Return how many bytes both files have, or None when they differ. (filecmp may answer from sizes and times alone.)"""
    size_bytes = 0
    try:
        with open(one, "rb") as first, open(other, "rb") as second:
            while True:
                block = first.read(BLOCK_BYTES)
                if block != second.read(BLOCK_BYTES):
                    return None
                if not block:
                    return size_bytes
                size_bytes += len(block)
    except FileNotFoundError:
        return None


def run_job(store_url: str, namespace: str, root: str, listing: str, name: str) -> None:
    """Be one of the two jobs: connect, wait for the word, upload the listed files as one version, print the result as JSON."""
    import vds

    files = [os.path.join(root, os.fsdecode(file)) for file in Path(listing).read_bytes().split(b"\0")]
    with vds.connect(store_url, index="embedded") as store:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        if sys.stdin.readline() != GO:
            sys.exit("error: the demo was stopped")
        result = store.namespace(namespace).upload_files(files, relative_root=root, show_progress=False, message=name)
        sys.stdout.write(json.dumps({"number": result.version.number, "uri": result.uri, "seconds": result.seconds}))


if __name__ == "__main__":
    try:
        run_job(*sys.argv[1:])
    except VdsError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
