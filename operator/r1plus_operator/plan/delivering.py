"""By which way an engine gets to its pods: out of its image, or from a volume that a Job fills. Part of the plan."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from r1plus_contract import names
from r1plus_contract.filling import Archive, FillOrder
from r1plus_model_repo.catalog.quantity import bytes_of
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.api.conditions import ConditionType, Reason
from r1plus_operator.api.types import DeliveryMode, R1PlusDeploymentSpec
from r1plus_operator.plan.finding import Finding
from r1plus_operator.plan.inputs import (
    AccessMode,
    ContainerFacts,
    Json,
    NodeFacts,
    Observed,
    PodFacts,
    VolumeFacts,
    VolumeTerms,
)
from r1plus_operator.plan.obstacles import gpu_need, matching
from r1plus_operator.plan.pod import POD_OVERHEAD
from r1plus_policies.hardware import Gpus, place
from r1plus_policies.sizing import Fit

KEY_DIGITS = 16
MOST_NODES = 32
"""Names of nodes that a revision keeps: a Job prefers them, and is let run elsewhere."""
PROGRESS_STEP = 10
"""Percent: progress is told in steps of this size, so that the status changes when that says something."""


@dataclass(frozen=True, slots=True)
class EngineVolume:
    """A volume that holds one engine, as a revision keeps it: all that it takes to make it anew."""

    name: str
    """Of the claim and of what fills it. The same files have the same name in a namespace, so the work is done once."""
    order: FillOrder
    image: str = ""
    """The engine's image; empty where an archive is fetched."""
    access_mode: AccessMode = AccessMode.ONE_NODE
    node_selector: dict[str, str] | None = None
    tolerations: tuple[Json, ...] = ()
    nodes: tuple[str, ...] = ()
    """Where the Job runs, and where best: a volume of one node should come to be where the pods have room."""


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """Why an engine cannot get to its pods as the spec asks for it."""

    condition: ConditionType
    reason: Reason
    message: str


def delivery_of(
    spec: R1PlusDeploymentSpec,
    engine: Engine,
    fit: Fit,
    terms: VolumeTerms,
    nodes: tuple[NodeFacts, ...] | None,
    delivered: Collection[str] = (),
) -> EngineVolume | Undeliverable | None:
    """The volume that the engine is delivered by; None: by its image.

    What has been `delivered` (digests of engines) is asked for nothing any more: what serves must not be taken for
    unservable, unwatched then, because the chart or the nodes are no longer what they were.
    """
    files = engine.spec.files
    mode = spec.delivery.mode or (DeliveryMode.IMAGE if files.image else DeliveryMode.VOLUME)
    if mode is DeliveryMode.IMAGE:
        return None if files.image else _no_image(engine)
    able = _able(spec, engine, fit, nodes or ())
    if files.sha256 not in delivered and (refused := _refusal(spec, engine, terms, able)):
        return refused
    shared = terms.access_mode is AccessMode.MANY_NODES
    return EngineVolume(
        # Another mode is another volume: what a claim once asked for nobody can change.
        name=f"r1plus-engine-{files.sha256[:KEY_DIGITS]}{'-shared' if shared else ''}",
        order=_order(engine),
        image="" if files.archive else files.image or "",
        access_mode=terms.access_mode,
        nodes=able[:MOST_NODES],
        node_selector=dict(spec.placement.node_selector) or None,
        tolerations=tuple(
            t.model_dump(mode="json", by_alias=True, exclude_none=True) for t in spec.placement.tolerations
        ),
    )


def _order(engine: Engine) -> FillOrder:
    files = engine.spec.files
    archive = Archive(files.archive.url, files.archive.sha256) if files.archive else None
    size = bytes_of(files.archive.size if files.archive else engine.spec.requirements.weights_memory)
    return FillOrder(engine.name, files.sha256, size, archive)


def renewed(volume: EngineVolume, engine: Engine | None) -> EngineVolume:
    """The volume, filled from where the R1PlusEngine says now that these very files are.

    A revision is written before its engine is there: whoever corrects an address must not need another revision.
    """
    if engine is None or engine.spec.artifact is None or engine.spec.files.sha256 != volume.order.digest:
        return volume
    files = engine.spec.files
    return replace(volume, order=_order(engine), image="" if files.archive else files.image or "")


def _able(spec: R1PlusDeploymentSpec, engine: Engine, fit: Fit, nodes: tuple[NodeFacts, ...]) -> tuple[str, ...]:
    """Names of the nodes that a pod fits."""
    found = matching(spec, engine, nodes)
    if engine.spec.requirements.gpu is not None:
        need = gpu_need(engine)
        return tuple(sorted(node.name for node in found if isinstance(place(need, node.gpus), Gpus)))
    needed = fit.total_bytes + POD_OVERHEAD
    return tuple(sorted(node.name for node in found if node.memory_bytes >= needed))


def _refusal(
    spec: R1PlusDeploymentSpec, engine: Engine, terms: VolumeTerms, able: tuple[str, ...]
) -> Undeliverable | None:
    if terms.require_signature and not terms.trusted_keys:
        return _no_keys(engine)
    if engine.spec.files.archive and not terms.cidrs:
        return _no_network(engine)
    if terms.access_mode is AccessMode.ONE_NODE and spec.replicas > 1 and len(able) > 1:
        return Undeliverable(ConditionType.CAPACITY_FITS, Reason.STORAGE_NOT_SHARED, _spread(spec, able))
    return None


def _no_image(engine: Engine) -> Undeliverable:
    text = f"spec.delivery.mode: Image, and {engine.name} is an archive; leave the mode out or say Volume"
    return Undeliverable(ConditionType.ENGINE_READY, Reason.ENGINE_NOT_DELIVERED, text)


def _no_keys(engine: Engine) -> Undeliverable:
    text = (
        f"spec.engine: {engine.name} would come by a volume, and nobody is trusted to have signed it; list the signer's"
        " public key in the chart's delivery.trustedKeys, or set delivery.requireSignature to false"
    )
    return Undeliverable(ConditionType.ENGINE_READY, Reason.ENGINE_NOT_DELIVERED, text)


def _no_network(engine: Engine) -> Undeliverable:
    text = (
        f"spec.engine: {engine.name} is an archive, and the walls let a Job out nowhere; list its server's network in"
        " the chart's delivery.cidrs"
    )
    return Undeliverable(ConditionType.ENGINE_READY, Reason.ENGINE_NOT_DELIVERED, text)


def _spread(spec: R1PlusDeploymentSpec, able: tuple[str, ...]) -> str:
    """Why one node's volume will not do."""
    where = ", ".join(able[:5]) + (" and others" if len(able) > 5 else "")
    return (
        f"spec.replicas: {spec.replicas} could land on {len(able)} nodes ({where}), and a volume of mode ReadWriteOnce"
        " is on one; set the chart's delivery.volume.accessMode to ReadWriteMany with a class that offers it, let"
        " spec.placement.nodeSelector admit one node, or set spec.delivery.mode to Image"
    )


def started(volume: EngineVolume | None, revision: str, observed: Observed) -> bool:
    """Whether nothing is in the way of the revision's pods: the engine is on its volume, or they are there already."""
    if volume is None or ("Deployment", revision) in observed.children:
        return True
    facts = observed.volumes.get(volume.name)
    return facts is not None and facts.delivered == volume.order.digest


def ended(pod: PodFacts) -> bool:
    """Whether a Job's pod has done or failed."""
    return any(c.exit_code is not None and (c.name == names.CONTAINER_FILL or c.exit_code) for c in pod.containers)


def found(volume: EngineVolume, observed: Observed) -> Finding:
    """What EngineReady says while the engine is not on its volume: of the pod that works, else of those that failed."""
    what, facts = f"{volume.order.engine}: volume {volume.name}", observed.volumes.get(volume.name)
    if words := observed.volumes_refused.get(volume.name):
        remedy = "ask whoever keeps this namespace's quotas and admission policies"
        return Finding("False", Reason.DELIVERY_FAILED, f"{what}: {words}; {remedy}")
    if facts is None:
        return Finding("Unknown", Reason.DELIVERING, f"{what} is being made")
    working = [pod for pod in facts.pods if not ended(pod)]
    for pod in working or facts.pods:
        for container in pod.containers:
            if trouble := _trouble(what, container):
                return trouble
        if pod.unschedulable:
            return Finding("Unknown", Reason.DELIVERING, f"{what}: its Job waits for a node: {pod.unschedulable}")
    if facts.failed:
        text = f"{what}: its Job has failed; it is tried again; see `kubectl describe job {volume.name}`"
        return Finding("False", Reason.DELIVERY_FAILED, text)
    if not working:
        text = f"{what}: its Job has no pod yet; if that lasts, see `kubectl describe job {volume.name}`"
        return Finding("Unknown", Reason.DELIVERING, text)
    return Finding("Unknown", Reason.DELIVERING, f"{what}: {_told(facts)}")


_OWN: Mapping[str, Reason] = {
    reason.value: reason for reason in (Reason.STORAGE_FULL, Reason.ENGINE_DIGEST_MISMATCH, Reason.IMAGE_PULL_FAILED)
}
"""Reasons of the Job that the condition has, too; all others are DeliveryFailed, with the Job's word in the message."""


def _trouble(what: str, container: ContainerFacts) -> Finding | None:
    if container.unpullable:
        text = f"{what}: container {container.name}: {container.message}; check the image's name and the pull secrets"
        return Finding("False", Reason.IMAGE_PULL_FAILED, text)
    said = container.message.strip()
    if not container.exit_code or not said:
        return None  # A pod that was deleted says nothing, and the Job makes another.
    if "No space left on device" in said or "Disk quota exceeded" in said:
        return Finding("False", Reason.STORAGE_FULL, f"{what}: {said[-600:]}; give it more storage")
    word = said.partition(":")[0]
    return Finding("False", _OWN.get(word, Reason.DELIVERY_FAILED), f"{what}: {said[:900]}")


def _told(facts: VolumeFacts) -> str:
    progress = facts.progress
    if progress is None:
        return "its Job starts"
    share = progress.percent
    shown = f" {share - share % PROGRESS_STEP} %" if share is not None and progress.phase == "Fetching" else ""
    return f"{progress.phase.lower()}{shown}"
