"""Clients of azure-storage-blob, made the way each of its peers wants them."""

from __future__ import annotations

import importlib
from typing import Any

from benchmarks.peers.measure import BLOCK_BYTES, Job

BEST_SETTINGS: dict[str, Any] = {
    # By way of use_byte_buffer: with a block of 8 MiB the SDK otherwise takes a path through sub-streams at half the speed.
    "use_byte_buffer": True,
    "max_block_size": BLOCK_BYTES,
    "max_single_put_size": BLOCK_BYTES,
}


def container_client(job: Job, **settings: Any) -> Any:
    """Return the SDK's client of the job's container, with its own transport."""
    blob = importlib.import_module("azure.storage.blob")
    trust = {"connection_verify": job.ca_path} if job.ca_path else {}
    return blob.ContainerClient(job.account_url, job.container, job.key, **trust, **settings)


def pooled_client(job: Job, **settings: Any) -> Any:
    """Return one whose pool holds a connection for each worker; the SDK's own keeps ten, and opens the others each time."""
    requests = importlib.import_module("requests")
    transport = importlib.import_module("azure.core.pipeline.transport")
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=max(job.workers, 1)))
    # How much of an answer is read at once. The SDK's own transport takes 256 KiB, and then joins the pieces of a range; left out
    # here it is 4 KiB, which takes twice the time for a large file.
    made = transport.RequestsTransport(session=session, session_owner=False, connection_data_block_size=BLOCK_BYTES)
    return container_client(job, transport=made, **settings)
