"""The public names, with their parameters: changing one breaks scripts that exist."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys

import pytest

import vds
from vds.model.entry import Change, Entry
from vds.store import Dataset, Lock, Namespace, Part, Release, Run, RunInfo, Store, Transaction, UploadResult, Version, plain
from vds.store.store import Resolved

SIGNATURES: dict[str, tuple[object, str]] = {
    "vds.connect": (vds.connect, "url=None, *, index=None, create=False, read_only=False, credential=None"),
    "vds.join": (vds.join, "token"),
    "vds.refresh": (vds.refresh, ""),
    "vds.load_lock": (vds.load_lock, "path=None"),
    "vds.rebuild_index": (vds.rebuild_index, "url=None, *, index=None, credential=None, show_progress=True"),
    "Lock.get": (Lock.get, "self, ref, store=None"),
    "Lock.check": (Lock.check, "self, store=None, refs=None"),
    "Store.now": (Store.now, "self"),
    "Store.close": (Store.close, "self"),
    "Store.namespace": (Store.namespace, "self, name"),
    "Store.dataset": (Store.dataset, "self, name"),
    "Store.get": (Store.get, "self, ref"),
    "Store.resolve": (Store.resolve, "self, ref"),
    "Store.namespaces": (Store.namespaces, "self, prefix=''"),
    "Store.datasets": (Store.datasets, "self, prefix=''"),
    "Store.transactions": (Store.transactions, "self"),
    "Store.outcome": (Store.outcome, "self, commit_id"),
    "Store.doctor": (Store.doctor, "self, write_test=False"),
    "Store.expire": (
        Store.expire,
        "self, names=None, *, keep_last=None, keep_daily=None, keep_weekly=None, keep_within=None, keep_tagged=True, reason='',"
        " dry_run=True",
    ),
    "Store.gc": (Store.gc, "self, dry_run=True, *, grace_hours=24.0, max_share=0.5, repack=True, show_progress=True"),
    "Store.undo_gc": (Store.undo_gc, "self, dry_run=False"),
    "Store.erase": (Store.erase, "self, digest, *, reason='', dry_run=True, show_progress=True"),
    "Store.fsck": (
        Store.fsck,
        "self, *, structure=True, chain=False, sample=None, shard=None, full=False, repair=False, repair_from=None,"
        " replace_damaged=False, seed='', resume=True, show_progress=True, dry_run=False",
    ),
    "vds.run": (vds.run, "name, *, inputs=(), params=None, store=None"),
    "Store.run": (
        Store.run,
        "self, name, *, inputs=(), params=None, kind='run', parent=None, key='', key_parts=None",
    ),
    "Store.get_run": (Store.get_run, "self, run"),
    "Store.runs": (Store.runs, "self, name=None, *, parent=None, kind=None, key=None, status=None, limit=None"),
    "Store.record_input": (Store.record_input, "self, version, name=''"),
    "Store.rollback_run": (Store.rollback_run, "self, run, *, reason='', dry_run=True"),
    "Run.input": (Run.input, "self, source, name=''"),
    "Run.output": (Run.output, "self, version, name, local_path='', *, path=None"),
    "Run.end": (Run.end, "self, status='completed', error='', *, reused=''"),
    "Version.used_by": (Version.used_by, "self"),
    "Namespace.upload": (
        Namespace.upload,
        "self, src_dir, target_path=None, overwrite=True, show_progress=True, *, message='', labels=None, mirror=False,"
        " allow_patterns=None, ignore_patterns=None, expected_parent=None, allow_shrink=False, dry_run=False",
    ),
    "Namespace.upload_files": (
        Namespace.upload_files,
        "self, files, relative_root=None, target_path=None, overwrite=True, show_progress=True, *, message='', labels=None,"
        " mirror=False, expected_parent=None, allow_shrink=False, dry_run=False",
    ),
    "Namespace.adopt": (
        Namespace.adopt,
        "self, url, prefix='', target_path=None, *, message='', labels=None, credential=None, expected_parent=None,"
        " show_progress=True, dry_run=False",
    ),
    "plain.open_plain": (plain.open_plain, "url, credential=None"),
    "PlainContainer.list": (plain.PlainContainer.list, "self, prefix=''"),
    "PlainContainer.find": (plain.PlainContainer.find, "self, name"),
    "PlainContainer.download": (plain.PlainContainer.download, "self, blob, target"),
    "PlainContainer.read_bytes": (plain.PlainContainer.read_bytes, "self, blob, offset=0, size=None"),
    "PlainContainer.close": (plain.PlainContainer.close, "self"),
    "Namespace.copy": (
        Namespace.copy,
        "self, source, target_path='', *, mirror=False, message='', labels=None, expected_parent=None, allow_shrink=False",
    ),
    "Namespace.rollback": (Namespace.rollback, "self, to, path='', *, message='', dry_run=False"),
    "Namespace.revert": (Namespace.revert, "self, number, *, message='', dry_run=False"),
    "Namespace.transaction": (
        Namespace.transaction,
        "self, message='', labels=None, expected_parent=None, ttl_hours=24.0, *, allow_shrink=False",
    ),
    "Namespace.latest": (Namespace.latest, "self"),
    "Namespace.get": (Namespace.get, "self, point"),
    "Namespace.log": (Namespace.log, "self, path='', limit=None, labels=None"),
    "Namespace.diff": (Namespace.diff, "self, base, target, path=''"),
    "Transaction.upload_files": (
        Transaction.upload_files,
        "self, files, relative_root=None, target_path=None, *, show_progress=True",
    ),
    "Transaction.write_bytes": (Transaction.write_bytes, "self, path, data"),
    "Transaction.write_text": (Transaction.write_text, "self, path, text, encoding='utf-8'"),
    "Transaction.copy": (Transaction.copy, "self, source, path=''"),
    "Transaction.move": (Transaction.move, "self, source, target"),
    "Transaction.delete": (Transaction.delete, "self, path, missing_ok=False"),
    "Transaction.open": (Transaction.open, "self, path, mode='wb'"),
    "Transaction.part": (Transaction.part, "self, name"),
    "Transaction.parts": (Transaction.parts, "self"),
    "Transaction.commit": (Transaction.commit, "self, expected_parts=None, *, message=None, labels=None"),
    "Transaction.abort": (Transaction.abort, "self"),
    "Version.at": (Version.at, "self, path"),
    "Version.entries": (Version.entries, "self, path=''"),
    "Version.entry": (Version.entry, "self, path"),
    "Version.exists": (Version.exists, "self, path"),
    "Version.open": (Version.open, "self, path, mode='rb'"),
    "Version.read_bytes": (Version.read_bytes, "self, path, offset=0, size=None"),
    "Version.read_text": (Version.read_text, "self, path, encoding='utf-8'"),
    "Version.download": (
        Version.download,
        "self, dst, path='', *, allow_patterns=None, ignore_patterns=None, link=False, show_progress=True, dry_run=False",
    ),
    "Version.checkout": (
        Version.checkout,
        "self, dst, path='', *, force=False, allow_patterns=None, ignore_patterns=None, link=False, show_progress=True,"
        " dry_run=False",
    ),
    "Version.children": (Version.children, "self, path=''"),
    "Version.read_many": (Version.read_many, "self, paths"),
    "Version.stream": (Version.stream, "self, path='', *, shard=(0, 1), shuffle_seed=None"),
    "Version.fetch": (Version.fetch, "self, path=''"),
    "Version.share": (Version.share, "self, path=None, hours=24"),
    "Version.export": (
        Version.export,
        "self, url, path='', *, allow_patterns=None, ignore_patterns=None, overwrite=False, credential=None,"
        " show_progress=True, dry_run=False",
    ),
    "Version.replaced": (Version.replaced, "self"),
    "Version.diff": (Version.diff, "self, base=None, path=''"),
    "Version.verify": (Version.verify, "self, sample=None, *, show_progress=False"),
    "Dataset.register": (Dataset.register, "self, source, path='', *, tags=(), description=None, labels=None"),
    "Dataset.tag": (Dataset.tag, "self, tag, target, *, reason='', expected=None"),
    "Dataset.untag": (Dataset.untag, "self, tag, *, reason='', expected=None"),
    "Dataset.tags": (Dataset.tags, "self"),
    "Dataset.releases": (Dataset.releases, "self"),
    "Dataset.release": (Dataset.release, "self, target='latest'"),
    "Dataset.history": (Dataset.history, "self, tag=None"),
    "Dataset.get": (Dataset.get, "self, target"),
    "Dataset.latest": (Dataset.latest, "self"),
}

PROPERTIES: dict[type, set[str]] = {
    Store: {"url", "id"},
    Transaction: {"token", "version"},
    Version: {
        *("namespace", "number", "digest", "content_digest", "parent", "created_at", "author", "message", "labels"),
        *("provenance", "file_count", "size_bytes", "path", "uri"),
    },
    UploadResult: {"uri"},
    plain.PlainContainer: {"url"},
    Release: {"path", "uri"},
    Entry: {"is_executable"},
    Change: {"kind"},
}

FIELDS: dict[type, list[str]] = {
    RunInfo: [
        *(
            "id",
            "name",
            "kind",
            "status",
            "parent",
            "author",
            "started_at",
            "ended_at",
            "params",
            "provenance",
            "inputs",
            "outputs",
        ),
        *("written", "key_parts", "reused", "error"),
    ],
    Resolved: ["requested", "namespace", "number", "digest", "release", "path", "pinned"],
    Entry: ["path", "digest", "size_bytes", "mode", "modified_ns"],
    Change: ["path", "before", "after"],
    plain.PlainBlob: ["name", "size_bytes", "etag", "modified_at"],
    Release: ["dataset", "number", "version", "created_at", "author", "description", "labels"],
}

RESULT_FIELDS = {
    *("version", "created", "uploaded", "skipped", "changed_but_skipped", "tags_left_behind", "bytes_read", "bytes_sent"),
    *("objects_new", "seconds"),
}

FREE: dict[type, list[str]] = {Store: ["fsck", "expire", "gc"]}
"""Names that are promised to later work: nothing else may take them."""


def parameters(function: object) -> str:
    """Return a signature without its annotations, as one writes a call."""
    assert callable(function)
    signature = inspect.signature(function)
    bare = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))[1:-1]


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_a_public_call_takes_what_it_took(name: str) -> None:
    function, expected = SIGNATURES[name]
    assert parameters(function) == expected


@pytest.mark.parametrize("name", sorted(SIGNATURES))
def test_a_public_call_says_what_it_does(name: str) -> None:
    documentation = inspect.getdoc(SIGNATURES[name][0]) or ""
    assert documentation.splitlines()[0].endswith((".", "?")) or len(documentation) > 80


@pytest.mark.parametrize("owner", PROPERTIES, ids=lambda owner: owner.__name__)
def test_public_properties_are_there(owner: type) -> None:
    assert {name for name in PROPERTIES[owner] if isinstance(getattr(owner, name, None), property)} == PROPERTIES[owner]


@pytest.mark.parametrize("owner", FIELDS, ids=lambda owner: owner.__name__)
def test_public_fields_are_there_in_order(owner: type) -> None:
    assert [field.name for field in dataclasses.fields(owner)] == FIELDS[owner]


def test_a_result_says_all_of_it() -> None:
    assert {field.name for field in dataclasses.fields(UploadResult)} >= RESULT_FIELDS


@pytest.mark.parametrize("owner", [Store, Transaction, Part], ids=lambda owner: owner.__name__)
def test_what_must_be_closed_is_a_context_manager(owner: type) -> None:
    assert hasattr(owner, "__enter__")
    assert hasattr(owner, "__exit__")


@pytest.mark.parametrize("owner", FREE, ids=lambda owner: owner.__name__)
def test_promised_names_are_free_or_functions(owner: type) -> None:
    for name in FREE[owner]:
        assert callable(getattr(owner, name, len)), name


def test_parts_write_as_transactions_do() -> None:
    for name in ["upload", "upload_files", "write_bytes", "write_text", "copy", "open"]:
        assert parameters(getattr(Part, name)) == parameters(getattr(Transaction, name))


def test_all_public_names_of_the_package_resolve() -> None:
    assert {"connect", "join", "__version__"} <= set(vds.__all__)
    for name in vds.__all__:
        assert getattr(vds, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        vds.nothing  # noqa: B018 - the access is the test


def test_importing_the_package_loads_no_database_and_no_cloud() -> None:
    code = "import sys, vds; print(sorted({'sqlalchemy', 'azure', 'alembic', 'rich', 'click'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
