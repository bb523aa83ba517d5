"""Revisions: an immutable build of the desired state, kept as a ControllerRevision and named by its hash."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from r1plus_contract import names
from r1plus_contract.jsonable import dumps, from_jsonable
from r1plus_contract.monitor.identity import ServingIdentity
from r1plus_contract.monitor.settings import SUPPORTS_CONTROL, SUPPORTS_GATE_PROOF, SUPPORTS_SHADOW
from r1plus_contract.verdict import GateReport, Verdict
from r1plus_operator.plan.engine.delivery import EngineVolume
from r1plus_operator.plan.observation import Json, PodFacts
from r1plus_operator.plan.podspec.pod import has_user, hash_pod_spec, is_same_image, list_images
from r1plus_operator.plan.revision.expiry import RevisionExpiry
from r1plus_operator.plan.revision.last_valid import LastValid
from r1plus_operator.plan.revision.refresh import Refresh
from r1plus_operator.plan.revision.rollback_record import RollbackRecord
from r1plus_policies.gate.verdict import allows_same, rejudge

KEPT_REVISIONS = 10
KEPT_IMAGES = 4
_PROMOTION_STEP = 0.001
"""Seconds between two promotions, at least: the newest is what serves, also after the clock has been set back."""
NOTHING_PROMOTED = "nothing-promoted"
"""Selector value of Service and disruption budget before a promotion. A revision's name ends in ten hex digits."""
CONFIG_FILE, IDENTITY_FILE = "config.pbtxt", "identity.json"
"""Files of a revision's ConfigMap."""
REVISION_PARTS = frozenset({"configPbtxt", "identity", "template"})
"""Data of a revision that these files and its Deployment have."""


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
class Revision:
    """A revision, rendered or read back."""

    name: str
    number: int
    data: Json
    """What the ControllerRevision stores, unchanged for ever: also what another version of the operator put there."""
    identity: ServingIdentity
    identity_digest: str
    """Of the identity as it is stored."""
    verdicts: tuple[GateReport, ...] = ()
    verdict_numbers: Mapping[GateReport, int] = field(default_factory=dict)
    """Verdict -> its number among all that the deployment's revisions have recorded, from 1; absent: an older operator
    recorded it."""
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
    expiry: RevisionExpiry | None = None
    """That it was withdrawn, since it has been the candidate."""
    is_restored: bool = False
    """Whether its ControllerRevision is made again in this pass (`plan.revision.restored`)."""
    is_set_aside: bool = False
    """Whether its promotion no longer shows what serves: a later one is lost, and its revision is gone."""

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
        images = _name_images(pod)
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

    def share_images(self, source: "Revision", pod: PodFacts) -> "Revision":
        """Return the revision with the images on which another one passed the gate that this pod reports.

        A container whose image has another name was in no gate: what this pod runs counts for it.
        """
        own, others = _name_images(self.template["spec"]), _name_images(source.template["spec"])
        shared = {name: seen for name, seen in source.images.items() if name in own and own[name] == others.get(name)}
        return replace(self, images={**self.add_images(pod).images, **shared})

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

    def verdict_for(self, suite_hash: str, threshold: float) -> GateReport | None:
        """Return the gate's verdict on this suite: under this threshold, or a Pass whose own figures meet it, too.

        A threshold that allows the same losses, or fewer, gives a refused revision no other try. A Pass at the serving
        batch comes before one that was won beside traffic, at batch 1. None where only another gate can decide, as
        after a Fail under a stricter threshold.
        """
        on_suite = [report for report in reversed(self.valid_verdicts) if report.suite_hash == suite_hash]
        judged = ((report, rejudge(report, threshold)) for report in on_suite)
        exact = next((r for r, verdict in judged if verdict is Verdict.FAIL or allows_same(r, threshold)), None)
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


def _name_images(pod_spec: Json) -> dict[str, str]:
    """Return the images that a pod spec names, by container."""
    return {str(one.get("name", "")): str(one.get("image", "")) for one in pod_spec.get("containers") or ()}


def _are_same_images(template: tuple[str, ...], pod: tuple[str, ...]) -> bool:
    return len(template) == len(pod) and all(map(is_same_image, template, pod))


def date_promotion(revisions: Iterable[Revision], now: float) -> float:
    """Return when a promotion takes place, seconds since the epoch: now, but after all others."""
    latest = max((r.promoted_at for r in revisions if r.promoted_at), default=-math.inf)
    return max(now, latest + _PROMOTION_STEP, 0.0)


def find_current_revision(revisions: Iterable[Revision]) -> Revision | None:
    """Return the revision that was promoted last; None where none was, or the last one is gone."""
    candidates = [r for r in revisions if r.promoted_at is not None and not r.is_set_aside]
    return max(candidates, key=lambda r: (r.promoted_at or 0.0, r.name), default=None)


def seconds_in_traffic(revision: Revision, revisions: Mapping[str, Revision], now: float) -> float:
    """Return the seconds from its last promotion to the next promotion of any revision, or to now; 0 without one."""
    began_at = revision.promoted_at
    if began_at is None:
        return 0.0
    later = (r.promoted_at for r in revisions.values() if r.promoted_at and r.promoted_at > began_at)
    return min(later, default=now) - began_at
