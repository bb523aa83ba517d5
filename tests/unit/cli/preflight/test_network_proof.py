"""The proof that NetworkPolicies are enforced: what it says of each network, and that it leaves nothing."""

from dataclasses import replace

import pytest

from r1plus_cli.errors import AccessDeniedError, CliError, UnavailableError
from r1plus_cli.preflight.network_probe import (
    MARK,
    NETWORK_CHECK,
    ProbePod,
    build_client,
    build_namespace,
    build_policies,
    build_server,
)
from r1plus_cli.preflight.network_proof import NetworkProof, find_image, prove_network
from r1plus_cli.preflight.outcome import CheckLevel, CheckOutcome
from r1plus_cli.promotion.wait import WaitClock
from r1plus_contract.monitor.isolation import AttemptOutcome
from r1plus_operator.plan.settings import PodUser
from support.cli.cluster_api import GOOD, OPENSHIFT, named, node, with_
from support.cli.probe_cluster import PATH, POLICIES, Network, ProbeCluster, enforcing
from support.tables import for_each

OK, WARN, FAIL = CheckLevel
OPEN, SHUT, FAILED = AttemptOutcome.OPEN, AttemptOutcome.SHUT, AttemptOutcome.FAILED
IMAGE = "registry.bank.example/r1plus/r1plus-monitor@sha256:1"
CREATED = ("POST", "/api/v1/namespaces")


class Time:
    """Passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> WaitClock:
        return WaitClock(lambda: self.now, self.pass_by)

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def prove(cluster: ProbeCluster, reports: list[str] | None = None) -> CheckOutcome:
    reported = [] if reports is None else reports
    return NetworkProof(cluster, IMAGE, PodUser(), reported.append, Time().clock()).run()


def ending(**outcomes: AttemptOutcome) -> Network:
    """A network that enforces policies, but for these pods."""
    return lambda pod, has_policies: outcomes.get(pod.value, enforcing(pod, has_policies))


ROWS: dict[str, tuple[ProbeCluster, CheckLevel, str]] = {
    "a network that enforces policies is proven": (ProbeCluster(), OK, "enforced: ingress and egress were blocked"),
    "the time for which a new pod is open is told": (ProbeCluster(late=700), OK, "a new pod was open for 700 ms"),
    "a network that ignores policies is refused": (ProbeCluster(ending(stranger=OPEN, confined=OPEN)), FAIL, "have no effect: a connection that two"),
    "a network that enforces egress only is refused": (ProbeCluster(ending(stranger=OPEN)), FAIL, "for ingress have no effect"),
    "a network that enforces ingress only is refused": (ProbeCluster(ending(confined=OPEN)), FAIL, "for egress have no effect"),
    "a network that blocks what is allowed is refused": (ProbeCluster(ending(allowed=SHUT)), FAIL, "that NetworkPolicies allow was blocked"),
    "a network that blocks without policies proves nothing": (ProbeCluster(ending(before=SHUT)), FAIL, "not proven: without any policy"),
    "a pod that could not try proves nothing": (ProbeCluster(ending(confined=FAILED)), WARN, "not proven: confined reports timed out"),
    "an image that cannot be pulled is named": (ProbeCluster(waiting="ImagePullBackOff"), FAIL, f"cannot pull {IMAGE}: ImagePullBackOff"),
    "a pod that never starts is given up": (ProbeCluster(waiting="PodInitializing"), FAIL, "waited 180 s until the server runs"),
    "a pod without a report is another image's": (ProbeCluster(is_silent=True), FAIL, f"with {IMAGE} reported nothing"),
    "a user who may make no namespace proves nothing": (ProbeCluster(errors={CREATED: AccessDeniedError("403")}), WARN, "not proven: 403"),
    "an API server that refuses a policy is quoted": (ProbeCluster(errors={("POST", POLICIES): CliError("422")}), FAIL, "not proven: 422"),
}  # fmt: skip


@for_each("cluster, level, seen", ROWS)
def test_the_proof_says_what_the_network_does_and_leaves_no_namespace(
    cluster: ProbeCluster, level: CheckLevel, seen: str
) -> None:
    outcome = prove(cluster)
    assert (outcome.level, cluster.namespace) == (level, None), outcome
    assert seen in outcome.seen
    assert bool(outcome.remedy) == (level is not OK)


def test_no_policy_is_there_before_the_first_connection_has_succeeded() -> None:
    cluster = ProbeCluster(ending(before=SHUT))
    prove(cluster)
    assert ("POST", POLICIES) not in cluster.requests


def test_ctrl_c_ends_it_and_the_namespace_goes() -> None:
    cluster = ProbeCluster(errors={("POST", f"{PATH}/pods"): KeyboardInterrupt()})  # type: ignore[dict-item]
    with pytest.raises(KeyboardInterrupt):
        prove(cluster)
    assert cluster.namespace is None


def test_what_an_earlier_run_has_left_is_removed_first() -> None:
    cluster = ProbeCluster(namespace={"metadata": {"name": "r1plus-preflight", "uid": "old", "labels": MARK}})
    reports: list[str] = []
    assert prove(cluster, reports).level is OK
    assert "which an earlier run has left" in reports[0]
    assert cluster.requests.index(("DELETE", PATH)) < cluster.requests.index(CREATED)


def test_a_namespace_of_somebody_elses_is_left_alone() -> None:
    namespace = {"metadata": {"name": "r1plus-preflight", "uid": "theirs"}}
    cluster = ProbeCluster(namespace=namespace)
    outcome = prove(cluster)
    assert (outcome.level, cluster.namespace) == (FAIL, namespace)
    assert {method for method, _ in cluster.requests} == {"GET"}


def test_a_namespace_that_stays_is_reported_with_the_command_that_removes_it() -> None:
    reports: list[str] = []
    assert prove(ProbeCluster(ends_namespaces=False), reports).level is OK
    assert reports[-1].endswith("remove it: kubectl delete namespace r1plus-preflight")


def test_a_cluster_that_goes_away_is_no_finding() -> None:
    with pytest.raises(UnavailableError):
        prove(ProbeCluster(errors={("GET", PATH): UnavailableError("gone")}))


def test_its_pods_have_no_power_and_end_by_themselves() -> None:
    pods = [build_server(IMAGE, PodUser()), *(build_client(pod, "::1", IMAGE, PodUser()) for pod in ProbePod)]
    for pod in pods:
        spec = pod["spec"]
        (container,) = spec["containers"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["activeDeadlineSeconds"] == 300
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["image"] == IMAGE
    assert build_namespace()["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_one_policy_is_for_each_direction() -> None:
    assert [one["spec"]["policyTypes"] for one in build_policies()] == [["Ingress"], ["Egress"]]


def test_a_prefix_that_nodes_pulled_from_becomes_a_value() -> None:
    outcome = prove_network(ProbeCluster(), GOOD, IMAGE, lambda _: None)
    assert {one.path: one.value for one in outcome.values} == {"images.prefix": "registry.bank.example/r1plus"}


@for_each("cluster, image", {
    "pods that found nothing give no prefix": (ProbeCluster(ending(stranger=OPEN)), IMAGE),
    "an image of the nodes gives no prefix": (ProbeCluster(), "r1plus-monitor:0.1.0"),
    "an image of another name gives no prefix": (ProbeCluster(), "registry.bank.example/monitor:1"),
})  # fmt: skip
def test_without_a_proof_there_is_no_value(cluster: ProbeCluster, image: str) -> None:
    assert prove_network(cluster, GOOD, image, lambda _: None).values == ()


@for_each("view, user", {"elsewhere pods name their user": (GOOD, 1000), "on OpenShift the cluster names it": (OPENSHIFT, None)})  # fmt: skip
def test_pods_name_a_user_where_the_cluster_names_none(view: object, user: int | None) -> None:
    users = []

    class Recorder(ProbeCluster):
        def request(
            self, method: str, path: str, body: dict[str, object] | None = None, **query: str
        ) -> dict[str, object]:
            if path.endswith("/pods") and body:
                users.append(body["spec"]["securityContext"].get("runAsUser"))  # type: ignore[index]
            return super().request(method, path, body, **query)

    prove_network(Recorder(), view, IMAGE, lambda _: None)  # type: ignore[arg-type]
    assert set(users) == {user}


def test_without_a_node_for_its_pods_none_is_started() -> None:
    cluster = ProbeCluster()
    outcome = prove_network(cluster, with_(nodes=(node("a", arch="arm64"),)), IMAGE, lambda _: None)
    assert (outcome.level, cluster.requests) == (WARN, [])


def test_where_it_is_left_out_it_says_what_is_not_proven() -> None:
    outcome = NETWORK_CHECK.judge(GOOD)
    assert (outcome.level, outcome.seen) == (WARN, "not proven: no pods were started")


OPERATOR = named("o", "r1plus-system", spec={"template": {"spec": {"containers": [
    {"env": [{"name": "R1PLUS_MONITOR_IMAGE", "value": IMAGE}]},
]}}})  # fmt: skip


@for_each("operators, image", {
    "that of an installed r1plus is taken": ((OPERATOR,), IMAGE),
    "else that of the release": ((), "r1plus-monitor:0.1.0"),
    "so where operators cannot be listed": (None, "r1plus-monitor:0.1.0"),
})  # fmt: skip
def test_the_image_is_known_without_an_option(operators: tuple[dict[str, object], ...] | None, image: str) -> None:
    assert find_image(replace(GOOD, operators=operators)) == image
