"""Plan a namespace as a tenant: its network policies, its grants, and its isolation tests. Pure, like `plan`.

There is one pass per namespace. Network policies come first and depend on the namespace's label only. What an
R1PlusTenant grants (access, quota, egress) is deleted with it. A pass that writes a network policy starts no isolation
test: a test is for policies that are in place.
"""

import hashlib
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from r1plus_contract import names
from r1plus_contract.gateway import GATEWAY_SERVICE
from r1plus_contract.jsonable import dumps
from r1plus_contract.timestamps import format_timestamp
from r1plus_model_repo.catalog.types import spec_problems
from r1plus_operator.api.conditions import ConditionType, Finding, Reason
from r1plus_operator.api.tenants import DeletionPolicy, R1PlusTenantSpec
from r1plus_operator.plan.manifests.drift import (
    foreign_items_patch,
    is_in_sync,
    with_preconditions,
    with_spec_hash,
)
from r1plus_operator.plan.observation import Json, NamespaceFacts, TenantView
from r1plus_operator.plan.settings import OperatorConfig
from r1plus_operator.plan.status.conditions import build_conditions
from r1plus_operator.plan.status.kstatus_conditions import derive_tenant_standing
from r1plus_operator.plan.tenancy import decoy, isolation_test_jobs, isolation_test_run, network_policies
from r1plus_operator.plan.tenancy.gateway import GatewayObservation, GatewayPlan, is_gateways, plan_gateway
from r1plus_operator.plan.tenancy.isolation_condition import derive_isolation_condition
from r1plus_operator.plan.tenancy.isolation_test_run import IsolationTestResult

QUOTA_KINDS = ("ResourceQuota", "LimitRange")
TENANT_GRANTS = (*QUOTA_KINDS, "RoleBinding")
"""Kinds that an R1PlusTenant grants, and that are deleted with it."""
GATEWAY_KINDS = ("ConfigMap", "PersistentVolumeClaim", "PodDisruptionBudget", "PodMonitor")
"""Kinds that only a gateway has."""
TENANT_KINDS = ("NetworkPolicy", *TENANT_GRANTS, "ServiceAccount", "Job", "Deployment", "Service", *GATEWAY_KINDS)
"""Kinds of objects that belong to a tenant, including the decoy's and the gateway's."""
RETAINED_KINDS = ("ServiceAccount", "Service")
"""Kinds that stay until the namespace is deleted, because they do nothing: accounts without rights, empty Services."""
DATA_KINDS = ("ServiceAccount", "PersistentVolumeClaim")
"""Kinds of a gateway's objects that outlive it."""
ObjectKey = tuple[str, str, str]
"""Namespace, kind and name."""


@dataclass(frozen=True, slots=True)
class TenantObservation:
    """What a pass over a tenant's namespace has read."""

    namespace: NamespaceFacts
    cr: Json | None
    """Its R1PlusTenant: metadata, spec and the status that was written last."""
    live: Mapping[ObjectKey, Json]
    """Objects that the operator created for it, in its own namespace and in the decoy's."""
    deleting: frozenset[ObjectKey] = frozenset()
    """Objects that are being deleted."""
    deployments: tuple[str, ...] = ()
    """Its R1PlusDeployments."""
    volumes: tuple[str, ...] = ()
    """Its PersistentVolumeClaims for engines."""
    policy_digests: Mapping[str, str] = field(default_factory=dict)
    """Deployment that serves -> digest of its NetworkPolicy as the cluster stores it."""
    node_addresses: tuple[str, ...] = ()
    pods: isolation_test_run.Pods = field(default_factory=dict)
    """Pods of the isolation test's Jobs."""
    is_decoy_ready: bool = False
    at_concurrency_limit: bool = False
    """Whether the maximum number of runs of other tenants is active."""
    write_error: str = ""
    """The write that failed in the last pass, with the API server's message and the remedy; empty: none failed."""
    gateway: GatewayObservation = field(default_factory=GatewayObservation)


@dataclass(frozen=True, slots=True)
class TenantPlan:
    """What to write. `apply` is in stages: a stage is complete before the next begins."""

    view: TenantView
    clear: tuple[tuple[str, str, str, tuple[Json, ...]], ...] = ()
    """(namespace, kind, name, JSON patch): items that others put into lists of the gateway's objects."""
    apply: tuple[tuple[Json, ...], ...] = ()
    delete: tuple[tuple[str, str, str, str], ...] = ()
    """(namespace, kind, name, uid)."""
    finalizer: bool | None = None
    """Whether the R1PlusTenant should have a finalizer from now on; None: no change."""
    status: Json | None = None
    """Status of the R1PlusTenant; None: there is none, or it is up to date."""
    newest: IsolationTestResult | None = None
    """The newest run that has ended."""
    has_active_run: bool = False
    """Whether a run is active, or begins now."""
    gateway_status: str = ""
    """Status of condition GatewayReady; empty: no gateway is enabled."""
    gateway_ready_pods: int = 0
    """How many of its pods take requests, whatever the condition says of its setup."""
    requeue_after: float | None = None

    @property
    def has_changes(self) -> bool:
        """Whether this pass writes something that another pass has to continue from."""
        return bool(self.apply or self.delete or self.finalizer is not None)


def plan_tenant(observation: TenantObservation, config: OperatorConfig, now: float) -> TenantPlan:
    """Plan a pass over a namespace. A second one over what the first wrote yields nothing."""
    spec, problem = _read_spec(observation.cr)
    assigns_users = observation.namespace.assigns_users
    own_config = config.for_namespace(assigns_users=assigns_users, run_as_user=spec.run_as_user)
    tenant_pass = _TenantPass(observation, own_config, now, spec, problem)
    refusal = _check_is_tenant(observation, config)
    return tenant_pass.refuse(refusal) if refusal else tenant_pass.plan()


def _read_spec(cr: Json | None) -> tuple[R1PlusTenantSpec, str]:
    """Return the spec, and why it cannot be read.

    Without an R1PlusTenant, or with one that cannot be read, it is the most restrictive spec.
    """
    try:
        return R1PlusTenantSpec.model_validate((cr or {}).get("spec") or {}), ""
    except ValidationError as error:
        return R1PlusTenantSpec(), "; ".join(spec_problems(error, R1PlusTenantSpec))


def _check_is_tenant(observation: TenantObservation, config: OperatorConfig) -> Finding | None:
    """Return why this namespace is not a tenant; None: it is one."""
    name = observation.namespace.name
    if config.is_reserved(name):
        text = f"metadata.namespace: {name} is reserved for Kubernetes, the operator or monitoring; use another one"
        return Finding("False", Reason.NAMESPACE_RESERVED, text)
    if not observation.namespace.is_tenant:
        text = (
            f"metadata.namespace: {name} does not have the label {names.LABEL_TENANT}=true: serving pods stay isolated,"
            " and nothing new is rolled out; the platform team must label it, or move the deployments"
        )
        return Finding("False", Reason.NAMESPACE_NOT_TENANT, text)
    return None


def _read_status(gateway: GatewayPlan) -> str:
    finding = gateway.findings.get(ConditionType.GATEWAY_READY)
    return finding.status if gateway.view is not None and finding is not None else ""


@dataclass(slots=True)
class _TenantPass:
    """One pass over one namespace."""

    observation: TenantObservation
    config: OperatorConfig
    now: float
    spec: R1PlusTenantSpec
    problem: str
    """Why the spec cannot be read; empty: it can."""

    def plan(self) -> TenantPlan:
        observation = self.observation
        runs = isolation_test_run.collect_results(self._list_jobs(), observation.pods, self.config, self.now)
        runs = tuple(one for one in runs if one.run.uid == observation.namespace.uid)
        newest = next((one for one in runs if one.ended_at is not None), None)
        pending_deletions = self._list_pending_deletions()
        gateway = self._plan_gateway(pending_deletions)
        stages = self._build_stages(pending_deletions, gateway)
        writes = tuple(changed_stage for stage in stages if (changed_stage := self._select_changed(stage)))
        if observation.namespace.is_terminating:
            writes = ()  # The API server creates nothing there any more, and deletes everything.
        new_jobs, requeue_after = self._plan_run(runs) if self._is_probed and not writes else ((), None)
        desired = (*(obj for stage in stages for obj in stage), *new_jobs)
        kept_keys = set(map(_get_key, desired)) | self._list_kept_keys(runs, newest) | gateway.kept
        verdict, ready = self._derive_isolation(writes, newest), self._derive_ready(pending_deletions)
        findings = _build_findings(ready, verdict, gateway)
        return TenantPlan(
            view=self._build_view(verdict, gateway),
            clear=tuple(patch for stage in writes for obj in stage if (patch := self._patch_foreign_items(obj))),
            apply=(*writes, *((new_jobs,) if new_jobs else ())),
            delete=self._list_deletions(kept_keys),
            finalizer=self._decide_finalizer(pending_deletions),
            status=self._build_status(newest, findings) if self._keeps_finalizer(pending_deletions) else None,
            newest=newest,
            has_active_run=bool(new_jobs) or (bool(runs) and runs[0].ended_at is None),
            gateway_status=_read_status(gateway),
            gateway_ready_pods=self._count_ready_gateway_pods(),
            requeue_after=min((one for one in (requeue_after, gateway.requeue_after) if one is not None), default=None),
        )

    def _count_ready_gateway_pods(self) -> int:
        return sum(pod.ready and not pod.terminating for pod in self.observation.gateway.pods)

    def refuse(self, refusal: Finding) -> TenantPlan:
        """Plan a pass over a namespace that is not a tenant: existing objects stay.

        So a lost label neither opens nor blocks a connection. An R1PlusTenant that is being deleted still loses its
        grants; otherwise neither it nor its namespace could ever be deleted.
        """
        pending_deletions = self._list_pending_deletions()
        gateway = self._plan_gateway(pending_deletions)
        live, can_delete = self.observation.live, pending_deletions == ()
        granted_keys = {key for key, obj in live.items() if self._is_granted(key, obj)} if can_delete else set()
        findings = _build_findings(refusal, refusal, gateway)
        return TenantPlan(
            view=replace(self._build_view(refusal, gateway), is_tenant=False),
            delete=self._list_deletions(live.keys() - granted_keys),
            finalizer=None if pending_deletions is None else self._decide_finalizer(pending_deletions),
            status=self._build_status(None, findings) if self._keeps_finalizer(pending_deletions) else None,
            gateway_status=_read_status(gateway),
            gateway_ready_pods=self._count_ready_gateway_pods(),
        )

    def _plan_gateway(self, pending_deletions: tuple[str, ...] | None) -> GatewayPlan:
        observation = self.observation
        return plan_gateway(
            observation.namespace,
            self.spec,
            observation.gateway,
            observation.live,
            self.config,
            self.now,
            is_readable=not self.problem,
            is_leaving=self._is_decoy or observation.cr is None or pending_deletions == (),
            is_tenant_deleted=pending_deletions == (),
            nodes=observation.node_addresses,
            write_error=observation.write_error,
        )

    def _patch_foreign_items(self, obj: Json) -> tuple[str, str, str, tuple[Json, ...]] | None:
        """Return the patch that removes what others added to a list of the gateway's, which no apply removes."""
        patch = foreign_items_patch(obj, self.observation.live.get(_get_key(obj))) if is_gateways(obj) else []
        return (*_get_key(obj), tuple(patch)) if patch else None

    def _build_view(self, verdict: Finding, gateway: GatewayPlan) -> TenantView:
        return TenantView(
            verdict.status,
            verdict.reason,
            verdict.message,
            callers=frozenset(self.spec.callers.namespaces),
            placement=self.spec.placement,
            unreadable=self.problem,
            assigns_users=self.observation.namespace.assigns_users,
            run_as_user=self.spec.run_as_user,
            gateway=gateway.view,
        )

    def _list_deletions(self, kept_keys: AbstractSet[ObjectKey]) -> tuple[tuple[str, str, str, str], ...]:
        surplus = [key for key in self.observation.live if key not in kept_keys and not _is_retained(key)]
        return tuple((*key, self.observation.live[key]["metadata"]["uid"]) for key in surplus)

    def _derive_isolation(self, writes: tuple[tuple[Json, ...], ...], newest: IsolationTestResult | None) -> Finding:
        """Return the condition IsolationVerified."""
        missing_policies = [
            obj["metadata"]["name"] for stage in writes for obj in stage if obj["kind"] == "NetworkPolicy"
        ]
        if missing_policies and self.observation.write_error:
            text = (
                f"NetworkPolicy {missing_policies[0]} is missing, because a write fails: {self.observation.write_error}"
            )
            return Finding("False", Reason.WRITE_REFUSED, text)
        if self._is_decoy:
            return Finding(
                "Unknown", Reason.PROBING_OFF, "This namespace is the decoy: isolation is not tested from here"
            )
        return derive_isolation_condition(
            self.observation.namespace, self._is_probed, self._digest_policies(), newest, self.config, self.now
        )

    @property
    def _is_decoy(self) -> bool:
        return self.observation.namespace.name == self.config.isolation.decoy_namespace

    @property
    def _is_probed(self) -> bool:
        return bool(self.config.isolation.decoy_namespace) and not self._is_decoy

    def _list_pending_deletions(self) -> tuple[str, ...] | None:
        """Return the objects that an R1PlusTenant waits for before its grants are deleted; None: it is not deleted."""
        if self.observation.cr is None or not self.observation.cr["metadata"].get("deletionTimestamp"):
            return None
        if self.observation.deployments:
            return tuple(f"R1PlusDeployment {name}" for name in self.observation.deployments)
        return tuple(f"PersistentVolumeClaim {name}" for name in self.observation.volumes)

    def _keeps_finalizer(self, pending_deletions: tuple[str, ...] | None) -> bool:
        """Whether the R1PlusTenant keeps its finalizer: until its grants are gone, too."""
        return pending_deletions != () or any(self._is_granted(key, obj) for key, obj in self.observation.live.items())

    def _is_granted(self, key: ObjectKey, obj: Json) -> bool:
        """Return whether an object goes before its R1PlusTenant: its grants, its gateway, and data that it says."""
        if is_gateways(obj) and key[1] == "PersistentVolumeClaim":
            return self.spec.data.deletion_policy is DeletionPolicy.DELETE
        return key[1] in TENANT_GRANTS or (is_gateways(obj) and key[1] not in DATA_KINDS)

    def _decide_finalizer(self, pending_deletions: tuple[str, ...] | None) -> bool | None:
        if self.observation.cr is None:
            return None
        has_finalizer = names.FINALIZER_TENANT in (self.observation.cr["metadata"].get("finalizers") or ())
        should_have = self._keeps_finalizer(pending_deletions)
        if (
            should_have
            and not has_finalizer
            and (pending_deletions is not None or self.observation.namespace.is_terminating)
        ):
            return None  # The API server refuses a new finalizer on a deleted object; and nothing is granted any more.
        return should_have if should_have != has_finalizer else None

    def _build_stages(self, pending_deletions: tuple[str, ...] | None, gateway: GatewayPlan) -> list[list[Json]]:
        """Return the stages: default deny, exceptions, access rights, the isolation test's needs, the gateway.

        A quota that is there comes first: a full one refuses the others until it is raised.
        """
        namespace = self.observation.namespace.name
        if self._is_decoy:
            return [
                [network_policies.build_default_deny(namespace), *decoy.build_network_policies(self.config)],
                decoy.build_objects(self.config),
            ]
        allowed_egress = [
            way
            for way in self.spec.egress
            if not network_policies.find_covered_node(way, self.observation.node_addresses)
        ]
        callers_policy = network_policies.build_callers_policy(
            namespace, allowed_egress, self.config.dns, self.observation.node_addresses, gateway.view
        )
        stages = [[network_policies.build_default_deny(namespace)], [callers_policy]]
        if self.observation.cr is not None and pending_deletions != ():
            limits = [] if self.problem else network_policies.build_limits(namespace, self.spec.quota)
            is_limited = any(_get_key(obj) in self.observation.live for obj in limits)
            if is_limited:
                stages.insert(0, limits)
            bindings = network_policies.build_role_bindings(namespace, self.spec)
            stages.append(bindings if is_limited else [*limits, *bindings])
            if self.config.has_registry:
                stages.append(network_policies.build_registry_reader(namespace))
        if self._is_probed:
            stages.append(
                [
                    isolation_test_jobs.build_service_account(namespace),
                    isolation_test_jobs.build_network_policy(namespace, self.config),
                ]
            )
        return stages + [list(stage) for stage in gateway.stages]

    def _select_changed(self, stage: list[Json]) -> tuple[Json, ...]:
        pairs = ((obj, self.observation.live.get(_get_key(obj))) for obj in map(with_spec_hash, stage))
        return tuple(
            with_preconditions(obj, live)
            for obj, live in pairs
            if not is_in_sync(obj, live) and _get_key(obj) not in self.observation.deleting
        )

    def _list_jobs(self) -> list[Json]:
        return [live for (_, kind, _), live in self.observation.live.items() if kind == "Job"]

    def _digest_policies(self) -> Mapping[str, str]:
        """Return deployment -> digest of its network policy; empty name: of the namespace's own policies."""
        own_kind = (self.observation.namespace.name, "NetworkPolicy")
        own = [live for key, live in self.observation.live.items() if key[:2] == own_kind]
        return {**self.observation.policy_digests, "": hash_policies(own)} if self.observation.policy_digests else {}

    def _plan_run(self, runs: tuple[IsolationTestResult, ...]) -> tuple[tuple[Json, ...], float | None]:
        """Return the Jobs to create now, and after how many seconds to plan again."""
        policy_digests = self._digest_policies()
        if not policy_digests or not self.observation.is_decoy_ready or self.observation.namespace.is_terminating:
            return (), None
        latest = runs[0] if runs else None
        wait = isolation_test_run.compute_wait(latest, policy_digests, self.config.isolation.interval, self.now)
        if wait == float("inf"):
            assert latest is not None
            # A run that a crash left incomplete gets its missing Jobs: each Job's annotation defines all three.
            missing_jobs = [
                job
                for job in isolation_test_jobs.build_jobs(latest.run, self.config)
                if job["metadata"]["name"] not in latest.jobs
            ]
            wait = min(max(1.0, latest.deadline - self.now), 2.0 * isolation_test_run.DEADLINE_SECONDS)
            return tuple(map(with_spec_hash, missing_jobs)), wait
        if wait > 0:
            return (), wait
        if self.observation.at_concurrency_limit:
            return (), isolation_test_run.CONCURRENCY_WAIT_SECONDS
        namespace = self.observation.namespace
        run = isolation_test_run.choose_next_run(namespace.name, namespace.uid, policy_digests, latest, self.now)
        return tuple(map(with_spec_hash, isolation_test_jobs.build_jobs(run, self.config))), None

    def _list_kept_keys(
        self, runs: tuple[IsolationTestResult, ...], newest: IsolationTestResult | None
    ) -> set[ObjectKey]:
        """Return the Jobs of the newest ended run and of an active one; also the quota, if the spec is unreadable."""
        kept_results = [one for one in runs if one is newest or (one is runs[0] and one.ended_at is None)]
        job_keys = {_get_key(job) for one in kept_results for job in one.jobs.values()} if self._is_probed else set()
        return job_keys | ({key for key in self.observation.live if key[1] in QUOTA_KINDS} if self.problem else set())

    def _derive_ready(self, pending_deletions: tuple[str, ...] | None) -> Finding:
        if pending_deletions is not None:
            objects = ", ".join(pending_deletions[:10]) or "its grants: access, quota and limits"
            text = f"Deletion waits until these are gone: {objects}; network policies stay with the namespace"
            return Finding("False", Reason.DELETING, text)
        if self.problem:
            text = (
                f"{self.problem}; until you correct it, callers, egress and admins are not allowed, and the quota stays"
            )
            return Finding("False", Reason.INVALID_SPEC, text)
        if self.observation.write_error:
            return Finding(
                "False", Reason.WRITE_REFUSED, f"A write of the operator fails: {self.observation.write_error}"
            )
        blocked_networks = [
            f"spec.egress[{i}].cidr: {way.cidr} contains only nodes ({node}), and would open their own ports: it stays"
            " blocked; name another network"
            for i, way in enumerate(self.spec.egress)
            if (node := network_policies.find_covered_node(way, self.observation.node_addresses))
        ]
        if blocked_networks:
            return Finding("False", Reason.EGRESS_NOT_OPENED, "; ".join(blocked_networks))
        return Finding(
            "True", Reason.NETWORK_POLICIES_APPLIED, "Network policies deny all traffic except what spec allows"
        )

    def _build_status(
        self, newest: IsolationTestResult | None, findings: Mapping[ConditionType, Finding]
    ) -> Json | None:
        """Return the R1PlusTenant's status; None: there is nothing to write."""
        cr = self.observation.cr
        if cr is None:
            return None
        before = cr.get("status") or {}
        generation = int(cr["metadata"].get("generation", 0))
        new_conditions = build_conditions(
            {**findings, **derive_tenant_standing(findings)}, before, generation, self.now
        )
        status: Json = {
            "observedGeneration": generation,
            "conditions": new_conditions,
            **_build_isolation_status(newest),
        }
        return status if status != before else None


def _build_findings(ready: Finding, isolation: Finding, gateway: GatewayPlan) -> dict[ConditionType, Finding]:
    return {ConditionType.READY: ready, ConditionType.ISOLATION_VERIFIED: isolation, **gateway.findings}


def _is_retained(key: ObjectKey) -> bool:
    return key[1] in RETAINED_KINDS and key[1:] != ("Service", GATEWAY_SERVICE)


def _build_isolation_status(newest: IsolationTestResult | None) -> Json:
    """Return `status.isolation`: what the newest run attempted, and what was blocked."""
    if newest is None or newest.ended_at is None:
        return {}
    judgement = newest.judgement
    status = {
        "deployment": newest.run.deployment,
        "finished": format_timestamp(newest.ended_at),
        "tries": len(judgement.held) + len(judgement.open) + len(judgement.unseen) + len(judgement.failed),
        "held": len(judgement.held),
        "open": list(judgement.open),
        "unseen": [*judgement.unseen, *judgement.failed],
        "late": judgement.late,
    }
    return {"isolation": status}


def hash_policies(policies: Iterable[Json]) -> str:
    """Return a digest of stored NetworkPolicies, in 8 hex digits. It covers their uids, so a new object changes it."""
    contents = sorted(dumps([p["metadata"]["name"], p["metadata"]["uid"], p.get("spec")]) for p in policies)
    return hashlib.sha256(dumps(contents).encode()).hexdigest()[:8]


def _get_key(obj: Json) -> ObjectKey:
    return obj["metadata"]["namespace"], obj["kind"], obj["metadata"]["name"]
