"""Revisions: an immutable build of the desired state, kept as a ControllerRevision and named by its hash.

The hash covers what the *spec and the engine* say of the pod and its answers. It does not cover what an operator
upgrade may render differently: an existing revision keeps its own template, so that an upgrade restarts no serving pod.
Only the hash of a revision that a refresh begins covers the images as well (`plan.revision.refresh`).
"""

import contextlib
import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from r1plus_contract import names
from r1plus_contract.identity import ServingIdentity, document_digest
from r1plus_contract.jsonable import ContractError, dumps, from_jsonable, loads, to_jsonable
from r1plus_contract.settings import (
    MONITOR_PROTOCOL,
    SUPPORTS_CONTROL,
    SUPPORTS_GATE_PROOF,
    SUPPORTS_SHADOW,
    KnownVerdicts,
)
from r1plus_contract.verdict import GateReport, Verdict
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.engine.delivery import EngineVolume
from r1plus_operator.plan.engine.selection import Target
from r1plus_operator.plan.observation import Json, PodFacts
from r1plus_operator.plan.podspec.pod import build_pod_template, has_user, hash_pod_spec, is_same_image, list_images
from r1plus_operator.plan.podspec.triton_config import render_triton_config
from r1plus_operator.plan.revision.expiry import Expiry, read_expiry
from r1plus_operator.plan.revision.last_valid import LastValid, read_last_valid
from r1plus_operator.plan.revision.refresh import Refresh, read_refresh
from r1plus_operator.plan.revision.rollback_record import RollbackRecord, read_rollback_record
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_policies.engine.hardware import WHOLE_GPU
from r1plus_policies.gate.verdict import rejudge

KEPT_REVISIONS = 10
KEPT_VERDICTS = 5
KEPT_IMAGES = 4
SKEW_SECONDS, TICK_SECONDS = 1.0, 0.001
"""By how much leaders' clocks may differ; the least distance of two moments that are dated again."""
MAX_MESSAGE, MAX_LISTED, MAX_NAME, MAX_SUITE = 1000, 64, 128, 253
"""Characters and entries kept of a monitor's report; a suite's name is that of a ConfigMap."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What an upgrade or the cluster decides: the images other than the engine's, and whether pods name a user."""

    triton: str
    monitor: str
    names_user: bool = True
    """False: the cluster assigns one."""

    @property
    def images(self) -> dict[str, str]:
        """What a wave rolls out."""
        return {"triton": self.triton, "monitor": self.monitor}

    @property
    def digest(self) -> str:
        """Of the images, 12 hex digits."""
        return hashlib.sha256(dumps(self.images).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class GatedImages:
    """An annotation: container -> digests of the images that pods ran which passed the gate, the newest last."""

    digests: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision, rendered or read back."""

    name: str
    number: int
    data: Json
    """What the ControllerRevision stores, unchanged for ever: also what another version of the operator put there."""
    identity: ServingIdentity
    verdicts: tuple[GateReport, ...] = ()
    promoted_at: float | None = None
    candidate_since: float | None = None
    served_before: float = 0.0
    """Seconds that it carried traffic before it was promoted last."""
    rollback: RollbackRecord | None = None
    """The rollback from it, where its accuracy dropped or a user asked for it."""
    pool: str = ""
    """Checkpoint of its pooled detector."""
    refresh: Refresh | None = None
    """The refresh or the wave that began it, if one did."""
    images: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Container -> digests of the images that pods ran which passed its gate; empty where none was seen."""
    last_valid: LastValid | None = None
    """What the spec asked for last; of the revision that serves."""
    expiry: Expiry | None = None
    """That it was withdrawn, since it has been the candidate."""

    @property
    def engine(self) -> str:
        """Name of the R1PlusEngine."""
        return self.identity.engine

    @property
    def batch(self) -> int:
        """Most requests that run at once."""
        return self.identity.batch

    @property
    def context(self) -> int:
        """Most tokens of prompt and answer together."""
        return self.identity.context

    @property
    def config_pbtxt(self) -> str:
        """Triton's model configuration."""
        return str(self.data["configPbtxt"])

    @property
    def volume(self) -> EngineVolume | None:
        """Where its engine's files lie; None: in its image."""
        document = self.data.get("volume")
        return from_jsonable(EngineVolume, document, "data.volume", tolerant=True) if document else None

    @property
    def request_hash(self) -> str:
        """`hash_request` of what it was made for, where its engine was built or a refresh made it; else empty."""
        return str(self.data.get("asked", ""))

    @property
    def template(self) -> Json:
        """The pod template, as every Deployment of this revision has it."""
        return dict(self.data["template"])

    @property
    def runtime(self) -> Runtime:
        """The images that its pods run, and whether they name a user."""
        pod = self.template.get("spec") or {}
        images = {one.get("name"): str(one.get("image", "")) for one in pod.get("containers") or ()}
        return Runtime(images.get(names.CONTAINER_TRITON, ""), images.get(names.CONTAINER_MONITOR, ""), has_user(pod))

    def own_pods(self, pods: Iterable[PodFacts]) -> frozenset[PodFacts]:
        """Return the revision's own pods: of its Deployment, for its CR, running exactly its template."""
        candidates = [p for p in pods if p.is_made_by(self.name)]
        if not candidates:
            return frozenset()
        template = self.template
        uid = (template["metadata"].get("annotations") or {}).get(names.ANNOTATION_OWNER_UID, "")
        runs, images = (uid, hash_pod_spec(template["spec"])), list_images(template["spec"])
        return frozenset(
            pod
            for pod in candidates
            if (pod.owner_uid, pod.fingerprint) == runs and _are_same_images(images, pod.images)
        )

    def add_images(self, pod: PodFacts) -> "Revision":
        """Return the revision with the images on which this pod has passed its gate."""
        images = dict(self.images)
        for container in pod.containers:
            digests = images.get(container.name, ())
            if container.image_digest and container.image_digest not in digests:
                images[container.name] = (*digests, container.image_digest)[-KEPT_IMAGES:]
        return replace(self, images=images)

    def find_changed_image(self, pod: PodFacts) -> str:
        """Return the container of a pod that runs another image than any that was gated; empty: none does."""
        for container in pod.containers:
            digests = self.images.get(container.name)
            if digests and container.image_digest and container.image_digest not in digests:
                return f"{container.name} runs {container.image_digest}, and the gate was passed on {digests[-1]}"
        return ""

    @property
    def can_regate(self) -> bool:
        """Whether its monitor, which was rendered with it, runs its gate again when ordered."""
        return self._protocol_version >= SUPPORTS_CONTROL

    @property
    def can_shadow(self) -> bool:
        """Whether its monitor runs a new suite as a shadow first; an older one goes by the new suite at once."""
        return self._protocol_version >= SUPPORTS_SHADOW

    @property
    def can_prove_gates(self) -> bool:
        """Whether its monitor reports where and under which files it ran a gate. Else no new Pass of it counts."""
        return self._protocol_version >= SUPPORTS_GATE_PROOF

    @property
    def _protocol_version(self) -> int:
        speaks = self.data.get("monitorSpeaks")
        return speaks if isinstance(speaks, int) else 0

    @property
    def regate_token(self) -> str:
        """Token of the gate by which alone it comes back; empty unless it was rolled back since its last promotion."""
        record = self.rollback
        if record is None or not record.has_voided_gates or (self.promoted_at or 0.0) >= (record.switched_at or 0.0):
            return ""
        return record.regate_token

    @property
    def active_rollback(self) -> RollbackRecord | None:
        """The rollback from it that has begun and not ended."""
        record = self.rollback
        return record if record and record.switched_at is None and not record.lifted else None

    @property
    def valid_verdicts(self) -> tuple[GateReport, ...]:
        """The verdicts that count: an accuracy drop voids those from before it."""
        return tuple(v for v in self.verdicts if not self.regate_token or v.control == self.regate_token)

    @property
    def is_expired(self) -> bool:
        """Whether it is withdrawn, and not tried again yet."""
        return self.expiry is not None and self.expiry.at >= (self.candidate_since or math.inf)

    @property
    def identity_digest(self) -> str:
        """Of the identity as it is stored."""
        return document_digest(self.data["identity"])

    def verdict_for(self, suite_hash: str, threshold: float) -> GateReport | None:
        """Return the gate's verdict on this suite: under this threshold, or a Pass whose own figures meet it, too.

        A Pass at the serving batch comes before one that was won beside traffic, at batch 1. None where only another
        gate can decide, as after a Fail under a stricter threshold.
        """
        on_suite = [report for report in reversed(self.valid_verdicts) if report.suite_hash == suite_hash]
        exact = next((report for report in on_suite if report.threshold == threshold), None)
        if exact and exact.verdict is Verdict.FAIL:
            return exact
        passes = [report for report in on_suite if rejudge(report, threshold) is Verdict.PASS]
        return next((report for report in passes if report.admits_at(self.batch)), exact or next(iter(passes), None))

    def has_passed(self, suite_hash: str, threshold: float) -> bool:
        """Whether it passes this suite, and any suite at its serving batch.

        A suite that took effect beside traffic was passed at batch 1, and the serving batch under the one before it.
        """
        gate = self.verdict_for(suite_hash, threshold)
        at_batch = (v for v in self.valid_verdicts if v.admits_at(self.batch))
        is_pass = gate is not None and gate.verdict is Verdict.PASS
        return is_pass and any(rejudge(v, threshold) is Verdict.PASS for v in at_batch)


def _are_same_images(template: tuple[str, ...], pod: tuple[str, ...]) -> bool:
    return len(template) == len(pod) and all(map(is_same_image, template, pod))


def find_current_revision(revisions: Iterable[Revision]) -> Revision | None:
    """Return the revision that was promoted last; None where none was."""
    candidates = [r for r in revisions if r.promoted_at is not None]
    return max(candidates, key=lambda r: (r.promoted_at or 0.0, r.name), default=None)


def seconds_in_traffic(revision: Revision, revisions: Mapping[str, Revision], now: float) -> float:
    """Return the seconds from its last promotion to the next promotion of any revision, or to now; 0 without one."""
    began_at = revision.promoted_at
    if began_at is None:
        return 0.0
    later = (r.promoted_at for r in revisions.values() if r.promoted_at and r.promoted_at > began_at)
    return min(later, default=now) - began_at


def hash_revision(
    spec: R1PlusDeploymentSpec, target: Target, runtime: Runtime | None = None, number: int | None = None
) -> str:
    """Return 10 hex digits over what changes the pod or its answers; never accuracy, access, replicas.

    `runtime`: set where a stored revision differs in its runtime alone; `number`: set where two do.
    """
    return _hash(spec, target, target.volume.name if target.volume else "", runtime, number)


def hash_request(spec: R1PlusDeploymentSpec, target: Target) -> str:
    """Return 10 hex digits over what the spec asks for, whatever image builds it."""
    return _hash(spec, target, target.volume.revision_key if target.volume else "")


def is_made_for(revision: Revision, deployment: str, spec: R1PlusDeploymentSpec, target: Target) -> bool:
    """Whether the spec asks for this revision, whatever images the operator has now."""
    if revision.name == f"{deployment}-{hash_revision(spec, target)}":
        return True
    return revision.request_hash == hash_request(spec, target)


def select_runtime(target: Target, config: OperatorConfig) -> Runtime:
    """Return the operator's images for the target, and whether pods name a user."""
    return Runtime(
        config.select_image(target.engine.spec.backend.value),
        config.monitor_image,
        bool(config.pod_user.security_fields),
    )


def _hash(
    spec: R1PlusDeploymentSpec, target: Target, volume: str, runtime: Runtime | None = None, number: int | None = None
) -> str:
    document = {
        "engine": target.engine.name,
        "digest": target.engine.spec.files.sha256,
        "backend": target.engine.spec.backend.value,
        "batch": target.fit.batch,
        "context": target.fit.context,
        "placement": spec.placement.model_dump(mode="json", by_alias=True),
    }
    if volume:
        document["volume"] = volume
    if runtime:
        document["runtime"] = {**runtime.images, "speaks": MONITOR_PROTOCOL}
        if not runtime.names_user:
            document["user"] = "assigned"
    if number is not None:
        document["number"] = number
    if target.gpus:
        slices = "" if target.gpus.resource == WHOLE_GPU else f"{target.gpus.resource}/"
        document["gpu"] = f"{slices}{target.gpus.product}"
    return hashlib.sha256(dumps(document).encode()).hexdigest()[:10]


def build_revision(
    cr: Json, spec: R1PlusDeploymentSpec, target: Target, config: OperatorConfig, number: int, name: str
) -> Revision:
    """Render a new revision of the R1PlusDeployment `cr` for `target`."""
    engine, fit = target.engine, target.fit
    is_refreshed = name != f"{cr['metadata']['name']}-{hash_revision(spec, target)}"
    volume = target.volume
    recipe = volume.order.build if volume else None
    config_pbtxt = render_triton_config(
        engine.spec, fit.batch, fit.context, fit.kv_cache_bytes, recipe.key if recipe else ""
    )
    identity = ServingIdentity(
        engine=engine.name,
        engine_digest=engine.spec.files.sha256,
        config_digest=hashlib.sha256(config_pbtxt.encode()).hexdigest(),
        triton_image=config.select_image(engine.spec.backend.value),
        batch=fit.batch,
        context=fit.context,
        gpu_product=target.gpus.product if target.gpus else "",
        monitor_image=config.monitor_image if is_refreshed else "",
    )
    claim = volume.name if volume else ""
    template = build_pod_template(
        cr,
        name,
        spec,
        engine,
        fit,
        identity.digest(),
        config,
        claim,
        target.gpus,
        counts_storage=target.counts_storage,
    )
    data = {
        "configPbtxt": config_pbtxt,
        "identity": identity.document(),
        "monitorSpeaks": MONITOR_PROTOCOL,
        "number": number,
        "template": template,
    }
    if volume:
        data["volume"] = to_jsonable(volume)
    if recipe or is_refreshed:
        data["asked"] = hash_request(spec, target)
    return Revision(name, number, data, identity)


def read(live: Json) -> Revision:
    """Return the Revision of a ControllerRevision; ContractError where the data is not ours."""
    meta, data = live["metadata"], live.get("data") or {}
    notes = meta.get("annotations") or {}
    where = f"ControllerRevision {meta['name']}: data.identity"
    identity = from_jsonable(ServingIdentity, data.get("identity"), where, tolerant=True)
    if not isinstance(data.get("template"), dict) or not isinstance(data.get("configPbtxt"), str):
        raise ContractError(f"ControllerRevision {meta['name']}: data.template or data.configPbtxt is missing")
    if data.get("volume"):
        from_jsonable(EngineVolume, data["volume"], f"ControllerRevision {meta['name']}: data.volume", tolerant=True)
    return Revision(
        name=meta["name"],
        number=int(data.get("number") or live.get("revision", 0)),  # `revision` can be edited, data cannot
        data=data,
        identity=identity,
        verdicts=_verdicts(notes.get(names.ANNOTATION_VERDICT)),
        promoted_at=_epoch(notes.get(names.ANNOTATION_PROMOTED_AT)),
        candidate_since=_epoch(notes.get(names.ANNOTATION_CANDIDATE_SINCE)),
        served_before=_epoch(notes.get(names.ANNOTATION_SERVED_BEFORE)) or 0.0,
        rollback=read_rollback_record(notes.get(names.ANNOTATION_ROLLBACK)),
        pool=notes.get(names.ANNOTATION_POOL, ""),
        refresh=read_refresh(notes.get(names.ANNOTATION_REFRESH)),
        images=_images(notes.get(names.ANNOTATION_IMAGES)),
        last_valid=read_last_valid(notes.get(names.ANNOTATION_LAST_VALID)),
        expiry=read_expiry(notes.get(names.ANNOTATION_EXPIRED)),
    )


def read_volume(live: Json) -> EngineVolume | None:
    """Return the volume with a ControllerRevision's engine; None where it has none, or one that cannot be read."""
    with contextlib.suppress(ContractError):
        return read(live).volume
    return None


def read_revisions(children: Mapping[tuple[str, str], Json]) -> dict[str, Revision]:
    """Return the revisions by name. One that was damaged by hand is skipped: rendered again if needed, else pruned."""
    revisions = {}
    for (kind, name), live in children.items():
        if kind == "ControllerRevision":
            with contextlib.suppress(ContractError):
                revisions[name] = read(live)
    return revisions


def redate(revisions: Mapping[str, Revision], now: float) -> dict[str, Revision]:
    """Return the revisions with no moment in the future: a leader's clock was wrong, and what it dated counts as now.

    Promotions and rollbacks keep their order, since what was promoted last serves. They keep their distances where
    earlier moments leave room: the distances show how long each revision served.
    """
    moments = sorted({at for r in revisions.values() for at in _moments(r)})
    future = [at for at in moments if at > now + SKEW_SECONDS]
    before = max((at for at in moments if at not in future), default=-math.inf)
    dates: dict[float, float] = {}
    for at in future:
        before = dates[at] = round(max(now - (future[-1] - at), before + TICK_SECONDS), 3)

    def date(revision: Revision) -> Revision:
        rollback, since, expiry = revision.rollback, revision.candidate_since, revision.expiry
        refresh = revision.refresh
        if rollback and rollback.switched_at in dates:
            rollback = replace(rollback, switched_at=dates[rollback.switched_at])
        if refresh and refresh.began_at > now + SKEW_SECONDS:
            refresh = replace(refresh, began_at=now)
        if since is not None and since > now + SKEW_SECONDS:
            since = now
        if expiry and expiry.at > now + SKEW_SECONDS:
            expiry = replace(expiry, at=now, retry_at=expiry.retry_at and now + expiry.retry_at - expiry.at)
        promoted_at = dates.get(revision.promoted_at or 0.0, revision.promoted_at)
        return replace(
            revision, promoted_at=promoted_at, rollback=rollback, candidate_since=since, expiry=expiry, refresh=refresh
        )

    return {name: date(revision) for name, revision in revisions.items()}


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
        strata=tuple(replace(s, name=s.name[:MAX_NAME]) for s in gate.strata[:MAX_LISTED]),
    )


def to_object(revision: Revision, metadata: Json) -> Json:
    """Return the ControllerRevision to apply; `metadata` has name, labels and owner."""
    annotations: dict[str, Any] = {}
    if revision.verdicts:
        annotations[names.ANNOTATION_VERDICT] = dumps(KnownVerdicts(_select_verdicts(revision)))
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
