"""Ways to log in: taken, and not used. vds finds the credentials of the storage account itself (`vds doctor` tells which)."""

from __future__ import annotations

from vds.azureml.notices import say_once


class AbstractAuthentication:
    """A way to log in to AzureML, where nobody logs in any more. What it is given is not kept."""

    def __init__(self, *_: object, **__: object) -> None:
        say_once("authentication for AzureML has no effect: vds finds the storage account's credentials itself, see vds doctor")


class InteractiveLoginAuthentication(AbstractAuthentication):
    """In a browser."""


class ServicePrincipalAuthentication(AbstractAuthentication):
    """As a service principal; for the storage account, set AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET."""


class AzureCliAuthentication(AbstractAuthentication):
    """As who is logged in to the Azure command line."""


class MsiAuthentication(AbstractAuthentication):
    """As the machine's identity."""
