"""Who is measured, and at which settings.

Workers are the best of each peer on two cores beside the null server, looked for before; settings of another machine are found
with `--peers sdk_best --workers N`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.workloads import Workload

SLOW_FILES_MAX = 2_000


@dataclass(frozen=True, slots=True)
class Peer:
    """One client.

    Attributes:
        module: its program in `benchmarks.peers`.
        environment: which Python runs it: `vds` this one, else a virtual environment in .bench/.
        distribution: the package, or tool, whose version is reported.
        workers: for (large, medium, small) workloads, each at no latency and at some; 0 leaves the choice to the peer.
        is_slow: whether it gets SLOW_FILES_MAX files of a workload of more; rates and ratios are a file's then.
        is_on_disk: whether the index is on the disk, and not in memory.
    """

    name: str
    title: str
    module: str
    environment: str
    distribution: str
    workers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    is_slow: bool = False
    is_on_disk: bool = False

    @property
    def is_vds(self) -> bool:
        """Whether it is our own."""
        return self.environment == "vds"

    def workers_for(self, workload: Workload, latency_ms: float) -> int:
        """Return its best number of workers."""
        kind = ("big" if workload.files == 1 else "medium") if workload.is_large else "small"
        return self.workers.get(kind, (0, 0))[latency_ms > 0]


def _sdk(name: str, title: str, workers: Mapping[str, tuple[int, int]]) -> Peer:
    return Peer(name, f"azure-storage-blob, {title}", name, "peers", "azure-storage-blob", workers, is_slow=True)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("vds", "vds, index in memory", "vds_upload", "vds", "vds"),
        Peer("vds_disk", "vds, index on disk", "vds_upload", "vds", "vds", is_on_disk=True),
        Peer(
            "raw",
            "bare sockets + BLAKE3",
            "raw_sockets",
            "peers",
            "blake3",
            {"big": (4, 16), "medium": (4, 16), "small": (4, 16)},
        ),
        _sdk("sdk_default", "upload_blob at its default sizes", {"big": (8, 16), "medium": (8, 16), "small": (1, 32)}),
        _sdk("sdk_best", "upload_blob at its best", {"big": (4, 16), "medium": (8, 16), "small": (1, 32)}),
        _sdk("sdk_stage", "stage_block + full pool", {"big": (2, 16), "medium": (2, 16), "small": (1, 32)}),
        _sdk("sdk_aio", "async client", {"big": (8, 16), "medium": (8, 16), "small": (8, 64)}),
        Peer(
            "obstore",
            "obstore",
            "obstore_put",
            "peers",
            "obstore",
            {"big": (8, 16), "medium": (8, 16), "small": (8, 256)},
        ),
        Peer("adlfs", "adlfs", "adlfs_put", "peers", "adlfs", {"big": (4, 32), "medium": (4, 8), "small": (2, 32)}, is_slow=True),
        Peer("azcopy", "azcopy", "azcopy", "peers", "azcopy"),
        Peer("rclone", "rclone", "rclone", "peers", "rclone", {"big": (8, 16), "medium": (8, 16), "small": (16, 256)}),
        Peer("azureml", "azureml-core Datastore.upload", "azureml_upload", "azureml", "azureml-core", is_slow=True),
    )
}
