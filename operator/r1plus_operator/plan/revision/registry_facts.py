"""Facts for the registry that an observation contains: they do not change any more. Pure; called by the recorder.

Everything comes from what the cluster stores (ControllerRevisions, the CR's status, R1PlusEngines, suites) and from the
monitors' last reports. So a fact that was not recorded yet is in every later observation, too.
"""

import hashlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

from r1plus_contract import names
from r1plus_contract.history import (
    AlarmFact,
    DeploymentFact,
    EngineFact,
    EvaluationFact,
    RevisionFact,
    RolloutEvent,
    RolloutFact,
    SuiteFact,
    SuiteItem,
)
from r1plus_contract.jsonable import ContractError, dumps
from r1plus_contract.requests import read_requests
from r1plus_contract.verdict import Gate, Verdict, Watch, WatchStanding
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.plan.observation import Json, NamespaceFacts, Observation, SuiteSource
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.revision.rollback_record import RollbackRecord
from r1plus_operator.plan.revision.storage import read_revision

MAX_BYTES = 250
"""Limit of a text that identifies a fact, because the registry indexes it. A pod may report any text."""
MAX_TEXT = 1000
Fact = RevisionFact | EvaluationFact | RolloutFact | AlarmFact


def build_deployment_fact(cr: Json, namespace: NamespaceFacts | None) -> DeploymentFact:
    """Return the fact about the CR. A CR older than its namespace belonged to an earlier namespace of that name."""
    meta = cr["metadata"]
    is_created_in = namespace is not None and namespace.created_at <= meta.get("creationTimestamp", "")
    return DeploymentFact(
        meta["uid"], meta["namespace"], meta["name"], namespace.uid if namespace is not None and is_created_in else ""
    )


def collect_facts(observed: Observation) -> tuple[Fact, ...]:
    """Return all facts about one deployment that the observation contains."""
    uid = str(observed.cr["metadata"]["uid"])
    facts: list[Fact] = []
    for revision in _read_revisions(observed):
        facts.append(_build_revision_fact(uid, revision))
        facts += (EvaluationFact(uid, revision.name, report) for report in revision.verdicts)
        facts += _build_rollout_facts(uid, revision, observed.cr)
    return (
        *facts,
        *_build_request_facts(uid, observed.cr),
        *_build_incident_facts(uid, observed.cr),
        *_build_alarm_facts(uid, observed),
    )


def _read_revisions(observed: Observation) -> Iterator[Revision]:
    for (kind, _), live in sorted(observed.children.items()):
        if kind == "ControllerRevision":
            try:
                yield read_revision(live)
            except ContractError:
                continue  # A foreign object; the plan reports it.


def _build_revision_fact(uid: str, revision: Revision) -> RevisionFact:
    containers = (revision.template.get("spec") or {}).get("containers") or ()
    images = {container.get("name"): str(container.get("image", "")) for container in containers}
    return RevisionFact(
        deployment=uid,
        name=revision.name,
        number=revision.number,
        engine=revision.engine,
        engine_digest=revision.identity.engine_digest,
        batch=revision.batch,
        context=revision.context,
        identity_digest=revision.identity_digest,
        identity=dict(revision.data["identity"]),
        monitor_image=images.get(names.CONTAINER_MONITOR, ""),
    )


def _build_rollout_facts(uid: str, revision: Revision, cr: Json) -> Iterator[RolloutFact]:
    if revision.candidate_since is not None:
        yield RolloutFact(uid, revision.name, RolloutEvent.CANDIDATE, revision.candidate_since)
    if revision.promoted_at is not None:
        # A later change of the gate, or a later Pass, changes nothing: the registry records a step once.
        has_passed = any(report.verdict is Verdict.PASS for report in revision.verdicts)
        gate = ((cr.get("spec") or {}).get("accuracy") or {}).get("gate")
        cause = Gate.OBSERVE.value if gate == Gate.OBSERVE and not has_passed else ""
        yield RolloutFact(uid, revision.name, RolloutEvent.PROMOTED, revision.promoted_at, cause=cause)
    if revision.rollback is not None:
        yield from _build_rollback_facts(uid, revision.name, revision.rollback)


def _build_rollback_facts(uid: str, name: str, record: RollbackRecord) -> Iterator[RolloutFact]:
    text = record.fell.text[:MAX_TEXT]
    yield RolloutFact(uid, name, RolloutEvent.CONTROL_BEGAN, record.started_at, record.to, record.cause, text)
    if record.control is not None:
        has_passed = record.control is Verdict.PASS
        event = RolloutEvent.CONTROL_PASSED if has_passed else RolloutEvent.CONTROL_FAILED
        summary = record.said[:MAX_TEXT]
        yield RolloutFact(uid, name, event, record.started_at, record.to, record.cause, summary)
    if record.switched_at is not None:
        yield RolloutFact(uid, name, RolloutEvent.ROLLED_BACK, record.switched_at, record.to, record.cause, text)


def _build_request_facts(uid: str, cr: Json) -> Iterator[RolloutFact]:
    """Yield the newest user request of each verb, if its time can be read."""
    for verb, request in read_requests(cr["metadata"]).items():
        try:
            at = datetime.fromisoformat(request.at).timestamp()
            datetime.fromtimestamp(at, tz=UTC)
        except (ValueError, OverflowError):
            continue
        yield RolloutFact(uid, request.revision, RolloutEvent.REQUESTED, at, cause=verb.value, text=request.summary)


def _build_incident_facts(uid: str, cr: Json) -> Iterator[AlarmFact]:
    """Yield the incident of the status; another reason for the same accuracy drop is another fact."""
    incident = (cr.get("status") or {}).get("incident")
    if not isinstance(incident, dict):
        return
    yield AlarmFact(
        deployment=uid,
        revision=_shorten(incident.get("revision")),
        source="deployment",
        reason=_shorten(incident.get("reason")),
        since=_shorten(incident.get("since")),
        before=_shorten(incident.get("before")),
        now=_shorten(incident.get("now")),
        lost=tuple(_shorten(line) for line in incident.get("lost") or ()),
        text=str(incident.get("next") or "")[:MAX_TEXT],
    )


def _build_alarm_facts(uid: str, observed: Observation) -> Iterator[AlarmFact]:
    """Yield the alarms of single pods' detectors."""
    for pod in observed.pods:
        report = observed.reports.get(pod.name)
        watch = report.watch if report else None
        if watch is not None and watch.alarmed_at and watch.standing is not WatchStanding.STEADY:
            yield AlarmFact(
                deployment=uid,
                revision=_shorten(pod.revision),
                source=_shorten(f"pod/{pod.name}"),
                reason=watch.standing.value,
                since=_shorten(watch.alarmed_at),
                now=_format_count(watch),
                lost=tuple(_shorten(item) for item in watch.lost_since_gate[:50]),
            )


def _format_count(watch: Watch) -> str:
    return f"{watch.confirmation.correct}/{watch.confirmation.total}" if watch.confirmation else ""


def build_engine_fact(engine: Engine, live: Json) -> EngineFact:
    """Return the fact about a catalog engine, with the digest of its spec as the cluster stores it."""
    spec = engine.spec
    return EngineFact(
        name=engine.name,
        spec_digest=hashlib.sha256(dumps(live["spec"]).encode()).hexdigest(),
        family=spec.family,
        tier=spec.tier.value,
        version=spec.version,
        precision=spec.precision,
        backend=spec.backend.value,
        image=spec.artifact.source if spec.artifact else "",
        sha256=spec.artifact.sha256 if spec.artifact else "",
        suite=spec.reference.suite,
        inherited_from=spec.reference.inherited_from or "",
        claimed_by=spec.reference.claimed_by or "",
        spec=dict(live["spec"]),
    )


def collect_suite_facts(
    observed: Observation, shipped: frozenset[str], requested_hashes: Iterable[str]
) -> tuple[SuiteFact, ...]:
    """Return the facts about the suites with these hashes. `shipped`: digests of the suites of this version."""
    hashes, facts = frozenset(requested_hashes), []
    for source in observed.suites.values():
        if source.suite is not None and source.suite.header.sha256 in hashes:
            namespace = "" if source.digest in shipped else observed.namespace
            facts.append(_build_suite_fact(namespace, source))
    return tuple(facts)


def _build_suite_fact(namespace: str, source: SuiteSource) -> SuiteFact:
    assert source.suite is not None
    header = source.suite.header
    return SuiteFact(
        namespace=namespace,
        name=_shorten(header.name),
        version=_shorten(header.version),
        sha256=header.sha256,
        scorer_version=_shorten(header.scorer_version),
        reference_engine=_shorten(header.reference_engine),
        signer=source.signer,
        items=tuple(SuiteItem(_shorten(item.id), _shorten(item.stratum)) for item in source.suite.items),
    )


def _shorten(value: Any) -> str:
    return str(value or "").encode(errors="replace")[:MAX_BYTES].decode(errors="ignore")
