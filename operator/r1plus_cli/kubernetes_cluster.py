"""A real cluster behind `cluster.Cluster` and `steering.Steered`, with the user's own kubeconfig and rights.

It reads; only `change` writes, and only R1PlusDeployments; `token_of` makes a token that lasts for minutes.
"""

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.stream import portforward
from urllib3.exceptions import HTTPError

from r1plus_cli.cluster import Json
from r1plus_cli.errors import CliError
from r1plus_cli.forward import forwarded
from r1plus_contract.names import GROUP, KIND_DEPLOYMENT, LABEL_SUITE, VERSION

PLURAL = "r1plusdeployments"
ENGINES_PLURAL = "r1plusengines"
WATCH_SECONDS = 300
OPERATOR_SELECTOR = "app.kubernetes.io/name=r1plus-operator"


class KubernetesCluster:
    """A cluster by kubeconfig (the usual rules: $KUBECONFIG, ~/.kube/config) or, inside a pod, by its account."""

    def __init__(self, kubeconfig: str | None = None, context: str | None = None) -> None:
        self._context = context
        self._kubeconfig = kubeconfig
        try:
            self._api = config.new_client_from_config(kubeconfig, context)
        except ConfigException as error:
            raise CliError(
                f"No cluster is configured: {missing(kubeconfig) or error}; name one by --kubeconfig or KUBECONFIG"
                " (`make demo` starts one and says which). `r1plus plan` and `r1plus validate` need no cluster"
            ) from error
        self._objects = client.CustomObjectsApi(self._api)
        self._core = client.CoreV1Api(self._api)
        self._who = client.AuthenticationV1Api(self._api)

    def default_namespace(self) -> str:
        """The namespace of the context, `default` without one."""
        contexts, active = config.list_kube_config_contexts(self._kubeconfig)
        if self._context is not None:
            active = next((c for c in contexts if c["name"] == self._context), active)
        return str((active or {}).get("context", {}).get("namespace") or "default")

    def deployments(self, namespace: str | None) -> list[Json]:
        """Sorted by namespace and name."""
        with _translating(f"list {PLURAL}"):
            items: list[Json] = self._listed(namespace)["items"]
        return sorted(items, key=lambda cr: (cr["metadata"]["namespace"], cr["metadata"]["name"]))

    def deployment(self, namespace: str, name: str) -> Json:
        """Reads one by name."""
        with _translating(f"read {PLURAL}/{name}"):
            try:
                return dict(self._objects.get_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name))
            except ApiException as error:
                if error.status != 404:
                    raise
                known = ", ".join(cr["metadata"]["name"] for cr in self.deployments(namespace)) or "none"
                text = f"{namespace}/{name}: no such {KIND_DEPLOYMENT}; this namespace has: {known} (another one: -n)"
                raise CliError(text) from error

    def changes(self, namespace: str | None) -> Iterator[Json]:
        """A watch that starts again whenever the server ends it."""
        while True:
            yield from self._watched(namespace)

    def engines(self) -> list[Json]:
        """The catalog, sorted by name."""
        with _translating(f"list {ENGINES_PLURAL}"):
            found = dict(self._objects.list_cluster_custom_object(GROUP, VERSION, ENGINES_PLURAL))
        return sorted(found["items"], key=lambda engine: str(engine["metadata"]["name"]))

    def nodes(self) -> list[Json] | None:
        """All nodes, or None where the answer is 403."""
        with _translating("list nodes"):
            try:
                return self._plain(self._core.list_node())
            except ApiException as error:
                if error.status != 403:
                    raise
                return None

    def operator_ready(self) -> bool | None:
        """By the label that the chart gives it; it may run in any namespace, or outside the cluster."""
        with _translating("look for the operator's pods"):
            try:
                found = self._core.list_pod_for_all_namespaces(label_selector=OPERATOR_SELECTOR).items
            except ApiException as error:
                if error.status != 403:
                    raise
                return None
        return any(map(_is_ready, found))

    def suites(self, namespace: str) -> list[Json]:
        """The tenant's own suites."""
        with _translating(f"list the suites of {namespace}"):
            return self._plain(self._core.list_namespaced_config_map(namespace, label_selector=LABEL_SUITE))

    def _plain(self, found: Any) -> list[Json]:
        """The client's model objects as the plain dicts of the wire."""
        items: list[Json] = self._api.sanitize_for_serialization(found)["items"]
        return items

    def forward(self, namespace: str, service: str, port: int) -> AbstractContextManager[str]:
        """Like `kubectl port-forward service/NAME`: to one Ready pod that the Service selects."""
        return forwarded(self._core, namespace, self._ready_pod(namespace, service), port)

    def who(self) -> str:
        """As the API server calls the user; older ones than 1.28 cannot be asked."""
        with _translating("ask who you are"):
            try:
                review = self._who.create_self_subject_review(client.V1SelfSubjectReview())
            except ApiException as error:
                if error.status not in (403, 404):
                    raise
                return "somebody"
            return str(review.status.user_info.username)

    def change(self, namespace: str, name: str, patch: Json) -> None:
        """As `kubectl patch --type merge`."""
        with _translating(f"change {PLURAL}/{name}"):
            self._objects.patch_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, name, patch)

    def token_of(self, namespace: str, account: str, audience: str) -> str:
        """As `kubectl create token`; good for ten minutes."""
        spec = client.V1TokenRequestSpec(audiences=[audience], expiration_seconds=600)
        with _translating(f"make a token of {namespace}/{account}"):
            made = self._core.create_namespaced_service_account_token(
                account, namespace, client.AuthenticationV1TokenRequest(spec=spec)
            )
        return str(made.status.token)

    def tunnel(self, namespace: str, pod: str, port: int) -> Any:
        """Like one connection through `kubectl port-forward`. Raises OSError with the API server's words."""
        try:
            tunnel = portforward(self._core.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port))
        except (ApiException, HTTPError) as error:
            raise OSError(str(getattr(error, "reason", "") or error)) from error
        found = tunnel.socket(port)
        found.setblocking(True)
        return found

    def _watched(self, namespace: str | None) -> Iterator[Json]:
        with _translating(f"watch {PLURAL}"):
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

    def _listed(self, namespace: str | None) -> Json:
        if namespace is None:
            return dict(self._objects.list_cluster_custom_object(GROUP, VERSION, PLURAL))
        return dict(self._objects.list_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL))

    def _ready_pod(self, namespace: str, service: str) -> str:
        see = f"see: r1plus status {service} -n {namespace}"
        with _translating(f"find the Service {namespace}/{service}"):
            try:
                selector = self._core.read_namespaced_service(service, namespace).spec.selector or {}
            except ApiException as error:
                if error.status != 404:
                    raise
                raise CliError(f"{namespace}/{service}: its Service is gone; {self._who_restores()}; {see}") from error
            labels = ",".join(f"{key}={value}" for key, value in selector.items())
            pods = self._core.list_namespaced_pod(namespace, label_selector=labels).items if labels else []
        if ready := next(filter(_is_ready, pods), None):
            return str(ready.metadata.name)
        raise CliError(f"{namespace}/{service}: no Ready pod behind the Service, so nothing can answer; {see}")

    def _who_restores(self) -> str:
        if self.operator_ready() is False:
            return "no pod of the operator is Ready, so nobody puts it back"
        return "the operator puts it back within seconds, then ask again"


def _is_ready(pod: Any) -> bool:
    conditions = pod.status.conditions or []
    ready = any(c.type == "Ready" and c.status == "True" for c in conditions)
    return ready and not pod.metadata.deletion_timestamp


def missing(kubeconfig: str | None) -> str:
    """Which files were looked for and are not there; nothing where one is."""
    given = kubeconfig or os.environ.get("KUBECONFIG")
    paths = [Path(part).expanduser() for part in (given or "~/.kube/config").split(os.pathsep) if part]
    if any(path.exists() for path in paths):
        return ""
    looked_for = " and ".join(map(str, paths))
    if not given:
        return f"KUBECONFIG is not set, and there is no {looked_for}"
    are = "is" if len(paths) == 1 else "are"
    return f"{'--kubeconfig' if kubeconfig else 'KUBECONFIG'} names {looked_for}, which {are} not there"


@contextmanager
def _translating(what: str) -> Iterator[None]:
    """What the API server or the way to it raises while doing `what`, as a CliError."""
    try:
        yield
    except (ApiException, HTTPError) as error:
        raise _translated(error, what) from error


def _translated(error: Exception, what: str) -> CliError:
    """The outside's error as one line with a remedy."""
    if not isinstance(error, ApiException):
        return CliError(f"Could not {what}: the API server does not answer ({error}); is the cluster up?")
    if refused := _refused_by_policy(error):
        return CliError(f"Could not {what}: {refused}")
    if error.status == 404 and (name := (_body(error).get("details") or {}).get("name")):
        return CliError(f"Could not {what}: there is no {name}")
    remedy = {
        401: "your credentials were not accepted; renew your kubeconfig",
        403: "you may not; ask the platform team for that right to r1plusdeployments and r1plusengines of r1plus.ai",
        404: "the cluster lacks this kind; is the operator installed? helm install r1plus charts/r1plus-operator",
    }.get(int(error.status or 0), str(error.reason))
    return CliError(f"Could not {what}: {error.status} {error.reason}: {remedy}")


def _refused_by_policy(error: ApiException) -> str:
    """Return the message of the admission policy that refused it, which names field and remedy; empty: none did."""
    return str(_body(error).get("message", "")).partition("denied request: ")[2]


def _body(error: ApiException) -> Json:
    """Return the Status that the API server sent; empty where it sent none."""
    try:
        found = json.loads(error.body or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
