"""The registry's client: with the user's kubeconfig, through the API server to its pod, or at a URL.

Called by `advise` and by the add-on history. A tunnel like that of `kubectl port-forward` leads to the pod, so the
token is never sent in plaintext. The registry has the token reviewed by the API server and answers what its user may
read. The token is created for the request, for an account that reads the registry and only for its audience: the
user's own token is never sent.
"""

import http.client
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.hosts import is_loopback
from r1plus_contract import names
from r1plus_contract.history import AUDIENCE, PORT, Evaluations, Histories, RecordedEngines
from r1plus_contract.jsonable import ContractError, loads

DEFAULT = "r1plus-system/r1plus-registry"
TOKEN_VARIABLE = "R1PLUS_REGISTRY_TOKEN"
MAKE_TOKEN = f"$(kubectl -n NAMESPACE create token {names.REGISTRY_READER} --audience {AUDIENCE})"
TIMEOUT_SECONDS = 30.0
MOST_BYTES = 64 * 1024 * 1024
READER = "-reader"
"""Suffix of the account that reads everything; the chart creates it."""
T = TypeVar("T")


class TunnelCluster(Protocol):
    """The part of `kubernetes_cluster.KubernetesCluster` that leads to the registry."""

    def get_default_namespace(self) -> str:
        """Return the namespace of the user's context."""

    def create_token(self, namespace: str, account: str, audience: str) -> str:
        """Create a token of a service account for some minutes. Raise CliError if the user may not."""

    def open_tunnel(self, namespace: str, pod: str, port: int) -> Any:
        """Open a socket to the pod's port. Raise OSError with the API server's message."""


@dataclass(frozen=True, slots=True)
class RegistryAddress:
    """The registry's address: a URL, or a StatefulSet."""

    url: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def is_plaintext(self) -> bool:
        """Whether others can read what is sent there; a forwarded port ends on this machine."""
        parts = urlsplit(self.url)
        return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def parse_address(text: str) -> RegistryAddress:
    """Parse NAMESPACE/NAME or a URL. Raise UsageError."""
    if re.fullmatch(r"https?://[^\s/]+(/[^\s]*)?", text):
        return RegistryAddress(url=text.rstrip("/"))
    namespace, _, name = text.partition("/")
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9]*[a-z0-9])?", text):
        raise UsageError(f"--registry: {text!r} is neither NAMESPACE/NAME, such as {DEFAULT}, nor an http(s) URL")
    return RegistryAddress(namespace=namespace, name=name)


class Registry:
    """The registry's responses, as types of the contract."""

    def __init__(
        self, address: RegistryAddress, cluster: Callable[[], TunnelCluster], env: Mapping[str, str] = os.environ
    ) -> None:
        """`cluster` is called if a kubeconfig is needed."""
        self._address = address
        self._cluster = cluster
        self._env = env

    def read_histories(self, namespace: str, name: str) -> Histories:
        """Return everything recorded of deployments of that name."""
        path = f"/v1/namespaces/{quote(namespace, safe='')}/deployments/{quote(name, safe='')}"
        return self._read(Histories, path, namespace)

    def read_evaluations(self, namespace: str | None, name: str | None, *, items: bool) -> Evaluations:
        """Return gates, newest first; None: of all namespaces."""
        parameters = {"namespace": namespace or "", "name": name or "", "items": "1" if items else ""}
        query = urlencode({key: value for key, value in parameters.items() if value})
        return self._read(Evaluations, f"/v1/evaluations{'?' if query else ''}{query}", namespace)

    def read_engines(self, namespace: str | None = None) -> RecordedEngines:
        """Return every recorded engine. Uses the account of `namespace` if that of the platform is not available."""
        return self._read(RecordedEngines, "/v1/engines", namespace)

    def _read(self, kind: type[T], path: str, namespace: str | None) -> T:
        status, text = self._request(path, namespace)
        if status != 200:
            raise CliError(_format_refusal(status, text))
        try:
            return loads(kind, text, tolerant=True)
        except ContractError as error:
            raise CliError(
                f"The registry's answer cannot be read: {error}; check that this r1plus is not older than the registry"
            ) from error

    def _request(self, path: str, namespace: str | None) -> tuple[int, bytes]:
        address = self._address
        headers = {
            "Authorization": f"Bearer {self._get_token(namespace)}",
            "Connection": "close",
            "Accept": "application/json",
        }
        if address.url:
            return _get_over_http(f"{address.url}{path}", headers)
        pod = f"{address.namespace}/{address.name}-0"
        try:
            socket = self._cluster().open_tunnel(address.namespace, f"{address.name}-0", PORT)
            return _get_over_socket(socket, path, headers)
        except (OSError, http.client.HTTPException) as error:
            raise CliError(_format_unreachable(pod, address, str(error) or type(error).__name__)) from error

    def _get_token(self, namespace: str | None) -> str:
        """Return the token of the environment, else one of the first reading account that the user may use."""
        if token := self._env.get(TOKEN_VARIABLE):
            return token
        address = self._address
        if address.is_plaintext:
            raise CliError(
                f"No token is sent over plain HTTP to {address.url}, where others can read it: use https, or"
                " NAMESPACE/NAME"
                f" (which forwards a port), or set {TOKEN_VARIABLE} to {MAKE_TOKEN}"
            )
        cluster = self._cluster()
        refusals = []
        for owner, account in self._list_accounts(cluster, namespace):
            try:
                return cluster.create_token(owner, account, AUDIENCE)
            except CliError as error:
                refusals.append(str(error))
        raise CliError(
            "You may not create a token for the registry: ask the platform team to add you to spec.viewers"
            f" of R1PlusTenant {names.TENANT} of your namespace. Or set {TOKEN_VARIABLE} to a token of an account that"
            f" may read your R1PlusDeployments, for instance {MAKE_TOKEN}; {'; '.join(refusals)}"
        )

    def _list_accounts(self, cluster: TunnelCluster, namespace: str | None) -> Iterator[tuple[str, str]]:
        """Yield (namespace, name) of the platform's account, which also reads deleted ones, then of the tenant's."""
        if self._address.namespace:
            yield self._address.namespace, self._address.name + READER
        yield namespace or cluster.get_default_namespace(), names.REGISTRY_READER


def _get_over_http(url: str, headers: dict[str, str]) -> tuple[int, bytes]:
    import httpx  # late: other verbs should not wait a fifth of a second for it

    # A forwarded port is on this machine: a proxy of the environment would only see the token.
    trust_env = not is_loopback(urlsplit(url).hostname or "")
    try:
        answer = httpx.get(url, headers=headers, timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=trust_env)
    except httpx.HTTPError as error:
        raise CliError(f"The registry does not answer at {url}: {error or type(error).__name__}") from error
    return answer.status_code, answer.content


def _get_over_socket(socket: Any, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("r1plus-registry", PORT, timeout=TIMEOUT_SECONDS)
    socket.settimeout(TIMEOUT_SECONDS)
    connection.sock = socket
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(MOST_BYTES)
    finally:
        connection.close()


def _format_refusal(status: int, text: bytes) -> str:
    try:
        message = str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        message = text.decode(errors="replace")[:300]
    remedy = {
        401: f" (check {TOKEN_VARIABLE})",
        403: "; ask the platform team for that right",
        503: "; it works again when its database or the API server is back",
    }.get(status, "")
    return f"The registry refused ({status}): {message}{remedy}"


def _format_unreachable(pod: str, address: RegistryAddress, message: str) -> str:
    if "403" in message:
        role = f"Role {address.name}-client to you (chart value registry.clientGroups)"
        return f"You may not connect to pod {pod}: ask the platform team to bind {role}"
    if "404" in message:
        remedy = "check that the chart's registry.enabled is true, or give its place by --registry NAMESPACE/NAME"
        return f"Pod {pod} does not exist: {remedy}"
    return f"The registry does not answer in pod {pod}: {message}"
