"""The code of a step: which files of its directory it has, what they are, and a copy of them to run from.

It is copied when a pipeline is submitted: who edits a file while that runs changes nothing of it.

The files that the ignore file names are left out: `.amlignore` at the root of the directory, else `.gitignore` there, as the SDK
does; what no code is in always is: `.git`, caches of Python, what vds keeps itself, and `outputs` and `logs` of the directory,
which are what scripts that were tried there have left.
"""

from __future__ import annotations

import ast
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3
from pathspec import GitIgnoreSpec

from vds.azureml.exceptions import UserErrorException
from vds.azureml.notices import say_once

IGNORE_FILES = (".amlignore", ".gitignore")
NEVER_CODE = frozenset({".git", ".hg", ".svn", "__pycache__", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".vds"})
NEVER_CODE_AT_ROOT = frozenset({"outputs", "logs", "user_logs"})
LARGE_BYTES = 300 * 1024 * 1024
LARGE_FILES = 2000
"""Where the SDK refused; vds says once that there is much to copy."""
PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Code:
    """The code of one directory, as it was read.

    Attributes:
        root: where it can be copied from.
        digests: path below the root, with `/` → digest of the file.
        ignored_by: the ignore file that was followed; empty for none.
    """

    root: Path
    digests: Mapping[str, str] = field(default_factory=dict)
    ignored_by: str = ""

    @property
    def digest(self) -> str:
        """One digest of all of it."""
        hasher = blake3(derive_key_context="vds step code 1")
        for path, digest in sorted(self.digests.items()):
            hasher.update(f"{path}\0{digest}\n".encode())
        return f"b3:{hasher.hexdigest()}"


def take_code(root: str | os.PathLike[str], target: Path, *, ignores_comments: bool = False) -> Code:
    """Copy the code of a directory into an empty one; what it is, is told of the copy.

    Args:
        root: the directory.
        target: where to.
        ignores_comments: digest Python files by what they say, without comments and layout.

    Raises:
        UserErrorException: it is no directory, or a file of it cannot be read.
    """
    top = Path(root)
    if not top.is_dir():
        raise UserErrorException(f"source_directory {os.fspath(root)!r} is not a directory", hint="source_directory='scripts'")
    ignored_by = next((name for name in IGNORE_FILES if (top / name).is_file()), "")
    spec = _ignore_spec(top / ignored_by) if ignored_by else None
    digests, size_bytes = {}, 0
    for path in _walk(top, spec):
        _copy(top, path, target)
        digest, file_bytes = _digest(target / path, ignores_comments=ignores_comments and path.endswith(".py"))
        digests[path] = digest
        size_bytes += file_bytes
    if size_bytes > LARGE_BYTES or len(digests) > LARGE_FILES:
        say_once(
            f"source_directory {os.fspath(root)!r} has {len(digests)} files of {size_bytes >> 20} MiB, which every step that runs"
            " from it copies; name data in .amlignore there, or keep the script in a directory of its own",
            f"large code {top}",
        )
    return Code(target, digests, ignored_by)


def copy_code(code: Code, target: Path) -> None:
    """Copy the code into an empty directory; the bits that make a file executable come along.

    Raises:
        UserErrorException: a file cannot be copied.
    """
    for path in code.digests:
        _copy(code.root, path, target)


def _copy(top: Path, path: str, target: Path) -> None:
    place = target / path
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copy2(top / path, place)
    except OSError as err:
        raise UserErrorException(
            f"cannot copy {path!r} of {os.fspath(top)!r}, which is code of a step: {err.strerror}", hint="name it in .amlignore"
        ) from err


def _ignore_spec(path: Path) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError, ValueError) as err:
        raise UserErrorException(f"cannot read the ignore file {os.fspath(path)!r}: {err}") from err


def _walk(top: Path, spec: GitIgnoreSpec | None) -> Iterator[str]:
    """Yield the files below a directory in the order of their names; links to directories are not followed."""
    for parent, directories, files in os.walk(top):
        below = Path(parent).relative_to(top).as_posix()
        prefix = "" if below == "." else f"{below}/"
        directories[:] = sorted(
            name
            for name in directories
            if name not in NEVER_CODE
            and not (not prefix and name in NEVER_CODE_AT_ROOT)
            and not os.path.islink(os.path.join(parent, name))
            and not _is_ignored(spec, f"{prefix}{name}/")
        )
        for name in sorted(files):
            if not _is_ignored(spec, prefix + name) and not name.endswith((".pyc", ".pyo")):
                yield prefix + name


def _is_ignored(spec: GitIgnoreSpec | None, path: str) -> bool:
    return spec is not None and spec.match_file(path)


def _digest(path: Path, *, ignores_comments: bool) -> tuple[str, int]:
    with path.open("rb") as file:
        if ignores_comments:
            body = file.read()
            return f"ast:{blake3(_meaning(body)).hexdigest()}", len(body)
        hasher, size_bytes = blake3(), 0
        while piece := file.read(PIECE_BYTES):
            hasher.update(piece)
            size_bytes += len(piece)
    return f"b3:{hasher.hexdigest()}", size_bytes


def _meaning(body: bytes) -> bytes:
    """Return what a Python file says, without comments and layout; the file itself where it does not parse."""
    try:
        return ast.dump(ast.parse(body)).encode()
    except (SyntaxError, ValueError, RecursionError):
        return body
