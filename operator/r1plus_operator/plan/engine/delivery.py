"""Engine delivery: from its image, or from a volume that a Job fills. Part of the plan."""

import contextlib
import ipaddress
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from r1plus_contract import names
from r1plus_contract.engine.engine_fetch import (
    EXIT_PERMANENT,
    Archive,
    Build,
    FillOrder,
    FillPhase,
    FillProgress,
    FillRefusal,
)
from r1plus_contract.remedies import Remedy, word
from r1plus_model_repo.catalog.quantity import MOST_BYTES, bytes_of, mebibytes
from r1plus_model_repo.catalog.types import Engine, KvPrecision
from r1plus_model_repo.distillation_build import build_distillation, find_problems
from r1plus_model_repo.gpu_build import Recipe, render_script
from r1plus_operator.api.conditions import ConditionType, Finding, Reason
from r1plus_operator.api.quotas import find_quota_remedy
from r1plus_operator.api.types import DeliveryMode, R1PlusDeploymentSpec
from r1plus_operator.plan.engine.feasibility import EnginePlacement, choose_delivery_mode, needs_volume, read_gpu_need
from r1plus_operator.plan.engine.nodes import find_matching_nodes
from r1plus_operator.plan.observation import ContainerFacts, Json, NodeFacts, Observation, PodFacts, VolumeFacts
from r1plus_operator.plan.podspec.pod import HOST_MEMORY, POD_OVERHEAD, build_placement, select_gpu_resource
from r1plus_operator.plan.settings import AccessMode, OperatorConfig, VolumeTerms
from r1plus_policies.engine.hardware import Gpus, place_engine

KEY_DIGITS = 16
MAX_NODES = 32
"""Names of nodes that a revision stores: its Job prefers them, but may run elsewhere."""
_SUFFIX = {AccessMode.ONE_NODE: "", AccessMode.MANY_NODES: "-shared", AccessMode.MANY_READERS: "-read"}
PROGRESS_STEP = 10
"""Percent: progress is reported in steps of this size, so that the status changes seldom."""


@dataclass(frozen=True, slots=True)
class Builder:
    """The container that builds an engine, on the kind of GPU that will serve it."""

    image: str
    script: str
    resource: str
    """Name of the GPU resource of the device plugin."""
    memory: int
    """Memory of the node, bytes."""


@dataclass(frozen=True, slots=True)
class TrainingNodes:
    """How many machines train an engine together, and by which runtime of Kubeflow's trainer."""

    count: int
    runtime_kind: str
    runtime_name: str


@dataclass(frozen=True, slots=True)
class Trainer:
    """What the container that distils an engine may use. Its image is the operator's: training goes on with another."""

    cpu: str
    memory: int
    """Bytes."""
    suite: str
    """Golden suite of the deployment, whose questions must not be in the data."""
    nodes: TrainingNodes | None = None
    """None: the Job trains, on one machine."""


@dataclass(frozen=True, slots=True)
class EngineVolume:
    """A volume with one engine, as a revision stores it: everything that is needed to create it again."""

    name: str
    """Name of the claim and of its Job. The same files have the same name in a namespace, so they are fetched once."""
    order: FillOrder
    image: str = ""
    """The engine's image; empty: an archive is fetched."""
    builder: Builder | None = None
    """Container that builds the engine from a checkpoint; None: no runtime's own builder does."""
    trainer: Trainer | None = None
    """Container that distils the engine; None: it is not distilled."""
    asked: str = ""
    """Name of what is built, without what only the builder's image decides; empty: nothing is built."""
    access_mode: AccessMode = AccessMode.ONE_NODE
    node_selector: dict[str, str] | None = None
    tolerations: tuple[Json, ...] = ()
    nodes: tuple[str, ...] = ()
    """Preferred nodes of the Job: a ReadWriteOnce volume should be on a node that has room for the pods."""

    @property
    def is_built(self) -> bool:
        """Whether a Job builds the engine; otherwise the files are served as they are."""
        return self.builder is not None or self.trainer is not None

    @property
    def training_nodes(self) -> TrainingNodes | None:
        """Machines that train the engine together; None: it is not trained, or on one."""
        return self.trainer.nodes if self.trainer else None

    @property
    def revision_key(self) -> str:
        """Part of the revision's hash. It does not change when the chart sets another image to build with."""
        return self.asked or self.name


@dataclass(frozen=True, slots=True)
class Route:
    """The network route of a Job to an archive: its server, or a proxy."""

    cidrs: tuple[str, ...]
    """Networks to allow; empty: the archive cannot be reached."""
    port: int
    proxy: str = ""
    """Address of the proxy, http://HOST:PORT; empty: none is used."""


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """Why an engine cannot be delivered as the spec requires."""

    condition: ConditionType
    reason: Reason
    message: str


def resolve_delivery(
    spec: R1PlusDeploymentSpec,
    engine: Engine,
    placement: EnginePlacement,
    config: OperatorConfig,
    nodes: tuple[NodeFacts, ...] | None,
    delivered_volumes: Collection[str] = (),
) -> EngineVolume | Undeliverable | None:
    """Return the volume that delivers the engine; None: its image does.

    `delivered_volumes` (names, and revision keys) are not checked any more. Otherwise a change of the chart or of the
    nodes would make a serving revision unservable, and so unmonitored.
    """
    files, terms = engine.spec.files, config.volumes
    if choose_delivery_mode(spec, engine) is DeliveryMode.IMAGE:
        return _report_no_image(engine) if needs_volume(engine) else None
    fitting_nodes = _list_fitting_nodes(spec, engine, placement, nodes or ())
    recipe = _build_recipe(engine, placement, config) if engine.spec.is_built_for_gpu else None
    build = Build(recipe.key, recipe.gpu_product) if recipe else build_distillation(engine.spec)
    key, suffix = build.key if build else files.sha256, _SUFFIX[terms.access_mode]
    constraints = build_placement(spec, placement.gpus)
    volume = EngineVolume(
        # Another access mode needs another volume, because a claim's spec is immutable.
        name=f"r1plus-engine-{key[:KEY_DIGITS]}{suffix}",
        order=_build_order(engine, build),
        image="" if files.archive else files.image or "",
        builder=_build_builder(engine, recipe, placement) if recipe else None,
        trainer=_build_trainer(engine, spec.accuracy.suite or engine.spec.reference.suite),
        asked=f"{recipe.request_key[:KEY_DIGITS]}{suffix}" if recipe else "",
        access_mode=terms.access_mode,
        nodes=fitting_nodes[:MAX_NODES],
        node_selector=constraints.get("nodeSelector"),
        tolerations=tuple(constraints.get("tolerations", ())),
    )
    is_delivered_already = volume.name in delivered_volumes or volume.revision_key in delivered_volumes
    return (None if is_delivered_already else _check_deliverable(spec, engine, config, fitting_nodes)) or volume


def _build_order(engine: Engine, build: Build | None) -> FillOrder:
    files = engine.spec.files
    archive = Archive(files.archive.url, files.archive.sha256) if files.archive else None
    return FillOrder(engine.name, files.sha256, bytes_of(_find_size(engine)[1]), archive, build=build)


def _build_recipe(engine: Engine, placement: EnginePlacement, config: OperatorConfig) -> Recipe:
    """Return everything that the result of the build depends on. The serving image is also the builder."""
    backend, terms = engine.spec.backend, engine.spec.build
    assert terms is not None and terms.max_num_tokens is not None
    capability = placement.gpus.compute_capability if placement.gpus else None
    return Recipe(
        checkpoint=engine.spec.files.sha256,
        backend=backend.value,
        precision=engine.spec.precision,
        kv_precision=(engine.spec.kv_precision or KvPrecision.FP16).value,
        max_batch=placement.fit.batch,
        max_seq_len=placement.fit.context,
        max_num_tokens=terms.max_num_tokens,
        gpu_product=placement.gpus.product if placement.gpus else "",
        compute_capability=".".join(map(str, capability)) if capability else "",
        runtime=config.runtimes.get(backend.value) or "",
        image=config.select_image(backend.value),
    )


def _build_builder(engine: Engine, recipe: Recipe, placement: EnginePlacement) -> Builder:
    memory = HOST_MEMORY + 2 * bytes_of(engine.spec.requirements.weights_memory)
    return Builder(recipe.image, render_script(recipe, names.DIR_VOLUME), select_gpu_resource(placement.gpus), memory)


def _build_trainer(engine: Engine, suite: str) -> Trainer | None:
    terms = engine.spec.distill
    if terms is None:
        return None
    nodes = None
    if terms.runtime_ref is not None and terms.num_nodes is not None:
        nodes = TrainingNodes(terms.num_nodes, terms.runtime_ref.kind.value, terms.runtime_ref.name)
    return Trainer(terms.cpu, bytes_of(terms.memory), suite, nodes)


def with_current_source(volume: EngineVolume, engine: Engine | None) -> EngineVolume:
    """Return the volume with the current source of the same files in the R1PlusEngine.

    A revision is written before its engine is fetched. So a corrected address must not need another revision, nor more
    memory or storage for the training of the same student.
    """
    if engine is None or engine.spec.artifact is None or engine.spec.files.sha256 != volume.order.digest:
        return volume
    if _check_size(engine):
        return volume
    files = engine.spec.files
    build, trainer = volume.order.build, volume.trainer
    current = build_distillation(engine.spec)
    is_same = build is not None and current is not None and current.key == build.key
    if current and trainer and is_same and not any(find_problems(engine.spec)):
        build, trainer = current, _build_trainer(engine, trainer.suite)
    image = "" if files.archive else files.image or ""
    return replace(volume, order=_build_order(engine, build), image=image, trainer=trainer)


def find_route(archive: Archive, terms: VolumeTerms) -> Route:
    """Return the route to an archive; redirects use it as well. The catalog has validated the archive's address."""
    host, port = _parse_host_and_port(archive.url.removeprefix("https://"), 443)
    proxy = terms.proxy
    if proxy is None or any(_is_entry_for(entry.lower(), host) for entry in proxy.no_proxy):
        return Route(terms.cidrs, port)
    return Route(proxy.cidrs, _parse_host_and_port(proxy.url.removeprefix("http://"), 80)[1], proxy.url)


def _parse_host_and_port(url: str, default: int) -> tuple[str, int]:
    """Return host and port of an address without its scheme."""
    host, _, port = url.partition("/")[0].partition(":")
    return host.lower(), int(port or default)


def _is_entry_for(entry: str, host: str) -> bool:
    """Whether an entry of noProxy applies to a host: by its name, its domain, or the network of its address."""
    if "/" in entry:
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
        return False
    return f".{host}".endswith(f".{entry.removeprefix('.')}")


def _list_fitting_nodes(
    spec: R1PlusDeploymentSpec, engine: Engine, placement: EnginePlacement, nodes: tuple[NodeFacts, ...]
) -> tuple[str, ...]:
    """Return the names of the nodes that have room for a pod."""
    matching_nodes = find_matching_nodes(spec, engine, nodes, ignore_temporary=True)
    if placement.gpus is not None:
        need, product = read_gpu_need(engine), placement.gpus.product
        gpus_by_node = ((node, [gpus for gpus in node.gpus if gpus.product == product]) for node in matching_nodes)
        return tuple(sorted(node.name for node, gpus in gpus_by_node if isinstance(place_engine(need, gpus), Gpus)))
    needed_bytes = placement.fit.total_bytes + POD_OVERHEAD
    return tuple(sorted(node.name for node in matching_nodes if node.memory_bytes >= needed_bytes))


def _check_deliverable(
    spec: R1PlusDeploymentSpec, engine: Engine, config: OperatorConfig, fitting_nodes: tuple[str, ...]
) -> Undeliverable | None:
    terms = config.volumes
    if problem := _check_distillation(engine, config) or _check_size(engine):
        return problem
    if terms.require_signature and not terms.trusted_keys:
        return _report_no_keys(engine)
    archive = _build_order(engine, None).archive
    if archive and not find_route(archive, terms).cidrs:
        return _report_no_network(engine)
    if terms.access_mode is AccessMode.ONE_NODE and _is_trained_together(engine) and len(fitting_nodes) > 1:
        return _report_training_spread(engine)
    if terms.access_mode is AccessMode.ONE_NODE and spec.replicas > 1 and len(fitting_nodes) > 1:
        return Undeliverable(
            ConditionType.CAPACITY_FITS, Reason.STORAGE_NOT_SHARED, _explain_spread(spec, engine, fitting_nodes)
        )
    return None


def _check_distillation(engine: Engine, config: OperatorConfig) -> Undeliverable | None:
    if problems := tuple(find_problems(engine.spec)):
        text = f"spec.engine: {engine.name}: {'; '.join(problems)}; correct the R1PlusEngine"
        return Undeliverable(ConditionType.ENGINE_READY, Reason.CONFIG_REFUSED, text)
    if engine.spec.distill is not None and not config.trainer_image:
        text = f"spec.engine: {engine.name} {word(Remedy.PROVIDE_TRAINER)}"
        return Undeliverable(ConditionType.ENGINE_READY, Reason.ENGINE_NOT_DELIVERED, text)
    if _is_trained_together(engine) and not config.has_train_jobs:
        text = (
            f"spec.engine: {engine.name} is trained by a TrainJob (spec.build.distill.runtimeRef), and the operator has"
            " no right to write one; set the chart's trainJobs.enabled to true, or remove runtimeRef and numNodes"
        )
        return Undeliverable(ConditionType.ENGINE_READY, Reason.ENGINE_NOT_DELIVERED, text)
    return None


def _check_size(engine: Engine) -> Undeliverable | None:
    field, size = _find_size(engine)
    if bytes_of(size) <= MOST_BYTES:
        return None
    text = (
        f"spec.engine: {engine.name}: {field}: {size} is more than {mebibytes(MOST_BYTES)}; lower it in the"
        " R1PlusEngine"
    )
    return Undeliverable(ConditionType.ENGINE_READY, Reason.CONFIG_REFUSED, text)


def _find_size(engine: Engine) -> tuple[str, str]:
    """Return the field that says how many bytes the files take at most, and its value."""
    if archive := engine.spec.files.archive:
        return "spec.artifact.archive.size", archive.size
    return "spec.requirements.weightsMemory", engine.spec.requirements.weights_memory


def _is_trained_together(engine: Engine) -> bool:
    return engine.spec.distill is not None and engine.spec.distill.runtime_ref is not None


def _report_training_spread(engine: Engine) -> Undeliverable:
    text = (
        f"spec.engine: {engine.name} is trained on several nodes, but a ReadWriteOnce volume is on one node; set the"
        " chart's delivery.volume.accessMode to ReadWriteMany with a class that offers it, let"
        " spec.placement.nodeSelector admit one node, or remove spec.build.distill.runtimeRef and numNodes"
    )
    return Undeliverable(ConditionType.CAPACITY_FITS, Reason.STORAGE_NOT_SHARED, text)


def _report_no_image(engine: Engine) -> Undeliverable:
    why = "must be built" if engine.spec.build else "is an archive"
    text = f"spec.delivery.mode: Image, but {engine.name} {why}; remove the mode or set Volume"
    return Undeliverable(ConditionType.ENGINE_READY, Reason.ENGINE_NOT_DELIVERED, text)


def _report_no_keys(engine: Engine) -> Undeliverable:
    text = (
        f"spec.engine: {engine.name} is delivered by a volume, but no signer is trusted; list the signer's"
        " public key in the chart's delivery.trustedKeys, or set delivery.requireSignature to false"
    )
    return Undeliverable(ConditionType.ENGINE_READY, Reason.ENGINE_NOT_DELIVERED, text)


def _report_no_network(engine: Engine) -> Undeliverable:
    text = (
        f"spec.engine: {engine.name} is an archive, but network policies block the Job's egress; list its server's"
        " network in the chart's delivery.cidrs, or set a proxy that reaches it in delivery.proxy"
    )
    return Undeliverable(ConditionType.ENGINE_READY, Reason.ENGINE_NOT_DELIVERED, text)


def _explain_spread(spec: R1PlusDeploymentSpec, engine: Engine, fitting_nodes: tuple[str, ...]) -> str:
    """Return why a ReadWriteOnce volume does not suffice."""
    image_hint = "" if needs_volume(engine) else ", or set spec.delivery.mode to Image"
    node_list = ", ".join(fitting_nodes[:5]) + (" and others" if len(fitting_nodes) > 5 else "")
    return (
        f"spec.replicas: {spec.replicas} pods may run on {len(fitting_nodes)} nodes ({node_list}), but a ReadWriteOnce"
        " volume is on one node; set the chart's delivery.volume.accessMode to ReadWriteMany or ReadOnlyMany with a"
        f" class that offers it, or let spec.placement.nodeSelector admit one node{image_hint}"
    )


def can_start_pods(volume: EngineVolume | None, revision: str, observation: Observation) -> bool:
    """Whether a revision's pods can start: the engine is on its volume, or its Deployment exists already."""
    if volume is None or ("Deployment", revision) in observation.children:
        return True
    return is_delivered(volume, observation)


def is_delivered(volume: EngineVolume, observation: Observation) -> bool:
    """Whether the complete engine is on its volume."""
    facts = observation.volumes.get(volume.name)
    return facts is not None and facts.delivered_digest == volume.order.digest


def is_finished(pod: PodFacts) -> bool:
    """Whether a Job's pod has succeeded or failed."""
    return bool(pod.failure_reason) or any(
        c.exit_code is not None and not c.runs_again and (c.name in _LAST_CONTAINERS or c.exit_code)
        for c in pod.containers
    )


def _is_refused(pod: PodFacts) -> bool:
    """Whether a worker has ended for good. The others wait for it, and look as if they worked."""
    return any(c.exit_code == EXIT_PERMANENT and not c.runs_again for c in pod.containers)


def _has_filled(pod: PodFacts) -> bool:
    return any(c.name == names.CONTAINER_FILL and c.exit_code == 0 for c in pod.containers)


_LAST_CONTAINERS = (names.CONTAINER_FILL, names.CONTAINER_WORKER)
"""Containers with whose end their pod has ended."""


def derive_delivery_finding(volume: EngineVolume, observation: Observation) -> Finding:
    """Return EngineReady while the engine is not on its volume: about an active pod, else about those that failed."""
    subject, facts = f"{volume.order.engine}: volume {volume.name}", observation.volumes.get(volume.name)
    if write_error := observation.volume_write_errors.get(volume.name):
        return _report_write_error(subject, write_error)
    if volume.training_nodes and names.KIND_TRAIN_JOB not in observation.kinds:
        text = (
            f"{subject}: it is trained by a TrainJob, and the operator finds no trainjobs of"
            f" {names.GROUP_TRAINER}/v1alpha1; install Kubeflow Trainer 2.2 or later, set the chart's trainJobs.enabled"
            " to true, or remove spec.build.distill.runtimeRef and numNodes"
        )
        return Finding("False", Reason.ENGINE_NOT_DELIVERED, text)
    if facts is None:
        return Finding("Unknown", Reason.DELIVERING, f"{subject} is being created")
    active_pods = [pod for pod in facts.pods if not is_finished(pod)]
    if not active_pods and volume.training_nodes is None and any(map(_has_filled, facts.pods)):
        text = f"{subject}: its Job has ended; the operator goes on with its result"
        return Finding("Unknown", Reason.DELIVERING, text)
    if finding := _find_pod_problem(subject, volume, active_pods, facts.pods):
        return finding
    failed_pod, kind = _describe_failed_pod(facts), "TrainJob" if facts.has_train_job else "Job"
    remedy = f"see `kubectl describe {kind.lower()} {volume.name}`"
    if facts.has_failed:
        why = f" ({facts.train_job_message})" if facts.train_job_message else failed_pod
        text = f"{subject}: its {kind} has failed{why} and is retried; {remedy}"
        return Finding("False", Reason.DELIVERY_FAILED, text)
    if not active_pods:
        text = f"{subject}: its {kind} has no pod yet{failed_pod}; if this lasts, {remedy}"
        return Finding("Unknown", Reason.DELIVERING, text)
    state = _describe_progress(facts, is_distilled=volume.trainer is not None)
    return Finding("Unknown", Reason.DELIVERING, f"{subject}: {state}")


def _find_pod_problem(
    subject: str, volume: EngineVolume, active_pods: Sequence[PodFacts], pods: Sequence[PodFacts]
) -> Finding | None:
    refused_pods = [pod for pod in pods if _is_refused(pod)] if volume.training_nodes else []
    for pod in (*refused_pods, *(active_pods or pods)):
        for container in pod.containers:
            if finding := _find_container_problem(subject, container, is_distilled=volume.trainer is not None):
                return finding
        if pod.unschedulable:
            text = f"{subject}: its Job waits for a node: {pod.unschedulable}{_hint_at_node(volume)}"
            return Finding("Unknown", Reason.DELIVERING, text)
    return None


def _hint_at_node(volume: EngineVolume) -> str:
    """Return what to do so that a Job finds a node, from a semicolon on; empty: nothing but what the scheduler says."""
    if volume.trainer:
        return "; its training requests spec.build.distill.memory: lower that, or add a larger node"
    if volume.builder:
        return (
            "; a build needs a GPU of its own: add one, or release one for the time of the build"
            " (spec.replicas: 0 is an outage)"
        )
    return ""


_IMMUTABLE = "spec is immutable after creation"
"""Part of the API server's long message about an existing claim with another spec."""


def _report_write_error(subject: str, error: str) -> Finding:
    """Return EngineReady after the API server refused a write for the volume with this error."""
    if _IMMUTABLE in error:
        error = "a claim of this name exists and is not the operator's, which does not take over foreign objects"
        remedy = "delete the claim if its data is not needed"
    elif names.GROUP_TRAINER in error and "admission webhook" in error:  # The trainer's own.
        remedy = (
            "correct spec.build.distill.runtimeRef of the R1PlusEngine: the runtime must exist, have mlPolicy.torch,"
            " and a replicated job `node` with a container `node`"
        )
    else:
        remedy = find_quota_remedy(error) or "ask the owner of this namespace's admission policies"
    return Finding("False", Reason.DELIVERY_FAILED, f"{subject}: {error}; {remedy}")


def _describe_failed_pod(facts: VolumeFacts) -> str:
    """Return in brackets why a node rejected or evicted a pod; empty: none did."""
    return next((f" ({pod.failure_reason})" for pod in facts.pods if pod.failure_reason), "")


_CONDITION_REASONS: Mapping[str, Reason] = {
    reason.value: reason for reason in (Reason.STORAGE_FULL, Reason.ENGINE_DIGEST_MISMATCH, Reason.IMAGE_PULL_FAILED)
}
"""Reasons of the Job that are also reasons of the condition. Any other is DeliveryFailed, with the Job's message."""


EXIT_KILLED = 128 + 9
"""Exit code of a process that the kernel killed."""


def _find_container_problem(subject: str, container: ContainerFacts, *, is_distilled: bool) -> Finding | None:
    if container.has_pull_error:
        text = (
            f"{subject}: container {container.name}: {container.message}; check the image's name and the pull secrets"
        )
        return Finding("False", Reason.IMAGE_PULL_FAILED, text)
    message = container.message.strip()
    if not container.exit_code or not message or container.runs_again:
        return None  # A deleted pod has no message, and the Job creates another.
    if "No space left on device" in message or "Disk quota exceeded" in message:
        return Finding("False", Reason.STORAGE_FULL, f"{subject}: {message[-600:]}; give it more storage")
    if container.name in _BUILDERS and message.partition(":")[0] not in _TRAINER_REASONS:
        # Another program than ours, or ours was killed: the last lines explain most.
        text = f"{subject}: its builder ended with {container.exit_code}: {message[-600:]}"
        if container.exit_code == EXIT_KILLED and is_distilled:
            text += "; most often memory ran out: raise spec.build.distill.memory. It goes on from its checkpoint"
        return Finding("False", Reason.DELIVERY_FAILED, text)
    reason = message.partition(":")[0]
    condition_reason = _CONDITION_REASONS.get(reason, Reason.DELIVERY_FAILED)
    text = message.removeprefix(f"{condition_reason}: ")
    return Finding("False", condition_reason, f"{subject}: {text[:900]}")


_BUILDERS = (names.INIT_BUILD, names.CONTAINER_WORKER)
_TRAINER_REASONS = frozenset({FillRefusal.TRAINING_REFUSED.value, FillRefusal.TRAINING_STOPPED.value})
_TRAINER_PHASES = frozenset({FillPhase.PREDICTING, FillPhase.TRAINING, FillPhase.IMPORTING})


def _describe_training(progress: FillProgress) -> str:
    """Return how far a distillation is. The trainer reports twice a minute, so that the status changes seldom."""
    if progress.phase is FillPhase.IMPORTING:
        return "trained; the student becomes an engine"
    if progress.phase is FillPhase.PREDICTING:
        text = f"its teacher predicts example {progress.done} of {progress.total}"
        return text if progress.total else "its teacher reads the data"
    parts = [f"training, step {progress.done} of {progress.total}"]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    if progress.seconds_left is not None:
        parts.append(f"about {_describe_seconds(progress.seconds_left)} left")
    return ", ".join(parts)


def _describe_seconds(seconds: int) -> str:
    minutes = -(-seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{round(minutes / 60)} h"


def _describe_progress(facts: VolumeFacts, *, is_distilled: bool) -> str:
    progress = facts.progress
    is_building = any(c.name in _BUILDERS and c.is_running for pod in facts.pods for c in pod.containers)
    if is_building and progress and progress.phase in _TRAINER_PHASES:
        return _describe_training(progress)
    if is_building and not is_distilled:
        return "building on its GPU, which takes minutes to an hour"
    if progress is None:
        return "its Job starts"
    share = progress.percent
    percent_text = f" {share - share % PROGRESS_STEP} %" if share is not None and progress.phase == "Fetching" else ""
    return f"{progress.phase.lower()}{percent_text}"
