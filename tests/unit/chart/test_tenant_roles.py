"""What a tenant's people may do, as rendered: all to its own deployments, and nothing to the walls, Secrets or each other."""

from typing import Any

import pytest

from r1plus_contract import names
from r1plus_contract.gateway import GATEWAY_ADMIN
from r1plus_operator.api import kinds
from r1plus_operator.api.tenant_roles import AGGREGATED_ROLES, TO_VIEW
from support.chart import Objects, Render, one

Rights = set[tuple[str, str, str]]
READS = {"get", "list", "watch"}
TOKEN = ("", "serviceaccounts/token", "create")
"""For the registry and for the gateway: of one account each by name, as a test says."""


@pytest.fixture(scope="module")
def objects(render: Render) -> Objects:
    return render()


def rights(objects: Objects, label: str) -> Rights:
    """(group, resource, verb) of all that bears the label, as Kubernetes' controller puts them together."""
    rules = [
        rule
        for o in objects
        if o["kind"] == "ClusterRole" and o["metadata"]["labels"].get(label) == "true"
        for rule in o["rules"]
    ]
    assert not [rule for rule in rules for values in rule.values() if "*" in values]
    return {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}


@pytest.fixture(scope="module")
def both(objects: Objects) -> dict[str, Rights]:
    return {name: rights(objects, label) for name, label in AGGREGATED_ROLES}


def test_each_is_aggregated_by_its_own_label_and_says_no_rule_itself(objects: Objects) -> None:
    found: dict[str, Any] = {o["metadata"]["name"]: o for o in objects if o["kind"] == "ClusterRole"}
    for name, label in AGGREGATED_ROLES:
        assert found[name]["aggregationRule"] == {"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]}
        assert "rules" not in found[name], "helm would write it back at every upgrade"


def test_an_admin_may_write_deployments_and_suites_and_reach_a_port_and_nothing_else(both: dict[str, Rights]) -> None:
    written = {right[:2] for right in both[names.ROLE_TENANT_ADMIN] - {TOKEN} if right[2] not in READS}
    assert written == {("r1plus.ai", kinds.DEPLOYMENTS_PLURAL), ("", "configmaps"), ("", "pods/portforward")}


def test_both_roles_make_tokens_of_the_registrys_reader_and_an_admin_of_the_gateways(objects: Objects) -> None:
    rules = [rule for o in objects if o["kind"] == "ClusterRole" for rule in o.get("rules", ())]
    tokens = [rule for rule in rules if "serviceaccounts/token" in rule.get("resources", ())]
    made = [(["create"], [GATEWAY_ADMIN]), (["create"], [names.REGISTRY_READER])]
    assert [(rule["verbs"], rule["resourceNames"]) for rule in tokens] == made


def test_the_registrys_reader_may_do_nothing_that_a_viewer_may_not(objects: Objects, both: dict[str, Rights]) -> None:
    reader = one(objects, "ClusterRole", names.ROLE_REGISTRY_READER)["rules"]
    assert {
        (g, r, v) for rule in reader for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]
    } < both[names.ROLE_TENANT_VIEWER]


def test_a_viewer_only_reads_and_an_admin_reads_the_same(both: dict[str, Rights]) -> None:
    assert {verb for _, _, verb in both[names.ROLE_TENANT_VIEWER] - {TOKEN}} == READS
    assert both[names.ROLE_TENANT_VIEWER] < both[names.ROLE_TENANT_ADMIN]


def test_both_see_all_that_the_operator_makes(both: dict[str, Rights]) -> None:
    made = {(resource.group, resource.plural, "list") for resource in kinds.CHILDREN}
    assert made <= both[names.ROLE_TENANT_VIEWER]


def test_neither_touches_secrets_tokens_shells_a_status_or_a_namespace(both: dict[str, Rights]) -> None:
    touched = {resource for found in both.values() for _, resource, _ in found - {TOKEN}}
    assert not touched & {"secrets", "serviceaccounts/token", "pods/exec", "pods/attach", "pods/ephemeralcontainers"}
    assert not {resource for resource in touched if resource.endswith(("/status", "/finalize", "/scale"))}
    assert not touched & {"namespaces", "roles", "clusterroles", "nodes"}


def test_kubernetes_own_roles_read_what_is_asked_for_and_write_nothing_of_ours(objects: Objects) -> None:
    taken = [
        o["metadata"]["name"]
        for o in objects
        if any(label.startswith("rbac.authorization.k8s.io/") for label in o["metadata"].get("labels", {}))
    ]
    assert taken == ["r1plus-view"]
    assert {(resource, verb) for _, resource, verb in rights(objects, TO_VIEW)} == {
        (plural, verb) for plural in (kinds.DEPLOYMENTS_PLURAL, kinds.TENANTS_PLURAL) for verb in READS
    }
