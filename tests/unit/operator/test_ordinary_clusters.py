"""What ordinary clusters have otherwise: where DNS is answered, and who says which user a pod runs as."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from r1plus_contract.filling import FillOrder
from r1plus_operator import projections
from r1plus_operator.config import ConfigError, from_environment
from r1plus_operator.plan import decoy, prober, probing, volumes, walls
from r1plus_operator.plan.delivering import EngineVolume
from r1plus_operator.plan.inputs import DnsPods, DnsTerms, Json, OperatorConfig, PodUser, TenantView
from r1plus_operator.plan.objects import Owner, network_policy
from r1plus_operator.plan.plan import plan
from r1plus_operator.plan.tenant import plan_tenant
from support.plan.tenant_world import CONFIG, TenantWorld, facts
from support.plan.world import FULL, World, serve_world

NODE_LOCAL = DnsTerms(
    (DnsPods("openshift-dns", {"dns.operator.openshift.io/daemonset-dns": "default"}),), ("169.254.20.10/32",)
)
NEED = volumes.Need(
    EngineVolume(
        "r1plus-engine-0123456789abcdef", FillOrder("full", "a" * 64, 2**30, archive=None), "registry.local/e:1"
    ),
    (("credit", "1-2-3"),),
)
RANGE = {"openshift.io/sa.scc.uid-range": "1000680000/10000"}
AS_1000: Json = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}
NO_USER: Json = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def walls_of(config: OperatorConfig) -> dict[str, Json]:
    """Every wall that lets out to DNS, by what it is of."""
    owner = Owner({"metadata": {"name": "credit", "namespace": "team", "uid": "u-1"}})
    return {
        "what serves": network_policy(owner, (), config),
        "a tenant's own pods": walls.callers("team", (), config.dns),
        "the isolation test": prober.way_to_ask("team", config),
        "the decoy": decoy.walls_of(config)[0],
    }


@pytest.mark.parametrize("of", walls_of(CONFIG))
def test_finding_13_walls_let_out_to_dns_where_it_is_answered(of: str) -> None:
    default, *_ = walls_of(CONFIG)[of]["spec"]["egress"]
    kube_dns = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    assert default["to"] == [kube_dns | {"podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]
    own, *_ = walls_of(replace(CONFIG, dns=NODE_LOCAL))[of]["spec"]["egress"]
    pods, cache = own["to"]
    assert pods["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}}
    assert pods["podSelector"] == {"matchLabels": {"dns.operator.openshift.io/daemonset-dns": "default"}}
    assert (cache, own["ports"]) == ({"ipBlock": {"cidr": "169.254.20.10/32"}}, default["ports"])


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("R1PLUS_DNS", "everywhere", "networkPolicy.dns"),
        ("R1PLUS_DNS", '{"pods": [], "cidrs": []}', "networkPolicy.dns"),
        ("R1PLUS_DNS", '{"pods": [], "cidrs": ["169.254.20.10/33"]}', "networkPolicy.dns"),
        ("R1PLUS_DNS", '{"pods": ["kube-system"], "cidrs": []}', "networkPolicy.dns"),
        ("R1PLUS_POD_USER", '{"runAsUser": "me"}', "podSecurity"),
        ("R1PLUS_ALERTS", '{"labels": {}}', "monitoring.alerts"),
    ],
)
def test_what_cannot_be_used_is_named(least: dict[str, str], variable: str, text: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{variable}: .*the chart sets it from {value}"):
        from_environment({**least, variable: text})


def test_by_default_pods_run_as_they_did(least: dict[str, str]) -> None:
    found = from_environment(least).operator
    assert (found.pod_user, found.dns) == (PodUser(1000, 1000, 1000), DnsTerms())


def test_a_user_that_is_left_out_is_the_clusters_to_give(least: dict[str, str]) -> None:
    found = from_environment({**least, "R1PLUS_POD_USER": '{"runAsUser": null, "fsGroup": 1.00068e9}'}).operator
    assert found.pod_user == PodUser(None, None, 1_000_680_000)


def contexts(objects: Any) -> Iterator[Json]:
    """The security context of each pod template among objects, in whatever stages."""
    for stage in objects:
        for obj in stage:
            if obj["kind"] in ("Deployment", "Job"):
                yield obj["spec"]["template"]["spec"]["securityContext"]


def test_finding_13_pods_name_no_user_in_a_namespace_that_assigns_users() -> None:
    meta = {"name": "team", "uid": "uid-of-team"}
    plain, assigning = (projections.namespace({"metadata": meta | more}).value for more in ({}, {"annotations": RANGE}))
    assert (plain.assigns_users, assigning.assigns_users) == (False, True)
    view = TenantWorld(facts(assigns_users=True)).plan().view
    assert view.assigns_users
    for tenant, expected in ((view, NO_USER), (replace(view, assigns_users=False), NO_USER | AS_1000)):
        world = World(dict(FULL))
        planned = plan(replace(world.observed(), tenant=tenant), world.config, world.now)
        assert list(contexts(planned.apply)) == [expected]
    seen = volumes.Seen("team", (NEED,), {}, assigns_users=True)
    made = seen, replace(seen, assigns_users=False)
    for one, expected in zip(made, (NO_USER, NO_USER | AS_1000), strict=True):
        claim = volumes.claim_of(NEED, "team", CONFIG, None, False)
        claim["metadata"]["uid"] = "uid-of-claim"
        with_claim = replace(one, live={("PersistentVolumeClaim", claim["metadata"]["name"]): claim})
        (stages,) = volumes.plan_volumes(with_claim, CONFIG, 0.0).apply.values()
        assert list(contexts(stages)) == [expected]


def test_finding_13_the_isolation_test_names_no_user_in_a_namespace_that_assigns_users() -> None:
    run = probing.Run("team", "uid", "credit", {"credit": "1", "": "2"}, 1)
    for config, expected in ((CONFIG, NO_USER | AS_1000), (CONFIG.in_namespace(assigns_users=True), NO_USER)):
        assert list(contexts([prober.jobs(run, config), decoy.objects(config)])) == [expected] * 4
    world = TenantWorld(facts(CONFIG.isolation.decoy_namespace, assigns_users=True))
    assert list(contexts(plan_tenant(world.seen(), CONFIG, world.now).apply)) == [NO_USER]


def test_finding_13_what_serves_keeps_its_template_when_a_namespace_gets_a_range() -> None:
    world = serve_world()
    tenant = TenantView("True", "WallsHeld", "", assigns_users=True)
    assert plan(replace(world.observed(), tenant=tenant), world.config, world.now).writes == 0
