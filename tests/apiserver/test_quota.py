"""A tenant's quota counts what it could make without end: each refusal comes after as many as it allows."""

import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.api.tenants import Quota
from r1plus_operator.plan.tenancy import network_policies
from support.apiserver.isolation_runs import Team
from support.apiserver.manifests import CONTEXT, RESOURCES, SECRET, config_map, manifest, tenant_namespace
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.people import Person, people, until_refused
from support.apiserver.rights import OPERATOR
from support.apiserver.tenant import Tenant
from support.waiting import wait_until

pytestmark = pytest.mark.apiserver


@pytest.fixture(scope="module")
def server(installed_server: ApiServer) -> ApiServer:
    """With the controller that counts what a quota limits."""
    return installed_server


def test_a_tenants_config_maps_are_in_its_quota(installed_server: ApiServer, admin: Person) -> None:
    # Kubernetes makes one of its own.
    suites = [config_map(f"suite-{number}", labels={names.LABEL_SUITE: "x"}) for number in range(4)]
    assert_counted(installed_server, admin, "configMaps", "count/configmaps", suites, there=1)


def test_what_every_node_writes_of_a_tenant_is_in_its_quota(installed_server: ApiServer, admin: Person) -> None:
    """New pods of all tenants wait for their network policies, and Services for kube-proxy, while a node writes these."""
    policies = [
        manifest(kinds.BY_KIND["NetworkPolicy"], f"own-{number}", spec={"podSelector": {}}) for number in range(4)
    ]
    assert_counted(installed_server, admin, "networkPolicies", "count/networkpolicies.networking.k8s.io", policies)
    services = [
        manifest(kinds.BY_KIND["Service"], f"own-{number}", spec={"ports": [{"port": 80}]}) for number in range(4)
    ]
    assert_counted(installed_server, admin, "services", "count/services", services)


def test_secrets_of_up_to_1_mib_are_in_its_quota(installed_server: ApiServer, admin: Person) -> None:
    """etcd has one room for all tenants."""
    secrets = [manifest(SECRET, f"own-{number}", stringData={"a": "b"}) for number in range(4)]
    assert_counted(installed_server, admin, "secrets", "count/secrets", secrets)


async def test_what_a_full_quota_refuses_is_named_and_made_once_it_is_raised(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    """Also where it refuses what comes before the quota: the NetworkPolicies of the namespace."""
    team = Team(tenant, decoy="")
    await tenant.present("NetworkPolicy", network_policies.DEFAULT_DENY)
    await tenant.allow(quota={"services": 0, "networkPolicies": 0})
    await tenant.child_that(
        "ResourceQuota", network_policies.LIMITS, lambda it: it.get("status", {}).get("used"), "the quota counts"
    )
    await tenant.deploy("credit", tier="full", context=CONTEXT)
    message = await tenant.until("credit", "Progressing", "False", "WriteRefused")
    assert "raise spec.quota." in message
    await tenant.client.delete(kinds.BY_KIND["NetworkPolicy"], network_policies.DEFAULT_DENY, tenant.namespace)
    message = await team.until("Ready", "False", "WriteRefused")
    assert "raise spec.quota.networkPolicies of the R1PlusTenant" in message
    await tenant.allow(quota={"services": 10, "networkPolicies": 10})
    await tenant.present("NetworkPolicy", network_policies.DEFAULT_DENY)
    await tenant.present("Service", "credit")
    await team.until("Ready", "True", "NetworkPoliciesApplied")


def assert_counted(
    server: ApiServer, admin: Person, field: str, counted: str, objects: Sequence[dict[str, Any]], there: int = 0
) -> None:
    """Assert that a quota of `there` and all but the last of these refuses one more. `there`: what is there already."""
    namespace = f"quota-{uuid.uuid4().hex[:10]}"
    admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(namespace))
    (quota,) = network_policies.build_limits(namespace, Quota.model_validate({field: there + len(objects) - 1}))
    *within, beyond = objects
    path, made = kinds.BY_KIND["ResourceQuota"].path(namespace), RESOURCES[beyond["kind"]].path(namespace)
    with people(server, OPERATOR) as who:
        # Admission charges nothing to a quota that it has not seen yet: it must refuse before it may admit.
        full = {**quota["spec"]["hard"], counted: str(there)}
        who[OPERATOR].do("POST", path, {**quota, "spec": {"hard": full}})
        until_refused(server, beyond, namespace, "exceeded quota: r1plus-tenant")
        who[OPERATOR].do("PATCH", f"{path}/{network_policies.LIMITS}", quota)
    wait_until(lambda: admin.ask("POST", made, beyond).status == 201, "admission has seen the larger quota")
    for body in within:
        admin.do("POST", made, body)
    # A recount misses what is charged and not stored yet, until the next one: every 5 s.
    until_refused(server, beyond, namespace, f"exceeded quota: r1plus-tenant, requested: {counted}=1")
