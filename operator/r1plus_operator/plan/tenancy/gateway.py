"""Plan a tenant's gateway: whether it exists, which objects it has, and when it alone may call the models. Pure.

An enabled gateway's objects are last in the pass. Without `spec.gateway.enabled` all go but the claim; while the spec
cannot be read, all stay as they are. Others are shut out (`directAccess: false`) when the gateway is first ready; its
NetworkPolicy remembers that, so that a restart of its pod opens nothing.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from r1plus_contract.gateway import (
    ANNOTATION_DIRECT_ACCESS,
    GATEWAY,
    GATEWAY_SERVICE,
    DataReason,
    DataState,
    ModelSettings,
    name_pods_service,
)
from r1plus_contract.monitor.isolation import IsolationPart
from r1plus_contract.names import LABEL_ISOLATION
from r1plus_model_repo.catalog.embedding import EmbeddingEngine
from r1plus_operator.api.conditions import ConditionType, Finding, Reason
from r1plus_operator.api.tenants import DeletionPolicy, R1PlusTenantSpec
from r1plus_operator.plan.manifests.drift import is_in_sync, with_spec_hash
from r1plus_operator.plan.observation import REFUSED_PODS, GatewayView, Json, NamespaceFacts, PodFacts, TokenIssuer
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.tenancy import gateway_objects
from r1plus_operator.plan.tenancy.data_condition import derive_data_condition
from r1plus_operator.plan.tenancy.gateway_condition import (
    GatewayState,
    compute_volumes_wait,
    derive_gateway_condition,
    report_disabled,
)
from r1plus_operator.plan.tenancy.gateway_models import restrict_callers
from r1plus_operator.plan.tenancy.network_policies import find_covered_node

ObjectKey = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class GatewayObservation:
    """What a pass over a tenant with a gateway has read of it."""

    models: Mapping[str, ModelSettings | None] = field(default_factory=dict)
    """R1PlusDeployment of the namespace -> the model; None: the gateway cannot reach any pod of it."""
    pods: tuple[PodFacts, ...] = ()
    issuer: TokenIssuer | None = None
    """None: the API server has not told it yet."""
    kinds: frozenset[str] = frozenset()
    """Optional kinds that the cluster has."""
    counts_storage: bool = False
    """Whether all nodes report their ephemeral storage."""
    data_states: Mapping[str, DataState] = field(default_factory=dict)
    """Name of a pod -> what it reports of the tenant's data; none: it has not answered."""
    embedding: EmbeddingEngine | None = None
    """The engine that the spec embeds with; None: it names none, or none of kind embedding."""
    has_embedding_name: bool = False
    """Whether the cluster has an R1PlusEngine of the name in the spec, of whatever kind."""


@dataclass(frozen=True, slots=True)
class GatewayPlan:
    """What a pass over a tenant does about its gateway."""

    view: GatewayView | None = None
    """None: there is no gateway."""
    stages: tuple[tuple[Json, ...], ...] = ()
    kept: frozenset[ObjectKey] = frozenset()
    """Objects that stay though no stage has them."""
    findings: Mapping[ConditionType, Finding] = field(default_factory=dict)
    """Conditions GatewayReady and DataReady; none: there is no gateway, and no data of one."""
    requeue_after: float | None = None


def plan_gateway(
    namespace: NamespaceFacts,
    spec: R1PlusTenantSpec,
    observation: GatewayObservation,
    live: Mapping[ObjectKey, Json],
    config: OperatorConfig,
    now: float,
    *,
    is_readable: bool = True,
    is_leaving: bool = False,
    is_tenant_deleted: bool = False,
    nodes: Collection[str] = (),
    write_error: str = "",
) -> GatewayPlan:
    """Plan the gateway of a namespace.

    `is_readable`: whether the R1PlusTenant's spec could be read; `is_leaving`: whether what the R1PlusTenant grants is
    being deleted, or there is no R1PlusTenant; `is_tenant_deleted`: whether one is being deleted, and waits for nothing
    but that; `nodes`: addresses of nodes; `write_error`: the write that failed in the last pass.
    """
    own = frozenset(key for key, obj in live.items() if is_gateways(obj))
    claim = frozenset({(namespace.name, "PersistentVolumeClaim", GATEWAY)}) & own
    if is_tenant_deleted and spec.data.deletion_policy is DeletionPolicy.DELETE:
        return GatewayPlan()
    if is_leaving or (is_readable and not spec.gateway.enabled):
        return GatewayPlan(kept=claim, findings=report_disabled() if claim else {})
    if not is_readable:
        return _keep_gateway(namespace.name, observation, live, own, claim)
    return _EnabledGateway(namespace, spec, observation, live, config, now, nodes, write_error).plan(claim)


def _keep_gateway(
    namespace: str,
    observation: GatewayObservation,
    live: Mapping[ObjectKey, Json],
    own: frozenset[ObjectKey],
    claim: frozenset[ObjectKey],
) -> GatewayPlan:
    """Keep a gateway as it is, because its settings cannot be read."""
    policy = live.get((namespace, "NetworkPolicy", GATEWAY))
    if policy is None:
        return GatewayPlan(kept=own)
    view = GatewayView(_is_closed(policy), frozenset(_list_unreachable(observation.models)))
    text = "spec cannot be read, so the gateway stays as it is; correct what condition Ready names"
    unknown = dict.fromkeys(
        (ConditionType.GATEWAY_READY, ConditionType.DATA_READY), Finding("Unknown", Reason.INVALID_SPEC, text)
    )
    return GatewayPlan(view, kept=own | claim, findings=unknown)


@dataclass(frozen=True, slots=True)
class _EnabledGateway:
    """One pass over one enabled gateway."""

    namespace: NamespaceFacts
    spec: R1PlusTenantSpec
    observation: GatewayObservation
    live: Mapping[ObjectKey, Json]
    config: OperatorConfig
    now: float
    nodes: Collection[str]
    write_error: str

    def plan(self, claim: frozenset[ObjectKey]) -> GatewayPlan:
        stages = () if self._find_obstacle() else self._build_stages()
        state = self._build_state(stages)
        finding = derive_gateway_condition(state, self.now)
        # Closing is remembered in the network policy, so it waits until that can be written.
        can_close = bool(stages) and finding.status == "True"
        is_exclusive = not self.spec.gateway.direct_access and (self._was_closed or can_close)
        if is_exclusive and not self._was_closed:
            stages = self._build_stages(is_exclusive=True)
        own = frozenset(key for key, obj in self.live.items() if is_gateways(obj))
        return GatewayPlan(
            view=GatewayView(is_exclusive, frozenset(self._unreachable)),
            stages=stages,
            # Without what its objects need, a gateway that runs goes on.
            kept=claim if stages else own,
            findings={
                ConditionType.GATEWAY_READY: finding,
                ConditionType.DATA_READY: derive_data_condition(state, self.spec.data.retention_days, self.now),
            },
            requeue_after=compute_volumes_wait(state, self.now),
        )

    @property
    def _was_closed(self) -> bool:
        policy = self.live.get((self.namespace.name, "NetworkPolicy", GATEWAY))
        return policy is not None and not self.spec.gateway.direct_access and _is_closed(policy)

    @property
    def _unreachable(self) -> list[str]:
        return _list_unreachable(self.observation.models)

    @property
    def _is_name_taken(self) -> bool:
        """Whether an R1PlusDeployment has the Service's name. The one that was there first keeps it."""
        is_own = (self.namespace.name, "Service", GATEWAY_SERVICE) in self.live
        return GATEWAY_SERVICE in self.observation.models and not is_own

    def _find_obstacle(self) -> bool:
        has_inputs = self.config.gateway_image and self.observation.issuer is not None
        return not has_inputs or self._is_name_taken or bool(self._find_blocked_network()) or bool(self._missing_engine)

    @property
    def _missing_engine(self) -> str:
        """Name of the engine that the spec embeds with, if there is none; empty: there is, or none is named."""
        wanted = self.spec.gateway.embedding
        return wanted.engine if wanted is not None and self.observation.embedding is None else ""

    def _build_state(self, stages: tuple[tuple[Json, ...], ...]) -> GatewayState:
        objects = [with_spec_hash(obj) for stage in stages for obj in stage]
        missing = [obj for obj in objects if not is_in_sync(obj, self.live.get(_get_key(obj)))]
        deployment = self.live.get((self.namespace.name, "Deployment", GATEWAY)) or {}
        return GatewayState(
            gateway=self.spec.gateway,
            pods=self.observation.pods,
            data_states=self.observation.data_states,
            missing=tuple(
                f"{obj['kind']} {obj['metadata']['name']}"
                for obj in missing
                # Settings that changed are no reason to call a gateway that serves not ready.
                if self.write_error or _get_key(obj) not in self.live
            ),
            write_error=self.write_error,
            refused_pods=str(deployment.get(REFUSED_PODS, "")),
            models=tuple(model.name for model in self._list_models()),
            unreachable=tuple(self._unreachable),
            has_image=bool(self.config.gateway_image),
            # A gateway that has them already goes on with those while the operator starts.
            has_issuer=self.observation.issuer is not None or (self.namespace.name, "ConfigMap", GATEWAY) in self.live,
            is_name_taken=self._is_name_taken,
            blocked_network=self._find_blocked_network(),
            missing_engine=self._missing_engine,
            is_engine_of_other_kind=self.observation.has_embedding_name,
        )

    def _find_blocked_network(self) -> str:
        """Return the database's network if it contains only nodes, so that it stays blocked; empty: it does not."""
        database = self.spec.gateway.database
        is_blocked = database is not None and find_covered_node(database.egress, self.nodes)
        return str(database.egress.cidr) if database and is_blocked else ""

    def _list_models(self) -> tuple[ModelSettings, ...]:
        callers = self.spec.callers.namespaces
        models = (model for _, model in sorted(self.observation.models.items()) if model is not None)
        return tuple(restrict_callers(model, callers) for model in models if model.name not in self._unreachable)

    def _should_publish_unready(self) -> bool:
        """Return whether the Service leads to pods that are not ready: they tell callers why none can serve.

        From the first report of data that cannot be used, until a pod is ready that can use them: so callers always
        get an answer, and a start, however long, changes no Service. A pod that can serve keeps the others out.
        """
        pods = [pod for pod in self.observation.pods if not pod.terminating]
        states = [(pod.ready, self.observation.data_states.get(pod.name)) for pod in pods]
        if any(is_ready and (state is None or state.can_serve) for is_ready, state in states):
            return False
        service = self.live.get((self.namespace.name, "Service", GATEWAY_SERVICE)) or {"spec": {}}
        is_published = bool(service["spec"].get("publishNotReadyAddresses"))
        return is_published or any(
            state is not None and not state.can_serve and state.reason is not DataReason.STARTING for _, state in states
        )

    def _build_stages(self, *, is_exclusive: bool | None = None) -> tuple[tuple[Json, ...], ...]:
        """Return the network policy and what pods mount, then the pods, then what leads to them."""
        name, gateway, config = self.namespace.name, self.spec.gateway, self.config
        is_exclusive = self._was_closed if is_exclusive is None else is_exclusive
        assert self.observation.issuer is not None
        issuer = self.observation.issuer
        engine = self.observation.embedding if gateway.embedding is not None else None
        settings = gateway_objects.build_settings(self.namespace, self.spec, self._list_models(), issuer, engine)
        first = [
            gateway_objects.build_network_policy(name, gateway, config, self.nodes, is_exclusive=is_exclusive),
            *gateway_objects.build_service_accounts(name),
            gateway_objects.build_config(settings, issuer),
        ]
        # A claim is made once: a person who enlarges it, as its storage class allows, is not overruled.
        if gateway.database is None and (name, "PersistentVolumeClaim", GATEWAY) not in self.live:
            first.append(gateway_objects.build_claim(name))
        pods = [
            gateway_objects.build_deployment(
                self.spec, settings, config, engine, counts_storage=self.observation.counts_storage
            )
        ]
        last = [gateway_objects.build_service(name, gateway, publishes_unready=self._should_publish_unready())]
        if gateway.replicas > 1:
            last.append(gateway_objects.build_disruption_budget(name))
        if "PodMonitor" in self.observation.kinds:
            last.append(gateway_objects.build_pod_monitor(name, config))
        return tuple(first), tuple(pods), tuple(last)


def _list_unreachable(deployments: Collection[str]) -> list[str]:
    """Return the deployments whose headless Service would have the name of another deployment's Service."""
    return sorted(name for name in deployments if name_pods_service(name) in deployments)


def _is_closed(policy: Json) -> bool:
    annotations = policy["metadata"].get("annotations") or {}
    return bool(annotations.get(ANNOTATION_DIRECT_ACCESS) == gateway_objects.CLOSED)


def is_gateways(obj: Json) -> bool:
    """Return whether an object is part of a gateway."""
    labels = obj["metadata"].get("labels") or {}
    return bool(labels.get(LABEL_ISOLATION) == IsolationPart.GATEWAY.value)


def _get_key(obj: Json) -> ObjectKey:
    return obj["metadata"]["namespace"], obj["kind"], obj["metadata"]["name"]
