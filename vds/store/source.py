"""Where a copy or a registration takes its entries from: a version, or whatever names one."""

from __future__ import annotations

from vds.engine.resolve import resolve
from vds.errors import InvalidInputError
from vds.model.ref import parse_ref_path
from vds.store.handle import Handle
from vds.store.kept import find_kept
from vds.store.version import Version


def find_version(handle: Handle, ref: str) -> Version:
    """Return the version that a ref (with or without a path, or a uri) names.

    Raises:
        InvalidInputError: the ref does not parse.
        NotFoundError: there is no such version.
        EntryNotFoundError: there is nothing at its path.
        UnavailableError: the store does not answer, and the version is not kept on this machine.
    """
    parsed, path = parse_ref_path(ref)
    kept = find_kept(handle, parsed) if handle.is_offline else None
    if kept is not None:
        return kept.at(path) if path else kept
    resolution = resolve(handle.doors, parsed, path)
    version = Version(handle, resolution)
    return version.at(resolution.path) if resolution.path else version


def find_source(handle: Handle, source: object) -> Version:
    """Return a source as a version of this store.

    Raises:
        InvalidInputError: it is neither a version nor a ref, or is a version of another store.
    """
    if isinstance(source, str):
        return find_version(handle, source)
    version = getattr(source, "version", source)  # a Release or an UploadResult has the version it is about
    if not isinstance(version, Version):
        raise InvalidInputError(f"{source!r} is neither a Version nor a ref", hint="for example 'team/raw@12'")
    if version._handle.address.url != handle.address.url:
        raise InvalidInputError(
            f"{version.uri} is a version of another store, {version._handle.address.url}",
            hint="download it from there and upload it here",
        )
    return version
