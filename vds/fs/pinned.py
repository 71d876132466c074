"""File systems whose paths begin with a ref: which version that is, and what of it goes along to other processes.

A path is what follows `vds://`: a ref, then where in that version. The ref takes part in no path arithmetic, since it may hold
`/`, and no url parser sees it, since `customers:prod` is no host and port. The top of a version is its own parent.

Guarantees:
- a ref is resolved once a process and stays pinned until `vds.refresh()`;
- a file system that is pickled, or written as JSON, takes the pins of the refs it has read along, and no secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fsspec.spec import AbstractFileSystem

from vds.errors import EntryNotFoundError, NotFoundError, redact
from vds.model.ref import SCHEME, parse_ref_path
from vds.pins import PINS
from vds.store import Store, Version

_REF = re.compile(r"[^@:]*[@:][^/]*")


class PinnedFileSystem(AbstractFileSystem):  # type: ignore[misc] # fsspec has no annotations
    """What a file system of versions is made with, and how it finds them. Thread-safe.

    Storage options, as `vds.connect` takes them: `store`, `index`, `credential`. Fsspec adds `ref`, the one in the url, so that a
    file which is pickled before it was opened has it resolved by then; `pins` come with a pickle.
    """

    protocol = "vds"
    root_marker = ""

    def __init__(
        self,
        *,
        store: str | os.PathLike[str] | None = None,
        index: str | None = None,
        credential: object = None,
        ref: str | None = None,
        pins: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._place = (None if store is None else os.fspath(store), index, credential)
        self._pins = dict(pins or {})
        self._url_ref = ref
        self._refs = {ref} if ref else set()
        self._generation = PINS.generation

    @property
    def storage_options(self) -> dict[str, Any]:
        """What it was made with, but for secrets: a credential, a signature or a password in an address."""
        return self._storage_options

    @storage_options.setter
    def storage_options(self, options: Mapping[str, Any]) -> None:
        # Set by fsspec. Pickles, dask's graphs and other libraries' error messages are made of it.
        kept = {name: value for name, value in options.items() if name != "credential"}
        for name in kept.keys() & {"store", "index"}:
            if kept[name] is not None:
                kept[name] = redact(os.fspath(kept[name]).partition("?")[0])
        self._storage_options = kept

    def __reduce__(self) -> tuple[Any, ...]:
        versions = self._versions()
        return (_unpickle, (type(self), self._travelling(versions), self._store, list(versions.values()), self._fs_token))

    def to_dict(self, *, include_password: bool = True) -> dict[str, Any]:
        """Return it as plain values, with its pins and without any secret: what `to_json` writes."""
        kind = type(self)
        return {"cls": f"{kind.__module__}:{kind.__name__}", "protocol": "vds", "args": [], **self._travelling(self._versions())}

    @property
    def fsid(self) -> str:
        """The id of the store."""
        return f"vds-{self._store.id}"

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        found = _REF.match(path.removeprefix(SCHEME))
        return {"ref": found.group()} if found else {}

    @classmethod
    def _parent(cls, path: str) -> str:
        path = cls._strip_protocol(path)
        ref = _REF.match(path)
        if ref is None:
            return ""
        return path.rpartition("/")[0] if ref.end() < len(path) else path

    def _locate(self, path: str) -> tuple[Version, str, str]:
        """Return the version, the place in it, and the name under which it is listed.

        Raises:
            InvalidInputError: the path does not parse.
            EntryNotFoundError: there is no such version.
        """
        name = self._strip_protocol(path)
        _, place = parse_ref_path(SCHEME + name)
        ref = _REF.match(name)
        assert ref is not None, name  # it has parsed
        return self._get_version(ref.group()), place, f"{ref.group()}/{place}".rstrip("/")

    @property
    def _store(self) -> Store:
        return PINS.open_store(*self._place)

    def _get_version(self, ref: str) -> Version:
        self._follow_refresh()
        store = self._store  # that there is no store is another matter than that it has no such version
        try:
            version = PINS.get(store, self._pins.get(ref, ref))
        except NotFoundError as err:
            raise EntryNotFoundError(err.message, hint=err.hint) from err  # readers look for a FileNotFoundError
        self._refs.add(ref)
        return version

    def _follow_refresh(self) -> None:
        if self._generation != PINS.generation:
            self._pins, self._generation = {}, PINS.generation
            self._refs = {self._url_ref} if self._url_ref else set()

    def _versions(self) -> dict[str, Version]:
        """Return what the refs mean that were read here, came along, or stand in the url this was made for."""
        self._follow_refresh()
        return {ref: self._get_version(ref) for ref in sorted(self._refs | self._pins.keys())}

    def _travelling(self, versions: Mapping[str, Version]) -> dict[str, Any]:
        """Return the options that make an equal file system elsewhere."""
        options = {name: value for name, value in self.storage_options.items() if name not in ("store", "index", "ref")}
        options["store"] = self._store.url
        if self._place[1] is not None:
            options["index"] = self._store.index
        return {**options, "pins": {ref: version.uri for ref, version in versions.items()}}


def _unpickle(
    kind: type[PinnedFileSystem], options: Mapping[str, Any], store: Store, versions: Sequence[Version], token: str
) -> PinnedFileSystem:
    PINS.keep_store(store.url, options.get("index"), store)
    for version in versions:
        PINS.keep(store, version)
    # Not from fsspec's cache of instances: one there may have let go of these very pins.
    made = kind(skip_instance_cache=True, **options)
    made._fs_token_ = token  # it is equal to what was pickled
    return made
