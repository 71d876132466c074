"""Datasets of files."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from typing import NoReturn

from vds.azureml.data.abstract_dataset import AbstractDataset, refuse
from vds.azureml.data.dataset_consumption_config import DatasetConsumptionConfig
from vds.azureml.data.kinds import FILES, kind
from vds.azureml.exceptions import ConflictException, UserErrorException
from vds.azureml.selection import Selection
from vds.azureml.views import remove_view


@kind(FILES)
class FileDataset(AbstractDataset):
    """Files of one or several versions, pinned."""

    def to_path(self) -> list[str]:
        """Return the paths of the files, by path, relative to what they have in common, each with a slash before it.

        They are no local paths: `mount` and `download` give those.
        """
        self._selection.record(self.name)
        return [f"/{path}" for path in self._selection.files()]

    def download(
        self, target_path: str | os.PathLike[str] | None = None, overwrite: bool = False, ignore_not_found: bool = False
    ) -> list[str]:
        """Copy the files into a directory; returns their local paths, by path.

        Args:
            target_path: made if it is not there; None for a new temporary directory.
            overwrite: replace files that are there.
            ignore_not_found: no effect: a pinned file is always there.

        Raises:
            ConflictException: a file is there, and `overwrite` was not given; nothing was written.
            DownloadError: some files could not be written; each is whole or absent.
        """
        directory = Path(os.path.abspath(target_path)) if target_path is not None else Path(tempfile.mkdtemp(prefix="vds-"))
        places = [directory / path for path in self._selection.files()]
        present = [] if overwrite else [str(place) for place in places if os.path.lexists(place)]
        if present:
            raise ConflictException(
                f"{len(present)} files are there already, and overwrite=False: {', '.join(present[:5])}",
                paths=present[:100],
                hint="download(target, overwrite=True), or choose an empty directory",
            )
        directory.mkdir(parents=True, exist_ok=True)
        self._selection.copy_to(directory)
        self._selection.record(self.name)
        return [str(place) for place in places]

    def mount(self, mount_point: str | os.PathLike[str] | None = None, **more: object) -> MountContext:
        """Return a context in which the files are in a local, read-only directory; nothing is mounted, they are fetched.

        Args:
            mount_point: an empty directory, or one that is not there; None for one in the cache.
            more: no effect.

        Raises:
            UserErrorException: `mount_point` is not empty.
        """
        return MountContext(self._selection, mount_point, self.name)

    def as_mount(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """Return it as an input of a step, as a read-only local directory."""
        return DatasetConsumptionConfig(None, self, "mount", path_on_compute)

    def as_download(self, path_on_compute: str | None = None) -> DatasetConsumptionConfig:
        """Return it as an input of a step, as a local directory."""
        return DatasetConsumptionConfig(None, self, "download", path_on_compute)

    def skip(self, count: int) -> FileDataset:
        """Return a dataset without the first files, by path."""
        return self._only(self._selection.files()[count:])

    def take(self, count: int) -> FileDataset:
        """Return a dataset of the first files, by path."""
        return self._only(self._selection.files()[:count])

    def take_sample(self, probability: float, seed: int | None = None) -> FileDataset:
        """Return a dataset of files taken at random; the same seed takes the same ones."""
        return self.random_split(probability, seed)[0]

    def random_split(self, percentage: float, seed: int | None = None) -> tuple[FileDataset, FileDataset]:
        """Return two datasets that have each file once, the first about this share of them; the same seed splits the same.

        Raises:
            UserErrorException: `percentage` is not between 0 and 1, or one of the two would be empty.
        """
        if not 0 <= percentage <= 1:
            raise UserErrorException(f"percentage {percentage!r} is not between 0 and 1")
        draw = random.Random(seed)  # noqa: S311 - a sample, no secret
        first: list[str] = []
        second: list[str] = []
        for path in self._selection.files():
            (first if draw.random() < percentage else second).append(path)
        return self._only(first), self._only(second)

    def file_metadata(self, col: str) -> NoReturn:
        """Refuse: filters by metadata are evaluated by the service."""
        refuse("FileDataset.file_metadata", "Dataset.File.from_files with a glob, or take and skip")

    def filter(self, expression: object) -> NoReturn:
        """Refuse: see `file_metadata`."""
        refuse("FileDataset.filter", "Dataset.File.from_files with a glob, or take and skip")

    def as_hdfs(self) -> NoReturn:
        """Refuse: this needs Synapse Spark."""
        refuse("FileDataset.as_hdfs", "as_mount() gives a local directory")

    def as_cache(self, datacache_store: object) -> NoReturn:
        """Refuse: vds has a cache of its own."""
        refuse("FileDataset.as_cache", "nothing: what was read is cached on this machine (vds cache list)")

    def hydrate(self, datacache_store: object, replica_count: int | None = None) -> NoReturn:
        """Refuse: see `as_cache`."""
        refuse("FileDataset.hydrate", "nothing: what was read is cached on this machine (vds cache list)")

    def _only(self, paths: list[str]) -> FileDataset:
        return FileDataset(self._selection.only(paths))


class MountContext:
    """Local files of a dataset, from `start` (or the begin of a `with`) to `stop`.

    Attributes:
        mount_point: the directory; the file itself where the dataset is one file.
    """

    def __init__(self, selection: Selection, mount_point: str | os.PathLike[str] | None, name: str | None) -> None:
        self._selection = selection
        self._asked = None if mount_point is None else Path(os.path.abspath(mount_point))
        self._name = name
        self._place: Path | None = None
        if self._asked is not None and self._asked.exists() and (not self._asked.is_dir() or any(self._asked.iterdir())):
            raise UserErrorException(f"mount point {str(self._asked)!r} is not empty", hint="leave mount_point out")

    @property
    def mount_point(self) -> str:
        """Where the files are, or will be; asking starts it."""
        self.start()
        return str(self._place)

    def start(self) -> None:
        """Fetch the files; again is harmless.

        Raises:
            DownloadError: some could not be fetched.
        """
        if self._place is not None:
            return
        if self._asked is None:
            self._place = self._selection.place()
        else:
            self._selection.copy_to(self._asked, link=True)
            self._place = self._asked
        self._selection.record(self._name)

    def stop(self) -> None:
        """End it; what was put into a directory of the caller's is removed."""
        if self._place is not None and self._asked is not None:
            remove_view(self._asked)
        self._place = None

    def __enter__(self) -> MountContext:
        self.start()
        return self

    def __exit__(self, *ended: object) -> None:
        self.stop()
