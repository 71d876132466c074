"""The contract of `vds.blobs.driver`, the same for every driver; Azurite stands for the real service."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from tests.simulator import Service, SimulatedDriver, all_well, harmless
from vds.blobs.credential import choose_credential
from vds.blobs.directory import DirectoryDriver
from vds.blobs.driver import Blob, BlobDriver, Block
from vds.blobs.location import AZURITE_ACCOUNT, AzureLocation, parse_location
from vds.blobs.memory import MemoryDriver
from vds.blobs.open import open_driver
from vds.errors import AccessDeniedError, BlobExistsError, ConflictError, CorruptionError, InvalidInputError, NotFoundError

Open = Callable[[], BlobDriver]
RACERS = 8


@pytest.fixture(
    params=["memory", "simulated", "bad-day", "directory", "claims", pytest.param("azurite", marks=pytest.mark.services)]
)
def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Return a function that opens one and the same container, not made yet, each time with a driver of its own."""
    opened: list[BlobDriver] = []
    name = f"contract-{uuid.uuid4().hex}"
    root = tmp_path / "store"
    service = Service(name, harmless(request.node.name) if request.param == "bad-day" else all_well)
    makers: dict[str, Open] = {
        "memory": lambda: MemoryDriver(name),
        "simulated": lambda: SimulatedDriver(service),
        "bad-day": lambda: SimulatedDriver(service),
        "directory": lambda: DirectoryDriver(root),
        "claims": lambda: DirectoryDriver(root, links=False),
        "azurite": lambda: open_driver(f"{request.getfixturevalue('azurite_url')}/{name}/some/prefix"),
    }

    def open_one() -> BlobDriver:
        opened.append(makers[request.param]())
        return opened[-1]

    yield open_one
    for driver in opened:
        driver.close()


@pytest.fixture
def driver(open_again: Open) -> BlobDriver:
    driver = open_again()
    driver.create_container()
    return driver


def keys(driver: BlobDriver, prefix: str = "", start_after: str = "") -> list[str]:
    return [blob.key for blob in driver.list_blobs(prefix, start_after)]


def race(tasks: list[Callable[[], str]]) -> list[str | BaseException]:
    """Run all tasks at the same moment and return what each returned or raised."""
    barrier = threading.Barrier(len(tasks))

    def run(task: Callable[[], str]) -> str | BaseException:
        barrier.wait()
        try:
            return task()
        except BlobExistsError as err:
            return err

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


class TestContainer:
    def test_every_call_says_that_the_container_is_missing(self, open_again: Open) -> None:
        driver = open_again()
        calls: list[Callable[[], object]] = [
            lambda: driver.put_if_absent("a", b"1"),
            lambda: driver.stage_block("a", "0001", b"1"),
            lambda: driver.list_blocks("a"),
            lambda: driver.commit_blocks("a", []),
            lambda: driver.find_blob("a"),
            lambda: driver.read_range("a"),
            lambda: driver.read_range("a", 0, 0),
            lambda: list(driver.list_blobs()),
            lambda: list(driver.list_blobs("objects/")),
            lambda: driver.copy_blob("a", "b"),
            lambda: driver.delete_blob("a"),
        ]
        for call in calls:
            with pytest.raises(NotFoundError) as caught:
                call()
            assert caught.value.hint

    def test_making_it_twice_keeps_what_is_in_it(self, driver: BlobDriver, open_again: Open) -> None:
        driver.put_if_absent("a", b"1")
        open_again().create_container()
        assert open_again().read_range("a") == b"1"

    def test_its_url_opens_the_same_container(self, driver: BlobDriver) -> None:
        driver.put_if_absent("a", b"1")
        again = open_driver(driver.url)
        assert again.read_range("a") == b"1"
        assert again.url == driver.url
        again.close()

    def test_close_is_idempotent(self, driver: BlobDriver) -> None:
        driver.close()
        driver.close()


class TestPace:
    def test_it_is_one_for_all_who_send_and_bounded(self, driver: BlobDriver) -> None:
        assert driver.pace is driver.pace
        assert 1 <= driver.pace.limit <= driver.pace.most <= 64
        driver.put_if_absent("a", b"1")
        assert driver.pace.pause_s() == 0


class TestPut:
    def test_a_blob_is_seen_by_all_calls_of_all_drivers(self, driver: BlobDriver, open_again: Open) -> None:
        etag = driver.put_if_absent("objects/aa/b3", b"hello")
        for reader in (driver, open_again()):
            assert reader.find_blob("objects/aa/b3") == Blob("objects/aa/b3", 5, etag, {})
            assert reader.read_range("objects/aa/b3") == b"hello"
            assert list(reader.list_blobs()) == [Blob("objects/aa/b3", 5, etag, {})]

    @pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
    def test_any_buffer_is_stored(self, driver: BlobDriver, wrap: type) -> None:
        driver.put_if_absent("a", wrap(b"hello"))
        assert driver.read_range("a") == b"hello"

    def test_part_of_a_buffer_is_stored(self, driver: BlobDriver) -> None:
        buffer = bytearray(b"__hello__")
        driver.put_if_absent("a", memoryview(buffer)[2:7])
        driver.stage_block("b", "0001", memoryview(buffer)[2:7])
        driver.commit_blocks("b", ["0001"])
        buffer[:] = b"other one"  # the caller fills its buffer anew
        assert driver.read_range("a") == driver.read_range("b") == b"hello"

    def test_an_empty_blob(self, driver: BlobDriver) -> None:
        driver.put_if_absent("empty", b"")
        found = driver.find_blob("empty")
        assert found is not None
        assert found.size_bytes == 0
        assert driver.read_range("empty") == b""
        assert driver.read_range("empty", 0, 0) == b""

    @pytest.mark.parametrize("second", [b"hello", b"other"])
    def test_a_taken_key_is_refused_and_kept(self, driver: BlobDriver, second: bytes) -> None:
        etag = driver.put_if_absent("a", b"hello", {"vds_digest": "b3:00"})
        with pytest.raises(BlobExistsError):
            driver.put_if_absent("a", second, {"vds_digest": "b3:11"})
        assert driver.find_blob("a") == Blob("a", 5, etag, {"vds_digest": "b3:00"})
        assert driver.read_range("a") == b"hello"

    def test_of_racing_puts_one_wins_with_its_bytes_and_metadata(self, driver: BlobDriver, open_again: Open) -> None:
        drivers = [open_again() for _ in range(RACERS)]
        for round_ in range(5):
            key = f"racing/{round_}"
            bodies = [f"{number}".encode() * (number + 1) for number in range(RACERS)]
            outcomes = race(
                [
                    lambda racer=racer, body=body, number=number, key=key: racer.put_if_absent(key, body, {"by": f"{number}"})  # type: ignore[misc]
                    for number, (racer, body) in enumerate(zip(drivers, bodies, strict=True))
                ]
            )
            winners = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, str)]
            assert len(winners) == 1
            assert driver.read_range(key) == bodies[winners[0]]
            assert driver.find_blob(key) == Blob(key, len(bodies[winners[0]]), str(outcomes[winners[0]]), {"by": f"{winners[0]}"})

    def test_a_reader_never_sees_a_part(self, driver: BlobDriver, open_again: Open) -> None:
        body = b"x" * (4 << 20)
        seen: set[int] = set()
        done = threading.Event()

        def look() -> None:
            reader = open_again()
            while not done.is_set():
                seen.update(blob.size_bytes for blob in reader.list_blobs())
                found = reader.find_blob("big")
                seen.update([found.size_bytes] if found else [])

        with ThreadPoolExecutor(1) as pool:
            looking = pool.submit(look)
            driver.put_if_absent("big", body)
            done.set()
            looking.result()
        assert seen <= {len(body)}

    @pytest.mark.parametrize(
        "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.", ".vds-tmp/x", "a.", "a\\b", "ä", "a b", "x" * 201]
    )
    def test_what_is_no_key_is_refused_by_all_calls(self, driver: BlobDriver, key: str) -> None:
        driver.put_if_absent("good", b"1")
        calls: list[Callable[[], object]] = [
            lambda: driver.put_if_absent(key, b"1"),
            lambda: driver.stage_block(key, "0001", b"1"),
            lambda: driver.list_blocks(key),
            lambda: driver.commit_blocks(key, []),
            lambda: driver.find_blob(key),
            lambda: driver.read_range(key),
            lambda: driver.copy_blob("good", key),
            lambda: driver.copy_blob(key, "other"),
            lambda: driver.delete_blob(key),
        ]
        for call in calls:
            with pytest.raises(InvalidInputError):
                call()

    @pytest.mark.parametrize("key", ["x" * 200, "objects/~~/01J", "a..b", "A@1=2+3", "-", "_/_", "0/" * 99 + "0", "a.b/c.d", "~"])
    def test_keys_of_odd_shape(self, driver: BlobDriver, key: str) -> None:
        driver.put_if_absent(key, b"1", {"a": "b"})
        driver.stage_block(f"{key[:-1]}z", "0001", b"2")
        driver.commit_blocks(f"{key[:-1]}z", ["0001"])
        assert driver.read_range(key) == b"1"
        assert driver.read_range(f"{key[:-1]}z") == b"2"
        assert keys(driver) == sorted([key, f"{key[:-1]}z"])


class TestMetadata:
    def test_it_comes_back_everywhere(self, driver: BlobDriver) -> None:
        metadata = {"vds_digest": "b3:" + "0" * 64, "note": "two words; a=b, 100 %"}
        driver.put_if_absent("put", b"1", metadata)
        driver.stage_block("blocks", "0001", b"2")
        driver.commit_blocks("blocks", ["0001"], metadata)
        driver.put_if_absent("plain", b"3")
        assert {blob.key: dict(blob.metadata) for blob in driver.list_blobs()} == {
            "blocks": metadata,
            "plain": {},
            "put": metadata,
        }
        for key, wanted in (("put", metadata), ("blocks", metadata), ("plain", {})):
            found = driver.find_blob(key)
            assert found is not None
            assert found.metadata == wanted

    @pytest.mark.parametrize(
        "metadata", [{"Upper": "x"}, {"a-b": "x"}, {"a": ""}, {"a": " x"}, {"a": "ä"}, {"a": "x\n"}, {"a": "x" * 9000}]
    )
    def test_what_not_every_driver_holds_is_refused(self, driver: BlobDriver, metadata: dict[str, str]) -> None:
        with pytest.raises(InvalidInputError):
            driver.put_if_absent("a", b"1", metadata)
        assert driver.find_blob("a") is None


class TestBlocks:
    def test_blocks_become_a_blob_in_the_order_asked_for(self, driver: BlobDriver, open_again: Open) -> None:
        for block_id, body in (("0002", b"world"), ("0001", b"hello "), ("0003", b"never used")):
            driver.stage_block("a", block_id, body)
        assert sorted(open_again().list_blocks("a"), key=lambda block: block.block_id) == [
            Block("0001", 6),
            Block("0002", 5),
            Block("0003", 10),
        ]
        etag = open_again().commit_blocks("a", ["0001", "0002", "0001"], {"k": "v"})
        assert driver.find_blob("a") == Blob("a", 17, etag, {"k": "v"})
        assert driver.read_range("a") == b"hello worldhello "
        assert driver.list_blocks("a") == []

    def test_uncommitted_blocks_are_invisible_and_do_not_stop_a_put(self, driver: BlobDriver) -> None:
        driver.stage_block("a", "0001", b"staged")
        assert keys(driver) == []
        assert driver.find_blob("a") is None
        assert not driver.delete_blob("a")
        with pytest.raises(NotFoundError):
            driver.read_range("a")
        etag = driver.put_if_absent("a", b"put", {"k": "v"})
        assert driver.find_blob("a") == Blob("a", 3, etag, {"k": "v"})
        assert driver.read_range("a") == b"put"
        assert driver.list_blocks("a") == []

    def test_an_empty_put_over_uncommitted_blocks(self, driver: BlobDriver) -> None:
        driver.stage_block("a", "0001", b"staged")
        driver.put_if_absent("a", b"")
        assert driver.read_range("a") == b""

    def test_of_puts_racing_over_uncommitted_blocks_one_wins(self, driver: BlobDriver, open_again: Open) -> None:
        drivers = [open_again() for _ in range(RACERS)]
        driver.stage_block("a", "0001", b"staged")
        outcomes = race([lambda racer=racer, n=n: racer.put_if_absent("a", b"%d" % n) for n, racer in enumerate(drivers)])  # type: ignore[misc]
        winners = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, str)]
        assert len(winners) == 1
        assert driver.read_range("a") == b"%d" % winners[0]

    def test_the_same_id_replaces(self, driver: BlobDriver) -> None:
        driver.stage_block("a", "0001", b"first")
        driver.stage_block("a", "0001", b"second")
        assert driver.list_blocks("a") == [Block("0001", 6)]
        driver.commit_blocks("a", ["0001"])
        assert driver.read_range("a") == b"second"

    def test_blocks_of_one_key_are_not_those_of_another(self, driver: BlobDriver) -> None:
        driver.stage_block("a/b", "0001", b"1")
        assert driver.list_blocks("a") == []
        with pytest.raises(NotFoundError):
            driver.commit_blocks("a", ["0001"])

    def test_an_id_of_any_ascii(self, driver: BlobDriver) -> None:
        block_id = "+/=~ ?" + "x" * 42
        driver.stage_block("a", block_id, b"1")
        assert driver.list_blocks("a") == [Block(block_id, 1)]
        driver.commit_blocks("a", [block_id])
        assert driver.read_range("a") == b"1"

    def test_no_blocks_make_an_empty_blob(self, driver: BlobDriver) -> None:
        driver.commit_blocks("a", [])
        assert driver.read_range("a") == b""

    def test_a_block_that_is_not_staged(self, driver: BlobDriver) -> None:
        driver.stage_block("a", "0001", b"1")
        with pytest.raises(NotFoundError):
            driver.commit_blocks("a", ["0001", "0002"])
        assert driver.find_blob("a") is None
        assert driver.list_blocks("a") == [Block("0001", 1)]

    def test_a_taken_key_is_refused_and_kept(self, driver: BlobDriver) -> None:
        driver.put_if_absent("a", b"hello")
        driver.stage_block("a", "0001", b"other")
        with pytest.raises(BlobExistsError):
            driver.commit_blocks("a", ["0001"])
        assert driver.read_range("a") == b"hello"

    def test_a_repeated_commit_is_refused_as_taken(self, driver: BlobDriver) -> None:
        driver.stage_block("a", "0001", b"1")
        driver.commit_blocks("a", ["0001"])
        with pytest.raises(BlobExistsError):
            driver.commit_blocks("a", ["0001"])

    def test_of_racing_commits_and_puts_one_wins(self, driver: BlobDriver, open_again: Open) -> None:
        drivers = [open_again() for _ in range(RACERS)]
        for round_ in range(5):
            key = f"racing/{round_}"
            driver.stage_block(key, "0001", b"staged")
            tasks: list[Callable[[], str]] = [
                (lambda racer=racer, key=key: racer.commit_blocks(key, ["0001"]))  # type: ignore[misc]
                if number % 2
                else (lambda racer=racer, key=key: racer.put_if_absent(key, b"put"))  # type: ignore[misc]
                for number, racer in enumerate(drivers)
            ]
            outcomes = race(tasks)
            winners = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, str)]
            assert len(winners) == 1
            assert driver.read_range(key) == (b"staged" if winners[0] % 2 else b"put")


class TestRead:
    @pytest.mark.parametrize(
        ("offset", "length", "wanted"),
        [
            (0, None, b"hello"),
            (0, 5, b"hello"),
            (1, 3, b"ell"),
            (4, None, b"o"),
            (5, None, b""),
            (5, 0, b""),
            (0, 0, b""),
            (2, 0, b""),
        ],
    )
    def test_ranges(self, driver: BlobDriver, offset: int, length: int | None, wanted: bytes) -> None:
        driver.put_if_absent("a", b"hello")
        body = driver.read_range("a", offset, length)
        assert body == wanted
        assert type(body) is bytes

    @pytest.mark.parametrize(("offset", "length"), [(0, 6), (5, 1), (6, 1), (6, 0), (6, None), (3, 3), (100, 1)])
    def test_past_the_end(self, driver: BlobDriver, offset: int, length: int | None) -> None:
        driver.put_if_absent("a", b"hello")
        with pytest.raises(CorruptionError, match="has 5 bytes"):
            driver.read_range("a", offset, length)

    @pytest.mark.parametrize(("offset", "wanted"), [(0, b"hello"), (1, b"ell"), (4, b"o")])
    def test_ranges_into_memory(self, driver: BlobDriver, offset: int, wanted: bytes) -> None:
        driver.put_if_absent("a", b"hello")
        body = bytearray(b"-" * (len(wanted) + 2))
        driver.read_range_into("a", offset, memoryview(body)[1:-1])
        assert body == b"-" + wanted + b"-"

    @pytest.mark.parametrize(("offset", "length"), [(0, 6), (5, 1), (6, 1), (3, 3), (100, 1)])
    def test_into_memory_past_the_end(self, driver: BlobDriver, offset: int, length: int) -> None:
        driver.put_if_absent("a", b"hello")
        with pytest.raises(CorruptionError, match="has 5 bytes"):
            driver.read_range_into("a", offset, memoryview(bytearray(length)))

    def test_a_missing_blob_into_memory(self, driver: BlobDriver) -> None:
        with pytest.raises(NotFoundError, match="a/b"):
            driver.read_range_into("a/b", 0, memoryview(bytearray(1)))

    def test_a_large_range_comes_whole(self, driver: BlobDriver) -> None:
        body = bytes(range(256)) * (80 << 12)  # 80 MiB: above the SDK's limit for one request
        for number in range(2):
            driver.stage_block("big", f"{number:04}", memoryview(body)[number * (40 << 20) : (number + 1) * (40 << 20)])
        driver.commit_blocks("big", ["0000", "0001"])
        assert driver.read_range("big") == body
        assert driver.read_range("big", 255, 70 << 20) == body[255 : 255 + (70 << 20)]
        target = bytearray(70 << 20)
        driver.read_range_into("big", 255, memoryview(target))
        assert target == body[255 : 255 + (70 << 20)]

    @pytest.mark.parametrize(("offset", "length"), [(0, None), (0, 0), (0, 1), (7, None)])
    def test_a_missing_blob(self, driver: BlobDriver, offset: int, length: int | None) -> None:
        assert driver.find_blob("a/b") is None
        with pytest.raises(NotFoundError) as caught:
            driver.read_range("a/b", offset, length)
        assert "a/b" in str(caught.value)
        assert caught.value.hint


class TestList:
    KEYS = ("a", "a-b/c", "a.b", "ab/c", "ab/d/e", "ab0", "b", "journal/0001", "journal/0002", "Z", "~~/x")

    @pytest.fixture
    def filled(self, driver: BlobDriver) -> BlobDriver:
        for key in reversed(self.KEYS):
            driver.put_if_absent(key, key.encode())
        return driver

    def test_keys_come_in_byte_order(self, filled: BlobDriver) -> None:
        assert keys(filled) == sorted(self.KEYS, key=str.encode)
        assert all(blob.size_bytes == len(blob.key) for blob in filled.list_blobs())

    @pytest.mark.parametrize(
        "prefix", ["", "a", "a-", "ab/", "ab/c", "ab/d", "ab/d/", "journal/", "nothing/here", "b/", "~", "a/.."]
    )
    def test_a_prefix(self, filled: BlobDriver, prefix: str) -> None:
        assert keys(filled, prefix) == [key for key in sorted(self.KEYS) if key.startswith(prefix)]

    @pytest.mark.parametrize(
        "start_after", ["", "Z", "a", "a-b", "a-b/", "a-b/c", "ab/", "ab/d/e", "journal/0001", "zz", "~~/x", "~~/y"]
    )
    @pytest.mark.parametrize("prefix", ["", "a", "ab/", "journal/"])
    def test_start_after(self, filled: BlobDriver, prefix: str, start_after: str) -> None:
        assert keys(filled, prefix, start_after) == [
            key for key in sorted(self.KEYS) if key.startswith(prefix) and key > start_after
        ]

    def test_it_is_lazy(self, filled: BlobDriver) -> None:
        assert next(filled.list_blobs("ab/")).key == "ab/c"

    def test_an_empty_container(self, driver: BlobDriver) -> None:
        assert keys(driver) == []

    def test_more_than_one_page(self, driver: BlobDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vds.blobs.memory.LIST_PAGE_BLOBS", 7)
        monkeypatch.setattr("vds.blobs.azure.LIST_PAGE_BLOBS", 7)
        wanted = [f"journal/{number:016}" for number in range(30)]
        with ThreadPoolExecutor(RACERS) as pool:
            list(pool.map(lambda key: driver.put_if_absent(key, b""), wanted))
        assert keys(driver, "journal/") == wanted
        assert keys(driver, "journal/", wanted[20]) == wanted[21:]
        assert keys(driver, "journal/", wanted[20] + "0") == wanted[21:]


class TestCopy:
    def test_bytes_and_metadata_are_copied(self, driver: BlobDriver) -> None:
        driver.put_if_absent("a", b"hello", {"k": "v"})
        etag = driver.copy_blob("a", "b/c")
        assert driver.find_blob("b/c") == Blob("b/c", 5, etag, {"k": "v"})
        assert driver.read_range("b/c") == b"hello"
        assert driver.read_range("a") == b"hello"

    def test_a_blob_too_large_for_one_request(self, driver: BlobDriver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vds.blobs.azure.COPY_ONE_REQUEST_BYTES_MAX", 3)
        driver.put_if_absent("a", b"hello world", {"k": "v"})
        etag = driver.copy_blob("a", "b")
        assert driver.find_blob("b") == Blob("b", 11, etag, {"k": "v"})
        assert driver.read_range("b") == b"hello world"
        with pytest.raises(BlobExistsError):
            driver.copy_blob("a", "b")

    def test_a_taken_target_is_refused_and_kept(self, driver: BlobDriver) -> None:
        driver.put_if_absent("a", b"hello")
        driver.put_if_absent("b", b"other")
        with pytest.raises(BlobExistsError):
            driver.copy_blob("a", "b")
        assert driver.read_range("b") == b"other"

    def test_a_missing_source(self, driver: BlobDriver) -> None:
        with pytest.raises(NotFoundError):
            driver.copy_blob("a", "b")
        assert driver.find_blob("b") is None

    def test_an_empty_blob(self, driver: BlobDriver) -> None:
        driver.put_if_absent("a", b"")
        driver.copy_blob("a", "b")
        assert driver.read_range("b") == b""


@pytest.mark.services
def test_azurite_with_a_sas(container_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = open_driver(container_url)
    owner.create_container()
    sas = generate_container_sas(
        AZURITE_ACCOUNT,
        container_url.rpartition("/")[2],
        account_key=choose_credential(location_of(container_url), None, {}).key,
        permission=ContainerSasPermissions(read=True, add=True, create=True, write=True, delete=True, list=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    driver = open_driver(f"{container_url}?{sas}")
    assert "sig" not in driver.url
    driver.put_if_absent("a", b"hello world", {"k": "v"})
    driver.copy_blob("a", "b")
    monkeypatch.setattr("vds.blobs.azure.COPY_ONE_REQUEST_BYTES_MAX", 3)
    driver.copy_blob("a", "c")
    assert keys(owner) == ["a", "b", "c"]
    assert owner.read_range("c") == b"hello world"
    wrong = open_driver(container_url, sas[:-8] + "AAAAAAA=")
    with pytest.raises(AccessDeniedError) as caught:
        wrong.put_if_absent("d", b"1")
    assert "SAS" in caught.value.hint
    for opened in (owner, driver, wrong):
        opened.close()


@pytest.mark.services
@pytest.mark.parametrize("with_sas", [False, True])
def test_azurite_takes_puts_and_reads_without_the_sdk(
    container_url: str, monkeypatch: pytest.MonkeyPatch, with_sas: bool
) -> None:
    driver = open_driver(container_url)
    driver.create_container()
    if with_sas:
        driver.close()
        sas = generate_container_sas(
            AZURITE_ACCOUNT,
            container_url.rpartition("/")[2],
            account_key=choose_credential(location_of(container_url), None, {}).key,
            permission=ContainerSasPermissions(read=True, create=True, write=True, list=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )
        driver = open_driver(container_url, sas)
    for name in ("upload_blob", "stage_block", "download_blob"):
        monkeypatch.setattr(f"azure.storage.blob.BlobClient.{name}", lambda *_, **__: pytest.fail("the SDK was asked"))
    body = bytes(range(256)) * (12 << 10)
    driver.put_if_absent("a~@+=b", body, {"vds_digest": "b3:00", "a1": "two words", "a_": "x"})
    driver.stage_block("b", "+/=~ ?", memoryview(body)[1:])
    driver.put_if_absent("empty", b"")
    driver.commit_blocks("b", ["+/=~ ?"])
    assert driver.read_range("a~@+=b") == body
    assert driver.read_range("b", 5, 70000) == body[6:70006]
    driver.close()


@pytest.mark.services
def test_azurite_refuses_bytes_that_changed_on_the_way(container_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = open_driver(container_url)
    driver.create_container()
    for check in (("x-ms-content-crc64", "AAAAAAAAAAE="), ("content-md5", "XUFAKrxLKna5cZ2REBfFkg==")):
        monkeypatch.setattr("vds.blobs.hot.check_of", lambda body, check=check: check)
        with pytest.raises(CorruptionError, match="bytes changed on the way"):
            driver.put_if_absent("a", b"other")
        with pytest.raises(CorruptionError, match="bytes changed on the way"):
            driver.stage_block("b", "0001", b"other")
    assert keys(driver) == []
    assert driver.list_blocks("b") == []
    driver.close()


def location_of(url: str) -> AzureLocation:
    location = parse_location(url)
    assert isinstance(location, AzureLocation)
    return location


class TestDelete:
    def test_a_deleted_blob_is_gone_and_its_key_free(self, driver: BlobDriver) -> None:
        driver.put_if_absent("a/b", b"1", {"k": "v"})
        assert driver.delete_blob("a/b")
        assert not driver.delete_blob("a/b")
        assert driver.find_blob("a/b") is None
        assert keys(driver) == []
        driver.put_if_absent("a/b", b"2")
        found = driver.find_blob("a/b")
        assert found is not None
        assert found.metadata == {}

    def test_the_right_etag(self, driver: BlobDriver) -> None:
        etag = driver.put_if_absent("a", b"1")
        assert driver.delete_blob("a", etag)
        assert not driver.delete_blob("a", etag)

    def test_another_etag(self, driver: BlobDriver) -> None:
        old = driver.put_if_absent("a", b"1")
        driver.delete_blob("a")
        new = driver.put_if_absent("a", b"1")
        assert old != new
        with pytest.raises(ConflictError) as caught:
            driver.delete_blob("a", old)
        assert not isinstance(caught.value, BlobExistsError)
        assert driver.read_range("a") == b"1"
        listed = next(driver.list_blobs())
        assert listed.etag == new
        assert driver.delete_blob("a", listed.etag)


class TestSignedUrls:
    def test_they_read_what_they_are_for_or_are_refused_whole(self, driver: BlobDriver) -> None:
        driver.put_if_absent("a/b", b"hello")
        now = datetime.now(UTC)
        times = {"starts_at": now - timedelta(minutes=15), "expires_at": now + timedelta(hours=1)}
        if not driver.url.startswith("http"):
            with pytest.raises(InvalidInputError, match="is not in an Azure storage account") as caught:
                driver.sign_reads([("a/b", "b.txt")], **times)
            assert "vds export" in caught.value.hint
            return
        [url] = driver.sign_reads([("a/b", "b.txt")], **times)
        answer = requests.get(url, timeout=30)
        assert (answer.status_code, answer.content) == (200, b"hello")
        assert answer.headers["Content-Disposition"] == 'attachment; filename="b.txt"'
