"""A store with some of everything in it: for whoever has to keep all of it."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import vds
from tests.support import write_tree

WORDS = unicodedata.normalize("NFC", "Übergröße 数据 🧪")
LARGE_BYTES = 9 * 1024 * 1024
"""More than goes out in one request."""
MANY = 2000
"""More paths than a version's record holds; it goes into a list of its own."""


def fill_store(store: vds.Store, directory: Path) -> None:
    """Fill a store by every way there is, but for expiry and what follows it; `directory` is for sources."""
    _fill_raw(store, directory)
    _fill_others(store, directory)
    _fill_datasets(store)
    _fill_runs(store)


def _fill_raw(store: vds.Store, directory: Path) -> None:
    raw = store.namespace("team/raw")
    source = write_tree(directory / "raw", {"a.txt": b"one", "b/c.txt": b"two", "b/empty": b"", f"b/{WORDS}.json": b"{}"})
    (source / "b" / "c.txt").chmod(0o755)
    raw.upload(source, message=WORDS, labels={"größe": "1 🧪", "split": "train"}, show_progress=False)
    write_tree(source, {"a.txt": b"another", "large.bin": bytes(range(256)) * 8192})
    raw.upload(source, target_path="", mirror=True, show_progress=False)
    raw.rollback(1, message="back")
    with raw.transaction("several things") as tx:
        tx.delete("a.txt")
        tx.move("b/c.txt", "moved/c.txt")
        tx.write_text("new/ü.txt", "written")
        with tx.open("stream.bin", "wb") as stream:
            for start in range(0, LARGE_BYTES, 1024 * 1024):
                stream.write(bytes([start >> 20]) * 1024 * 1024)
    write_tree(source, {"a.txt": b"and another", "b/c.txt": b"two"})
    raw.upload(source, overwrite=False, show_progress=False)
    raw.revert(5)
    many = write_tree(
        directory / "many", {f"{number % 7}/{number * 7919 % 100_000:06d}-{number}": b"%d" % number for number in range(MANY)}
    )
    raw.upload(many, target_path="many", labels={"size": "many"}, show_progress=False)
    with raw.transaction("fewer") as tx:
        tx.delete("many/3")
        tx.delete("many/0/000000-0")


def _fill_others(store: vds.Store, directory: Path) -> None:
    raw = store.namespace("team/raw")
    clean = store.namespace("team/clean")
    clean.copy(raw.get(2), message="promoted")
    clean.copy(raw.get(1).at("b"), "from/one", labels={"from": "1"})
    clean.rollback(1)
    clean.copy(raw.get(4), mirror=True)
    with store.namespace("Other-1").transaction("one file") as tx:
        tx.write_bytes("only", b"")
    for number in range(12):
        with store.namespace("runs/x").transaction(f"step {number}") as tx:
            tx.write_text(f"log/{number % 4}.txt", f"{number}")
            if number % 5 == 4:
                tx.delete(f"log/{(number + 1) % 4}.txt", missing_ok=True)


def _fill_datasets(store: vds.Store) -> None:
    raw, customers = store.namespace("team/raw"), store.dataset("Customers/eu")
    customers.register(raw.get(1), tags=["prod", "old"], description=WORDS, labels={"größe": "1"})
    customers.register(raw.get(2), "b")
    customers.register(store.namespace("team/clean").get(2), tags=["prod"])
    customers.tag("prod", 1, reason=f"worse {WORDS}")
    customers.untag("old", reason="unused")
    customers.tag("old", 2)
    store.dataset("runs").register(store.namespace("runs/x").latest(), tags=["best"])


def _fill_runs(store: vds.Store) -> None:
    with store.run("train", inputs={"clean": "team/clean@2/from", "raw": "team/raw"}, params={"größe": 1, "lr": "0.1"}) as run:
        with store.namespace("models").transaction("of a run") as tx:
            tx.write_text("model.txt", WORDS)
        run.output(tx.version, "model", "/somewhere")
        with store.run("eval", inputs=["models@1"], kind="step", key="b3:00", key_parts={"code": "1"}) as step:
            pass
    again = store.run("eval", kind="step", parent=run.id, key="b3:00", key_parts={"code": "1"})
    again.end("completed", reused=step.id)
    failed = store.run("fails")
    failed.end("failed", "exit code 1")
