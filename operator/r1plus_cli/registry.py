"""Asks the registry: by the user's own kubeconfig, through the API server to its pod, or at a URL.

Called by `history_verbs`. A tunnel like `kubectl port-forward`'s leads to the pod, so that the token which goes along
is never in the clear on the network; the registry shows it to the API server, and answers what its bearer may read.
The token is made for the question, of an account that reads the registry and for its audience alone: the user's own
never goes there.
"""

import http.client
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from r1plus_cli.errors import CliError, UsageError
from r1plus_contract import names
from r1plus_contract.history import AUDIENCE, PORT, Evaluations, Histories, RecordedEngines
from r1plus_contract.jsonable import ContractError, loads

DEFAULT = "r1plus-system/r1plus-registry"
TOKEN_VARIABLE = "R1PLUS_REGISTRY_TOKEN"
MAKE_TOKEN = f"$(kubectl -n NAMESPACE create token {names.REGISTRY_READER} --audience {AUDIENCE})"
TIMEOUT_SECONDS = 30.0
MOST_BYTES = 64 * 1024 * 1024
READER = "-reader"
"""Ends the name of the account that reads everything; the chart makes it."""
T = TypeVar("T")


class Tunnels(Protocol):
    """Of `kubernetes_cluster.KubernetesCluster`, what leads to the registry."""

    def default_namespace(self) -> str:
        """The namespace of the user's context."""

    def token_of(self, namespace: str, account: str, audience: str) -> str:
        """A token of a service account, good for minutes; raises CliError where the user may make none."""

    def tunnel(self, namespace: str, pod: str, port: int) -> Any:
        """A socket to the pod's port; raises OSError where there is no way, with the API server's words."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the registry is: a URL, or a StatefulSet."""

    url: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def in_the_clear(self) -> bool:
        """Whether what is sent there can be read on the way; a forwarded port ends on this machine."""
        parts = urlsplit(self.url)
        return parts.scheme == "http" and not _is_loopback(parts.hostname or "")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def place_of(text: str) -> Place:
    """NAMESPACE/NAME or a URL; raises UsageError."""
    if re.fullmatch(r"https?://[^\s/]+(/[^\s]*)?", text):
        return Place(url=text.rstrip("/"))
    namespace, _, name = text.partition("/")
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9]*[a-z0-9])?", text):
        raise UsageError(f"--registry: {text!r} is neither NAMESPACE/NAME, such as {DEFAULT}, nor an http(s) URL")
    return Place(namespace=namespace, name=name)


class Registry:
    """What it answers, as the contract's types."""

    def __init__(self, place: Place, cluster: Callable[[], Tunnels], env: Mapping[str, str] = os.environ) -> None:
        """`cluster` is called where a kubeconfig is needed."""
        self._place = place
        self._cluster = cluster
        self._env = env

    def histories(self, namespace: str, name: str) -> Histories:
        """All that is recorded of deployments of that name."""
        path = f"/v1/namespaces/{quote(namespace, safe='')}/deployments/{quote(name, safe='')}"
        return self._read(Histories, path, namespace)

    def evaluations(self, namespace: str | None, name: str | None, *, items: bool) -> Evaluations:
        """Gates, the newest first; of every namespace where None is given."""
        asked = {"namespace": namespace or "", "name": name or "", "items": "1" if items else ""}
        query = urlencode({key: value for key, value in asked.items() if value})
        return self._read(Evaluations, f"/v1/evaluations{'?' if query else ''}{query}", namespace)

    def engines(self, namespace: str | None = None) -> RecordedEngines:
        """Every engine that was ever on offer. By the account of `namespace`, where the platform's is not to be had."""
        return self._read(RecordedEngines, "/v1/engines", namespace)

    def _read(self, kind: type[T], path: str, namespace: str | None) -> T:
        status, text = self._asked(path, namespace)
        if status != 200:
            raise CliError(_refusal(status, text))
        try:
            return loads(kind, text, tolerant=True)
        except ContractError as error:
            raise CliError(f"The registry's answer cannot be read: {error}; is this r1plus older than it?") from error

    def _asked(self, path: str, namespace: str | None) -> tuple[int, bytes]:
        place = self._place
        headers = {
            "Authorization": f"Bearer {self._token(namespace)}",
            "Connection": "close",
            "Accept": "application/json",
        }
        if place.url:
            return _over_http(f"{place.url}{path}", headers)
        pod = f"{place.namespace}/{place.name}-0"
        try:
            socket = self._cluster().tunnel(place.namespace, f"{place.name}-0", PORT)
            return _over_socket(socket, path, headers)
        except (OSError, http.client.HTTPException) as error:
            raise CliError(_no_way(pod, place, str(error) or type(error).__name__)) from error

    def _token(self, namespace: str | None) -> str:
        """One that was given, else one of the first reading account of which the user may make one."""
        if given := self._env.get(TOKEN_VARIABLE):
            return given
        place = self._place
        if place.in_the_clear:
            raise CliError(
                f"No token goes over plain HTTP to {place.url}, where others can read it: take https, or NAMESPACE/NAME"
                f" (which forwards a port), or set {TOKEN_VARIABLE} to {MAKE_TOKEN}"
            )
        cluster = self._cluster()
        refusals = []
        for owner, account in self._accounts(cluster, namespace):
            try:
                return cluster.token_of(owner, account, AUDIENCE)
            except CliError as error:
                refusals.append(str(error))
        raise CliError(
            f"You may make no token for the registry: ask the platform team to name you in spec.viewers of R1PlusTenant"
            f" {names.TENANT} of your namespace, or set {TOKEN_VARIABLE} to one of an account that may read your"
            f" R1PlusDeployments, for instance {MAKE_TOKEN}; {'; '.join(refusals)}"
        )

    def _accounts(self, cluster: Tunnels, namespace: str | None) -> Iterator[tuple[str, str]]:
        """Namespace and name: of the platform's, which reads what has ended too, then of the tenant's."""
        if self._place.namespace:
            yield self._place.namespace, self._place.name + READER
        yield namespace or cluster.default_namespace(), names.REGISTRY_READER


def _over_http(url: str, headers: dict[str, str]) -> tuple[int, bytes]:
    import httpx  # late: a fifth of a second that no other verb should wait for

    # A forwarded port is this machine's: a proxy that the environment names would only read the token.
    trust_env = not _is_loopback(urlsplit(url).hostname or "")
    try:
        answer = httpx.get(url, headers=headers, timeout=TIMEOUT_SECONDS, follow_redirects=False, trust_env=trust_env)
    except httpx.HTTPError as error:
        raise CliError(f"The registry does not answer at {url}: {error or type(error).__name__}") from error
    return answer.status_code, answer.content


def _over_socket(socket: Any, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("r1plus-registry", PORT, timeout=TIMEOUT_SECONDS)
    socket.settimeout(TIMEOUT_SECONDS)
    connection.sock = socket
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(MOST_BYTES)
    finally:
        connection.close()


def _refusal(status: int, text: bytes) -> str:
    try:
        said = str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        said = text.decode(errors="replace")[:300]
    remedy = {
        401: f" (is {TOKEN_VARIABLE} set to another?)",
        403: "; ask the platform team for that right",
        503: "; it records and tells again when its database or the API server is back",
    }.get(status, "")
    return f"The registry refused ({status}): {said}{remedy}"


def _no_way(pod: str, place: Place, said: str) -> str:
    if "403" in said:
        role = f"Role {place.name}-client to you (chart value registry.clientGroups)"
        return f"You may not reach pod {pod}: ask the platform team to bind {role}"
    if "404" in said:
        there = "is the chart's registry.enabled false, or is it elsewhere? Name it by --registry NAMESPACE/NAME"
        return f"There is no pod {pod}: {there}"
    return f"The registry does not answer in pod {pod}: {said}"
