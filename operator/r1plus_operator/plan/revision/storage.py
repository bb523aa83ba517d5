"""Read revisions from ControllerRevisions, and write them."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from r1plus_contract import names
from r1plus_contract.jsonable import ContractError, dumps, from_jsonable, loads
from r1plus_contract.monitor.identity import ServingIdentity, document_digest
from r1plus_contract.monitor.settings import KnownVerdicts
from r1plus_contract.verdict import GateReport, StratumFigures
from r1plus_operator.plan.engine.delivery import EngineVolume
from r1plus_operator.plan.observation import RESTORED, Json
from r1plus_operator.plan.revision.expiry import read_expiry
from r1plus_operator.plan.revision.last_valid import read_last_valid
from r1plus_operator.plan.revision.record import Revision
from r1plus_operator.plan.revision.refresh import RefreshOutcome, read_refresh
from r1plus_operator.plan.revision.rollback_record import read_rollback_record

KEPT_VERDICTS = 5
SKEW_SECONDS, TICK_SECONDS = 1.0, 0.001
"""By how much leaders' clocks may differ; the least distance of two moments that are dated again."""
MAX_MESSAGE, MAX_LISTED, MAX_NAME, MAX_SUITE = 1000, 64, 128, 253
"""Characters and entries kept of a monitor's report; a suite's name is that of a ConfigMap."""


@dataclass(frozen=True, slots=True)
class GatedImages:
    """An annotation: container -> digests of the images that pods ran which passed the gate, the newest last."""

    digests: dict[str, tuple[str, ...]]


def read_revision(live: Json) -> Revision:
    """Return the Revision of a ControllerRevision; ContractError where the data is not ours."""
    meta, data = live["metadata"], live.get("data") or {}
    notes = meta.get("annotations") or {}
    where = f"ControllerRevision {meta['name']}: data.identity"
    identity = from_jsonable(ServingIdentity, data.get("identity"), where, tolerant=True)
    if not isinstance(data.get("template"), dict) or not isinstance(data.get("configPbtxt"), str):
        raise ContractError(f"ControllerRevision {meta['name']}: data.template or data.configPbtxt is missing")
    if data.get("volume"):
        from_jsonable(EngineVolume, data["volume"], f"ControllerRevision {meta['name']}: data.volume", tolerant=True)
    verdicts = _verdicts(notes.get(names.ANNOTATION_VERDICT))
    return Revision(
        name=meta["name"],
        number=int(data.get("number") or live.get("revision", 0)),  # `revision` can be edited, data cannot
        data=data,
        identity=identity,
        identity_digest=document_digest(data["identity"]),
        verdicts=verdicts,
        verdict_numbers=_number(verdicts, notes.get(names.ANNOTATION_VERDICT_NUMBERS, "")),
        promoted_at=_epoch(notes.get(names.ANNOTATION_PROMOTED_AT)),
        candidate_since=_epoch(notes.get(names.ANNOTATION_CANDIDATE_SINCE)),
        served_before=_epoch(notes.get(names.ANNOTATION_SERVED_BEFORE)) or 0.0,
        rollback=read_rollback_record(notes.get(names.ANNOTATION_ROLLBACK)),
        pool=notes.get(names.ANNOTATION_POOL, ""),
        refresh=read_refresh(notes.get(names.ANNOTATION_REFRESH)),
        images=_images(notes.get(names.ANNOTATION_IMAGES)),
        last_valid=read_last_valid(notes.get(names.ANNOTATION_LAST_VALID)),
        expiry=read_expiry(notes.get(names.ANNOTATION_EXPIRED)),
        is_restored=RESTORED in live,
    )


def read_volume(live: Json) -> EngineVolume | None:
    """Return the volume with a ControllerRevision's engine; None where it has none, or one that cannot be read."""
    with contextlib.suppress(ContractError):
        return read_revision(live).volume
    return None


def read_revisions(children: Mapping[tuple[str, str], Json]) -> dict[str, Revision]:
    """Return the revisions by name. One that was damaged by hand is skipped: rendered again if needed, else pruned."""
    revisions = {}
    for (kind, name), live in children.items():
        if kind == "ControllerRevision":
            with contextlib.suppress(ContractError):
                revisions[name] = read_revision(live)
    return revisions


def redate(revisions: Mapping[str, Revision], now: float) -> dict[str, Revision]:
    """Return the revisions with no moment in the future: a leader's clock was wrong, and what it dated counts as now.

    Promotions and rollbacks keep their order, since what was promoted last serves. They keep their distances where
    earlier moments leave room: the distances show how long each revision served. A deadline that a wrong clock ended
    begins again.
    """
    moments = sorted({at for r in revisions.values() for at in _moments(r)})
    future = [at for at in moments if at > now + SKEW_SECONDS]
    before = max((at for at in moments if at not in future), default=-math.inf)
    dates: dict[float, float] = {}
    for at in future:
        before = dates[at] = round(max(now - (future[-1] - at), before + TICK_SECONDS), 3)

    def date(revision: Revision) -> Revision:
        rollback, since, refresh = revision.rollback, revision.candidate_since, revision.refresh
        if rollback and rollback.switched_at in dates:
            rollback = replace(rollback, switched_at=dates[rollback.switched_at])
        if refresh and refresh.began_at > now + SKEW_SECONDS:
            refresh = replace(refresh, began_at=now)
        if since is not None and since > now + SKEW_SECONDS:
            since = now
        promoted_at = dates.get(revision.promoted_at or 0.0, revision.promoted_at)
        return replace(revision, promoted_at=promoted_at, rollback=rollback, candidate_since=since, refresh=refresh)

    return {name: _redate_expiry(date(revision), now) for name, revision in revisions.items()}


def _redate_expiry(revision: Revision, now: float) -> Revision:
    """Return the revision without a withdrawal from the future; one for lack of room counts as now."""
    expiry, refresh = revision.expiry, revision.refresh
    if expiry is None or expiry.at <= now + SKEW_SECONDS:
        return revision
    if expiry.no_room:  # The cluster showed that, whatever the clock said, and it is tried again by itself.
        retry_at = expiry.retry_at and now + expiry.retry_at - expiry.at
        return replace(revision, expiry=replace(expiry, at=now, retry_at=retry_at))
    if refresh and refresh.outcome is RefreshOutcome.FAILED:  # It failed by that deadline; a refusal is found again.
        refresh = replace(refresh, outcome=None)
    return replace(revision, candidate_since=now, expiry=None, refresh=refresh)


def _moments(revision: Revision) -> list[float]:
    switched_at = revision.rollback.switched_at if revision.rollback else None
    return [at for at in (revision.promoted_at, switched_at) if at is not None]


def clip_report(gate: GateReport) -> GateReport:
    """Return the report cut to what an annotation holds: a broken pod must not make every later write too large."""
    return replace(
        gate,
        reason=gate.reason[:MAX_NAME],
        message=gate.message[:MAX_MESSAGE],
        suite=gate.suite[:MAX_SUITE],
        scorer_version=gate.scorer_version[:MAX_NAME],
        decided_at=gate.decided_at[:MAX_NAME],
        control=gate.control[:MAX_NAME],
        acknowledged=gate.acknowledged[:MAX_NAME],
        lost_items=tuple(item[:MAX_NAME] for item in gate.lost_items[:MAX_LISTED]),
        strata=tuple(replace(s, name=s.name[:MAX_NAME]) for s in _select_strata(gate)),
    )


def _select_strata(gate: GateReport) -> tuple[StratumFigures, ...]:
    """Return the strata that are kept: those that lost most, since only they decide under another threshold."""
    if len(gate.strata) <= MAX_LISTED:
        return gate.strata
    return tuple(sorted(gate.strata, key=lambda s: -s.lost)[:MAX_LISTED])


def to_object(revision: Revision, metadata: Json) -> Json:
    """Return the ControllerRevision to apply; `metadata` has name, labels and owner."""
    annotations: dict[str, Any] = {}
    if revision.verdicts:
        verdicts = _select_verdicts(revision)
        annotations[names.ANNOTATION_VERDICT] = dumps(KnownVerdicts(verdicts))
        if revision.verdict_numbers:
            numbers = [str(revision.verdict_numbers.get(verdict, 0)) for verdict in verdicts]
            annotations[names.ANNOTATION_VERDICT_NUMBERS] = ",".join(numbers)
    for name, moment in (
        (names.ANNOTATION_PROMOTED_AT, revision.promoted_at),
        (names.ANNOTATION_CANDIDATE_SINCE, revision.candidate_since),
        (names.ANNOTATION_SERVED_BEFORE, revision.served_before or None),
    ):
        if moment is not None:
            annotations[name] = f"{moment:.3f}"
    for name, document in (
        (names.ANNOTATION_ROLLBACK, revision.rollback),
        (names.ANNOTATION_EXPIRED, revision.expiry),
        (names.ANNOTATION_REFRESH, revision.refresh),
        (names.ANNOTATION_LAST_VALID, revision.last_valid),
    ):
        if document is not None:
            annotations[name] = dumps(document)
    if revision.pool:
        annotations[names.ANNOTATION_POOL] = revision.pool
    if revision.images:
        annotations[names.ANNOTATION_IMAGES] = dumps(GatedImages(dict(revision.images)))
    if annotations:
        metadata = {**metadata, "annotations": annotations}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata,
        "data": revision.data,
        "revision": revision.number,
    }


def _select_verdicts(revision: Revision) -> tuple[GateReport, ...]:
    """Return the newest verdicts, and in any case the newest Pass at the serving batch.

    While the revision serves, all later gates run beside its traffic, so that none replaces that Pass.
    """
    newest = revision.verdicts[-KEPT_VERDICTS:]
    at_batch = [v for v in revision.valid_verdicts if v.admits_at(revision.batch)]
    return newest if not at_batch or at_batch[-1] in newest else (at_batch[-1], *newest[1:])


def _verdicts(text: str | None) -> tuple[GateReport, ...]:
    if not text:
        return ()
    try:
        return loads(KnownVerdicts, text, tolerant=True).reports
    except ContractError:
        # An unreadable verdict is no verdict: the gate runs again, it does not pass.
        return ()


def _number(verdicts: tuple[GateReport, ...], text: str) -> Mapping[GateReport, int]:
    """Return the verdicts' numbers; none where the list is another one's, as after an edit by hand."""
    numbers = [int(number) if number.isdecimal() else 0 for number in text.split(",")]
    return {v: n for v, n in zip(verdicts, numbers, strict=True) if n} if len(numbers) == len(verdicts) else {}


def _images(text: str | None) -> Mapping[str, tuple[str, ...]]:
    try:
        return loads(GatedImages, text, tolerant=True).digests if text else {}
    except ContractError:
        return {}  # Nothing is compared until the next gate.


def _epoch(text: str | None) -> float | None:
    try:
        seconds = float(text) if text else None
    except ValueError:
        return None
    return seconds if seconds is not None and math.isfinite(seconds) else None
