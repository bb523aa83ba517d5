"""`r1plus plan`: what the operator would create and why, without a cluster.

It runs the operator's own pure plan on an R1PlusDeployment that is not applied yet. So it shows what the operator
would do, with the same code in the same order.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from r1plus_cli.documents import Document
from r1plus_contract.names import LABEL_SUITE, TENANT
from r1plus_contract.suites.suite import Suite, SuiteHeader, SuiteSampling
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
from r1plus_operator.plan.tenancy.volumes import VolumeNeed, VolumesObservation, plan_volumes

MONITORING_KINDS = frozenset({"PodMonitor", "PrometheusRule"})
NOT_YET = "00000000-0000-0000-0000-000000000000"
"""Placeholder for the uid that the API server assigns."""
ANY_NODE = NodeFacts("assumed", memory_bytes=2**60, cores=1024.0, labels={}, storage_bytes=2**60)
"""A node on which only the engine's own limits apply."""


@dataclass(frozen=True, slots=True)
class Preview:
    """The decision and the objects that follow from it."""

    document: Document
    spec: R1PlusDeploymentSpec
    resolved: Target | Problem
    objects: tuple[Json, ...]
    """Objects that the operator would create, in order."""
    unchecked: tuple[str, ...] = ()
    """Assumptions that only a cluster can confirm."""
    disallowed_callers: str = ""
    """Callers that the tenant does not allow, and what to do."""

    @property
    def problem(self) -> Problem | None:
        """Why no pod would be created."""
        return self.resolved if isinstance(self.resolved, Problem) else None


def build_preview(
    document: Document,
    engines: tuple[Engine, ...],
    suites: Mapping[str, SuiteSource],
    config: OperatorConfig,
    node_memory: int | None = None,
    tenant: R1PlusTenantSpec | None = None,
) -> Preview:
    """Plan the first pass over `document`, which must be valid (see `validate.find_problems`).

    `tenant` is the tenant of its namespace; None: it is assumed to allow whatever the deployment names.
    """
    spec = R1PlusDeploymentSpec.model_validate(document.spec)
    node = replace(ANY_NODE, labels=spec.placement.node_selector)
    if node_memory is not None:
        node = replace(node, memory_bytes=node_memory)
    observed = Observation(
        cr=_complete_metadata(document),
        engines=engines,
        suites={**_build_placeholder_suites(spec, engines), **suites},
        nodes=(node,),
        children={},
        kinds=MONITORING_KINDS,
        tenant=TenantView(
            "Unknown",
            Reason.PENDING,
            "No cluster was asked",
            callers=frozenset(tenant.callers.namespaces if tenant else spec.access.namespaces),
            placement=tenant.placement if tenant else None,
            run_as_user=tenant.run_as_user if tenant else None,
        ),
    )
    resolved = resolve(spec, engines, dict(observed.suites), observed.nodes, config)
    if tenant and isinstance(resolved, Target):
        resolved = check_placement(spec.placement, tenant.placement) or resolved
    disallowed_callers = explain_forbidden_callers(spec, tenant.callers.namespaces) if tenant else ""
    unchecked = list(find_unchecked(document.namespace, spec, suites, tenant))
    if node_memory is None:
        unchecked.append("nodes: assumes one with room for the engine's best batch; give --node-memory for yours")
    volume = resolved.volume if isinstance(resolved, Target) else None
    if volume:
        unchecked.append("the chart's delivery: assumes its storage class, access mode, networks and trusted keys")
    return Preview(
        document, spec, resolved, _list_objects(observed, volume, config), tuple(unchecked), disallowed_callers
    )


def _list_objects(observed: Observation, volume: EngineVolume | None, config: OperatorConfig) -> tuple[Json, ...]:
    """Return what the first passes create; an engine on a volume is there before its pods."""
    objects = _plan_objects(observed, config)
    if volume:
        objects += _plan_volume_objects(observed, volume, config)
        delivered_facts = VolumeFacts(delivered_digest=volume.order.digest)
        objects += _plan_objects(replace(observed, volumes={volume.name: delivered_facts}), config)
    by_name: dict[tuple[str, str], Json] = {}
    for item in objects:
        by_name.setdefault((item["kind"], item["metadata"]["name"]), item)
    return tuple(by_name.values())


def _plan_objects(observed: Observation, config: OperatorConfig) -> list[Json]:
    return [item for stage in plan(observed, config, now=0.0).apply for item in stage]


def _plan_volume_objects(observed: Observation, volume: EngineVolume, config: OperatorConfig) -> list[Json]:
    """Return the claim and the Job that puts the engine on it."""
    need = VolumeNeed(volume, ((observed.name, NOT_YET),))
    first = plan_volumes(VolumesObservation(observed.namespace, (need,), {}), config, now=0.0).apply
    (claim,) = (item for stage in first[volume.name] for item in stage)
    live = {**claim, "metadata": {**claim["metadata"], "uid": NOT_YET}}
    input_with_claim = VolumesObservation(observed.namespace, (need,), {(claim["kind"], volume.name): live})
    second = plan_volumes(input_with_claim, config, now=0.0).apply
    return [claim, *(item for stage in second[volume.name] for item in stage)]


def find_unchecked(
    namespace: str, spec: R1PlusDeploymentSpec, suites: Mapping[str, SuiteSource], tenant: R1PlusTenantSpec | None
) -> Iterator[str]:
    """Yield what only a cluster can confirm, and what is assumed."""
    assumptions = [f"callers {', '.join(spec.access.namespaces)}"] if spec.access.namespaces else []
    assumptions += ["spec.placement"] if spec.placement != Placement() else []
    if assumptions and tenant is None:
        yield (
            f"R1PlusTenant {TENANT} of {namespace}: assumes that it allows {' and '.join(assumptions)}; to check that,"
            " put it into the same file or folder"
        )
    if selector := spec.placement.node_selector:
        labels = ", ".join(f"{key}={value}" for key, value in sorted(selector.items()))
        yield f"nodes: assumes one with {labels}"
    name = spec.accuracy.suite
    if name and name not in suites:
        available = ", ".join(sorted(suites)) or "none"
        yield (
            f"suite {name}: assumes a ConfigMap of namespace {namespace} with the label {LABEL_SUITE}, signed by a"
            f" trusted key; available suites: {available}"
        )


def _build_placeholder_suites(spec: R1PlusDeploymentSpec, engines: Iterable[Engine]) -> dict[str, SuiteSource]:
    """Return suites without items for all names that the plan may request and that are not available."""
    names = {spec.accuracy.suite or "", *(engine.spec.reference.suite for engine in engines)} - {""}
    headers = (SuiteHeader(name, "", "", "", "", "", "", 0, SuiteSampling()) for name in names)
    return {header.name: SuiteSource(header.name, "", "", Suite(header, ())) for header in headers}


def _complete_metadata(document: Document) -> Json:
    metadata = {**document.metadata, "namespace": document.namespace, "uid": NOT_YET, "generation": 1}
    return {**document.body, "metadata": metadata}
