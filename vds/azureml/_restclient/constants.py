"""The limits of a snapshot in the SDK; vds has none, and assigning to them changes nothing."""

SNAPSHOT_MAX_FILES = 2000
SNAPSHOT_MAX_SIZE_BYTES = 300 * 1024 * 1024
