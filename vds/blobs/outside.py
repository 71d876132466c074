"""Blobs of a store that lie outside of it: adopted ones, which others wrote, reached by keys below `adopted/`.

Guarantees:
- nothing is ever written to such a blob, and no DELETE is made for it, whoever asks;
- its bytes are handed out only while it has the etag that it was adopted with; else the error names it;
- what a record says of where blobs lie is believed as far as it can do no harm: no token or signature is sent to a host that is
  neither the store's own, nor one of Azure Storage, nor named by this process itself; files of this machine are read only for a
  store on this machine;
- records are kept in memory, a bounded number of them; they never change.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from vds.blobs.driver import Blob, BlobDriver, Block, Buffer
from vds.blobs.location import AzureLocation, DirectoryLocation, Location, MemoryLocation, parse_location
from vds.blobs.objects import DIGEST_METADATA, block_id, block_size_bytes, read_record
from vds.blobs.plain import container_url, is_named, named_credential, open_plain_driver
from vds.blobs.plaindriver import PlainBlob, PlainChangedError, PlainDriver
from vds.blobs.records import Gap, PlacedBlob, Stream
from vds.errors import AccessDeniedError, CorruptionError, InvalidInputError, NotFoundError
from vds.model.adoption import ADOPTED_PREFIX, AdoptedBlob, AdoptionRecord, adopted_key, is_record_key, split_key
from vds.model.content import Member
from vds.model.digest import Digest
from vds.pace import Pace
from vds.pipeline import parallel_map

RECORDS_KEPT = 256
"""About 100 KB each in memory."""

_AZURE_HOSTS = (
    *(".blob.core.windows.net", ".blob.core.chinacloudapi.cn", ".blob.core.usgovcloudapi.net", ".blob.core.cloudapi.de"),
    ".blob.storage.azure.net",
)
_MEND = "bring those bytes back: vds adopt a blob that has them, upload a file that has them, or vds fsck --repair-from DIR"


class AdoptedChangedError(CorruptionError):
    """An adopted blob is not what it was when it was adopted: others changed or deleted it."""

    kind = "adopted-changed"


@dataclass(frozen=True, slots=True)
class Outside:
    """An adopted blob, and where it lies.

    Attributes:
        container: the address of its container; never empty.
    """

    container: str
    blob: AdoptedBlob

    @property
    def place(self) -> str:
        """Name and container, for people."""
        return f"{self.blob.name!r} in {self.container!r}"


def read_adoption(driver: BlobDriver, key: str) -> AdoptionRecord:
    """Return a record of adopted blobs.

    Raises:
        CorruptionError: it is damaged or not there.
        FormatError: a newer vds wrote it.
    """
    try:
        return AdoptionRecord.decode(read_record(driver, key), key)
    except NotFoundError as err:
        raise CorruptionError(f"adoption record {key!r} is missing: nobody knows where its blobs lie", hint=_MEND) from err


def list_adoptions(driver: BlobDriver, keys: Sequence[str] | None = None) -> Stream[tuple[str, AdoptionRecord] | Gap]:
    """Yield the records of adopted blobs, each with its key, the newest first: what is in two of them lies where the newer says.

    Args:
        driver: of the store.
        keys: those to read; None for all.
    """

    def read(key: str) -> tuple[str, AdoptionRecord] | Gap:
        try:
            return key, read_adoption(driver, key)
        except CorruptionError as err:
            return Gap(key, "damaged", err.message)

    found = [blob.key for blob in driver.list_blobs(ADOPTED_PREFIX)] if keys is None else list(keys)
    return parallel_map(read, sorted(found, reverse=True))


def placed_blobs(key: str, record: AdoptionRecord) -> list[PlacedBlob]:
    """Return what stands for the blobs of a record, and what each of them holds."""
    return [
        PlacedBlob(adopted_key(key, number), one.size_bytes, one.etag, [Member(one.digest, 0, one.size_bytes)])
        for number, one in enumerate(record.blobs)
    ]


def home_of(driver: BlobDriver) -> Location:
    """Return where a store's own container is."""
    location = parse_location(driver.url)
    assert location is not None, driver.url
    return location


class RoutedDriver:
    """A store's driver that also reaches what was adopted; the contract is that of `vds.blobs.driver`, see the top else.

    Args:
        inner: of the store's own container.
    """

    def __init__(self, inner: BlobDriver) -> None:
        self.inner = inner
        self._records: OrderedDict[str, AdoptionRecord] = OrderedDict()
        self._drivers: dict[str, tuple[object, PlainDriver]] = {}

    def __repr__(self) -> str:
        return f"RoutedDriver({self.inner!r})"

    @property
    def url(self) -> str:
        """The address of the store's own container and prefix."""
        return self.inner.url

    @property
    def pace(self) -> Pace:
        """That of the store's own service."""
        return self.inner.pace

    def find_outside(self, key: str) -> Outside | None:
        """Return where an adopted blob lies; None for any other key.

        Raises:
            CorruptionError: its record is damaged or not there.
        """
        parts = split_key(key)
        if parts is None:
            return None
        record = self._record(parts[0])
        if parts[1] >= len(record.blobs):
            raise CorruptionError(f"adoption record {parts[0]!r} has no blob {parts[1]}", hint="run: vds fsck")
        return Outside(self.whole_place(record), record.blobs[parts[1]])

    def open_outside(self, container: str) -> PlainDriver:
        """Return the driver of a container that a record names.

        Raises:
            AccessDeniedError: it is one that this machine does not follow a record to.
        """
        given = named_credential(container)
        known = self._drivers.get(container)
        if known is None or known[0] is not given:
            location = parse_location(container)
            if location is None:
                raise CorruptionError(f"an adoption record names {container!r}, which is no container", hint="run: vds fsck")
            _check_allowed(home_of(self.inner), location, container)
            known = self._drivers[container] = (given, open_plain_driver(location, given, self.inner))
        return known[1]

    def whole_place(self, record: AdoptionRecord) -> str:
        """Return the address of the container that a record is about."""
        return record.container or container_url(home_of(self.inner))

    def look_outside(self, outside: Outside) -> PlainBlob | None:
        """Return what is there now under an adopted blob's name, or None."""
        try:
            return self.open_outside(outside.container).find_plain(outside.blob.name)
        except NotFoundError:  # the container went with it
            return None

    def create_container(self) -> None:
        """Make the store's own container."""
        self.inner.create_container()

    def put_if_absent(self, key: str, body: Buffer, metadata: Mapping[str, str] | None = None) -> str:
        """Store `body` in the store's own container."""
        return self.inner.put_if_absent(_own(key), body, metadata)

    def stage_block(self, key: str, block_id: str, body: Buffer) -> None:
        """Stage one block."""
        self.inner.stage_block(_own(key), block_id, body)

    def list_blocks(self, key: str) -> list[Block]:
        """Return the staged blocks of `key`."""
        return self.inner.list_blocks(_own(key))

    def commit_blocks(self, key: str, block_ids: Sequence[str], metadata: Mapping[str, str] | None = None) -> str:
        """Make a blob out of staged blocks."""
        return self.inner.commit_blocks(_own(key), block_ids, metadata)

    def find_blob(self, key: str) -> Blob | None:
        """Return what is there; of an adopted blob, size and etag as they are now. None also where its record is gone."""
        if not key.startswith(ADOPTED_PREFIX) or is_record_key(key):
            return self.inner.find_blob(key)
        try:
            outside = self.find_outside(key)
        except CorruptionError:
            return None
        found = self.look_outside(outside) if outside is not None else None
        return None if found is None else Blob(key, found.size_bytes, found.etag)

    def read_range(self, key: str, offset_bytes: int = 0, length_bytes: int | None = None) -> bytes:
        """Return a range; of an adopted blob as long as it is what was adopted.

        Raises:
            AdoptedChangedError: it is not any more.
        """
        outside = self.find_outside(key) if key.startswith(ADOPTED_PREFIX) else None
        if outside is None:
            return self.inner.read_range(key, offset_bytes, length_bytes)
        blob = outside.blob
        wanted_bytes = max(blob.size_bytes - offset_bytes, 0) if length_bytes is None else length_bytes
        if offset_bytes + wanted_bytes > blob.size_bytes:
            raise CorruptionError(
                f"plain blob {outside.place} has {blob.size_bytes} bytes: cannot read {offset_bytes} to"
                f" {offset_bytes + wanted_bytes}",
                hint="run: vds fsck",
            )
        driver = self.open_outside(outside.container)
        try:
            return driver.read_plain(blob.name, blob.etag, offset_bytes, wanted_bytes)
        except PlainChangedError:
            raise changed_error(outside, self.look_outside(outside)) from None
        except NotFoundError:
            raise changed_error(outside, None) from None

    def read_range_into(self, key: str, offset_bytes: int, target: memoryview) -> None:
        """Fill `target`; as `read_range`."""
        if key.startswith(ADOPTED_PREFIX):
            target[:] = self.read_range(key, offset_bytes, len(target))
        else:
            self.inner.read_range_into(key, offset_bytes, target)

    def list_blobs(self, prefix: str = "", start_after: str = "") -> Iterator[Blob]:
        """Yield the blobs of the store's own container; adopted ones are not among them, their records are."""
        return self.inner.list_blobs(prefix, start_after)

    def copy_blob(self, source_key: str, target_key: str) -> str:
        """Copy within the store's own container; an adopted blob is read and put, with its digest beside it."""
        outside = self.find_outside(source_key)
        if outside is None:
            return self.inner.copy_blob(source_key, target_key)
        size_bytes, ids = outside.blob.size_bytes, list[str]()
        step = block_size_bytes(size_bytes)
        for offset in range(0, size_bytes, step):
            ids.append(block_id(len(ids), "0" * 32))
            self.inner.stage_block(target_key, ids[-1], self.read_range(source_key, offset, min(step, size_bytes - offset)))
        metadata = {DIGEST_METADATA: str(Digest.from_raw(outside.blob.digest))}
        return self.inner.commit_blocks(target_key, ids, metadata)

    def delete_blob(self, key: str, etag: str | None = None) -> bool:
        """Delete a blob of the store's own; an adopted one stays, and no request is made for it."""
        return False if split_key(key) is not None else self.inner.delete_blob(key, etag)

    def sign_reads(self, blobs: Sequence[tuple[str, str]], *, starts_at: datetime, expires_at: datetime) -> list[str]:
        """Return urls that read these blobs; those of adopted ones read whatever is there when they are used."""
        urls: dict[int, str] = {}
        groups: dict[str, list[tuple[int, tuple[str, str]]]] = {}
        for number, (key, file_name) in enumerate(blobs):
            outside = self.find_outside(key)
            place, name = ("", key) if outside is None else (outside.container, outside.blob.name)
            groups.setdefault(place, []).append((number, (name, file_name)))
        for place, group in groups.items():
            driver = self.open_outside(place) if place else self.inner
            signed = driver.sign_reads([one for _, one in group], starts_at=starts_at, expires_at=expires_at)
            urls.update(zip((number for number, _ in group), signed, strict=True))
        return [urls[number] for number in range(len(blobs))]

    def find_principal(self) -> str | None:
        """Return who the store's own service takes us for."""
        return self.inner.find_principal()

    def close(self) -> None:
        """Let go of all connections; idempotent."""
        self.inner.close()
        for _, driver in list(self._drivers.values()):
            driver.close()

    def _record(self, key: str) -> AdoptionRecord:
        # One call is atomic in itself; where threads meet, a record is read twice, which is harmless.
        found = self._records.get(key)
        if found is None:
            found = self._records[key] = read_adoption(self.inner, key)
            while len(self._records) > RECORDS_KEPT:
                try:
                    self._records.popitem(last=False)
                except KeyError:
                    break
        return found


def _own(key: str) -> str:
    assert split_key(key) is None, key
    return key


def changed_error(outside: Outside, found: PlainBlob | None) -> AdoptedChangedError:
    """Return the error of an adopted blob that is not what was adopted."""
    if found is None:
        what = "was deleted since it was adopted"
    else:
        what = f"was changed since it was adopted: its etag is {found.etag!r}, adopted was {outside.blob.etag!r}"
    return AdoptedChangedError(f"plain blob {outside.place} {what}", hint=_MEND)


def unrouted(driver: BlobDriver) -> BlobDriver:
    """Return the driver of the store's own container alone."""
    return driver.inner if isinstance(driver, RoutedDriver) else driver


def _check_allowed(home: Location, location: Location, container: str) -> None:
    if is_named(container) or container_url(home) == container:
        return
    if isinstance(location, AzureLocation):
        if isinstance(home, AzureLocation) and home.account_url == location.account_url:
            return
        host = urlsplit(location.account_url).hostname or ""
        if location.is_this_machine or (location.is_encrypted and host.endswith(_AZURE_HOSTS)):
            return
        raise AccessDeniedError(
            f"files of this store were adopted from {container!r}, whose host is not known as one of Azure Storage",
            hint="if it is to be trusted with this machine's credential, name it first: vds.store.plain.open_plain(URL)",
        )
    is_local = isinstance(home, DirectoryLocation | MemoryLocation)
    if isinstance(location, DirectoryLocation) and is_local:
        return
    if isinstance(location, MemoryLocation) and isinstance(home, MemoryLocation):
        return
    raise AccessDeniedError(
        f"files of this store are said to lie in {container!r}, which only one machine has",
        hint="adopt from a container that all who read the store can reach",
    )


def check_adoptable(home: Location, location: Location) -> None:
    """Check that whoever reads a store can reach what is adopted into it.

    Raises:
        InvalidInputError: the store is shared, and the place is this machine's alone.
    """
    is_shared = isinstance(home, AzureLocation)
    if not isinstance(location, AzureLocation) and (
        is_shared or (isinstance(location, MemoryLocation) and not isinstance(home, MemoryLocation))
    ):
        raise InvalidInputError(
            f"{container_url(location)!r} can be reached from here only: what is adopted from there, others could not read",
            hint="vds upload it",
        )
