"""The real helm installs, upgrades and removes the chart on a server of its own, as a platform team's account.

Without hooks: nothing runs here that could apply the CRDs. What it installs is what policies and roles are made of.
"""

import json
from collections.abc import Callable, Iterator

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_operator.api import tenant_roles
from support.apiserver.chart import DECOY_NAMESPACE
from support.apiserver.chart import helm as run_helm
from support.apiserver.manifests import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, RBAC, cluster_role_binding, user
from support.apiserver.people import Person, administrator, person
from support.apiserver.rights import OPERATOR_NAMESPACE
from support.apiserver.server import CHART, started_with_crds
from support.waiting import wait_until

pytestmark = pytest.mark.apiserver
Helm = Callable[..., str]


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    with started_with_crds(controller_manager=True) as made:
        yield made


@pytest.fixture(scope="module")
def admin(server: ApiServer) -> Iterator[Person]:
    with administrator(server) as made:
        yield made


@pytest.fixture(scope="module")
def helm(server: ApiServer, admin: Person) -> Helm:
    admin.do("POST", CLUSTER_ROLE_BINDING.path(), cluster_role_binding("paula", "cluster-admin", user("paula")))
    with person(server, "paula") as paula:
        paula.gets("create", "clusterroles", "", RBAC)
    config = server.kubeconfig_for("paula")
    return lambda *words: run_helm(*words, f"--namespace={OPERATOR_NAMESPACE}", kubeconfig=config)


def install(helm: Helm, *values: str) -> str:
    """The command of docs/installing.md, without hooks and without waiting for pods."""
    chosen = [f"--set={value}" for value in ("images.requireDigests=false", *values)]
    return helm("upgrade", "--install", "r1plus", str(CHART), "--create-namespace", "--no-hooks", *chosen)


def rules(admin: Person, role: str) -> list[dict[str, object]]:
    """Of a ClusterRole."""
    answer = admin.ask("GET", CLUSTER_ROLE.path(name=role))
    return list(json.loads(answer.text).get("rules") or ()) if answer.status == 200 else []


def is_whole(admin: Person, role: str, label: str) -> bool:
    """Whether an aggregated role has all rules of the roles with the label."""
    parts = [one for one in tenant_roles.list_roles() if label in one.into]
    found = rules(admin, role)
    return bool(parts) and all(rule in found for one in parts for rule in rules(admin, one.name))


def test_it_is_installed_upgraded_and_removed_with_its_policies_in_force(helm: Helm, admin: Person) -> None:
    told = install(helm)
    assert f"against the decoy in namespace {DECOY_NAMESPACE}" in told
    assert admin.ask("GET", f"/api/v1/namespaces/{DECOY_NAMESPACE}/secrets/decoy").status == 200
    for role, label in tenant_roles.AGGREGATED_ROLES:
        wait_until(lambda role=role, label=label: is_whole(admin, role, label), f"{role} is aggregated")  # type: ignore[misc]
    whole = rules(admin, names.ROLE_TENANT_ADMIN)
    told = install(helm, "isolation.decoyNamespace=")
    assert rules(admin, names.ROLE_TENANT_ADMIN) == whole, "an upgrade leaves it as Kubernetes has put it together"
    assert "isolation between tenants is not tested" in told
    gone = f"/api/v1/namespaces/{DECOY_NAMESPACE}"
    wait_until(lambda: admin.ask("GET", gone).status == 404, "the decoy goes with its value")
    helm("uninstall", "r1plus", "--no-hooks")
    assert rules(admin, names.ROLE_TENANT_ADMIN) == []
