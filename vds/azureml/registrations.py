"""Which datastores a workspace knows. Registrations are small JSON files in a namespace of the store: versioned, and in its log.

Guarantees:
- keys and signatures are never written; those given to a registration live as long as this process;
- a datastore is a namespace of the same name, registered or not.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, field
from typing import Any

from vds.azureml.exceptions import ConflictException, NotFoundException, UserErrorException
from vds.azureml.names import INTERNAL, check_datastore_name, is_internal
from vds.errors import NotFoundError
from vds.store import Store

NAMESPACE = f"{INTERNAL}/datastores"
DEFAULT_NAME = "workspaceblobstore"
DEFAULT_PROTOCOL = "https"
DEFAULT_ENDPOINT = "core.windows.net"
_DEFAULT_FILE = "default"
_ENDING = ".json"


@dataclass(frozen=True, slots=True)
class Secret:
    """What was given to a registration in this process; never written, never shown."""

    sas_token: str | None = field(default=None, repr=False)
    account_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Registration:
    """What is known of a datastore, without any secret.

    Attributes:
        name: as it was written first.
        container_name: the container that the name stood for in AzureML; None for one that is a namespace only.
    """

    name: str
    container_name: str | None = None
    account_name: str | None = None
    protocol: str = DEFAULT_PROTOCOL
    endpoint: str = DEFAULT_ENDPOINT
    subscription_id: str | None = None
    resource_group: str | None = None

    @property
    def container_url(self) -> str | None:
        """Where the SDK's blobs are; None when no container is registered. An endpoint may be a whole url, as of an emulator."""
        if not self.container_name:
            return None
        if "://" in self.endpoint:
            return f"{self.endpoint.rstrip('/')}/{self.container_name}"
        return f"{self.protocol}://{self.account_name}.blob.{self.endpoint}/{self.container_name}"


_secrets: dict[tuple[str, str], Secret] = {}
_secrets_lock = threading.Lock()


def find_secret(store: Store, name: str) -> Secret:
    """Return what this process was given for a datastore."""
    with _secrets_lock:
        return _secrets.get((store.id, name.lower()), Secret())


def keep_secret(store: Store, name: str, secret: Secret) -> None:
    """Keep what was given for a datastore, in this process."""
    with _secrets_lock:
        _secrets[store.id, name.lower()] = secret


class Registrations:
    """The datastores of one store. Each method asks the store, so that what others registered shows at once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(self) -> dict[str, Registration]:
        """Return the known datastores by name: the default, the registered ones, and every namespace that is no internal one."""
        files = self._files()
        found = {DEFAULT_NAME: Registration(DEFAULT_NAME)}
        for info in self._store.namespaces():
            if not is_internal(info.name):
                found[info.name.lower()] = Registration(info.name)
        for key, raw in files.items():
            if key == _DEFAULT_FILE:
                continue
            if raw.get("unregistered"):
                found.pop(key, None)
            else:
                found[key] = _parse(raw, found.get(key))
        return {registration.name: registration for registration in sorted(found.values(), key=lambda one: one.name)}

    def get(self, name: str) -> Registration:
        """Return one datastore; case does not count.

        Raises:
            NotFoundException: there is none; it names those that there are.
        """
        if not isinstance(name, str):
            raise UserErrorException(f"{name!r} is not a datastore name", hint='for example "workspaceblobstore"')
        known = self.list()
        for found in known.values():
            if found.name.lower() == name.lower():
                return found
        raise NotFoundException(
            f"there is no datastore {name!r} in {self._store.url}; known: {', '.join(known)}",
            hint="Datastore.register_azure_blob_container makes one; so does the first upload to a namespace of that name",
        )

    def default(self) -> str:
        """Return the name of the default datastore."""
        return str(self._files().get(_DEFAULT_FILE, {}).get("name", DEFAULT_NAME))

    def set_default(self, name: str) -> None:
        """Make a known datastore the default.

        Raises:
            NotFoundException: there is no such datastore.
        """
        found = self.get(name)
        if self.default() != found.name:
            self._write(_DEFAULT_FILE, {"name": found.name}, f"{found.name} is the default datastore")

    def add(self, registration: Registration, *, overwrite: bool) -> Registration:
        """Register a datastore; the same registration again changes nothing.

        Raises:
            ConflictException: one of that name is registered differently, and `overwrite` was not given.
        """
        key = check_datastore_name(registration.name).lower()
        if is_internal(key):
            raise UserErrorException(f"{registration.name!r} is a name that vds needs for itself", hint="choose another one")
        present = self._files().get(key)
        raw = {name: value for name, value in asdict(registration).items() if value is not None}
        if present == raw:
            return registration
        if present is not None and not present.get("unregistered") and not overwrite:
            raise ConflictException(
                f"Another datastore with the name {registration.name!r} is registered already, for container"
                f" {present.get('container_name')!r} of {present.get('account_name')!r}",
                hint="overwrite=True changes the registration; the versions that were written through it stay",
            )
        known = {info.name.lower(): info.name for info in self._store.namespaces()}
        raw["name"] = known.get(key, registration.name)  # a namespace keeps its spelling
        self._write(key, raw, f"register datastore {raw['name']}")
        return _parse(raw, None)

    def remove(self, name: str) -> None:
        """Take a datastore off the list; its namespace and all of its versions stay.

        Raises:
            UserErrorException: it is the default datastore.
        """
        found = self.get(name)
        if self.default().lower() == found.name.lower():
            raise UserErrorException(
                f"{found.name!r} is the default datastore and cannot be unregistered", hint="ws.set_default_datastore(another)"
            )
        self._write(found.name.lower(), {"name": found.name, "unregistered": True}, f"unregister datastore {found.name}")

    def _files(self) -> dict[str, dict[str, Any]]:
        try:
            version = self._store.namespace(NAMESPACE).latest()
        except NotFoundError:
            return {}
        paths = [entry.path for entry in version.entries()]
        return {str(entry.path).removesuffix(_ENDING): json.loads(body) for entry, body in version.read_many(paths)}

    def _write(self, key: str, raw: dict[str, Any], message: str) -> None:
        with self._store.namespace(NAMESPACE).transaction(message) as tx:
            tx.write_text(f"{key}{_ENDING}", json.dumps(raw, indent=2, sort_keys=True) + "\n")


def _parse(raw: dict[str, Any], namespace: Registration | None) -> Registration:
    fields = {name: raw[name] for name in Registration.__slots__ if name in raw}
    if namespace is not None:
        fields["name"] = namespace.name
    return Registration(**fields)
