"""What each account and role may do, by `kubectl auth can-i --list` against the chart's RBAC: a golden file each.

A right that comes or goes shows in a review as a line. Renew them:
R1PLUS_GOLDEN=write pytest -m apiserver tests/apiserver/test_can_i.py
"""

import os
import subprocess
import uuid
from dataclasses import dataclass
from pathlib import Path

import pytest

from devcluster.apiserver_only import ApiServer
from devcluster.toolchain import kubectl
from r1plus_contract import names
from r1plus_operator.api import kinds
from support.apiserver.chart import DECOY_NAMESPACE
from support.apiserver.manifests import ROLE_BINDING, role_binding, service_account, tenant_namespace, user
from support.apiserver.people import Person, groups_of, people, person
from support.apiserver.rights import OPERATOR, OPERATOR_NAMESPACE, account

pytestmark = [pytest.mark.apiserver, pytest.mark.first_run_counts]
GOLDEN = Path(__file__).parents[1] / "golden" / "can-i"
TENANT = "{tenant}"
WHO: dict[str, tuple[str, str]] = {
    "operator-in-a-tenant": (OPERATOR, TENANT),
    "operator-in-its-own-namespace": (OPERATOR, OPERATOR_NAMESPACE),
    "operator-in-kube-system": (OPERATOR, "kube-system"),
    "tenant-admin": ("anna", TENANT),
    "tenant-admin-in-another-tenant": ("anna", "default"),
    "tenant-viewer": ("vera", TENANT),
    "serving-pod": (account(TENANT, "credit"), TENANT),
    "prober": (account(TENANT, names.PROBER), TENANT),
    "prober-in-the-decoy": (account(TENANT, names.PROBER), DECOY_NAMESPACE),
    "control-in-the-decoy": (account(DECOY_NAMESPACE, "control"), DECOY_NAMESPACE),
    "control-elsewhere": (account(DECOY_NAMESPACE, "control"), TENANT),
    "registry": (account(OPERATOR_NAMESPACE, "r1plus-registry"), OPERATOR_NAMESPACE),
    "registry-reader": (account(OPERATOR_NAMESPACE, "r1plus-registry-reader"), OPERATOR_NAMESPACE),
    "registry-reader-in-a-tenant": (account(TENANT, names.REGISTRY_READER), TENANT),
    "registry-reader-in-another-tenant": (account(TENANT, names.REGISTRY_READER), "default"),
    "crd-hook": (account(OPERATOR_NAMESPACE, "r1plus-operator-crds"), OPERATOR_NAMESPACE),
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
        with person(self.server, name, groups_of(name)) as asking:
            assert asking.who() == name
        kubeconfig = self.server.kubeconfig_for(name, groups_of(name))
        command = [str(kubectl()), f"--kubeconfig={kubeconfig}", f"--cache-dir={self.cache}", "auth", "can-i", "--list"]
        told = subprocess.run([*command, f"--namespace={place}"], capture_output=True, text=True, check=True, timeout=250)  # fmt: skip
        head, *rows = (line.rstrip() for line in told.stdout.replace(self.tenant, TENANT).splitlines())
        return "\n".join([head, *sorted(rows)]) + "\n"


@pytest.fixture(scope="module")
def asked(installed_server: ApiServer, admin: Person, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    tenant = f"t-{uuid.uuid4().hex[:10]}"
    admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(tenant))
    # The bindings that are waited for come last: bindings are known in their order.
    reader = service_account(names.REGISTRY_READER, tenant)
    admin.do("POST", ROLE_BINDING.path(tenant), role_binding(tenant, "reader", names.ROLE_REGISTRY_READER, reader))
    for role, name in ((names.ROLE_TENANT_ADMIN, "anna"), (names.ROLE_TENANT_VIEWER, "vera")):
        admin.do("POST", ROLE_BINDING.path(tenant), role_binding(tenant, name, role, user(name)))
    with people(installed_server, "anna", "vera") as known:
        known["anna"].gets("create", "pods", tenant, subresource="portforward")
        # The part that all share, and the viewer's part.
        for who in known.values():
            who.gets("list", "r1plustenants", tenant, "r1plus.ai")
            who.gets("list", "pods", tenant)
    return Asked(installed_server, tenant, tmp_path_factory.mktemp("kubectl"))


@pytest.mark.parametrize("name", WHO)
def test_what_it_may_do_is_the_golden_list(asked: Asked, name: str) -> None:
    told, path = asked.list(*WHO[name]), GOLDEN / f"{name}.txt"
    if os.environ.get("R1PLUS_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(told)
    # kubectl aligns columns by the order of the server's rules, and repeats a right that two roles give.
    assert list_rights(told) == list_rights(path.read_text())


def list_rights(text: str) -> set[str]:
    """Return the different rows, without their alignment."""
    return {" ".join(line.split()) for line in text.splitlines()}


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(WHO)


@pytest.mark.parametrize(
    ("name", "like"),
    [
        ("serving-pod", "tenant-admin-in-another-tenant"),
        ("prober", "tenant-admin-in-another-tenant"),
        ("prober-in-the-decoy", "tenant-admin-in-another-tenant"),
        ("control-elsewhere", "tenant-admin-in-another-tenant"),
        ("registry-reader-in-another-tenant", "tenant-admin-in-another-tenant"),
    ],
    ids=lambda value: value,
)
def test_who_has_no_rights_has_those_that_everybody_has(name: str, like: str) -> None:
    def rights(of: str) -> set[str]:
        rows = (" ".join(line.split()) for line in (GOLDEN / f"{of}.txt").read_text().splitlines())
        return {row for row in rows if "openid" not in row}  # a service account may look up who issues its tokens

    assert rights(name) == rights(like)
