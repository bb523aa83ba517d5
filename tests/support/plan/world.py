"""A tiny world for plan tests: it holds what a plan applied, and pods and reports as a test says.

Not a fake API server: it merges nothing and defaults nothing. What the real one does is tested in tests/apiserver.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_contract.suite import Item, Sampling, SuiteHeader, encode_items, load_suite, suite_hash
from r1plus_contract.verdict import GateReport, MonitorReport, Phase, Standing, SweepFigures, Verdict, Watch
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.plan.inputs import (
    ContainerFacts,
    NodeFacts,
    Observed,
    OperatorConfig,
    PodFacts,
    PoolView,
    SuiteSource,
    SuiteTrust,
    VolumeFacts,
    VolumeTerms,
    Wiring,
)
from r1plus_operator.plan.plan import Plan, plan
from r1plus_operator.plan.pod import fingerprint
from r1plus_operator.plan.revision import read

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
    header = SuiteHeader(name, "1.0.0", "smollm2", "full", "", "e", suite_hash(text, Sampling(), "1"), 4, Sampling())
    return SuiteSource(name, dumps(header), text, load_suite(dumps(header), text))


SUITES = {name: suite(name) for name in ("smollm2-full-v1", "smollm2-lite-v1", "smollm2-edge-v1")}


@dataclass
class World:
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
    wiring: Wiring | None = None
    engines: tuple[Engine, ...] = CATALOG
    volumes: dict[str, VolumeFacts] = field(default_factory=dict)
    volumes_refused: dict[str, str] = field(default_factory=dict)

    def observed(self) -> Observed:
        meta: dict[str, Any] = {"name": "credit", "namespace": "team", "uid": "u-1", "generation": self.generation}
        if self.annotations:
            meta["annotations"] = dict(self.annotations)
        cr = {"metadata": meta, "spec": self.spec, "status": self.status}
        pods = tuple(self.pods.values())
        reports, children = dict(self.reports), dict(self.children)
        seen = Observed(
            cr, self.engines, self.suites, self.nodes, children, pods, reports, self.kinds, self.wiring, self.pool
        )
        return replace(seen, volumes=dict(self.volumes), volumes_refused=dict(self.volumes_refused))

    def pass_once(self) -> Plan:
        """One pass, carried out; time moves on a second."""
        planned = plan(self.observed(), self.config, self.now)
        for name, patch in planned.relabel:
            self._quarantine(name, patch)
        for stage in planned.apply:
            for obj in stage:
                key = obj["kind"], obj["metadata"]["name"]
                uid = self.children.get(key, {"metadata": {"uid": f"u-{len(self.children)}"}})["metadata"]["uid"]
                self.children[key] = {**obj, "metadata": {**obj["metadata"], "uid": uid}}
        for kind, name, _ in planned.delete:
            if kind == "Pod":
                del self.pods[name]
            else:
                del self.children[kind, name]
        self.status = planned.status
        self.notes += [note.reason for note in planned.notes]
        self._reap()
        self.now += 1.0
        return planned

    def carry_out(self, planned: Plan, writes: int, *, backwards: bool = False) -> None:
        """Only the first so many writes of a plan: the operator dies after them. The status goes first.

        The writes of a stage are made at once, so any may be the first: `backwards`, what is named last.
        """
        for name, patch in planned.relabel if writes else ():
            self._quarantine(name, patch)
        objects = [obj for stage in planned.apply for obj in (reversed(stage) if backwards else stage)]
        for obj in objects[:writes]:
            key = obj["kind"], obj["metadata"]["name"]
            uid = self.children.get(key, {"metadata": {"uid": f"d-{len(self.children)}"}})["metadata"]["uid"]
            self.children[key] = {**obj, "metadata": {**obj["metadata"], "uid": uid}}
        for kind, name, _ in planned.delete[: max(0, writes - len(objects))]:
            if kind == "Pod":
                del self.pods[name]
            else:
                del self.children[kind, name]
        self.status = planned.status
        self._reap()

    def settle(self, limit: int = 6) -> Plan:
        """Passes until one writes nothing; fails if that does not come."""
        for _ in range(limit):
            planned = self.pass_once()
            if not planned.writes:
                return planned
        raise AssertionError(f"still writing after {limit} passes: {planned.apply} {planned.delete}")

    def change(self, **spec: Any) -> None:
        """`kubectl apply` of another spec."""
        self.spec = {**self.spec, **spec}
        self.generation += 1

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

    def start_pods(self, revision: str, *, ready: bool = False) -> None:
        """The kubelet starts what the Deployment asks for."""
        count = self.one("Deployment", revision)["spec"]["replicas"]
        for i in range(count):
            name = f"{revision}-{i}"
            self.pods[name] = PodFacts(
                name,
                revision,
                "10.0.0.1",
                ready,
                False,
                "",
                (TRITON,),
                f"{revision}-7d9f",
                fingerprint(self.one("Deployment", revision)["spec"]["template"]["spec"]),
                "u-1",
                uid=f"uid-{name}",
            )

    def _quarantine(self, name: str, patch: tuple[dict[str, Any], ...]) -> None:
        """What the API server does with the patch, and then the ReplicaSet, which lets the pod go."""
        note = next(op["value"] for op in patch if op["path"].endswith("quarantine"))
        self.pods[name] = replace(self.pods[name], quarantine=note, replica_set="")

    def stand(self, pod: str, standing: Standing, *, lost: tuple[str, ...] = (), evidence: float = 0.0) -> None:
        """The pod's monitor watches, and says this; it has counted what was lost."""
        before = self.reports[pod]
        count = SweepFigures(4 - len(lost), 4, 0.0, 1.0, "2026-01-01T00:00:00Z", lost)
        watch = Watch(standing, 4, evidence, confirmation=count, lost_since_gate=lost)
        self.reports[pod] = replace(before, watch=watch)

    def control(self, verdict: Verdict, *, lost: int = 0, suite_name: str = "") -> str:
        """The control's monitors answer the order that the operator gave them; the revision that it is about."""
        settings = json.loads(self.one("ConfigMap", "credit-accuracy")["data"]["settings.json"])
        revision = str(self.status["candidate"])
        self.gate(revision, verdict, lost=lost, suite_name=suite_name)
        for name, pod in self.pods.items():
            report = self.reports.get(name)
            if pod.revision == revision and report and report.gate:
                gate = replace(report.gate, control=settings["control"]["token"])
                self.reports[name] = replace(report, gate=gate)
        return revision

    def set_ready(self, revision: str) -> None:
        self.pods = {n: replace(p, ready=True) if p.revision == revision else p for n, p in self.pods.items()}

    def gate(
        self, revision: str, verdict: Verdict, *, lost: int = 0, batch: int | None = None, suite_name: str = ""
    ) -> None:
        """Every monitor of the revision reports a decided gate, by default one at the serving batch."""
        stored = read(self.one("ControllerRevision", revision))
        suite_name = suite_name or self.spec.get("accuracy", {}).get("suite", f"smollm2-{self.spec['tier']}-v1")
        loaded = self.suites[suite_name].suite
        assert loaded is not None
        identity, digest = stored.identity_digest, loaded.header.sha256
        report = GateReport(
            verdict,
            "TooManyLost" if lost else "Passed",
            f"lost {lost} of 4 items",
            identity,
            suite_name,
            digest,
            "1",
            self.spec.get("accuracy", {}).get("threshold", 0.98),
            4,
            lost,
            0,
            batch=stored.batch if batch is None else batch,
        )
        for pod in self.pods.values():
            if pod.revision == revision:
                self.reports[pod.name] = MonitorReport(
                    revision,
                    identity,
                    Phase.WATCHING,
                    verdict,
                    report.reason,
                    report.message,
                    suite_name,
                    digest,
                    gate=report,
                )

    def bring_up(self) -> str:
        """The present candidate passes and takes traffic; its name."""
        self.settle()
        name = self.candidate()
        self.start_pods(name)
        self.settle()
        self.gate(name, Verdict.PASS)
        self.settle()
        self.set_ready(name)
        self.settle()
        self.start_pods(name, ready=True)
        self.settle()
        return name

    def _reap(self) -> None:
        running = {obj["metadata"]["name"] for obj in self.live("Deployment") if obj["spec"]["replicas"]}
        self.pods = {n: p for n, p in self.pods.items() if p.revision in running}
        self.reports = {n: r for n, r in self.reports.items() if n in self.pods}


TRITON = ContainerFacts("triton", ready=True)
