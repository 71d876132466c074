"""Plays the cases against one of two sides and prints what happened as JSON: `player.py sdk|vds CASES.json DIRECTORY`.

It imports nothing of the tests and, for the SDK, nothing of vds: it runs in the SDK's own environment, without a network. The
service is a dictionary.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pathlib
import re
import sys
import warnings
from concurrent.futures import Future
from typing import Any

KEY = "c2VjcmV0c2VjcmV0c2VjcmV0"


class Blob:
    """One blob of a container in memory."""

    def __init__(self, blobs: dict[str, bytes], name: str) -> None:
        self.blobs, self.name = blobs, name

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return len(self.blobs[self.name])

    def exists(self) -> bool:
        """Return whether it is there."""
        return self.name in self.blobs

    def upload_blob(self, file: Any, blob_type: str, overwrite: bool) -> None:
        """Put it, as the service does."""
        if not overwrite and self.exists():
            raise RuntimeError("BlobAlreadyExists")
        self.blobs[self.name] = file.read()

    def download_blob(self) -> Any:
        """Return a reader of it."""
        return io.BytesIO(self.blobs[self.name])


class Service:
    """What the SDK asks of the client of a storage account."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}

    def get_blob_client(self, container: str, blob: str) -> Any:
        """Return a blob, there or not."""
        made = Blob(self.blobs, blob)
        made.download_blob = lambda: type("Reader", (), {"readall": lambda _: self.blobs[blob]})()  # type: ignore[method-assign]
        return made

    def get_container_client(self, container: str) -> Any:
        """Return the container."""
        return self

    def list_blobs(self, name_starts_with: str | None = None) -> list[Blob]:
        """Return the blobs, by name."""
        return [Blob(self.blobs, name) for name in sorted(self.blobs) if name.startswith(name_starts_with or "")]


def run_now(_: Any, work: Any, *args: Any, **more: Any) -> Future[Any]:
    """Do what a thread of the SDK would do, before returning."""
    done: Future[Any] = Future()
    try:
        done.set_result(work(*args, **more))
    except Exception as err:  # noqa: BLE001 - as a future does
        done.set_exception(err)
    return done


class SdkSide:
    """The real SDK over a dictionary."""

    def __init__(self, place: pathlib.Path) -> None:
        from azureml.data.azure_storage_datastore import AzureBlobDatastore, TaskQueue
        from azureml.data.data_reference import DataReference

        # The SDK prints files in the order in which its threads were ready when it looked, four times a second. Here each is
        # ready at once, as when the files are small and the line is fast.
        TaskQueue.create_future = run_now
        self.DataReference = DataReference
        self._class = AzureBlobDatastore
        self._service = Service()

    def datastore(self, key: str | None) -> Any:
        """Return a datastore, with a key or without."""
        made = self._class(None, "ds", "container", "account", account_key=key, protocol="https", endpoint="core.windows.net")
        made.blob_service = self._service
        return made

    def blobs(self) -> dict[str, str]:
        """Return what is in it."""
        return {name: body.decode() for name, body in self._service.blobs.items()}


class VdsSide:
    """vds over a store in a directory."""

    def __init__(self, place: pathlib.Path) -> None:
        import vds
        from vds.azureml.core import Workspace
        from vds.azureml.data.data_reference import DataReference

        self.DataReference = DataReference
        vds.connect(place, create=True).close()
        os.environ["VDS_STORE"] = str(place)
        self.workspace = Workspace("subscription", "group", "name")

    def datastore(self, key: str | None) -> Any:
        """Return a datastore, with a key or without."""
        from vds.azureml.core import Datastore

        made = Datastore.register_azure_blob_container(
            self.workspace, "ds", "container", "account", account_key=key, overwrite=True
        )
        made.vds_plain = lambda prefix: []  # type: ignore[method-assign]  # the registered container is not there
        return made

    def blobs(self) -> dict[str, str]:
        """Return what is in it."""
        from vds.errors import NotFoundError

        try:
            version = self.workspace.store.namespace("ds").latest()
        except NotFoundError:
            return {}
        return {str(entry.path): body.decode() for entry, body in version.stream()}


def play(case: dict[str, Any], side: Any) -> dict[str, Any]:
    """Return what each step of a case did, and what there is in the end."""
    datastore = side.datastore(KEY if case["key"] else None)
    steps = [play_step(step, datastore, side) for step in case["steps"]]
    local = {}
    for folder, _, names in os.walk("out"):
        local.update({os.path.join(folder, name): pathlib.Path(folder, name).read_text() for name in names})
    return {"steps": steps, "blobs": side.blobs(), "local": local}


def play_step(step: dict[str, Any], datastore: Any, side: Any) -> dict[str, Any]:
    """Return what one step did: lines, warnings that were logged, what was returned or raised."""
    for name, text in step["write"].items():
        pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(name).write_text(text)
    out, result = io.StringIO(), {}
    with contextlib.redirect_stdout(out):
        try:
            arguments = {name: prepare(value) for name, value in step["arguments"].items()}
            call = step["call"]
            if call == "reference":
                returned = side.DataReference(datastore, **arguments)
            elif call == "chain":
                returned = datastore
                for name, given in arguments["calls"]:
                    returned = getattr(returned, name)(*given)
            elif call == "repr":
                returned = repr(datastore)
            else:
                returned = getattr(datastore, call)(**arguments)
            result["returned"] = describe(returned, datastore)
        except Exception as err:  # noqa: BLE001 - what is raised is a result here
            result["error"] = [type(err).__name__, getattr(err, "message", str(err))]
    result["lines"] = out.getvalue().splitlines()
    return result


def prepare(value: Any) -> Any:
    """Return an argument out of what JSON can hold."""
    if isinstance(value, dict) and "path" in value:
        return pathlib.Path(value["path"])
    if isinstance(value, dict) and "absolute" in value:
        return [os.path.abspath(name) for name in value["absolute"]]
    return value


def describe(returned: Any, datastore: Any) -> Any:
    """Return the attributes of a reference, without what is made up anew each time."""
    if not hasattr(returned, "data_reference_name"):
        return returned
    facts = {
        name: getattr(returned, name)
        for name in ("path_on_datastore", "mode", "path_on_compute", "overwrite", "data_reference_name")
    }
    facts["text"] = str(returned)
    facts["is_of_datastore"] = returned.datastore is datastore
    return json.loads(re.sub(r"[0-9a-f]{32}", "UUID", json.dumps(facts)))


def main() -> None:
    """Play all cases, each in its own directory, which both sides find the same."""
    sides = {"sdk": SdkSide, "vds": VdsSide}
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    root, results = pathlib.Path(sys.argv[3]), {}
    with open(sys.argv[2]) as file:
        cases = json.load(file)
    for number, case in enumerate(cases):
        os.chdir(root / f"case{number}")
        with contextlib.redirect_stderr(io.StringIO()):
            results[case["name"]] = play(case, sides[sys.argv[1]](root / f"store{number}"))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
