"""The real helm installs, upgrades and removes the chart on a server of its own, as a platform team's account.

Without hooks: nothing runs here that could apply the CRDs. What it installs is what policies and roles are made of.
"""

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest

from apiserver.conftest import CHART_CRDS
from apiserver.tenancy_rig import DECOY_NAMESPACE, RBAC, RELEASE_NAMESPACE, ROOT, Person, person, until
from devcluster import binaries
from devcluster.apiserver_only import ApiServer
from devcluster.cache import binary
from devcluster.parts import API_SERVER_BINARIES
from devcluster.steps import Steps
from devcluster.toolchain import kubectl
from r1plus_contract import names

pytestmark = pytest.mark.apiserver
Helm = Callable[..., str]


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    wanted = (*API_SERVER_BINARIES, "helm")
    binaries.build(Steps(len(wanted)), wanted)
    with ApiServer(controller_manager=True) as made:
        yield made


@pytest.fixture(scope="module")
def admin(server: ApiServer) -> Iterator[Person]:
    with person(server, "admin", ("system:masters",)) as made:
        yield made


@pytest.fixture(scope="module")
def helm(server: ApiServer, admin: Person) -> Helm:
    subprocess.run([str(kubectl()), f"--kubeconfig={server.kubeconfig}", "apply", "-f", str(CHART_CRDS)], check=True, capture_output=True, timeout=60)  # fmt: skip
    binding = {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "paula"}}
    binding |= {"roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "cluster-admin"}}
    binding |= {"subjects": [{"apiGroup": RBAC, "kind": "User", "name": "paula"}]}
    admin.do("POST", f"/apis/{RBAC}/v1/clusterrolebindings", binding)

    def run(*words: str) -> str:
        command = [
            str(binary("helm")),
            f"--kubeconfig={server.kubeconfig_for('paula')}",
            *words,
            f"--namespace={RELEASE_NAMESPACE}",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def install(helm: Helm, *values: str) -> str:
    """The command of docs/installing.md, without hooks and without waiting for pods."""
    chart = str(ROOT / "charts" / "r1plus-operator")
    return helm("upgrade", "--install", "r1plus", chart, "--create-namespace", "--no-hooks", *(f"--set={value}" for value in values))  # fmt: skip


def rules(admin: Person, role: str) -> list[dict[str, object]]:
    """Of a ClusterRole."""
    answer = admin.ask("GET", f"/apis/{RBAC}/v1/clusterroles/{role}")
    return list(json.loads(answer.text).get("rules") or ()) if answer.status == 200 else []


def test_it_is_installed_upgraded_and_removed_with_its_policies_in_force(helm: Helm, admin: Person) -> None:
    told = install(helm)
    assert f"against the decoy in namespace {DECOY_NAMESPACE}" in told
    assert admin.ask("GET", f"/api/v1/namespaces/{DECOY_NAMESPACE}/secrets/decoy").status == 200
    for role in (names.ROLE_TENANT_ADMIN, names.ROLE_TENANT_VIEWER):
        until(lambda role=role: "r1plustenants" in str(rules(admin, role)), f"{role} is aggregated")  # type: ignore[misc]
    whole = rules(admin, names.ROLE_TENANT_ADMIN)
    told = install(helm, "isolation.decoyNamespace=")
    assert rules(admin, names.ROLE_TENANT_ADMIN) == whole, "an upgrade leaves it as Kubernetes has put it together"
    assert "nobody tries the walls between tenants" in told
    gone = f"/api/v1/namespaces/{DECOY_NAMESPACE}"
    until(lambda: admin.ask("GET", gone).status == 404, "the decoy goes with its value")
    helm("uninstall", "r1plus", "--no-hooks")
    assert rules(admin, names.ROLE_TENANT_ADMIN) == []
