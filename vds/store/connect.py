"""Open a store: which container, and which index serves it."""

from __future__ import annotations

import atexit
import base64
import binascii
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from vds.blobs.driver import BlobDriver
from vds.blobs.open import open_driver
from vds.config import data_directory, find_store_settings, is_network_file_system
from vds.engine.doors import Doors
from vds.errors import FormatError, InvalidInputError, UnavailableError
from vds.index.database import Database
from vds.model.format import FORMAT_PREFIX, FormatRecord
from vds.ops.open import EMBEDDED, create_store, find_format, not_a_store, open_doors, other_index
from vds.store.handle import Address, Handle, find_handle, keep_handle
from vds.store.kept import find_offline
from vds.store.store import Store
from vds.store.transaction import TOKEN_PREFIX, Transaction

INDEX_PLACE = Path(".vds-index") / "index.sqlite"
"""Where a directory store keeps its embedded index; the directory driver lists no name that begins with a dot."""


_log = logging.getLogger(__name__)


def connect(
    url: str | os.PathLike[str] | None = None,
    *,
    index: str | None = None,
    create: bool = False,
    read_only: bool = False,
    credential: object = None,
) -> Store:
    """Open a store.

    Args:
        url: of the container (https, abfss, az, azurite, file, memory), a path, or a name in vds.toml. None: VDS_STORE, then
            the nearest vds.toml, then the user's settings; never a silent default.
        index: a SQLAlchemy url, or `embedded` for SQLite on this machine. None: VDS_INDEX, the settings, else what the store
            itself names.
        create: make the store if the container is not one yet; harmless if it is.
        read_only: promise to write nothing, in the container or in the index.
        credential: a TokenCredential, key, SAS or connection string. None: AZURE_* variables, else DefaultAzureCredential.

    Raises:
        NotFoundError: no store is configured, or the container is not one.
        InvalidInputError: the url does not parse, or another index than the store's own was given.
        FormatError: store or index need another version of vds, or the index is older than its store.
        AccessDeniedError: the credential was refused.
        UnavailableError: the container or the index does not answer, and this machine's cache has no version of the store. With
            one it opens all the same, for reading: pinned versions are found in the cache, anything else raises this then.
    """
    settings = find_store_settings(None if url is None else os.fspath(url), index)
    if create and read_only:
        raise InvalidInputError("create=True writes, read_only=True forbids it", hint="create the store first")
    blobs = open_driver(settings.url, credential)
    try:
        record = find_format(blobs, read_only=read_only)
        if record is None:
            if not create:
                raise not_a_store(blobs.url)
            record = _create(blobs, settings.index)
        doors = _open(blobs, record, settings.index, read_only=read_only)
    except UnavailableError as err:
        handle = None if create else find_offline(Address(blobs.url, settings.index or "", True), reopen)
        if handle is None:
            raise
        _log.warning("%s: only versions that this machine has kept can be read now", err.message)
        return Store(handle)
    address = Address(blobs.url, _recorded(doors.index, record), read_only)
    return Store(keep_handle(Handle(address, reopen, doors)))


def join(token: str) -> Transaction:
    """Join a transaction by its token, in any process and on any machine that reaches the store.

    Raises:
        InvalidInputError: it is not a token.
        NotFoundError: there is no such store or transaction.
    """
    try:
        raw = json.loads(base64.urlsafe_b64decode(str(token).removeprefix(TOKEN_PREFIX)))
        address, upload = Address(str(raw["url"]), str(raw["index"]), False), str(raw["upload"])
    except (ValueError, KeyError, TypeError, binascii.Error) as err:
        raise InvalidInputError("this is not a transaction token", hint="pass tx.token, or what vds tx begin printed") from err
    return Transaction.joined(find_handle(address, reopen), upload)


def upgrade_index(
    url: str | os.PathLike[str] | None = None, *, index: str | None = None, credential: object = None
) -> tuple[str | None, str]:
    """Bring a store's index to this program's tables and return (revision before, revision after); idempotent.

    Raises:
        FormatError: the index is newer than this program.
        NotFoundError: the container is not a store.
    """
    from vds.index.migrate import upgrade  # here, since alembic takes a quarter of every start-up

    settings = find_store_settings(None if url is None else os.fspath(url), index)
    blobs = open_driver(settings.url, credential)
    record = find_format(blobs, read_only=False)
    if record is None:
        raise not_a_store(blobs.url)
    database = _find_index(blobs, record, settings.index, read_only=False)
    try:
        return upgrade(database)
    finally:
        database.close()


def reopen(address: Address) -> Doors:
    """Open the doors of a store whose address travelled without its secrets: they are found as `connect` finds them."""
    blobs = open_driver(address.url)
    record = find_format(blobs, read_only=address.read_only)
    if record is None:
        raise not_a_store(address.url)
    own = os.environ.get("VDS_INDEX")
    is_same = own not in (None, EMBEDDED) and Database(str(own)).address == address.index
    return _open(blobs, record, own if is_same else address.index, read_only=address.read_only)


def _open(blobs: BlobDriver, record: FormatRecord, setting: str | None, *, read_only: bool) -> Doors:
    index = _find_index(blobs, record, setting, read_only=read_only)
    return open_doors(blobs, index, record, _recorded(index, record, setting), read_only=read_only)


def _recorded(index: Database, record: FormatRecord, setting: str | None = None) -> str:
    """Return how a store would name this index."""
    if setting in (None, EMBEDDED) and record.index == EMBEDDED:
        return EMBEDDED
    return EMBEDDED if setting == EMBEDDED else index.address


def _create(blobs: BlobDriver, setting: str | None) -> FormatRecord:
    if setting is None and not _is_private(blobs):
        raise InvalidInputError(
            f"{blobs.url} can be shared by many machines: say which index serves it",
            hint="--index postgresql://HOST/DATABASE for a team, --index embedded for this machine alone",
        )
    if blobs.url.startswith("file:") and not _is_empty(_directory(blobs)):
        made = find_format(blobs, read_only=False)
        if made is not None:
            return made  # by another process, a moment ago
        raise InvalidInputError(
            f"directory {str(_directory(blobs))!r} is not empty, and not a store", hint="name a new or empty directory"
        )
    make: Callable[[str], Database]
    if setting in (None, EMBEDDED):
        make = lambda uid: Database(_embedded_path(blobs, uid))  # noqa: E731 - two one-line makers side by side
        return create_store(blobs, make, EMBEDDED)
    database = _database(str(setting), read_only=False)
    return create_store(blobs, lambda _: database, database.address)


def _find_index(blobs: BlobDriver, record: FormatRecord, setting: str | None, *, read_only: bool) -> Database:
    """Return the database that the setting, or else the store, names."""
    if setting == EMBEDDED and record.index != EMBEDDED:
        raise other_index(record, EMBEDDED)
    chosen = setting or record.index
    if chosen != EMBEDDED:
        return _database(chosen, read_only=read_only)
    path = _embedded_path(blobs, record.store)
    if not path.exists():
        raise FormatError(
            f"the store's embedded index is not on this machine: no {path}"
            + (f" (the store was made on host {record.host!r})" if record.host else ""),
            hint="open the store on the machine that holds its index, or bring that file here",
        )
    return Database(path, read_only=read_only)


def _database(url: str, *, read_only: bool) -> Database:
    database = Database(url, read_only=read_only)
    if database.is_sqlite:
        _refuse_network(database.path.parent)
    return database


def _refuse_network(directory: Path) -> None:
    kind = is_network_file_system(directory)
    if kind is not None:
        raise InvalidInputError(
            f"a SQLite index cannot be kept on a network file system: {directory} is {kind}",
            hint="put it on a local disk, or use PostgreSQL: its locks do not hold over a network",
        )


def _embedded_path(blobs: BlobDriver, store_uid: str) -> Path:
    """Return where the embedded index of a store is: beside its blobs on a local disk, else in the user's data directory."""
    if blobs.url.startswith("file:"):
        root = _directory(blobs)
        if is_network_file_system(root) is None:
            return root / INDEX_PLACE
    if blobs.url.startswith("memory:"):
        return _scratch_directory() / f"{store_uid}.sqlite"
    directory = data_directory() / "stores"
    _refuse_network(directory)
    return directory / f"{store_uid}.sqlite"


def _is_private(blobs: BlobDriver) -> bool:
    return blobs.url.startswith(("file:", "memory:"))


def _directory(blobs: BlobDriver) -> Path:
    return Path(url2pathname(urlsplit(blobs.url).path))


def _is_empty(root: Path) -> bool:
    """Return whether nothing of anyone's is there; a maker that died may have left the directory of its format record."""
    left = root / FORMAT_PREFIX.rstrip("/")
    return not root.is_dir() or all(path.name.startswith(".") or (path == left and _is_bare(path)) for path in root.iterdir())


def _is_bare(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


_scratch: dict[int, Path] = {}


def _scratch_directory() -> Path:
    """Return this process's directory for the indexes of memory stores; it goes with the process."""
    pid = os.getpid()
    if pid not in _scratch:
        _scratch[pid] = Path(tempfile.mkdtemp(prefix="vds-memory-"))
        atexit.register(shutil.rmtree, _scratch[pid], ignore_errors=True)
    return _scratch[pid]
