"""A run of the prober of walls: what is tried, what was found, and when the next one is due. Pure, like `plan`.

A run knocks under the walls of one of the tenant's deployments; beside it, let out to the API server and to the decoy,
it asks the one and knocks at the other; and a control in the decoy's namespace makes the same tries with leave to.
Nothing remembers runs but their Jobs: each bears which walls it is of, and its findings are its pods' last words. The
newest run that has ended stays until a newer one has.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from r1plus_contract import names
from r1plus_contract.isolation import (
    API_HOST,
    CONTAINER_ASK,
    CONTAINER_KNOCK,
    Against,
    Door,
    Findings,
    Outcome,
    Probe,
    Question,
    Try,
)
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_operator.plan.observation import JOB_ENDED, Json, PodFacts
from r1plus_operator.plan.podspec.pod import locked, restricted
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_policies.isolation import IsolationJudgement, IsolationVerdict, judge_isolation

SPACING_SECONDS = 60.0
"""From one run's beginning to the next, however often walls change: changes in between are one."""
RETRY_SECONDS = 300.0
"""After a run that says nothing, until the next."""
DEADLINE_SECONDS = 240
"""Of a Job: to be scheduled, to start, to try for half a minute."""
SETTLE_SECONDS = 10.0
"""Jobs and pods are watched apart: so long after its Jobs' end the last words of a run may still be on their way."""
MOST_AT_ONCE = 20
"""Runs, of all tenants: a change that concerns them all would otherwise start three pods of each in one minute."""
CROWDED_SECONDS = 30.0
"""Until one that was not let begin asks again."""
OVERDUE_RUNS = 2.5
"""So many intervals after a run its outcome says nothing of now any more."""
SERVING_PORTS = (names.PORT_HTTP, names.PORT_GRPC, names.PORT_TRITON_METRICS, names.PORT_MONITOR)
"""Those of a serving pod, and so of the decoy's."""
PORT_LET_IN = 8003
"""Of the decoy's, open to whoever asks: without it nobody would know that such a pod gets as far as its other ports."""
PORT_API, PORT_KUBELET, PORT_SSH, PORT_METADATA = 443, 10250, 22, 80
METADATA_ADDRESS = "169.254.169.254"
ASK, CONTROL = f"{names.PROBER}-ask", "control"
NODE_VARIABLE = "R1PLUS_NODE_IP"


@dataclass(frozen=True, slots=True)
class Run:
    """Which walls a run is of; its Jobs bear it as JSON."""

    namespace: str
    uid: str
    """Of the namespace: a namesake's runs are not its own."""
    deployment: str
    walls: dict[str, str]
    """Deployment -> digest of its walls when the run began; empty name: those of the namespace."""
    started: int
    """Seconds since the epoch."""
    turn: str = ""
    """How far the deployments' turns have come: a change is tried beside them, and takes nobody's turn."""
    owed: str = ""
    """The deployment whose walls were not seen to hold, until a run under them has."""

    @property
    def id(self) -> str:
        """Part of its Jobs' names, in which nothing is shortened: two namespaces never share one."""
        return hashlib.sha256(dumps(self).encode()).hexdigest()[:10]

    @property
    def jobs(self) -> tuple[tuple[Probe, str], ...]:
        """(Probe, Job's name)."""
        return (
            (Probe.KNOCK, f"{names.PROBER}-{self.id}"),
            (Probe.ASK, f"{ASK}-{self.id}"),
            (Probe.CONTROL, f"{CONTROL}-{self.id}"),
        )


@dataclass(frozen=True, slots=True)
class Ran:
    """A run as it lies in the cluster."""

    run: Run
    jobs: Mapping[str, Json]
    """Name -> Job."""
    judgement: IsolationJudgement
    over_at: float | None
    """When the last of its Jobs had ended; None while one goes on, or is missing."""
    ended_at: float | None
    """Likewise, once all has been heard that it had to say."""

    @property
    def quiet_at(self) -> float:
        """By when it has ended, or is given up."""
        return self.run.started + 2.0 * DEADLINE_SECONDS if self.over_at is None else self.over_at + SETTLE_SECONDS


def read(job: Json) -> Run | None:
    """Of which run a Job is; None: of none that this version knows."""
    text = _told(job)
    try:
        return loads(Run, text) if text else None
    except ContractError:
        return None


def _told(job: Json) -> str:
    return str((job["metadata"].get("annotations") or {}).get(names.ANNOTATION_PROBED, ""))


Pods = Mapping[tuple[str, str], PodFacts]
"""(namespace, uid of its Job) -> pod."""


def ran(jobs: Iterable[Json], pods: Pods, config: OperatorConfig, now: float) -> tuple[Ran, ...]:
    """The runs of a namespace, the newest first. What bears a run's annotation and is none of its Jobs is not heard."""
    found: dict[str, list[Json]] = {}
    for job in jobs:
        found.setdefault(_told(job), []).append(job)
    made = [_ran(run, of, pods, config, now) for of in found.values() if (run := read(of[0]))]
    return tuple(sorted((one for one in made if one.jobs), key=lambda one: (-one.run.started, one.run.id)))


def places(run: Run, config: OperatorConfig) -> Mapping[str, tuple[str, str]]:
    """Probe -> namespace and name of its Job."""
    decoy = config.isolation.decoy_namespace
    return {probe: (decoy if probe == Probe.CONTROL else run.namespace, name) for probe, name in run.jobs}


def _ran(run: Run, told: Iterable[Json], pods: Pods, config: OperatorConfig, now: float) -> Ran:
    where = places(run, config)
    lying = {(job["metadata"]["namespace"], job["metadata"]["name"]): job for job in told}
    jobs = {probe: lying[place] for probe, place in where.items() if place in lying}
    ends = [(job.get(JOB_ENDED) or {}).get("at") for job in jobs.values()]
    over = [float(end) for end in ends if end is not None]
    over_at = max(over) if len(over) == len(where) else None
    said = {
        (probe, container.name): found
        for probe, job in jobs.items()
        if (pod := pods.get((job["metadata"]["namespace"], job["metadata"]["uid"])))
        for container in pod.containers
        if (found := _findings(container.message))
    }
    knocked, let_out, asked, control_knocked, control_asked = words = [
        said.get(of)
        for of in (
            (Probe.KNOCK, CONTAINER_KNOCK),
            (Probe.ASK, CONTAINER_KNOCK),
            (Probe.ASK, CONTAINER_ASK),
            (Probe.CONTROL, CONTAINER_KNOCK),
            (Probe.CONTROL, CONTAINER_ASK),
        )
    ]
    heard = None not in words or (over_at is not None and now >= over_at + SETTLE_SECONDS)
    tries = Findings((*_own(knocked, doors(Probe.KNOCK, run, config)), *_own(let_out, doors(Probe.ASK, run, config))))
    ordered = doors(Probe.CONTROL, run, config)
    judgement = judge_isolation(ordered, questions(config), tries, asked, control_knocked, control_asked)
    by_name = {job["metadata"]["name"]: job for job in jobs.values()}
    return Ran(run, by_name, judgement, over_at, over_at if heard else None)


def _own(findings: Findings | None, ordered: tuple[Door, ...]) -> Iterable[Try]:
    """What one of two that knock has found. That another's door is shut is not its to say."""
    names = {door.name for door in ordered}
    for one in findings.tries if findings else ():
        yield one if one.n in names or one.o is Outcome.OPEN else replace(one, o=Outcome.FAILED)


def _findings(message: str) -> Findings | None:
    try:
        return loads(Findings, message, tolerant=True) if message else None
    except ContractError:
        return None


def due(newest: Ran | None, walls: Mapping[str, str], interval: float, now: float) -> float:
    """Seconds until the next run is due; 0: now. Infinite while one goes on."""
    if newest is None:
        return 0.0
    started = newest.run.started
    if newest.ended_at is None:
        return float("inf") if now < newest.quiet_at else 0.0
    if not newest.run.walls.items() >= walls.items():
        # Walls that were not there, or read otherwise. What serves no more needs no run, and none when it is back.
        return max(0.0, started + SPACING_SECONDS - now) if started <= now else 0.0  # The clock was ahead.
    decided = newest.judgement.verdict is not IsolationVerdict.UNPROVEN
    return max(0.0, newest.ended_at + (interval if decided else RETRY_SECONDS) - now)


def next_run(namespace: str, uid: str, walls: Mapping[str, str], newest: Ran | None, now: float) -> Run:
    """The run to begin: under walls that were open, else under some that changed, else under those whose turn it is."""
    known, turn = (newest.run.walls, newest.run.turn) if newest else ({}, "")
    owed = _owed(newest) if newest else ""
    those = sorted(name for name in walls if name)
    first = next((name for name in those if name > turn), those[0])
    changed = next((name for name in those if known.get(name) != walls[name]), "")
    chosen = owed if owed in those else changed or first
    return Run(
        namespace,
        uid,
        chosen,
        dict(walls),
        max(int(now), newest.run.started + 1 if newest else 0),  # The newest also where the clock was ahead.
        turn=chosen if chosen == first else turn,
        owed=owed if owed in those else "",
    )


def _owed(newest: Ran) -> str:
    """Else the next run, under other walls, would say that all are shut.

    What shows nothing is owed as well: it may be a run that found walls open and whose pods are gone.
    """
    if newest.judgement.verdict is not IsolationVerdict.HELD:
        return newest.run.deployment
    return "" if newest.run.deployment == newest.run.owed else newest.run.owed


def doors(probe: Probe, run: Run, config: OperatorConfig) -> tuple[Door, ...]:
    """What a probe knocks at, the control at what both others do.

    Under the walls of what serves: every port of a serving pod of another tenant, which two walls shut, and what of the
    platform a pod could reach, which one does. From the pod that is let out to the decoy: its ports once more, which
    the other alone shuts, and one that is open to this pod, which shows that it is let out.
    """
    if probe is Probe.CONTROL:
        return (*doors(Probe.KNOCK, run, config), *doors(Probe.ASK, run, config))
    decoy = config.isolation.decoy_namespace
    pods = f"{names.DECOY}-pods.{decoy}.svc"
    if probe is Probe.ASK:
        shut = (Door(f"decoy-ingress:{port}", pods, port, Against.DECOY) for port in SERVING_PORTS)
        return (*shut, Door("decoy-let-in", pods, PORT_LET_IN, Against.OWN))
    found = [Door(f"decoy-pod:{port}", pods, port, Against.DECOY) for port in SERVING_PORTS]
    found.append(Door("decoy-service", f"{names.DECOY}.{decoy}.svc", names.PORT_GRPC, Against.DECOY))
    found.append(Door("own-service", f"{run.deployment}.{run.namespace}.svc", names.PORT_GRPC, Against.OWN))
    platform = [
        ("metadata", METADATA_ADDRESS, PORT_METADATA),
        ("kubelet", f"$({NODE_VARIABLE})", PORT_KUBELET),
        ("node-ssh", f"$({NODE_VARIABLE})", PORT_SSH),
        ("apiserver", API_HOST, PORT_API),
        *((name, *address) for name, url in config.isolation.beside.items() if (address := _address(url))),
    ]
    return (*found, *(Door(name, host, port, Against.PLATFORM) for name, host, port in platform))


def _address(url: str) -> tuple[str, int] | None:
    """Host and port of an address in the chart's values, and nothing else of it: it may hold a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    return (parts.hostname, port or (443 if parts.scheme == "https" else 80)) if parts.hostname else None


def questions(config: OperatorConfig) -> tuple[Question, ...]:
    """What is asked of the API server: everything about the decoy, and the chart's Role `control` allows each."""
    namespace = config.isolation.decoy_namespace
    core, ours = f"/api/v1/namespaces/{namespace}", f"/apis/{names.API_VERSION}/namespaces/{namespace}"
    pod: Json = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "intruder"},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": restricted(config.pod_user),
            "containers": [{"name": "intruder", "image": config.monitor_image, "securityContext": locked()}],
        },
    }
    token = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["nobody"]}}
    dry = "dryRun=All"
    return (
        Question("secret", "GET", f"{core}/secrets/{names.DECOY}"),
        Question("secret-anonymous", "GET", f"{core}/secrets/{names.DECOY}", anonymous=True),
        Question("secrets", "GET", f"{core}/secrets"),
        Question("configmaps", "GET", f"{core}/configmaps"),
        Question("pods", "GET", f"{core}/pods"),
        Question("pod-log", "GET", f"{core}/pods/{names.DECOY}/log"),
        Question("pod-exec", "POST", f"{core}/pods/{names.DECOY}/exec?command=true&stdout=true"),
        Question("pod-create", "POST", f"{core}/pods?{dry}", dumps(pod)),
        Question("token", "POST", f"{core}/serviceaccounts/{CONTROL}/token?{dry}", dumps(token)),
        Question(
            "wall-delete",
            "DELETE",
            f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies/{names.DECOY}-none?{dry}",
        ),
        Question("revisions", "GET", f"/apis/apps/v1/namespaces/{namespace}/controllerrevisions"),
        Question("deployments", "GET", f"{ours}/r1plusdeployments"),
        Question(
            "tenant-patch",
            "PATCH",
            f"{ours}/r1plustenants/{names.TENANT}?{dry}",
            dumps({"spec": {"callers": {"namespaces": []}}}),
            "application/merge-patch+json",
        ),
    )
