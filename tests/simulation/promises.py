"""The promises of the documentation, each as a function whose docstring is the sentence that it holds.

Safety is judged after every committed write, liveness every few seconds with bounds in virtual seconds. A function
returns what breaks the promise, in words, or an empty text.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final

from r1plus_contract import names
from r1plus_contract.verdict import Verdict
from r1plus_operator.api import kinds
from r1plus_operator.plan.accuracy.gate_tries import MOST_REPEATS
from r1plus_operator.runtime.lease import LEASE
from r1plus_policies.gate.verdict import max_lost_items, rejudge
from simulation.invariants import SPEC_SECONDS, Judge, Promises, Refusal
from simulation.kstatus_promises import a_refusal_is_failed, current_means_promoted
from simulation.readings import (
    Key,
    count_ready,
    find_condition,
    is_ready,
    list_reasons_without_alert,
    read_followed_generation,
    read_incident,
    read_spec,
    read_start,
    read_switch,
)
from simulation.schedule import ITEMS
from simulation.world import OPERATOR_NAMESPACE, REVISION
from support.simulation.server import Change

NETWORK_POLICY: Final = kinds.BY_KIND["NetworkPolicy"]
LATCH_SECONDS: Final = 120.0
FOLLOW_SECONDS: Final = 15.0
"""From an edit to a pass over it, whatever goes on in other namespaces (docs/reference/isolation.md)."""
ANSWER_SECONDS: Final = 1200.0
"""For a drop of all that serves to be answered; a candidate, a stall and a node without room may come in between."""
QUIET_SECONDS: Final = 300.0
"""At the end of a run nothing is written for so long."""


# -- Safety ----------------------------------------------------------------------------------------------------------


def only_a_pass_takes_traffic(judge: Judge, change: Change, sender: str) -> str:
    """Under `Enforce` only a Pass promotes: a Pass of its own, under the terms in force, that no drop has overruled."""
    switch = read_switch(change, sender)
    if switch is None:
        return ""
    key, _, revision = switch
    spec = read_spec(judge.world, key)
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
    switch = read_switch(change, sender)
    if switch is None or judge.now - judge.set_back_at < SPEC_SECONDS:
        return ""
    key, before, revision = switch
    if not count_ready(judge.world, key[0], before):
        return ""
    judge.count("traffic_moves_to_ready_pods")
    if judge.was_ready(key[0], revision):
        return ""
    return (
        f"{key[0]}/{key[1]}: traffic moved from {before}, which has Ready pods, to {revision}, which has none:"
        " no endpoint is left"
    )


def _find_restart(
    judge: Judge, change: Change, sender: str, refusals: Mapping[Key, Refusal]
) -> tuple[Key, str, Refusal | None]:
    """Return deployment, revision and refusal where pods of a refused revision are started without a request since.

    What serves is started whatever was refused before.
    """
    key, revision = read_start(change, sender) or (("", ""), "")
    refusal = refusals.get((key[0], revision))
    is_asked_for = refusal is not None and judge.orders.get(key, 0) > refusal.order
    if is_asked_for or judge.world.find_serving(*key) == revision:
        refusal = None
    return key, revision, refusal


def refused_stays_refused(judge: Judge, change: Change, sender: str) -> str:
    """Under `Enforce` a candidate that was refused stays refused: ask for something else."""
    key, revision, refusal = _find_restart(judge, change, sender, judge.refusals)
    if refusal is None or read_spec(judge.world, key).get("accuracy", {}).get("gate", "Enforce") != "Enforce":
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
    switch = read_switch(change, sender)
    if switch is None:
        return ""
    key, _, name = switch
    accuracy = read_spec(judge.world, key).get("accuracy", {})
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
    key, revision, rollback = _find_restart(judge, change, sender, judge.rollbacks)
    cr = judge.world.read_cr(*key)
    if rollback is None or cr is None:
        return ""
    judge.count("rolled_back_stays_away")
    if int(cr["metadata"].get("generation", 0)) != rollback.generation:
        return ""
    return (
        f"{key[0]}/{key[1]}: {revision} is started again, though it was rolled back from at {rollback.at:.0f} s, and"
        " neither the spec has changed since nor has anybody asked for it"
    )


def what_serves_keeps_its_pass(judge: Judge, change: Change, sender: str) -> str:
    """What serves is judged by its promotion terms: the Pass that let it take traffic stays on record while it serves."""
    if not sender or change.resource != REVISION or change.after is None:
        return ""
    meta = change.after["metadata"]
    key = (meta["namespace"], meta["name"])
    passes, owner = judge.promotions.get(key), judge.world.oracle.owners.get(key, "")
    if passes is None or judge.world.find_serving(key[0], owner) != key[1]:
        return ""
    judge.count("what_serves_keeps_its_pass")
    revision = judge.world.oracle.revisions[key]
    if passes.intersection(revision.verdicts):
        return ""
    on_record = ", ".join(f"{v.verdict.value} at batch {v.batch}" for v in revision.verdicts) or "nothing"
    return f"{key[0]}/{key[1]} serves by a Pass that its record no longer has; it has {on_record}"


def network_policies_come_first(judge: Judge, change: Change, sender: str) -> str:
    """The operator writes network policies before pods."""
    start = read_start(change, sender)
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
    if not sender or judge.now - judge.set_back_at < SPEC_SECONDS:
        return ""
    judge.count("only_the_leader_writes")
    lease = judge.world.server.read(LEASE, OPERATOR_NAMESPACE, names.LEASE)
    holder = (lease["spec"].get("holderIdentity") if lease else "") or ""
    if holder.startswith(sender.partition("#")[0]):
        return ""
    meta = (change.after or change.before or {})["metadata"]
    return (
        f"{sender} wrote {change.verb} {change.resource.kind} {meta.get('namespace')}/{meta['name']} while"
        f" {holder or 'no process'} held the Lease"
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
    if not any(map(is_ready, mine)):
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
    for key, pods in judge.dropped:
        judge.count_drop("drops_are_answered", key, pods)
        reason = read_incident(judge.world, key)
        is_silent = reason in ("", *list_reasons_without_alert())
        if judge.held_for(bool(pods) and is_silent, "unanswered", key, pods) > ANSWER_SECONDS:
            told = f"status.incident says {reason}, for which no alert fires" if reason else "status.incident is empty"
            return (
                f"{key[0]}/{key[1]}: all that serves has dropped ({', '.join(pods)}) for {ANSWER_SECONDS:g} s; {told}"
            )
    return ""


def the_only_pod_is_answered(judge: Judge) -> str:
    """The revision is rolled back when two pods are below the threshold, or the only one."""
    for key, pods in judge.dropped:
        judge.count_drop("the_only_pod_is_answered", key, pods if len(pods) == 1 else [])
        is_blocked = read_incident(judge.world, key) in ("LastThatServes", "AlreadyQuarantined")
        if judge.held_for(len(pods) == 1 and is_blocked, "only", key, pods) > ANSWER_SECONDS:
            return (
                f"{key[0]}/{key[1]}: {pods[0]} is all that serves, and below the threshold for {ANSWER_SECONDS:g} s;"
                f" status.incident says {read_incident(judge.world, key)}"
            )
    return ""


def status_tells_of_drops(judge: Judge) -> str:
    """A drop of what serves shows in the condition QualityVerified, whatever else is under way."""
    for key, pods in judge.dropped:
        judge.count_drop("status_tells_of_drops", key, pods)
        told = find_condition(judge.world.read_cr(*key) or {}, "QualityVerified")
        if judge.held_for(bool(pods) and told[0] != "False", "untold", key, pods) > ANSWER_SECONDS:
            return f"{key[0]}/{key[1]}: all that serves has dropped, and QualityVerified is {'/'.join(told)}"
    return ""


def edits_pass_busy_namespaces(judge: Judge) -> str:
    """An edit is followed within 15 s, however many edits wait in another namespace, while the operator is sound."""
    world = judge.world
    for key, edit in tuple(judge.edits.items()):
        cr = world.read_cr(*key)
        if cr is None or read_followed_generation(cr) >= edit.generation:
            del judge.edits[key]
            continue
        began = max(edit.at, judge.sound_since)
        is_judged = any(namespace != key[0] and until >= began for namespace, until in world.busy_until.items())
        if is_judged and judge.now - began > FOLLOW_SECONDS:
            return f"{key[0]}/{key[1]}: the edit of {edit.at:.0f} s is not followed {judge.now - began:.0f} s later"
    return ""


# -- At the end ------------------------------------------------------------------------------------------------------


def everything_converges(judge: Judge) -> str:
    """The controller is level-triggered: repeating a pass writes nothing."""
    if judge.now - judge.quarantine_ended_at < QUIET_SECONDS:
        return ""  # Its hour is over, and another bad pod may take its place.
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
        spec = read_spec(judge.world, key)
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
        if serving is None or serving.context != context or not count_ready(judge.world, key[0], serving.name):
            found = f"{serving.name} with {serving.context}" if serving else "nothing"
            return f"{key[0]}/{key[1]}: the spec asks for {context} tokens, which is good; {found} serves at the end"
    return ""


SAFETY: Final = (
    only_a_pass_takes_traffic,
    traffic_moves_to_ready_pods,
    refused_stays_refused,
    failed_tries_are_counted,
    rolled_back_stays_away,
    what_serves_keeps_its_pass,
    network_policies_come_first,
    only_the_leader_writes,
    scores_belong_to_what_was_scored,
    tenants_are_apart,
    quarantine_spares_the_last,
    current_means_promoted,
    a_refusal_is_failed,
)
LIVENESS: Final = (
    drops_are_latched,
    drops_are_answered,
    the_only_pod_is_answered,
    status_tells_of_drops,
    edits_pass_busy_namespaces,
)
AT_END: Final = (everything_converges, good_candidates_are_promoted)
PROMISES: Final = Promises(SAFETY, LIVENESS, AT_END)
NAMES: Final = PROMISES.names
