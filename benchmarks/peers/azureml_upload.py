"""azureml-core's own `AzureBlobDatastore.upload`: the real class and the real call, without a workspace.

The class builds the address of a public account; its blob client is replaced by one of the same vendored SDK.
"""

from __future__ import annotations

import importlib
import logging

from benchmarks.peers.measure import PREFIX, Figures, Job, run_peer


def upload(job: Job, figures: Figures) -> None:
    """Upload the directory; the number of threads is the class's own choice."""
    logging.disable(logging.WARNING)  # it says once that it is deprecated
    datastores = importlib.import_module("azureml.data.azure_storage_datastore")
    vendored = importlib.import_module("azureml._vendor.azure_storage.blob")
    datastore = datastores.AzureBlobDatastore(
        workspace=None, name="bench", container_name=job.container, account_name=job.account, account_key=job.key
    )
    trust = {"connection_verify": job.ca_path} if job.ca_path else {}
    datastore.blob_service = vendored.BlobServiceClient(
        job.account_url, credential={"account_name": job.account, "account_key": job.key}, **trust
    )
    with figures.timed():
        datastore.upload(str(job.source), target_path=PREFIX, overwrite=True, show_progress=False)


if __name__ == "__main__":
    raise SystemExit(run_peer(upload))
