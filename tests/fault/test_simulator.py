"""What the simulated service does to requests, beyond the driver's contract, which it keeps as all drivers do."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from tests.simulator import (
    RETRY_AFTER_S,
    Call,
    Fault,
    Kind,
    Service,
    SimulatedDriver,
    drawn,
    fault_at,
    harmless,
    kinds_of,
)
from vds.blobs.driver import BlobDriver
from vds.blobs.open import open_driver
from vds.errors import (
    BlobExistsError,
    CorruptionError,
    NoSpaceError,
    NotFoundError,
    UnavailableError,
    VdsError,
)

PUT = ("put_if_absent", "a", 1)
DELETE = ("delete_blob", "a", 1)


@pytest.fixture
def service() -> Service:
    made = Service(f"simulated-{uuid.uuid4().hex}")
    SimulatedDriver(made).create_container()
    made.begin_log()
    return made


@pytest.fixture
def driver(service: Service) -> BlobDriver:
    return SimulatedDriver(service)


def body_of(driver: BlobDriver, key: str = "a") -> bytes | None:
    return driver.read_range(key) if driver.find_blob(key) else None


def test_a_refused_request_has_no_effect(service: Service, driver: BlobDriver) -> None:
    service.plan = fault_at(PUT, "refused")
    with pytest.raises(UnavailableError, match="too busy"):
        driver.put_if_absent("a", b"1")
    assert body_of(driver) is None
    driver.put_if_absent("a", b"1")


def test_a_throttled_request_waits_as_long_as_it_is_asked_to(service: Service, driver: BlobDriver) -> None:
    service.plan = fault_at(PUT, "throttled")
    before_s, limit = service.now_s, driver.pace.limit
    driver.put_if_absent("a", b"1")
    assert service.now_s >= before_s + RETRY_AFTER_S
    assert driver.pace.limit < limit
    assert driver.pace.pause_s() == 0
    assert body_of(driver) == b"1"


def test_a_lost_answer_leaves_the_effect(service: Service, driver: BlobDriver) -> None:
    service.plan = fault_at(PUT, "lost")
    with pytest.raises(UnavailableError, match="no answer"):
        driver.put_if_absent("a", b"1")
    assert body_of(driver) == b"1"


def test_the_lost_answer_may_have_been_a_refusal(service: Service, driver: BlobDriver) -> None:
    driver.put_if_absent("a", b"1")
    service.plan = fault_at(("put_if_absent", "a", 2), "lost")
    with pytest.raises(UnavailableError):
        driver.put_if_absent("a", b"2")
    assert body_of(driver) == b"1"


def test_a_retried_request_meets_its_own_effect(service: Service, driver: BlobDriver) -> None:
    service.plan = fault_at(PUT, "retried")
    with pytest.raises(BlobExistsError):
        driver.put_if_absent("a", b"1")
    service.plan = fault_at(DELETE, "retried")
    assert driver.delete_blob("a") is False
    assert body_of(driver) is None


def test_a_late_request_takes_effect_when_it_is_due(service: Service, driver: BlobDriver) -> None:
    service.plan = fault_at(PUT, "late", delay_s=10)
    buffer = bytearray(b"sent")
    with pytest.raises(UnavailableError):
        driver.put_if_absent("a", buffer)
    buffer[:] = b"used"  # by whoever has given up
    service.advance(9)
    assert body_of(driver) is None
    service.advance(1)
    assert body_of(driver) == b"sent"
    assert service.settle() == 0


def test_late_requests_come_in_the_order_in_which_they_are_due(service: Service, driver: BlobDriver) -> None:
    delays = {1: 30.0, 2: 20.0, 3: 10.0}
    service.plan = lambda call: Fault("late", delays[call.nth]) if call.name == "put_if_absent" else None
    for body in (b"first", b"second", b"third"):
        with pytest.raises(UnavailableError):
            driver.put_if_absent("a", body)
    assert service.settle() == 3
    assert body_of(driver) == b"third"


def test_a_repeated_delete_takes_what_was_put_meanwhile(service: Service, driver: BlobDriver) -> None:
    driver.put_if_absent("a", b"1")
    service.plan = fault_at(DELETE, "repeated")
    assert driver.delete_blob("a")
    driver.put_if_absent("a", b"2")
    service.settle()
    assert body_of(driver) is None


def test_a_repeated_delete_with_an_etag_does_not(service: Service, driver: BlobDriver) -> None:
    etag = driver.put_if_absent("a", b"1")
    service.plan = fault_at(DELETE, "repeated")
    assert driver.delete_blob("a", etag)
    driver.put_if_absent("a", b"2")
    service.settle()
    assert body_of(driver) == b"2"


def test_no_space_and_reads_that_go_wrong(service: Service, driver: BlobDriver) -> None:
    service.plan = fault_at(PUT, "full")
    with pytest.raises(NoSpaceError):
        driver.put_if_absent("a", b"hello")
    driver.put_if_absent("a", b"hello")
    service.plan = fault_at(("read_range", "a", 1), "short")
    with pytest.raises(CorruptionError, match="ended early"):
        driver.read_range("a")
    service.plan = fault_at(("read_range", "a", 2), "garbled")
    target = bytearray(5)
    driver.read_range_into("a", 0, memoryview(target))
    assert sum(got != sent for got, sent in zip(target, b"hello", strict=True)) == 1
    assert driver.read_range("a") == b"hello"


def test_what_was_deleted_can_be_had_back(service: Service, driver: BlobDriver) -> None:
    with pytest.raises(NotFoundError):
        service.undelete("a")
    for body in (b"1", b"2"):
        driver.put_if_absent("a", body, {"k": "v"})
        driver.delete_blob("a")
    assert service.deleted() == ["a"]
    service.undelete("a")
    assert body_of(driver) == b"2"
    with pytest.raises(BlobExistsError):
        service.undelete("a")
    driver.delete_blob("a")
    service.undelete("a")
    assert body_of(driver) == b"2"
    driver.delete_blob("a")
    assert service.deleted() == ["a"]


def test_saved_and_restored(service: Service, driver: BlobDriver) -> None:
    etag = driver.put_if_absent("a", b"1")
    driver.stage_block("b", "0001", b"2")
    saved = service.save()
    driver.delete_blob("a")
    driver.commit_blocks("b", ["0001"])
    service.plan = fault_at(("put_if_absent", "c", 1), "late")
    with pytest.raises(UnavailableError):
        driver.put_if_absent("c", b"3")
    service.restore(saved)
    assert service.settle() == 0
    assert [(blob.key, blob.etag) for blob in driver.list_blobs()] == [("a", etag)]
    assert [block.block_id for block in driver.list_blocks("b")] == ["0001"]
    driver.commit_blocks("b", ["0001"])
    service.restore(saved)
    assert driver.find_blob("b") is None
    assert driver.put_if_absent("d", b"4") != etag


def test_every_request_is_logged_a_listing_once_a_page(
    service: Service, driver: BlobDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vds.blobs.memory.LIST_PAGE_BLOBS", 2)
    for number in range(3):
        driver.put_if_absent(f"x/{number}", b"")
    service.begin_log()
    assert len(list(driver.list_blobs("x/"))) == 3
    driver.read_range("x/0")
    assert service.counts() == {"list_blobs": 2, "read_range": 1}
    assert [call.place for call in service.log] == [
        ("list_blobs", "x", 1),
        ("list_blobs", "x", 2),
        ("read_range", "x", 1),
    ]


def test_a_seed_is_a_day(service: Service) -> None:
    def live(plan: Callable[[Call], Fault | None]) -> list[Kind | None]:
        faults = [plan(Call(number, "put_if_absent", "packs/x", nth=number)) for number in range(1, 200)]
        return [fault.kind if fault else None for fault in faults]

    assert live(drawn(1, 0.2)) == live(drawn(1, 0.2)) != live(drawn(2, 0.2))
    kinds = [kind for kind in live(drawn(1, 0.2)) if kind is not None]
    assert 20 < len(kinds) < 60
    assert {*kinds} == {*kinds_of("put_if_absent")}
    assert {*live(drawn(1, 1.0, ["lost"]))} == {"lost"}
    assert drawn(1, 1.0, ["short"])(Call(1, "put_if_absent", "a")) is None


def test_the_bad_day_of_the_contract_is_one(service: Service, driver: BlobDriver) -> None:
    service.plan = harmless(0)
    for number in range(50):
        driver.put_if_absent(f"x/{number}", b"")
        driver.stage_block(f"y/{number}", "0001", b"")
        driver.find_blob(f"x/{number}")
    assert service.fired > 40
    assert {call.fault.kind for call in service.log if call.fault} == {"throttled", "repeated", "retried"}


@pytest.mark.parametrize("kind", ["late", "retried", "short"])
def test_a_plan_that_no_service_could_carry_out(kind: Kind, service: Service, driver: BlobDriver) -> None:
    service.plan = fault_at(("find_blob", "a", 1), kind)
    with pytest.raises(AssertionError, match="find_blob"):
        driver.find_blob("a")


def test_drivers_opened_by_url_ask_the_service_that_serves(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.serve(monkeypatch)
    service.plan = lambda call: Fault("refused")
    with pytest.raises(VdsError):
        open_driver(f"memory://{service.name}").find_blob("a")
    other = open_driver("memory://another")
    other.create_container()
    assert other.find_blob("a") is None
