"""The story's building blocks: what the demo shows and the end-to-end tests assert. Each waits with a deadline.

A step that waits says what it sees to `tell`, and raises StoryError with evidence when the world does something else.
"""

import json
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml
from kubernetes.client.exceptions import ApiException

from devcluster.api import pod_ready
from e2e import evidence, objects
from e2e.inside import monitor_report
from e2e.kube import Json, Kube
from e2e.target import Target
from e2e.waiting import StoryError, wait_for
from r1plus_cli.cluster.kubernetes_cluster import KubernetesCluster
from r1plus_cli.deployment.status_text import ChangeReporter
from r1plus_cli.deployment.stream import Answer, Question, ask
from r1plus_cli.deployment.view import PROGRESSING, QUALITY, READY, DeploymentView, build_view
from r1plus_cli.errors import CliError
from r1plus_cli.registry import DEFAULT, Registry, parse_address
from r1plus_contract.history import History, RolloutEvent
from r1plus_contract.metrics import ALERT_BELOW_THRESHOLD
from r1plus_contract.names import ANNOTATION_VERDICT, LABEL_REVISION, LABEL_SERVING, PORT_GRPC, SERVING

EXAMPLES = Path(__file__).parents[2] / "examples"
TENANTS = EXAMPLES / "tenants.yaml"
FULL = EXAMPLES / "credit-full.yaml"
LITE = EXAMPLES / "support-lite.yaml"
EDGE = EXAMPLES / "support-edge.yaml"
FULL_Q4 = EXAMPLES / "credit-full-q4-1.yaml"
FULL_Q4_OBSERVE = EXAMPLES / "credit-full-q4-1-observe.yaml"

GATE_SECONDS = 3000.0
"""Ten times what three gates at once need on two cores, 850 probes each, and what the refusal of one needs."""

TICK_SECONDS = 20.0
"""So often a wait that shows no change says that it goes on."""

Tell = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Name:
    """Which R1PlusDeployment."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def name_in(example: Path) -> Name:
    """The R1PlusDeployment that an example file holds."""
    metadata = deployment_in(example)["metadata"]
    return Name(metadata["namespace"], metadata["name"])


def deployment_in(example: Path, accuracy: Json | None = None) -> dict[str, Any]:
    """Return the R1PlusDeployment that an example file holds, with these fields of `spec.accuracy` besides."""
    body: dict[str, Any] = next(
        d for d in yaml.safe_load_all(example.read_text()) if d and d["kind"] == "R1PlusDeployment"
    )
    if accuracy:
        body["spec"]["accuracy"] = body["spec"].get("accuracy", {}) | accuracy
    return body


def apply(kube: Kube, *examples: Path) -> None:
    """`kubectl apply`, as a user would. Tenants: `gateways.apply_tenants`."""
    kube.kubectl("apply", *(f"--filename={example}" for example in examples))


def until_counted(kube: Kube) -> None:
    """Wait until what tenants' quotas limit can be made."""
    wait_for(lambda: counted(kube), "every tenant's quota is counted", lambda: uncounted(kube))
    for namespace in limited(kube):
        wait_for(partial(is_admitted, kube, namespace), f"deployments are admitted in {namespace}")


def limited(kube: Kube) -> set[str]:
    """Return the namespaces whose R1PlusTenant has a quota."""
    return {t["metadata"]["namespace"] for t in kube.all("r1plustenants") if t["spec"].get("quota")}


def is_admitted(kube: Kube, namespace: str) -> bool:
    """Whether the API server's admission knows the counts too: its own copy may be older than the one that a client reads."""
    try:
        kube.create("r1plusdeployments", namespace, objects.deployment(namespace, "probe"), dry_run=True)
    except ApiException as error:
        return "status unknown for quota" not in str(error.body)
    return True


def counted(kube: Kube) -> bool:
    """Whether quotas stand where R1PlusTenants ask for one, and Kubernetes knows what is used of them.

    Until then it refuses what they limit: `status unknown for quota`. Its controller looks for new kinds, such as ours
    just after the installation, twice a minute.
    """
    wanted = limited(kube)
    quotas = kube.all("resourcequotas", selector="app.kubernetes.io/managed-by=r1plus-operator")
    stand = {q["metadata"]["namespace"] for q in quotas}
    known = all(set(q["spec"]["hard"]) <= set(q.get("status", {}).get("used", ())) for q in quotas)
    return wanted <= stand and known


def uncounted(kube: Kube) -> str:
    """What is known of them instead."""
    return kube.kubectl("get", "resourcequotas", "-A", "-o", "wide")


def view(kube: Kube, name: Name) -> DeploymentView:
    """The deployment as it stands; StoryError if it is not there."""
    cr = kube.get("r1plusdeployments", name.namespace, name.name)
    if cr is None:
        raise StoryError(f"There is no R1PlusDeployment {name}")
    return build_view(cr)


def follow(
    kube: Kube,
    names: Sequence[Name],
    done: Callable[[DeploymentView], bool],
    what: str,
    tell: Tell,
    hopeless: Callable[[DeploymentView], bool] = lambda one: False,
) -> dict[Name, DeploymentView]:
    """Wait until `done` holds for each of `names`, telling every change once; give up once one is `hopeless`."""
    told = ChangeReporter()

    def look() -> dict[Name, DeploymentView] | None:
        seen = {name: view(kube, name) for name in names}
        for one in seen.values():
            if (line := told.format_change(one, time.monotonic())) is not None:
                tell(line)
            if hopeless(one):
                raise StoryError(f"{what} will not come: {one.key} {one.format_brief()}\n{seen_instead()}")
        return seen if all(done(one) for one in seen.values()) else None

    def seen_instead() -> str:
        stuck = [name for name in names if not done(view(kube, name))]
        return "\n".join(evidence.of_deployment(kube, name.namespace, name.name) for name in stuck)

    return wait_for(look, what, seen_instead, seconds=GATE_SECONDS)


def until_ready(kube: Kube, names: Sequence[Name], tell: Tell) -> dict[Name, DeploymentView]:
    """Wait until every deployment serves a revision that has passed its suite, and nothing is under way."""
    return follow(kube, names, settled, f"{', '.join(map(str, names))} Ready", tell, refused_for_good)


def settled(one: DeploymentView) -> bool:
    """Ready, verified, complete: nothing more will happen by itself."""
    return one.ready and one.status_of(QUALITY) == "True" and not one.candidate


def refused_for_good(one: DeploymentView) -> bool:
    """The gate has said no to what the newest spec asks for: it will not ask twice."""
    return (
        one.up_to_date and one.reason_of(QUALITY) == "GateFailed" and one.reason_of(PROGRESSING) == "CandidateRefused"
    )


def refused(one: DeploymentView) -> bool:
    """The gate has said no to the candidate, and the running revision still serves."""
    return one.up_to_date and one.reason_of(PROGRESSING) == "CandidateRefused" and one.status_of(READY) == "True"


def ask_through_service(
    target: Target, name: Name, prompt: str, on_text: Callable[[str], None] | None = None, max_new_tokens: int = 48
) -> Answer:
    """One question by the way that a tenant's program takes."""
    with target.reach(name.namespace, name.name, PORT_GRPC) as address:
        return ask(address, Question(prompt, max_new_tokens=max_new_tokens), on_text=on_text)


def serving_revision(kube: Kube, name: Name) -> str:
    """The revision that the Service selects: where traffic goes, whatever any status says."""
    service = kube.get("services", name.namespace, name.name)
    if service is None:
        raise StoryError(f"There is no Service {name}")
    return str(service["spec"]["selector"].get(LABEL_REVISION, ""))


def decided_at(kube: Kube, name: Name, revision: str) -> str:
    """When the gate last decided about a revision, RFC 3339; empty where it has not."""
    stored = kube.get("controllerrevisions", name.namespace, revision) if revision else None
    notes = (stored or {}).get("metadata", {}).get("annotations") or {}
    reports = json.loads(notes.get(ANNOTATION_VERDICT, "{}")).get("reports") or []
    return max((str(report["decidedAt"]) for report in reports), default="")


@dataclass(frozen=True, slots=True)
class Alert:
    """An alert as Alertmanager holds it."""

    name: str
    labels: dict[str, str]
    summary: str
    description: str
    starts_at: str
    updated_at: float
    """Seconds since the epoch."""
    runbook: str = ""
    """Where it is written what to do."""


def alerts_at(base_url: str, alert: str | None = ALERT_BELOW_THRESHOLD) -> list[Alert]:
    """Active alerts of that name; of all names for None."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{base_url}/api/v2/alerts?active=true", timeout=10) as answer:
        found = json.loads(answer.read())
    return [_alert(raw) for raw in found if alert in (None, raw["labels"].get("alertname"))]


def ready_pod(kube: Kube, name: Name, than: str = "") -> str | None:
    """A Ready pod of the revision that takes traffic, another one `than` this; None while there is none."""
    revision = serving_revision(kube, name)
    pods = (pod["metadata"] for pod in kube.pods_of(name.namespace, name.name) if _is_up(pod))
    ours = (str(pod["name"]) for pod in pods if pod["labels"].get(LABEL_REVISION) == revision)
    return next((pod for pod in ours if pod != than), None)


def until_pod(kube: Kube, name: Name) -> str:
    """Wait for a Ready pod of the revision that takes traffic; return its name."""
    return wait_for(lambda: ready_pod(kube, name), f"a Ready pod of {name}")


def pods_in_traffic(kube: Kube, name: Name) -> list[str]:
    """Return the names of the Ready pods that the Service may select, of any revision."""
    pods = (pod["metadata"] for pod in kube.pods_of(name.namespace, name.name) if _is_up(pod))
    return sorted(pod["name"] for pod in pods if pod["labels"].get(LABEL_SERVING) == SERVING)


def _is_up(pod: Json) -> bool:
    return pod_ready(pod) and "deletionTimestamp" not in pod["metadata"]


def until_alert(target: Target, name: Name, since: float, tell: Tell) -> Alert:
    """Wait until Alertmanager has heard, from a sweep that ended after `since`, that `name` is below its threshold.

    An alert alone proves nothing: an earlier run's may still stand, and Prometheus repeats it until it reads new rules.
    """
    kube = target.kube

    def evidence_of() -> str:
        return evidence.of_deployment(kube, name.namespace, name.name)

    what = f"the monitor of {name} has swept the suite once on the running engine"
    sweep = wait_for(
        ticking(lambda: _swept_after(kube, name, since), what, tell),
        what,
        evidence_of,
        seconds=GATE_SECONDS,
        period_s=2.0,
    )
    tell(f"The monitor counted on the running engine: {sweep['correct']}/{sweep['total']} right")
    counted = epoch(sweep["finishedAt"])
    with target.alertmanager() as base_url:

        def look() -> Alert | None:
            found = (a for a in alerts_at(base_url) if is_about(a, name) and a.updated_at >= counted)
            return next(found, None)

        what = f"{ALERT_BELOW_THRESHOLD} for {name} at Alertmanager"
        return wait_for(ticking(look, what, tell), what, evidence_of, seconds=GATE_SECONDS)


def ticking(
    look: Callable[[], T | None], what: str, tell: Tell, clock: Callable[[], float] = time.monotonic
) -> Callable[[], T | None]:
    """Return `look`, and tell what is waited for: at once, and every TICK_SECONDS until it finds something."""
    began = told = clock()
    tell(f"Waiting: {what}")

    def looked() -> T | None:
        nonlocal told
        found = look()
        if not found and clock() - told >= TICK_SECONDS:
            told = clock()
            tell(f"Still waiting, {told - began:.0f} s: {what}")
        return found

    return looked


def _swept_after(kube: Kube, name: Name, since: float) -> Json | None:
    """The last sweep's figures, if it ended after `since` (seconds since the epoch)."""
    pod = ready_pod(kube, name)
    if pod is None:
        return None
    try:
        sweep: Json | None = monitor_report(kube, name.namespace, pod).get("sweep")
    except RuntimeError:
        return None  # The pod went away between the two looks.
    return sweep if sweep and epoch(sweep["finishedAt"]) >= since else None


def epoch(rfc3339: str) -> float:
    """Seconds since the epoch."""
    return datetime.fromisoformat(rfc3339.replace("Z", "+00:00")).timestamp()


def is_about(alert: Alert, name: Name) -> bool:
    """Whether the alert is of this deployment."""
    return alert.labels.get("namespace") == name.namespace and alert.labels.get("deployment") == name.name


def _alert(raw: dict[str, Any]) -> Alert:
    notes = raw.get("annotations", {})
    return Alert(
        name=raw["labels"]["alertname"],
        labels=dict(raw["labels"]),
        summary=notes.get("summary", ""),
        description=notes.get("description", ""),
        starts_at=raw["startsAt"],
        updated_at=epoch(raw["updatedAt"]),
        runbook=notes.get("runbook_url", ""),
    )


def condition(cr: Json, kind: str) -> Json:
    """One raw condition; empty while there is none."""
    found = cr.get("status", {}).get("conditions") or []
    return next((c for c in found if c["type"] == kind), {})


def recorded(kube: Kube, name: Name, revision: str) -> History:
    """What the registry tells of a deployment, as `r1plus history` asks it, once it knows this revision's gate and promotion."""
    registry = Registry(parse_address(DEFAULT), lambda: KubernetesCluster(str(kube.kubeconfig)))
    trouble = "nothing was recorded"

    def look() -> History | None:
        nonlocal trouble
        try:
            found = registry.read_histories(name.namespace, name.name).items
        except CliError as error:
            trouble = str(error)
            return None
        return next((one for one in found if is_known(one)), None)

    def is_known(one: History) -> bool:
        happened = {(rollout.revision, rollout.event) for rollout in one.rollouts}
        return (revision, RolloutEvent.PROMOTED) in happened and any(
            gate.revision == revision for gate in one.evaluations
        )

    return wait_for(look, f"the registry knows the gate of {revision}, and its promotion", lambda: trouble)
