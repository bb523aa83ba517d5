"""What a pass's observation tells the registry: facts that do not change any more. Pure; called by `history`.

Everything comes from what the cluster keeps (ControllerRevisions, the CR's status, R1PlusEngines, suites) and from what
monitors said last, so a fact that was not recorded yet is found again at any later look.
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
from r1plus_contract.requests import requests_in
from r1plus_contract.verdict import Gate, Standing, Verdict, Watch
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.plan.observation import Json, NamespaceFacts, Observed, SuiteSource
from r1plus_operator.plan.revision.record import Revision, read
from r1plus_operator.plan.revision.rollback_record import RollbackRecord

MOST_BYTES = 250
"""Of a text that tells facts apart: what the registry indexes. A pod may say anything."""
MOST_TEXT = 1000
Fact = RevisionFact | EvaluationFact | RolloutFact | AlarmFact


def deployment(cr: Json, namespace: NamespaceFacts | None) -> DeploymentFact:
    """The CR itself. One that is older than the namespace as it is known by now was in another one of that name."""
    meta = cr["metadata"]
    its_own = namespace is not None and namespace.created <= meta.get("creationTimestamp", "")
    return DeploymentFact(
        meta["uid"], meta["namespace"], meta["name"], namespace.uid if namespace is not None and its_own else ""
    )


def facts(observed: Observed) -> tuple[Fact, ...]:
    """All of one deployment, as far as they can be seen now."""
    uid = str(observed.cr["metadata"]["uid"])
    found: list[Fact] = []
    for revision in _revisions(observed):
        found.append(_revision(uid, revision))
        found += (EvaluationFact(uid, revision.name, report) for report in revision.verdicts)
        found += _rollouts(uid, revision, observed.cr)
    return (*found, *_requests(uid, observed.cr), *_incident(uid, observed.cr), *_alarms(uid, observed))


def _revisions(observed: Observed) -> Iterator[Revision]:
    for (kind, _), live in sorted(observed.children.items()):
        if kind == "ControllerRevision":
            try:
                yield read(live)
            except ContractError:
                continue  # Somebody else's; the plan tells of it.


def _revision(uid: str, revision: Revision) -> RevisionFact:
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


def _rollouts(uid: str, revision: Revision, cr: Json) -> Iterator[RolloutFact]:
    if revision.candidate_since is not None:
        yield RolloutFact(uid, revision.name, RolloutEvent.CANDIDATE, revision.candidate_since)
    if revision.promoted_at is not None:
        # A later change of the gate, or a later Pass, changes nothing: the same step is recorded once.
        has_passed = any(report.verdict is Verdict.PASS for report in revision.verdicts)
        gate = ((cr.get("spec") or {}).get("accuracy") or {}).get("gate")
        cause = Gate.OBSERVE.value if gate == Gate.OBSERVE and not has_passed else ""
        yield RolloutFact(uid, revision.name, RolloutEvent.PROMOTED, revision.promoted_at, cause=cause)
    if revision.rollback is not None:
        yield from _way_back(uid, revision.name, revision.rollback)


def _way_back(uid: str, name: str, record: RollbackRecord) -> Iterator[RolloutFact]:
    why = record.fell.text[:MOST_TEXT]
    yield RolloutFact(uid, name, RolloutEvent.CONTROL_BEGAN, record.started_at, record.to, record.cause, why)
    if record.control is not None:
        passed = record.control is Verdict.PASS
        event = RolloutEvent.CONTROL_PASSED if passed else RolloutEvent.CONTROL_FAILED
        said = record.said[:MOST_TEXT]
        yield RolloutFact(uid, name, event, record.started_at, record.to, record.cause, said)
    if record.switched_at is not None:
        yield RolloutFact(uid, name, RolloutEvent.ROLLED_BACK, record.switched_at, record.to, record.cause, why)


def _requests(uid: str, cr: Json) -> Iterator[RolloutFact]:
    """What people asked for, as far as its time can be read: of each verb the newest that the object bears."""
    for verb, request in requests_in(cr["metadata"]).items():
        try:
            at = datetime.fromisoformat(request.at).timestamp()
            datetime.fromtimestamp(at, tz=UTC)
        except (ValueError, OverflowError):
            continue
        yield RolloutFact(uid, request.revision, RolloutEvent.REQUESTED, at, cause=verb.value, text=request.told)


def _incident(uid: str, cr: Json) -> Iterator[AlarmFact]:
    """What the status tells of a fall; another reason for the same fall is another fact."""
    incident = (cr.get("status") or {}).get("incident")
    if not isinstance(incident, dict):
        return
    yield AlarmFact(
        deployment=uid,
        revision=_short(incident.get("revision")),
        source="deployment",
        reason=_short(incident.get("reason")),
        since=_short(incident.get("since")),
        before=_short(incident.get("before")),
        now=_short(incident.get("now")),
        lost=tuple(_short(line) for line in incident.get("lost") or ()),
        text=str(incident.get("next") or "")[:MOST_TEXT],
    )


def _alarms(uid: str, observed: Observed) -> Iterator[AlarmFact]:
    """Detectors of single pods that have alarmed."""
    for pod in observed.pods:
        report = observed.reports.get(pod.name)
        watch = report.watch if report else None
        if watch is not None and watch.alarmed_at and watch.standing is not Standing.STEADY:
            yield AlarmFact(
                deployment=uid,
                revision=_short(pod.revision),
                source=_short(f"pod/{pod.name}"),
                reason=watch.standing.value,
                since=_short(watch.alarmed_at),
                now=_counted(watch),
                lost=tuple(_short(item) for item in watch.lost_since_gate[:50]),
            )


def _counted(watch: Watch) -> str:
    return f"{watch.confirmation.correct}/{watch.confirmation.total}" if watch.confirmation else ""


def engine(known: Engine, live: Json) -> EngineFact:
    """An engine of the catalog, with the digest of its spec as it lies in the cluster."""
    spec = known.spec
    return EngineFact(
        name=known.name,
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


def suites(observed: Observed, shipped: frozenset[str], wanted: Iterable[str]) -> tuple[SuiteFact, ...]:
    """Of the suites at hand those whose hash is wanted. `shipped`: digests of those that this version ships."""
    hashes, found = frozenset(wanted), []
    for source in observed.suites.values():
        if source.suite is not None and source.suite.header.sha256 in hashes:
            namespace = "" if source.digest in shipped else observed.namespace
            found.append(_suite(namespace, source))
    return tuple(found)


def _suite(namespace: str, source: SuiteSource) -> SuiteFact:
    assert source.suite is not None
    header = source.suite.header
    return SuiteFact(
        namespace=namespace,
        name=_short(header.name),
        version=_short(header.version),
        sha256=header.sha256,
        scorer_version=_short(header.scorer_version),
        reference_engine=_short(header.reference_engine),
        signer=source.signer,
        items=tuple(SuiteItem(_short(item.id), _short(item.stratum)) for item in source.suite.items),
    )


def _short(value: Any) -> str:
    return str(value or "").encode(errors="replace")[:MOST_BYTES].decode(errors="ignore")
