"""A tiny world for plan tests: it holds what a plan applied, and pods and reports as a test says.

Not a fake API server: it merges nothing and defaults nothing. What the real one does is tested in tests/apiserver.
"""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from r1plus_contract import names
from r1plus_contract.jsonable import dumps, loads
from r1plus_contract.monitor.settings import KnownVerdicts, MonitorSettings
from r1plus_contract.requests import Request, Verb, build_annotations, next_order, read_requests
from r1plus_contract.suites.suite import Item, SuiteHeader, SuiteSampling, encode_items, load_suite, suite_hash
from r1plus_contract.timestamps import format_timestamp
from r1plus_contract.verdict import GateReport, MonitorReport, Phase, SweepFigures, Verdict, Watch, WatchStanding
from r1plus_model_repo.catalog.embedding import EmbeddingEngine
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.plan.accuracy.mounted_suites import find_mounted_suites, read_mounted_suites
from r1plus_operator.plan.deployment import Plan, plan
from r1plus_operator.plan.engine.delivery import EngineVolume
from r1plus_operator.plan.observation import (
    ContainerFacts,
    NodeFacts,
    Observation,
    PodFacts,
    PoolView,
    PrometheusState,
    SuiteSource,
    TenantView,
    VolumeFacts,
    WaveView,
)
from r1plus_operator.plan.podspec.pod import hash_pod_spec, list_images
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.revision.restored import find_selected, restore_revision
from r1plus_operator.plan.revision.storage import read_revision
from r1plus_operator.plan.settings import OperatorConfig, SuiteTrust, VolumeTerms
from support.plan.conditions import assert_conditions
from support.plan.timed import Timed

ROOT = Path(__file__).parents[3]
CATALOG = load_catalog(ROOT / "model_repo" / "r1plus_model_repo" / "catalog" / "smollm2.yaml")
CONFIG = OperatorConfig(
    monitor_image="registry.local/monitor:1",
    triton_image="registry.local/triton:1",
    default_family="smollm2",
    operator_namespace="r1plus-system",
    monitoring_namespace="monitoring",
    suite_trust=SuiteTrust(required=False),
    volumes=VolumeTerms(require_signature=False),
)
NODE = NodeFacts("n1", 20 * 2**30, 2.0, {"zone": "a"})


def suite(name: str, salt: str = "") -> SuiteSource:
    """A sound suite of four items."""
    items = [Item(f"i{i}{salt}", "s", f"Question {i}?", "contains", (f"answer {i}",)) for i in range(4)]
    text = encode_items(items)
    header = SuiteHeader(
        name, "1.0.0", "smollm2", "full", "", "e", suite_hash(text, SuiteSampling(), "1"), 4, SuiteSampling()
    )
    return SuiteSource(name, dumps(header), text, load_suite(dumps(header), text))


FULL: dict[str, Any] = {"tier": "full", "context": {"maxTokens": 2048}}
NEXT: dict[str, Any] = {"context": {"maxTokens": 1024}}
"""Asks for another revision of it."""
Q4_1: dict[str, Any] = {"precision": "Q4_1"}
DAY = 86_400.0
SUITES = {name: suite(name) for name in ("smollm2-full-v1", "smollm2-lite-v1", "smollm2-edge-v1")}


@dataclass
class World(Timed):
    """One CR and what belongs to it."""

    spec: dict[str, Any]
    generation: int = 1
    now: float = 1000.0
    suites: dict[str, SuiteSource] = field(default_factory=lambda: dict(SUITES))
    nodes: tuple[NodeFacts, ...] = (NODE,)
    kinds: frozenset[str] = frozenset({"PodMonitor", "PrometheusRule"})
    status: dict[str, Any] = field(default_factory=dict)
    children: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, PodFacts] = field(default_factory=dict)
    reports: dict[str, MonitorReport] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    config: OperatorConfig = CONFIG
    annotations: dict[str, str] = field(default_factory=dict)
    pool: PoolView | None = None
    wiring: PrometheusState | None = None
    engines: tuple[Engine, ...] = CATALOG
    embedding_engines: tuple[EmbeddingEngine, ...] = ()
    volumes: dict[str, VolumeFacts] = field(default_factory=dict)
    volumes_refused: dict[str, str] = field(default_factory=dict)
    wave: WaveView = field(default_factory=WaveView)
    tenant: TenantView | None = None
    endpoints: frozenset[str] | None = None

    def observed(self) -> Observation:
        meta: dict[str, Any] = {"name": "credit", "namespace": "team", "uid": "u-1", "generation": self.generation}
        if self.annotations:
            meta["annotations"] = dict(self.annotations)
        cr = {"metadata": meta, "spec": self.spec, "status": self.status}
        pods = tuple(self.pods.values())
        reports, children = dict(self.reports), self._restore_lost(dict(self.children))
        seen = Observation(
            cr, self.engines, self.suites, self.nodes, children, pods, reports, self.kinds, self.wiring, self.pool
        )
        volumes, refused = dict(self.volumes), dict(self.volumes_refused)
        seen = replace(seen, volumes=volumes, volume_write_errors=refused, wave=self.wave)
        seen = replace(seen, embedding_engines=self.embedding_engines)
        seen = replace(seen, mounted=self._read_mounted(children))
        return replace(seen, endpoints=self.endpoints, tenant=self.tenant)

    def _read_mounted(self, children: dict[tuple[str, str], Any]) -> tuple[SuiteSource, ...]:
        """Return the mounted suites where one of them is not at hand, as the gatherer does."""
        accuracy = children.get(("ConfigMap", "credit-accuracy"))
        has_unread = find_mounted_suites(accuracy, self.suites.values()).has_unread
        return read_mounted_suites(accuracy["data"]) if accuracy and has_unread else ()

    def _restore_lost(self, children: dict[tuple[str, str], Any]) -> dict[tuple[str, str], Any]:
        """Make the ControllerRevision of what serves again where it is gone, as the observer does."""
        name = find_selected(children, "credit")
        deployment, config = children.get(("Deployment", name)), children.get(("ConfigMap", name))
        if deployment and config and (live := restore_revision(deployment, config)):
            children.setdefault(("ControllerRevision", name), live)
        return children

    def pass_once(self) -> Plan:
        """Make a plan and carry it out; time moves on a second."""
        planned = self.plan()
        self._carry_out(planned, "u")
        self.notes += [note.reason for note in planned.notes]
        self.now += 1.0
        return planned

    def plan(self) -> Plan:
        """Make a plan."""
        return plan(self.observed(), self.config, self.now)

    def carry_out(self, planned: Plan, writes: int, *, backwards: bool = False) -> None:
        """Make only the first so many writes of a plan: the operator dies after them. The status goes first.

        The writes of a stage are made at once, so any may be the first: `backwards`, what is named last.
        """
        self._carry_out(planned, "d", writes, backwards=backwards)

    def _carry_out(self, planned: Plan, uids: str, writes: int = 10_000, *, backwards: bool = False) -> None:
        for name, patch in planned.relabel if writes else ():
            self._quarantine(name, patch)
        for kind, name, patches in planned.clear if writes else ():
            self._patch_labels(self.children[kind, name], patches)
        objects = [obj for stage in planned.apply for obj in (reversed(stage) if backwards else stage)]
        for obj in objects[:writes]:
            key = obj["kind"], obj["metadata"]["name"]
            uid = self.children.get(key, {"metadata": {"uid": f"{uids}-{len(self.children)}"}})["metadata"]["uid"]
            self.children[key] = {**obj, "metadata": {**obj["metadata"], "uid": uid}}
        for kind, name, _ in planned.delete[: max(0, writes - len(objects))]:
            del self.children[kind, name]
        for name, _ in planned.cut[: max(0, writes - len(objects) - len(planned.delete))]:
            # The others go with their Deployment.
            if self.pods[name].quarantine is not None:
                del self.pods[name]
        self.status = planned.status
        self._reap()

    def settle(self, limit: int = 6) -> Plan:
        """Make passes until one writes nothing; fail if that does not come."""
        for _ in range(limit):
            planned = self.pass_once()
            if not planned.writes:
                return planned
        raise AssertionError(f"still writing after {limit} passes: {planned.apply} {planned.delete}")

    # What people and the world do. Each returns the world, so that `.settle()` may follow.

    def change(self, **spec: Any) -> Self:
        """Apply another spec, as `kubectl apply` does."""
        self.spec = {**self.spec, **spec}
        self.generation += 1
        return self

    def apply(self, **spec: Any) -> str:
        """Apply another spec and settle; return the revision that it asks for, if there is one."""
        self.change(**spec).settle()
        return str(self.status.get("candidate") or self.status.get("revision", ""))

    def ask(self, verb: Verb, **about: str) -> Self:
        """Write a request as the command line does."""
        order = next_order({"annotations": self.annotations}, 0)
        about = {"at": f"2026-01-01T00:00:{order:02d}.000000Z", "uid": "u-1", **about}
        self.annotations |= build_annotations(verb, Request("alice", "a reason", **about, order=order))
        return self

    def ask_now(self, verb: Verb, *, ahead: float = 0.0) -> Self:
        """Write a request that is dated now, or so many seconds ahead."""
        return self.ask(verb, at=datetime.fromtimestamp(self.now + ahead, UTC).isoformat(timespec="microseconds"))

    def asked_at(self, verb: Verb) -> str:
        """Return the token of the newest request."""
        return read_requests({"annotations": self.annotations, "uid": "u-1"})[verb].token

    def deliver(self, facts: VolumeFacts | None = None) -> Self:
        """Let this be found on the candidate's volume, by default its engine."""
        volume = self.volume()
        self.volumes[volume.name] = facts or VolumeFacts(delivered_digest=volume.order.digest)
        return self

    def _patch_labels(self, live: dict[str, Any], patches: tuple[dict[str, Any], ...]) -> None:
        """Carry out what a JSON patch does to labels."""
        for patch in (one for one in patches if one["path"].startswith("/metadata/labels/")):
            key = patch["path"].removeprefix("/metadata/labels/").replace("~1", "/")
            labels = {k: v for k, v in live["metadata"]["labels"].items() if k != key}
            live["metadata"]["labels"] = labels | ({key: patch["value"]} if patch["op"] == "add" else {})

    def start_pods(self, revision: str, *, ready: bool = False) -> Self:
        """Start what the Deployment asks for, as the kubelet does; monitors of `ready` ones report as the first one's."""
        deployment = self.one("Deployment", revision)["spec"]
        pod_spec = deployment["template"]["spec"]
        template, images = hash_pod_spec(pod_spec), list_images(pod_spec)
        for i in range(deployment["replicas"]):
            name, replica_set = f"{revision}-{i}", f"{revision}-7d9f"
            self.pods[name] = PodFacts(
                name,
                revision,
                "10.0.0.1",
                ready,
                False,
                "",
                (TRITON,),
                replica_set,
                template,
                images,
                "u-1",
                f"uid-{name}",
            )
            if ready and (first := self.reports.get(f"{revision}-0")):
                self.reports.setdefault(name, first)
        return self

    def set_ready(self, revision: str) -> Self:
        return self.set_pods(revision, ready=True)

    def set_pods(self, revision: str = "", **facts: Any) -> Self:
        """Change the pods of a revision, by default of all."""
        self.pods = {n: replace(p, **facts) if revision in ("", p.revision) else p for n, p in self.pods.items()}
        return self

    def report(self, revision: str = "", **fields: Any) -> Self:
        """Let the monitors of a revision's pods, by default of all, report this, and otherwise what they reported."""
        self.reports = {
            name: replace(report, **fields) if revision in ("", self.pods[name].revision) else report
            for name, report in self.reports.items()
        }
        return self

    def report_gate(self, revision: str = "", **fields: Any) -> Self:
        """Change the gates that the monitors of a revision's pods, by default of all, report."""
        for name, report in self.reports.items():
            if revision in ("", self.pods[name].revision) and report.gate:
                self.reports[name] = replace(report, gate=replace(report.gate, **fields))
        return self

    def stand(self, pod: str, standing: WatchStanding, *, lost: tuple[str, ...] = (), evidence: float = 0.0) -> Self:
        """Let the pod's monitor watch, and report this standing; it has counted what was lost."""
        right, total = (0, 0) if standing is WatchStanding.ERRORS else (4 - len(lost), 4)
        count = SweepFigures(right, total, 0.0, 1.0, "2026-01-01T00:00:00Z", lost)
        watch = Watch(standing, 4, evidence, confirmation=count, lost_since_gate=lost)
        self.reports[pod] = replace(self.reports[pod], watch=watch)
        return self

    def date_count(self, pod: str, at: float) -> Self:
        """Let the pod's monitor say that its count ended at this moment."""
        watch = self.reports[pod].watch
        assert watch is not None
        assert watch.confirmation is not None
        count = replace(watch.confirmation, finished_at=format_timestamp(at))
        self.reports[pod] = replace(self.reports[pod], watch=replace(watch, confirmation=count))
        return self

    def stand_all(self, standing: WatchStanding, *, lost: tuple[str, ...] = (), evidence: float = 0.0) -> Self:
        for pod in self.pods:
            self.stand(pod, standing, lost=lost, evidence=evidence)
        return self

    def steady(self) -> Self:
        """Let every pod stand as it did at its gate."""
        return self.stand_all(WatchStanding.STEADY)

    def drop(self, *lost: str) -> Self:
        """Let the accuracy of every pod drop below the threshold."""
        return self.stand_all(WatchStanding.BELOW_THRESHOLD, lost=lost or ("i0",), evidence=2.0)

    def gate(
        self, revision: str, verdict: Verdict, *, lost: int = 0, batch: int | None = None, suite_name: str = ""
    ) -> Self:
        """Let every monitor of the revision report a decided gate, by default one at the serving batch."""
        stored, accuracy = self.revision(revision), self.spec.get("accuracy", {})
        suite_name = suite_name or accuracy.get("suite", f"smollm2-{self.spec['tier']}-v1")
        identity, digest = stored.identity_digest, self.suite_hash(suite_name)
        reason, message = "TooManyLost" if lost else "Passed", f"lost {lost} of 4 items"
        threshold, asked = accuracy.get("threshold", 0.98), stored.batch if batch is None else batch
        gate = GateReport(
            verdict, reason, message, identity, suite_name, digest, "1", threshold, 4, lost, 0, batch=asked
        )
        report = MonitorReport(
            revision, identity, Phase.WATCHING, verdict, reason, message, suite_name, digest, gate=gate, user_requests=0
        )
        report = replace(report, ran_under=self.status["accuracyConfigs"][-1])
        self.reports |= {pod.name: report for pod in self.pods.values() if pod.revision == revision}
        return self

    def control(self, verdict: Verdict, *, lost: int = 0, suite_name: str = "") -> Self:
        """Let the control's monitors answer the order that the operator gave them."""
        revision = str(self.status["candidate"])
        token = self.accuracy_settings()["control"]["token"]
        return self.gate(revision, verdict, lost=lost, suite_name=suite_name).report_gate(revision, control=token)

    def pass_control(self, revision: str) -> Self:
        """Let a revision that is up pass its control, settle, and let it get Ready."""
        self.control(Verdict.PASS).settle()
        self.set_ready(revision).settle()
        return self

    def bring_up(self) -> str:
        """Let the present candidate pass, as often as it has to, and take traffic; return its name."""
        self.settle()
        name = self.candidate()
        self.start_pods(name).settle()
        self.gate(name, Verdict.PASS).settle()
        while (order := self.monitor_settings().control) and order.token.startswith(f"{name}#"):
            self.control(Verdict.PASS).settle()
        self.set_ready(name).settle()
        self.start_pods(name, ready=True).settle()
        return name

    # What can be read.

    def live(self, kind: str) -> list[dict[str, Any]]:
        return [obj for (k, _), obj in sorted(self.children.items()) if k == kind]

    def one(self, kind: str, name: str) -> dict[str, Any]:
        return self.children[kind, name]

    def selected(self) -> str:
        return str(self.one("Service", "credit")["spec"]["selector"][names.LABEL_REVISION])

    def candidate(self) -> str:
        return str(self.status.get("candidate") or self.status["revision"])

    def condition(self, kind: str) -> tuple[str, str, str]:
        found = next(c for c in self.status["conditions"] if c["type"] == kind)
        return found["status"], found["reason"], found["message"]

    def expect(
        self,
        *,
        serves: str | None = None,
        runs: dict[str, int] | None = None,
        candidate: str | None = None,
        **conditions: str | tuple[str, ...],
    ) -> Self:
        """Assert what serves, how many pods of which revisions run, what the candidate is, and conditions.

        Of a condition: its status, its reason or "status reason", and words of its message after it.
        """
        assert serves is None or serves == self.selected(), f"{self.selected()} serves, not {serves}"
        assert runs in (None, self.deployments()), f"{self.deployments()} run, not {runs}"
        found = self.status.get("candidate")
        assert candidate in (None, found), f"{found} is the candidate, not {candidate}"
        assert_conditions(self.condition, conditions)
        return self

    def deployments(self) -> dict[str, int]:
        """Return how many pods each revision with a Deployment asks for."""
        return {d["metadata"]["name"]: d["spec"]["replicas"] for d in self.live("Deployment")}

    def revision(self, name: str = "") -> Revision:
        """Return the stored revision, by default the candidate."""
        return read_revision(self.one("ControllerRevision", name or self.candidate()))

    def revisions(self) -> list[Revision]:
        return [read_revision(obj) for obj in self.live("ControllerRevision")]

    def volume(self) -> EngineVolume:
        """Return the volume that the candidate's engine is delivered to."""
        volume = self.revision().volume
        assert volume is not None
        return volume

    def suite_hash(self, name: str = "smollm2-full-v1") -> str:
        loaded = self.suites[name].suite
        assert loaded is not None
        return loaded.header.sha256

    def accuracy_settings(self) -> Any:
        """Return what the monitors are told, as JSON."""
        return json.loads(self.one("ConfigMap", "credit-accuracy")["data"]["settings.json"])

    def monitor_settings(self) -> MonitorSettings:
        return loads(MonitorSettings, self.one("ConfigMap", "credit-accuracy")["data"]["settings.json"])

    def known_reports(self) -> tuple[GateReport, ...]:
        """Return the verdicts that the monitors read, in their order."""
        return loads(KnownVerdicts, self.one("ConfigMap", "credit-accuracy")["data"]["verdicts.json"]).reports

    def _quarantine(self, name: str, patch: tuple[dict[str, Any], ...]) -> None:
        """Do what the API server does with the patch, and then the ReplicaSet, which lets the pod go."""
        note = next(op["value"] for op in patch if op["path"].endswith("quarantine"))
        self.pods[name] = replace(self.pods[name], quarantine=note, replica_set="")

    def _reap(self) -> None:
        running = {obj["metadata"]["name"] for obj in self.live("Deployment") if obj["spec"]["replicas"]}
        self.pods = {n: p for n, p in self.pods.items() if p.revision in running}
        self.reports = {n: r for n, r in self.reports.items() if n in self.pods}


def start_world(**spec: Any) -> World:
    """Return a world whose first revision waits for its gate."""
    world = World({**FULL, **spec})
    world.settle()
    return world


def serve_world(**spec: Any) -> World:
    """Return a world whose first revision serves."""
    world = World({**FULL, **spec})
    world.bring_up()
    return world


def observe_world(**spec: Any) -> tuple[World, str]:
    """Return a world whose first revision serves because `Observe` let it through ungated, and its name."""
    world = start_world(accuracy={"gate": "Observe"}, **spec)
    revision = world.candidate()
    world.start_pods(revision, ready=True).settle()
    return world, revision


TRITON = ContainerFacts("triton", ready=True)
