"""Registered datasets: what AzureML calls a dataset version is a release of a vds dataset, of the same number.

Guarantees:
- a release pins a version: what it shows never changes, whatever is uploaded to the same path later;
- a number is never given twice, also not after `unregister_all_versions`, which only hides what there was;
- descriptions and tags that were changed later are files of a namespace, with a history of their own.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vds.azureml.exceptions import ConflictException, NotFoundException
from vds.azureml.gathering import gather
from vds.azureml.names import INTERNAL, dataset_name, shown_name
from vds.azureml.selection import Selection, VersionPart
from vds.errors import NotFoundError
from vds.store import Release, Store

NOTES = f"{INTERNAL}/notes"
HIDDEN_TAG = "azureml-unregistered"
"""The tag that shows the last release which the SDK's names hide."""

_DEFINITION = "azureml.definition."
_DEFINITION_CHARS = 900
"""A label holds 1 024 bytes; a definition that is longer goes to several."""


@dataclass(frozen=True)
class Registered:
    """One version of a registered dataset.

    Attributes:
        name: as scripts call it.
        number: its version, from 1.
        definition: how a tabular dataset is read; empty for files.
    """

    store: Store
    name: str
    number: int
    release: Release
    description: str
    tags: dict[str, str]
    definition: dict[str, Any]

    @property
    def id(self) -> str:
        """A GUID that is the same whenever and wherever it is asked for."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"vds://{self.store.id}/{self.release.dataset.lower()}:{self.number}"))

    def selection(self) -> Selection:
        """Return its files.

        Raises:
            NotFoundError: the version it shows has expired.
        """
        view = self.release.version
        return Selection(self.store, [VersionPart(self.store, view, is_file=not view.children())])


@dataclass(frozen=True)
class Request:
    """What a script registers."""

    name: str
    selection: Selection
    description: str | None = None
    tags: Mapping[str, str] | None = None
    definition: Mapping[str, Any] | None = None
    create_new_version: bool = False


def register(store: Store, asked: Request) -> Registered:
    """Register a selection and return its release: the latest one, when that shows the same files from the same place.

    Raises:
        ConflictException: the name is registered with other data, and `create_new_version` was not given.
        InvalidInputError: a tag is too long, or there are too many.
    """
    inner = dataset_name(asked.name)
    latest = find_latest(store, asked.name)
    if latest is not None:
        if _is_same(latest, asked):
            return _with_notes(latest, asked)
        if not asked.create_new_version:
            raise ConflictException(
                f'There is already a dataset registered under name "{asked.name}". Specify `create_new_version=True` to register'
                " the dataset as a new version. Use `update`, `add_tags`, or `remove_tags` to change only the description or"
                " tags."
            )
    known = _last_number(store, inner)
    whole = asked.selection.whole()
    definition = dict(asked.definition or {})
    labels = {**{str(key): str(value) for key, value in (asked.tags or {}).items()}, **_labels(definition)}
    dataset = store.dataset(inner)
    if whole is not None:
        release = dataset.register(whole.view, description=asked.description, labels=labels)
        if release.number > known:
            return _registered(store, release)
    # A glob, several places, or a version that an earlier release shows already: a copy, of which no byte moves.
    copied = gather(store, inner, asked.selection, known + 1)
    return _registered(store, dataset.register(copied, description=asked.description, labels=labels))


def find_latest(store: Store, name: str) -> Registered | None:
    """Return the latest version of a dataset; None when there is none that is not hidden."""
    try:
        release = store.dataset(dataset_name(name)).release()
    except NotFoundError:
        return None
    return None if release.number <= _hidden(store, release.dataset) else _registered(store, release)


def get(store: Store, name: str, version: int | str = "latest") -> Registered:
    """Return one version of a dataset: by number, "latest", or a tag of the dataset.

    Raises:
        NotFoundException: there is none.
    """
    inner = dataset_name(name)
    try:
        release = store.dataset(inner).release(version)
    except NotFoundError as err:
        raise _not_there(store, name, version, f"{err.message}; ") from err
    if release.number <= _hidden(store, inner):
        raise _not_there(store, name, version)
    return _registered(store, release)


def list_all(store: Store) -> Iterator[tuple[str, str]]:
    """Yield the name of each dataset that is not hidden, as scripts call it and as vds does."""
    for info in store.datasets():
        if info.releases > _hidden(store, info.name):
            yield shown_name(info.name), info.name


def find_by_id(store: Store, wanted: str) -> Registered:
    """Return the version of that id; it costs all releases of the store.

    Raises:
        NotFoundException: there is none.
    """
    for _, inner in list_all(store):
        hidden = _hidden(store, inner)
        for release in store.dataset(inner).releases():
            if release.number > hidden:
                found = Registered(store, shown_name(inner), release.number, release, "", {}, {})
                if found.id == str(wanted).lower():
                    return _registered(store, release)
    raise NotFoundException(
        f"Cannot find dataset with id {wanted} in the workspace.", hint="Dataset.get_by_name(workspace, name)"
    )


def hide(store: Store, name: str) -> None:
    """Hide all versions that there are; they stay in the store, and the next one goes on with the next number."""
    dataset = store.dataset(dataset_name(name))
    dataset.tag(HIDDEN_TAG, dataset.release().number, reason="unregister_all_versions")


def note(registered: Registered, *, description: str, tags: Mapping[str, str]) -> Registered:
    """Replace the description and tags of a version."""
    store, path = registered.store, _note_path(registered.release)
    wanted = {str(key): str(value) for key, value in tags.items()}
    if (registered.description, registered.tags) != (description, wanted):
        with store.namespace(NOTES).transaction(f"note on {registered.release.uri}") as tx:
            tx.write_text(path, json.dumps({"description": description, "tags": wanted}, indent=2, sort_keys=True) + "\n")
    return replace(registered, description=description, tags=wanted)


def _with_notes(latest: Registered, asked: Request) -> Registered:
    description = latest.description if asked.description is None else asked.description
    return note(latest, description=description, tags=latest.tags if asked.tags is None else asked.tags)


def _is_same(latest: Registered, asked: Request) -> bool:
    view, whole = latest.release.version, asked.selection.whole()
    if latest.definition != dict(asked.definition or {}) or latest.release.expired_at is not None:
        return False
    is_gathered = view.namespace.startswith(f"{INTERNAL}/")
    is_place = whole is not None and (whole.view.namespace, whole.view.path) == (view.namespace, view.path)
    return (is_place or is_gathered) and view.content_digest.hex == asked.selection.digest()


def _registered(store: Store, release: Release) -> Registered:
    labels = dict(release.labels)
    parts = sorted((key, labels.pop(key)) for key in list(labels) if key.startswith(_DEFINITION))
    definition = json.loads("".join(text for _, text in parts)) if parts else {}
    found = Registered(store, shown_name(release.dataset), release.number, release, release.description or "", labels, definition)
    raw = _find_note(found)
    return found if raw is None else replace(found, description=raw["description"], tags=raw["tags"])


def _find_note(registered: Registered) -> dict[str, Any] | None:
    path = _note_path(registered.release)
    try:
        found: dict[str, Any] = json.loads(registered.store.namespace(NOTES).latest().read_bytes(path))
    except NotFoundError:
        return None
    return found


def _note_path(release: Release) -> str:
    return f"{release.dataset.lower()}/{release.number}.json"


def _labels(definition: Mapping[str, Any]) -> dict[str, str]:
    if not definition:
        return {}
    text = json.dumps(definition, sort_keys=True)
    return {
        f"{_DEFINITION}{number:03}": text[start : start + _DEFINITION_CHARS]
        for number, start in enumerate(range(0, len(text), _DEFINITION_CHARS))
    }


def _hidden(store: Store, inner: str) -> int:
    try:
        tags = store.dataset(inner).tags()
    except NotFoundError:
        return 0
    return tags[HIDDEN_TAG].number if HIDDEN_TAG in tags else 0


def _last_number(store: Store, inner: str) -> int:
    try:
        return store.dataset(inner).release().number
    except NotFoundError:
        return 0


def _not_there(store: Store, name: str, version: int | str, why: str = "") -> NotFoundException:
    known = sorted(shown for shown, _ in list_all(store))
    shown = ", ".join(known[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "") or "none"
    return NotFoundException(
        f'Cannot find dataset registered with name "{name}" (version: {version}) in the workspace.',
        hint=f"{why}registered: {shown}",
    )
