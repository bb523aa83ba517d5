"""The API server as raw JSON at paths: for kinds that a cluster may lack, and lists that a user may not read."""

import json
from collections.abc import Iterator
from typing import Any

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from r1plus_cli.cluster.interface import Json
from r1plus_cli.errors import AccessDeniedError, CliError, NotFoundError, UnavailableError, UsageError

PAGE = 500
"""Objects of a list in one response."""
TIMEOUT_SECONDS = (5.0, 60.0)
"""To connect, and between two bytes of a response."""


_BY_STATUS = {403: AccessDeniedError, 404: NotFoundError}


class RawApi:
    """Requests with the credentials of a `kubernetes.client.ApiClient`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def request(self, method: str, path: str, body: Json | None = None, **query: str) -> Json:
        """Send a request and return the response.

        Raises:
            AccessDeniedError, NotFoundError: the API server says 403, 404.
            UnavailableError: the API server does not answer.
            UsageError: it does not accept the credentials.
            CliError: it answers anything else.
        """
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        request = self._client.param_serialize(
            method, path, query_params=list(query.items()), header_params=headers, body=body,
            auth_settings=["BearerToken"],
        )  # fmt: skip
        try:
            response = self._client.call_api(*request, _request_timeout=TIMEOUT_SECONDS)
            text = (response.read() or b"").decode()
        except (HTTPError, ApiException) as error:
            raise UnavailableError(
                f"{method} {path}: the API server does not answer ({error}); check --kubeconfig, and that the cluster"
                " is up"
            ) from error
        if not 200 <= response.status < 300:
            raise _build_error(f"{method} {path}", int(response.status), text)
        return dict(json.loads(text))

    def list_items(self, path: str, **query: str) -> Iterator[Json]:
        """Yield the objects of a collection, page by page; none of a kind that the cluster lacks.

        Raises:
            AccessDeniedError: the user may not list them.
        """
        following = ""
        while True:
            paging = {"limit": str(PAGE), **({"continue": following} if following else {})}
            try:
                page = self.request("GET", path, None, **query, **paging)
            except NotFoundError:
                return
            yield from page.get("items") or ()
            following = str((page.get("metadata") or {}).get("continue") or "")
            if not following:
                return


def _build_error(request: str, status: int, text: str) -> CliError:
    """Return the error for a response's status and body, which is a Status as JSON in most cases."""
    if status == 401:
        return UsageError(f"{request}: 401: your credentials were not accepted; renew your kubeconfig")
    try:
        message = str(json.loads(text).get("message", ""))
    except (ValueError, AttributeError):
        message = text[:200]
    return _BY_STATUS.get(status, CliError)(f"{request}: {status}: {message}")
