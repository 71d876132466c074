from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.ops.stored import Stored
from vds.errors import ConflictError
from vds.model.path import ancestors
from vds.ops.checkout import checkout, status
from vds.progress import SilentProgress

PATHS = ["a", "a-b", "a/b", "a/b/c", "a/d", "e", "é/f"]


def without_clashes(files: dict[str, bytes]) -> dict[str, bytes]:
    """Drop what would need a file of the same version to be a directory."""
    return {path: body for path, body in files.items() if not any(above in files for above in ancestors(path))}


versions = st.dictionaries(st.sampled_from(PATHS), st.sampled_from([b"", b"x", b"y", b"zz"])).map(without_clashes)


def tree(root: Path) -> dict[str, bytes]:
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return {path: body for path, body in found.items() if not path.startswith(".vds/")}


def edit(root: Path, path: str, body: bytes | None) -> None:
    try:
        if body is None:
            (root / path).unlink()
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(body)
    except OSError:
        pass  # the path is, or is below, something else here


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(versions, st.none() | st.tuples(st.sampled_from(PATHS), st.none() | st.just(b"mine"))), min_size=1, max_size=4
    )
)
def test_a_checkout_equals_its_version_and_loses_nothing(
    steps: list[tuple[dict[str, bytes], tuple[str, bytes | None] | None]],
) -> None:
    stored = Stored()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        last: dict[str, bytes] = {}
        for files, edited in steps:
            if edited is not None:
                edit(root, *edited)
            before = tree(root)
            # Whatever stands there and is not what was placed is the user's.
            own = {path: body for path, body in before.items() if last.get(path) != body}
            try:
                checkout(stored.source, stored.version(files), root, SilentProgress(), uri="vds://n@1/")
            except ConflictError:
                assert own
                assert tree(root) == before
                continue
            after = tree(root)
            assert {path: body for path, body in after.items() if path in files} == files
            assert all(after[path] == body for path, body in own.items())
            assert set(after) - set(files) <= set(own)
            found = status(root)
            assert not found.modified
            assert not found.removed
            assert set(found.added) == set(after) - set(files)
            last = files
