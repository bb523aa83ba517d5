"""Properties of the plan: whatever is done to the world, in whatever order, a few passes bring it to rest, and rightly.

The machine edits specs, deletes and edits children, starts, breaks and kills pods, lets monitors say Pass, Fail or
nothing, sets the clock, and lets the operator die after any of a plan's writes.
"""

import json
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_contract.requests import Request, Verb
from r1plus_contract.verdict import Standing, Verdict
from r1plus_operator.plan.plan import plan
from r1plus_operator.plan.revision import read
from unit.operator.plan.world import NODE, World

PASSES = 6
"""More than any chain of consequences needs that no pod and no monitor takes part in."""
ROUNDS = 12
SPECS = (
    {"engine": {"precision": "Q4_1"}},
    {"engine": {}},
    {"engine": {"family": "nope"}},
    {"context": {"maxTokens": 1024}},
    {"context": {"maxTokens": 2048}},
    {"context": {"maxTokens": 9000}},
    {"batching": {"maxBatchSize": 4}},
    {"replicas": 0},
    {"replicas": 1},
    {"replicas": 3},
    {"accuracy": {"gate": "Observe"}},
    {"accuracy": {"gate": "Enforce", "threshold": 0.9}},
    {"accuracy": {"suite": "absent"}},
    {"accuracy": {"onBreach": "Rollback"}},
    {"accuracy": {"onBreach": "Rollback", "gate": "Observe"}},
    {"rollout": {"pinned": True}},
    {"rollout": {"strategy": "InPlace"}},
    {"rollout": {}},
    {"accuracy": {}},
    {"access": {"namespaces": ["apps"]}},
    {"colour": "red"},
)
EDITS: dict[str, dict[str, Any]] = {
    "Deployment": {"replicas": 7},
    "Service": {"selector": {"app": "mine"}},
    "NetworkPolicy": {"ingress": [{}]},
    "PodDisruptionBudget": {"maxUnavailable": 0},
    "PodMonitor": {"podMetricsEndpoints": []},
    "PrometheusRule": {"groups": []},
}


class Operated(RuleBasedStateMachine):
    """One deployment, and everything that can happen to it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World({"tier": "full", "context": {"maxTokens": 2048}})
        self.switched_to_unproven = ""

    @initialize(replicas=st.integers(1, 3))
    def begin(self, replicas: int) -> None:
        self.world.change(replicas=replicas)

    @rule(change=st.sampled_from(SPECS))
    def somebody_changes_the_spec(self, change: dict[str, Any]) -> None:
        self.world.spec.pop("colour", None)
        self.world.change(**change)

    @rule(data=st.data())
    @precondition(lambda self: self._tamperable())
    def somebody_deletes_a_child(self, data: st.DataObject) -> None:
        del self.world.children[data.draw(st.sampled_from(self._tamperable()))]

    @rule(data=st.data(), how=st.sampled_from(("labels", "owner", "spec")))
    @precondition(lambda self: self._tamperable())
    def somebody_edits_a_child(self, data: st.DataObject, how: str) -> None:
        key = data.draw(st.sampled_from(self._tamperable()))
        obj = self.world.children[key]
        meta = obj["metadata"]
        if how == "labels":
            obj = {**obj, "metadata": {**meta, "labels": {**meta["labels"], names.LABEL_MANAGED_BY: "me"}}}
        elif how == "owner":
            obj = {**obj, "metadata": {**meta, "ownerReferences": []}}
        elif key[0] in EDITS:
            obj = {**obj, "spec": {**obj["spec"], **EDITS[key[0]]}}
        self.world.children[key] = obj

    @rule(ready=st.booleans())
    def pods_start(self, ready: bool) -> None:
        for obj in self.world.live("Deployment"):
            self.world.start_pods(obj["metadata"]["name"], ready=ready)

    @rule(data=st.data(), what=st.sampled_from(("gone", "ready", "not ready", "terminating", "unschedulable")))
    @precondition(lambda self: self.world.pods)
    def something_happens_to_a_pod(self, data: st.DataObject, what: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.world.pods)))
        pod = self.world.pods[name]
        if what == "gone":
            del self.world.pods[name]
            self.world.reports.pop(name, None)
            return
        text = "0/1 nodes are available" if what == "unschedulable" else ""
        self.world.pods[name] = replace(
            pod, ready=what == "ready", terminating=what == "terminating", unschedulable=text
        )

    @rule(data=st.data(), verdict=st.sampled_from((Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.NO_DATA)))
    @precondition(lambda self: self._gated())
    def a_gate_ends(self, data: st.DataObject, verdict: Verdict) -> None:
        revision = data.draw(st.sampled_from(self._gated()))
        self.world.gate(revision, verdict, lost=4 if verdict is Verdict.FAIL else 0)

    @rule(data=st.data(), standing=st.sampled_from(Standing), lost=st.sampled_from(((), ("i0",), ("i0", "i1"))))
    @precondition(lambda self: self.world.reports)
    def a_monitor_says_how_its_pod_stands(self, data: st.DataObject, standing: Standing, lost: tuple[str, ...]) -> None:
        self.world.stand(data.draw(st.sampled_from(sorted(self.world.reports))), standing, lost=lost, evidence=1.5)

    @rule(data=st.data(), verdict=st.sampled_from((Verdict.PASS, Verdict.FAIL)))
    @precondition(lambda self: self._ordered() in self._gated())
    def a_control_ends(self, data: st.DataObject, verdict: Verdict) -> None:
        self.world.control(verdict, lost=4 if verdict is Verdict.FAIL else 0)

    @rule(verb=st.sampled_from(Verb), number=st.integers(0, 99))
    def somebody_asks_for_something(self, verb: Verb, number: int) -> None:
        at = f"2026-01-01T00:00:{number:02d}Z"
        asked = Request("alice", "a reason", at, str(self.world.status.get("revision", "")))
        self.world.annotations[verb.annotation] = dumps(asked)

    @rule()
    def monitors_fall_silent(self) -> None:
        self.world.reports = {}

    @rule(seconds=st.sampled_from((-500.0, 5.0, 30.0, 4000.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.now = max(1.0, self.world.now + seconds)

    @rule(memory=st.sampled_from((2, 20)))
    def the_node_is_replaced(self, memory: int) -> None:
        self.world.nodes = (replace(NODE, memory_bytes=memory * 2**30),)

    @rule()
    def a_pass(self) -> None:
        self._watched(self.world.pass_once)

    @rule(done=st.integers(0, 12))
    def the_operator_dies_in_mid_pass(self, done: int) -> None:
        self._watched(lambda: self._interrupted(done))

    @rule()
    def it_comes_to_rest(self) -> None:
        for _ in range(PASSES):
            self.world.now += 60.0
            if not self._watched(self.world.pass_once):
                break
        else:
            raise AssertionError(f"still writing after {PASSES} passes")
        before, status = dict(self.world.children), self.world.status
        again = self.world.pass_once()
        assert (again.writes, self.world.children, self.world.status) == (0, before, status)

    @invariant()
    def traffic_goes_only_where_a_gate_was_passed(self) -> None:
        assert not self.switched_to_unproven

    def teardown(self) -> None:
        """From wherever the walk has led: a sound spec and a world that works lead to a deployment that serves."""
        self.world.spec = {"tier": "full", "context": {"maxTokens": 2048}, "replicas": 2}
        self.world.generation += 1
        self.world.nodes = (NODE,)
        for _ in range(ROUNDS):
            self.world.now += 60.0
            self.it_comes_to_rest()
            self._everything_works()
        self.it_comes_to_rest()
        target = self.world.status.get("candidate") or self.world.status["revision"]
        if self.world.condition("QualityVerified")[1] in ("GateFailed", "RolledBack"):
            return
        assert (self.world.selected(), self.world.condition("Ready")[0]) == (target, "True")
        assert [d["metadata"]["name"] for d in self.world.live("Deployment")] == [target]

    def _watched(self, act: Any) -> int:
        """Do it; remember if it sent traffic to a revision that `Enforce` should have held back. How much it wrote."""
        before, proven = self._selected(), self._proven()
        observe = (self.world.spec.get("accuracy") or {}).get("gate") == "Observe"
        written = act()
        after = self._selected()
        served_before = any(read(obj).promoted_at for obj in self.world.live("ControllerRevision"))
        if after != before and before and served_before and not observe and after not in proven | self._proven():
            self.switched_to_unproven = after
        return written.writes if hasattr(written, "writes") else int(written)

    def _interrupted(self, done: int) -> int:
        """A pass of which only the first `done` writes are made. The status is written first, deletions last."""
        world = self.world
        planned = plan(world.observed(), world.config, world.now)
        if done:
            world.carry_out(planned, done)
        return min(done, sum(map(len, planned.apply)))

    def _tamperable(self) -> list[tuple[str, str]]:
        """Every child but the history itself: who removes a ControllerRevision removes the proof with it."""
        return sorted(key for key in self.world.children if key[0] != "ControllerRevision")

    def _gated(self) -> list[str]:
        known = {obj["metadata"]["name"] for obj in self.world.live("ControllerRevision")}
        suite = (self.world.spec.get("accuracy") or {}).get("suite", "")
        return sorted({pod.revision for pod in self.world.pods.values()} & known) if suite != "absent" else []

    def _ordered(self) -> str:
        """The revision that is to be swept anew, if there is one."""
        accuracy = self.world.children.get(("ConfigMap", "credit-accuracy"))
        settings = json.loads(accuracy["data"]["settings.json"]) if accuracy and "data" in accuracy else {}
        return str(self.world.status.get("candidate", "")) if settings.get("control") else ""

    def _selected(self) -> str:
        service = self.world.children.get(("Service", "credit"))
        selector = (service or {}).get("spec", {}).get("selector", {})
        return str(selector.get(names.LABEL_REVISION, "")) if isinstance(selector, dict) else ""

    def _proven(self) -> set[str]:
        """Revisions that hold a Pass, or have carried traffic before."""
        revisions = [read(obj) for obj in self.world.live("ControllerRevision")]
        return {r.name for r in revisions if r.promoted_at or any(v.verdict is Verdict.PASS for v in r.verdicts)}

    def _everything_works(self) -> None:
        """Pods start and stop as asked, those that passed are Ready, and every gate is passed."""
        world = self.world
        world.pods = {n: replace(p, unschedulable="") for n, p in world.pods.items() if not p.terminating}
        for obj in world.live("Deployment"):
            name = obj["metadata"]["name"]
            world.start_pods(name, ready=name in self._proven())
            world.gate(name, Verdict.PASS)


Operated.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestOperated = Operated.TestCase
