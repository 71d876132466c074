"""The JSON documents of the command line: snake_case keys that never change their meaning, bytes, RFC 3339."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vds.model.entry import Change, Entry
from vds.model.moment import moment_of
from vds.model.ref import format_moment
from vds.model.run import RUN_FIELD

if TYPE_CHECKING:
    from vds.store import Release, UploadResult, Version


def version_shape(version: Version) -> dict[str, Any]:
    """Return what is known of a version without reading its entries."""
    return {
        "namespace": version.namespace,
        "number": version.number,
        "path": version.path,
        "uri": version.uri,
        "operation": version.operation,
        "digest": str(version.digest),
        "parent": version.number - 1 if version.number else None,
        "created_at": format_moment(version.created_at),
        "author": version.author,
        "message": version.message,
        "labels": dict(version.labels),
        "run": version.provenance.get(RUN_FIELD),
        "file_count": version.file_count,
        "size_bytes": version.size_bytes,
    }


def entry_shape(entry: Entry) -> dict[str, Any]:
    """Return one file of a version."""
    return {
        "path": entry.path,
        "size_bytes": entry.size_bytes,
        "digest": str(entry.digest),
        "executable": entry.is_executable,
        "modified_at": format_moment(moment_of(entry.modified_ns // 1000)),
    }


def change_shape(change: Change) -> dict[str, Any]:
    """Return one difference between two versions; `before` and `after` are null where there is nothing."""
    return {
        "kind": change.kind,
        "path": change.path,
        "before": None if change.before is None else entry_shape(change.before),
        "after": None if change.after is None else entry_shape(change.after),
    }


def result_shape(result: UploadResult) -> dict[str, Any]:
    """Return what a write did."""
    return {
        "uri": result.uri,
        "namespace": result.version.namespace,
        "number": result.version.number,
        "created": result.created,
        "created_namespace": result.created_namespace,
        "uploaded": result.uploaded,
        "added": result.added,
        "modified": result.modified,
        "skipped": result.skipped,
        "changed_but_skipped": list(result.changed_but_skipped),
        "removed": result.removed,
        "removed_paths": list(result.removed_paths),
        "dry_run": result.dry_run,
        "bytes_read": result.bytes_read,
        "bytes_sent": result.bytes_sent,
        "bytes_new": result.bytes_new,
        "bytes_saved": result.bytes_saved,
        "objects_new": result.objects_new,
        "seconds": round(result.seconds, 3),
        "tags_left_behind": [
            {"tag": left.tag, "release": left.release, "version": left.version, "command": left.command}
            for left in result.tags_left_behind
        ],
    }


def release_shape(release: Release) -> dict[str, Any]:
    """Return one release of a dataset."""
    return {
        "dataset": release.dataset,
        "number": release.number,
        "uri": release.uri,
        "version_uri": release.version.uri,
        "path": release.path,
        "created_at": format_moment(release.created_at),
        "author": release.author,
        "description": release.description,
        "labels": dict(release.labels),
    }
