"""A reference to a path of a datastore."""

from __future__ import annotations

import os
import uuid
from typing import Any

from vds.azureml.exceptions import UserErrorException
from vds.azureml.faces import DatastoreFace
from vds.azureml.selection import Selection, pin
from vds.store import UploadResult, Version

MODES = ("mount", "download", "upload")


class DataReference:
    """A path of a datastore, and how a step gets at it.

    One that an upload returned is pinned: it means the version that the upload made, for ever. Any other means the newest version
    at the moment it is used. It can stand where a local path is wanted (`os.fspath`): that brings the files to this machine.

    Attributes:
        version: the version that an upload made, or found to hold everything already; None for other references.
        uri: `vds://NAMESPACE@NUMBER/PATH` of it.
        uploaded: how many files the upload changed.
        skipped: how many it left as they were.
        changed_but_skipped: paths that stayed although their contents differ from the source's.
    """

    def __init__(
        self,
        datastore: DatastoreFace,
        data_reference_name: str | None = None,
        path_on_datastore: str | None = None,
        mode: str = "mount",
        path_on_compute: str | None = None,
        overwrite: bool = False,
    ) -> None:
        """Refer to a path.

        Raises:
            UserErrorException: `mode` is none of mount, download and upload.
        """
        if mode not in MODES:
            raise UserErrorException(f"Invalid mode {mode}. Only mount, download, upload are supported")
        self.datastore = datastore
        self.path_on_datastore = path_on_datastore
        self.mode = mode
        self.path_on_compute = path_on_compute
        self.overwrite = overwrite
        is_inner = bool(path_on_datastore) and not _is_root(path_on_datastore)
        self.data_reference_name = data_reference_name or (uuid.uuid4().hex if is_inner else datastore.name)
        self._result: UploadResult | None = None

    @classmethod
    def uploaded_to(cls, datastore: DatastoreFace, result: UploadResult) -> DataReference:
        """Return the reference that an upload returns."""
        made = cls(datastore, path_on_datastore=result.target_path)
        made._result = result
        return made

    @property
    def name(self) -> str:
        """The reference's name."""
        return self.data_reference_name

    @property
    def version(self) -> Version | None:
        """The version that an upload made; None for other references."""
        return None if self._result is None else self._result.version

    @property
    def uri(self) -> str | None:
        """`vds://NAMESPACE@NUMBER/PATH` of an upload; None for other references."""
        return None if self._result is None else self._result.uri

    @property
    def uploaded(self) -> int | None:
        """How many files the upload changed; None for other references."""
        return None if self._result is None else self._result.uploaded

    @property
    def skipped(self) -> int | None:
        """How many files the upload left as they were; None for other references."""
        return None if self._result is None else self._result.skipped

    @property
    def changed_but_skipped(self) -> list[str]:
        """Paths that stayed although their contents differ from the source's; empty unless overwrite=False skipped some."""
        return [] if self._result is None else list(self._result.changed_but_skipped)

    def path(self, path: str | None = None, data_reference_name: str | None = None) -> DataReference:
        """Return the reference to a path below this one."""
        if not path or _is_root(path):
            if not data_reference_name:
                return self
            # As the SDK: a new name makes it a reference to the whole datastore.
            return DataReference(self.datastore, data_reference_name)
        is_root = not self.path_on_datastore or _is_root(self.path_on_datastore)
        made = DataReference(self.datastore, data_reference_name, path if is_root else f"{self.path_on_datastore}/{path}")
        made._result = self._result
        return made

    def as_download(self, path_on_compute: str | None = None, overwrite: bool = False) -> DataReference:
        """Return a copy in mode download."""
        return self._copy(mode="download", path_on_compute=path_on_compute)

    def as_upload(self, path_on_compute: str | None = None, overwrite: bool = False) -> DataReference:
        """Return a copy in mode upload."""
        return self._copy(mode="upload", path_on_compute=path_on_compute)

    def as_mount(self) -> DataReference:
        """Return a copy in mode mount."""
        return self._copy(mode="mount")

    def as_input(self, name: str | None = None) -> DataReference:
        """Return a copy under a name, as an input of a step; AzureML has this for outputs only."""
        return self._copy(data_reference_name=name or self.data_reference_name)

    @staticmethod
    def create(
        data_reference_name: str | None = None, datapath: Any = None, datapath_compute_binding: Any = None
    ) -> DataReference:
        """Return the reference to a DataPath, with the mode of a DataPathComputeBinding.

        Raises:
            ValueError: one of the two is missing.
        """
        if datapath is None or datapath_compute_binding is None:
            raise UserErrorException("datapath and datapath_compute_binding are expected parameters")
        return DataReference(
            datapath.datastore,
            data_reference_name,
            datapath.path_on_datastore,
            datapath_compute_binding.mode,
            datapath_compute_binding.path_on_compute,
            datapath_compute_binding.overwrite,
        )

    def vds_selection(self) -> Selection:
        """Return the files it means: those of the upload that made it, else of the newest version now."""
        return pin(self.datastore, self.path_on_datastore, self.version)

    def __fspath__(self) -> str:
        selection = self.vds_selection()
        selection.record(self.data_reference_name)
        return os.fspath(selection.place())

    def __str__(self) -> str:
        return f"$AZUREML_DATAREFERENCE_{self.data_reference_name}"

    __repr__ = __str__

    def _copy(self, **changed: Any) -> DataReference:
        facts = {
            "data_reference_name": self.data_reference_name,
            "path_on_datastore": self.path_on_datastore,
            "mode": self.mode,
            "path_on_compute": self.path_on_compute,
            "overwrite": self.overwrite,
            **changed,
        }
        made = DataReference(self.datastore, **facts)
        made._result = self._result
        return made


def _is_root(path: str | None) -> bool:
    return path in ("/", ".", "./")
