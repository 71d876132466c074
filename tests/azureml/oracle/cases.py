"""What is done to the real SDK and to vds alike, and where the two are to differ, each with the reason.

A difference is written down with the field it is in (`blobs`, `local`, or a field of one step: `0.lines`). Both sides must then
really differ there, so that the list is never longer than it needs to be. The reasons are those of vds/azureml/README.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

A_TREE = {"src/a.txt": "a", "src/sub/b.txt": "b", "src/sub/deep/c.txt": "c"}

NORMAL_PATHS = "keys are normal paths in vds, and what is returned says where the files really are"
LOUD = "a wrong call raises one kind of error in vds, an error that says what to do"
TOLERANT = "vds takes any path-like object"
IDENTITY = "vds needs no key: it finds the identity of whoever runs it"
FILES_AND_DIRECTORIES = "a name is a file or a directory in vds, as on a disk; blobs can be both, and then cannot be downloaded"
REAL_ROOT = "relative_root is a directory in vds, no piece of text"


@dataclass(frozen=True)
class Step:
    """One call.

    Attributes:
        write: local files to write before it.
    """

    call: str
    arguments: dict[str, Any] = field(default_factory=dict)
    write: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Some calls in a directory with some files.

    Attributes:
        files: local files.
        steps: the calls.
        links: symlinks: path → what it points to.
        directories: empty directories.
        key: whether the datastore has a key.
        differences: field → why it differs.
    """

    name: str
    files: dict[str, str]
    steps: list[Step]
    links: dict[str, str] = field(default_factory=dict)
    directories: tuple[str, ...] = ()
    key: bool = True
    differences: dict[str, str] = field(default_factory=dict)


def upload(src_dir: Any = "src", write: dict[str, str] | None = None, **more: Any) -> Step:
    """Return an upload."""
    return Step("upload", {"src_dir": src_dir, **more}, write or {})


def files(listed: Any, write: dict[str, str] | None = None, **more: Any) -> Step:
    """Return an upload of files."""
    return Step("upload_files", {"files": listed, **more}, write or {})


def download(write: dict[str, str] | None = None, **more: Any) -> Step:
    """Return a download to `out`."""
    return Step("download", {"target_path": "out", **more}, write or {})


def chain(*calls: tuple[str, list[Any]]) -> Step:
    """Return calls on what the call before returned."""
    return Step("chain", {"calls": [list(call) for call in calls]})


FILLED = [upload(target_path="data"), upload(target_path="data2"), upload("one", target_path="other")]
FILLED_TREE = {**A_TREE, "one/x.txt": "x"}

UPLOADS = [
    Case("a tree", A_TREE, [upload(target_path="t")]),
    Case("to the root", A_TREE, [upload()]),
    Case("an empty target", A_TREE, [upload(target_path="")]),
    Case("a target of several segments", A_TREE, [upload(target_path="x/y/z")]),
    Case("a leading ./", A_TREE, [upload(target_path="./x")], differences={"0.returned": NORMAL_PATHS}),
    Case("a leading ../", A_TREE, [upload(target_path="../x/y")], differences={"0.returned": NORMAL_PATHS}),
    Case("a leading /", A_TREE, [upload(target_path="/x")], differences={"0.returned": NORMAL_PATHS}),
    Case("a trailing /", A_TREE, [upload(target_path="x/")], differences={"0.returned": NORMAL_PATHS}),
    Case("an inner ..", A_TREE, [upload(target_path="a/../b")], differences={"0.returned": NORMAL_PATHS, "blobs": NORMAL_PATHS}),
    Case("two slashes", A_TREE, [upload(target_path="a//b")], differences={"0.returned": NORMAL_PATHS, "blobs": NORMAL_PATHS}),
    Case(
        "a dot as the target", A_TREE, [upload(target_path=".")], differences={"0.returned": NORMAL_PATHS, "blobs": NORMAL_PATHS}
    ),
    Case("a source with a slash", A_TREE, [upload("src/", target_path="t")]),
    Case("a source with ./", A_TREE, [upload("./src", target_path="t")]),
    Case("the working directory", A_TREE, [upload(".", target_path="t")]),
    Case("a source below others", A_TREE, [upload("src/sub", target_path="t")]),
    Case("hidden files", {"src/.hidden": "h", "src/.git/config": "c"}, [upload()]),
    Case("an empty file", {"src/empty": "", "src/full": "f"}, [upload()]),
    Case("spaces and other letters", {"src/a b.txt": "1", "src/größe/é.txt": "2"}, [upload(target_path="Ä")]),
    Case("no files", {}, [upload()], directories=("src",)),
    Case("empty directories vanish", A_TREE, [upload()], directories=("src/empty", "src/sub/empty")),
    Case("a symlink to a file", {**A_TREE, "elsewhere.txt": "e"}, [upload()], links={"src/link.txt": "../elsewhere.txt"}),
    Case("a symlink to a directory", {**A_TREE, "else/e.txt": "e"}, [upload()], links={"src/link": "../else"}),
    Case("a broken symlink", A_TREE, [upload()], links={"src/broken": "nowhere"}),
    Case("no such source", {}, [upload("missing")]),
    Case("a source that is a file", {"a.txt": "a"}, [upload("a.txt")]),
    Case("an unknown keyword", A_TREE, [Step("upload", {"src_paths": ["src/a.txt"]})], differences={"0.error": LOUD}),
    Case("a pathlib source", A_TREE, [upload({"path": "src"})], differences={"0.error": TOLERANT, "blobs": TOLERANT}),
    Case("without progress", A_TREE, [upload(show_progress=False)]),
    Case("without a key", A_TREE, [upload()], key=False, differences={"0.error": IDENTITY, "blobs": IDENTITY}),
    Case("again", A_TREE, [upload(target_path="t"), upload(target_path="t")]),
    Case("again with a new file", A_TREE, [upload(target_path="t"), upload(target_path="t", write={"src/new.txt": "n"})]),
    Case("a changed file stays", A_TREE, [upload(), upload(write={"src/a.txt": "changed", "src/z.txt": "z"})]),
    Case("a changed file is replaced", A_TREE, [upload(), upload(overwrite=True, write={"src/a.txt": "changed"})]),
    Case("unchanged files with overwrite", A_TREE, [upload(overwrite=True), upload(overwrite=True)]),
    Case("others stay with overwrite", FILLED_TREE, [upload(target_path="t"), upload("one", target_path="t", overwrite=True)]),
    Case(
        "a file where a directory is",
        {"one/conf": "file", "two/conf/a": "in it"},
        [upload("one"), upload("two")],
        differences={"1.error": FILES_AND_DIRECTORIES, "1.lines": FILES_AND_DIRECTORIES, "blobs": FILES_AND_DIRECTORIES},
    ),
]

FILES = [
    Case("files of one directory", A_TREE, [files(["src/a.txt", "src/sub/b.txt"], target_path="t")]),
    Case("one file", A_TREE, [files(["src/sub/b.txt"], target_path="t")]),
    Case("files with nothing in common", FILLED_TREE, [files(["src/a.txt", "one/x.txt"], target_path="t")]),
    Case("one name in two directories", {"p/d1/f": "1", "p/d2/f": "2"}, [files(["p/d1/f", "p/d2/f"], target_path="t")]),
    Case("files of deeper directories", A_TREE, [files(["src/sub/b.txt", "src/sub/deep/c.txt"])]),
    Case("no files at all", {}, [files([])]),
    Case("a bare name", {"bare.txt": "b"}, [files(["bare.txt"], target_path="t")]),
    Case("two bare names", {"bare.txt": "b", "c.txt": "c"}, [files(["c.txt", "bare.txt"], target_path="t")]),
    Case("a relative_root", A_TREE, [files(["src/sub/b.txt"], relative_root="src", target_path="t")]),
    Case("a relative_root of /", A_TREE, [files(["src/sub/b.txt"], relative_root="/", target_path="t")]),
    Case("a relative_root that is no part", A_TREE, [files(["src/sub/b.txt"], relative_root="zzz")]),
    Case(
        "a relative_root that is a piece of text",
        A_TREE,
        [files(["src/sub/b.txt"], relative_root="sub", target_path="t")],
        differences={"0.error": REAL_ROOT, "0.lines": REAL_ROOT, "blobs": REAL_ROOT},
    ),
    Case("absolute files", A_TREE, [files({"absolute": ["src/a.txt", "src/sub/b.txt"]}, target_path="t", show_progress=False)]),
    Case("a missing file", A_TREE, [files(["src/a.txt", "src/none"])]),
    Case("a directory among files", A_TREE, [files(["src/a.txt", "src/sub"])]),
    Case("files again", A_TREE, [files(["src/a.txt"]), files(["src/a.txt", "src/sub/b.txt"], relative_root="src")]),
    Case("files with overwrite", A_TREE, [files(["src/a.txt"]), files(["src/a.txt"], overwrite=True, write={"src/a.txt": "n"})]),
    Case("files without a key", A_TREE, [files(["src/a.txt"])], key=False),
    Case("files without progress", A_TREE, [files(["src/a.txt"], show_progress=False)]),
]

DOWNLOADS = [
    Case("everything", FILLED_TREE, [*FILLED, download()]),
    Case("a directory", FILLED_TREE, [*FILLED, download(prefix="other")]),
    Case("a directory with a slash", FILLED_TREE, [*FILLED, download(prefix="data/")]),
    Case("a prefix of two directories", FILLED_TREE, [*FILLED, download(prefix="data")]),
    Case("a piece of a name", FILLED_TREE, [*FILLED, download(prefix="data/su")]),
    Case("a file", FILLED_TREE, [*FILLED, download(prefix="data/a.txt")]),
    Case("nothing matches", FILLED_TREE, [*FILLED, download(prefix="none")]),
    Case("an empty datastore", {}, [download()]),
    Case("a file that is there stays", FILLED_TREE, [*FILLED, download(prefix="data/", write={"out/data/a.txt": "mine"})]),
    Case(
        "a file that is there is replaced",
        FILLED_TREE,
        [*FILLED, download(prefix="data/", overwrite=True, write={"out/data/a.txt": "mine"})],
    ),
    Case("a second download", FILLED_TREE, [*FILLED, download(), download()]),
    Case("a download without progress", FILLED_TREE, [*FILLED, download(show_progress=False)]),
    Case("into a directory below others", A_TREE, [upload(), Step("download", {"target_path": "out/x/y"})]),
]

REFERENCES = [
    Case("the datastore in words", {}, [Step("repr")]),
    Case("the root", {}, [chain(("path", [path])) for path in (None, "/", ".", "./")]),
    Case("a path", {}, [chain(("path", ["x/y"])), chain(("path", ["x", "name"])), chain(("path", [None, "name"]))]),
    Case("a path of a path", {}, [chain(("path", ["x"]), ("path", ["y", "n"])), chain(("path", ["x", "n"]), ("path", ["."]))]),
    Case("modes", {}, [chain((mode, [])) for mode in ("as_mount", "as_download", "as_upload")]),
    Case("modes of a path", {}, [chain(("path", ["x", "n"]), ("as_download", ["/there", True])), chain(("as_upload", ["/u"]))]),
    Case("a reference", {}, [Step("reference", {"data_reference_name": "n", "path_on_datastore": "p", "overwrite": True})]),
    Case("a reference without a name", {}, [Step("reference", {"path_on_datastore": "p"}), Step("reference", {})]),
    Case("a mode that is none", {}, [Step("reference", {"mode": "magic"})]),
]

CASES = [*UPLOADS, *FILES, *DOWNLOADS, *REFERENCES]
