"""By which way an engine gets to its pods: out of its image, or from a volume that a Job fills. Part of the plan."""

import contextlib
import ipaddress
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from r1plus_contract import names
from r1plus_contract.engine_fetch import Archive, Build, FillOrder
from r1plus_model_repo.catalog.quantity import bytes_of
from r1plus_model_repo.catalog.types import Engine, KvPrecision
from r1plus_model_repo.gpu_build import Recipe, render_script
from r1plus_operator.api.conditions import ConditionType, Finding, Reason
from r1plus_operator.api.types import DeliveryMode, R1PlusDeploymentSpec
from r1plus_operator.plan.engine.feasibility import Seat, delivery_mode, gpu_need, is_without_image
from r1plus_operator.plan.engine.nodes import matching
from r1plus_operator.plan.observation import ContainerFacts, Json, NodeFacts, Observed, PodFacts, VolumeFacts
from r1plus_operator.plan.podspec.pod import HOST_MEMORY, POD_OVERHEAD, gpu_resource, placement
from r1plus_operator.plan.settings import AccessMode, OperatorConfig, VolumeTerms
from r1plus_policies.engine.hardware import Gpus, place_engine

KEY_DIGITS = 16
MOST_NODES = 32
"""Names of nodes that a revision keeps: a Job prefers them, and is let run elsewhere."""
_SUFFIX = {AccessMode.ONE_NODE: "", AccessMode.MANY_NODES: "-shared", AccessMode.MANY_READERS: "-read"}
PROGRESS_STEP = 10
"""Percent: progress is told in steps of this size, so that the status changes when that says something."""


@dataclass(frozen=True, slots=True)
class Builder:
    """The container that builds an engine, on the GPU that will serve it."""

    image: str
    script: str
    resource: str
    """The GPU, as the device plugin offers it."""
    memory: int
    """Of the node, bytes."""


@dataclass(frozen=True, slots=True)
class EngineVolume:
    """A volume that holds one engine, as a revision keeps it: all that it takes to make it anew."""

    name: str
    """Of the claim and of what fills it. The same files have the same name in a namespace, so the work is done once."""
    order: FillOrder
    image: str = ""
    """The engine's image; empty where an archive is fetched."""
    builder: Builder | None = None
    """What makes the engine of a checkpoint; None: the files are served as they are."""
    asked: str = ""
    """Where it is built: what was asked for, without what only the builder's image decides."""
    access_mode: AccessMode = AccessMode.ONE_NODE
    node_selector: dict[str, str] | None = None
    tolerations: tuple[Json, ...] = ()
    nodes: tuple[str, ...] = ()
    """Where the Job runs, and where best: a volume of one node should come to be where the pods have room."""

    @property
    def wish(self) -> str:
        """By which a revision is another one. What was built stays when the chart names another image to build with."""
        return self.asked or self.name


@dataclass(frozen=True, slots=True)
class Route:
    """Where a Job connects to for an archive: its server, or the proxy that stands before it."""

    cidrs: tuple[str, ...]
    """Empty: there is no way to it."""
    port: int
    proxy: str = ""
    """Its address, http://HOST:PORT; empty: the server itself."""


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """Why an engine cannot get to its pods as the spec asks for it."""

    condition: ConditionType
    reason: Reason
    message: str


def delivery_of(
    spec: R1PlusDeploymentSpec,
    engine: Engine,
    seat: Seat,
    config: OperatorConfig,
    nodes: tuple[NodeFacts, ...] | None,
    delivered: Collection[str] = (),
) -> EngineVolume | Undeliverable | None:
    """The volume that the engine is delivered by; None: by its image.

    What has been `delivered` (names of volumes, and wishes) is asked for nothing any more: what serves must not be
    taken for unservable, unwatched then, because the chart or the nodes are no longer what they were.
    """
    files, terms = engine.spec.files, config.volumes
    if delivery_mode(spec, engine) is DeliveryMode.IMAGE:
        return _no_image(engine) if is_without_image(engine) else None
    able = _able(spec, engine, seat, nodes or ())
    recipe = _recipe(engine, seat, config) if engine.spec.build else None
    key, suffix = recipe.key if recipe else files.sha256, _SUFFIX[terms.access_mode]
    where = placement(spec, seat.gpus)
    volume = EngineVolume(
        # Another mode is another volume: what a claim once asked for nobody can change.
        name=f"r1plus-engine-{key[:KEY_DIGITS]}{suffix}",
        order=_order(engine, Build(recipe.key, recipe.gpu_product) if recipe else None),
        image="" if files.archive else files.image or "",
        builder=_builder(engine, recipe, seat) if recipe else None,
        asked=f"{recipe.request_key[:KEY_DIGITS]}{suffix}" if recipe else "",
        access_mode=terms.access_mode,
        nodes=able[:MOST_NODES],
        node_selector=where.get("nodeSelector"),
        tolerations=tuple(where.get("tolerations", ())),
    )
    there = volume.name in delivered or volume.wish in delivered
    return (None if there else _refusal(spec, engine, terms, able)) or volume


def _order(engine: Engine, build: Build | None) -> FillOrder:
    files = engine.spec.files
    archive = Archive(files.archive.url, files.archive.sha256) if files.archive else None
    size = bytes_of(files.archive.size if files.archive else engine.spec.requirements.weights_memory)
    return FillOrder(engine.name, files.sha256, size, archive, build=build)


def _recipe(engine: Engine, seat: Seat, config: OperatorConfig) -> Recipe:
    """All that the outcome of the build depends on; what serves in the end is what builds."""
    backend, terms = engine.spec.backend, engine.spec.build
    assert terms is not None
    capability = seat.gpus.compute_capability if seat.gpus else None
    return Recipe(
        checkpoint=engine.spec.files.sha256,
        backend=backend.value,
        precision=engine.spec.precision,
        kv_precision=(engine.spec.kv_precision or KvPrecision.FP16).value,
        max_batch=seat.fit.batch,
        max_seq_len=seat.fit.context,
        max_num_tokens=terms.max_num_tokens,
        gpu_product=seat.gpus.product if seat.gpus else "",
        compute_capability=".".join(map(str, capability)) if capability else "",
        runtime=config.runtimes.get(backend.value) or "",
        image=config.image_for(backend.value),
    )


def _builder(engine: Engine, recipe: Recipe, seat: Seat) -> Builder:
    memory = HOST_MEMORY + 2 * bytes_of(engine.spec.requirements.weights_memory)
    return Builder(recipe.image, render_script(recipe, names.DIR_VOLUME), gpu_resource(seat.gpus), memory)


def renewed(volume: EngineVolume, engine: Engine | None) -> EngineVolume:
    """The volume, filled from where the R1PlusEngine says now that these very files are.

    A revision is written before its engine is there: whoever corrects an address must not need another revision.
    """
    if engine is None or engine.spec.artifact is None or engine.spec.files.sha256 != volume.order.digest:
        return volume
    files = engine.spec.files
    order = _order(engine, volume.order.build)
    return replace(volume, order=order, image="" if files.archive else files.image or "")


def route_to(archive: Archive, terms: VolumeTerms) -> Route:
    """The route to an archive, by its address, which the catalog's pattern has admitted. Redirects take it as well."""
    host, port = _host_and_port(archive.url.removeprefix("https://"), 443)
    proxy = terms.proxy
    if proxy is None or any(_covers(entry.lower(), host) for entry in proxy.no_proxy):
        return Route(terms.cidrs, port)
    return Route(proxy.cidrs, _host_and_port(proxy.url.removeprefix("http://"), 80)[1], proxy.url)


def _host_and_port(url: str, default: int) -> tuple[str, int]:
    """Of an address without its scheme."""
    host, _, port = url.partition("/")[0].partition(":")
    return host.lower(), int(port or default)


def _covers(entry: str, host: str) -> bool:
    """Whether an entry of noProxy means a host: by its name, as one of a domain, or as an address of a network."""
    if "/" in entry:
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
        return False
    return f".{host}".endswith(f".{entry.removeprefix('.')}")


def _able(spec: R1PlusDeploymentSpec, engine: Engine, seat: Seat, nodes: tuple[NodeFacts, ...]) -> tuple[str, ...]:
    """Names of the nodes that a pod fits."""
    found = matching(spec, engine, nodes, lasting=True)
    if seat.gpus is not None:
        need, product = gpu_need(engine), seat.gpus.product
        own = ((node, [gpus for gpus in node.gpus if gpus.product == product]) for node in found)
        return tuple(sorted(node.name for node, gpus in own if isinstance(place_engine(need, gpus), Gpus)))
    needed = seat.fit.total_bytes + POD_OVERHEAD
    return tuple(sorted(node.name for node in found if node.memory_bytes >= needed))


def _refusal(
    spec: R1PlusDeploymentSpec, engine: Engine, terms: VolumeTerms, able: tuple[str, ...]
) -> Undeliverable | None:
    if terms.require_signature and not terms.trusted_keys:
        return _no_keys(engine)
    archive = _order(engine, None).archive
    if archive and not route_to(archive, terms).cidrs:
        return _no_network(engine)
    if terms.access_mode is AccessMode.ONE_NODE and spec.replicas > 1 and len(able) > 1:
        return Undeliverable(ConditionType.CAPACITY_FITS, Reason.STORAGE_NOT_SHARED, _spread(spec, engine, able))
    return None


def _no_image(engine: Engine) -> Undeliverable:
    why = "has to be built" if engine.spec.build else "is an archive"
    text = f"spec.delivery.mode: Image, and {engine.name} {why}; leave the mode out or say Volume"
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
        " the chart's delivery.cidrs, or name a proxy that reaches it in delivery.proxy"
    )
    return Undeliverable(ConditionType.ENGINE_READY, Reason.ENGINE_NOT_DELIVERED, text)


def _spread(spec: R1PlusDeploymentSpec, engine: Engine, able: tuple[str, ...]) -> str:
    """Why one node's volume will not do."""
    by_image = "" if is_without_image(engine) else ", or set spec.delivery.mode to Image"
    where = ", ".join(able[:5]) + (" and others" if len(able) > 5 else "")
    return (
        f"spec.replicas: {spec.replicas} could land on {len(able)} nodes ({where}), and a volume of mode ReadWriteOnce"
        " is on one; set the chart's delivery.volume.accessMode to ReadWriteMany or ReadOnlyMany with a class that"
        f" offers it, or let spec.placement.nodeSelector admit one node{by_image}"
    )


def started(volume: EngineVolume | None, revision: str, observed: Observed) -> bool:
    """Whether nothing is in the way of the revision's pods: the engine is on its volume, or they are there already."""
    if volume is None or ("Deployment", revision) in observed.children:
        return True
    return is_delivered(volume, observed)


def is_delivered(volume: EngineVolume, observed: Observed) -> bool:
    """Whether the engine is on its volume, whole."""
    facts = observed.volumes.get(volume.name)
    return facts is not None and facts.delivered == volume.order.digest


def ended(pod: PodFacts) -> bool:
    """Whether a Job's pod has done or failed."""
    return bool(pod.turned_away) or any(
        c.exit_code is not None and (c.name == names.CONTAINER_FILL or c.exit_code) for c in pod.containers
    )


def found(volume: EngineVolume, observed: Observed) -> Finding:
    """What EngineReady says while the engine is not on its volume: of the pod that works, else of those that failed."""
    what, facts = f"{volume.order.engine}: volume {volume.name}", observed.volumes.get(volume.name)
    if words := observed.volumes_refused.get(volume.name):
        return _refused(what, words)
    if facts is None:
        return Finding("Unknown", Reason.DELIVERING, f"{what} is being made")
    working = [pod for pod in facts.pods if not ended(pod)]
    for pod in working or facts.pods:
        for container in pod.containers:
            if trouble := _trouble(what, container):
                return trouble
        if pod.unschedulable:
            waits = f"{what}: its Job waits for a node: {pod.unschedulable}"
            if volume.builder:
                waits += (
                    "; a build needs a GPU for itself: add one, or let what serves give one back for as long"
                    " (spec.replicas: 0 is an outage)"
                )
            return Finding("Unknown", Reason.DELIVERING, waits)
    away, look = _turned_away(facts), f"see `kubectl describe job {volume.name}`"
    if facts.failed:
        text = f"{what}: its Job has failed{away}; it is tried again; {look}"
        return Finding("False", Reason.DELIVERY_FAILED, text)
    if not working:
        text = f"{what}: its Job has no pod yet{away}; if that lasts, {look}"
        return Finding("Unknown", Reason.DELIVERING, text)
    return Finding("Unknown", Reason.DELIVERING, f"{what}: {_told(facts)}")


_IMMUTABLE = "spec is immutable after creation"
"""What the API server says, with half a page around it, of a claim that is there and was asked for otherwise."""


def _refused(what: str, words: str) -> Finding:
    """The API server refused a write for the volume, in these words."""
    if _IMMUTABLE in words:
        words = "somebody else made it, and the operator takes over nothing"
        remedy = "delete it, unless something is on it that is needed elsewhere"
    else:
        remedy = "ask whoever keeps this namespace's quotas and admission policies"
    return Finding("False", Reason.DELIVERY_FAILED, f"{what}: {words}; {remedy}")


def _turned_away(facts: VolumeFacts) -> str:
    """In brackets, if that happened to any."""
    return next((f" ({pod.turned_away})" for pod in facts.pods if pod.turned_away), "")


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
    if container.name == names.INIT_BUILD:  # Somebody else's program: its last lines say most.
        text = f"{what}: its builder ended with {container.exit_code}: {said[-600:]}"
        return Finding("False", Reason.DELIVERY_FAILED, text)
    word = said.partition(":")[0]
    return Finding("False", _OWN.get(word, Reason.DELIVERY_FAILED), f"{what}: {said[:900]}")


def _told(facts: VolumeFacts) -> str:
    progress = facts.progress
    if any(c.name == names.INIT_BUILD and c.running for pod in facts.pods for c in pod.containers):
        return "building on its GPU, which takes minutes to an hour"
    if progress is None:
        return "its Job starts"
    share = progress.percent
    shown = f" {share - share % PROGRESS_STEP} %" if share is not None and progress.phase == "Fetching" else ""
    return f"{progress.phase.lower()}{shown}"
