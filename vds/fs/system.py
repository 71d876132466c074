"""The fsspec file system `vds`: `vds://customers:prod/a.parquet` in everything that reads through fsspec. It only reads.

Guarantees:
- whole files are checked against their digest before they stand under a name, and no byte is handed out unchecked;
- many small files are read many to a request;
- a directory is listed at the cost of what lies directly in it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from errno import ENOENT, EROFS
from glob import has_magic
from hashlib import sha256
from io import UnsupportedOperation
from typing import IO, Any

from fsspec.callbacks import DEFAULT_CALLBACK, Callback
from fsspec.implementations.local import make_path_posix, trailing_sep
from fsspec.spec import AbstractFileSystem
from fsspec.utils import isfilelike, stringify_path

from vds.errors import EntryNotFoundError, InvalidInputError, VdsError
from vds.fs.pinned import PinnedFileSystem
from vds.fs.ranges import Read, Slice, parse_ranges, plan_slices
from vds.fs.transfer import LARGE_BYTES, GetPlan, Placing, make_directory, place_files, read_files
from vds.model.entry import Entry
from vds.model.path import ancestors, is_under
from vds.model.ref import SCHEME, parse_ref_path
from vds.pipeline import parallel_map
from vds.store import Version

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Info = dict[str, Any]


class ReadOnlyError(InvalidInputError, UnsupportedOperation):
    """A write through the file system, which only reads; an OSError with EROFS, for those who look for that."""

    errno = EROFS


class VdsFileSystem(PinnedFileSystem):
    """A read-only file system of versions. Storage options, as `vds.connect` takes them: `store`, `index`, `credential`.

    Thread-safe. What cannot be found is a FileNotFoundError, and whatever would write a ReadOnlyError.
    """

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """List a directory, at the cost of what lies directly in it; a file is listed as itself.

        Raises:
            EntryNotFoundError: there is nothing at `path`.
        """
        version, place, name = self._locate(path)
        top = _top(name, place)
        infos = [_info(f"{top}/{child}", entry) for child, entry in version.children(place)]
        if not infos:  # a file, an empty version, or nothing
            infos = [_info(f"{top}/{entry.path}", entry) for entry in version.entries(place)]
        if not infos and place:
            raise EntryNotFoundError(f"there is nothing at {name!r}", hint=f"vds ls {name.rpartition('/')[0]}")
        infos.sort(key=lambda info: str(info["name"]))
        return infos if detail else [info["name"] for info in infos]

    def info(self, path: str, **kwargs: Any) -> Info:
        """Return what is known of one file or directory.

        Raises:
            EntryNotFoundError: there is nothing at `path`.
        """
        version, place, name = self._locate(path)
        return _info(name, _find_entry(version, place))

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Return whether there is a file or directory; a store that does not answer is an error, not a no."""
        return self._find_info(path) is not None

    def isfile(self, path: str) -> bool:
        """Return whether there is a file."""
        return (self._find_info(path) or {}).get("type") == "file"

    def isdir(self, path: str) -> bool:
        """Return whether there is a directory."""
        return (self._find_info(path) or {}).get("type") == "directory"

    def _find_info(self, path: str) -> Info | None:
        try:
            parse_ref_path(SCHEME + self._strip_protocol(path))
        except InvalidInputError:
            return None  # what cannot be a path is not there
        try:
            return self.info(path)
        except EntryNotFoundError:
            return None

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **kwargs: Any
    ) -> list[str] | dict[str, Info]:
        """Return all files at or below a path, by name; none when there is nothing, but a ref must mean something.

        Raises:
            EntryNotFoundError: there is no such version.
        """
        version, place, name = self._locate(path)
        if maxdepth is not None:
            found: list[str] | dict[str, Info] = super().find(name, maxdepth, withdirs, detail, **kwargs)
            return found
        top = _top(name, place)
        if not detail and not withdirs:
            return [f"{top}/{entry.path}" for entry in version.entries(place)]
        infos: dict[str, Info] = {}
        for entry in version.entries(place):
            if withdirs:
                for above in ("", *ancestors(entry.path)):
                    if is_under(above, place):
                        infos.setdefault(f"{top}/{above}".rstrip("/"), _info(f"{top}/{above}".rstrip("/"), None))
            infos[f"{top}/{entry.path}"] = _info(f"{top}/{entry.path}", entry)
        return dict(sorted(infos.items())) if detail else sorted(infos)

    def du(
        self, path: str, total: bool = True, maxdepth: int | None = None, withdirs: bool = False, **kwargs: Any
    ) -> int | dict[str, int]:
        """Return the bytes of all files at or below a path, or those of each."""
        found = self.find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True)
        assert isinstance(found, dict)
        sizes = {name: info["size"] for name, info in found.items()}
        return sum(sizes.values()) if total else sizes

    def modified(self, path: str) -> datetime:
        """Return the mtime a file had when it was uploaded, in UTC; of a directory, when the version was committed."""
        version, place, _ = self._locate(path)
        entry = _find_entry(version, place)
        return version.created_at if entry is None else _EPOCH + timedelta(microseconds=entry.modified_ns // 1000)

    def created(self, path: str) -> datetime:
        """Return when the version was committed, in UTC."""
        version, place, _ = self._locate(path)
        _find_entry(version, place)
        return version.created_at

    def ukey(self, path: str) -> str:
        """Return a text that is another one whenever the content is: of a file its digest."""
        version, place, _ = self._locate(path)
        entry = _find_entry(version, place)
        return f"{version.digest}/{version.path}/{place}" if entry is None else str(entry.digest)

    def checksum(self, path: str) -> int:
        """Return `ukey` as a number."""
        return int(sha256(self.ukey(path).encode()).hexdigest(), 16)

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> IO[bytes]:
        # How far to read ahead is the reader's own affair: block_size and the caches of fsspec would only stand in its way.
        if mode != "rb":
            raise _read_only()
        version, place, _ = self._locate(path)
        return version.open(place)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """Return the bytes of one file, or of a slice of it; negative positions count from its end."""
        version, place, _ = self._locate(path)
        if (start or 0) < 0 or (end or 0) < 0:
            start, end, _ = slice(start, end).indices(version.entry(place).size_bytes)
        return version.read_bytes(place, start or 0, None if end is None else max(0, end - (start or 0)))

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any) -> Any:
        """Return the bytes of a file, or name → bytes of several, which are read many to a request."""
        if kwargs:
            return super().cat(path, recursive=recursive, on_error=on_error, **kwargs)
        names = self._expand_files(path, recursive)
        if isinstance(path, str | os.PathLike) and names == [self._strip_protocol(path)]:
            return self.cat_file(names[0])
        found = self._read_files(names, is_strict=on_error == "raise")
        return {name: found[name] for name in names if on_error != "omit" or isinstance(found[name], bytes)}

    def cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[Any]:
        """Return many slices of many files, in order: small files are read whole, many to a request; near ranges in one."""
        ranges = parse_ranges(paths, starts, ends)
        is_strict = on_error != "return"
        sizes = self._measure([asked.name for asked in ranges], is_strict=is_strict)
        known = {name: size for name, size in sizes.items() if isinstance(size, int)}
        slices = iter(plan_slices([asked for asked in ranges if asked.name in known], known, max_gap or 0))
        wanted = [next(slices) if asked.name in known else None for asked in ranges]
        whole = {each.source: None for each in wanted if each is not None and isinstance(each.source, str)}
        reads = {each.source: None for each in wanted if each is not None and isinstance(each.source, Read)}
        bodies: dict[str | Read, bytes | Exception] = dict(self._read_files(list(whole), is_strict=is_strict).items())
        with closing(parallel_map(self._read, reads, weigh=lambda read: read.length_bytes)) as results:
            for read, body in results:
                if is_strict and isinstance(body, Exception):
                    raise body
                bodies[read] = body
        return [
            sizes[asked.name] if each is None else _cut(bodies[each.source], each)
            for asked, each in zip(ranges, wanted, strict=True)
        ]

    def get_file(
        self, rpath: str, lpath: Any, callback: Callback = DEFAULT_CALLBACK, outfile: IO[bytes] | None = None, **kwargs: Any
    ) -> None:
        """Copy one file; under its name it is whole, checked and on the disk, or what stood there still does."""
        size_bytes = self.info(rpath)["size"]
        callback.set_size(size_bytes)
        sink = lpath if outfile is None and isfilelike(lpath) else outfile
        if sink is None:
            self._place_files([(rpath, os.fspath(lpath))])
        else:
            with self.open(rpath, "rb") as file:
                shutil.copyfileobj(file, sink, LARGE_BYTES)
        callback.relative_update(size_bytes)

    def get(
        self,
        rpath: Any,
        lpath: Any,
        recursive: bool = False,
        callback: Callback = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Copy files, or a tree with `recursive`, under the names that fsspec gives them; a tree as `Version.download` does."""
        rpath, lpath = stringify_path(rpath), stringify_path(lpath)
        if recursive and maxdepth is None and isinstance(rpath, str) and isinstance(lpath, str) and self.isdir(rpath):
            self._download(rpath, make_path_posix(lpath), callback)
            return
        plan = GetPlan(self)
        AbstractFileSystem.get(plan, rpath, lpath, recursive=recursive, maxdepth=maxdepth, **kwargs)
        callback.set_size(len(plan.pairs))
        self._place_files(plan.pairs, os.path.abspath(make_path_posix(lpath)) if isinstance(lpath, str) else None)
        callback.relative_update(len(plan.pairs))

    def _download(self, path: str, target: str, callback: Callback) -> None:
        version, place, name = self._locate(path)
        if (trailing_sep(target) or os.path.isdir(target)) and not trailing_sep(path):
            target = f"{target.rstrip('/')}/{name.rpartition('/')[2]}"
        os.makedirs(target, exist_ok=True)
        files = version.download(target, place, show_progress=False).files
        callback.set_size(files)
        callback.relative_update(files)

    def _place_files(self, pairs: Sequence[tuple[str, str]], root: str | None = None) -> None:
        by_version: dict[Version, list[Placing]] = {}
        for path, target in pairs:
            version, place, _ = self._locate(path)
            entry = _find_entry(version, place)
            if entry is None:
                make_directory(target, root)
            else:
                by_version.setdefault(version, []).append(Placing(entry, target))
        for version, wanted in by_version.items():
            place_files(version, wanted, root)

    def _expand_files(self, path: Any, recursive: bool) -> list[str]:
        """Return the files that are meant, without the directories among them.

        Raises:
            FileNotFoundError: a pattern or directory means none.
        """
        names: dict[str, None] = {}
        for one in map(self._strip_protocol, [path] if isinstance(path, str | os.PathLike) else path):
            found = [one]
            if has_magic(one):
                infos = self.glob(one, detail=True)
                found = [name for name, info in infos.items() if recursive or info["type"] == "file"]
            if recursive:
                found = [file for name in found for file in self.find(name)]
            if not found:
                raise FileNotFoundError(ENOENT, "there are no files", one)
            names.update(dict.fromkeys(found))
        return list(names)

    def _read_files(self, names: Sequence[str], *, is_strict: bool) -> dict[str, bytes | Exception]:
        found: dict[str, bytes | Exception] = {}
        by_version: dict[Version, dict[str, list[str]]] = {}
        for name in names:
            try:
                version, place, _ = self._locate(name)
            except VdsError as err:
                if is_strict:
                    raise
                found[name] = err
            else:
                by_version.setdefault(version, {}).setdefault(place, []).append(name)
        for version, wanted in by_version.items():
            for place, body in read_files(version, list(wanted), is_strict=is_strict).items():
                found.update(dict.fromkeys(wanted[place], body))
        return found

    def _measure(self, names: Sequence[str], *, is_strict: bool) -> dict[str, int | Exception]:
        sizes: dict[str, int | Exception] = {}
        for name in dict.fromkeys(names):
            try:
                version, place, _ = self._locate(name)
                sizes[name] = version.entry(place).size_bytes
            except VdsError as err:
                if is_strict:
                    raise
                sizes[name] = err
        return sizes

    def _read(self, read: Read) -> tuple[Read, bytes | Exception]:
        try:
            return read, self.cat_file(read.name, read.offset_bytes, read.offset_bytes + read.length_bytes)
        except (VdsError, OSError) as err:
            return read, err

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        """Raise ReadOnlyError."""
        raise _read_only()

    mkdir = makedirs = rmdir = rm = rm_file = _rm = cp_file = copy = mv = _refuse
    put = put_file = pipe = pipe_file = touch = start_transaction = _refuse


def _read_only() -> ReadOnlyError:
    return ReadOnlyError(
        "the file system vds:// is read-only", hint="write with vds.connect().namespace(NAME).upload(DIR), or vds upload DIR NAME"
    )


def _find_entry(version: Version, place: str) -> Entry | None:
    """Return the file, or None when it is a directory.

    Raises:
        EntryNotFoundError: there is nothing.
    """
    if not place:
        return None
    try:
        return version.entry(place)
    except EntryNotFoundError:
        if version.exists(place):
            return None
        raise


def _top(name: str, place: str) -> str:
    """Return the name of the version's top."""
    return name[: len(name) - len(place)].rstrip("/")


def _cut(body: bytes | Exception, wanted: Slice) -> bytes | Exception:
    return body if isinstance(body, Exception) else body[wanted.start : wanted.stop]


def _info(name: str, entry: Entry | None) -> Info:
    if entry is None:
        return {"name": name, "size": 0, "type": "directory"}
    return {
        "name": name,
        "size": entry.size_bytes,
        "type": "file",
        "mtime": entry.modified_ns / 1e9,
        "mode": entry.mode,
        "digest": str(entry.digest),
    }
