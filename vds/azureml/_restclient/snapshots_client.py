"""The limits of a snapshot, under the name by which scripts change them too."""

from vds.azureml._restclient.constants import SNAPSHOT_MAX_FILES, SNAPSHOT_MAX_SIZE_BYTES

__all__ = ["SNAPSHOT_MAX_FILES", "SNAPSHOT_MAX_SIZE_BYTES"]
