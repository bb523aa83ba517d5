"""A namespace as a tenant, on a real API server: walls, what an R1PlusTenant gives and takes, and the prober's runs.

The test plays Job controller and kubelet: it says what the prober's containers found.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from apiserver.operator_rig import NAMESPACES, OperatorProcess, Tenant, add_node, eventually, grant
from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_contract.isolation import Door, Findings, Outcome, Probe, Question, Try
from r1plus_contract.jsonable import dumps, from_jsonable
from r1plus_contract.verdict import Verdict
from r1plus_operator.api import kinds
from r1plus_operator.api.tenants import NEVER_OPENED
from r1plus_operator.plan import walls
from r1plus_operator.plan.probing import read
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import NotFoundError

pytestmark = pytest.mark.apiserver
Json = dict[str, Any]
DECOY = "r1plus-decoy"
POLICY, JOB, BINDING = (kinds.BY_KIND[kind] for kind in ("NetworkPolicy", "Job", "RoleBinding"))
SPEC: Json = {"tier": "full", "context": {"maxTokens": 1024}}
NOW = "2026-01-01T00:00:00Z"
GIVES: Json = {
    "admins": [{"kind": "Group", "name": "credit-ml"}, {"kind": "ServiceAccount", "name": "ci"}],
    "viewers": [{"kind": "User", "name": "auditor@example.com"}],
    "callers": {"namespaces": ["shop"]},
    "egress": [{"cidr": "0.0.0.0/0", "ports": [443]}, {"namespace": "postgres", "ports": [5432]}],
    "quota": {"deployments": 3, "pods": 20, "cpu": "2000m", "memory": "1024Mi", "storage": "100Gi"},
}


@pytest.fixture
async def operator(apiserver: ApiServer, client: ApiClient, tmp_path: Path) -> AsyncIterator[OperatorProcess]:
    await grant(client)
    await add_node(client)
    labels = {names.LABEL_TENANT: "true", names.LABEL_POD_SECURITY: "restricted"}
    decoy = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": DECOY, "labels": labels}}
    await client.apply(NAMESPACES, decoy, field_manager="test")
    process = OperatorProcess(apiserver, tmp_path / "operator.log", R1PLUS_DECOY_NAMESPACE=DECOY)
    process.start()
    yield process
    process.kill()


@dataclass
class Team:
    """The tenant with its R1PlusTenant, and the prober's pods."""

    tenant: Tenant

    async def give(self, **spec: Any) -> None:
        cr = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND_TENANT,
            "metadata": {"name": names.TENANT, "namespace": self.tenant.namespace},
            "spec": spec,
        }
        await self.tenant.client.apply(kinds.R1PLUS_TENANT, cr, field_manager="platform")

    async def cr(self) -> Json | None:
        try:
            return await self.tenant.client.get(kinds.R1PLUS_TENANT, names.TENANT, self.tenant.namespace)
        except NotFoundError:
            return None

    async def gone(self) -> None:
        async def is_gone() -> bool:
            return await self.cr() is None

        await eventually(is_gone, "the R1PlusTenant is gone")

    async def until(self, kind: str, status: str, reason: str) -> str:
        found: Json = {}

        async def holds() -> bool:
            conditions = ((await self.cr()) or {}).get("status", {}).get("conditions", [])
            found.update(next((c for c in conditions if c["type"] == kind), {}))
            return (found.get("status"), found.get("reason")) == (status, reason)

        await eventually(holds, f"R1PlusTenant: {kind} {status}/{reason}")
        return str(found["message"])

    async def label(self, labels: dict[str, str | None]) -> None:
        await self.tenant.client.patch(NAMESPACES, self.tenant.namespace, None, {"metadata": {"labels": labels}})

    async def jobs(self) -> dict[str, Json]:
        """Probe -> Job of the newest run."""
        found: list[Json] = []
        for namespace in (self.tenant.namespace, DECOY):
            listed, _ = await self.tenant.client.list(JOB, namespace)
            found += [job for job in listed if (run := read(job)) and run.namespace == self.tenant.namespace]
        newest = max((run.started, run.id) for job in found if (run := read(job))) if found else None
        of_it = [job for job in found if (run := read(job)) and (run.started, run.id) == newest]
        return {job["spec"]["template"]["metadata"]["labels"][names.LABEL_PROBE]: job for job in of_it}

    async def run(self, *, other_than: str = "") -> dict[str, Json]:
        """Wait for a run's Jobs."""
        found: dict[str, Json] = {}

        async def made() -> bool:
            found.clear()
            found.update(await self.jobs())
            return len(found) == 3 and found[Probe.KNOCK]["metadata"]["name"] != other_than

        await eventually(made, "three Jobs of a run")
        return found

    async def play(self, jobs: dict[str, Json], *, opened: tuple[str, ...] = (), blind: tuple[str, ...] = ()) -> None:
        """What Job controller and kubelet would write; the tries named are open, the control sees the blind ones shut."""
        for probe, job in jobs.items():
            said = []
            for container in job["spec"]["template"]["spec"]["containers"]:
                arguments = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
                kind: Any = tuple[Door, ...] if "--doors" in arguments else tuple[Question, ...]
                text = arguments.get("--doors") or arguments["--questions"]
                tried = from_jsonable(kind, json.loads(text), "arguments")

                def outcome(one: Door | Question, by_right: bool = probe == Probe.CONTROL) -> Outcome:
                    if by_right:
                        return Outcome.SHUT if one.name in blind else Outcome.OPEN
                    own = isinstance(one, Door) and one.against == "own"
                    return Outcome.OPEN if own or one.name in opened else Outcome.SHUT

                findings = Findings(tuple(Try(one.name, outcome(one)) for one in tried))
                ended = {"exitCode": 0, "reason": "Completed", "message": dumps(findings)}
                said.append({"name": container["name"], "ready": False, "restartCount": 0, "image": "", "imageID": "", "state": {"terminated": ended}})  # fmt: skip
            await self._pod(job, said)
            await end(self.tenant.client, job)

    async def _pod(self, job: Json, said: list[Json]) -> None:
        template, meta = job["spec"]["template"], job["metadata"]
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": meta["namespace"]},
        }
        await self.tenant.client.apply(kinds.BY_KIND["ServiceAccount"], account, field_manager="test")
        spec = {
            key: value for key, value in template["spec"].items() if key not in ("serviceAccountName", "serviceAccount")
        }
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": meta["name"], "uid": meta["uid"], "controller": True}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**template["metadata"], "name": f"{meta['name']}-x", "namespace": meta["namespace"], "ownerReferences": [owner]},
            "spec": spec,
        }  # fmt: skip
        await self.tenant.client.apply(kinds.POD, pod, field_manager="kubelet")
        status = {"phase": "Succeeded", "containerStatuses": said}
        await self.tenant.client.patch(
            kinds.POD, pod["metadata"]["name"], meta["namespace"], {"status": status}, subresource="status"
        )


async def end(client: ApiClient, job: Json) -> None:
    """What the Job controller writes at a Job's end."""
    made = job["metadata"]["creationTimestamp"]
    said = [
        {"type": kind, "status": "True", "reason": "Test", "lastTransitionTime": made, "lastProbeTime": made}
        for kind in ("SuccessCriteriaMet", "Complete")
    ]
    status = {
        "startTime": made,
        "conditions": said,
        "uncountedTerminatedPods": {},
        "completionTime": made,
        "succeeded": 1,
    }
    meta = job["metadata"]
    await client.patch(JOB, meta["name"], meta["namespace"], {"status": status}, subresource="status")


async def decoy_is_up(client: ApiClient) -> None:
    """What the kubelet would do."""
    decoy = Tenant(client, DECOY, None)  # type: ignore[arg-type]
    template = (await decoy.present("Deployment", "decoy"))["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {**template["metadata"], "name": "decoy-x", "namespace": DECOY}, "spec": template["spec"]}  # fmt: skip
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": DECOY}}
    await client.apply(kinds.BY_KIND["ServiceAccount"], account, field_manager="test")
    await client.apply(kinds.POD, pod, field_manager="kubelet")
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    await client.patch(kinds.POD, "decoy-x", DECOY, {"status": ready}, subresource="status")


async def test_a_labelled_namespace_is_walled_before_anything_is_in_it(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    deny = await tenant.present("NetworkPolicy", walls.DEFAULT_DENY)
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    await tenant.present("NetworkPolicy", walls.CALLERS)


async def test_a_wall_that_is_taken_down_or_widened_is_put_back(operator: OperatorProcess, tenant: Tenant) -> None:
    before = await tenant.present("NetworkPolicy", walls.DEFAULT_DENY)
    await tenant.client.delete(POLICY, walls.DEFAULT_DENY, tenant.namespace)

    async def anew() -> bool:
        wall = await tenant.child("NetworkPolicy", walls.DEFAULT_DENY)
        return wall is not None and wall["metadata"]["uid"] != before["metadata"]["uid"]

    await eventually(anew, "the wall stands again")
    await tenant.client.patch(POLICY, walls.DEFAULT_DENY, tenant.namespace, {"spec": {"ingress": [{}]}})

    async def narrow() -> bool:
        wall = await tenant.child("NetworkPolicy", walls.DEFAULT_DENY)
        return wall is not None and not wall["spec"].get("ingress")

    await eventually(narrow, "nothing comes in again")


async def test_an_r1plustenant_gives_access_quota_and_ways_out_and_takes_them_with_it(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    team = Team(tenant)
    await team.give(**GIVES)
    await team.until("Ready", "True", "WallsStand")
    admins = await tenant.present("RoleBinding", walls.ADMINS)
    assert admins["roleRef"]["name"] == names.ROLE_TENANT_ADMIN
    assert [(s["kind"], s["name"], s.get("namespace")) for s in admins["subjects"]] == [
        ("Group", "credit-ml", None),
        ("ServiceAccount", "ci", tenant.namespace),
    ]
    hard = (await tenant.present("ResourceQuota", walls.LIMITS))["spec"]["hard"]
    assert hard == {
        "count/r1plusdeployments.r1plus.ai": "3",
        "pods": "20",
        "requests.cpu": "2",
        "requests.memory": "1Gi",
        "requests.storage": "100Gi",
    }
    await tenant.present("LimitRange", walls.LIMITS)
    out = (await tenant.present("NetworkPolicy", walls.CALLERS))["spec"]["egress"][2:]
    assert [way["to"][0] for way in out] == [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": [net for net in NEVER_OPENED if "." in net]}},
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "postgres"}}},
    ]
    cr = await team.cr()
    assert cr is not None
    assert cr["metadata"]["finalizers"] == [names.FINALIZER_TENANT]
    await team.give(viewers=GIVES["viewers"])
    await tenant.absent("RoleBinding", walls.ADMINS)
    await tenant.absent("ResourceQuota", walls.LIMITS)


async def test_a_pass_over_a_tenant_that_is_as_it_should_be_writes_nothing(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    team = Team(tenant)
    await team.give(**GIVES)
    await team.until("Ready", "True", "WallsStand")
    kept = [await tenant.present(kind, name) for kind, name in (("ResourceQuota", walls.LIMITS), ("NetworkPolicy", walls.CALLERS), ("RoleBinding", walls.ADMINS))]  # fmt: skip
    writes = operator.log.count(f" {tenant.namespace}/r1plus-"), operator.log.count(f" {DECOY}/decoy")
    await team.label({"example.com/note": "asks-for-a-pass"})
    await tenant.deploy("later", **SPEC)  # whose own children show that passes have gone by
    await tenant.candidate("later")
    again = [await tenant.present(one["kind"], one["metadata"]["name"]) for one in kept]
    assert [one["metadata"]["resourceVersion"] for one in again] == [one["metadata"]["resourceVersion"] for one in kept]
    # A write that changes nothing moves no version.
    assert (operator.log.count(f" {tenant.namespace}/r1plus-"), operator.log.count(f" {DECOY}/decoy")) == writes


async def test_an_r1plustenant_that_is_deleted_waits_for_its_deployments_and_then_takes_access(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    team = Team(tenant)
    await team.give(**GIVES)
    await tenant.present("RoleBinding", walls.ADMINS)
    await tenant.deploy("credit", **SPEC)
    await tenant.candidate("credit")
    await tenant.client.delete(kinds.R1PLUS_TENANT, names.TENANT, tenant.namespace)
    assert "R1PlusDeployment credit" in await team.until("Ready", "False", "Deleting")
    assert await tenant.child("RoleBinding", walls.ADMINS) is not None
    operator.kill()
    operator.start()  # and does not take what it has not seen yet for gone
    await tenant.deploy("later", **SPEC)
    await tenant.candidate("later")
    assert await tenant.child("RoleBinding", walls.ADMINS) is not None
    operator.kill()
    for name in ("credit", "later"):
        await tenant.client.delete(kinds.R1PLUS_DEPLOYMENT, name, tenant.namespace)
    assert await team.cr() is not None
    operator.start()  # the deletion goes on from where it was
    await team.gone()
    assert await tenant.child("RoleBinding", walls.ADMINS) is None
    assert await tenant.child("ResourceQuota", walls.LIMITS) is None
    assert await tenant.child("NetworkPolicy", walls.DEFAULT_DENY) is not None


async def test_a_finalizer_that_somebody_else_applied_as_well_holds_nothing_up(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    """As a backup that is restored does, or `kubectl get -o yaml | kubectl apply -f -`."""
    team = Team(tenant)
    await team.give(**GIVES)
    await tenant.present("RoleBinding", walls.ADMINS)
    meta = {"name": names.TENANT, "namespace": tenant.namespace, "finalizers": [names.FINALIZER_TENANT]}
    whole = {"apiVersion": names.API_VERSION, "kind": names.KIND_TENANT, "metadata": meta, "spec": GIVES}
    await tenant.client.apply(kinds.R1PLUS_TENANT, whole, field_manager="backup")
    await tenant.client.delete(kinds.R1PLUS_TENANT, names.TENANT, tenant.namespace)
    await team.gone()
    assert await tenant.child("RoleBinding", walls.ADMINS) is None


async def test_an_r1plustenant_of_a_namespace_whose_label_is_gone_can_be_deleted(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    team = Team(tenant)
    await team.give(**GIVES)
    await tenant.present("RoleBinding", walls.ADMINS)
    await team.label({names.LABEL_TENANT: None})
    await team.until("Ready", "False", "NamespaceNotTenant")
    assert await tenant.child("RoleBinding", walls.ADMINS) is not None
    await tenant.client.delete(kinds.R1PLUS_TENANT, names.TENANT, tenant.namespace)
    await team.gone()
    assert await tenant.child("RoleBinding", walls.ADMINS) is None
    assert await tenant.child("NetworkPolicy", walls.DEFAULT_DENY) is not None


async def test_what_the_api_server_refuses_is_told_on_the_r1plustenant(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    """A RoleBinding of that name to another role: what it is bound to cannot be changed."""
    team = Team(tenant)
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    foreign = {"metadata": {"name": walls.ADMINS, "namespace": tenant.namespace}, "roleRef": role}
    foreign |= {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding"}
    await tenant.client.apply(BINDING, foreign, field_manager="somebody")
    await team.give(**GIVES)
    assert "roleRef" in await team.until("Ready", "False", "WriteRefused")
    await tenant.present("NetworkPolicy", walls.CALLERS)


async def test_only_callers_that_the_platform_team_allows_are_let_in(operator: OperatorProcess, tenant: Tenant) -> None:
    team = Team(tenant)
    await tenant.deploy("credit", **SPEC, access={"namespaces": ["shop", "mail"]})

    async def let_in() -> list[str]:
        wall = await tenant.present("NetworkPolicy", "credit")
        peers = wall["spec"]["ingress"][0]["from"][1:]
        return [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in peers]

    said = await tenant.until("credit", "IsolationVerified", "False", "CallerNotAllowed")
    assert "mail, shop" in said
    assert await let_in() == []
    await team.give(callers={"namespaces": ["shop"]})

    async def shop() -> bool:
        return await let_in() == ["shop"]

    await eventually(shop, "shop is let in, and nobody else")
    assert "mail" in (await tenant.condition("credit", "IsolationVerified"))[2]


async def test_a_namespace_that_is_not_restricted_is_told_and_never_relabelled(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    team = Team(tenant)
    await team.give()
    await team.label({names.LABEL_POD_SECURITY: "baseline"})
    said = await team.until("IsolationVerified", "False", "NamespaceNotRestricted")
    assert "baseline" in said
    labels = (await tenant.client.get(NAMESPACES, tenant.namespace))["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "baseline"


async def test_a_label_that_goes_in_mid_rollout_holds_the_rollout_and_nothing_that_serves(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    team = Team(tenant)
    await tenant.deploy("credit", **SPEC)
    serves = await tenant.bring_up("credit")
    await tenant.deploy("credit", **{**SPEC, "context": {"maxTokens": 2048}})
    candidate = await tenant.candidate("credit")
    await team.label({names.LABEL_TENANT: None})
    await tenant.until("credit", "IsolationVerified", "False", "NamespaceNotTenant")
    pod = await tenant.run_pod(candidate, ready=False)
    await tenant.decide(candidate, Verdict.PASS)
    await tenant.set_ready(pod, ready=True)
    await tenant.client.delete(POLICY, "credit", tenant.namespace)
    await tenant.present("NetworkPolicy", "credit")  # passes go on, and walls stand
    service = await tenant.present("Service", "credit")
    assert service["spec"]["selector"][names.LABEL_REVISION] == serves
    assert (await tenant.condition("credit", "Ready"))[:2] == ("True", "Serving")
    await team.label({names.LABEL_TENANT: "true"})

    async def switched() -> bool:
        service = await tenant.present("Service", "credit")
        return bool(service["spec"]["selector"][names.LABEL_REVISION] == candidate)

    await eventually(switched, "the candidate takes traffic")


async def test_a_run_knocks_under_the_walls_of_what_serves_and_its_findings_are_the_condition(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    team = Team(tenant)
    await team.give()
    await decoy_is_up(tenant.client)
    await tenant.deploy("credit", **SPEC)
    assert not await team.jobs()  # nothing serves
    await tenant.bring_up("credit")
    jobs = await team.run()
    knock = jobs[Probe.KNOCK]["spec"]["template"]
    assert knock["metadata"]["labels"][names.LABEL_DEPLOYMENT] == "credit"
    assert knock["spec"]["automountServiceAccountToken"] is False
    assert jobs[Probe.CONTROL]["metadata"]["namespace"] == DECOY
    await team.until("IsolationVerified", "Unknown", "Probing")
    await team.play(jobs, blind=("metadata",))
    said = await team.until("IsolationVerified", "True", "WallsHeld")
    assert "metadata" in said
    assert await tenant.until("credit", "IsolationVerified", "True", "WallsHeld") == said
    cr = await team.cr()
    assert cr is not None
    told = cr["status"]["isolation"]
    assert (told["deployment"], told["open"], told["unseen"]) == ("credit", [], ["metadata"])
    assert told["held"] == told["tries"] - 1
    # The prober is none of the deployment's pods, and no stranger among them.
    assert (await tenant.condition("credit", "Ready"))[:2] == ("True", "Serving")


@pytest.mark.parametrize(
    ("opened", "reason"),
    [
        pytest.param(("decoy-pod:8002",), "WallOpen", id="one door"),
        pytest.param(("secret",), "WallOpen", id="one question"),
        pytest.param(
            (
                *(f"decoy-{by}:{port}" for by in ("pod", "ingress") for port in (8000, 8001, 8002, 8080)),
                "decoy-service",
            ),
            "NetworkPolicyNotEnforced",
            id="every door of the network",
        ),
    ],
)
async def test_an_open_wall_is_told_and_a_wall_made_anew_is_tried_again(
    operator: OperatorProcess, tenant: Tenant, opened: tuple[str, ...], reason: str
) -> None:
    team = Team(tenant)
    await team.give()
    await decoy_is_up(tenant.client)
    await tenant.deploy("credit", **SPEC)
    await tenant.bring_up("credit")
    jobs = await team.run()
    await team.play(jobs, opened=opened)
    assert opened[0] in await team.until("IsolationVerified", "False", reason)
    await tenant.until("credit", "IsolationVerified", "False", reason)
    operator.kill()
    operator.start()  # what was found is read from the cluster again
    assert opened[0] in await team.until("IsolationVerified", "False", reason)


async def test_whatever_is_labelled_a_reserved_namespace_is_no_tenant(
    operator: OperatorProcess, client: ApiClient, tenant: Tenant
) -> None:
    body = {"metadata": {"labels": {names.LABEL_TENANT: "true"}}}
    await client.patch(NAMESPACES, "default", None, body)
    try:
        await tenant.present("NetworkPolicy", walls.DEFAULT_DENY)
        default = replace(tenant, namespace="default")
        await default.deploy("credit", **SPEC)
        await default.until("credit", "IsolationVerified", "False", "NamespaceReserved")
        assert await default.child("NetworkPolicy", walls.DEFAULT_DENY) is None
    finally:
        await client.patch(NAMESPACES, "default", None, {"metadata": {"labels": {names.LABEL_TENANT: None}}})
        await client.delete(kinds.R1PLUS_DEPLOYMENT, "credit", "default")
