"""Find the store to use, and the places on this machine where vds keeps things.

Guarantees:
- a store is never guessed: what is not said on the call, in VDS_STORE or in a settings file is a NotFoundError;
- settings files hold addresses, never secrets: one with a password in it is refused, and none is written.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vds.errors import ConflictError, InvalidInputError, NotFoundError, redact
from vds.model.retention import Retention
from vds.model.size import parse_size

SETTINGS_NAME = "vds.toml"

_DRIVE = re.compile(r"[A-Za-z]:")
_RELATIVE_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)(?!/|:memory:|[A-Za-z]:|file:|\?|$)(.+)")
# As far as the last @ before the path. In the url of a database a password may also hold a /, as SQLAlchemy reads it.
_USERINFO_PASSWORDS = (
    re.compile(r"(\b[A-Za-z][A-Za-z0-9+.-]*://[^/\s:@]*):[^/?#]*(?=@)"),
    re.compile(r"(\bpostgres[\w+]*://[^/\s:@]*):[^@]*(?=@)"),
)
_SECRET_PARAMETER = re.compile(r"(?i)[?&][\w-]*(?:sig|password|passwd|pwd|secret|token)=")
_CACHE_BYTES_MAX = 50 * 1000**3
_CACHE_DISK_PARTS = 5
_INIT_HINT = "vds init URL writes ./vds.toml; or pass --store URL, or set VDS_STORE"
_KEEP_OUT_HINT = (
    "keep the address here and give the secret in the environment: AZURE_STORAGE_SAS_TOKEN or AZURE_STORAGE_CONNECTION_STRING "
    "for the container, VDS_INDEX or PGPASSWORD for the index"
)


class NoStoreError(NotFoundError):
    """No store is named anywhere: not on the call, not in VDS_STORE, not in a settings file."""


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Which store to open.

    Attributes:
        url: a location, never a name; it may carry a signature.
        index: a SQLAlchemy URL, perhaps with a password, `embedded`, or None: what the store itself names.
        source: where the url was found, for people.
    """

    url: str = field(repr=False)
    index: str | None = field(repr=False)
    source: str


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    default: tuple[str, str | None] | None = None
    named: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)


def is_location(text: str) -> bool:
    """Return whether `text` says where a store is; a bare word is a name instead."""
    return "://" in text or "/" in text or "\\" in text or text[:1] in (".", "~") or _DRIVE.match(text) is not None


def find_store_settings(
    name_or_url: str | None = None,
    index: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> StoreSettings:
    """Return the store to use: what is passed, else VDS_STORE, else the nearest vds.toml, else the user's settings.

    The index is what is passed, else VDS_INDEX, else what stands beside the url that was chosen, else None.

    Raises:
        NoStoreError: no store is named anywhere.
        NotFoundError: a bare word is no configured name.
        InvalidInputError: VDS_STORE is empty; a settings file does not parse, has an unknown key, or holds a secret.
    """
    environ = os.environ if environ is None else environ
    index = index or environ.get("VDS_INDEX") or None
    said, source = (name_or_url, "the call") if name_or_url is not None else (environ.get("VDS_STORE"), "VDS_STORE")
    if said is not None and is_location(said):
        return StoreSettings(said, index, source)  # no file is read: a broken one is no obstacle to who needs none
    files = _read_files(environ, Path.cwd() if cwd is None else cwd)
    if said is not None:
        return _named(said, index, source, files)
    for file in files:
        if file.default is not None:
            url, own_index = file.default
            index = index or own_index
            return StoreSettings(url, index, str(file.path)) if is_location(url) else _named(url, index, str(file.path), files)
    raise NoStoreError("no store is configured", hint=_INIT_HINT)


def _named(text: str, index: str | None, source: str, files: list[_File]) -> StoreSettings:
    if not text:
        # An empty variable is mostly one whose template was not filled in: never fall through to another store.
        raise InvalidInputError(f"the store given by {source} is empty", hint=_INIT_HINT)
    for file in files:
        if text in file.named:
            url, own_index = file.named[text]
            return StoreSettings(url, index or own_index, f"{source} ({text!r} in {file.path})")
    known = sorted({name for file in files for name in file.named})
    raise NotFoundError(
        f"{text!r} (from {source}) is no location and no configured store; configured: {', '.join(known) or 'none'}",
        hint="give a location (it has '://' or a '/', or begins with '.' or '~'), or add [stores.NAME] to vds.toml",
    )


def _read_files(environ: Mapping[str, str], cwd: Path) -> list[_File]:
    return [_read(path) for path in _settings_files(environ, cwd)]


def _settings_files(environ: Mapping[str, str], cwd: Path) -> list[Path]:
    paths = [find_settings_file(cwd), user_settings_file(environ)]
    return [path for path in dict.fromkeys(paths) if path is not None and path.is_file()]


def find_expire_policies(
    *, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> tuple[str, list[tuple[str, Retention]]]:
    """Return the settings file that says which versions to keep, and its policies: patterns of namespaces, in their order.

        [expire."runs/*"]
        keep-last = 5
        keep-within = "30d"

    The nearest vds.toml counts if it has such tables, else the user's settings; ("", []) when neither has.

    Raises:
        InvalidInputError: a file does not parse, or a table is no policy.
    """
    environ = os.environ if environ is None else environ
    for path in _settings_files(environ, Path.cwd() if cwd is None else cwd):
        tables = _parse(path).get("expire")
        if tables is None:
            continue
        if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
            raise InvalidInputError(f"{path}: expire must hold tables", hint='[expire."runs/*"]\nkeep-last = 5')
        return str(path), [(name, Retention.parse(table, f"{path}: expire.{name}")) for name, table in tables.items()]
    return "", []


def find_settings_file(cwd: Path, name: str = SETTINGS_NAME) -> Path | None:
    """Return the nearest vds.toml (or other file) at or above `cwd`; the search ends at a repository's root or another disk."""
    directory = cwd.resolve()
    while True:
        if (directory / name).is_file():
            return directory / name
        parent = directory.parent
        if (directory / ".git").exists() or parent == directory or parent.stat().st_dev != directory.stat().st_dev:
            return None
        directory = parent


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as err:  # not UTF-8, not TOML, a number of too many digits
        raise InvalidInputError(f"{path} is not TOML: {err}", hint='write store = "URL"') from err


def _read(path: Path) -> _File:
    raw = _parse(path)
    raw.pop("expire", None)  # see find_expire_policies
    stores = raw.pop("stores", {})
    if not isinstance(stores, dict) or not all(isinstance(entry, dict) for entry in stores.values()):
        raise InvalidInputError(f"{path}: stores must hold tables", hint='[stores.prod]\nurl = "az://data@account"')
    named = {name: _pair(path, f"stores.{name}.", entry, "url") for name, entry in stores.items()}
    default = _pair(path, "", raw, "store") if raw else None
    return _File(path, default, named)


def _pair(path: Path, where: str, entry: Mapping[str, object], url_key: str) -> tuple[str, str | None]:
    for key, value in entry.items():
        if key not in (url_key, "index"):
            raise InvalidInputError(f"{path}: unknown key {where + key!r}", hint=f"known here: {where}{url_key}, {where}index")
        if not isinstance(value, str) or not value:
            raise InvalidInputError(f"{path}: {where + key!r} must be text, not {value!r}")
        if without_secret(value) != value or redact(value) != value:
            raise InvalidInputError(f"{path}: {where + key!r} holds a secret; settings files hold none", hint=_KEEP_OUT_HINT)
    if url_key not in entry:
        raise InvalidInputError(f"{path}: {where + url_key!r} is missing", hint=f'add {url_key} = "URL"')
    index = entry.get("index")
    return _anchored(path.parent, str(entry[url_key])), None if index is None else _anchored(path.parent, str(index))


def _anchored(directory: Path, text: str) -> str:
    # A relative place in a file means one beside the file; read from the cwd it would be another store in each directory.
    if match := _RELATIVE_SQLITE.fullmatch(text):
        return match.group(1) + (directory / match.group(2)).as_posix()
    if "://" in text or not is_location(text) or text.startswith("~") or _DRIVE.match(text):
        return text
    return os.path.normpath(directory / text)


def without_secret(text: str) -> str:
    """Return an address without its password, and without its query where that carries a secret."""
    for password in _USERINFO_PASSWORDS:
        text = password.sub(r"\1", text)
    return text.partition("?")[0] if _SECRET_PARAMETER.search(text) else text


def plan_store_settings(
    url: str, index: str | None, user: bool = False, *, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> tuple[Path, str | None]:
    """Return the settings file that `write_store_settings` would write and its text; None when it says so already.

    Raises:
        ConflictError: the file is there and names another store or index.
        InvalidInputError: the file is there and cannot be read.
    """
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    path = user_settings_file(environ) if user else cwd / SETTINGS_NAME
    if not is_location(url):
        raise InvalidInputError(f"{url!r} is a name, not a location", hint="give a URL or a path, for example ./store")
    url = without_secret(url)
    index = None if index is None else without_secret(index)
    if user:  # beside the user's file a relative place would mean another one
        url, index = _anchored(cwd, url), None if index is None else _anchored(cwd, index)
    if not path.exists():
        lines = [f"store = {_toml(url)}"] + ([] if index is None else [f"index = {_toml(index)}"])
        return path, "\n".join(lines) + "\n"
    wanted = (_anchored(path.parent, url), None if index is None else _anchored(path.parent, index))
    if _read(path).default == wanted:
        return path, None
    raise ConflictError(f"{path} is there already and names another store or index", hint="edit it, or remove it and run again")


def write_store_settings(
    url: str, index: str | None, user: bool = False, *, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Path:
    """Write ./vds.toml, or the user's settings; the addresses only, without password or signature. Idempotent.

    Raises:
        ConflictError: the file is there with other content; it is left as it is.
    """
    path, text = plan_store_settings(url, index, user, environ=environ, cwd=cwd)
    if text is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(path, "x", encoding="utf-8", newline="\n") as file:
                file.write(text)
        except FileExistsError as err:
            raise ConflictError(f"{path} was written by someone else just now", hint="look at it and run again") from err
    return path


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # a JSON string is a TOML basic string


def user_settings_file(environ: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path:
    """Return the user's settings file, there or not: XDG_CONFIG_HOME, APPDATA or Library/Application Support."""
    environ = os.environ if environ is None else environ
    return _user_directory(environ, platform, "XDG_CONFIG_HOME", ".config", "APPDATA", "Roaming") / "vds" / "config.toml"


def data_directory(environ: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path:
    """Return the directory of embedded indexes, there or not: XDG_DATA_HOME, LOCALAPPDATA or Library/Application Support."""
    environ = os.environ if environ is None else environ
    return _user_directory(environ, platform, "XDG_DATA_HOME", ".local/share", "LOCALAPPDATA", "Local") / "vds"


def cache_directory(environ: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path | None:
    """Return the directory of what can be lost without harm, there or not; None for a user without a home directory.

    VDS_CACHE, else XDG_CACHE_HOME, LOCALAPPDATA or Library/Caches.
    """
    environ = os.environ if environ is None else environ
    if environ.get("VDS_CACHE"):
        return Path(os.path.abspath(environ["VDS_CACHE"]))
    try:
        if platform == "darwin" and not os.path.isabs(environ.get("XDG_CACHE_HOME", "")):
            return _home(environ) / "Library" / "Caches" / "vds"
        directory = _user_directory(environ, platform, "XDG_CACHE_HOME", ".cache", "LOCALAPPDATA", "Local") / "vds"
    except InvalidInputError:
        return None
    return directory / "cache" if platform == "win32" else directory  # on Windows the embedded indexes are in LOCALAPPDATA too


def cache_bytes_max(root: Path, environ: Mapping[str, str] | None = None) -> int:
    """Return how much the cache at `root` may hold: VDS_CACHE_MAX, else 50 GB or a fifth of its disk, whichever is less.

    Raises:
        InvalidInputError: VDS_CACHE_MAX is no size.
    """
    environ = os.environ if environ is None else environ
    if said := environ.get("VDS_CACHE_MAX"):
        return parse_size(said, "VDS_CACHE_MAX")
    while not os.path.exists(root) and root != root.parent:  # or it is out of this user's reach
        root = root.parent
    return min(_CACHE_BYTES_MAX, shutil.disk_usage(root).total // _CACHE_DISK_PARTS)


def _user_directory(
    environ: Mapping[str, str], platform: str, xdg: str, xdg_default: str, windows: str, windows_default: str
) -> Path:
    if os.path.isabs(environ.get(xdg, "")):  # the XDG specification: a relative one is to be ignored
        return Path(environ[xdg])
    home = _home(environ)
    if platform == "win32":
        return Path(environ[windows]) if environ.get(windows) else home / "AppData" / windows_default
    if platform == "darwin":
        return home / "Library" / "Application Support"
    return home / xdg_default


def _home(environ: Mapping[str, str]) -> Path:
    try:
        return Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    except RuntimeError as err:  # a container's user without an entry in /etc/passwd
        raise InvalidInputError("this user has no home directory", hint="set HOME, or XDG_DATA_HOME and XDG_CONFIG_HOME") from err


_NETWORK_TYPES = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "smb2", "afpfs", "webdav", "davfs", "ncpfs", "lustre", "ceph", "9p", "glusterfs"),
    *("beegfs", "gpfs", "afs", "coda", "ocfs2", "gfs2", "pvfs2", "orangefs", "panfs", "wekafs", "virtiofs", "vboxsf", "fuse"),
    *("macfuse", "osxfuse"),
}
# Any other file system of user space is taken for a remote one: most are (sshfs, blobfuse, s3fs, rclone, gcsfuse …).
_LOCAL_FUSE = {f"fuse.{name}" for name in ("fuse-overlayfs", "mergerfs", "gocryptfs", "encfs", "bindfs", "ntfs-3g", "lxcfs")}


def is_network_file_system(path: str | os.PathLike[str]) -> str | None:
    """Return the type of the network file system that `path` (there or not) lies on, or None when it is a local disk.

    SQLite's locks do not hold on a network file system, so an embedded index there would be damaged.
    """
    text = os.path.realpath(path)
    if sys.platform == "win32":
        return _windows_network_type(text)
    if sys.platform == "darwin":
        listing = subprocess.run(["/sbin/mount"], capture_output=True, text=True, errors="replace", check=False)
        return network_type(text, parse_mount_output(listing.stdout))
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return network_type(text, parse_mountinfo(file.read()))
    except OSError:  # another Unix, or /proc is hidden: nothing is known against it
        return None


def parse_mountinfo(text: str) -> list[tuple[str, str]]:
    """Return (mount point, type) of each line of Linux's /proc/self/mountinfo, in its order.

    Source: proc_pid_mountinfo(5): the fifth field is the mount point, with octal escapes; the type follows " - ".
    """
    found = []
    for line in text.splitlines():
        head, separator, tail = line.partition(" - ")
        fields, tail_fields = head.split(" "), tail.split(" ")
        if separator and len(fields) >= 5:
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), fields[4])
            found.append((point, tail_fields[0]))
    return found


def parse_mount_output(text: str) -> list[tuple[str, str]]:
    """Return (mount point, type) of each line that macOS's `mount` prints: `SOURCE on POINT (TYPE, options)`."""
    return [(match[1], match[2]) for match in re.finditer(r"(?m)^.*? on (/.*) \(([^,)]+)[^()]*\)$", text)]


def network_type(path: str, mounts: list[tuple[str, str]]) -> str | None:
    """Return the type of the mount that holds `path` if it is one of a network; of two at one point the later hides the other."""
    best, found = -1, ""
    for point, kind in mounts:
        trimmed = point.rstrip("/")
        if len(trimmed) >= best and (path == trimmed or path.startswith(trimmed + "/")):
            best, found = len(trimmed), kind
    is_network = found in _NETWORK_TYPES or (found.startswith("fuse.") and found not in _LOCAL_FUSE)
    return found if is_network else None


def _windows_network_type(text: str) -> str | None:
    if (text.startswith("\\\\") and not text.startswith(("\\\\?\\", "\\\\.\\"))) or text.upper().startswith("\\\\?\\UNC\\"):
        return "unc"
    import ctypes  # only here: it is not needed anywhere else

    drive_remote = 4  # DRIVE_REMOTE of GetDriveTypeW
    get_drive_type = getattr(ctypes, "windll").kernel32.GetDriveTypeW  # noqa: B009  # the attribute exists on Windows alone
    return "remote drive" if get_drive_type(os.path.splitdrive(text)[0] + "\\") == drive_remote else None
