"""Where a workspace is: the config.json that the SDK looks for, and the store that takes the place of the service."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vds.azureml.exceptions import NotFoundException, UserErrorException
from vds.azureml.notices import say_once
from vds.config import NoStoreError, StoreSettings, find_store_settings
from vds.store import Store, connect

LOCAL_STORE = Path(".vds") / "store"
CONFIG_DIRECTORIES = (".azureml", "aml_config", "")
CONFIG_NAMES = ("config.json", "project.json")

JOB_VARIABLES = (
    *("AZUREML_RUN_ID", "AZUREML_ARM_SUBSCRIPTION", "AZUREML_ARM_WORKSPACE_NAME", "AZUREML_EXPERIMENT_ID", "MLFLOW_RUN_ID"),
    *("AZ_BATCHAI_TASK_TYPE", "GITHUB_RUN_ID", "BUILD_BUILDID", "CI_COMMIT_SHA", "SLURM_JOB_ID"),
)
"""Where one of these is set, this is a job: what it writes to a disk of its own is thrown away with it."""

_stores: dict[tuple[str, str | None], Store] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class WorkspaceFacts:
    """What names a workspace in Azure; empty where nothing says it."""

    subscription_id: str = ""
    resource_group: str = ""
    name: str = ""


def find_workspace_facts(path: str | os.PathLike[str] | None = None, file_name: str | None = None) -> WorkspaceFacts:
    """Return what the nearest configuration file says, else the job's variables; the search is the SDK's.

    Raises:
        NotFoundException: `path` was given, and there is no such file there or above.
        UserErrorException: the file is no JSON, or lacks a key.
    """
    start = Path(os.path.abspath(path or "."))
    found = start if start.is_file() else _search(start, [file_name] if file_name else CONFIG_NAMES)
    if found is not None:
        return _read(found)
    if path is not None:
        raise NotFoundException(
            f"The workspace configuration file config.json, could not be found in {start} or its parent directories",
            hint="leave the argument out: vds needs no configuration of a workspace, only a store (vds init)",
        )
    environ = os.environ
    return WorkspaceFacts(
        environ.get("AZUREML_ARM_SUBSCRIPTION", ""),
        environ.get("AZUREML_ARM_RESOURCEGROUP", ""),
        environ.get("AZUREML_ARM_WORKSPACE_NAME", ""),
    )


def _search(start: Path, names: tuple[str, ...] | list[str]) -> Path | None:
    places = [start, *start.parents]
    for directory in CONFIG_DIRECTORIES:
        for name in names:
            for place in places:
                if (place / directory / name).is_file():
                    return place / directory / name
    return None


def _read(path: Path) -> WorkspaceFacts:
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"))
        return WorkspaceFacts(str(raw["subscription_id"]), str(raw["resource_group"]), str(raw["workspace_name"]))
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        raise UserErrorException(
            f"{path} is no workspace configuration: {err!r}",
            hint='it holds {"subscription_id": "…", "resource_group": "…", "workspace_name": "…"}',
        ) from err


def find_settings(environ: Mapping[str, str] | None = None) -> StoreSettings:
    """Return which store to use: the one that is configured, else one in `.vds/store` of the working directory.

    Raises:
        UserErrorException: none is configured, and this is a job.
    """
    environ = os.environ if environ is None else environ
    try:
        return find_store_settings(environ=environ)
    except NoStoreError as err:
        job = next((name for name in JOB_VARIABLES if environ.get(name)), None)
        if job is not None:
            raise NotFoundException(
                f"no store is configured, and this is a job ({job} is set): what it wrote to its own disk would be lost",
                hint="vds init URL, then give jobs the url it prints: VDS_STORE=URL",
            ) from err
        return StoreSettings(str(Path.cwd() / LOCAL_STORE), None, "the working directory")


def open_store(settings: StoreSettings) -> Store:
    """Return this process's store for these settings; the local one is made when it is first used, which is said.

    Raises:
        NotFoundError: the container is no store.
    """
    key = (settings.url, settings.index)
    with _lock:
        store = _stores.get(key)
        if store is None:
            is_local = settings.source == "the working directory"
            if is_local:
                verb = "is used" if os.path.isdir(settings.url) else "is made"
                say_once(f"no store is configured: {settings.url} {verb}; `vds init URL` names another one", settings.url)
            store = _stores[key] = connect(settings.url, index=settings.index, create=is_local)
        return store
