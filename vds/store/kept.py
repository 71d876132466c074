"""What this machine can read of a store that does not answer: the pinned versions in its cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vds.engine.doors import Doors
from vds.errors import UnavailableError
from vds.files.cache import open_cache
from vds.files.localmanifest import read_facts
from vds.model.digest import Digest
from vds.model.ref import NamespaceRef, Ref
from vds.store.handle import Address, Handle, Opener
from vds.store.version import Version

_NAMED_MAX = 10


def find_offline(address: Address, opener: Opener, open_here: Callable[[], Doors]) -> Handle | None:
    """Return a way to the versions of a store that are kept here, which opens the store when anything else is asked; or None."""
    if not any(True for _ in _kept(address.url)):
        return None
    handle = Handle(address, opener, open_here=open_here)
    handle.is_offline = True
    return handle


def find_kept(handle: Handle, ref: Ref) -> Version | None:
    """Return the version that a ref pins by its number, from the cache; None when the store answers again and is to be asked.

    Raises:
        UnavailableError: the ref can move, or its version is not kept here, and the store still does not answer.
    """
    if isinstance(ref, NamespaceRef) and ref.point.number is not None and not ref.point.back:
        for namespace, number, digest in _kept(handle.address.url):
            if (namespace.casefold(), number) == (ref.name.casefold(), ref.point.number):
                return Version.pinned(handle, namespace, number, digest)
    try:
        handle.open_again()
    except UnavailableError as err:
        raise _not_kept(handle) from err
    return None


def get_kept_digest(handle: Handle, namespace: str, number: int, digest: str, path: str = "") -> Version:
    """Return the version of a digest, from the cache; the digest says of which store and history it is.

    Raises:
        UnavailableError: it is not kept here; what is, is named.
    """
    version = Version.pinned(handle, namespace, number, digest, path)
    if version._pinned.manifest is None:
        raise _not_kept(handle)
    return version


def _kept(url: str) -> Iterator[tuple[str, int, str]]:
    """Yield namespace, number and digest of each version of a store whose list of files is in the cache."""
    cache = open_cache()
    for path in cache.manifests() if cache is not None else []:
        facts = read_facts(path)
        if facts is None or facts.get("url") != url:
            continue
        try:
            found = str(facts["namespace"]), int(facts["version"]["number"]), str(Digest(f"b3:{facts['version']['digest']}"))
        except (KeyError, TypeError, ValueError):
            continue  # no file of ours: nothing in it was checked
        yield found


def _not_kept(handle: Handle) -> UnavailableError:
    names = sorted(f"{namespace}@{number}" for namespace, number, _ in _kept(handle.address.url))
    shown = ", ".join(names[:_NAMED_MAX]) + (f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else "")
    return UnavailableError(
        f"{handle.address.url} does not answer; this machine has kept {shown}",
        hint="name one of these, or try again when the store can be reached",
    )
