"""From what was observed to what is done about a fall: fills in `response.Given`, keeps the record. Called by the plan.

Only what monitors say of the very identity and suite in force counts, and only monitors of the revision's own pods are
heard at all (`revision.own`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from r1plus_contract.requests import Request, Verb, requests_in
from r1plus_contract.settings import ControlOrder
from r1plus_contract.suite import Suite
from r1plus_contract.verdict import GateReport, MonitorReport, Phase, Standing, Verdict
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.accuracy.suite_selection import Judging
from r1plus_operator.plan.engine.placement import check_placement, read_placement
from r1plus_operator.plan.observation import REFUSED_PODS, Observation, PodFacts
from r1plus_operator.plan.requests import find_rollback_request, read_ack_token
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.revision.rollback_record import FELL, MOST_TEXT, REQUESTED, Fell, Record, Terms
from r1plus_operator.plan.rollback import eligibility
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_policies.gate.verdict import MOST_LOST_ITEMS
from r1plus_policies.rollback.decision import respond
from r1plus_policies.rollback.response import Action, Control, Given, PastRevision, PodHealth, PoolHealth, Response, Why

SUITE_MISMATCH = "SuiteMismatch"
"""The monitor's reason where its scorer does not give recorded answers their recorded scores."""
MOST_STRATA, MOST_IDS, MOST_LINE = 16, 5, 200
"""Of what was lost, what is told."""
PROGRESS_STEP = 10
"""Percent: the progress of a control is told in steps of this size."""
_LATCHED = frozenset({Why.ROLLBACK_TARGET_ALSO_FAILED, Why.CONTROL_OVERDUE, Why.SUITE_MISMATCH, Why.PAUSED})
"""Answers after which the attempt is kept though nothing of it runs: forgetting it would start it again."""


@dataclass(frozen=True, slots=True)
class Scene:
    """All that an answer is derived from."""

    observed: Observation
    config: OperatorConfig
    now: float
    spec: R1PlusDeploymentSpec
    judging: Judging
    revisions: Mapping[str, Revision]
    current: Revision
    identity: str
    """Digest of the current revision's identity; hashed once."""
    target: str
    rollout_under_way: bool

    @property
    def suite(self) -> Suite:
        """By which what serves is judged."""
        return self.judging.suite

    @property
    def suite_hash(self) -> str:
        """Its hash."""
        return self.suite.header.sha256

    @property
    def acknowledged(self) -> str:
        """The newest acknowledgement."""
        return read_ack_token(self.observed.cr)

    @property
    def asked(self) -> Request | None:
        """The rollback that somebody asks for and that has not been made: from what serves, once."""
        return find_rollback_request(self.observed.cr, self.current.name, self.revisions)

    def pods(self, revision: str) -> list[PodFacts]:
        """Living pods of a revision, in quarantine or not."""
        return [p for p in self.observed.pods if p.revision == revision and not p.terminating]

    def report(self, pod: PodFacts) -> MonitorReport | None:
        """What the pod's monitor said last."""
        return self.observed.reports.get(pod.name)


def terms_of(observed: Observation, spec: R1PlusDeploymentSpec, judging: Judging, target: str) -> Terms:
    """What holds now."""
    asked = requests_in(observed.cr["metadata"])
    released = "|".join(asked[verb].token if verb in asked else "" for verb in (Verb.ACK, Verb.UNPIN))
    return Terms(target, judging.terms, spec.accuracy.threshold, released)


def settled(revisions: Mapping[str, Revision], current: str | None, terms: Terms) -> dict[str, Revision]:
    """The revisions with their records brought up to date: completed, lifted or void."""
    return {
        name: replace(r, rollback=_settled(r.rollback, name, revisions, current, terms)) if r.rollback else r
        for name, r in revisions.items()
    }


def _settled(
    record: Record, bearer: str, revisions: Mapping[str, Revision], current: str | None, terms: Terms
) -> Record | None:
    record = _completed(record, revisions[bearer], revisions.get(record.to), terms)
    if record.terms.released != terms.released:
        return replace(record, lifted=True, released=terms.released) if record.overrules else None
    if record.switched_at is not None:
        less = terms.threshold < record.terms.threshold
        other_suite = terms.asks.suite_hash != record.terms.asks.suite_hash
        moved_on = terms.asked_for != bearer or other_suite or less
        return replace(record, lifted=record.lifted or moved_on)
    if bearer == current and terms == record.terms:
        return record
    return replace(record, lifted=True) if record.before else None


def _completed(record: Record, bearer: Revision, to: Revision | None, terms: Terms) -> Record:
    """Whether traffic went back, by the promotion itself: of the two writes of a switch either may have been the last.

    Promotions have an order whatever the clock does. While the spec asks for what it asked for then, nothing but a
    control that passed promotes what was gone back to.
    """
    if to is None or record.lifted:
        return record
    ours = record.control is Verdict.PASS or terms.asks == record.terms.asks
    if not ours or to.promoted_at is None or to.promoted_at <= (bearer.promoted_at or 0.0):
        return replace(record, switched_at=None)
    return replace(record, control=Verdict.PASS, switched_at=record.switched_at or to.promoted_at)


def asked_for_last(revisions: Mapping[str, Revision], serving: Revision) -> str:
    """Return the revision that the spec asked for before it had a Problem.

    Where that is not recorded, as in a cluster that an earlier version stored: what a rollback record says of it, else
    the candidate, else what serves.
    """
    if serving.last_valid and serving.last_valid.target in revisions:
        return serving.last_valid.target
    records = [(r.name, r.rollback) for r in revisions.values() if r.rollback and not r.rollback.lifted]
    newest_first = sorted(records, key=lambda found: -found[1].started_at)
    told = [name if record.switched_at is not None else record.terms.asked_for for name, record in newest_first]
    candidates = [r.name for r in revisions.values() if r.candidate_since]
    return next((name for name in (*told, *candidates) if name in revisions), serving.name)


def has_dropped(scene: Scene, before: bool) -> bool:
    """Whether a pod in traffic was counted below the threshold; while none says anything, what was known `before`."""
    standings = [standing(scene, scene.report(p)) for p in scene.pods(scene.current.name) if p.quarantine is None]
    known = [found for found in standings if found is not None]
    return Standing.BELOW_THRESHOLD in known if known else before


def attempt(revision: Revision | None) -> Record | None:
    """The way back from it that has been begun and not been ended."""
    record = revision.rollback if revision else None
    return record if record and record.switched_at is None and not record.lifted else None


def answer(scene: Scene) -> tuple[Response, Record | None]:
    """What is done, and the record of the revision that serves as it stands afterwards."""
    record = _with_control(scene, attempt(scene.current))
    response = respond(_given(scene, record))
    if response.revision and record is None:
        return response, _begun(scene, response.revision)
    if response.revision or response.why in _LATCHED:
        return response, record or scene.current.rollback
    if record is None:
        return response, scene.current.rollback
    # Leave was taken back, or the pin was set: what was begun is void, what was done before is remembered.
    return response, replace(record, lifted=True) if record.before else None


def order(record: Record | None, candidate: Revision | None, revisions: Mapping[str, Revision]) -> ControlOrder | None:
    """What the monitors of the control are told, or those of a candidate that fell and comes back."""
    to = revisions.get(record.to) if record else None
    if record and to:
        return ControlOrder(to.identity_digest, record.token)
    return ControlOrder(candidate.identity_digest, candidate.regate) if candidate and candidate.regate else None


def fresh(scene: Scene, record: Record) -> GateReport | None:
    """The control's own gate, decided at the serving batch since the attempt began."""
    to = scene.revisions.get(record.to)
    if to is None:
        return None
    wanted = (record.token, to.identity_digest, scene.suite_hash, scene.spec.accuracy.threshold, to.batch)
    gates = [report.gate for pod in scene.pods(record.to) if (report := scene.report(pod)) and report.gate]
    decided = (g for g in gates if g.verdict in (Verdict.PASS, Verdict.FAIL))
    return next((g for g in decided if (g.control, g.identity, g.suite_hash, g.threshold, g.batch) == wanted), None)


def _with_control(scene: Scene, record: Record | None) -> Record | None:
    """What the control's monitors say. That they cannot score is kept: its pods go with the attempt, and the words."""
    if record is None or record.control is not None or record.blocked:
        return record
    if gate := fresh(scene, record):
        return replace(record, control=gate.verdict, said=gate.message[:MOST_TEXT])
    said = next((r.message for r in _mismatches(scene, scene.pods(record.to))), "")
    return replace(record, blocked=said[:MOST_TEXT]) if said and not mismatch(scene) else record


def mismatch(scene: Scene) -> bool:
    """Whether a monitor of a pod in traffic scores otherwise than when the suite was recorded."""
    return bool(_mismatches(scene, [pod for pod in scene.pods(scene.current.name) if pod.quarantine is None]))


def _mismatches(scene: Scene, pods: list[PodFacts]) -> list[MonitorReport]:
    """What those of these pods' monitors say whose scorer no longer judges the suite in force as it was recorded.

    One that fell silent with another suite goes on saying it of that one: it keeps its reason (`silence.silent`).
    """
    reports = [report for pod in pods if (report := scene.report(pod))]
    return [r for r in reports if (r.reason, r.suite_hash) == (SUITE_MISMATCH, scene.suite_hash)]


def _begun(scene: Scene, to: str) -> Record:
    asked, before = scene.asked, scene.current.rollback
    return Record(
        to=to,
        terms=terms_of(scene.observed, scene.spec, scene.judging, scene.target),
        started_at=scene.now,
        cause=REQUESTED if asked else FELL,
        fell=replace(figures(scene), text=asked.told[:MOST_TEXT]) if asked else figures(scene),
        request=asked.token if asked else "",
        before=tuple(sorted(before.gone_back_to)) if before else (),
        fallen=any(_health(scene, pod).fell for pod in scene.pods(scene.current.name)),
    )


def figures(scene: Scene) -> Fell:
    """What fell, by the worst pod's own count."""
    reports = [r for pod in scene.pods(scene.current.name) if (r := scene.report(pod))]
    bad = [r for r in reports if standing(scene, r) not in (None, Standing.STEADY)]
    worst = max(bad, key=lambda r: r.watch.evidence if r.watch else 0.0, default=None)
    gate = scene.current.verdict_for(scene.suite_hash, scene.spec.accuracy.threshold)
    before = f"{gate.items - gate.lost}/{gate.items}" if gate and gate.verdict is Verdict.PASS else ""
    if worst is None:
        return Fell(before)
    now, lost = counted(worst), lost_by_stratum(worst, scene.suite)
    share = f"{now} right" + (f", {before} at its gate" if before else "") if now else worst.message[:MOST_TEXT]
    return Fell(
        before, now, lost, share + (f"; lost: {', '.join(line.split(' (')[0] for line in lost)}" if lost else "")
    )


def lost_by_stratum(report: MonitorReport, suite: Suite) -> tuple[str, ...]:
    """A line per stratum that lost something: how many of how many, and which. Ids that no item has are passed over.

    A monitor names so many ids and no more; how many there are, its count says by stratum.
    """
    ids = report.watch.lost_since_gate if report.watch else ()
    failed = report.gate if not ids and report.gate and report.gate.verdict is Verdict.FAIL else None
    strata_lost = failed.strata if failed else report.watch.strata if report.watch else ()
    counts = {stratum.name: stratum.lost for stratum in strata_lost}
    ids = failed.lost_items if failed else ids
    least = "at least " if not counts and len(ids) >= MOST_LOST_ITEMS else ""
    strata, sizes = {item.id: item.stratum for item in suite.items}, suite.strata()
    lost: dict[str, list[str]] = {name: [] for name, count in counts.items() if count and name in sizes}
    for item in dict.fromkeys(ids):
        if item in strata:
            lost.setdefault(strata[item], []).append(item)
    total = {name: min(max(counts.get(name, 0), len(items)), sizes[name]) for name, items in lost.items()}
    worst_first = sorted(lost, key=lambda name: (-total[name], name))[:MOST_STRATA]
    return tuple(
        f"{name}: {least}{total[name]} of {sizes[name]}{_listed(lost[name], total[name])}"[:MOST_LINE]
        for name in worst_first
    )


def _listed(items: list[str], total: int) -> str:
    some = items[:MOST_IDS]
    return f" ({', '.join([*some, '...'] if len(some) < total else some)})" if some else ""


def counted(report: MonitorReport) -> str:
    """The count that decided: of the confirming sweep, of the gate, or of the last sweep."""
    if report.watch and (sweep := report.watch.confirmation):
        return f"{sweep.correct}/{sweep.total}"
    if report.gate and report.gate.verdict is Verdict.FAIL:
        return f"{report.gate.items - report.gate.lost}/{report.gate.items}"
    return f"{report.sweep.correct}/{report.sweep.total}" if report.sweep else ""


def standing(scene: Scene, report: MonitorReport | None) -> Standing | None:
    """What a monitor says of a pod that may serve; None where it says nothing of this identity and suite.

    What it found under another threshold, or before somebody acknowledged it, is not known under what holds now: its
    pod is counted anew. A monitor that does not say under which is taken at its word.
    """
    if report is None or (report.identity, report.suite_hash) != (scene.identity, scene.suite_hash):
        return None
    found, spec = _said(report), scene.spec.accuracy
    behind = report.threshold not in (None, spec.threshold) or report.acknowledged not in (None, scene.acknowledged)
    return Standing.CONFIRMING if behind and found not in (None, Standing.STEADY) else found


def _said(report: MonitorReport) -> Standing | None:
    gate, about = report.gate, (report.identity, report.suite_hash)
    if gate and gate.verdict is Verdict.FAIL and (gate.identity, gate.suite_hash) == about:
        return Standing.BELOW_THRESHOLD
    if report.watch:
        return report.watch.standing
    if report.phase is not Phase.WATCHING:
        return None
    return Standing.BELOW_THRESHOLD if report.verdict is Verdict.FAIL else Standing.STEADY


def _given(scene: Scene, record: Record | None) -> Given:
    spec, current, asked, tenant = scene.spec, scene.current, scene.asked, scene.observed.tenant
    records = [r.rollback for r in scene.revisions.values() if r.rollback and not r.rollback.released]
    return Given(
        current=current.name,
        pods=tuple(_health(scene, pod) for pod in scene.pods(current.name)),
        now=scene.now,
        replicas=spec.replicas,
        on_breach=spec.accuracy.on_breach,
        pinned=spec.rollout.pinned,
        not_tenant="" if tenant is None or tenant.is_tenant else tenant.message,
        paused=spec.rollout.paused,
        pool=_pool(scene),
        past=_pasts(scene),
        control=_control(scene, record) if record else None,
        requested=asked.told if asked else "",
        replayed=False if mismatch(scene) else None,
        rollout_under_way=scene.rollout_under_way,
        gone_back_to=current.rollback.gone_back_to if current.rollback else frozenset(),
        last_rollback=max((r.switched_at for r in records if r.switched_at), default=None),
        deadline=spec.rollout.deadline_seconds,
        bake=scene.config.bake_seconds,
        cooldown=scene.config.cooldown_seconds,
    )


def _health(scene: Scene, pod: PodFacts) -> PodHealth:
    report = scene.report(pod)
    return PodHealth(
        name=pod.name,
        standing=standing(scene, report),
        evidence=max(report.watch.evidence, report.watch.error_evidence) if report and report.watch else 0.0,
        node=pod.node,
        serves=pod.ready and pod.quarantine is None,
        quarantined=pod.quarantine is not None,
    )


def _pasts(scene: Scene) -> tuple[PastRevision, ...]:
    return tuple(_past(scene, r) for r in scene.revisions.values() if r.promoted_at and r.name != scene.current.name)


def _past(scene: Scene, revision: Revision) -> PastRevision:
    engines = {(e.name, e.spec.artifact.sha256) for e in scene.observed.engines if e.spec.artifact}
    return PastRevision(
        name=revision.name,
        promoted_at=revision.promoted_at or 0.0,
        served_seconds=revision.served_before + stint(revision, scene.revisions, scene.now),
        passed=revision.good(_compared_by(scene, revision), scene.spec.accuracy.threshold),
        engine_there=(revision.engine, revision.identity.engine_digest) in engines,
        is_placed=_is_placed(scene, revision),
        given_up=revision.rollback is not None and revision.rollback.refuses,
        takes_orders=revision.takes_orders and _can_prove(scene, revision),
    )


def _is_placed(scene: Scene, revision: Revision) -> bool:
    """Whether the tenant may still have pods where the revision's template places them."""
    allowed = scene.observed.tenant.placement if scene.observed.tenant else None
    return allowed is None or check_placement(read_placement(revision.template["spec"]), allowed) is None


def _can_prove(scene: Scene, revision: Revision) -> bool:
    """Whether a Pass of its control would be taken: an older monitor only repeats what its revision has passed."""
    return revision.proves_gates or revision.good(scene.suite_hash, scene.spec.accuracy.threshold)


def _compared_by(scene: Scene, revision: Revision) -> str:
    """Hash of the suite in force, or where a past revision has no verdict on it, of the newest that what serves has.

    A suite that took effect beside traffic was never asked of what served before; the control will be asked it.
    """
    common = (scene.suite_hash, *(v.suite_hash for v in reversed(scene.current.counted)))
    threshold = scene.spec.accuracy.threshold
    return next((suite for suite in common if revision.verdict_for(suite, threshold)), scene.suite_hash)


def stint(revision: Revision, revisions: Mapping[str, Revision], now: float) -> float:
    """Seconds from its last promotion to that of whatever came after it."""
    began = revision.promoted_at
    if began is None:
        return 0.0
    return (
        min((r.promoted_at for r in revisions.values() if r.promoted_at and r.promoted_at > began), default=now) - began
    )


def last_good(scene: Scene) -> str:
    """The revision to which a request would go back now; empty where there is none."""
    wish = Given(
        scene.current.name, (), scene.now, past=_pasts(scene), requested="somebody", bake=scene.config.bake_seconds
    )
    found = respond(wish)
    return found.revision if found.action is Action.CONTROL else ""


def lacking(scene: Scene) -> tuple[str, ...]:
    """What each earlier revision lacks to be gone back to, a line for each."""
    engines = {name: revision.engine for name, revision in scene.revisions.items()}
    return eligibility.lacking(_pasts(scene), engines, scene.config.bake_seconds)


def _control(scene: Scene, record: Record) -> Control:
    waiting = next((p.unschedulable for p in scene.pods(record.to) if p.unschedulable), "")
    refused = scene.observed.children.get(("Deployment", record.to), {}).get(REFUSED_PODS, "")
    no_room = (refused or waiting)[:MOST_TEXT]
    return Control(record.to, _began_at(scene, record), record.control, record.said, no_room, record.blocked)


def control_progress(scene: Scene, record: Record) -> str:
    """How far the furthest monitor of the control is, in steps; empty while none says."""
    reports = [report for pod in scene.pods(record.to) if (report := scene.report(pod))]
    asked = [r.progress for r in reports if r.phase is Phase.GATING and r.progress and r.progress.total]
    furthest = max(asked, key=lambda progress: progress.done / progress.total, default=None)
    if furthest is None:
        return ""
    share = 100 * furthest.done // furthest.total
    return f"{share - share % PROGRESS_STEP} % of its {furthest.total} probes are asked"


def _began_at(scene: Scene, record: Record) -> float:
    """When a control began: by its candidate where a wrong clock dated its record, whose date names it and stays.

    Without a candidate it was given up, and is no less overdue now.
    """
    if record.started_at <= scene.now:
        return record.started_at
    since = scene.revisions[record.to].candidate_since if record.to in scene.revisions else None
    return -math.inf if since is None else since


def _pool(scene: Scene) -> PoolHealth:
    view = scene.observed.pool
    if view is None or not view.is_of(scene.current.name, scene.suite_hash, scene.acknowledged):
        return PoolHealth()
    right = total = 0
    for pod in (p for p in scene.pods(scene.current.name) if p.quarantine is None and p.name != view.worst):
        report = scene.report(pod)
        sweep = report.sweep if report and report.suite_hash == scene.suite_hash else None
        if sweep and sweep.finished_at != view.before_alarm.get(pod.name, ""):
            right, total = right + sweep.correct, total + sweep.total
    below = right < scene.spec.accuracy.threshold * total if total else None
    return PoolHealth(view.evidence, view.without_worst, below, view.worst)
