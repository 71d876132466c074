"""Which rights on an Azure container each kind of principal needs, as lines for the Azure command line.

Source: https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/storage, and for which request needs which
right https://learn.microsoft.com/rest/api/storageservices/authorize-with-azure-active-directory
"""

from __future__ import annotations

import json
import re
import shlex

from vds.blobs.location import AzureLocation
from vds.model.access import Access

WRITER_ROLE = "vds writer"
_ROLES: dict[Access, str] = {
    "reader": "Storage Blob Data Reader",
    "writer": WRITER_ROLE,
    "collector": "Storage Blob Data Contributor",
}
_CONTAINERS = "Microsoft.Storage/storageAccounts/blobServices/containers"
_GROUP = "/subscriptions/SUBSCRIPTION/resourceGroups/GROUP"
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

_WRITER = {
    "Name": WRITER_ROLE,
    "Description": "Read and write blobs, without deleting any.",
    "Actions": [f"{_CONTAINERS}/read"],
    # "add" makes new blobs whole; blocks of large ones need "write". Without "delete" and "move".
    "DataActions": [f"{_CONTAINERS}/blobs/{action}" for action in ("read", "write", "add/action")],
    "AssignableScopes": [_GROUP],
}


def az_lines(access: Access, principal: str, location: AzureLocation) -> list[str]:
    """Return the commands that give a principal its rights on the container; SUBSCRIPTION and GROUP are to be filled in.

    Args:
        access: what the principal is for.
        principal: the role's name in the database; when it is no name that Azure knows, PRINCIPAL is to be filled in, too.
        location: the container. Rights go to all of it, also where the store is a prefix in it.
    """
    account = f"{_GROUP}/providers/Microsoft.Storage/storageAccounts/{location.account}"
    assignee = principal if "@" in principal or _GUID.fullmatch(principal) else "PRINCIPAL"
    assign = ["az", "role", "assignment", "create", "--role", _ROLES[access], "--assignee", assignee]
    define = ["az", "role", "definition", "create", "--role-definition", json.dumps(_WRITER)]
    lines = [define] if access == "writer" else []
    lines.append([*assign, "--scope", f"{account}/blobServices/default/containers/{location.container}"])
    return [shlex.join(line) for line in lines]
