"""The Azure SDK as vds uses it: one client for a container, its retries, and what its errors mean.

The SDK retries (5xx, timeouts, broken connections; here with the service's Retry-After), so a conditional put may meet its own
first write: `BlobExistsError` is for the caller to check.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import requests
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import DefaultAzureCredential
from azure.storage.blob import BlobServiceClient, ContainerClient, ExponentialRetry

from vds.blobs.answers import Asked, answer_error, no_answer_error, no_token_error, retry_after_s
from vds.blobs.credential import Credential
from vds.blobs.location import AzureLocation
from vds.blobs.route import find_certificates
from vds.blobs.signing import API_VERSION
from vds.blobs.wire import CONNECT_TIMEOUT_S, READ_TIMEOUT_S
from vds.errors import VdsError, redact
from vds.pace import Pace

REQUEST_BYTES_MAX = 5000 << 20  # the service's limit since version 2019-12-12: a put here is always one request
CONNECTIONS_MAX = 64
STORAGE_SCOPE = "https://storage.azure.com/.default"


class _Retry(ExponentialRetry):
    """The SDK's policy, which by itself overlooks how long a throttling service asks to be left alone."""

    def get_backoff_time(self, settings: dict[str, Any]) -> float:
        backoff_s = float(super().get_backoff_time(settings))
        answer = settings["history"][-1].http_response if settings["history"] else None
        return max(backoff_s, retry_after_s(answer.headers.get("Retry-After")) if answer is not None else 0.0)


READ_AT_ONCE_BYTES = 1024 * 1024
"""Of an answer; a transport that is made by hand takes 4 KiB at a time otherwise, which doubles the time of a large one."""


class _Transport(RequestsTransport):  # type: ignore[misc]  # the SDK has no types here
    """The SDK's transport, told to keep the pace: throttling is passed on, and what others were asked to wait is waited."""

    def __init__(self, pace: Pace, sleep: Callable[[float], None], **options: Any) -> None:
        super().__init__(connection_data_block_size=READ_AT_ONCE_BYTES, **options)
        self._pace = pace
        self._sleep_s = sleep

    def send(self, request: Any, **options: Any) -> Any:
        while (wait_s := self._pace.pause_s()) > 0:
            self._sleep_s(wait_s)
        response = super().send(request, **options)
        if response.status_code in (429, 503):
            self._pace.throttled(retry_after_s(response.headers.get("Retry-After")))
            response.status_code = 503  # the SDK knows that it may try again after this one only
        return response


class _RedactUrls(logging.Filter):
    """urllib3 logs whole urls at DEBUG, the signature of a SAS among them; the SDK's own log hides it."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), ()
        return True


_redact_urls = _RedactUrls()  # one, so that adding it again changes nothing


def sdk_credential(credential: Credential) -> Any:
    """Return what the SDK wants for `credential`; a token where it is neither key nor SAS."""
    if credential.key:
        return AzureNamedKeyCredential(credential.account, credential.key)
    if credential.sas:
        return AzureSasCredential(credential.sas)
    return credential.token or DefaultAzureCredential()


def open_client(
    location: AzureLocation, credential: Any, pace: Pace, *, sleep: Callable[[float], None] = time.sleep
) -> tuple[requests.Session, ContainerClient]:
    """Return a client for the container and the session to close; no call is made.

    Raises:
        InvalidInputError: the certificates that the environment names are not there.
    """
    session, options = _open_session(location, pace, sleep)
    return session, ContainerClient(location.account_url, location.container, credential, **options)


def open_service(location: AzureLocation, credential: Any, pace: Pace) -> tuple[requests.Session, BlobServiceClient]:
    """Return a client for the account and the session to close; as `open_client` else."""
    session, options = _open_session(location, pace, time.sleep)
    return session, BlobServiceClient(location.account_url, credential, **options)


def _open_session(location: AzureLocation, pace: Pace, sleep: Callable[[float], None]) -> tuple[requests.Session, dict[str, Any]]:
    logging.getLogger("urllib3.connectionpool").addFilter(_redact_urls)
    certificates = find_certificates(os.environ) if location.is_encrypted else True
    session = requests.Session()
    for scheme in ("https://", "http://"):
        session.mount(scheme, requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=CONNECTIONS_MAX))
    timeouts: dict[str, Any] = {"connection_timeout": CONNECT_TIMEOUT_S, "read_timeout": READ_TIMEOUT_S}
    options = {
        "transport": _Transport(pace, sleep, session=session, session_owner=False, connection_verify=certificates, **timeouts),
        # Waits of 2, 4, 8, 16 and 32 s; a connection is tried thrice, so a misspelt account shows in a few seconds.
        "retry_policy": _Retry(
            initial_backoff=0, increment_base=2, retry_total=5, retry_connect=2, retry_status=5, random_jitter_range=1
        ),
        "api_version": API_VERSION,
        "max_single_put_size": REQUEST_BYTES_MAX,
        "max_single_get_size": REQUEST_BYTES_MAX,
        **timeouts,
    }
    return session, options


@contextmanager
def translated(asked: Asked) -> Iterator[None]:
    """Raise the SDK's errors as ours."""
    try:
        yield
    except VdsError:
        raise
    except AzureError as err:
        # The cause is left out of the traceback where it could show the url with its SAS.
        raise _translate(err, asked) from (None if asked.credential.sas else err)


def _translate(err: AzureError, asked: Asked) -> VdsError:
    if isinstance(err, HttpResponseError) and err.status_code is not None:
        return answer_error(asked, err.status_code, _error_code(err))
    if isinstance(err, ClientAuthenticationError):
        return no_token_error(asked)
    cause = getattr(err, "inner_exception", None) or err
    return no_answer_error(asked, type(cause).__name__, f"{err} {cause!r}")


def _error_code(err: HttpResponseError) -> str:
    headers: Mapping[str, str] = getattr(err.response, "headers", {})
    code = getattr(err, "error_code", None) or headers.get("x-ms-error-code")
    return str(getattr(code, "value", code) or "")
