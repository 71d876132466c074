"""The fsspec file system `vds`; needs fsspec, which nothing else here does."""

from vds.fs.system import ReadOnlyError, VdsFileSystem

__all__ = ["ReadOnlyError", "VdsFileSystem"]
