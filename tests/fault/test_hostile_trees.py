"""Names that somebody wrote into the index, directories that somebody swaps meanwhile: nothing lands outside the target."""

from __future__ import annotations

import os
import pickle
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support import Place, read_tree, write_tree
from vds.errors import VdsError
from vds.fs.system import VdsFileSystem
from vds.store import Store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="making symlinks needs a privilege")

NAMESPACE = "team/raw"
FILES = {"a": b"one", "d/b": b"two" * 50, "d/e/c": b"three", "large": bytes(range(256)) * 5000}
STEP = 4
"""Of so many calls of the system, something is swapped before one: each is much like those beside it."""
OUTSIDE = {"secret": b"secret", "b": b"not ours", "e/c": b"nor this"}

HOSTILE = [
    *("../evil", "../../evil", "d/../../evil", "/evil", "//evil", "./evil", "evil/", "a//evil", ".", "..", "d/..", "d/./evil"),
    *("evil\\..\\..\\evil", "\\evil", "C:\\evil", "d\nevil", "\x1b[2Jevil", "evil\x7f", "e\u0301vil", "x" * 256, "evil\udcff"),
    *("/".join(["evil" * 50] * 6), ".vds/evil", ".vds/checkout.jsonl", ".vds", "", "~/evil/..", "evil/../../../evil", "evil\0"),
]
"""What an index may say a file is called."""

Verb = Callable[[Store, Path], object]


def _files(store: Store) -> VdsFileSystem:
    return VdsFileSystem(store=store.url, skip_instance_cache=True)


def get_glob(store: Store, dst: Path) -> None:
    _files(store).get(f"{NAMESPACE}@1/**", str(dst))


def get_tree(store: Store, dst: Path) -> None:
    _files(store).get(f"{NAMESPACE}@1/", str(dst), recursive=True)


def get_some_levels(store: Store, dst: Path) -> None:
    _files(store).get(f"{NAMESPACE}@1/", str(dst), recursive=True, maxdepth=5)


VERBS: dict[str, Verb] = {
    "download": lambda store, dst: store.get(f"{NAMESPACE}@1").download(dst, show_progress=False),
    "checkout": lambda store, dst: store.get(f"{NAMESPACE}@1").checkout(dst, show_progress=False),
    "forced checkout": lambda store, dst: store.get(f"{NAMESPACE}@1").checkout(dst, force=True, show_progress=False),
    "export": lambda store, dst: store.get(f"{NAMESPACE}@1").export(str(dst), show_progress=False),
    "overwriting export": lambda store, dst: store.get(f"{NAMESPACE}@1").export(str(dst), overwrite=True, show_progress=False),
    "get of a pattern": get_glob,
    "get of a tree": get_tree,
    "get of some levels": get_some_levels,
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, of which each test has a copy."""
    root = tmp_path_factory.mktemp("hostile")
    with Place(str(root / "store")).connect(create=True) as store:
        store.namespace(NAMESPACE).upload(write_tree(root / "src", FILES), show_progress=False)
    return root / "store"


@pytest.fixture
def place(stored: Path, tmp_path: Path) -> Place:
    return Place(str(shutil.copytree(stored, tmp_path / "store")))


@contextmanager
def renamed(place: Place, name: str) -> Iterator[None]:
    """Say in the index that the file `a` is called so, as no vds would."""

    def rename(before: str, after: str) -> None:
        # As bytes, so that what is no Unicode can be said as well.
        texts = after.encode(errors="surrogateescape"), before.encode(errors="surrogateescape")
        with closing(sqlite3.connect(Path(place.url) / ".vds-index" / "index.sqlite", isolation_level=None)) as connection:
            done = connection.execute("UPDATE entry SET path = CAST(? AS TEXT) WHERE path = CAST(? AS TEXT)", texts)
            assert done.rowcount == 1

    rename("a", name)
    try:
        yield
    finally:
        rename(name, "a")


def check_around(root: Path, dst: Path) -> None:
    """Check that nothing is below `root` but what is below `dst`, and nothing of vds's own there but what vds wrote."""
    own = f"{dst.relative_to(root).as_posix()}/"
    for path in read_tree(root):
        assert path.startswith(own), path
        inner = path.removeprefix(own)
        assert not inner.startswith(".vds/") or inner.startswith((".vds/partial/", ".vds/checkout.jsonl")), path
        assert ".vds/checkout.jsonl" not in inner or b"vds_checkout" in (root / path).read_bytes(), path
        assert inner.isprintable(), path
        assert "\\" not in inner, path


@pytest.mark.parametrize("verb", VERBS)
def test_a_name_out_of_the_index(verb: str, place: Place, tmp_path: Path) -> None:
    for number, hostile in enumerate(HOSTILE):
        around = tmp_path / f"around-{number}"
        dst = around / "one" / "two"
        dst.mkdir(parents=True)
        with renamed(place, hostile), place.connect() as store, suppress(VdsError, FileNotFoundError, ValueError):
            VERBS[verb](store, dst)  # a ValueError: fsspec looks, too
        check_around(around, dst)
        assert not any(Path("/").glob("evil*"))
        assert not any(Path.cwd().glob("evil*"))


@pytest.mark.parametrize("verb", ["download", "checkout", "export"])
def test_a_name_out_of_a_list_on_this_machine(verb: str, place: Place, tmp_path: Path) -> None:
    """What a version holds is read from the cache where it is there: it is not believed either."""
    dst = tmp_path / "around" / "one" / "two"
    dst.mkdir(parents=True)
    with renamed(place, "../../evil"), place.connect() as store:
        version = pickle.loads(pickle.dumps(store.get(f"{NAMESPACE}@1")))
    with place.connect() as store:
        version = store.get(f"{NAMESPACE}@1")
        assert version._pinned.manifest is not None
        assert "../../evil" in [row.entry.path for row in version._pinned.manifest.rows()]
        with pytest.raises(VdsError):
            VERBS[verb](store, dst)
    check_around(tmp_path / "around", dst)


@pytest.mark.parametrize("verb", VERBS)
def test_a_planted_symlink(verb: str, place: Place, tmp_path: Path) -> None:
    outside = write_tree(tmp_path / "outside", OUTSIDE)
    for number, planted in enumerate(["a", "d", "d/b", "d/e", "large", ".vds", ".vds/partial"]):
        dst = tmp_path / f"dst-{number}"
        (dst / planted).parent.mkdir(parents=True)
        (dst / planted).symlink_to(outside / "secret" if planted in ("a", "d/b", "large") else outside)
        with place.connect() as store, suppress(VdsError):
            VERBS[verb](store, dst)
        assert read_tree(outside) == OUTSIDE, planted
        assert {path.name for path in outside.rglob("*")} == {"secret", "b", "e", "c"}, planted


class Swap:
    """Counts calls of the operating system; at one of them, just before it, something else takes the place of what is there."""

    NAMES = ("open", "mkdir", "rename", "replace", "link", "unlink", "rmdir", "stat", "lstat")

    def __init__(self, at: int, do: Callable[[], None]) -> None:
        self.count = 0
        self._at = at
        self._do = do
        self._real: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in self.NAMES}

    def __enter__(self) -> Swap:
        for name in self.NAMES:
            setattr(os, name, self._around(self._real[name]))
        return self

    def __exit__(self, *_: object) -> None:
        for name, real in self._real.items():
            setattr(os, name, real)

    def _around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self._at:
                self._do()
            return real(*args, **options)

        return call


@pytest.mark.parametrize("is_there", [False, True], ids=["new", "there"])
@pytest.mark.parametrize("victim", ["d", "d/b", ".vds"])
@pytest.mark.parametrize("verb", ["download", "forced checkout", "overwriting export", "get of a pattern"])
def test_a_symlink_that_appears_in_between(verb: str, victim: str, is_there: bool, place: Place, tmp_path: Path) -> None:
    """Before every call of the system, in turn, a directory or file below the target becomes a symlink that leads outside."""
    outside, swapped, at = write_tree(tmp_path / "outside", OUTSIDE), 0, 1
    rename, symlink, lexists = os.rename, os.symlink, os.path.lexists
    with place.connect() as store:
        while True:
            dst = tmp_path / f"dst-{at}"
            if is_there:
                write_tree(dst, dict.fromkeys(FILES, b"older"))

            def plant(dst: Path = dst) -> None:
                nonlocal swapped
                place = dst / victim
                if lexists(place):
                    rename(place, f"{dst}-moved")
                elif not place.parent.is_dir():
                    return
                symlink(outside / "secret" if victim == "d/b" else outside, place)
                swapped += 1

            swap = Swap(at, plant)
            with swap, suppress(VdsError, OSError):
                VERBS[verb](store, dst)
            assert read_tree(outside) == OUTSIDE, f"at call {at}"
            assert {path.name for path in outside.rglob("*")} == {"secret", "b", "e", "c"}, f"at call {at}"
            if swap.count < at:
                break
            at += STEP
    assert swapped > 1, f"{at} calls"
