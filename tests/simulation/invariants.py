"""The promises of the documentation, each as a function whose docstring is the sentence that it holds.

Safety is judged after every committed write, liveness every few seconds with bounds in virtual seconds. A function
returns what breaks the promise, in words, or an empty text.
"""

import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import yaml

from r1plus_contract import names
from r1plus_contract.requests import ANNOTATION_COUNT
from r1plus_contract.verdict import Verdict
from r1plus_operator.api import kinds
from r1plus_operator.plan.accuracy.gate_tries import MOST_REPEATS
from r1plus_operator.runtime.lease import LEASE
from r1plus_policies.gate.verdict import max_lost_items, rejudge
from simulation.schedule import ITEMS
from simulation.world import OPERATOR_NAMESPACE, REVISION, World
from support.paths import TESTS
from support.simulation.server import Change

Json = dict[str, Any]
Key = tuple[str, str]
NETWORK_POLICY: Final = kinds.BY_KIND["NetworkPolicy"]
NOBODY: Final = "nothing-promoted"
"""What a Service selects before the first promotion."""
SPEC_SECONDS: Final = 60.0
"""How long the operator may go on by a spec that was just changed: a pass is under way, or a stream was cut."""
READY_SECONDS: Final = 60.0
"""How long a pod that was Ready may be taken for Ready."""
LATCH_SECONDS: Final = 120.0
ANSWER_SECONDS: Final = 1200.0
"""For a drop of all that serves to be answered; a candidate, a stall and a node without room may come in between."""
QUIET_SECONDS: Final = 300.0
"""At the end of a run nothing is written for so long."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise."""

    invariant: str
    sentence: str
    at: float
    text: str


@dataclass
class Judge:
    """Calls the invariants, and remembers what they need. The first violation ends the run."""

    world: World
    only: frozenset[str] = frozenset()
    """Names of the invariants that count; empty: all."""
    found: Violation | None = None
    tried: dict[str, int] = field(default_factory=dict)
    """Invariant -> how often it was tried: where its condition held."""
    drops: set[tuple[str | Key, ...]] = field(default_factory=set)
    """Invariant, R1PlusDeployment and pods of the drops that were counted."""
    thresholds: dict[Key, list[tuple[float, float]]] = field(default_factory=dict)
    """R1PlusDeployment -> when each of its thresholds was set."""
    orders: dict[Key, int] = field(default_factory=dict)
    """R1PlusDeployment -> number of the newest request that there ever was."""
    uids: dict[str, set[str]] = field(default_factory=dict)
    """Namespace -> uids of the R1PlusDeployments that there ever were in it."""
    ready_at: dict[Key, float] = field(default_factory=dict)
    """Revision -> when a pod of it that was Ready changed last."""
    refusals: dict[Key, "Refusal"] = field(default_factory=dict)
    """Revision -> its newest Fail, as the operator has recorded it."""
    rollbacks: dict[Key, "Refusal"] = field(default_factory=dict)
    """Revision -> when it was rolled back from."""
    holding: dict[tuple[str, Key], tuple[list[str], float]] = field(default_factory=dict)
    """What holds of which R1PlusDeployment -> for which pods, and since when."""
    latched: dict[tuple[str, str], float] = field(default_factory=dict)
    """Pod and suite -> when its monitor last reported the drop that it had counted, for as long as the pod lasts."""
    wrote_at: float = 0.0
    """When the operator wrote something last, its Lease apart."""
    last_write: str = ""
    set_back_at: float = float("-inf")
    """When etcd was set back last: for a while the Lease and the readiness of pods are those of before."""

    def on_change(self, change: Change, sender: str) -> None:
        """Judge a write; `sender` is the operator's process that sent it, or empty."""
        self._learn(change, sender)
        for invariant in SAFETY:
            self._try(invariant, lambda check=invariant: check(self, change, sender))

    def on_set_back(self) -> None:
        """Learn what etcd has after it was set back, since no event says so. Nobody can know what it has forgotten."""
        self.set_back_at, server = self.now, self.world.server
        pods = {pod["metadata"]["uid"] for pod in server.list_objects(kinds.POD)}
        self.latched = {what: at for what, at in self.latched.items() if what[0] in pods}
        self.orders.clear()
        for cr in server.list_objects(kinds.R1PLUS_DEPLOYMENT):
            self._learn_cr(cr)
        for key in {*self.refusals, *self.rollbacks}:
            if (stored := server.read(REVISION, *key)) is None:
                self.refusals.pop(key, None)
                self.rollbacks.pop(key, None)
            else:
                self.world.oracle.record_revision(stored)
                self._learn_revision(key)

    def on_tick(self) -> None:
        """Judge what should have come by now."""
        self.world.oracle.look(self.world.loop.time())
        for invariant in LIVENESS:
            self._try(invariant, lambda check=invariant: check(self))

    def on_end(self) -> None:
        """Judge what the world has come to."""
        for invariant in AT_END:
            self._try(invariant, lambda check=invariant: check(self))

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self.world.loop.time()

    def count(self, invariant: str) -> None:
        """Count that an invariant's condition has held."""
        self.tried[invariant] = self.tried.get(invariant, 0) + 1

    def count_drop(self, invariant: str, key: Key, pods: list[str]) -> None:
        """Count that an invariant's condition has held of a drop of these pods; the same drop counts once."""
        if pods and (case := (invariant, key, *pods)) not in self.drops:
            self.drops.add(case)
            self.count(invariant)

    def held_for(self, holds: bool, what: str, key: Key, pods: list[str]) -> float:
        """Return for how many seconds something has held of a deployment, for the same pods; 0 if it does not."""
        if not holds:
            self.holding.pop((what, key), None)
            return 0.0
        before = self.holding.get((what, key))
        if before is None or before[0] != pods:
            before = self.holding[what, key] = pods, self.now
        return self.now - before[1]

    def was_ready(self, namespace: str, revision: str) -> bool:
        """Return whether a pod of a revision is Ready, or was a moment ago: the operator may not know better."""
        is_recent = self.now - self.ready_at.get((namespace, revision), float("-inf")) <= READY_SECONDS
        return is_recent or _count_ready(self, namespace, revision) > 0

    def spec(self, namespace: str, name: str) -> Json:
        """Return the spec of an R1PlusDeployment; empty: it is gone."""
        cr = self.world.read_cr(namespace, name)
        return dict(cr["spec"]) if cr else {}

    def thresholds_in_force(self, key: Key) -> list[float]:
        """Return the thresholds by which the operator may judge now."""
        history = self.thresholds.get(key, [])
        return [
            threshold
            for n, (_, threshold) in enumerate(history)
            if n + 1 == len(history) or history[n + 1][0] > self.now - SPEC_SECONDS
        ]

    def _try(self, invariant: Callable[..., str], check: Callable[[], str]) -> None:
        name = invariant.__name__
        if self.found is not None or (self.only and name not in self.only):
            return
        if text := check():
            self.found = Violation(name, " ".join((invariant.__doc__ or "").split()), self.now, text)

    def _learn(self, change: Change, sender: str) -> None:
        obj = change.after or change.before or {}
        meta = obj["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        kind = change.resource.kind
        if sender and kind not in (LEASE.kind, kinds.EVENT.kind) and not _is_checkpoint(change):
            self.wrote_at, self.last_write = self.now, f"{change.verb} {kind} {key[0]}/{key[1]}"
        if kind == names.KIND_DEPLOYMENT and change.after is not None:
            self._learn_cr(change.after)
        elif kind == "Pod" and change.before is not None:
            self._learn_pod(change.before, is_deleted=change.after is None)
        elif kind == "ControllerRevision" and change.after is not None:
            self._learn_revision(key)

    def _learn_cr(self, cr: Json) -> None:
        meta = cr["metadata"]
        key = (meta["namespace"], meta["name"])
        self.uids.setdefault(key[0], set()).add(meta["uid"])
        threshold = cr["spec"].get("accuracy", {}).get("threshold", 0.98)
        history = self.thresholds.setdefault(key, [])
        if not history or history[-1][1] != threshold:
            history.append((self.now, threshold))
        count = (meta.get("annotations") or {}).get(ANNOTATION_COUNT, "0")
        self.orders[key] = max(self.orders.get(key, 0), int(count))

    def _learn_pod(self, before: Json, *, is_deleted: bool) -> None:
        meta = before["metadata"]
        if _is_ready(before):
            self.ready_at[meta["namespace"], (meta.get("labels") or {}).get(names.LABEL_REVISION, "")] = self.now
        if is_deleted:  # With its state folder. A pod that a restore of etcd brings back begins with an empty one.
            self.latched = {what: at for what, at in self.latched.items() if what[0] != meta["uid"]}

    def _learn_revision(self, key: Key) -> None:
        revision = self.world.oracle.revisions.get(key)
        if revision is None:
            return
        owner = (key[0], self.world.oracle.owners.get(key, ""))
        fails = [v for v in revision.verdicts if v.verdict is Verdict.FAIL]
        if fails and revision.verdicts[-1] is fails[-1]:
            known = self.refusals.get(key)
            if known is None or known.decided_at != fails[-1].decided_at:
                self.refusals[key] = self._refuse(owner, fails[-1].decided_at, fails[-1].allowed)
        elif not fails:
            self.refusals.pop(key, None)
        record = revision.rollback
        if record is not None and record.switched_at is not None and key not in self.rollbacks:
            self.rollbacks[key] = self._refuse(owner, str(record.switched_at), 0)
        elif record is None or record.switched_at is None:
            self.rollbacks.pop(key, None)

    def _refuse(self, owner: Key, decided_at: str, allowed: int) -> "Refusal":
        cr = self.world.read_cr(*owner)
        generation = int(cr["metadata"].get("generation", 0)) if cr else 0
        return Refusal(self.now, decided_at, allowed, generation, self.orders.get(owner, 0))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a revision may not take traffic, and what the people had asked for by then."""

    at: float
    decided_at: str
    allowed: int
    """Items that it was allowed to lose."""
    generation: int
    order: int
    """Number of the newest request."""


# -- Safety ----------------------------------------------------------------------------------------------------------


def only_a_pass_takes_traffic(judge: Judge, change: Change, sender: str) -> str:
    """Under `Enforce` only a Pass promotes: a Pass of its own, under the terms in force, that no drop has overruled."""
    switch = _read_switch(judge, change, sender)
    if switch is None:
        return ""
    key, _, revision = switch
    spec = judge.spec(*key)
    if spec.get("accuracy", {}).get("gate", "Enforce") != "Enforce":
        return ""
    judge.count("only_a_pass_takes_traffic")
    world = judge.world
    world.oracle.look(judge.now)
    gates = world.oracle.gates_of(key[0], revision)
    if not gates:
        return f"{key[0]}/{key[1]}: the Service selects {revision}, no gate of which was ever decided"
    void_until = rollback.at if (rollback := judge.rollbacks.get((key[0], revision))) else -1.0
    passes = [
        gate
        for gate in gates
        if gate.report.verdict is Verdict.PASS
        and gate.at >= void_until
        and any(rejudge(gate.report, t) is Verdict.PASS for t in judge.thresholds_in_force(key))
    ]
    if not passes:
        last = gates[-1].report
        told = f"{last.verdict.value} at threshold {last.threshold:g}, {last.lost} of {last.items} lost"
        void = f"; it was rolled back from at {void_until:.0f} s" if void_until >= 0 else ""
        return (
            f"{key[0]}/{key[1]}: the Service selects {revision} without a Pass under"
            f" {judge.thresholds_in_force(key)}; its last gate: {told}{void}"
        )
    after = [g for g in gates if g.at > passes[-1].at and g.report.threshold == passes[-1].report.threshold]
    if any(gate.report.verdict is Verdict.FAIL for gate in after):
        return f"{key[0]}/{key[1]}: the Service selects {revision}, which failed its gate after its Pass"
    return ""


def traffic_moves_to_ready_pods(judge: Judge, change: Change, sender: str) -> str:
    """A Pass lets the pod become Ready, and the operator points the Service at the revision in one write."""
    switch = _read_switch(judge, change, sender)
    if switch is None or judge.now - judge.set_back_at < SPEC_SECONDS:
        return ""
    key, before, revision = switch
    if not _count_ready(judge, key[0], before):
        return ""
    judge.count("traffic_moves_to_ready_pods")
    if judge.was_ready(key[0], revision):
        return ""
    return (
        f"{key[0]}/{key[1]}: traffic moved from {before}, which has Ready pods, to {revision}, which has none:"
        " no endpoint is left"
    )


def refused_stays_refused(judge: Judge, change: Change, sender: str) -> str:
    """Under `Enforce` a candidate that was refused stays refused: ask for something else."""
    start = _read_start(judge, change, sender)
    if start is None:
        return ""
    key, revision = start
    refusal = judge.refusals.get((key[0], revision))
    spec = judge.spec(*key)
    if refusal is None or spec.get("accuracy", {}).get("gate", "Enforce") != "Enforce":
        return ""
    if judge.world.find_serving(*key) == revision or judge.orders.get(key, 0) > refusal.order:
        return ""
    judge.count("refused_stays_refused")
    allowed = max(max_lost_items(ITEMS, t) for t in judge.thresholds_in_force(key))
    if allowed > refusal.allowed:
        return ""
    return (
        f"{key[0]}/{key[1]}: {revision} is started again, though it failed its gate at {refusal.at:.0f} s and no"
        f" more items may be lost than then ({allowed})"
    )


def failed_tries_are_counted(judge: Judge, change: Change, sender: str) -> str:
    """Each earlier try of the same engine on the same suite that failed asks for one more Pass in a row."""
    switch = _read_switch(judge, change, sender)
    if switch is None:
        return ""
    key, _, name = switch
    accuracy = judge.spec(*key).get("accuracy", {})
    live = judge.world.server.list_objects(REVISION, key[0])
    stored = [r for obj in live if (r := judge.world.oracle.revisions.get((key[0], obj["metadata"]["name"])))]
    mine = [r for r in stored if judge.world.oracle.owners.get((key[0], r.name)) == key[1]]
    revision = next((r for r in mine if r.name == name), None)
    if revision is None or revision.regate_token or accuracy.get("gate", "Enforce") != "Enforce":
        return ""
    passes = [v for v in revision.verdicts if v.admits_at(revision.batch)]
    if not passes:
        return ""
    judge.world.oracle.look(judge.now)
    find_decision = partial(judge.world.oracle.find_decision, *key)
    first = min(map(find_decision, passes), default=0.0)
    fails = {
        v
        for r in mine
        if r.identity.engine_digest == revision.identity.engine_digest
        for v in r.verdicts
        if v.verdict is Verdict.FAIL
        and v.suite_hash == passes[0].suite_hash
        and find_decision(v) < first
        and all(max_lost_items(ITEMS, t) <= v.allowed for t in judge.thresholds_in_force(key))
    }
    if not fails:
        return ""
    judge.count("failed_tries_are_counted")
    needed = 1 + min(len(fails), MOST_REPEATS)
    if len(passes) >= needed:
        return ""
    return (
        f"{key[0]}/{key[1]}: the Service selects {name} after {len(passes)} Passes; {needed} are needed, since its engine"
        f" failed {len(fails)} times before"
    )


def rolled_back_stays_away(judge: Judge, change: Change, sender: str) -> str:
    """A rolled-back revision does not return by itself, but when spec or suite change, or by `ack` or `unpin`."""
    start = _read_start(judge, change, sender)
    if start is None:
        return ""
    key, revision = start
    rollback = judge.rollbacks.get((key[0], revision))
    cr = judge.world.read_cr(*key)
    if rollback is None or cr is None or judge.world.find_serving(*key) == revision:
        return ""
    judge.count("rolled_back_stays_away")
    has_new_spec = int(cr["metadata"].get("generation", 0)) != rollback.generation
    if has_new_spec or judge.orders.get(key, 0) > rollback.order:
        return ""
    return (
        f"{key[0]}/{key[1]}: {revision} is started again, though it was rolled back from at {rollback.at:.0f} s, and"
        " neither the spec has changed since nor has anybody asked for it"
    )


def network_policies_come_first(judge: Judge, change: Change, sender: str) -> str:
    """The operator writes network policies before pods."""
    start = _read_start(judge, change, sender)
    if start is None:
        return ""
    judge.count("network_policies_come_first")
    key, revision = start
    policies = judge.world.server.list_objects(NETWORK_POLICY, key[0])
    if any((p["metadata"].get("labels") or {}).get(names.LABEL_DEPLOYMENT) == key[1] for p in policies):
        return ""
    return f"{key[0]}/{key[1]}: Deployment {revision} asks for pods, and no network policy selects them yet"


def only_the_leader_writes(judge: Judge, change: Change, sender: str) -> str:
    """All writes go through one client, whose fence is the Lease: no write is sent without it."""
    if not sender or change.resource.kind == LEASE.kind or judge.now - judge.set_back_at < SPEC_SECONDS:
        return ""
    judge.count("only_the_leader_writes")
    lease = judge.world.server.read(LEASE, OPERATOR_NAMESPACE, names.LEASE)
    holder = (lease["spec"].get("holderIdentity") if lease else "") or ""
    if holder.startswith(sender.partition("#")[0]):
        return ""
    meta = (change.after or change.before or {})["metadata"]
    return (
        f"{sender} wrote {change.verb} {change.resource.kind} {meta.get('namespace')}/{meta['name']} while"
        f" {holder or 'nobody'} held the Lease"
    )


def scores_belong_to_what_was_scored(judge: Judge, change: Change, sender: str) -> str:
    """A score belongs to what was scored: engine digest, configuration, image digests, GPU, batch, suite, scorer."""
    if not sender or change.resource != REVISION or change.after is None:
        return ""
    meta = change.after["metadata"]
    revision = judge.world.oracle.revisions.get((meta["namespace"], meta["name"]))
    if revision is None or not revision.verdicts:
        return ""
    judge.count("scores_belong_to_what_was_scored")
    judge.world.oracle.look(judge.now)
    decided = judge.world.oracle.gates_of(meta["namespace"], meta["name"])
    known = {(g.report.identity, g.report.suite_hash, g.report.decided_at, g.report.verdict) for g in decided}
    for report in revision.verdicts:
        if (report.identity, report.suite_hash, report.decided_at, report.verdict) not in known:
            return (
                f"{meta['namespace']}/{meta['name']} has a {report.verdict.value} of {report.decided_at} that none of its"
                " pods has decided"
            )
    return ""


def tenants_are_apart(judge: Judge, change: Change, sender: str) -> str:
    """One tenant's pods serve one tenant: no object of one namespace belongs to a deployment of another."""
    if not sender or change.after is None:
        return ""
    meta = change.after["metadata"]
    own = judge.uids.get(meta.get("namespace", ""), set())
    for owner in meta.get("ownerReferences") or ():
        if owner["kind"] == names.KIND_DEPLOYMENT:
            judge.count("tenants_are_apart")
            if owner["uid"] not in own:
                return f"{change.resource.kind} {meta['namespace']}/{meta['name']} belongs to a foreign {owner['name']}"
    return ""


def quarantine_spares_the_last(judge: Judge, change: Change, sender: str) -> str:
    """One pod at a time is quarantined, and never the last that serves."""
    if not sender or change.resource != kinds.POD or change.after is None or change.before is None:
        return ""
    before, after = ((one["metadata"].get("labels") or {}) for one in (change.before, change.after))
    if after.get(names.LABEL_SERVING) != names.QUARANTINED or before.get(names.LABEL_SERVING) == names.QUARANTINED:
        return ""
    judge.count("quarantine_spares_the_last")
    namespace, name = change.after["metadata"]["namespace"], after.get(names.LABEL_DEPLOYMENT, "")
    pods = [
        p
        for p in judge.world.server.list_objects(kinds.POD, namespace)
        if p["metadata"]["uid"] != change.after["metadata"]["uid"]
    ]
    mine = [p for p in pods if (p["metadata"].get("labels") or {}).get(names.LABEL_DEPLOYMENT) == name]
    if any(
        p["metadata"]["labels"].get(names.LABEL_SERVING) == names.QUARANTINED
        and "deletionTimestamp" not in p["metadata"]
        for p in mine
    ):
        return f"{namespace}/{name}: a second pod was put into quarantine"
    if not any(map(_is_ready, mine)):
        return f"{namespace}/{name}: the last pod that serves was put into quarantine"
    return ""


# -- Liveness --------------------------------------------------------------------------------------------------------


def drops_are_latched(judge: Judge) -> str:
    """A result is latched: it ends when what is scored changes, or by an acknowledgement that a Pass follows."""
    for monitor in judge.world.fleet.by_address.values():
        report = monitor.report
        if report is None:
            continue
        what = (monitor.uid, report.suite_hash)
        if monitor.has_dropped:
            if what not in judge.latched:
                judge.count("drops_are_latched")
            judge.latched[what] = judge.now
        elif what in judge.latched:
            gate = report.gate
            is_acknowledged = gate is not None and gate.verdict is Verdict.PASS and bool(gate.acknowledged)
            if is_acknowledged:
                del judge.latched[what]
            elif monitor.uid in judge.world.cluster.crashed:
                judge.latched[what] = judge.now
            elif judge.now - judge.latched[what] > LATCH_SECONDS:
                return (
                    f"{monitor.namespace}/{monitor.pod} had counted a drop at {judge.latched[what]:.0f} s. Now it says"
                    f" {report.verdict.value}/{report.reason} in phase {report.phase.value}, and nobody acknowledged it"
                )
    return ""


def drops_are_answered(judge: Judge) -> str:
    """With `Rollback` a drop of all that serves is rolled back, or a reason says what forbids it and alerts."""
    for key, pods in _list_dropped(judge):
        judge.count_drop("drops_are_answered", key, pods)
        reason = _read_incident(judge, key)
        is_silent = reason in ("", *_list_reasons_without_alert())
        if judge.held_for(bool(pods) and is_silent, "unanswered", key, pods) > ANSWER_SECONDS:
            told = f"status.incident says {reason}, for which no alert fires" if reason else "status.incident is empty"
            return (
                f"{key[0]}/{key[1]}: all that serves has dropped ({', '.join(pods)}) for {ANSWER_SECONDS:g} s; {told}"
            )
    return ""


def the_only_pod_is_answered(judge: Judge) -> str:
    """The revision is rolled back when two pods are below the threshold, or the only one."""
    for key, pods in _list_dropped(judge):
        judge.count_drop("the_only_pod_is_answered", key, pods if len(pods) == 1 else [])
        is_blocked = _read_incident(judge, key) in ("LastThatServes", "AlreadyQuarantined")
        if judge.held_for(len(pods) == 1 and is_blocked, "only", key, pods) > ANSWER_SECONDS:
            return (
                f"{key[0]}/{key[1]}: {pods[0]} is all that serves, and below the threshold for {ANSWER_SECONDS:g} s;"
                f" status.incident says {_read_incident(judge, key)}"
            )
    return ""


def status_tells_of_drops(judge: Judge) -> str:
    """A drop of what serves shows in the condition QualityVerified, whatever else is under way."""
    for key, pods in _list_dropped(judge):
        judge.count_drop("status_tells_of_drops", key, pods)
        cr = judge.world.read_cr(*key)
        conditions = ((cr or {}).get("status") or {}).get("conditions") or ()
        told = next(((c["status"], c["reason"]) for c in conditions if c["type"] == "QualityVerified"), ("", ""))
        if judge.held_for(bool(pods) and told[0] != "False", "untold", key, pods) > ANSWER_SECONDS:
            return f"{key[0]}/{key[1]}: all that serves has dropped, and QualityVerified is {'/'.join(told)}"
    return ""


# -- At the end ------------------------------------------------------------------------------------------------------


def everything_converges(judge: Judge) -> str:
    """The controller is level-triggered: repeating a pass writes nothing."""
    judge.count("everything_converges")
    quiet = judge.now - judge.wrote_at
    if quiet >= QUIET_SECONDS:
        return ""
    return f"the operator still writes, {quiet:.0f} s before the end: {judge.last_write}"


def good_candidates_are_promoted(judge: Judge) -> str:
    """A Pass lets the pod become Ready, and then the Service selects the revision that the spec asks for."""
    world = judge.world
    for start in world.schedule.starts:
        key = (start.namespace, start.name)
        spec = judge.spec(*key)
        if not spec or spec.get("rollout", {}).get("pinned") or not spec.get("replicas", 1):
            continue
        context, threshold = int(spec["context"]["maxTokens"]), spec["accuracy"]["threshold"]
        lost = world.quality.variants.get((*key, context), 0)
        serving = world.oracle.revisions.get((key[0], world.find_serving(*key)))
        asked = [
            r
            for k, r in world.oracle.revisions.items()
            if k[0] == key[0] and r.context == context and world.oracle.owners.get(k) == key[1]
        ]
        is_good = lost <= max_lost_items(ITEMS, threshold) and not any(
            (key[0], r.name) in world.quality.revisions
            or r.rollback is not None
            or any(v.verdict is Verdict.FAIL for v in r.verdicts)
            for r in asked
        )
        if not is_good:
            continue
        judge.count("good_candidates_are_promoted")
        if serving is None or serving.context != context or not _count_ready(judge, key[0], serving.name):
            found = f"{serving.name} with {serving.context}" if serving else "nothing"
            return f"{key[0]}/{key[1]}: the spec asks for {context} tokens, which is good; {found} serves at the end"
    return ""


SAFETY: Final = (
    only_a_pass_takes_traffic,
    traffic_moves_to_ready_pods,
    refused_stays_refused,
    failed_tries_are_counted,
    rolled_back_stays_away,
    network_policies_come_first,
    only_the_leader_writes,
    scores_belong_to_what_was_scored,
    tenants_are_apart,
    quarantine_spares_the_last,
)
LIVENESS: Final = (drops_are_latched, drops_are_answered, the_only_pod_is_answered, status_tells_of_drops)
AT_END: Final = (everything_converges, good_candidates_are_promoted)
NAMES: Final = tuple(one.__name__ for one in (*SAFETY, *LIVENESS, *AT_END))


# -- What they read --------------------------------------------------------------------------------------------------


def _is_checkpoint(change: Change) -> bool:
    """Whether a write stores a detector's checkpoint, or figures of a status: both go on for as long as probes do."""
    if change.before is None or change.after is None:
        return False
    before, after = (_strip_figures(one) for one in (change.before, change.after))
    return before == after


_FIGURES: Final = (names.ANNOTATION_POOL, names.ANNOTATION_DESIRED_HASH)


def _strip_figures(obj: Json) -> Json:
    meta = obj["metadata"]
    notes = {key: text for key, text in (meta.get("annotations") or {}).items() if key not in _FIGURES}
    conditions = [(c["type"], c["status"], c.get("reason")) for c in (obj.get("status") or {}).get("conditions") or ()]
    return {
        "spec": obj.get("spec"),
        "data": obj.get("data"),
        "notes": notes,
        "conditions": conditions,
        "labels": meta.get("labels"),
    }


def _read_switch(judge: Judge, change: Change, sender: str) -> tuple[Key, str, str] | None:
    """Return deployment, former and new revision where the operator has moved traffic; None elsewhere."""
    if not sender or change.resource.kind != "Service" or change.after is None:
        return None
    before, after = (
        (((one or {}).get("spec") or {}).get("selector") or {}).get(names.LABEL_REVISION, "")
        for one in (change.before, change.after)
    )
    meta = change.after["metadata"]
    if before == after or after in ("", NOBODY):
        return None
    return (meta["namespace"], (meta.get("labels") or {}).get(names.LABEL_DEPLOYMENT, meta["name"])), before, after


def _read_start(judge: Judge, change: Change, sender: str) -> tuple[Key, str] | None:
    """Return deployment and revision where the operator starts pods of a revision that had none; None elsewhere."""
    if not sender or change.resource.kind != "Deployment" or change.after is None:
        return None
    before = int(change.before["spec"].get("replicas", 1)) if change.before else 0
    if before or not int(change.after["spec"].get("replicas", 1)):
        return None
    meta = change.after["metadata"]
    labels = meta.get("labels") or {}
    return (meta["namespace"], labels.get(names.LABEL_DEPLOYMENT, "")), meta["name"]


def _list_dropped(judge: Judge) -> list[tuple[Key, list[str]]]:
    """Return of each deployment with `Rollback` the pods that serve, where all have dropped; else none."""
    world, found = judge.world, []
    for start in world.schedule.starts:
        key = (start.namespace, start.name)
        spec = judge.spec(*key)
        accuracy, rollout = spec.get("accuracy", {}), spec.get("rollout", {})
        pods = []
        if accuracy.get("onBreach") == "Rollback" and not rollout.get("pinned") and not rollout.get("paused"):
            serving = world.find_serving(*key)
            ready = [
                p for p in world.list_pods(key[0], serving)
                if _is_ready(p) and (p["metadata"].get("labels") or {}).get(names.LABEL_SERVING) == names.SERVING
            ]  # fmt: skip
            if ready and all(p["metadata"]["uid"] in world.oracle.dropped_at for p in ready):
                pods = sorted(p["metadata"]["name"] for p in ready)
        found.append((key, pods))
    return found


def _read_incident(judge: Judge, key: Key) -> str:
    """Return the reason that the status gives for what is done about a drop; empty: none."""
    cr = judge.world.read_cr(*key)
    return str((((cr or {}).get("status") or {}).get("incident") or {}).get("reason", ""))


@functools.cache
def _list_reasons_without_alert() -> tuple[str, ...]:
    """Return the reasons that the alert on a blocked rollback leaves out."""
    rules = yaml.safe_load((TESTS.parent / "monitoring" / "rules" / "operator.yaml").read_text())
    text = json.dumps(rules)
    blocked = re.search(r'R1PlusRollbackBlocked.*?reason!~\\"([^"]*)\\"', text)
    return tuple(blocked[1].split("|")) if blocked else ()


def _count_ready(judge: Judge, namespace: str, revision: str) -> int:
    return sum(map(_is_ready, judge.world.list_pods(namespace, revision)))


def _is_ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return is_ready and "deletionTimestamp" not in pod["metadata"]
