"""Make one directory of one version out of files from several places, by copies of which no byte moves."""

from __future__ import annotations

from vds.azureml.names import INTERNAL
from vds.azureml.selection import Selection, VersionPart
from vds.model.path import join
from vds.store import Store, Transaction, Version


def gather(store: Store, dataset: str, selection: Selection, number: int) -> Version:
    """Return a version in the dataset's namespace, seen from a directory with exactly these files (or from the only one).

    Args:
        store: where.
        dataset: whose; its vds name.
        selection: of versions.
        number: the release it is for: each has a directory of its own.
    """
    place = f"{number}-{selection.digest()[:16]}"
    with store.namespace(f"{INTERNAL}/datasets/{dataset}").transaction(f"files of {dataset}:{number}") as tx:
        for part in selection.parts:
            assert isinstance(part, VersionPart), part
            _copy(tx, part, join(place, part.prefix))
    whole = selection.whole()
    return tx.version.at(join(place, whole.view.path.rpartition("/")[2]) if whole and whole.is_file else place)


def _copy(tx: Transaction, part: VersionPart, place: str) -> None:
    if part.is_all:
        tx.copy(part.view, place)
        return
    prefix = len(part.prefix) + 1 if part.prefix else 0
    chosen = {file.path[prefix:] for file in part.files()}
    others = [entry.path for entry in part.view.entries() if entry.path not in chosen]
    if len(others) < len(chosen):  # each file named is some requests: name the fewer ones
        tx.copy(part.view, place)
        for path in others:
            tx.delete(join(place, path))
        return
    for name in sorted(chosen):
        tx.copy(part.view.at(name), join(place, name.rpartition("/")[0]))
