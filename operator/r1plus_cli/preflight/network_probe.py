"""The pods and policies of preflight's proof that NetworkPolicies are enforced, and what their findings say. Pure.

The pods run the operator's own isolation probe. Before there is a policy, a connection has to succeed: otherwise its
failure later proves nothing. Under two policies three pods try the same connection at the same time.
"""

from dataclasses import replace
from enum import StrEnum
from typing import Final

from r1plus_cli import local
from r1plus_cli.preflight.cluster_view import ClusterView, Json
from r1plus_cli.preflight.outcome import CheckOutcome, ClusterCheck, fail, ok, warn
from r1plus_contract import names
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.monitor.isolation import Against, AttemptFinding, AttemptOutcome, ConnectionTarget, Findings
from r1plus_operator.plan.podspec.pod import PLATFORM, build_pod_security_context
from r1plus_operator.plan.settings import PodUser
from r1plus_operator.plan.tenancy.isolation_test_jobs import build_container

NAMESPACE: Final = "r1plus-preflight"
MARK: Final = {names.LABEL_MANAGED_BY: "r1plus-preflight"}
"""Label of the namespace, by which what an earlier run has left is recognised."""
SERVER: Final = "server"
ROLE: Final = f"{names.GROUP}/preflight"
"""Label of each pod; its value is the pod's name."""
DEADLINE_SECONDS: Final = 300
"""Time after which the cluster ends a pod that nobody deletes."""
ROUNDS_SECONDS: Final = 20


class ProbePod(StrEnum):
    """The pods that try to connect to the server."""

    BEFORE = "before"
    """Runs before there is a policy."""
    STRANGER = "stranger"
    """The server's policy does not let it in."""
    CONFINED = "confined"
    """The server's policy lets it in, and its own lets it out nowhere."""
    ALLOWED = "allowed"
    """Both let it: the control."""


EXPECTED: Final = {
    ProbePod.BEFORE: AttemptOutcome.OPEN,
    ProbePod.STRANGER: AttemptOutcome.SHUT,
    ProbePod.CONFINED: AttemptOutcome.SHUT,
    ProbePod.ALLOWED: AttemptOutcome.OPEN,
}
UNDER_POLICIES: Final = (ProbePod.STRANGER, ProbePod.CONFINED, ProbePod.ALLOWED)


def build_namespace() -> Json:
    """Return the namespace of the proof, under Pod Security `restricted` as tenants' are."""
    labels = {**MARK, names.LABEL_POD_SECURITY: "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}


def build_server(image: str, user: PodUser) -> Json:
    """Return the pod that others connect to: the decoy of the isolation test."""
    return _build_pod(SERVER, image, user, "decoy", ["--ports", str(names.PORT_HTTP)])


def build_client(pod: ProbePod, address: str, image: str, user: PodUser) -> Json:
    """Return a pod that tries to connect to the server's address, and reports what it found."""
    target = ConnectionTarget(SERVER, address, names.PORT_HTTP, Against.DECOY)
    words = ["--doors", dumps((target,)), "--expect", EXPECTED[pod].value, "--rounds-for", str(ROUNDS_SECONDS)]
    return _build_pod(pod.value, image, user, "knock", words)


def build_policies() -> tuple[Json, ...]:
    """Return who may reach the server, and that the confined pod reaches nothing."""
    allowed = [{"podSelector": {"matchLabels": {ROLE: pod.value}}} for pod in (ProbePod.ALLOWED, ProbePod.CONFINED)]
    ingress = {
        "podSelector": {"matchLabels": {ROLE: SERVER}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": allowed}],
    }
    egress = {"podSelector": {"matchLabels": {ROLE: ProbePod.CONFINED.value}}, "policyTypes": ["Egress"], "egress": []}
    return tuple(
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name}, "spec": spec}
        for name, spec in (("server", ingress), ("confined", egress))
    )


def read_finding(pod: Json) -> AttemptFinding | None:
    """Return what an ended pod has found; None: it reported nothing."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        text = ((status.get("state") or {}).get("terminated") or {}).get("message") or ""
        try:
            (finding,) = loads(Findings, text).tries
        except (ContractError, ValueError):
            return None
        return finding
    return None


def judge_findings(findings: dict[ProbePod, AttemptFinding]) -> CheckOutcome:
    """Judge what the pods under policies have found."""
    opened = [pod for pod in UNDER_POLICIES if findings[pod].o is AttemptOutcome.OPEN]
    unclear = [pod for pod in UNDER_POLICIES if findings[pod].o is AttemptOutcome.FAILED]
    if unclear:
        return warn(f"not proven: {unclear[0]} reports {findings[unclear[0]].d}", "run preflight again")
    if ProbePod.STRANGER in opened and ProbePod.CONFINED in opened:
        remedy = (
            "use a network plugin that enforces NetworkPolicy, such as Calico or Cilium, or switch it on (EKS:"
            " enableNetworkPolicy of the VPC CNI; GKE: Dataplane V2; AKS: --network-policy)"
        )
        return fail("NetworkPolicies have no effect: a connection that two of them forbid succeeded", remedy)
    for pod, direction in ((ProbePod.STRANGER, "ingress"), (ProbePod.CONFINED, "egress")):
        if pod in opened:
            remedy = f"use a network plugin that enforces {direction} as well: tenants rely on both directions"
            return fail(f"NetworkPolicies for {direction} have no effect", remedy)
    if ProbePod.ALLOWED not in opened:
        seen = "a connection that NetworkPolicies allow was blocked as well"
        return fail(seen, "look for other policies that apply, also those of the network plugin's own kinds")
    late = max(findings[pod].late for pod in (ProbePod.STRANGER, ProbePod.CONFINED))
    window = f"; a new pod was open for {late} ms" if late else ""
    return ok(f"enforced: ingress and egress were blocked, what is allowed was open{window}")


def judge_before(finding: AttemptFinding) -> CheckOutcome | None:
    """Return why there is no use in going on: without a policy the connection failed; None: it succeeded."""
    if finding.o is AttemptOutcome.OPEN:
        return None
    seen = f"not proven: without any policy of ours one pod did not reach another ({finding.d})"
    return fail(seen, "find out what blocks pods of a new namespace: a default policy of the cluster, or the network")


def judge_skipped(view: ClusterView) -> CheckOutcome:
    """Say what is not proven where no pods were started."""
    remedy = "run preflight without --skip-network; until then IsolationVerified of a deployment is the first to know"
    return warn("not proven: no pods were started", remedy)


NETWORK_CHECK: Final = ClusterCheck(
    "NetworkPolicy", "tenants are kept apart by network policies, which many clusters ignore", judge_skipped
)


def _build_pod(name: str, image: str, user: PodUser, verb: str, arguments: list[str]) -> Json:
    config = replace(local.build_config(local.DEFAULT_FAMILY), monitor_image=image)
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "activeDeadlineSeconds": DEADLINE_SECONDS,
        "terminationGracePeriodSeconds": 1,
        "nodeSelector": dict(PLATFORM),
        "securityContext": build_pod_security_context(user),
        "containers": [build_container(config, name, verb, arguments)],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {ROLE: name}}, "spec": spec}
