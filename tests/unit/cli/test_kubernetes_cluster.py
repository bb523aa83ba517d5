"""`r1plus ask` on its way to a pod: what the API server says is not there is called by its name."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from r1plus_cli.cluster.kubernetes_cluster import KubernetesCluster
from r1plus_cli.errors import CliError, NotFoundError, UnavailableError

Json = dict[str, Any]
SERVICES, PODS = "/api/v1/namespaces/team-credit/services/credit", "/api/v1/namespaces/team-credit/pods"
OPERATORS = "/api/v1/pods"
SERVICE: Json = {"metadata": {"name": "credit"}, "spec": {"selector": {"app": "credit"}}}


def pod(ready: str) -> Json:
    return {"metadata": {"name": "credit-a"}, "status": {"conditions": [{"type": "Ready", "status": ready}]}}


def pods(*items: Json) -> Json:
    return {"kind": "PodList", "items": list(items)}


@pytest.fixture
def objects() -> Json:
    """Path -> what the API server answers; anything else is not there."""
    return {OPERATORS: pods(pod("True")), PODS: pods()}


@pytest.fixture
def asked() -> list[str]:
    """Paths of watches, with their parameters."""
    return []


@pytest.fixture
def cluster(objects: Json, asked: list[str], tmp_path: Path) -> Iterator[KubernetesCluster]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            if "watch=true" in self.path.lower():
                self.send_watch(objects[f"{path} watch"])
                return
            kind, _, name = path.removeprefix("/api/v1/namespaces/team-credit/").partition("/")
            named = {"message": f'{kind} "{name}" not found', "details": {"kind": kind, "name": name}}
            missing = named if path.startswith("/api/v1/") else {"message": "could not find the requested resource"}
            body = json.dumps(objects.get(path) or {"kind": "Status", "code": 404, **missing}).encode()
            self.send_response(200 if path in objects else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def send_watch(self, events: list[Json]) -> None:
            """Send the events; then the server ends the watch, or breaks the connection before it has sent a chunk."""
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for event in events:
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            if "broken" not in objects:
                self.wfile.write(b"0\r\n\r\n")

        do_POST = do_GET  # noqa: N815 - the server's name

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "team-credit"}}
    kubeconfig: Json = {"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [context]}
    kubeconfig["clusters"] = [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}]
    kubeconfig["users"] = [{"name": "u", "user": {}}]
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(kubeconfig))
    yield KubernetesCluster(str(tmp_path / "kubeconfig"))
    server.shutdown()
    thread.join()
    server.server_close()


def refusal(cluster: KubernetesCluster) -> str:
    with pytest.raises(CliError) as refused:
        cluster.forward("team-credit", "credit", 8001)
    return str(refused.value)


@pytest.mark.unit_slow
def test_a_service_that_is_gone_is_named_and_nobody_is_told_to_install_what_runs(cluster: KubernetesCluster) -> None:
    said = refusal(cluster)
    assert said.startswith("team-credit/credit: its Service does not exist")
    assert "the operator restores it within seconds" in said
    assert said.endswith("see: r1plus status credit -n team-credit")
    assert "helm install" not in said


@pytest.mark.unit_slow
def test_a_service_that_nobody_puts_back_says_so(cluster: KubernetesCluster, objects: Json) -> None:
    objects[OPERATORS] = pods(pod("False"))
    said = refusal(cluster)
    assert "no pod of the operator is Ready, so it is not restored" in said
    assert said.endswith("see: r1plus status credit -n team-credit")


@pytest.mark.parametrize("found", [pods(), pods(pod("False"))], ids=["no pod", "no pod that is Ready"])
def test_a_service_that_leads_nowhere_points_to_the_status(
    cluster: KubernetesCluster, objects: Json, found: Json
) -> None:
    objects |= {SERVICES: SERVICE, PODS: found}
    said = refusal(cluster)
    assert "no Ready pod behind the Service" in said
    assert said.endswith("r1plus status credit -n team-credit")


TENANT = "/apis/r1plus.ai/v1alpha1/namespaces/team-credit/r1plustenants/tenant"
STATES: dict[str, tuple[Json | None, str]] = {
    "it is not ready": ({"status": "False", "reason": "KeyLost", "message": "half-1 is missing"}, "KeyLost: half-1 is missing"),
    "it is ready": ({"status": "True", "reason": "Ready", "message": "1 of 1"}, ""),
    "nothing is known of it": (None, ""),
}  # fmt: skip


@pytest.mark.parametrize(("condition", "said"), STATES.values(), ids=STATES)
def test_what_is_wrong_with_a_gateway_is_read_from_the_r1plustenant(
    cluster: KubernetesCluster, objects: Json, condition: Json | None, said: str
) -> None:
    conditions = [{"type": "GatewayReady", **condition}] if condition else []
    objects[TENANT] = {"status": {"conditions": [{"type": "Ready", "status": "True"}, *conditions]}}
    assert cluster.explain_gateway("team-credit") == said


def test_who_may_not_read_the_r1plustenant_is_told_nothing_of_it(cluster: KubernetesCluster) -> None:
    assert cluster.explain_gateway("team-credit") == ""


def test_a_gateway_without_a_ready_pod_points_to_its_condition(cluster: KubernetesCluster, objects: Json) -> None:
    objects |= {"/api/v1/namespaces/team-credit/services/gateway": SERVICE, PODS: pods()}
    with pytest.raises(CliError, match=r"no Ready pod.*condition GatewayReady of R1PlusTenant tenant"):
        cluster.forward("team-credit", "gateway", 8080)


def test_a_missing_object_is_not_a_missing_operator_and_a_missing_kind_is_one(cluster: KubernetesCluster) -> None:
    with pytest.raises(CliError, match="install the operator"):
        cluster.list_engines()
    with pytest.raises(CliError) as refused:
        cluster.create_token("team-credit", "reader", "audience")
    assert "helm install" not in str(refused.value)
    assert isinstance(refused.value, NotFoundError)


def test_a_secret_is_read_with_its_version_and_one_that_is_not_there_is_none(
    cluster: KubernetesCluster, objects: Json
) -> None:
    path = "/api/v1/namespaces/team-credit/secrets/r1plus-gateway-key"
    assert cluster.read_secret("team-credit", "r1plus-gateway-key") is None
    objects[path] = {"metadata": {"resourceVersion": "7"}, "data": {"half-1": "YWI="}}
    found = cluster.read_secret("team-credit", "r1plus-gateway-key")
    assert found is not None
    assert (found.values, found.version) == ({"half-1": b"ab"}, "7")
    assert "ab" not in repr(found)
    objects["/api/v1/namespaces/team-credit"] = {"metadata": {"uid": "u-1"}}
    assert cluster.get_namespace_uid("team-credit") == "u-1"


DEPLOYMENTS = "/apis/r1plus.ai/v1alpha1/namespaces/team-credit/r1plusdeployments"
CREDIT: Json = {"metadata": {"name": "credit", "resourceVersion": "8"}, "status": {"verdict": "Pass"}}
GONE: Json = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}


def test_a_watch_of_one_begins_with_what_there_is_and_goes_on_from_there(
    cluster: KubernetesCluster, objects: Json, asked: list[str]
) -> None:
    objects[DEPLOYMENTS] = {"metadata": {"resourceVersion": "7"}, "items": []}
    objects[f"{DEPLOYMENTS} watch"] = [{"type": kind, "object": CREDIT} for kind in ("ADDED", "MODIFIED", "DELETED")]
    assert list(cluster.watch_deployment("team-credit", "credit", 0.4)) == [None, CREDIT, CREDIT, None]
    parameters = parse_qs(urlsplit(asked[0]).query)
    assert (parameters["resourceVersion"], parameters["timeoutSeconds"]) == (["7"], ["1"])
    assert parameters["fieldSelector"] == ["metadata.name=credit"]


@pytest.mark.parametrize("problem", [{"events": [GONE]}, {"events": [], "broken": True}], ids=["too old", "broken"])
def test_a_watch_that_cannot_go_on_may_be_tried_again(cluster: KubernetesCluster, objects: Json, problem: Json) -> None:
    objects |= {DEPLOYMENTS: {"metadata": {"resourceVersion": "7"}, "items": [CREDIT]}, **problem}
    objects[f"{DEPLOYMENTS} watch"] = problem["events"]
    seen = cluster.watch_deployment("team-credit", "credit", 5.0)
    assert next(seen) == CREDIT
    with pytest.raises(UnavailableError):
        next(seen)


def test_a_watch_of_a_kind_that_does_not_exist_is_not_tried_again(cluster: KubernetesCluster) -> None:
    with pytest.raises(CliError, match="install the operator") as refused:
        next(cluster.watch_deployment("team-credit", "credit", 5.0))
    assert not isinstance(refused.value, UnavailableError)
