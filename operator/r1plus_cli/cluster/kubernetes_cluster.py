"""A real cluster behind `interface.Cluster` and `rollout.actions.ActionCluster`, with the user's kubeconfig and rights.

All methods read, except `patch_deployment`, which only writes R1PlusDeployments, and `write_secret`. `create_token`
creates a token for a few minutes.
"""

import base64
import functools
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.stream import portforward
from urllib3.exceptions import HTTPError

from r1plus_cli.cluster.interface import Json
from r1plus_cli.cluster.port_forward import forward_port
from r1plus_cli.cluster.raw_api import RawApi
from r1plus_cli.errors import CliError, NotFoundError, UnavailableError
from r1plus_cli.tenant.key_halves import SecretData
from r1plus_contract.gateway import GATEWAY_SERVICE
from r1plus_contract.names import GROUP, KIND_DEPLOYMENT, LABEL_SUITE, TENANT, VERSION
from r1plus_operator.api.conditions import ConditionType

PLURAL = "r1plusdeployments"
ENGINES_PLURAL = "r1plusengines"
TENANTS_PLURAL = "r1plustenants"
WATCH_SECONDS = 300
ANSWER_SECONDS = 10
"""Time for a connection, or for an answer that should come at once."""
UNAVAILABLE_STATUSES = frozenset({408, 410, 429, 500, 502, 503, 504})
"""HTTP statuses of requests that may work later; 410: a watch is too far behind, so begin with a list."""
OPERATOR_SELECTOR = "app.kubernetes.io/name=r1plus-operator"


class KubernetesCluster:
    """A cluster from a kubeconfig ($KUBECONFIG, ~/.kube/config) or, inside a pod, from its service account."""

    def __init__(self, kubeconfig: str | None = None, context: str | None = None) -> None:
        self._context = context
        self._kubeconfig = kubeconfig
        try:
            self._api = config.new_client_from_config(kubeconfig, context)
        except ConfigException as error:
            raise CliError(
                f"No cluster is configured: {find_missing_kubeconfig(kubeconfig) or error}; set --kubeconfig"
                " or KUBECONFIG"
                " (`make demo` starts a cluster and prints its kubeconfig). `r1plus plan`, `r1plus validate`"
                " and `r1plus serve` need no cluster; what `r1plus serve` serves is asked at the address that it prints"
            ) from error
        self._objects = client.CustomObjectsApi(self._api)
        self._core = client.CoreV1Api(self._api)
        self._authentication = client.AuthenticationV1Api(self._api)

    def open_raw_api(self) -> RawApi:
        """Return the same API server as raw JSON at paths."""
        return RawApi(self._api)

    def get_default_namespace(self) -> str:
        """Return the namespace of the context, or `default`."""
        contexts, active = config.list_kube_config_contexts(self._kubeconfig)
        if self._context is not None:
            active = next((c for c in contexts if c["name"] == self._context), active)
        return str((active or {}).get("context", {}).get("namespace") or "default")

    def list_deployments(self, namespace: str | None) -> list[Json]:
        """Return the R1PlusDeployments, sorted by namespace and name."""
        with _translate_errors(f"list {PLURAL}"):
            items: list[Json] = self._list_objects(namespace)["items"]
        return sorted(items, key=lambda cr: (cr["metadata"]["namespace"], cr["metadata"]["name"]))

    def get_deployment(self, namespace: str, name: str) -> Json:
        """Read one by name."""
        with _translate_errors(f"read {PLURAL}/{name}"):
            try:
                return dict(self._objects.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name))
            except ApiException as error:
                if error.status != 404:
                    raise
                existing_names = ", ".join(cr["metadata"]["name"] for cr in self.list_deployments(namespace)) or "none"
                text = (
                    f"{namespace}/{name}: no such {KIND_DEPLOYMENT}; this namespace has: {existing_names}"
                    " (another one: -n)"
                )
                raise CliError(text) from error

    def watch_changes(self, namespace: str | None) -> Iterator[Json]:
        """Watch, and start again whenever the server ends the watch."""
        while True:
            yield from self._watch_once(namespace)

    def watch_deployment(self, namespace: str, name: str, seconds: float) -> Iterator[Json | None]:
        """Read one, then watch it until `seconds` are over; None: it does not exist."""
        select = functools.partial(
            self._objects.list_namespaced_custom_object,
            GROUP,
            VERSION,
            namespace,
            PLURAL,
            field_selector=f"metadata.name={name}",
        )
        limit = max(1, math.ceil(seconds))
        with _translate_errors(f"watch {PLURAL}/{name}"):
            found = select(_request_timeout=ANSWER_SECONDS)
            yield next(iter(found["items"]), None)
            events = watch.Watch().stream(
                select,
                resource_version=found["metadata"]["resourceVersion"],
                timeout_seconds=limit,
                _request_timeout=(ANSWER_SECONDS, limit + ANSWER_SECONDS),
            )
            yield from (None if event["type"] == "DELETED" else event["object"] for event in events)

    def list_engines(self) -> list[Json]:
        """Return the catalog, sorted by name."""
        with _translate_errors(f"list {ENGINES_PLURAL}"):
            response = dict(self._objects.list_cluster_custom_object(GROUP, VERSION, ENGINES_PLURAL))
        return sorted(response["items"], key=lambda engine: str(engine["metadata"]["name"]))

    def list_nodes(self) -> list[Json] | None:
        """Return all nodes, or None if the answer is 403."""
        with _translate_errors("list nodes"):
            try:
                return self._to_dicts(self._core.list_node())
            except ApiException as error:
                if error.status != 403:
                    raise
                return None

    def is_operator_ready(self) -> bool | None:
        """Look for the operator by the chart's label; it may run in any namespace, or outside the cluster."""
        with _translate_errors("look for the operator's pods"):
            try:
                pods = self._core.list_pod_for_all_namespaces(label_selector=OPERATOR_SELECTOR).items
            except ApiException as error:
                if error.status != 403:
                    raise
                return None
        return any(map(_is_ready, pods))

    def list_suites(self, namespace: str) -> list[Json]:
        """Return the tenant's own suites."""
        with _translate_errors(f"list the suites of {namespace}"):
            return self._to_dicts(self._core.list_namespaced_config_map(namespace, label_selector=LABEL_SUITE))

    def _to_dicts(self, objects: Any) -> list[Json]:
        """Convert the client's model objects to plain dicts."""
        items: list[Json] = self._api.sanitize_for_serialization(objects)["items"]
        return items

    def forward(self, namespace: str, service: str, port: int) -> AbstractContextManager[str]:
        """Forward a port to one Ready pod of the Service, like `kubectl port-forward service/NAME`."""
        return forward_port(self._core, namespace, self._find_ready_pod(namespace, service), port)

    def explain_gateway(self, namespace: str) -> str:
        """Return reason, cause and remedy of a gateway that is not ready; empty if it is, or nothing is known."""
        try:
            tenant = self._objects.get_namespaced_custom_object(GROUP, VERSION, namespace, TENANTS_PLURAL, TENANT)
        except (ApiException, HTTPError):
            return ""
        conditions = tenant.get("status", {}).get("conditions", [])
        found = next(
            (one for one in conditions if one["type"] == ConditionType.GATEWAY_READY and one["status"] != "True"), None
        )
        return f"{found['reason']}: {found['message']}" if found else ""

    def get_username(self) -> str:
        """Return the user's name for the API server; servers before 1.28 do not report it."""
        with _translate_errors("ask who you are"):
            try:
                review = self._authentication.create_self_subject_review(client.V1SelfSubjectReview())
            except ApiException as error:
                if error.status not in (403, 404):
                    raise
                return "somebody"
            return str(review.status.user_info.username)

    def patch_deployment(self, namespace: str, name: str, patch: Json) -> None:
        """Patch like `kubectl patch --type merge`."""
        with _translate_errors(f"change {PLURAL}/{name}"):
            self._objects.patch_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name, patch)

    def create_token(self, namespace: str, account: str, audience: str) -> str:
        """Create a token for ten minutes, like `kubectl create token`."""
        spec = client.V1TokenRequestSpec(audiences=[audience], expiration_seconds=600)
        with _translate_errors(f"make a token of {namespace}/{account}"):
            response = self._core.create_namespaced_service_account_token(
                account, namespace, client.AuthenticationV1TokenRequest(spec=spec)
            )
        return str(response.status.token)

    def get_namespace_uid(self, namespace: str) -> str:
        """Return the uid of a namespace: a namespace of the same name that is made again has another."""
        with _translate_errors(f"read namespace {namespace}"):
            return str(self._core.read_namespace(namespace).metadata.uid)

    def read_secret(self, namespace: str, name: str) -> SecretData | None:
        """Return a Secret's data; None if it does not exist."""
        with _translate_errors(f"read Secret {namespace}/{name}"):
            try:
                secret = self._core.read_namespaced_secret(name, namespace)
            except ApiException as error:
                if error.status != 404:
                    raise
                return None
        values = {key: base64.b64decode(value) for key, value in (secret.data or {}).items()}
        return SecretData(values, str(secret.metadata.resource_version))

    def write_secret(self, namespace: str, name: str, values: Mapping[str, bytes], version: str | None) -> None:
        """Create a Secret (`version` None), or replace the one that was read at this version."""
        metadata = client.V1ObjectMeta(name=name, namespace=namespace, resource_version=version)
        data = {key: base64.b64encode(value).decode() for key, value in values.items()}
        body = client.V1Secret(metadata=metadata, data=data, type="Opaque")
        with _translate_errors(f"write Secret {namespace}/{name}"):
            if version is None:
                self._core.create_namespaced_secret(namespace, body)
            else:
                self._core.replace_namespaced_secret(name, namespace, body)

    def open_tunnel(self, namespace: str, pod: str, port: int) -> Any:
        """Open one connection like `kubectl port-forward`. Raise OSError with the API server's message."""
        try:
            tunnel = portforward(self._core.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port))
        except (ApiException, HTTPError) as error:
            raise OSError(str(getattr(error, "reason", "") or error)) from error
        connection = tunnel.socket(port)
        connection.setblocking(True)
        return connection

    def _watch_once(self, namespace: str | None) -> Iterator[Json]:
        with _translate_errors(f"watch {PLURAL}"):
            if namespace is None:
                stream = watch.Watch().stream(
                    self._objects.list_cluster_custom_object, GROUP, VERSION, PLURAL, timeout_seconds=WATCH_SECONDS
                )
            else:
                stream = watch.Watch().stream(
                    self._objects.list_namespaced_custom_object,
                    GROUP,
                    VERSION,
                    namespace,
                    PLURAL,
                    timeout_seconds=WATCH_SECONDS,
                )
            yield from (event["object"] for event in stream if event["type"] != "DELETED")

    def _list_objects(self, namespace: str | None) -> Json:
        if namespace is None:
            return dict(self._objects.list_cluster_custom_object(GROUP, VERSION, PLURAL))
        return dict(self._objects.list_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL))

    def _find_ready_pod(self, namespace: str, service: str) -> str:
        hint = f"see: r1plus status {service} -n {namespace}"
        if service == GATEWAY_SERVICE:
            hint = (
                f"condition {ConditionType.GATEWAY_READY} of R1PlusTenant {TENANT} in namespace {namespace} says why;"
                " if that is not the tenant's namespace, name it with -n"
            )
        with _translate_errors(f"find the Service {namespace}/{service}"):
            try:
                selector = self._core.read_namespaced_service(service, namespace).spec.selector or {}
            except ApiException as error:
                if error.status != 404:
                    raise
                raise CliError(
                    f"{namespace}/{service}: its Service does not exist; {self._explain_missing_service()}; {hint}"
                ) from error
            labels = ",".join(f"{key}={value}" for key, value in selector.items())
            pods = self._core.list_namespaced_pod(namespace, label_selector=labels).items if labels else []
        if ready := next(filter(_is_ready, pods), None):
            return str(ready.metadata.name)
        raise CliError(f"{namespace}/{service}: no Ready pod behind the Service, so nothing can answer; {hint}")

    def _explain_missing_service(self) -> str:
        if self.is_operator_ready() is False:
            return "no pod of the operator is Ready, so it is not restored"
        return "the operator restores it within seconds; try again"


def _is_ready(pod: Any) -> bool:
    conditions = pod.status.conditions or []
    ready = any(c.type == "Ready" and c.status == "True" for c in conditions)
    return ready and not pod.metadata.deletion_timestamp


def find_missing_kubeconfig(kubeconfig: str | None) -> str:
    """Return which configured files do not exist; empty if one does."""
    configured = kubeconfig or os.environ.get("KUBECONFIG")
    paths = [Path(part).expanduser() for part in (configured or "~/.kube/config").split(os.pathsep) if part]
    if any(path.exists() for path in paths):
        return ""
    candidates = " and ".join(map(str, paths))
    if not configured:
        return f"KUBECONFIG is not set, and {candidates} does not exist"
    are = "is" if len(paths) == 1 else "are"
    return f"{'--kubeconfig' if kubeconfig else 'KUBECONFIG'} names {candidates}, which {are} missing"


@contextmanager
def _translate_errors(what: str) -> Iterator[None]:
    """Translate errors of the API server, or of the connection, while doing `what` to CliError."""
    try:
        yield
    except (ApiException, HTTPError) as error:
        raise _translate_error(error, what) from error


def _translate_error(error: Exception, what: str) -> CliError:
    """Return the error as one line with a remedy."""
    if not isinstance(error, ApiException):
        return UnavailableError(
            f"Could not {what}: the API server does not answer ({error}); check that the cluster is up"
        )
    if policy_message := _extract_policy_message(error):
        return CliError(f"Could not {what}: {policy_message}")
    if error.status == 404 and (name := (_parse_status(error).get("details") or {}).get("name")):
        return NotFoundError(f"Could not {what}: {name} does not exist")
    remedy = {
        401: "your credentials were not accepted; renew your kubeconfig",
        403: (
            "you lack the permission; ask the platform team for access to r1plusdeployments and r1plusengines of"
            " r1plus.ai"
        ),
        404: "the cluster does not know this kind; install the operator: helm install r1plus charts/r1plus-operator",
    }.get(int(error.status or 0), str(error.reason))
    kind = UnavailableError if error.status in UNAVAILABLE_STATUSES else CliError
    return kind(f"Could not {what}: {error.status} {error.reason}: {remedy}")


def _extract_policy_message(error: ApiException) -> str:
    """Return the message of the admission policy that rejected the request; empty if none did."""
    return str(_parse_status(error).get("message", "")).partition("denied request: ")[2]


def _parse_status(error: ApiException) -> Json:
    """Return the Status that the API server sent, or an empty dict."""
    try:
        status = json.loads(error.body or "{}")
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}
