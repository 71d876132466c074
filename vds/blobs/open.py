"""Open the driver that a store's url asks for."""

from __future__ import annotations

from vds.blobs.directory import DirectoryDriver
from vds.blobs.driver import BlobDriver
from vds.blobs.location import AzureLocation, DirectoryLocation, parse_location
from vds.blobs.memory import MemoryDriver
from vds.errors import InvalidInputError


def open_driver(url: str, credential: object = None) -> BlobDriver:
    """Return a driver for the container at `url`; makes no call to any service.

    Args:
        url: one of the forms at the top of `vds.blobs.location`.
        credential: a TokenCredential, AzureNamedKeyCredential or AzureSasCredential, or the text of an account key, a SAS or a
            connection string; None: see `vds.blobs.credential`. Ignored where blobs are not in Azure.

    Raises:
        InvalidInputError: the url or the credential is none of these.
    """
    location = parse_location(url)
    if location is None:
        raise InvalidInputError(f"{url!r} is a name, not a place", hint=f"write ./{url} for a directory, or name it in vds.toml")
    if isinstance(location, AzureLocation):
        # Loading the Azure SDK takes half a second, which local stores and `vds --help` need not pay.
        from vds.blobs.azure import open_azure

        return open_azure(location, credential)
    if isinstance(location, DirectoryLocation):
        return DirectoryDriver(location.path)
    return MemoryDriver(location.name)
