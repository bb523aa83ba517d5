"""What each account and role may do, by `kubectl auth can-i --list` against the chart's RBAC: a golden file each.

A right that comes or goes shows in a review as a line. Renew them:
R1PLUS_GOLDEN=write pytest -m apiserver tests/apiserver/test_can_i.py
"""

import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from apiserver.conftest import RESTRICTED
from apiserver.operator_rig import ACCOUNT
from apiserver.tenancy_rig import (
    DECOY_NAMESPACE,
    RBAC,
    RELEASE_NAMESPACE,
    account,
    groups,
    installed,
    people,
    person,
    role_binding,
    until,
    user,
)
from devcluster.apiserver_only import ApiServer
from devcluster.toolchain import kubectl
from r1plus_contract import names

pytestmark = pytest.mark.apiserver
GOLDEN = Path(__file__).parents[1] / "golden" / "can-i"
TENANT = "{tenant}"
WHO: dict[str, tuple[str, str]] = {
    "operator-in-a-tenant": (ACCOUNT, TENANT),
    "operator-in-its-own-namespace": (ACCOUNT, RELEASE_NAMESPACE),
    "operator-in-kube-system": (ACCOUNT, "kube-system"),
    "tenant-admin": ("anna", TENANT),
    "tenant-admin-in-another-tenant": ("anna", "default"),
    "tenant-viewer": ("vera", TENANT),
    "serving-pod": (account(TENANT, "credit"), TENANT),
    "prober": (account(TENANT, names.PROBER), TENANT),
    "prober-in-the-decoy": (account(TENANT, names.PROBER), DECOY_NAMESPACE),
    "control-in-the-decoy": (account(DECOY_NAMESPACE, "control"), DECOY_NAMESPACE),
    "control-elsewhere": (account(DECOY_NAMESPACE, "control"), TENANT),
    "registry": (account(RELEASE_NAMESPACE, "r1plus-registry"), RELEASE_NAMESPACE),
    "registry-reader": (account(RELEASE_NAMESPACE, "r1plus-registry-reader"), RELEASE_NAMESPACE),
    "crd-hook": (account(RELEASE_NAMESPACE, "r1plus-operator-crds"), RELEASE_NAMESPACE),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A server with the chart's rights, and a tenant with an admin and a viewer."""

    server: ApiServer
    tenant: str
    cache: Path

    def list(self, who: str, namespace: str) -> str:
        """Sorted, since kubectl's order is of no meaning."""
        name, place = (text.replace(TENANT, self.tenant) for text in (who, namespace))
        kubeconfig = self.server.kubeconfig_for(name, groups(name))
        command = [str(kubectl()), f"--kubeconfig={kubeconfig}", f"--cache-dir={self.cache}", "auth"]
        as_whom = subprocess.run([*command, "whoami", "-o=jsonpath={.status.userInfo.username}"], capture_output=True, text=True, check=True, timeout=60)  # fmt: skip
        assert as_whom.stdout == name
        told = subprocess.run([*command, "can-i", "--list", f"--namespace={place}"], capture_output=True, text=True, check=True, timeout=60)  # fmt: skip
        head, *rows = (line.rstrip() for line in told.stdout.replace(self.tenant, TENANT).splitlines())
        return "\n".join([head, *sorted(rows)]) + "\n"


@pytest.fixture(scope="module")
def asked(apiserver_with_controllers: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    tenant = f"t-{uuid.uuid4().hex[:10]}"
    with installed(apiserver_with_controllers) as server, person(server, "admin", ("system:masters",)) as admin:
        meta = {"name": tenant, "labels": RESTRICTED}
        admin.do("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        for role, name in ((names.ROLE_TENANT_ADMIN, "anna"), (names.ROLE_TENANT_VIEWER, "vera")):
            binding = role_binding(tenant, name, role, user(name))
            admin.do("POST", f"/apis/{RBAC}/v1/namespaces/{tenant}/rolebindings", binding)
        with people(server, "anna", "vera") as known:
            until(
                lambda: known["anna"].may("create", "pods", tenant, subresource="portforward"), "anna's role is whole"
            )
            until(
                lambda: known["anna"].may("list", "r1plustenants", tenant, "r1plus.ai"), "and the part that all share"
            )
            until(lambda: known["anna"].may("list", "pods", tenant), "and the viewer's part")
            until(lambda: known["vera"].may("list", "r1plustenants", tenant, "r1plus.ai"), "vera's role is whole")
            until(lambda: known["vera"].may("list", "pods", tenant), "and the rest of it")
        yield Asked(server, tenant, tmp_path_factory.mktemp("kubectl"))


@pytest.mark.parametrize("name", WHO)
def test_what_it_may_do_is_the_golden_list(asked: Asked, name: str) -> None:
    told, path = asked.list(*WHO[name]), GOLDEN / f"{name}.txt"
    if os.environ.get("R1PLUS_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(told)
    assert told == path.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(WHO)


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("serving-pod", "tenant-admin-in-another-tenant"),
        ("prober", "tenant-admin-in-another-tenant"),
        ("prober-in-the-decoy", "tenant-admin-in-another-tenant"),
        ("control-elsewhere", "tenant-admin-in-another-tenant"),
    ],
    ids=lambda value: value,
)
def test_who_has_no_rights_has_those_that_everybody_has(name: str, like: str) -> None:
    def rights(of: str) -> set[str]:
        rows = (" ".join(line.split()) for line in (GOLDEN / f"{of}.txt").read_text().splitlines())
        return {row for row in rows if "openid" not in row}  # a service account may look up who issues its tokens

    assert rights(name) == rights(like)
