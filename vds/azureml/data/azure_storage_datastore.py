"""Blob datastores: what scripts upload to and download from."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from vds.azureml.data.data_reference import DataReference
from vds.azureml.data.receiving import Download, download_files
from vds.azureml.data.sending import LocalFiles, PathText, first_line, list_directory, list_files, upload_lines
from vds.azureml.data.telling import tell_of_upload
from vds.azureml.exceptions import ConflictException
from vds.azureml.faces import WorkspaceFace
from vds.azureml.globs import clean_path
from vds.azureml.notices import write_lines
from vds.azureml.plainpart import find_plain, list_plain
from vds.azureml.registrations import DEFAULT_ENDPOINT, DEFAULT_PROTOCOL, Registration, Registrations, find_secret
from vds.azureml.selection import Part
from vds.errors import ConflictError
from vds.store import Namespace, UploadResult
from vds.store.plain import PlainBlob

STRICT_TRIES = 5
"""How often a strict upload looks again because others committed between its look and its commit."""

_log = logging.getLogger(__name__)

Upload = Callable[..., UploadResult]


class AzureBlobDatastore:
    """A datastore: a namespace of the workspace's store, of the same name.

    Uploads are versions: whole or not there at all, and never overwritten. The attributes are those of the SDK; what they say of
    a container is what was registered, and that container is only read.
    """

    datastore_type = "AzureBlob"

    def __init__(
        self,
        workspace: WorkspaceFace,
        name: str,
        container_name: str | None = None,
        account_name: str | None = None,
        sas_token: str | None = None,
        account_key: str | None = None,
        protocol: str | None = None,
        endpoint: str | None = None,
        request_session: object = None,
        workspace_msi_has_access: bool = False,
        subscription_id: str | None = None,
        resource_group: str | None = None,
        service_data_access_auth_identity: str | None = None,
    ) -> None:
        """Make a handle; scripts get theirs from `Datastore` or a workspace."""
        self.workspace = workspace
        self.name = name
        self.container_name = container_name if container_name is not None else name
        self.account_name = account_name
        self.sas_token = sas_token
        self.account_key = account_key
        self.protocol = protocol
        self.endpoint = endpoint
        self.workspace_msi_has_access = workspace_msi_has_access
        self.subscription_id = subscription_id
        self.resource_group = resource_group
        self.service_data_access_auth_identity = service_data_access_auth_identity
        self._root = DataReference(self)

    def __repr__(self) -> str:
        shown = ("name", "container_name", "account_name", "protocol", "endpoint")
        return json.dumps({field: getattr(self, field) for field in shown}, indent=2)

    __str__ = __repr__

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "sas_token": None, "account_key": None}

    @property
    def credential_type(self) -> str:
        """'None', 'AccountKey' or 'Sas': what this process was given for the registered container."""
        return "Sas" if self.sas_token else "AccountKey" if self.account_key else "None"

    @property
    def is_sas(self) -> bool:
        """Whether a SAS was given."""
        return bool(self.sas_token)

    @property
    def registration(self) -> Registration:
        """What was registered, without any secret."""
        is_registered = bool(self.account_name) or "://" in (self.endpoint or "")
        return Registration(
            self.name,
            self.container_name if is_registered else None,
            self.account_name,
            self.protocol or DEFAULT_PROTOCOL,
            self.endpoint or DEFAULT_ENDPOINT,
            self.subscription_id,
            self.resource_group,
        )

    @property
    def namespace(self) -> Namespace:
        """The namespace of the store that this is."""
        return self.workspace.store.namespace(self.name)

    def path(self, path: str | None = None, data_reference_name: str | None = None) -> DataReference:
        """Return a reference to a path of this datastore, or to its root."""
        return self._root.path(path, data_reference_name)

    def as_download(self, path_on_compute: str | None = None) -> DataReference:
        """Return a reference to the root, in mode download."""
        return self._root.as_download(path_on_compute)

    def as_upload(self, path_on_compute: str | None = None) -> DataReference:
        """Return a reference to the root, in mode upload."""
        return self._root.as_upload(path_on_compute)

    def as_mount(self) -> DataReference:
        """Return a reference to the root, in mode mount."""
        return self._root.as_mount()

    def upload(
        self,
        src_dir: PathText | None = None,
        target_path: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
        *,
        strict: bool = False,
        **unknown: object,
    ) -> DataReference:
        """Upload a directory as one version: every file, or none.

        Args:
            src_dir: the directory.
            target_path: where it goes; None for the root. `/`, `./` and `../` before it are dropped.
            overwrite: replace files that are there; False keeps them, whatever they hold, and says which of them differ.
            show_progress: print the SDK's lines on stdout.
            strict: with overwrite=False, raise when a file that is there differs, before anything is visible.
            unknown: refused.

        Returns:
            A reference pinned to the version, with `version`, `uri`, `uploaded`, `skipped` and `changed_but_skipped`.

        Raises:
            UserErrorException: `src_dir` is no directory, or holds what is no file.
            UploadError: some files could not be read; each is named.
            ConflictException: `strict`, and a file that is there differs.
        After any error nothing of this call is visible.
        """
        if unknown or src_dir is None:
            raise _wrong_arguments(unknown)
        target = clean_path(target_path, "target_path")
        files = list_directory(src_dir)
        upload = partial(self.namespace.upload, files.root, target, overwrite, show_progress, message=f"upload {files.root}")
        return self._send(files, target, upload, overwrite=overwrite, show_progress=show_progress, strict=strict)

    def upload_files(
        self,
        files: Iterable[PathText],
        relative_root: PathText | None = None,
        target_path: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
        *,
        strict: bool = False,
    ) -> DataReference:
        """Upload these files as one version, each at its path below `relative_root`, by default their common directory.

        The other arguments, what is returned, the guarantee and the errors are those of `upload`.

        Raises:
            UserErrorException: one is no file, or outside of `relative_root`.
        """
        target = clean_path(target_path, "target_path")
        listed = list_files(files, relative_root)
        message = f"upload {len(listed.shown)} files"
        upload = partial(
            self.namespace.upload_files, listed.shown, listed.root, target, overwrite, show_progress, message=message
        )
        return self._send(listed, target, upload, overwrite=overwrite, show_progress=show_progress, strict=strict)

    def download(
        self, target_path: PathText, prefix: str | None = None, overwrite: bool = False, show_progress: bool = True
    ) -> int:
        """Copy the files whose paths begin with `prefix` below a directory, under their whole paths; returns how many came.

        `prefix` is a piece of text, as in the SDK: `data` takes `data/…` and `data2/…`. When that is more than one directory, it
        is said.

        Args:
            target_path: made if it is not there.
            prefix: None for all.
            overwrite: False keeps files that are there already, which is logged; they are not counted.
            show_progress: print the SDK's lines on stdout.

        Raises:
            DownloadError: some files could not be written; each is whole or absent.
            ConflictError: a file stands where a directory is to be.
            NoSpaceError: the disk has too little room; nothing was written.
        """
        return download_files(self, Download(os.fspath(target_path), prefix or "", overwrite, show_progress))

    def set_as_default(self) -> None:
        """Make this the default datastore, for everybody who uses the store."""
        Registrations(self.workspace.store).set_default(self.name)

    def unregister(self) -> None:
        """Take it off the list of datastores; what was uploaded stays.

        Raises:
            UserErrorException: it is the default datastore.
        """
        Registrations(self.workspace.store).remove(self.name)

    def vds_pin(self, place: str) -> Part | None:
        """Return the plain blobs of the registered container at a path or glob, pinned; None when there are none."""
        return find_plain(self, place)

    def vds_plain(self, prefix: str) -> list[PlainBlob]:
        """Return the plain blobs of the registered container whose names begin with a text, by name."""
        return list_plain(self, prefix)

    def _send(
        self, files: LocalFiles, target: str, upload: Upload, *, overwrite: bool, show_progress: bool, strict: bool
    ) -> DataReference:
        show = partial(_show, show_progress)
        show([first_line(files)])
        result = self._send_strictly(upload) if strict and not overwrite else upload()
        skipped = set() if overwrite else _skipped(files, result)
        show(upload_lines(files, target, skipped))
        tell_of_upload(self.name, result)
        return DataReference.uploaded_to(self, result)

    def _send_strictly(self, upload: Upload) -> UploadResult:
        """Look what would differ, and commit only on the version that was looked at."""
        for attempt in range(STRICT_TRIES):
            seen = upload(dry_run=True)
            if seen.changed_but_skipped:
                raise ConflictException(
                    f"{len(seen.changed_but_skipped)} files in {self.name!r} differ from those to be uploaded, and strict=True:"
                    f" {', '.join(seen.changed_but_skipped[:10])}",
                    paths=seen.changed_but_skipped[:100],
                    versions=[seen.version.number],
                    hint="overwrite=True makes a new version with the new files; the old ones stay readable",
                )
            try:
                return upload(expected_parent=seen.version.number)
            except ConflictError:
                if attempt + 1 == STRICT_TRIES:
                    raise
        raise AssertionError("the loop ends in a return or a raise")


def blob_datastore(workspace: WorkspaceFace, registration: Registration) -> AzureBlobDatastore:
    """Return the handle of a known datastore, with what this process was given for it."""
    secret = find_secret(workspace.store, registration.name)
    return AzureBlobDatastore(
        workspace,
        registration.name,
        registration.container_name,
        registration.account_name,
        secret.sas_token,
        secret.account_key,
        registration.protocol,
        registration.endpoint,
        subscription_id=registration.subscription_id,
        resource_group=registration.resource_group,
    )


def _show(show_progress: bool, lines: Iterable[str]) -> None:
    is_logged = _log.isEnabledFor(logging.INFO)
    if not show_progress and not is_logged:
        return
    listed = list(lines)
    if show_progress:
        write_lines(listed)
    if is_logged:
        for line in listed:
            _log.info(line)


def _skipped(files: LocalFiles, result: UploadResult) -> set[str]:
    """Return which of the files were there already: all that the version did not bring."""
    if not result.skipped:
        return set()
    paths = set(files.paths)
    if not result.created:
        return paths
    prefix = len(result.target_path) + 1 if result.target_path else 0
    return paths - {change.path[prefix:] for change in result.version.diff(path=result.target_path)}


def _wrong_arguments(unknown: dict[str, object]) -> TypeError:
    if "src_paths" in unknown:
        return TypeError(
            "upload() got an unexpected keyword argument 'src_paths': it takes one directory, src_dir=…;"
            " for single files call upload_files(files=[…], target_path=…)"
        )
    if unknown:
        return TypeError(f"upload() got an unexpected keyword argument {next(iter(unknown))!r}")
    return TypeError("upload() missing 1 required positional argument: 'src_dir'")
