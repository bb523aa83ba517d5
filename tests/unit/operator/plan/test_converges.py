"""Properties of the plan: whatever is done to the world, in whatever order, a few passes bring it to rest, and rightly.

The machine edits specs, deletes and edits children, starts, breaks and kills pods, lets monitors say Pass, Fail or
nothing, sets the clock, and lets the operator die after any of a plan's writes. From wherever that has led, a story of
three rollouts is told: each must go as it goes in a world to which nothing has happened, and end in the same state.
"""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_contract.requests import Request, Verb
from r1plus_contract.verdict import Verdict, WatchStanding
from r1plus_operator.plan.accuracy.gate_tries import MOST_REPEATS
from r1plus_operator.plan.deployment import plan
from r1plus_operator.plan.revision.record import KEPT_REVISIONS, Revision
from r1plus_operator.plan.revision.storage import read_revision
from r1plus_operator.plan.status.requeue import AT_ONCE_SECONDS
from support.plan.world import DAY, NODE, World

PASSES = 6
"""More than any chain of consequences needs that no pod and no monitor takes part in."""
FIRST, SECOND, THIRD = 1536, 1792, 1280
"""Contexts that the walk never asks for, so that no gate has decided on them."""
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
    {"accuracy": {}},
    {"access": {"namespaces": ["apps"]}},
    {"colour": "red"},
)
ROUNDS = 12
ANSWERS: tuple[dict[str, Any], ...] = (
    {"accuracy": {"onBreach": "Rollback"}},
    {"accuracy": {"onBreach": "Rollback", "gate": "Observe"}},
    {"rollout": {"pinned": True}},
    {"rollout": {"strategy": "InPlace"}},
    {"rollout": {}},
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
        self.forgotten: set[str] = set()
        """Revisions that were removed while there was room for them."""
        self.known: dict[int, tuple[dict[str, Any], Revision]] = {}
        """What is stored and what was read of it; the object is kept, so that no other one gets its id."""

    @initialize(replicas=st.integers(1, 3), serving=st.booleans())
    def begin(self, replicas: int, serving: bool) -> None:
        self.world.change(replicas=replicas)
        if serving:
            self.world.bring_up()

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
        for revision in self.world.deployments():
            self.world.start_pods(revision, ready=ready)

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

    @rule()
    def a_pass_is_enough_until_it_looks_again(self) -> None:
        self._enough()

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
        self._at_rest()

    @invariant()
    def traffic_goes_only_where_a_gate_was_passed(self) -> None:
        assert not self.switched_to_unproven

    @invariant()
    def history_goes_only_where_there_is_too_much_of_it(self) -> None:
        assert not self.forgotten

    def teardown(self) -> None:
        """From wherever the walk has led.

        Sound specs and a world that works make three rollouts, as in a fresh world.
        """
        self._story()
        assert self._end() == undisturbed()

    def _story(self) -> None:
        self._repaired_world()
        first = self._serves(self._candidate_of(FIRST))
        second = self._candidate_of(SECOND)
        self._is_held_back(first, second)
        self._hangs_on_a_spec_without_sense(first, second)
        self.world.now = 1.0  # The clock is set back: the newest switch still counts, whatever its date.
        self._switches(first, second)
        assert self._candidate_of(FIRST) == first, "a revision that is known is not made anew"
        self.world.start_pods(first, ready=True)
        self._switches(second, first, passes=False)
        observed = self._candidate_of(THIRD, accuracy={"gate": "Observe"})
        self.world.start_pods(observed, ready=True)
        self.world.gate(observed, Verdict.FAIL, lost=4)
        self._switches(first, observed, passes=False)
        self.traffic_goes_only_where_a_gate_was_passed()
        self.history_goes_only_where_there_is_too_much_of_it()

    def _repaired_world(self) -> None:
        world = self.world
        world.nodes = (NODE,)
        world.pods = {n: replace(p, unschedulable="") for n, p in world.pods.items() if not p.terminating}

    def _candidate_of(self, context: int, **more: Any) -> str:
        """The revision that a sound spec with this context asks for, once nothing more is written."""
        self.world.spec = {"tier": "full", "context": {"maxTokens": context}, "replicas": 2, **more}
        self.world.generation += 1
        self.world.wait(60.0)
        self.it_comes_to_rest()
        return self.world.candidate()

    def _serves(self, revision: str) -> str:
        """Its pods start, pass and become Ready: it is what serves, whatever served before."""
        self.world.start_pods(revision)
        self.it_comes_to_rest()
        self._passes(revision)
        self._ready(revision)
        self.it_comes_to_rest()
        self._ready(revision)
        self._drains()
        assert (self.world.selected(), self.world.condition("Ready")[0]) == (revision, "True")
        assert self._running() == {revision: 2}
        return revision

    def _passes(self, revision: str) -> None:
        """It passes its gate, and repeats it as often as tries of the walk that failed ask for."""
        self.world.gate(revision, Verdict.PASS)
        self.it_comes_to_rest()
        for _ in range(MOST_REPEATS):
            if self.world.monitor_settings().control is None:
                break
            self.world.control(Verdict.PASS)
            self.it_comes_to_rest()

    def _is_held_back(self, first: str, second: str) -> None:
        """Pods that are Ready take no traffic for that.

        No gate without a decision lets them, nor one beside traffic.
        """
        assert self._running() == {first: 2, second: 1}
        self._ready(second)
        self.it_comes_to_rest()
        for verdict, batch in ((Verdict.INCONCLUSIVE, None), (Verdict.PASS, 1)):
            self.world.gate(second, verdict, batch=batch)
            self.it_comes_to_rest()
            assert (self.world.selected(), self._running()) == (first, {first: 2, second: 1})

    def _hangs_on_a_spec_without_sense(self, first: str, second: str) -> None:
        """What runs goes on, the candidate's gate included, and the same candidate is taken up again."""
        sound = self.world.spec
        self.world.change(engine={"family": "nope"})
        self.it_comes_to_rest()
        assert (self.world.selected(), self._running()) == (first, {first: 2, second: 1})
        self.world.spec = sound
        self.world.generation += 1
        self.it_comes_to_rest()
        assert self.world.candidate() == second

    def _switches(self, old: str, new: str, *, passes: bool = True) -> None:
        """Once it is Ready as stable is, `new` takes the traffic.

        The pods of `old` stay for the drain, then they go.
        """
        if passes:
            self.world.start_pods(new, ready=False)
            self._passes(new)
            assert self.world.selected() == old, "a pod that is not Ready takes no traffic"
        for _ in range(PASSES):
            self._ready(new)
            self._enough()
            if self.world.selected() == new:
                break
        for _ in range(2):
            assert (self.world.selected(), self._running()) == (new, {old: 2, new: 2})
            self._at_rest()
            self._enough()
        self._drains()
        assert (self.world.selected(), self._running()) == (new, {new: 2})
        assert self.world.condition("Ready")[0] == "True"
        assert old in {obj["metadata"]["name"] for obj in self.world.live("ControllerRevision")}

    def _drains(self) -> None:
        """Time passes, also where a clock that was set back has put the last switch into the future.

        As much as `rollout.drain`: monitors of pods that nobody gated do not say what these run.
        """
        self.it_comes_to_rest()  # The switch may have to be made.
        self.world.now = max(self.world.now, *(r.promoted_at or 0.0 for r in self._revisions())) + 660.0
        self.it_comes_to_rest()

    def _ready(self, revision: str) -> None:
        self.world.start_pods(revision, ready=True)

    def _running(self) -> dict[str, int]:
        """Revisions with a Deployment, each with its configuration, and how many pods they ask for."""
        found = self.world.deployments()
        configs = {c["metadata"]["name"] for c in self.world.live("ConfigMap")} - {"credit-accuracy"}
        assert configs == found.keys()
        return found

    def _end(self) -> dict[str, Any]:
        """Every child but the history, without what is this world's own: uids, verdicts on other revisions, numbers."""
        end = {}
        for (kind, name), obj in self.world.children.items():
            if kind != "ControllerRevision" and name != "credit-accuracy":
                meta = {key: value for key, value in obj["metadata"].items() if key != "uid"}
                if kind == "ConfigMap":
                    meta.pop("annotations", None)
                end[f"{kind} {name}"] = {**obj, "metadata": meta}
        return end

    def _at_rest(self) -> None:
        """What holds whenever nothing more is to be done."""
        world, revisions = self.world, self._revisions()
        if world.condition("Ready")[1] == "InvalidSpec":
            return  # Nothing serves, and nothing is read out of such a spec: nothing is written but that.
        promoted = sorted((r.promoted_at, r.name) for r in revisions if r.promoted_at)
        assert {r.name for r in revisions if r.candidate_since} <= {world.status.get("candidate")}
        assert len(revisions) <= KEPT_REVISIONS
        if promoted and "colour" not in world.spec:  # Else an earlier spec counts, which is not known here.
            serving = promoted[-1][1]
            deployment = world.one("Deployment", serving)
            stopped = world.condition("Ready")[1] == "InPlaceRollout"  # It has made room for what is gated.
            asked_for = 0 if stopped else world.spec.get("replicas", 1)
            assert (world.selected(), deployment["spec"]["replicas"]) == (serving, asked_for)

    def _watched(self, act: Any) -> int:
        """Do it; remember if it sent traffic to a revision that `Enforce` should have held back. How much it wrote."""
        before, proven = self._selected(), self._proven()
        known = {revision.name for revision in self._revisions()}
        observe = (self.world.spec.get("accuracy") or {}).get("gate") == "Observe"
        written = act()
        after = self._selected()
        revisions = self._revisions()
        left = {revision.name for revision in revisions}
        if len(known | left) <= KEPT_REVISIONS:
            self.forgotten |= known - left
        served_before = any(revision.promoted_at for revision in revisions)
        passed = {r.name for r in revisions if any(v.verdict is Verdict.PASS for v in r.valid_verdicts)}
        if after != before and before and served_before and not observe and after not in proven | passed:
            self.switched_to_unproven = after
        return written.writes if hasattr(written, "writes") else int(written)

    def _enough(self) -> None:
        """Our own writes bring no pass of their own, nor does time: what a pass leaves to them it must ask for."""
        world, looks = self.world, []
        pods = dict(world.pods)

        def act() -> int:
            planned = world.pass_once()
            looks.append(planned.requeue_after)
            return planned.writes

        self._watched(act)
        if world.pods != pods:
            return  # Their going is an event.
        if looks[0] == AT_ONCE_SECONDS:
            self._enough()
            return
        for share in (0.0, 0.999):
            later = plan(world.observed(), world.config, world.now - 1.0 + share * min(looks[0] or DAY, DAY))
            assert (later.writes, later.status, later.notes) == (0, world.status, ())

    def _interrupted(self, done: int) -> int:
        """A pass of which only the first `done` writes are made. The status is written first, deletions last."""
        planned = self.world.plan()
        if done:
            self.world.carry_out(planned, done)
        return min(done, sum(map(len, planned.apply)))

    def _tamperable(self) -> list[tuple[str, str]]:
        """Every child but the history itself: who removes a ControllerRevision removes the proof with it."""
        return sorted(key for key in self.world.children if key[0] != "ControllerRevision")

    def _gated(self) -> list[str]:
        known = {obj["metadata"]["name"] for obj in self.world.live("ControllerRevision")}
        suite = (self.world.spec.get("accuracy") or {}).get("suite", "")
        return sorted({pod.revision for pod in self.world.pods.values()} & known) if suite != "absent" else []

    def _selected(self) -> str:
        service = self.world.children.get(("Service", "credit"))
        selector = (service or {}).get("spec", {}).get("selector", {})
        return str(selector.get(names.LABEL_REVISION, "")) if isinstance(selector, dict) else ""

    def _proven(self) -> set[str]:
        """Revisions that hold a Pass, or have carried traffic before and have not fallen since."""
        return {
            r.name
            for r in self._revisions()
            if (r.promoted_at and not r.regate_token) or any(v.verdict is Verdict.PASS for v in r.valid_verdicts)
        }

    def _revisions(self) -> list[Revision]:
        """Read each stored revision once: nothing changes one in place, and a walk asks for them after every step."""
        live = self.world.live("ControllerRevision")
        self.known = {id(obj): self.known.get(id(obj)) or (obj, read_revision(obj)) for obj in live}
        return [self.known[id(obj)][1] for obj in live]


@cache
def undisturbed() -> dict[str, Any]:
    """The end of the story in a world to which nothing happened before."""
    machine = Operated()
    machine._story()
    return machine._end()


class Answered(Operated):
    """The same world when a served revision falls as well, and what is done about it."""

    @rule(change=st.sampled_from(ANSWERS))
    def somebody_changes_what_is_done_about_a_fall(self, change: dict[str, Any]) -> None:
        self.world.change(**change)

    @rule(data=st.data(), standing=st.sampled_from(WatchStanding), lost=st.sampled_from(((), ("i0",), ("i0", "i1"))))
    @precondition(lambda self: self.world.reports)
    def a_monitor_says_how_its_pod_stands(
        self, data: st.DataObject, standing: WatchStanding, lost: tuple[str, ...]
    ) -> None:
        self.world.stand(data.draw(st.sampled_from(sorted(self.world.reports))), standing, lost=lost, evidence=1.5)

    @rule(data=st.data(), verdict=st.sampled_from((Verdict.PASS, Verdict.FAIL)))
    @precondition(lambda self: self._ordered() in self._gated())
    def a_control_ends(self, data: st.DataObject, verdict: Verdict) -> None:
        self.world.control(verdict, lost=4 if verdict is Verdict.FAIL else 0)

    @rule(verb=st.sampled_from(Verb), number=st.integers(0, 99), order=st.integers(0, 9))
    def somebody_asks_for_something(self, verb: Verb, number: int, order: int) -> None:
        at = f"2026-01-01T00:00:{number:02d}Z"
        asked = Request("alice", "a reason", at, str(self.world.status.get("revision", "")), order)
        self.world.annotations[verb.annotation] = dumps(asked)

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
        assert [*self.world.deployments()] == [target]

    def _ordered(self) -> str:
        """The revision that is to be swept anew, if there is one."""
        accuracy = self.world.children.get(("ConfigMap", "credit-accuracy"))
        settings = self.world.accuracy_settings() if accuracy and "data" in accuracy else {}
        return str(self.world.status.get("candidate", "")) if settings.get("control") else ""

    def _everything_works(self) -> None:
        """Pods start and stop as asked, those that passed are Ready, and every gate is passed."""
        world = self.world
        world.pods = {n: replace(p, unschedulable="") for n, p in world.pods.items() if not p.terminating}
        for name in world.deployments():
            world.start_pods(name, ready=name in self._proven()).gate(name, Verdict.PASS)
        if self._ordered() in self._gated():
            world.control(Verdict.PASS)


def walk(examples: int) -> settings:
    """Return the settings of so many walks, each of its own."""
    return settings(
        max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )


# A walk takes half a second of processor time. `make test-long NAME=unit-long` takes others in each run.
Operated.TestCase.settings = Answered.TestCase.settings = walk(5)
TestOperated = Operated.TestCase
TestAnswered = Answered.TestCase


@pytest.mark.unit_long
@pytest.mark.timeout(3000)
class TestOperatedAtLength(Operated.TestCase):
    settings = walk(100)


@pytest.mark.unit_long
@pytest.mark.timeout(3000)
class TestAnsweredAtLength(Answered.TestCase):
    settings = walk(100)
