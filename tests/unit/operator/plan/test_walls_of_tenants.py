"""What the walls of a tenant let through, judged as a network plugin would: by selectors, peers, networks and ports."""

import ipaddress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from r1plus_contract import names
from r1plus_contract.monitor.isolation import IsolationProbe
from r1plus_contract.verdict import Verdict
from r1plus_operator.api.conditions import Reason
from r1plus_operator.api.quotas import QUOTA_FIELDS, find_quota_remedy
from r1plus_operator.api.tenants import NEVER_OPENED, Egress, Quota, R1PlusTenantSpec, is_within
from r1plus_operator.plan.deployment import Plan, plan
from r1plus_operator.plan.observation import Json, TenantView
from r1plus_operator.plan.settings import DnsTerms, IsolationTerms
from r1plus_operator.plan.tenancy import network_policies
from r1plus_operator.plan.tenancy.decoy import build_objects
from r1plus_operator.plan.tenancy.isolation_test_jobs import build_jobs, build_network_policy
from r1plus_operator.plan.tenancy.isolation_test_run import choose_next_run
from support.plan.selectors import selects
from support.plan.tenant_world import CONFIG, GIVES, TenantWorld
from support.plan.world import World
from support.tables import for_each

COUNTED = {
    "count/configmaps": "500",
    "count/networkpolicies.networking.k8s.io": "100",
    "count/secrets": "100",
    "count/services": "100",
}
"""The hard limits of a quota that names none."""

DEPLOYMENT, VOLUME, PROBE = names.LABEL_DEPLOYMENT, names.LABEL_VOLUME, names.LABEL_PROBE


def reachable(policy: Json, address: str, port: int) -> bool:
    """Whether a policy lets its pods out to an address of the network."""
    one = ipaddress.ip_network(address)
    for rule in policy["spec"]["egress"]:
        for block in (peer["ipBlock"] for peer in rule.get("to", []) if "ipBlock" in peer):
            shut = any(is_within(one, ipaddress.ip_network(net)) for net in block.get("except", []))
            if (
                port in [p["port"] for p in rule["ports"]]
                and is_within(one, ipaddress.ip_network(block["cidr"]))
                and not shut
            ):
                return True
    return False


def ways(*egress: Json) -> tuple[Egress, ...]:
    return R1PlusTenantSpec.model_validate({"egress": list(egress)}).egress


ADDRESSES = st.ip_addresses()
CIDRS = st.one_of(
    st.builds(lambda a, n: f"{a}/{n}", st.ip_addresses(v=4), st.integers(0, 32)),
    st.builds(lambda a, n: f"{a}/{n}", st.ip_addresses(v=6), st.integers(0, 128)),
    st.sampled_from(["0.0.0.0/0", "::/0", "169.0.0.0/8", "128.0.0.0/1", "fc00::/6", "f000::/4", "::/8", "127.0.0.0/7"]),
)


def test_the_default_deny_selects_every_pod_and_allows_nothing_either_way() -> None:
    spec = network_policies.build_default_deny("team")["spec"]
    assert spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": []}


@given(st.dictionaries(st.sampled_from([DEPLOYMENT, VOLUME, PROBE, "app", names.LABEL_SERVING]), st.just("x")))
def test_the_callers_are_the_pods_that_have_no_policies_of_their_own(labels: dict[str, str]) -> None:
    selector = network_policies.build_callers_policy("team", (), DnsTerms())["spec"]["podSelector"]
    assert selects(selector, labels) is not any(label in labels for label in (DEPLOYMENT, VOLUME, PROBE))


def test_callers_reach_names_and_models_and_nobody_reaches_them() -> None:
    spec = network_policies.build_callers_policy("team", (), DnsTerms())["spec"]
    assert spec["ingress"] == []
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    dns, models = spec["egress"]
    assert {port["port"] for port in dns["ports"]} == {53, 5353}
    (peer,) = dns["to"]
    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
    assert peer["podSelector"] == {"matchLabels": {"k8s-app": "kube-dns"}}
    (peer,) = models["to"]
    assert set(peer) == {"podSelector"}, "of this namespace only"
    assert selects(peer["podSelector"], {DEPLOYMENT: "any"})
    assert not selects(peer["podSelector"], {})
    assert [port["port"] for port in models["ports"]] == [8000, 8001]


@given(CIDRS, ADDRESSES, st.integers(1, 65535))
@example("0.0.0.0/0", ipaddress.ip_address("169.254.169.254"), 80)
@example("::/0", ipaddress.ip_address("fd00:ec2::254"), 80)
@example("::/0", ipaddress.ip_address("fe80::a9fe:a9fe"), 80)
@example("126.0.0.0/7", ipaddress.ip_address("127.0.0.1"), 10250)
def test_no_way_out_reaches_a_nodes_own_services_or_its_metadata(cidr: str, address: Any, port: int) -> None:
    try:
        opened = ways({"cidr": cidr, "ports": [port]})
    except ValidationError:
        return  # It lies in one of them, or is none that the API server takes.
    policy = network_policies.build_callers_policy("team", opened, DnsTerms())
    inside = is_within(ipaddress.ip_network(address), ipaddress.ip_network(cidr, strict=False))
    shut = any(is_within(ipaddress.ip_network(address), ipaddress.ip_network(net)) for net in NEVER_OPENED)
    assert reachable(policy, str(address), port) is (inside and not shut)
    assert not any(reachable(policy, net.split("/")[0], port) for net in NEVER_OPENED)


@pytest.mark.parametrize(
    "cidr",
    [
        *NEVER_OPENED, "169.254.169.254/32", "127.0.0.1/32", "fd00:ec2::254/128", "fe80::/64",
        "::ffff:a9fe:a9fe/128", "::ffff:7f00:1/128", "::ffff:0:0/96",
    ],
)  # fmt: skip
def test_a_way_into_them_is_refused_in_whatever_form_it_is_written(cidr: str) -> None:
    with pytest.raises(ValidationError, match="cidr"):
        ways({"cidr": cidr, "ports": [80]})


@given(CIDRS, st.lists(st.ip_addresses(), max_size=3), ADDRESSES, st.data())
@example("0.0.0.0/0", [ipaddress.ip_address("10.1.0.4")], ipaddress.ip_address("10.1.0.5"), None)
@example("10.1.0.4/32", [ipaddress.ip_address("10.1.0.4")], ipaddress.ip_address("10.1.0.5"), None)
@example("10.1.0.4/31", [ipaddress.ip_address(f"10.1.0.{n}") for n in (5, 4)], ipaddress.ip_address("10.1.0.6"), None)
def test_an_egress_network_has_all_addresses_but_those_of_nodes(
    cidr: str, nodes: list[Any], other: Any, data: Any
) -> None:
    try:
        (way,) = ways({"cidr": cidr, "ports": [10250]})
    except ValidationError:
        return
    network = ipaddress.ip_network(cidr, strict=False)
    if data:  # Most of all: nodes and others of that very network.
        inside = st.integers(int(network.network_address), int(network.broadcast_address))
        nodes = [*nodes, *(type(network.network_address)(n) for n in data.draw(st.lists(inside, max_size=4)))]
        other = type(network.network_address)(data.draw(inside))
    world = TenantWorld(spec={"egress": [{"cidr": cidr, "ports": [10250]}]}, addresses=tuple(map(str, nodes)))
    world.settle()
    policy = world.one("NetworkPolicy", network_policies.CALLERS)
    assert not any(reachable(policy, str(node), 10250) for node in nodes)
    assert reachable(policy, str(other), 10250) is (
        other not in nodes
        and reachable(network_policies.build_callers_policy("team", [way], DnsTerms()), str(other), 10250)
    )
    within_it = {node for node in nodes if node.version == network.version and node in network}
    assert bool(network_policies.find_covered_node(way, [str(node) for node in nodes])) is (
        len(within_it) == network.num_addresses
    )
    assert len(policy["spec"]["egress"]) == (2 if len(within_it) == network.num_addresses else 3)
    for block in (peer["ipBlock"] for rule in policy["spec"]["egress"] for peer in rule["to"] if "ipBlock" in peer):
        for net in map(ipaddress.ip_network, block.get("except", [])):
            assert net != network, "the API server takes a true part of the network only"
            assert is_within(net, network)


def test_the_order_of_the_nodes_changes_nothing() -> None:
    opened, nodes = (
        ways({"cidr": "0.0.0.0/0", "ports": [443]}),
        ["10.1.0.4", "10.1.0.5", "10.0.0.9", "fd00::1", "10.1.0.4"],
    )
    made = network_policies.build_callers_policy("team", opened, DnsTerms(), nodes)
    assert made == network_policies.build_callers_policy("team", opened, DnsTerms(), nodes[::-1])
    (block,) = [peer["ipBlock"] for rule in made["spec"]["egress"] for peer in rule["to"] if "ipBlock" in peer]
    assert block["except"] == [*(net for net in NEVER_OPENED if "." in net), "10.0.0.9/32", "10.1.0.4/31"]


def test_a_way_to_a_namespace_is_to_that_namespace_and_those_ports() -> None:
    spec = network_policies.build_callers_policy(
        "team", ways({"namespace": "postgres", "ports": [5432, 80, 5432]}), DnsTerms()
    )["spec"]
    assert spec["egress"][2] == {
        "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "postgres"}}}],
        "ports": [{"protocol": "TCP", "port": 80}, {"protocol": "TCP", "port": 5432}],
    }


@pytest.mark.parametrize("cidrs", [(), ("10.0.0.1/32", "fd00::1/128")], ids=["anywhere", "where it is"])
def test_who_asks_reaches_names_the_api_server_and_the_decoy_and_nobody_reaches_it(cidrs: tuple[str, ...]) -> None:
    config = replace(CONFIG, isolation=IsolationTerms("decoy", api_ports=(6443,), api_cidrs=cidrs))
    spec = build_network_policy("team", config)["spec"]
    run = choose_next_run("team", "u", {"credit": "w"}, None, 0.0)
    of = {
        probe: next(j for j, p in zip(build_jobs(run, config), IsolationProbe, strict=True) if p is probe)
        for probe in IsolationProbe
    }
    labels = {probe: job["spec"]["template"]["metadata"]["labels"] for probe, job in of.items()}
    assert [probe for probe in IsolationProbe if selects(spec["podSelector"], labels[probe])] == [IsolationProbe.ASK]
    assert spec["ingress"] == []
    dns, api, decoy = spec["egress"]
    assert {port["port"] for port in dns["ports"]} == {53, 5353}
    assert api["ports"] == [{"protocol": "TCP", "port": 6443}]
    assert api.get("to", []) == [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]
    (peer,) = decoy["to"]
    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "decoy"}}
    bears = next(obj for obj in build_objects(config) if obj["kind"] == "Deployment")["spec"]["template"]["metadata"][
        "labels"
    ]
    assert selects(peer["podSelector"], bears)
    assert {port["port"] for port in decoy["ports"]} == {8000, 8001, 8002, 8080, 8003}


@for_each("quota, hard, kinds", {
    "nothing but ConfigMaps is limited": ({}, {}, ["ResourceQuota"]),
    "as many deployments as it may have have room for what is made for them": (
        {"deployments": 300},
        {"count/r1plusdeployments.r1plus.ai": "300", "count/networkpolicies.networking.k8s.io": "360", "count/services": "660"},
        ["ResourceQuota"],
    ),
    "none at all is a limit": ({"pods": 0, "configMaps": 0, "services": 0}, {"pods": "0", "count/configmaps": "0", "count/services": "0"}, ["ResourceQuota"]),
    "what pods do not request needs no defaults": (
        {"deployments": 3, "gpus": 2, "storage": "100Gi"},
        {"count/r1plusdeployments.r1plus.ai": "3", "requests.nvidia.com/gpu": "2", "requests.storage": "100Gi"},
        ["ResourceQuota"],
    ),
    "nor does the disk of their nodes": ({"ephemeralStorage": "50Gi"}, {"requests.ephemeral-storage": "50Gi"}, ["ResourceQuota"]),
    "CPU does": ({"cpu": "500m"}, {"requests.cpu": "500m"}, ["ResourceQuota", "LimitRange"]),
    "so does memory": ({"memory": "1024Mi"}, {"requests.memory": "1Gi"}, ["ResourceQuota", "LimitRange"]),
    "as the API server writes it": (
        {"pods": 2000, "cpu": "3000", "memory": "0", "storage": "99999999999999999999Ti"},
        {"pods": "2k", "requests.cpu": "3k", "requests.memory": "0", "requests.storage": "8796093022207Mi"},
        ["ResourceQuota", "LimitRange"],
    ),
})  # fmt: skip
def test_a_quota(quota: Json, hard: Json, kinds: list[str]) -> None:
    made = network_policies.build_limits("team", Quota.model_validate(quota))
    assert [obj["kind"] for obj in made] == kinds
    assert made[0]["spec"]["hard"] == COUNTED | hard
    for limits in (obj["spec"]["limits"] for obj in made if obj["kind"] == "LimitRange"):
        assert limits == [{"type": "Container", "defaultRequest": {"cpu": "100m", "memory": "128Mi"}}]


FULL: dict[str, tuple[str, str]] = {
    "the tenant's own": (
        'services "credit" is forbidden: exceeded quota: r1plus-tenant, requested: count/services=1, used: count/services=100',
        "raise spec.quota.services of the R1PlusTenant, ",
    ),
    "another one": (
        "exceeded quota: own, requested: count/secrets=1, used: count/secrets=1, limited: count/secrets=1",
        "raise count/secrets of ResourceQuota own, ",
    ),
    "what the R1PlusTenant does not limit": (
        "exceeded quota: r1plus-tenant, requested: services.nodeports=1, used",
        "raise services.nodeports of ResourceQuota r1plus-tenant, ",
    ),
    "none": ("status unknown for quota: r1plus-tenant, resources: count/services", ""),
}


@pytest.mark.parametrize(("error", "remedy"), FULL.values(), ids=FULL)
def test_a_full_quota_says_what_to_raise(error: str, remedy: str) -> None:
    assert find_quota_remedy(error).startswith(remedy)
    assert bool(find_quota_remedy(error)) is bool(remedy)


def test_each_limit_of_a_tenant_names_its_field() -> None:
    sizes = dict.fromkeys(("cpu", "memory", "storage", "ephemeralStorage"), "1")
    limited = {str(field.alias or name): 1 for name, field in Quota.model_fields.items()}
    quota, _ = network_policies.build_limits("team", Quota.model_validate(limited | sizes))
    assert quota["spec"]["hard"].keys() == QUOTA_FIELDS.keys()
    assert set(QUOTA_FIELDS.values()) == limited.keys()


def test_access_is_to_two_roles_and_a_service_account_is_one_of_this_namespace() -> None:
    spec = R1PlusTenantSpec.model_validate(
        {"admins": [{"kind": "ServiceAccount", "name": "ci"}, {"kind": "User", "name": "a"}], "viewers": [{"kind": "Group", "name": "g"}]}
    )  # fmt: skip
    admins, viewers = network_policies.build_role_bindings("team", spec)
    rbac = "rbac.authorization.k8s.io"
    assert admins["roleRef"] == {"apiGroup": rbac, "kind": "ClusterRole", "name": "r1plus-tenant-admin"}
    assert viewers["roleRef"] == {"apiGroup": rbac, "kind": "ClusterRole", "name": "r1plus-tenant-viewer"}
    assert admins["subjects"] == [
        {"kind": "ServiceAccount", "name": "ci", "namespace": "team"},
        {"kind": "User", "apiGroup": rbac, "name": "a"},
    ]
    assert viewers["subjects"] == [{"kind": "Group", "apiGroup": rbac, "name": "g"}]
    assert network_policies.build_role_bindings("team", R1PlusTenantSpec()) == []


@for_each("changed, kinds", {
    "of a tenant with an R1PlusTenant": ({}, {"ServiceAccount", "RoleBinding"}),
    "but not where nobody is given access": ({"spec": None}, set()),
    "nor where there is no registry": ({"config": CONFIG}, set()),
})  # fmt: skip
def test_people_have_an_account_in_their_namespace_to_read_the_registry_by(changed: Json, kinds: set[str]) -> None:
    tenant = TenantWorld(**({"spec": GIVES, "config": replace(CONFIG, has_registry=True)} | changed))
    tenant.settle()
    made = {kind: obj for (_, kind, name), obj in tenant.live.items() if name == "r1plus-registry-reader"}
    assert set(made) == kinds
    if kinds:
        assert made["ServiceAccount"]["automountServiceAccountToken"] is False
        assert made["RoleBinding"]["roleRef"]["name"] == "r1plus-tenant-registry-reader"
        subject = {"kind": "ServiceAccount", "name": "r1plus-registry-reader", "namespace": tenant.name}
        assert made["RoleBinding"]["subjects"] == [subject]


HELD = TenantView("True", Reason.ISOLATION_ENFORCED, "all of them", callers=frozenset({"shop", "web"}))
NO_TENANT = TenantView("False", Reason.NAMESPACE_NOT_TENANT, "no label", is_tenant=False, callers=frozenset({"shop"}))


def planned(world: World, tenant: TenantView) -> Plan:
    return plan(replace(world.observed(), tenant=tenant), world.config, world.now)


class TestADeploymentOfATenant:
    """What a deployment's own pass makes of its namespace."""

    @for_each("asked, allowed, let_in, reason", {
        "both agree": (["shop"], {"shop", "web"}, ["shop"], "IsolationEnforced"),
        "one is not allowed": (["shop", "mail"], {"shop"}, ["shop"], "CallerNotAllowed"),
        "none is": (["mail"], set(), [], "CallerNotAllowed"),
        "who is allowed and not asked for": ([], {"shop"}, [], "IsolationEnforced"),
    })  # fmt: skip
    def test_lets_in_whom_both_name(self, asked: list[str], allowed: set[str], let_in: list[str], reason: str) -> None:
        world = World({"tier": "full", "access": {"namespaces": asked}})
        made = planned(world, replace(HELD, callers=frozenset(allowed)))
        policy = next(obj for stage in made.apply for obj in stage if obj["kind"] == "NetworkPolicy")
        peers = policy["spec"]["ingress"][0]["from"]
        assert peers[0] == {"podSelector": {}}
        assert [p["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for p in peers[1:]] == let_in
        told = next(c for c in made.status["conditions"] if c["type"] == "IsolationVerified")
        assert told["reason"] == reason
        assert all(name in told["message"] for name in set(asked) - allowed)

    def test_tells_an_open_policy_before_a_caller_that_is_not_allowed(self) -> None:
        world = World({"tier": "full", "access": {"namespaces": ["mail"]}})
        made = planned(world, replace(HELD, status="False", reason=Reason.ISOLATION_BROKEN))
        assert (
            next(c for c in made.status["conditions"] if c["type"] == "IsolationVerified")["reason"]
            == "IsolationBroken"
        )

    def test_rolls_nothing_out_where_there_is_no_tenant(self) -> None:
        made = planned(World({"tier": "full"}), NO_TENANT)
        assert [obj["kind"] for stage in made.apply for obj in stage if obj["kind"] in ("Deployment", "Service")] == []
        told = {c["type"]: (c["status"], c["reason"]) for c in made.status["conditions"]}
        assert told["IsolationVerified"] == told["Ready"] == ("False", "NamespaceNotTenant")
        assert told["Progressing"] == ("False", "Blocked")

    def test_holds_a_rollout_and_all_that_serves_when_the_label_goes(self) -> None:
        world = World({"tier": "full", "access": {"namespaces": ["shop"]}})
        serves = world.bring_up()
        with_callers = planned(world, HELD)
        for obj in (obj for stage in with_callers.apply for obj in stage):
            world.children[obj["kind"], obj["metadata"]["name"]] |= {"spec": obj["spec"], "metadata": obj["metadata"]}
        world.change(context={"maxTokens": 512})
        made = planned(world, NO_TENANT)
        assert [
            obj["kind"] for stage in made.apply for obj in stage if obj["kind"] in ("Deployment", "NetworkPolicy")
        ] == []
        assert made.delete == ()
        assert world.selected() == serves
        told = {c["type"]: (c["status"], c["reason"]) for c in made.status["conditions"]}
        assert told["Ready"] == ("True", "Serving")
        del world.children["NetworkPolicy", "credit"]
        assert not planned(world, NO_TENANT).writes, "nothing is written where there is no tenant"

    def test_goes_on_when_it_comes_back(self) -> None:
        world = World({"tier": "full"})
        serves = world.bring_up()
        candidate = world.apply(context={"maxTokens": 512})
        world.start_pods(candidate).gate(candidate, Verdict.PASS).set_ready(candidate)
        held = planned(world, NO_TENANT)
        assert not [obj for stage in held.apply for obj in stage if obj["kind"] == "Service"]
        assert world.selected() == serves
        world.settle()
        world.set_ready(candidate).settle()
        assert world.selected() == candidate
