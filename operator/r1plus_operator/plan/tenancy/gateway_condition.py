"""Condition GatewayReady of an R1PlusTenant: the first check that applies.

The pods' states show what Secrets lack, and the pods report what is wrong with the tenant's data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from r1plus_contract.gateway import GATEWAY, GATEWAY_KEY, GATEWAY_SERVICE, DataState
from r1plus_operator.api.conditions import ConditionType, Finding, Reason
from r1plus_operator.api.tenants import Gateway
from r1plus_operator.plan.observation import ContainerFacts, PodFacts

VOLUMES_SECONDS = 20.0
"""Time in which a node mounts a pod's volumes and creates its network, if nothing is missing."""
MAX_LISTED = 5
MAX_DETAIL = 600
SHOW_POD = "`kubectl describe pod -l r1plus.ai/gateway=true`, in this namespace, says what is missing"


@dataclass(frozen=True, slots=True)
class GatewayState:
    """What the condition is derived from, while the gateway is enabled."""

    gateway: Gateway
    pods: tuple[PodFacts, ...]
    data_states: Mapping[str, DataState] = field(default_factory=dict)
    """Name of a pod -> what it reports of the tenant's data; none: it has not answered."""
    missing: tuple[str, ...] = ()
    """Objects that are not in place yet, as `KIND NAME`."""
    write_error: str = ""
    """The write that failed in the last pass, with the remedy; empty: none failed."""
    refused_pods: str = ""
    """Why the API server refuses the Deployment's pods; empty: it does not."""
    models: tuple[str, ...] = ()
    unreachable: tuple[str, ...] = ()
    """Deployments whose headless Service would have another deployment's name."""
    has_image: bool = True
    has_issuer: bool = True
    is_name_taken: bool = False
    """Whether an R1PlusDeployment has the name of the gateway's Service."""
    blocked_network: str = ""
    """The database's network, if it contains only nodes; empty: it does not."""
    missing_engine: str = ""
    """The engine that `spec.gateway.embedding` names, if it cannot embed; empty: it can, or none is named."""
    is_engine_of_other_kind: bool = False
    """Whether the cluster has it, but not as one of kind embedding."""

    @property
    def live_pods(self) -> list[PodFacts]:
        """The pods that are not terminating, sorted by name."""
        return sorted((pod for pod in self.pods if not pod.terminating), key=lambda pod: pod.name)

    @property
    def ready_pods(self) -> int:
        """How many of them are ready."""
        return sum(1 for pod in self.live_pods if pod.ready)


def derive_gateway_condition(state: GatewayState, now: float) -> Finding:
    """Return the condition of an enabled gateway."""
    return (
        _report_setup_problem(state)
        or _report_ready(state)
        or _find_pod_problem(state, now)
        or Finding("False", Reason.STARTING, _explain_start(state))
    )


def report_disabled() -> dict[ConditionType, Finding]:
    """Return the conditions of a gateway that was switched off, while its data exist."""
    text = (
        f"The gateway is switched off. PersistentVolumeClaim {GATEWAY} still holds its data, which Secret {GATEWAY_KEY}"
        " opens. Set spec.gateway.enabled to use them again, or let the platform team delete both"
    )
    unknown = Finding("Unknown", Reason.DISABLED, "The gateway is switched off, so nothing reports on its data")
    return {ConditionType.GATEWAY_READY: Finding("False", Reason.DISABLED, text), ConditionType.DATA_READY: unknown}


def compute_volumes_wait(state: GatewayState, now: float) -> float | None:
    """Return the seconds until a pod whose volumes are not mounted counts as one that lacks something."""
    waits = [
        pod.volumes_pending_since + VOLUMES_SECONDS - now
        for pod in state.live_pods
        if pod.volumes_pending_since is not None
    ]
    return min((wait for wait in waits if wait > 0), default=None)


def _explain_missing_engine(state: GatewayState) -> str:
    what = (
        "is not of kind embedding, or cannot be read"
        if state.is_engine_of_other_kind
        else "does not exist in this cluster"
    )
    return (
        f"spec.gateway.embedding.engine: R1PlusEngine {state.missing_engine} {what}, so nothing of the gateway is made"
        " or changed: name an engine of kind embedding, which `kubectl get r1plusengines` lists, or apply it"
    )


def _report_setup_problem(state: GatewayState) -> Finding | None:
    """Return what keeps the gateway from being made or changed, and whether pods serve all the same."""
    problem, ready = _find_setup_problem(state), state.ready_pods
    if problem is None or not ready:
        return problem
    text = f". Pods that run go on unchanged: {ready} of {state.gateway.replicas} are ready"
    return replace(problem, message=problem.message + text)


def _find_setup_problem(state: GatewayState) -> Finding | None:
    if not state.has_image:
        text = "No image for gateways is set, so none is made or changed: set the chart's images.gateway"
        return Finding("False", Reason.IMAGE_NOT_SET, text)
    if state.is_name_taken:
        text = (
            f"R1PlusDeployment {GATEWAY_SERVICE} has the name of the gateway's Service, so nothing of the gateway is"
            " made or changed: deploy it under another name"
        )
        return Finding("False", Reason.NAME_TAKEN, text)
    if state.blocked_network:
        text = (
            f"spec.gateway.database.egress.cidr: {state.blocked_network} contains only nodes, and would open their own"
            " ports: it stays blocked; name another network"
        )
        return Finding("False", Reason.EGRESS_NOT_OPENED, text)
    if state.missing_engine:
        return Finding("False", Reason.ENGINE_NOT_FOUND, _explain_missing_engine(state))
    if state.missing and state.write_error:
        return Finding("False", Reason.WRITE_REFUSED, f"{state.missing[0]} is not in place: {state.write_error}")
    if not state.has_issuer:
        text = (
            "The API server has not told its token issuer and keys yet (/.well-known/openid-configuration,"
            " /openid/v1/jwks), so the gateway could not verify ServiceAccounts; the operator retries, and its log says"
            " why"
        )
        return Finding("False", Reason.ISSUER_UNKNOWN, text)
    return None


def _report_ready(state: GatewayState) -> Finding | None:
    ready = state.ready_pods
    if not ready or state.missing:
        return None
    models = f"{len(state.models)} model{'' if len(state.models) == 1 else 's'}"
    text = f"{ready} of {state.gateway.replicas} pods are ready; Service {GATEWAY_SERVICE} serves {models}"
    return Finding("True", Reason.READY, text + _explain_unreachable(state))


def _explain_unreachable(state: GatewayState) -> str:
    if not state.unreachable:
        return ""
    rest = len(state.unreachable) - MAX_LISTED
    listed = ", ".join(state.unreachable[:MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")
    return (
        f". Without {listed}: R1PlusDeployment NAME-pods has the name of its headless Service; deploy one of the two"
        " under another name"
    )


def _find_pod_problem(state: GatewayState, now: float) -> Finding | None:
    if state.refused_pods:
        if "exceeded quota" in state.refused_pods or "must specify" in state.refused_pods:
            text = f"{state.refused_pods}; raise spec.quota of the R1PlusTenant"
            return Finding("False", Reason.QUOTA_EXCEEDED, text)
        text = f"{state.refused_pods}; ask the owner of this namespace's admission policies to allow the gateway's pods"
        return Finding("False", Reason.POD_REFUSED, text)
    for pod in state.live_pods:
        if pod.unschedulable:
            text = f"Pod {pod.name}: {pod.unschedulable}; free capacity, or provide a default storage class"
            return Finding("False", Reason.UNSCHEDULABLE, text)
        if problem := find_missing_volumes(state.gateway, pod, now):
            return problem
        if problem := _find_data_problem(pod, state.data_states.get(pod.name)):
            return problem
        for container in pod.containers:
            if problem := _find_container_problem(pod, container):
                return problem
    return None


def _find_data_problem(pod: PodFacts, data: DataState | None) -> Finding | None:
    if data is None or data.can_serve or pod.ready:
        return None
    text = f"Pod {pod.name} cannot use the tenant's data: {shorten(data.message)}"
    return Finding("False", Reason(data.reason.value), text)


def shorten(message: str) -> str:
    """Return a pod's message in one line of at most `MAX_DETAIL` characters."""
    return " ".join(message.split())[:MAX_DETAIL]


def find_missing_volumes(gateway: Gateway, pod: PodFacts, now: float) -> Finding | None:
    """Return what a pod's volumes lack. The operator cannot read Secrets, so it names all that the pod mounts."""
    if pod.volumes_pending_since is None or now - pod.volumes_pending_since < VOLUMES_SECONDS:
        return None
    secrets = [GATEWAY_KEY]
    secrets += [gateway.tls.secret_name] if gateway.tls else []
    secrets += [gateway.database.secret_name] if gateway.database else []
    claim = "" if gateway.database else f", or PersistentVolumeClaim {GATEWAY} cannot be attached"
    text = (
        f"Pod {pod.name} waits for its volumes: one of these Secrets is missing ({', '.join(secrets)}){claim}."
        f" `r1plus tenant init -n NAMESPACE` makes {GATEWAY_KEY}; {SHOW_POD}"
    )
    return Finding("False", Reason.KEY_MISSING, text)


def _find_container_problem(pod: PodFacts, container: ContainerFacts) -> Finding | None:
    detail = f": {container.message.strip()[:MAX_DETAIL]}" if container.message else ""
    if container.has_pull_error:
        text = f"Pod {pod.name} cannot get its image{detail}; check the chart's images.gateway and imagePullSecrets"
        return Finding("False", Reason.IMAGE_PULL_FAILED, text)
    if container.waiting_reason == "CrashLoopBackOff":
        text = (
            f"Container {container.name} of pod {pod.name} exits repeatedly (last exit code {container.exit_code})"
            f"{detail}; its log says why: kubectl logs {pod.name} -c {container.name}"
        )
        return Finding("False", Reason.CRASH_LOOPING, text)
    return None


def _explain_start(state: GatewayState) -> str:
    if state.missing:
        return f"Not in place yet: {', '.join(state.missing[:MAX_LISTED])}; wait"
    if not state.live_pods:
        return f"Deployment {GATEWAY} has no pod yet; wait"
    pod = state.live_pods[0].name
    if not state.models:
        return f"Pod {pod} is not ready, and no deployment of this namespace serves; deploy a model, or wait for one"
    return f"Pod {pod} is not ready yet; wait, or see what it lacks: kubectl logs {pod}"
