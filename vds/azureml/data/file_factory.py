"""Makes datasets out of paths of datastores, and of local directories."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path
from typing import Any

from vds.azureml.data.azure_storage_datastore import AzureBlobDatastore
from vds.azureml.data.data_reference import DataReference
from vds.azureml.data.datapath import DataPath
from vds.azureml.data.file_dataset import FileDataset
from vds.azureml.exceptions import UserErrorException
from vds.azureml.faces import DatastoreFace
from vds.azureml.globs import clean_path
from vds.azureml.notices import ignore, write_lines
from vds.azureml.selection import Selection, select

_WRONG_PATH = (
    "Invalid argument type for `path`. It can be single value or a list of: `DataPath` object, `DataReference` object,"
    " or tuple of `Datastore` object and string for relative path in the datastore."
)


class FileDatasetFactory:
    """`Dataset.File`."""

    @staticmethod
    def from_files(path: Any, validate: bool = True, partition_format: str | None = None, is_file: bool = False) -> FileDataset:
        """Return a dataset of the files at a path, pinned as they are now.

        Args:
            path: a tuple (datastore, path), DataPath or DataReference, or a list of such; `*`, `?` and `**` are globs.
            validate: no effect: what is not there is an error in any case.
            partition_format: no effect: it makes columns, which files have not.
            is_file: no effect: whether it is a file is seen.

        Raises:
            NotFoundException: there is nothing at a path.
            UserErrorException: it is no path of a datastore.
        """
        ignore("Dataset.File.from_files", "files have no columns", partition_format=partition_format)
        return FileDataset(select_paths(path))

    @staticmethod
    def upload_directory(
        src_dir: str | os.PathLike[str],
        target: Any,
        pattern: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
    ) -> FileDataset:
        """Upload a directory as one version, and return a dataset of what is then at the target, pinned; not registered.

        Args:
            src_dir: the directory.
            target: a datastore, DataPath, DataReference or tuple (datastore, path).
            pattern: upload only files whose absolute paths match, as fnmatch does: `*.csv` at any depth.
            overwrite: replace files that are there; False keeps them, and says which of them differ.
            show_progress: print lines on stdout.

        Raises:
            UserErrorException: `src_dir` is no directory, `target` no place, or no file matches `pattern`.
            UploadError: some files could not be read; nothing is visible.
        """
        show = write_lines if show_progress else lambda lines: None
        show(["Validating arguments."])
        datastore, place = parse_target(target)
        root = Path(os.path.abspath(src_dir))
        show(["Arguments validated."])
        verb = "overwritten." if overwrite else "skipped.'"
        show([f"'overwrite' is set to {overwrite}. Any file already present in the target will be {verb}"])
        show([f"Uploading files from '{root.as_posix()}' to '{place}'"])
        if pattern is None:
            made = datastore.upload(root, place, overwrite, show_progress=False)
        else:
            show([f"Filtering files with pattern matching {pattern}"])
            made = datastore.upload_files(_matching(root, pattern), root, place, overwrite, show_progress=False)
        show([f"Uploaded {made.uploaded} files.", "Creating new dataset"])
        return FileDataset(select(made))


def select_paths(path: Any) -> Selection:
    """Return the files at what a script calls a path, pinned.

    Raises:
        NotFoundException: there is nothing at a path.
        UserErrorException: it is no path of a datastore.
    """
    paths = path if isinstance(path, list) else [path]
    if not paths:
        raise UserErrorException(_WRONG_PATH, hint='for example (datastore, "raw/2024")')
    for one in paths:
        if isinstance(one, str):
            is_url = "://" in one
            raise UserErrorException(
                f"{one!r} is a url, and vds reads none. " + _WRONG_PATH if is_url else _WRONG_PATH,
                hint="download it, and upload it to a datastore"
                if is_url
                else f'(datastore, {one!r}) after datastore.upload("…")',
            )
        if isinstance(one, tuple) and not (len(one) == 2 and isinstance(one[0], AzureBlobDatastore) and isinstance(one[1], str)):
            raise UserErrorException(
                "Invalid tuple for path. Please make sure the tuple consists of a datastore and a path/SQL query"
            )
        if not isinstance(one, tuple | DataPath | DataReference):
            raise UserErrorException(_WRONG_PATH, hint=f"{one!r} is none")
    return select(list(paths))


def parse_target(target: Any) -> tuple[DatastoreFace, str]:
    """Return the datastore and path that a target means.

    Raises:
        UserErrorException: it means none.
    """
    if isinstance(target, AzureBlobDatastore):
        return target, ""
    if isinstance(target, DataPath | DataReference):
        return target.datastore, clean_path(target.path_on_datastore)
    if isinstance(target, tuple) and len(target) == 2 and isinstance(target[0], AzureBlobDatastore):
        return target[0], clean_path(target[1])
    raise UserErrorException(f"target {target!r} is no place in a datastore", hint='give a datastore, or (datastore, "path")')


def _matching(root: Path, pattern: str) -> list[str]:
    if not root.is_dir():
        raise UserErrorException(f"{str(root)!r} is not a directory")
    files = [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names]
    found = [file for file in files if fnmatch.fnmatch(Path(file).as_posix(), pattern)]
    if not found:
        raise UserErrorException(f"No files found with pattern {pattern}", hint="it is held against absolute paths: '*.csv'")
    return found
