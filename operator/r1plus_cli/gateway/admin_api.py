"""The admin API of a tenant's gateway: through a forwarded port, with a token that is made for the call.

Called by the other modules of this package. The token is of ServiceAccount `r1plus-gateway-admin` of the tenant's
namespace, which the tenant's administrators may make tokens of; their own token is never sent.
"""

import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from r1plus_cli.errors import CliError, NotFoundError, UsageError
from r1plus_cli.hosts import is_loopback
from r1plus_contract.gateway import GATEWAY, GATEWAY_ADMIN, GATEWAY_SERVICE, PORT_API

TIMEOUT_SECONDS: Final = 30.0
LONG_SECONDS: Final = 600.0
"""For the verification of a long audit log."""
TOKEN_VARIABLE: Final = "R1PLUS_GATEWAY_TOKEN"
"""A token of the admin ServiceAccount, for those without a kubeconfig: a pipeline's projected token."""
KEY_VARIABLE: Final = "R1PLUS_API_KEY"
"""A key of the gateway, for verbs that do what applications do."""
OLD_TOKEN: Final = "; check that the token is new, and that the cluster's keys in the gateway's ConfigMap are current"
TOO_OLD: Final = "; the gateway is older than this r1plus"
Json = dict[str, Any]


class GatewayUnavailableError(CliError):
    """The gateway gave no answer, or none while it cannot use the tenant's data."""


class GatewayCluster(Protocol):
    """The part of `kubernetes_cluster.KubernetesCluster` that leads to a gateway."""

    def get_default_namespace(self) -> str:
        """Return the namespace of the user's context."""

    def create_token(self, namespace: str, account: str, audience: str) -> str:
        """Create a token of a service account for ten minutes. Raise CliError if the user may not."""

    def forward(self, namespace: str, service: str, port: int) -> AbstractContextManager[str]:
        """Yield `host:port` on loopback that leads to a Ready pod of the Service while the context is open."""

    def explain_gateway(self, namespace: str) -> str:
        """Return reason, cause and remedy of a gateway that is not ready; empty if it is, or nothing is known."""


@dataclass(frozen=True, slots=True)
class GatewayTarget:
    """Which gateway is called: that of a namespace through a forwarded port, or at a URL."""

    connect: Callable[[], GatewayCluster]
    """Called if a kubeconfig is needed."""
    namespace: str | None = None
    url: str = ""
    env: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"The gateway at {self.url}" if self.url else f"The gateway of {self.namespace}"

    @property
    def remedy(self) -> str:
        """What to do if it does not answer."""
        if is_loopback(urlsplit(self.url).hostname or ""):
            return "check that the forwarded port is open; of `r1plus serve`, see `r1plus serve status`"
        return "check that its pod is Ready, and that it is the tenant's"


def call_admin(
    target: GatewayTarget,
    method: str,
    path: str,
    *,
    body: Json | None = None,
    query: Mapping[str, str] | None = None,
    seconds: float = TIMEOUT_SECONDS,
) -> Json:
    """Call the admin API and return its answer. Raises CliError, and UsageError for a URL that is none."""
    with _open_session(target) as session:
        return session.read_answer(session.request(method, path, json=body, params=query, timeout=seconds))


def find_models(target: GatewayTarget) -> frozenset[str]:
    """Return the names of the deployments that answer now, with those of their presets. Raises CliError."""
    with _open_session(target) as session:
        answer = session.read_answer(session.client.request("GET", "/v1/models", headers=dict(session.headers)))
    return frozenset(str(model["id"]) for model in answer["data"])


def upload(
    target: GatewayTarget, path: str, pieces: Iterable[bytes], size: int, query: Mapping[str, str] | None = None
) -> Json:
    """Send a file of so many bytes to the admin API and return its answer. Raises CliError."""
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
    with _open_session(target) as session:
        answer = session.request("POST", path, content=pieces, params=query, headers=headers, timeout=LONG_SECONDS)
        return session.read_answer(answer)


@contextlib.contextmanager
def open_download(target: GatewayTarget, path: str) -> Iterator[Iterator[bytes]]:
    """Yield a file of the admin API in pieces. Raises CliError, also within the block if the connection ends early."""
    with _open_session(target) as session, session.stream(path) as answer:
        if answer.status_code != 200:
            answer.read()
            session.read_answer(answer)
        yield answer.iter_raw()


@contextlib.contextmanager
def open_caller_session(target: GatewayTarget, end_user: str = "") -> Iterator["CallerSession"]:
    """Yield the API of a gateway for the holder of the key in `KEY_VARIABLE`. Raises CliError."""
    key = target.env.get(KEY_VARIABLE, "")
    if not key:
        raise UsageError(
            f"{KEY_VARIABLE} is not set; put a key of `r1plus key create` into it, or the one that `r1plus serve`"
            " printed"
        )
    with _open_session(target, key) as session:
        headers = {**session.headers, **({"x-r1plus-end-user": end_user} if end_user else {})}
        yield CallerSession(replace(session, headers=headers))


@dataclass(frozen=True, slots=True)
class CallerSession:
    """The API as a caller has it."""

    session: "_Session"

    def call(self, method: str, path: str, seconds: float = TIMEOUT_SECONDS, **options: Any) -> Json:
        """Return an answer. Raises CliError."""
        session = self.session
        url = f"/v1{path}"
        answer = session.client.request(method, url, headers=dict(session.headers), timeout=seconds, **options)
        return session.read_answer(answer)


@dataclass(frozen=True, slots=True)
class _Session:
    """A client of one gateway, with the admin's token or a caller's key."""

    client: Any
    target: GatewayTarget
    headers: Mapping[str, str] = field(repr=False)
    is_key: bool = False

    def request(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any) -> Any:
        return self.client.request(method, f"/v1/admin{path}", headers={**self.headers, **(headers or {})}, **options)

    def stream(self, path: str) -> AbstractContextManager[Any]:
        stream: AbstractContextManager[Any] = self.client.stream(
            "GET", f"/v1/admin{path}", headers=dict(self.headers), timeout=TIMEOUT_SECONDS
        )
        return stream

    def read_answer(self, answer: Any) -> Json:
        return _read_answer(self.target, answer, self.is_key)


@contextlib.contextmanager
def _open_session(target: GatewayTarget, key: str = "") -> Iterator[_Session]:
    """Yield a session of the admin, or of a key's holder; what fails is told with the gateway's condition."""
    import httpx  # late: other verbs should not wait a fifth of a second for it

    token = key or target.env.get(TOKEN_VARIABLE)
    if token == "":
        raise UsageError(
            f"{TOKEN_VARIABLE} is set, and empty: what was to make the token has failed. Repeat that, or unset it"
        )
    if target.url:
        _check_url(target.url)
    if not token or not target.url:
        cluster = target.connect()
        target = replace(target, namespace=target.namespace or cluster.get_default_namespace())
        token = token or _create_token(cluster, target.namespace or "")
    try:
        with _open_client(target) as client:
            try:
                yield _Session(client, target, {"Authorization": f"Bearer {token}"}, bool(key))
            except httpx.HTTPError as error:
                raise GatewayUnavailableError(
                    f"{target.title} does not answer: {error or type(error).__name__}; {target.remedy}"
                ) from error
    except GatewayUnavailableError as error:
        problem = "" if target.url else target.connect().explain_gateway(target.namespace or "")
        raise CliError(f"{error}. Its condition GatewayReady: {problem}" if problem else str(error)) from error


def _check_url(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--gateway: {url!r} is not an http(s) URL")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise UsageError(
            f"--gateway: no token is sent over plain HTTP to {url}, where others can read it; use https, or leave"
            " --gateway out (a port is forwarded)"
        )


def _create_token(cluster: GatewayCluster, namespace: str) -> str:
    try:
        return cluster.create_token(namespace, GATEWAY_ADMIN, GATEWAY)
    except NotFoundError as error:
        raise CliError(
            f"Namespace {namespace} has no gateway (there is no ServiceAccount {GATEWAY_ADMIN}); name the tenant's"
            " namespace with -n"
        ) from error
    except CliError as error:
        raise CliError(
            f"You may not make a token of ServiceAccount {namespace}/{GATEWAY_ADMIN}: {error}. Ask the platform team to"
            " add you to spec.admins of the R1PlusTenant, or name another namespace with -n"
        ) from error


@contextlib.contextmanager
def _open_client(target: GatewayTarget) -> Iterator[Any]:
    import httpx

    if target.url:
        is_local = is_loopback(urlsplit(target.url).hostname or "")
        with httpx.Client(base_url=target.url, timeout=TIMEOUT_SECONDS, trust_env=not is_local) as client:
            yield client
        return
    # The port leads through the API server to the pod itself, so its certificate, which is for the host names that
    # applications use, says nothing more. A proxy of the environment would only see the token.
    with contextlib.ExitStack() as stack:
        try:
            forwarded = target.connect().forward(target.namespace or "", GATEWAY_SERVICE, PORT_API)
            address = stack.enter_context(forwarded)
        except CliError as error:
            raise GatewayUnavailableError(str(error)) from error
        scheme = "https" if _speaks_tls(address) else "http"
        with httpx.Client(
            base_url=f"{scheme}://{address}", verify=False, timeout=TIMEOUT_SECONDS, trust_env=False
        ) as client:
            yield client


def _speaks_tls(address: str) -> bool:
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, int(port)), TIMEOUT_SECONDS) as connection,
            context.wrap_socket(connection),
        ):
            return True
    except OSError:  # ssl.SSLError is one: the answer was plain HTTP.
        return False


def _read_answer(target: GatewayTarget, answer: Any, is_key: bool) -> Json:
    try:
        document = answer.json()
    except ValueError:
        document = None
    if answer.status_code < 300 and isinstance(document, dict):
        return document
    error = document.get("error") if isinstance(document, dict) else None
    message = error.get("message") if isinstance(error, dict) else answer.text[:300]
    where = f" -n {target.namespace}" if target.namespace else ""
    remedy = {
        401: f"; the key is read from {KEY_VARIABLE}" if is_key else OLD_TOKEN,
        404: f"; see: r1plus key list{where}" if isinstance(error, dict) else TOO_OLD,
        405: TOO_OLD,
    }.get(answer.status_code, "")
    kind = GatewayUnavailableError if answer.status_code == 503 else CliError
    message = str(message).removesuffix(".") if remedy else message
    raise kind(f"{target.title} refused ({answer.status_code}): {message}{remedy}")
