"""A namespace as a tenant, on a real API server: walls, what an R1PlusTenant gives and takes, and the prober's runs.

The test plays Job controller and kubelet: it says what the prober's containers found.
"""

from dataclasses import replace

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_contract.monitor.isolation import IsolationProbe
from r1plus_contract.verdict import Verdict
from r1plus_operator.api import kinds
from r1plus_operator.api.tenants import NEVER_OPENED
from r1plus_operator.plan.tenancy import network_policies
from r1plus_operator.runtime.client import ApiClient
from support.apiserver.isolation_runs import Team, start_decoy
from support.apiserver.manifests import CONTEXT, ROLE_BINDING, Json, r1plus_tenant, role_binding, tenant_namespace
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.people import administrator
from support.apiserver.tenant import Tenant

pytestmark = pytest.mark.apiserver
DECOY = "r1plus-decoy"
POLICY = kinds.BY_KIND["NetworkPolicy"]
SPEC: Json = {"tier": "full", "context": CONTEXT}
GIVES: Json = {
    "admins": [{"kind": "Group", "name": "credit-ml"}, {"kind": "ServiceAccount", "name": "ci"}],
    "viewers": [{"kind": "User", "name": "auditor@example.com"}],
    "callers": {"namespaces": ["shop"]},
    "egress": [{"cidr": "0.0.0.0/0", "ports": [443]}, {"namespace": "postgres", "ports": [5432]}],
    "quota": {"deployments": 3, "pods": 20, "cpu": "2000m", "memory": "1024Mi", "storage": "100Gi"},
}


@pytest.fixture(scope="module")
def operator_settings(server: ApiServer) -> dict[str, str]:
    """With a decoy, whose namespace is there before the operator starts."""
    with administrator(server) as admin:
        admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(DECOY))
    return {"R1PLUS_DECOY_NAMESPACE": DECOY}


@pytest.fixture
def team(operator: OperatorProcess, tenant: Tenant) -> Team:
    """The tenant beside an operator that runs."""
    return Team(tenant, DECOY)


@pytest.fixture
async def decoy(operator: OperatorProcess, tenant: Tenant) -> Tenant:
    """The decoy's namespace, where the decoy is up."""
    made = replace(tenant, namespace=DECOY)
    await start_decoy(made)
    return made


async def test_a_labelled_namespace_is_isolated_before_anything_is_in_it(tenant: Tenant, team: Team) -> None:
    deny = await tenant.present("NetworkPolicy", network_policies.DEFAULT_DENY)
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    await tenant.present("NetworkPolicy", network_policies.CALLERS)


async def test_a_policy_that_is_taken_down_or_widened_is_put_back(operator: OperatorProcess, tenant: Tenant) -> None:
    await tenant.delete_and_see_it_back("NetworkPolicy", network_policies.DEFAULT_DENY)
    await tenant.client.patch(POLICY, network_policies.DEFAULT_DENY, tenant.namespace, {"spec": {"ingress": [{}]}})
    await tenant.child_that(
        "NetworkPolicy",
        network_policies.DEFAULT_DENY,
        lambda it: not it["spec"].get("ingress"),
        "nothing comes in again",
    )


@pytest.mark.apiserver_sample
async def test_an_r1plustenant_gives_access_quota_and_ways_out_and_takes_them_with_it(
    tenant: Tenant, team: Team
) -> None:
    await tenant.allow(**GIVES)
    await team.until("Ready", "True", "NetworkPoliciesApplied")
    admins = await tenant.present("RoleBinding", network_policies.ADMINS)
    assert admins["roleRef"]["name"] == names.ROLE_TENANT_ADMIN
    assert [(s["kind"], s["name"], s.get("namespace")) for s in admins["subjects"]] == [
        ("Group", "credit-ml", None),
        ("ServiceAccount", "ci", tenant.namespace),
    ]
    hard = (await tenant.present("ResourceQuota", network_policies.LIMITS))["spec"]["hard"]
    assert hard == {
        "count/configmaps": "500",
        "count/networkpolicies.networking.k8s.io": "100",
        "count/r1plusdeployments.r1plus.ai": "3",
        "count/secrets": "100",
        "count/services": "100",
        "pods": "20",
        "requests.cpu": "2",
        "requests.memory": "1Gi",
        "requests.storage": "100Gi",
    }
    await tenant.present("LimitRange", network_policies.LIMITS)
    out = (await tenant.present("NetworkPolicy", network_policies.CALLERS))["spec"]["egress"][2:]
    assert [way["to"][0] for way in out] == [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": [net for net in NEVER_OPENED if "." in net]}},
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "postgres"}}},
    ]
    cr = await team.cr()
    assert cr is not None
    assert cr["metadata"]["finalizers"] == [names.FINALIZER_TENANT]
    await tenant.allow(viewers=GIVES["viewers"])
    await tenant.absent("RoleBinding", network_policies.ADMINS)
    kinds = ("networkpolicies.networking.k8s.io", "secrets", "services")
    default = {"count/configmaps": "500", **{f"count/{kind}": "100" for kind in kinds}}
    await tenant.child_that(
        "ResourceQuota", network_policies.LIMITS, lambda it: it["spec"]["hard"] == default, "what all watch or write"
    )


async def test_a_pass_over_a_tenant_that_is_as_it_should_be_writes_nothing(
    operator: OperatorProcess, tenant: Tenant, team: Team
) -> None:
    await tenant.allow(**GIVES)
    await team.until("Ready", "True", "NetworkPoliciesApplied")
    parts = (
        ("ResourceQuota", network_policies.LIMITS),
        ("NetworkPolicy", network_policies.CALLERS),
        ("RoleBinding", network_policies.ADMINS),
    )
    kept = [await tenant.present(kind, name) for kind, name in parts]

    def writes() -> tuple[int, int]:
        return operator.log.count(f" {tenant.namespace}/r1plus-"), operator.log.count(f" {DECOY}/decoy")

    before = writes()
    await tenant.label("example.com/note", "asks-for-a-pass")
    await tenant.deploy("later", **SPEC)  # whose own children show that passes have gone by
    await tenant.candidate("later")
    again = [await tenant.present(one["kind"], one["metadata"]["name"]) for one in kept]
    assert [one["metadata"]["resourceVersion"] for one in again] == [one["metadata"]["resourceVersion"] for one in kept]
    # A write that changes nothing moves no version.
    assert writes() == before


async def test_an_r1plustenant_that_is_deleted_waits_for_its_deployments_and_then_takes_access(
    operator: OperatorProcess, tenant: Tenant, team: Team
) -> None:
    await tenant.allow(**GIVES)
    await tenant.present("RoleBinding", network_policies.ADMINS)
    await tenant.deploy("credit", **SPEC)
    await tenant.candidate("credit")
    await team.delete()
    assert "R1PlusDeployment credit" in await team.until("Ready", "False", "Deleting")
    assert await tenant.child("RoleBinding", network_policies.ADMINS) is not None
    operator.restart()  # and does not take what it has not seen yet for gone
    await tenant.deploy("later", **SPEC)
    await tenant.candidate("later")
    assert await tenant.child("RoleBinding", network_policies.ADMINS) is not None
    operator.kill()
    for name in ("credit", "later"):
        await tenant.client.delete(kinds.R1PLUS_DEPLOYMENT, name, tenant.namespace)
    assert await team.cr() is not None
    operator.start()  # the deletion goes on from where it was
    await team.is_gone()
    assert await tenant.child("RoleBinding", network_policies.ADMINS) is None
    assert await tenant.child("ResourceQuota", network_policies.LIMITS) is None
    assert await tenant.child("NetworkPolicy", network_policies.DEFAULT_DENY) is not None


async def test_a_finalizer_that_somebody_else_applied_as_well_holds_nothing_up(tenant: Tenant, team: Team) -> None:
    """As a backup that is restored does, or `kubectl get -o yaml | kubectl apply -f -`."""
    await tenant.allow(**GIVES)
    await tenant.present("RoleBinding", network_policies.ADMINS)
    whole = r1plus_tenant(tenant.namespace, **GIVES)
    whole["metadata"]["finalizers"] = [names.FINALIZER_TENANT]
    await tenant.client.apply(kinds.R1PLUS_TENANT, whole, field_manager="backup")
    await team.delete()
    await team.is_gone()
    assert await tenant.child("RoleBinding", network_policies.ADMINS) is None


async def test_an_r1plustenant_of_a_namespace_whose_label_is_gone_can_be_deleted(tenant: Tenant, team: Team) -> None:
    await tenant.allow(**GIVES)
    await tenant.present("RoleBinding", network_policies.ADMINS)
    await tenant.label(names.LABEL_TENANT, None)
    await team.until("Ready", "False", "NamespaceNotTenant")
    assert await tenant.child("RoleBinding", network_policies.ADMINS) is not None
    await team.delete()
    await team.is_gone()
    assert await tenant.child("RoleBinding", network_policies.ADMINS) is None
    assert await tenant.child("NetworkPolicy", network_policies.DEFAULT_DENY) is not None


async def test_what_the_api_server_refuses_is_told_on_the_r1plustenant(tenant: Tenant, team: Team) -> None:
    """A RoleBinding of that name to another role: what it is bound to cannot be changed."""
    foreign = role_binding(tenant.namespace, network_policies.ADMINS, "view")
    await tenant.client.apply(ROLE_BINDING, foreign, field_manager="somebody")
    await tenant.allow(**GIVES)
    assert "roleRef" in await team.until("Ready", "False", "WriteRefused")
    await tenant.present("NetworkPolicy", network_policies.CALLERS)


async def test_only_callers_that_the_platform_team_allows_are_let_in(operator: OperatorProcess, tenant: Tenant) -> None:
    await tenant.deploy("credit", **SPEC, access={"namespaces": ["shop", "mail"]})

    def let_in(policy: Json) -> list[str]:
        peers = policy["spec"]["ingress"][0]["from"][1:]
        return [peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in peers]

    said = await tenant.until("credit", "IsolationVerified", "False", "CallerNotAllowed")
    assert "mail, shop" in said
    assert let_in(await tenant.present("NetworkPolicy", "credit")) == []
    await tenant.allow(callers={"namespaces": ["shop"]})
    await tenant.child_that(
        "NetworkPolicy", "credit", lambda it: let_in(it) == ["shop"], "shop is let in, and nobody else"
    )
    assert "mail" in (await tenant.condition("credit", "IsolationVerified"))[2]


async def test_a_namespace_that_is_not_restricted_is_told_and_never_relabelled(tenant: Tenant, team: Team) -> None:
    await tenant.allow()
    await tenant.label(names.LABEL_POD_SECURITY, "baseline")
    said = await team.until("IsolationVerified", "False", "NamespaceNotRestricted")
    assert "baseline" in said
    labels = (await tenant.client.get(kinds.NAMESPACE, tenant.namespace))["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "baseline"


async def test_a_label_that_goes_in_mid_rollout_holds_the_rollout_and_nothing_that_serves(
    tenant: Tenant, team: Team
) -> None:
    serves = await tenant.serve()
    await tenant.deploy("credit", **{**SPEC, "context": {"maxTokens": 2048}})
    candidate = await tenant.candidate("credit")
    await tenant.present("Deployment", candidate)
    await tenant.label(names.LABEL_TENANT, None)
    await tenant.until("credit", "IsolationVerified", "False", "NamespaceNotTenant")
    pod = await tenant.run_pod(candidate, ready=False)
    await tenant.decide(candidate, Verdict.PASS)
    await tenant.set_ready(pod, ready=True)
    await tenant.set_ready(f"{serves}-pod", ready=False)  # passes go on
    await tenant.until("credit", "Ready", "False", "NotServing")
    await tenant.set_ready(f"{serves}-pod", ready=True)
    await tenant.until("credit", "Ready", "True", "Serving")
    assert await tenant.selected() == serves
    await tenant.label(names.LABEL_TENANT, "true")
    await tenant.switched(candidate)


@pytest.mark.apiserver_sample
async def test_a_run_knocks_under_the_policies_of_what_serves_and_its_findings_are_the_condition(
    tenant: Tenant, team: Team, decoy: Tenant
) -> None:
    await tenant.allow()
    await tenant.deploy("credit", **SPEC)
    assert not await team.jobs()  # nothing serves
    await tenant.bring_up("credit")
    jobs = await team.run()
    knock = jobs[IsolationProbe.KNOCK]["spec"]["template"]
    assert knock["metadata"]["labels"][names.LABEL_DEPLOYMENT] == "credit"
    assert knock["spec"]["automountServiceAccountToken"] is False
    assert jobs[IsolationProbe.CONTROL]["metadata"]["namespace"] == DECOY
    await team.until("IsolationVerified", "Unknown", "Probing")
    await team.play(jobs, blind=("metadata",))
    said = await team.until("IsolationVerified", "True", "IsolationEnforced")
    assert "metadata" in said
    assert await tenant.until("credit", "IsolationVerified", "True", "IsolationEnforced") == said
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
        pytest.param(("decoy-pod:8002",), "IsolationBroken", id="one door"),
        pytest.param(("secret",), "IsolationBroken", id="one question"),
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
async def test_an_open_policy_is_told_and_a_policy_made_anew_is_tried_again(
    operator: OperatorProcess, tenant: Tenant, team: Team, decoy: Tenant, opened: tuple[str, ...], reason: str
) -> None:
    await tenant.allow()
    await tenant.serve()
    jobs = await team.run()
    await team.play(jobs, opened=opened)
    assert opened[0] in await team.until("IsolationVerified", "False", reason)
    await tenant.until("credit", "IsolationVerified", "False", reason)
    operator.restart()
    await operator.has_made_passes()  # what was found is read from the cluster again
    assert opened[0] in await team.until("IsolationVerified", "False", reason)


async def test_whatever_is_labelled_a_reserved_namespace_is_no_tenant(
    operator: OperatorProcess, client: ApiClient, tenant: Tenant
) -> None:
    body = {"metadata": {"labels": {names.LABEL_TENANT: "true"}}}
    await client.patch(kinds.NAMESPACE, "default", None, body)
    try:
        await tenant.present("NetworkPolicy", network_policies.DEFAULT_DENY)
        default = replace(tenant, namespace="default")
        await default.deploy("credit", **SPEC)
        await default.until("credit", "IsolationVerified", "False", "NamespaceReserved")
        assert await default.child("NetworkPolicy", network_policies.DEFAULT_DENY) is None
    finally:
        await client.patch(kinds.NAMESPACE, "default", None, {"metadata": {"labels": {names.LABEL_TENANT: None}}})
        await client.delete(kinds.R1PLUS_DEPLOYMENT, "credit", "default")


DEDICATED: Json = {"key": "dedicated", "value": "credit", "effect": "NoSchedule"}


async def test_a_toleration_is_allowed_by_the_r1plustenant_alone(operator: OperatorProcess, tenant: Tenant) -> None:
    await tenant.deploy("credit", tier="full", placement={"tolerations": [DEDICATED]})
    said = await tenant.until("credit", "CapacityFits", "False", "PlacementNotAllowed")
    assert said.startswith("spec.placement.tolerations[0]: dedicated: R1PlusTenant tenant does not allow")
    assert await tenant.listed("Deployment") == await tenant.listed("ControllerRevision") == []
    await tenant.allow(placement={"tolerations": [DEDICATED]})
    revision = await tenant.candidate("credit")
    made = await tenant.present("Deployment", revision)
    assert made["spec"]["template"]["spec"]["tolerations"] == [DEDICATED]
    await tenant.allow(quota={"pods": 20})
    await tenant.until("credit", "CapacityFits", "False", "PlacementNotAllowed")
