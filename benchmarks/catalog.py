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
        share: of what a workload counts that is no whole file, it gets one in so many.
        is_on_disk: whether the index is on the disk, and not in memory.
        does: which workloads it runs: those that do one of these.
        variant: which of its ways the program is to take.
        finds: what it finds of the runs before it in its round, of "cache" and "target"; what is not named is empty.
        leaves: what of it is left for those that follow.
        index: where its index is: `embedded`, in SQLite, or `postgresql`.
    """

    name: str
    title: str
    module: str
    environment: str
    distribution: str
    workers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    is_slow: bool = False
    is_on_disk: bool = False
    does: tuple[str, ...] = ("upload",)
    variant: str = ""
    finds: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    share: int = 1
    index: str = "embedded"

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


def _workers(big: tuple[int, int], small: tuple[int, int]) -> Mapping[str, tuple[int, int]]:
    return {"big": big, "small": small}


def _get(
    name: str, title: str, module: str, distribution: str, workers: Mapping[str, tuple[int, int]], *, variant: str = ""
) -> Peer:
    is_slow = distribution in ("azure-storage-blob", "adlfs")
    return Peer(name, title, module, "peers", distribution, workers, is_slow, does=("checkout",), variant=variant)


def _own(
    name: str,
    title: str,
    module: str,
    does: str,
    *,
    variant: str = "",
    finds: tuple[str, ...] = (),
    leaves: tuple[str, ...] = (),
    is_slow: bool = False,
    share: int = 1,
) -> Peer:
    return Peer(
        name,
        f"vds, {title}",
        module,
        "vds",
        "vds",
        is_slow=is_slow,
        does=(does,),
        variant=variant,
        finds=finds,
        leaves=leaves,
        share=share,
    )


_BOTH = ("cache", "target")

READERS = (
    _own("vds_checkout", "checkout that fills the cache", "vds_checkout", "checkout"),
    _own("vds_checkout_alone", "checkout without a cache", "vds_checkout", "checkout", variant="alone"),
    _get("raw_get", "bare sockets + BLAKE3", "raw_get", "blake3", _workers((4, 16), (4, 128))),
    _get(
        "sdk_get",
        "azure-storage-blob, download_blob at its default sizes",
        "sdk_get",
        "azure-storage-blob",
        _workers((8, 8), (1, 32)),
    ),
    _get(
        "sdk_get_best",
        "azure-storage-blob, download_blob at its best",
        "sdk_get",
        "azure-storage-blob",
        _workers((4, 8), (1, 32)),
        variant="best",
    ),
    _get(
        "sdk_get_aio",
        "azure-storage-blob, download_blob of its async client",
        "sdk_aio_get",
        "azure-storage-blob",
        _workers((4, 8), (4, 64)),
    ),
    _get("obstore_get", "obstore, threads", "obstore_get", "obstore", _workers((8, 16), (4, 256))),
    _get("obstore_get_aio", "obstore, async", "obstore_get", "obstore", _workers((8, 16), (32, 256)), variant="async"),
    _get("adlfs_get", "adlfs", "adlfs_get", "adlfs", _workers((4, 16), (4, 64))),
    _get("azcopy_get", "azcopy", "azcopy_get", "azcopy", {}),
    _get("rclone_get", "rclone", "rclone_get", "rclone", _workers((4, 16), (16, 256))),
    _own("vds_first", "first checkout", "vds_checkout", "again", leaves=_BOTH),
    _own("vds_again", "again, into another directory", "vds_checkout", "again", finds=("cache",), leaves=("cache",)),
    _own(
        "vds_again_link",
        "again, linked to the cache",
        "vds_checkout",
        "again",
        variant="link",
        finds=("cache",),
        leaves=("cache",),
    ),
    _own("vds_again_same", "again, into the same directory", "vds_checkout", "again", finds=_BOTH),
    _own("vds_random", "vds:// under fsspec", "vds_random", "random"),
    _own("vds_random_open", "version.open", "vds_random", "random", variant="open"),
    Peer("adlfs_random", "adlfs at its defaults", "adlfs_random", "peers", "adlfs", does=("random",), share=10),
    Peer("adlfs_random_best", "adlfs without its cache", "adlfs_random", "peers", "adlfs", does=("random",), variant="best"),
    _own("vds_stream", "stream", "vds_stream", "stream", leaves=("cache",)),
    _own("vds_stream_again", "stream, again on the machine", "vds_stream", "stream", finds=("cache",)),
    _own("vds_open_loop", "open, one by one", "vds_stream", "stream", variant="one", is_slow=True),
    _own("vds_rows_open", "look up files in the index", "vds_rows", "index", variant="open", share=1_000),
    _own("vds_rows_list", "list all files", "vds_rows", "index", variant="list"),
    _own("vds_rows_manifest", "make the local manifest", "vds_rows", "index", variant="manifest", leaves=("cache",)),
    _own("vds_rows_list_local", "list all from it", "vds_rows", "index", variant="list", finds=("cache",), leaves=("cache",)),
    _own("vds_rows_local", "look up files in it", "vds_rows", "index", variant="open", finds=("cache",), share=1_000),
)

WRITERS = 64

LOADERS = (
    Peer(
        "vds_writers",
        "vds, index in PostgreSQL",
        "vds_writers",
        "vds",
        "vds",
        {"small": (WRITERS, WRITERS)},
        does=("write",),
        index="postgresql",
    ),
    *(
        Peer(f"vds_{does}_{name}", f"vds, index in {title}", f"vds_{does}", "vds", "vds", does=(does,), variant=rows, index=index)
        for does, rows in (("change", "1000000"), ("ask", "10000000"))
        for name, title, index in (("sqlite", "SQLite on disk", "embedded"), ("postgres", "PostgreSQL", "postgresql"))
    ),
)

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
        *READERS,
        *LOADERS,
    )
}
