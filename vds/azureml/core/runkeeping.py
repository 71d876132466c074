"""What a run keeps: files, metrics, tags and properties."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vds.azureml.core.runrecord import RunRecord
from vds.azureml.exceptions import NotFoundException, UserErrorException
from vds.azureml.local import artifacts
from vds.azureml.local.workdir import METRICS
from vds.azureml.notices import write_lines


class RunKeeping(RunRecord):
    """The part of a run that stores what its script wants kept, also outside of any pipeline."""

    def flush(self, timeout_seconds: float = 300) -> None:
        """Do nothing: what is stored is stored when a call returns."""

    def upload_file(self, name: str, path_or_stream: Any, datastore_name: str | None = None) -> None:
        """Keep a file with the run, under a name; the same name again is a new version, and equal content changes nothing.

        Raises:
            UserErrorException: there is no such file.
        """
        if hasattr(path_or_stream, "read"):
            with tempfile.TemporaryDirectory() as directory:
                path = Path(directory, "stream")
                body = path_or_stream.read()
                path.write_bytes(body.encode() if isinstance(body, str) else body)
                artifacts.keep_file(self._store, self._recorded().id, name, path)
            return
        path = Path(path_or_stream)
        if not path.exists():
            raise UserErrorException(f"there is no file {os.fspath(path)!r} to keep as {name!r}")
        artifacts.keep_file(self._store, self._recorded().id, name, path)

    def upload_files(
        self,
        names: Iterable[str],
        paths: Iterable[str],
        return_artifacts: bool = False,
        timeout_seconds: float | None = None,
        datastore_name: str | None = None,
    ) -> None:
        """Keep files with the run, each under its name."""
        for name, path in zip(names, paths, strict=True):
            self.upload_file(name, path)

    def upload_folder(self, name: str, path: str, datastore_name: str | None = None) -> None:
        """Keep the files of a directory with the run, below a name."""
        self.upload_file(name, path)

    def download_file(self, name: str, output_file_path: str | None = None, **_: object) -> None:
        """Write a file that was kept with the run to this machine.

        Raises:
            NotFoundException: it has none of this name.
        """
        version = next((version for version in self._artifacts() if version.exists(name)), None)
        if version is None:
            raise NotFoundException(f"run {self.id} has kept no file {name!r}", hint="run.get_file_names()")
        target = Path(output_file_path or os.path.basename(name))
        if target.is_dir():
            target /= os.path.basename(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(version.read_bytes(name))

    def download_files(self, prefix: str | None = None, output_directory: str | None = None, **_: object) -> None:
        """Write the files that were kept with the run below a prefix to this machine."""
        for name in self.get_file_names():
            if name.startswith(prefix or ""):
                self.download_file(name, os.path.join(output_directory or ".", name))

    def get_file_names(self) -> list[str]:
        """Return the names of the files that were kept with the run."""
        names = {entry.path for version in self._artifacts() for entry in version.entries()}
        return sorted(name for name in names if not artifacts.is_notes(name))

    def log(self, name: str, value: Any, description: str = "", step: int | None = None) -> None:
        """Keep a metric, and print it where no run is submitted."""
        self._log("scalar metric", name, value)

    def log_list(self, name: str, value: Any, description: str = "") -> None:
        """Keep a list of values."""
        self._log("list", name, list(value))

    def log_row(self, name: str, description: str | None = None, **kwargs: Any) -> None:
        """Keep a row of named values."""
        self._log("row", name, kwargs)

    def log_table(self, name: str, value: Any, description: str = "") -> None:
        """Keep a table."""
        self._log("table", name, value)

    def log_image(self, name: str, path: str | None = None, plot: Any = None, description: str = "") -> None:
        """Keep an image: a file, or a plot of matplotlib's."""
        if path is not None:
            self.upload_file(f"images/{name}", path)
            return
        with tempfile.TemporaryDirectory() as directory:
            file = os.path.join(directory, "plot.png")
            plot.savefig(file)
            self.upload_file(f"images/{name}.png", file)

    log_confusion_matrix = log_accuracy_table = log_residuals = log_predictions = log_table

    def get_metrics(self, name: str | None = None, **_: object) -> dict[str, Any]:
        """Return what was logged: name → value, or the list of values where there are several."""
        found = {key: values[0] if len(values) == 1 else values for key, values in self._noted("name").items()}
        return found if name is None else {key: value for key, value in found.items() if key == name}

    def tag(self, key: str, value: str | None = None) -> None:
        """Tag the run."""
        self._note("tag", key, str(value))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tag the run with several."""
        for key, value in tags.items():
            self.tag(key, value)

    def get_tags(self) -> dict[str, str]:
        """Return the tags."""
        info = self._info
        given = {} if info is None else {key[4:]: value for key, value in info.params.items() if key.startswith("tag ")}
        return given | {key: values[-1] for key, values in self._noted("tag").items()}

    tags = property(get_tags)

    def add_properties(self, properties: Mapping[str, str]) -> None:
        """Note properties."""
        for key, value in properties.items():
            self._note("property", key, str(value))

    def get_properties(self) -> dict[str, str]:
        """Return what is known of how it ran: whether an earlier result was used again, too."""
        info = self._info
        known = {} if info is None else {key: str(value) for key, value in info.provenance.items()}
        if info is not None and info.kind == "step":
            known["azureml.isreused"] = "true" if info.reused else "false"
            if info.reused:
                known["azureml.reusedrunid"] = info.reused
        return known | {key: values[-1] for key, values in self._noted("property").items()}

    properties = property(get_properties)

    def _log(self, what: str, name: str, value: Any) -> None:
        if self._id.startswith("OfflineRun_"):
            write_lines([f"Attempted to log {what} {name}:", str(value)])
        self._note("name", name, value)

    def _note(self, kind: artifacts.NoteKind, name: str, value: Any) -> None:
        """Note something; of a run that this process does, it is kept when that ends, of any other one at once."""
        line = artifacts.note_line(kind, name, _plain(value))
        if self._file is not None:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(line)
            return
        run = self._recorded().id
        self._lines.append(line)
        if self._own is None or self._own.status != "running":
            artifacts.keep_text(self._store, run, self._notes, "".join(self._lines))

    def _noted(self, kind: artifacts.NoteKind) -> dict[str, list[Any]]:
        return artifacts.read_notes(self._all_notes(), kind)

    def _all_notes(self) -> Iterator[str]:
        """Yield the lines that are kept, and those of this process that are not yet."""
        for version in self._artifacts():
            names = [entry.path for entry in version.entries() if artifacts.is_notes(entry.path)]
            for name in sorted(names, key=lambda name: name != METRICS):  # those of the run itself first
                if name != METRICS or self._file is None:
                    yield from version.read_text(name).splitlines()
        if self._file is not None and self._file.exists():
            yield from self._file.read_text(encoding="utf-8").splitlines()
        if self._own is not None and self._own.status == "running":
            yield from self._lines


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; numbers of numpy's are numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)
