"""The decoy: walled as every serving pod is, and opened to its control alone."""

from dataclasses import replace

import pytest

from r1plus_contract import names
from r1plus_contract.monitor.isolation import CONTAINER_DECOY, IsolationProbe
from r1plus_operator.plan.manifests.children import ChildOwner, build_network_policy
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.settings import DnsTerms
from r1plus_operator.plan.tenancy import network_policies
from r1plus_operator.plan.tenancy.decoy import build_network_policies, build_objects
from r1plus_operator.plan.tenancy.isolation_test_jobs import build_jobs
from r1plus_operator.plan.tenancy.isolation_test_run import SERVING_PORTS, IsolationTestRun, list_connection_targets
from support.plan.selectors import selects
from support.plan.tenant_world import CONFIG, DECOY, TenantWorld, facts


def by_name() -> dict[str, Json]:
    return {obj["metadata"]["name"]: obj for obj in build_network_policies(CONFIG)}


def pod() -> Json:
    deployment = next(obj for obj in build_objects(CONFIG) if obj["kind"] == "Deployment")
    template: Json = deployment["spec"]["template"]
    return template


def test_its_policies_are_to_the_letter_those_of_a_deployment_that_lets_nobody_in() -> None:
    owner = ChildOwner({"metadata": {"name": "decoy", "namespace": DECOY, "uid": "u"}})
    assert by_name()["decoy"]["spec"] == build_network_policy(owner, (), CONFIG)["spec"]


def test_beside_them_only_its_control_is_let_in_and_out_and_who_asks_to_one_port() -> None:
    made = by_name()
    assert set(made) == {"decoy", "decoy-control", "decoy-control-out", "decoy-let-in"}
    labels = {probe: job["spec"]["template"]["metadata"]["labels"] for probe, job in zip(IsolationProbe, build_jobs(IsolationTestRun("t", "u", "decoy", {}, 0), CONFIG), strict=True)}  # fmt: skip
    control_in, control_out = made["decoy-control"]["spec"], made["decoy-control-out"]["spec"]
    (rule,) = control_in["ingress"]
    (peer,) = rule["from"]
    assert set(peer) == {"podSelector"}, "of this namespace only"
    assert [probe for probe in IsolationProbe if selects(peer["podSelector"], labels[probe])] == [
        IsolationProbe.CONTROL
    ]
    assert control_in["podSelector"] == by_name()["decoy"]["spec"]["podSelector"]
    assert control_in["egress"] == []
    assert [probe for probe in IsolationProbe if selects(control_out["podSelector"], labels[probe])] == [
        IsolationProbe.CONTROL
    ]
    assert not selects(control_out["podSelector"], pod()["metadata"]["labels"])
    assert (control_out["ingress"], control_out["egress"]) == ([], [{}])
    let_in = made["decoy-let-in"]["spec"]
    (rule,) = let_in["ingress"]
    (peer,) = rule["from"]
    assert [probe for probe in IsolationProbe if selects(peer["podSelector"], labels[probe])] == [IsolationProbe.ASK]
    assert peer["namespaceSelector"] == {}
    assert [port["port"] for port in rule["ports"]] == [8003], "nothing that a serving pod has"
    assert (let_in["podSelector"], let_in["egress"]) == (control_in["podSelector"], [])
    assert not selects(
        network_policies.build_callers_policy(DECOY, (), DnsTerms())["spec"]["podSelector"], pod()["metadata"]["labels"]
    )


def test_it_listens_where_a_serving_pod_does_and_the_prober_finds_it_by_name() -> None:
    template = pod()
    (container,) = template["spec"]["containers"]
    assert container["name"] == CONTAINER_DECOY
    assert container["args"] == ["--ports", "8000,8001,8002,8080,8003"]
    services = {obj["metadata"]["name"]: obj["spec"] for obj in build_objects(CONFIG) if obj["kind"] == "Service"}
    assert {name: spec.get("clusterIP") for name, spec in services.items()} == {"decoy": None, "decoy-pods": "None"}
    for spec in services.values():
        assert selects({"matchLabels": spec["selector"]}, template["metadata"]["labels"])
        assert (
            [port["port"] for port in spec["ports"]]
            == [port["targetPort"] for port in spec["ports"]]
            == [*SERVING_PORTS]
        )
    tried = {
        door.host.split(".")[0]: door
        for door in list_connection_targets(IsolationProbe.CONTROL, IsolationTestRun("t", "u", "d", {}, 0), CONFIG)
        if door.against == "decoy"
    }
    assert set(tried) == set(services)
    assert all(door.host.split(".")[1:] == [DECOY, "svc"] for door in tried.values())


def test_it_has_no_rights() -> None:
    spec = pod()["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert "volumes" not in spec
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    pulled = next(
        obj for obj in build_objects(replace(CONFIG, image_pull_secrets=("s",))) if obj["kind"] == "Deployment"
    )
    assert pulled["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "s"}]


def test_its_namespace_gets_policies_before_the_pod_and_no_prober_of_its_own() -> None:
    world = TenantWorld(facts(DECOY)).serve("decoy")
    first, second = world.plan().apply
    assert {obj["metadata"]["name"] for obj in first} == {network_policies.DEFAULT_DENY, *by_name()}
    assert {obj["kind"] for obj in second} == {"Deployment", "Service"}
    planned = world.settle()
    assert not world.made
    assert (planned.view.status, planned.view.reason) == ("Unknown", "ProbingOff")
    assert "decoyNamespace" not in planned.view.message


@pytest.mark.parametrize("is_tenant", [True, False])
def test_without_its_label_it_is_not_made(is_tenant: bool) -> None:
    world = TenantWorld(facts(DECOY, is_tenant=is_tenant))
    world.settle()
    assert bool(world.live) is is_tenant


def test_the_deployment_called_decoy_belongs_to_no_r1plusdeployment() -> None:
    for obj in (*build_network_policies(CONFIG), *build_objects(CONFIG)):
        assert names.LABEL_DEPLOYMENT not in obj["metadata"]["labels"]
        assert obj["metadata"]["namespace"] == DECOY
        assert obj["metadata"]["labels"][names.LABEL_ISOLATION] == "decoy"
