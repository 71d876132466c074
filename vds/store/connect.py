"""Open a store: which container, and which index serves it."""

from __future__ import annotations

import atexit
import base64
import json
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from vds.blobs.driver import BlobDriver
from vds.blobs.open import open_driver
from vds.blobs.outside import RoutedDriver
from vds.config import data_directory, find_store_settings, is_network_file_system
from vds.engine.doors import Doors
from vds.errors import FormatError, InvalidInputError, UnavailableError
from vds.index.database import Database
from vds.index.login import find_token_login
from vds.model.access import Access
from vds.model.format import FORMAT_PREFIX, FormatRecord
from vds.ops.grants import Grants, plan_grants
from vds.ops.open import EMBEDDED, create_store, find_format, not_a_store, open_doors, other_index
from vds.ops.rebuilding import RebuildReport
from vds.progress import open_progress
from vds.store.handle import Address, Handle, find_handle, keep_handle
from vds.store.kept import find_offline
from vds.store.run import Run
from vds.store.store import Store
from vds.store.transaction import TOKEN_PREFIX, Transaction
from vds.store.version import Version

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
        credential: a TokenCredential, key, SAS or connection string. None: AZURE_* variables, else DefaultAzureCredential. Where
            no password is given for an index in Azure Database for PostgreSQL, a TokenCredential opens it too; without one,
            DefaultAzureCredential does.

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
    blobs = RoutedDriver(open_driver(settings.url, credential))
    try:
        record = find_format(blobs, read_only=read_only)
        if record is None:
            if not create:
                raise not_a_store(blobs.url)
            record = _create(blobs, settings.index, credential)
        doors = _open(blobs, record, settings.index, read_only=read_only, credential=credential)
    except UnavailableError as err:
        # What is pickled holds no password; here the store is opened again as it was to be opened now.
        own = partial(_open_for_reading, settings.url, settings.index, credential)
        handle = None if create else find_offline(Address(blobs.url, _public(settings.index), True), reopen, own)
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
    except (ValueError, KeyError, TypeError, RecursionError) as err:  # binascii's error is a ValueError
        raise InvalidInputError("this is not a transaction token", hint="pass tx.token, or what vds tx begin printed") from err
    return Transaction.joined(find_handle(address, reopen), upload)


def run(
    name: str,
    *,
    inputs: Iterable[Version | str] | Mapping[str, Version | str] = (),
    params: Mapping[str, object] | None = None,
    store: Store | str | os.PathLike[str] | None = None,
) -> Run:
    """Begin a run in a store: an open one, one by its url, or the one that `connect` finds; see `Store.run`.

    Raises:
        NotFoundError: no store is configured, or there is no such input.
    """
    opened = store if isinstance(store, Store) else connect(store)
    return opened.run(name, inputs=inputs, params=params)


def upgrade_index(
    url: str | os.PathLike[str] | None = None, *, index: str | None = None, credential: object = None
) -> tuple[str | None, str]:
    """Bring a store's index to this program's tables and return (revision before, revision after); idempotent.

    Raises:
        FormatError: the index is newer than this program.
        NotFoundError: the container is not a store.
        AccessDeniedError: the role is not the owner of the tables; the hint says what is to be run.
    """
    from vds.index.migrate import upgrade  # here, since alembic takes a quarter of every start-up

    settings = find_store_settings(None if url is None else os.fspath(url), index)
    blobs = RoutedDriver(open_driver(settings.url, credential))
    record = find_format(blobs, read_only=False)
    if record is None:
        raise not_a_store(blobs.url)
    database = _find_index(blobs, record, settings.index, read_only=False, credential=credential)
    try:
        return upgrade(database)
    finally:
        database.close()


def rebuild_index(
    url: str | os.PathLike[str] | None = None,
    *,
    index: str | None = None,
    credential: object = None,
    show_progress: bool = True,
) -> RebuildReport:
    """Make a store's index anew from its container alone, and return what was made and what was missing.

    No version changes. Whoever writes or collects through the old index is refused from then on; who reads goes on until the new
    one is whole. A rebuild that was interrupted is begun again.

    Args:
        url: of the container; as `connect`.
        index: where the new index is to be: a SQLAlchemy url, or `embedded`. None: VDS_INDEX, the settings, else where the store
            says it is; a file that is not there must be named, as who may write to the container may write any name there. The
            damaged file of a SQLite index is moved aside, not deleted.
        credential: as `connect`.
        show_progress: show progress on stderr.

    Raises:
        NotFoundError: the container is not a store.
        FormatError: the index, or something in the container, is newer than this program; or the store names an index that must
            be given with `index`.
        ConflictError: another rebuild was begun after this one.
        InvalidInputError: `index` names a file that is no index.
        UnavailableError: the container or the database does not answer; the store needs another rebuild then.
    """
    from vds.ops.rebuild import NewIndex, rebuild  # here, since it needs alembic: a quarter of every start-up

    settings = find_store_settings(None if url is None else os.fspath(url), index)
    blobs = RoutedDriver(open_driver(settings.url, credential))
    record = find_format(blobs, read_only=False)
    if record is None:
        raise not_a_store(blobs.url)
    chosen = settings.index or record.index
    is_embedded = chosen == EMBEDDED
    if is_embedded:
        database = Database(_embedded_path(blobs, record.store))
    else:
        database = _database(chosen, read_only=False, credential=credential)
        if settings.index is None:
            _check_recorded(database, chosen)
    new = NewIndex(database, chosen if is_embedded else database.address, socket.gethostname() if is_embedded else "")
    try:
        with open_progress(show_progress, "rebuild the index") as progress:
            return rebuild(blobs, record, new, progress)
    finally:
        database.close()


def find_grants(
    access: Access, role: str, url: str | os.PathLike[str] | None = None, *, index: str | None = None, credential: object = None
) -> Grants:
    """Return what gives a role its rights on a store and its index; the database is not asked.

    Raises:
        InvalidInputError: it is no name for a role.
        NotFoundError: no index was named, and the container, which then has to be read, is not a store.
    """
    settings = find_store_settings(None if url is None else os.fspath(url), index)
    named = settings.index
    blobs = RoutedDriver(open_driver(settings.url, credential))
    if named is None:
        record = find_format(blobs, read_only=True)
        if record is None:
            raise not_a_store(blobs.url)
        named = record.index
    return plan_grants(access, role, blobs.url, named)


def reopen(address: Address) -> Doors:
    """Open the doors of a store whose address travelled without its secrets: they are found as `connect` finds them."""
    blobs = RoutedDriver(open_driver(address.url))
    record = find_format(blobs, read_only=address.read_only)
    if record is None:
        raise not_a_store(address.url)
    own = os.environ.get("VDS_INDEX")
    is_same = own not in (None, EMBEDDED) and Database(str(own)).address == address.index
    return _open(blobs, record, own if is_same else address.index, read_only=address.read_only)


def _open_for_reading(url: str, index: str | None, credential: object) -> Doors:
    blobs = RoutedDriver(open_driver(url, credential))
    record = find_format(blobs, read_only=True)
    if record is None:
        raise not_a_store(blobs.url)
    return _open(blobs, record, index, read_only=True, credential=credential)


def _public(setting: str | None) -> str:
    """Return an index as a store would name it; empty where none is set."""
    return setting or "" if setting in (None, EMBEDDED) else Database(str(setting)).address


def _open(blobs: BlobDriver, record: FormatRecord, setting: str | None, *, read_only: bool, credential: object = None) -> Doors:
    index = _find_index(blobs, record, setting, read_only=read_only, credential=credential)
    return open_doors(blobs, index, record, _recorded(index, record, setting), read_only=read_only)


def _recorded(index: Database, record: FormatRecord, setting: str | None = None) -> str:
    """Return how a store would name this index."""
    if setting in (None, EMBEDDED) and record.index == EMBEDDED:
        return EMBEDDED
    return EMBEDDED if setting == EMBEDDED else index.address


def _create(blobs: BlobDriver, setting: str | None, credential: object) -> FormatRecord:
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
    database = _database(str(setting), read_only=False, credential=credential)
    return create_store(blobs, lambda _: database, database.address)


def _find_index(
    blobs: BlobDriver, record: FormatRecord, setting: str | None, *, read_only: bool, credential: object = None
) -> Database:
    """Return the database that the setting, or else the store, names."""
    if setting == EMBEDDED and record.index != EMBEDDED:
        raise other_index(record, EMBEDDED)
    chosen = setting or record.index
    if chosen != EMBEDDED:
        database = _database(chosen, read_only=read_only, credential=credential)
        return database if setting else _check_recorded(database, chosen)
    path = _embedded_path(blobs, record.store)
    if not path.exists():
        raise FormatError(
            f"the store's embedded index is not on this machine: no {path}"
            + (f" (the store was made on host {record.host!r})" if record.host else ""),
            hint="open the store on the machine that holds its index, or bring that file here",
        )
    return Database(path, read_only=read_only)


def _check_recorded(database: Database, recorded: str) -> Database:
    """Return the database that a store names, if it can be the store's: who may write to the container may write any name there.

    Raises:
        FormatError: vds never wrote it so (with a user, a file of passwords), or it is a file that would be made by being opened.
    """
    hint = "pass the index that serves the store, with --index or VDS_INDEX, or make it anew: vds index rebuild"
    if database.address != recorded:
        raise FormatError(f"the store names its index as {recorded!r}, which no vds writes", hint=hint)
    if database.is_sqlite and not database.path.exists():
        raise FormatError(f"the store's index is not on this machine: no {database.path}", hint=hint)
    return database


def _database(url: str, *, read_only: bool, credential: object) -> Database:
    def ask(scope: str) -> str:
        from vds.blobs.entra import ask_token  # here, since the Azure SDK takes half a second to load

        return ask_token(credential, scope)

    database = Database(url, read_only=read_only, login=find_token_login(url, ask, os.environ))
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
