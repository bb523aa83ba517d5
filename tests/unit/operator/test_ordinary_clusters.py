"""What ordinary clusters have otherwise: where DNS is answered, and who says which user a pod runs as."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from r1plus_contract.engine.engine_fetch import FillOrder
from r1plus_contract.requests import Verb
from r1plus_operator.config import OperatorConfigError, load_settings
from r1plus_operator.observe import projections
from r1plus_operator.plan.deployment import plan
from r1plus_operator.plan.engine.delivery import EngineVolume
from r1plus_operator.plan.manifests.children import ChildOwner, build_network_policy
from r1plus_operator.plan.observation import REFUSED_PODS, Json, TenantView
from r1plus_operator.plan.revision.refresh import RefreshOutcome
from r1plus_operator.plan.settings import DnsPods, DnsTerms, OperatorConfig, PodUser, RuntimeUpdate
from r1plus_operator.plan.tenancy import decoy, isolation_test_jobs, isolation_test_run, network_policies, volumes
from r1plus_operator.plan.tenancy.tenant import plan_tenant
from support.plan.tenant_world import CONFIG, TenantWorld, facts
from support.plan.world import DAY, FULL, NEXT, World, serve_world, start_world

NODE_LOCAL = DnsTerms(
    (DnsPods("openshift-dns", {"dns.operator.openshift.io/daemonset-dns": "default"}),), ("169.254.20.10/32",)
)
NEED = volumes.VolumeNeed(
    EngineVolume(
        "r1plus-engine-0123456789abcdef", FillOrder("full", "a" * 64, 2**30, archive=None), "registry.local/e:1"
    ),
    (("credit", "1-2-3"),),
)
RANGE = {"openshift.io/sa.scc.uid-range": "1000680000/10000"}
AS_1000: Json = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000}
NO_USER: Json = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def policies_of(config: OperatorConfig) -> dict[str, Json]:
    """Every wall that lets out to DNS, by what it is of."""
    owner = ChildOwner({"metadata": {"name": "credit", "namespace": "team", "uid": "u-1"}})
    return {
        "what serves": build_network_policy(owner, (), config),
        "a tenant's own pods": network_policies.build_callers_policy("team", (), config.dns),
        "the isolation test": isolation_test_jobs.build_network_policy("team", config),
        "the decoy": decoy.build_network_policies(config)[0],
    }


@pytest.mark.parametrize("of", policies_of(CONFIG))
def test_policies_allow_dns_where_it_is_answered(of: str) -> None:
    default, *_ = policies_of(CONFIG)[of]["spec"]["egress"]
    kube_dns = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}
    assert default["to"] == [kube_dns | {"podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}]
    own, *_ = policies_of(replace(CONFIG, dns=NODE_LOCAL))[of]["spec"]["egress"]
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
    with pytest.raises(OperatorConfigError, match=f"{variable}: .*the chart sets it from {value}"):
        load_settings({**least, variable: text})


def test_by_default_pods_run_as_they_did(least: dict[str, str]) -> None:
    found = load_settings(least).operator
    assert (found.pod_user, found.dns) == (PodUser(1000, 1000, 1000), DnsTerms())


def test_a_user_that_is_left_out_is_the_clusters_to_give(least: dict[str, str]) -> None:
    found = load_settings({**least, "R1PLUS_POD_USER": '{"runAsUser": null, "fsGroup": 1.00068e9}'}).operator
    assert found.pod_user == PodUser(None, None, 1_000_680_000)


def contexts(objects: Any) -> Iterator[Json]:
    """The security context of each pod template among objects, in whatever stages."""
    for stage in objects:
        for obj in stage:
            if obj["kind"] in ("Deployment", "Job"):
                yield obj["spec"]["template"]["spec"]["securityContext"]


def test_pods_name_no_user_in_a_namespace_that_assigns_users() -> None:
    meta = {"name": "team", "uid": "uid-of-team"}
    plain, assigning = (
        projections.project_namespace({"metadata": meta | more}).value for more in ({}, {"annotations": RANGE})
    )
    assert (plain.assigns_users, assigning.assigns_users) == (False, True)
    view = TenantWorld(facts(assigns_users=True)).plan().view
    assert view.assigns_users
    for tenant, expected in ((view, NO_USER), (replace(view, assigns_users=False), NO_USER | AS_1000)):
        world = World(dict(FULL))
        planned = plan(replace(world.observed(), tenant=tenant), world.config, world.now)
        assert list(contexts(planned.apply)) == [expected]
    seen = volumes.VolumesObservation("team", (NEED,), {}, assigns_users=True)
    made = seen, replace(seen, assigns_users=False)
    for one, expected in zip(made, (NO_USER, NO_USER | AS_1000), strict=True):
        claim = volumes.build_claim(NEED, "team", CONFIG, None, False)
        claim["metadata"]["uid"] = "uid-of-claim"
        with_claim = replace(one, live={("PersistentVolumeClaim", claim["metadata"]["name"]): claim})
        (stages,) = volumes.plan_volumes(with_claim, CONFIG, 0.0).apply.values()
        assert list(contexts(stages)) == [expected]


def test_pods_of_a_tenant_with_a_user_of_its_own_run_as_that_one() -> None:
    own = NO_USER | AS_1000 | {"runAsUser": 20000}
    view = TenantWorld(spec={"runAsUser": 20000}).plan().view
    assert view.run_as_user == 20000
    world = World(dict(FULL))
    assert list(contexts(plan(replace(world.observed(), tenant=view), world.config, world.now).apply)) == [own]
    assigned = replace(view, assigns_users=True)
    assert list(contexts(plan(replace(world.observed(), tenant=assigned), world.config, world.now).apply)) == [NO_USER]
    seen = volumes.VolumesObservation("team", (NEED,), {}, run_as_user=20000)
    claim = volumes.build_claim(NEED, "team", CONFIG, None, False)
    claim["metadata"]["uid"] = "uid-of-claim"
    seen = replace(seen, live={("PersistentVolumeClaim", claim["metadata"]["name"]): claim})
    (stages,) = volumes.plan_volumes(seen, CONFIG, 0.0).apply.values()
    assert list(contexts(stages)) == [own]


def test_the_isolation_test_names_no_user_in_a_namespace_that_assigns_users() -> None:
    run = isolation_test_run.IsolationTestRun("team", "uid", "credit", {"credit": "1", "": "2"}, 1)
    for config, expected in ((CONFIG, NO_USER | AS_1000), (CONFIG.for_namespace(assigns_users=True), NO_USER)):
        assert (
            list(contexts([isolation_test_jobs.build_jobs(run, config), decoy.build_objects(config)])) == [expected] * 4
        )
    world = TenantWorld(facts(CONFIG.isolation.decoy_namespace, assigns_users=True))
    assert list(contexts(plan_tenant(world.seen(), CONFIG, world.now).apply)) == [NO_USER]


ASSIGNING = TenantView("True", "IsolationEnforced", "", assigns_users=True)


def context_of(world: World, revision: str) -> Json:
    """The security context of a revision's pods."""
    return dict(world.revision(revision).template["spec"]["securityContext"])


def stored(world: World) -> dict[str, Json]:
    """Of each ControllerRevision what the API server lets nobody change."""
    return {one["metadata"]["name"]: one["data"] for one in world.live("ControllerRevision")}


def test_what_serves_keeps_its_template_when_a_namespace_gets_a_range() -> None:
    world = serve_world()
    serving = world.selected()
    assert plan(replace(world.observed(), tenant=ASSIGNING), world.config, world.now).writes == 0
    world.alter(tenant=ASSIGNING).settle()
    world.expect(serves=serving, runs={serving: 1}, Ready="True Serving", Progressing="False Complete")
    assert world.status["runtime"]["reason"] == "RuntimeOutdated"
    assert "this namespace assigns users now" in world.status["runtime"]["message"]
    assert "r1plus refresh NAME -n NAMESPACE" in world.status["runtime"]["message"]


def test_what_serves_says_what_to_do_where_its_pods_are_refused() -> None:
    world = serve_world()
    said = 'pods "x" is forbidden: unable to validate against any security context constraint'
    world.one("Deployment", world.selected())[REFUSED_PODS] = said
    world.alter(tenant=replace(ASSIGNING, assigns_users=False)).settle()
    world.expect(CapacityFits=("False PodRefused", said, "admission policies"))
    world.alter(tenant=ASSIGNING).settle()
    world.expect(
        CapacityFits=("False PodRefused", said, "this namespace assigns users; `r1plus refresh NAME -n NAMESPACE")
    )


def test_a_refresh_brings_pods_that_name_no_user() -> None:
    world = serve_world()
    before, kept = world.selected(), stored(world)
    world.alter(tenant=ASSIGNING).ask(Verb.REFRESH, revision=before).settle()
    candidate = world.candidate()
    world.expect(serves=before, runs={before: 1, candidate: 1}, Progressing="True RollingOut")
    assert context_of(world, candidate) == NO_USER
    assert world.bring_up() == candidate
    world.expect(serves=candidate, Progressing="False Complete")
    assert world.status["runtime"]["reason"] == "Current"
    assert stored(world).items() >= kept.items()


def test_automatic_updates_bring_pods_that_name_no_user() -> None:
    world = serve_world()
    before = world.selected()
    world.alter(tenant=ASSIGNING, config=replace(world.config, runtime_update=RuntimeUpdate.AUTOMATIC)).settle()
    world.expect(serves=before, Progressing="True RollingOut")
    assert context_of(world, world.candidate()) == NO_USER


def test_a_candidate_is_rendered_again_when_its_namespace_gets_a_range() -> None:
    world = start_world()
    refused = world.candidate()
    kept = stored(world)
    world.alter(tenant=ASSIGNING).settle()
    candidate = world.candidate()
    assert (context_of(world, refused), context_of(world, candidate)) == (NO_USER | AS_1000, NO_USER)
    assert world.deployments() == {candidate: 1}
    assert stored(world).items() >= kept.items()
    assert world.bring_up() == candidate
    world.expect(serves=candidate, runs={candidate: 1}, Ready="True Serving", Progressing="False Complete")
    assert world.status["runtime"]["reason"] == "Current"


def test_a_candidate_next_to_what_serves_is_rendered_again_when_its_namespace_gets_a_range() -> None:
    world = serve_world()
    serving = world.selected()
    refused = world.apply(**NEXT)
    world.alter(tenant=ASSIGNING).settle()
    candidate = world.candidate()
    assert candidate not in (serving, refused)
    world.expect(serves=serving, runs={serving: 1, candidate: 1})
    assert context_of(world, candidate) == NO_USER


def test_a_candidate_that_a_refresh_began_is_rendered_again_when_its_namespace_gets_a_range() -> None:
    world = serve_world()
    serving = world.selected()
    world.alter(config=replace(world.config, monitor_image="registry.local/monitor:2"))
    world.ask(Verb.REFRESH, revision=serving).settle()
    refused = world.candidate()
    world.alter(tenant=ASSIGNING).settle()
    candidate = world.candidate()
    world.expect(serves=serving, runs={serving: 1, candidate: 1})
    assert (context_of(world, refused), context_of(world, candidate)) == (NO_USER | AS_1000, NO_USER)
    assert world.revision(refused).refresh.outcome is RefreshOutcome.SUPERSEDED


def test_what_served_before_comes_back_without_a_user() -> None:
    world = serve_world()
    first = world.selected()
    world.wait(DAY).apply(**NEXT)
    world.bring_up()
    world.wait(DAY).alter(tenant=ASSIGNING).apply(context=FULL["context"])
    assert world.candidate() != first
    assert context_of(world, world.bring_up()) == NO_USER


def test_a_range_that_comes_and_goes_changes_no_stored_revision() -> None:
    world = start_world()
    for tenant in (ASSIGNING, replace(ASSIGNING, assigns_users=False)) * 3:
        kept = stored(world)
        world.alter(tenant=tenant).settle()
        expected = NO_USER if tenant.assigns_users else NO_USER | AS_1000
        assert context_of(world, world.candidate()) == expected
        assert world.deployments() == {world.candidate(): 1}
        assert all(kept[name] == data for name, data in stored(world).items() if name in kept)


def test_a_delivery_begins_again_when_its_namespace_gets_a_range() -> None:
    seen = volumes.VolumesObservation("team", (NEED,), {})
    claim = volumes.build_claim(NEED, "team", CONFIG, None, False)
    claim["metadata"]["uid"] = "uid-of-claim"
    seen = replace(seen, live={("PersistentVolumeClaim", claim["metadata"]["name"]): claim})
    made = {
        (obj["kind"], obj["metadata"]["name"]): {**obj, "metadata": {**obj["metadata"], "uid": f"uid-{obj['kind']}"}}
        for stages in volumes.plan_volumes(seen, CONFIG, 0.0).apply.values()
        for stage in stages
        for obj in stage
    }
    running = replace(seen, live=made | seen.live)
    assert not volumes.plan_volumes(running, CONFIG, 0.0).delete
    planned = volumes.plan_volumes(replace(running, assigns_users=True), CONFIG, 0.0)
    assert planned.delete == (("Job", NEED.volume.name, "uid-Job"),)
    without = {key: live for key, live in running.live.items() if key[0] != "Job"}
    planned = volumes.plan_volumes(replace(running, live=without, assigns_users=True), CONFIG, 0.0)
    assert list(contexts(planned.apply[NEED.volume.name])) == [NO_USER]
