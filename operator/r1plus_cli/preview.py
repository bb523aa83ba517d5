"""`r1plus plan`: what the operator would create and why, without a cluster.

It runs the operator's own pure plan on an R1PlusDeployment that nobody has applied yet, so what is shown is what the
operator would do: same code, same order.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from r1plus_cli.documents import Document
from r1plus_contract.names import LABEL_SUITE, TENANT
from r1plus_contract.suite import Sampling, Suite, SuiteHeader
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.api.conditions import Reason
from r1plus_operator.api.tenants import R1PlusTenantSpec
from r1plus_operator.api.types import Placement, R1PlusDeploymentSpec
from r1plus_operator.plan.deployment import plan
from r1plus_operator.plan.engine.delivery import EngineVolume
from r1plus_operator.plan.engine.placement import check_placement
from r1plus_operator.plan.engine.selection import Problem, Target, resolve
from r1plus_operator.plan.observation import Json, NodeFacts, Observation, SuiteSource, TenantView, VolumeFacts
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.status.conditions import explain_forbidden_callers
from r1plus_operator.plan.volumes import VolumeNeed, VolumesObservation, plan_volumes

MONITORING_KINDS = frozenset({"PodMonitor", "PrometheusRule"})
NOT_YET = "00000000-0000-0000-0000-000000000000"
"""Stands for the uid that the API server gives on creation."""
ANY_NODE = NodeFacts("assumed", memory_bytes=2**60, cores=1024.0, labels={}, storage_bytes=2**60)
"""A node on which only the engine's own limits hold."""


@dataclass(frozen=True, slots=True)
class Preview:
    """The decision and what follows from it."""

    document: Document
    spec: R1PlusDeploymentSpec
    resolved: Target | Problem
    objects: tuple[Json, ...]
    """What the operator would create, in order."""
    unchecked: tuple[str, ...] = ()
    """What is assumed because only the cluster can tell."""
    uninvited: str = ""
    """Which callers the tenant does not allow, and what to do."""

    @property
    def problem(self) -> Problem | None:
        """Why no pod would be created."""
        return self.resolved if isinstance(self.resolved, Problem) else None


def preview(
    document: Document,
    engines: tuple[Engine, ...],
    suites: Mapping[str, SuiteSource],
    config: OperatorConfig,
    node_memory: int | None = None,
    tenant: R1PlusTenantSpec | None = None,
) -> Preview:
    """Plan the first pass over `document`, which must be valid (see `validate.problems_of`).

    `tenant`: of its namespace; None: it is not at hand, and assumed to allow whatever the deployment names.
    """
    spec = R1PlusDeploymentSpec.model_validate(document.spec)
    node = replace(ANY_NODE, labels=spec.placement.node_selector)
    if node_memory is not None:
        node = replace(node, memory_bytes=node_memory)
    observed = Observation(
        cr=_as_applied(document),
        engines=engines,
        suites={**_stand_ins(spec, engines), **suites},
        nodes=(node,),
        children={},
        kinds=MONITORING_KINDS,
        tenant=TenantView(
            "Unknown",
            Reason.PENDING,
            "No cluster was asked",
            callers=frozenset(tenant.callers.namespaces if tenant else spec.access.namespaces),
            placement=tenant.placement if tenant else None,
        ),
    )
    resolved = resolve(spec, engines, dict(observed.suites), observed.nodes, config)
    if tenant and isinstance(resolved, Target):
        resolved = check_placement(spec.placement, tenant.placement) or resolved
    uninvited = explain_forbidden_callers(spec, tenant.callers.namespaces) if tenant else ""
    unchecked = list(find_unchecked(document.namespace, spec, suites, tenant))
    if node_memory is None:
        unchecked.append("nodes: one with room for the engine's best batch is assumed; --node-memory fits into yours")
    volume = resolved.volume if isinstance(resolved, Target) else None
    if volume:
        unchecked.append("the chart's delivery: storage class, access mode, networks and trusted keys are assumed")
    return Preview(document, spec, resolved, _objects(observed, volume, config), tuple(unchecked), uninvited)


def _objects(observed: Observation, volume: EngineVolume | None, config: OperatorConfig) -> tuple[Json, ...]:
    """What the first passes would create; an engine that comes by a volume is there before its pods are."""
    found = _planned(observed, config)
    if volume:
        found += _volume_objects(observed, volume, config)
        delivered = VolumeFacts(delivered_digest=volume.order.digest)
        found += _planned(replace(observed, volumes={volume.name: delivered}), config)
    by_name: dict[tuple[str, str], Json] = {}
    for item in found:
        by_name.setdefault((item["kind"], item["metadata"]["name"]), item)
    return tuple(by_name.values())


def _planned(observed: Observation, config: OperatorConfig) -> list[Json]:
    return [item for stage in plan(observed, config, now=0.0).apply for item in stage]


def _volume_objects(observed: Observation, volume: EngineVolume, config: OperatorConfig) -> list[Json]:
    """The claim, then what fills it."""
    need = VolumeNeed(volume, ((observed.name, NOT_YET),))
    first = plan_volumes(VolumesObservation(observed.namespace, (need,), {}), config, now=0.0).apply
    (claim,) = (item for stage in first[volume.name] for item in stage)
    live = {**claim, "metadata": {**claim["metadata"], "uid": NOT_YET}}
    seen = VolumesObservation(observed.namespace, (need,), {(claim["kind"], volume.name): live})
    then = plan_volumes(seen, config, now=0.0).apply
    return [claim, *(item for stage in then[volume.name] for item in stage)]


def find_unchecked(
    namespace: str, spec: R1PlusDeploymentSpec, suites: Mapping[str, SuiteSource], tenant: R1PlusTenantSpec | None
) -> Iterator[str]:
    """Yield what of the spec only a cluster can tell, and what is assumed of it."""
    asked = [f"callers {', '.join(spec.access.namespaces)}"] if spec.access.namespaces else []
    asked += ["spec.placement"] if spec.placement != Placement() else []
    if asked and tenant is None:
        yield (
            f"R1PlusTenant {TENANT} of {namespace}: that it allows {' and '.join(asked)} is assumed; to check that,"
            " put it into the same file or folder"
        )
    if selector := spec.placement.node_selector:
        labels = ", ".join(f"{key}={value}" for key, value in sorted(selector.items()))
        yield f"nodes with {labels}: one is assumed"
    name = spec.accuracy.suite
    if name and name not in suites:
        at_hand = ", ".join(sorted(suites)) or "none"
        yield (
            f"suite {name}: a ConfigMap of namespace {namespace} with the label {LABEL_SUITE}, signed by a trusted key,"
            f" is assumed; suites at hand are: {at_hand}"
        )


def _stand_ins(spec: R1PlusDeploymentSpec, engines: Iterable[Engine]) -> dict[str, SuiteSource]:
    """Suites without items, for those that may be asked for: of what is not at hand nothing but the name is known."""
    names = {spec.accuracy.suite or "", *(engine.spec.reference.suite for engine in engines)} - {""}
    headers = (SuiteHeader(name, "", "", "", "", "", "", 0, Sampling()) for name in names)
    return {header.name: SuiteSource(header.name, "", "", Suite(header, ())) for header in headers}


def _as_applied(document: Document) -> Json:
    metadata = {**document.metadata, "namespace": document.namespace, "uid": NOT_YET, "generation": 1}
    return {**document.body, "metadata": metadata}
