"""A run of the isolation test: what it attempts, what it found, and when the next one is due. Pure, like `plan`.

A run has three probes. One connects from under the network policies of one of the tenant's deployments. One may reach
the API server and the decoy, and attempts both. A control in the decoy's namespace makes the same attempts, and is
allowed to. Only the Jobs store runs: an annotation says what each tests, and the pods' termination messages are the
findings. The newest run that has ended stays until a newer one has ended.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from r1plus_contract import names
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.monitor.isolation import (
    API_HOST,
    CONTAINER_ASK,
    CONTAINER_KNOCK,
    Against,
    ApiRequest,
    AttemptFinding,
    AttemptOutcome,
    ConnectionTarget,
    Findings,
    IsolationProbe,
)
from r1plus_operator.plan.observation import JOB_ENDED, Json, PodFacts
from r1plus_operator.plan.podspec.pod import build_container_security_context, build_pod_security_context
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_policies.isolation import IsolationJudgement, IsolationVerdict, judge_isolation

SPACING_SECONDS = 60.0
"""From the start of one run to the next, however often network policies change: changes in between count as one."""
RETRY_SECONDS = 300.0
"""After a run that proves nothing, until the next."""
DEADLINE_SECONDS = 330
"""Of a Job: to be scheduled, to start, and to attempt connections: two minutes where the pod's network comes late."""
SETTLE_SECONDS = 10.0
"""Jobs and pods are watched apart: a run's termination messages may arrive so long after its Jobs have ended."""
MAX_CONCURRENT_RUNS = 20
"""Runs of all tenants at once: a change for all tenants would otherwise start three pods each within a minute."""
CONCURRENCY_WAIT_SECONDS = 30.0
"""Until a run that was held back by that limit is planned again."""
OVERDUE_RUNS = 2.5
"""Intervals after a run until its outcome no longer counts."""
SERVING_PORTS = (names.PORT_HTTP, names.PORT_GRPC, names.PORT_TRITON_METRICS, names.PORT_MONITOR)
"""Ports of a serving pod, and so of the decoy's."""
PORT_ALLOWED = 8003
"""Port of the decoy that the API probe may reach. It proves that the probe has a network at all."""
PORT_API, PORT_KUBELET, PORT_SSH, PORT_METADATA = 443, 10250, 22, 80
METADATA_ADDRESS = "169.254.169.254"
ASK, CONTROL = f"{names.PROBER}-ask", "control"
NODE_VARIABLE = "R1PLUS_NODE_IP"


@dataclass(frozen=True, slots=True)
class IsolationTestRun:
    """What a run tests; an annotation of its Jobs holds it as JSON."""

    namespace: str
    uid: str
    """Of the namespace: runs of an earlier namespace of this name do not count."""
    deployment: str
    walls: dict[str, str]
    """Deployment -> digest of its network policy when the run began; empty name: those of the namespace."""
    started: int
    """Seconds since the epoch."""
    turn: str = ""
    """Round-robin cursor over the deployments. A run that a change caused does not move it."""
    owed: str = ""
    """The deployment to retry first: the last run under its network policies did not prove that they hold."""

    @property
    def id(self) -> str:
        """Part of its Jobs' names. It is a hash of everything, so two namespaces never share one."""
        return hashlib.sha256(dumps(self).encode()).hexdigest()[:10]

    @property
    def jobs(self) -> tuple[tuple[IsolationProbe, str], ...]:
        """(IsolationProbe, Job's name)."""
        return (
            (IsolationProbe.KNOCK, f"{names.PROBER}-{self.id}"),
            (IsolationProbe.ASK, f"{ASK}-{self.id}"),
            (IsolationProbe.CONTROL, f"{CONTROL}-{self.id}"),
        )


@dataclass(frozen=True, slots=True)
class IsolationTestResult:
    """A run as the cluster stores it."""

    run: IsolationTestRun
    jobs: Mapping[str, Json]
    """Name -> Job."""
    judgement: IsolationJudgement
    jobs_ended_at: float | None
    """When the last of its Jobs ended; None while one is active or missing."""
    ended_at: float | None
    """The same, once all its findings have arrived; None before."""

    @property
    def deadline(self) -> float:
        """When it has ended or is given up, seconds since the epoch."""
        return (
            self.run.started + 2.0 * DEADLINE_SECONDS
            if self.jobs_ended_at is None
            else self.jobs_ended_at + SETTLE_SECONDS
        )


def read_run(job: Json) -> IsolationTestRun | None:
    """Return the run that a Job belongs to; None: none that this version can read."""
    text = _get_run_annotation(job)
    try:
        return loads(IsolationTestRun, text) if text else None
    except ContractError:
        return None


def _get_run_annotation(job: Json) -> str:
    return str((job["metadata"].get("annotations") or {}).get(names.ANNOTATION_PROBED, ""))


Pods = Mapping[tuple[str, str], PodFacts]
"""(namespace, uid of its Job) -> pod."""


def collect_results(
    jobs: Iterable[Json], pods: Pods, config: OperatorConfig, now: float
) -> tuple[IsolationTestResult, ...]:
    """Return the runs of a namespace, the newest first. A Job that only copies a run's annotation is ignored."""
    by_run: dict[str, list[Json]] = {}
    for job in jobs:
        by_run.setdefault(_get_run_annotation(job), []).append(job)
    results = [_build_result(run, group, pods, config, now) for group in by_run.values() if (run := read_run(group[0]))]
    return tuple(sorted((one for one in results if one.jobs), key=lambda one: (-one.run.started, one.run.id)))


def locate_jobs(run: IsolationTestRun, config: OperatorConfig) -> Mapping[str, tuple[str, str]]:
    """Return probe -> namespace and name of its Job."""
    decoy = config.isolation.decoy_namespace
    return {probe: (decoy if probe == IsolationProbe.CONTROL else run.namespace, name) for probe, name in run.jobs}


def _build_result(
    run: IsolationTestRun, candidates: Iterable[Json], pods: Pods, config: OperatorConfig, now: float
) -> IsolationTestResult:
    places = locate_jobs(run, config)
    by_place = {(job["metadata"]["namespace"], job["metadata"]["name"]): job for job in candidates}
    jobs = {probe: by_place[place] for probe, place in places.items() if place in by_place}
    ends = [(job.get(JOB_ENDED) or {}).get("at") for job in jobs.values()]
    end_times = [float(end) for end in ends if end is not None]
    jobs_ended_at = max(end_times) if len(end_times) == len(places) else None
    findings = {
        (probe, container.name): finding
        for probe, job in jobs.items()
        if (pod := pods.get((job["metadata"]["namespace"], job["metadata"]["uid"])))
        for container in pod.containers
        if (finding := _parse_findings(container.message))
    }
    connections, api_probe_connections, api_requests, control_connections, control_requests = reports = [
        findings.get(key)
        for key in (
            (IsolationProbe.KNOCK, CONTAINER_KNOCK),
            (IsolationProbe.ASK, CONTAINER_KNOCK),
            (IsolationProbe.ASK, CONTAINER_ASK),
            (IsolationProbe.CONTROL, CONTAINER_KNOCK),
            (IsolationProbe.CONTROL, CONTAINER_ASK),
        )
    ]
    is_complete = None not in reports or (jobs_ended_at is not None and now >= jobs_ended_at + SETTLE_SECONDS)
    attempts = (
        *_keep_own_attempts(connections, list_connection_targets(IsolationProbe.KNOCK, run, config)),
        *_keep_own_attempts(api_probe_connections, list_connection_targets(IsolationProbe.ASK, run, config)),
    )
    judgement = judge_isolation(
        list_connection_targets(IsolationProbe.CONTROL, run, config),
        list_api_requests(config),
        Findings(attempts),
        api_requests,
        control_connections,
        control_requests,
    )
    by_name = {job["metadata"]["name"]: job for job in jobs.values()}
    return IsolationTestResult(run, by_name, judgement, jobs_ended_at, jobs_ended_at if is_complete else None)


def _keep_own_attempts(findings: Findings | None, targets: tuple[ConnectionTarget, ...]) -> Iterable[AttemptFinding]:
    """Yield the attempts of one of the two connecting probes. It cannot report the other one's target as blocked."""
    names = {target.name for target in targets}
    for one in findings.tries if findings else ():
        yield one if one.n in names or one.o is AttemptOutcome.OPEN else replace(one, o=AttemptOutcome.FAILED)


def _parse_findings(message: str) -> Findings | None:
    try:
        return loads(Findings, message, tolerant=True) if message else None
    except ContractError:
        return None


def compute_wait(
    newest: IsolationTestResult | None, policy_digests: Mapping[str, str], interval: float, now: float
) -> float:
    """Return the seconds until the next run is due; 0: now. Infinite while one is active."""
    if newest is None:
        return 0.0
    started = newest.run.started
    if newest.ended_at is None:
        return float("inf") if now < newest.deadline else 0.0
    if not newest.run.walls.items() >= policy_digests.items():
        # A network policy is new or changed. One that was deleted needs no run, also when it comes back unchanged.
        return max(0.0, started + SPACING_SECONDS - now) if started <= now else 0.0  # The clock was ahead.
    is_decided = newest.judgement.verdict is not IsolationVerdict.UNPROVEN
    return max(0.0, newest.ended_at + (interval if is_decided else RETRY_SECONDS) - now)


def choose_next_run(
    namespace: str, uid: str, policy_digests: Mapping[str, str], newest: IsolationTestResult | None, now: float
) -> IsolationTestRun:
    """Return the run to begin. `policy_digests`: deployment -> digest of its policy; empty name: the namespace's.

    It tests the deployment to retry, else one whose policy changed, else the next in round-robin order.
    """
    tested_digests, cursor = (newest.run.walls, newest.run.turn) if newest else ({}, "")
    retry = _choose_retry(newest) if newest else ""
    deployments = sorted(name for name in policy_digests if name)
    next_in_order = next((name for name in deployments if name > cursor), deployments[0])
    first_change = next((name for name in deployments if tested_digests.get(name) != policy_digests[name]), "")
    deployment = retry if retry in deployments else first_change or next_in_order
    return IsolationTestRun(
        namespace,
        uid,
        deployment,
        dict(policy_digests),
        max(int(now), newest.run.started + 1 if newest else 0),  # The newest even if the clock was ahead.
        turn=deployment if deployment == next_in_order else cursor,
        owed=retry if retry in deployments else "",
    )


def _choose_retry(newest: IsolationTestResult) -> str:
    """Return the deployment to retry first; empty: none.

    Otherwise the next run, under other network policies, would report that all is blocked. A run that proves nothing is
    retried as well: it may have found an open connection before its pods were deleted.
    """
    if newest.judgement.verdict is not IsolationVerdict.HELD:
        return newest.run.deployment
    return "" if newest.run.deployment == newest.run.owed else newest.run.owed


def list_connection_targets(
    probe: IsolationProbe, run: IsolationTestRun, config: OperatorConfig
) -> tuple[ConnectionTarget, ...]:
    """Return the addresses that a probe connects to; the control connects to those of both others.

    Under the policies of what serves: every port of another tenant's serving pod, which two policies block, and the
    platform's addresses, which one policy blocks. From the pod that may reach the decoy: the decoy's ports again, which
    only the decoy's own policy blocks, and one open port, which proves that the pod has a network.
    """
    if probe is IsolationProbe.CONTROL:
        return (
            *list_connection_targets(IsolationProbe.KNOCK, run, config),
            *list_connection_targets(IsolationProbe.ASK, run, config),
        )
    decoy = config.isolation.decoy_namespace
    pods = f"{names.DECOY}-pods.{decoy}.svc"
    if probe is IsolationProbe.ASK:
        blocked_ports = (ConnectionTarget(f"decoy-ingress:{port}", pods, port, Against.DECOY) for port in SERVING_PORTS)
        return (*blocked_ports, ConnectionTarget("decoy-let-in", pods, PORT_ALLOWED, Against.OWN))
    targets = [ConnectionTarget(f"decoy-pod:{port}", pods, port, Against.DECOY) for port in SERVING_PORTS]
    targets.append(ConnectionTarget("decoy-service", f"{names.DECOY}.{decoy}.svc", names.PORT_GRPC, Against.DECOY))
    targets.append(
        ConnectionTarget("own-service", f"{run.deployment}.{run.namespace}.svc", names.PORT_GRPC, Against.OWN)
    )
    platform = [
        ("metadata", METADATA_ADDRESS, PORT_METADATA),
        ("kubelet", f"$({NODE_VARIABLE})", PORT_KUBELET),
        ("node-ssh", f"$({NODE_VARIABLE})", PORT_SSH),
        ("apiserver", API_HOST, PORT_API),
        *((name, *address) for name, url in config.isolation.other_targets.items() if (address := _parse_address(url))),
    ]
    return (*targets, *(ConnectionTarget(name, host, port, Against.PLATFORM) for name, host, port in platform))


def _parse_address(url: str) -> tuple[str, int] | None:
    """Return host and port of an address in the chart's values, and nothing else of it: it may hold a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    return (parts.hostname, port or (443 if parts.scheme == "https" else 80)) if parts.hostname else None


def list_api_requests(config: OperatorConfig) -> tuple[ApiRequest, ...]:
    """Return the requests to the API server: all are about the decoy, and the chart's Role `control` allows each."""
    namespace = config.isolation.decoy_namespace
    core, ours = f"/api/v1/namespaces/{namespace}", f"/apis/{names.API_VERSION}/namespaces/{namespace}"
    pod: Json = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "intruder"},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": build_pod_security_context(config.pod_user),
            "containers": [
                {
                    "name": "intruder",
                    "image": config.monitor_image,
                    "securityContext": build_container_security_context(),
                }
            ],
        },
    }
    token = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["nobody"]}}
    dry_run = "dryRun=All"
    return (
        ApiRequest("secret", "GET", f"{core}/secrets/{names.DECOY}"),
        ApiRequest("secret-anonymous", "GET", f"{core}/secrets/{names.DECOY}", anonymous=True),
        ApiRequest("secrets", "GET", f"{core}/secrets"),
        ApiRequest("configmaps", "GET", f"{core}/configmaps"),
        ApiRequest("pods", "GET", f"{core}/pods"),
        ApiRequest("pod-log", "GET", f"{core}/pods/{names.DECOY}/log"),
        ApiRequest("pod-exec", "POST", f"{core}/pods/{names.DECOY}/exec?command=true&stdout=true"),
        ApiRequest("pod-create", "POST", f"{core}/pods?{dry_run}", dumps(pod)),
        ApiRequest("token", "POST", f"{core}/serviceaccounts/{CONTROL}/token?{dry_run}", dumps(token)),
        ApiRequest(
            "wall-delete",
            "DELETE",
            f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies/{names.DECOY}-none?{dry_run}",
        ),
        ApiRequest("revisions", "GET", f"/apis/apps/v1/namespaces/{namespace}/controllerrevisions"),
        ApiRequest("deployments", "GET", f"{ours}/r1plusdeployments"),
        ApiRequest(
            "tenant-patch",
            "PATCH",
            f"{ours}/r1plustenants/{names.TENANT}?{dry_run}",
            dumps({"spec": {"callers": {"namespaces": []}}}),
            "application/merge-patch+json",
        ),
    )
