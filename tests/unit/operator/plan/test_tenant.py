"""A namespace as a tenant: what stands in it and when, what goes with its R1PlusTenant, and who is no tenant."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1plus_contract import names
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.settings import IsolationTerms
from r1plus_operator.plan.tenancy import network_policies
from r1plus_operator.plan.tenancy.isolation_test_run import ASK
from r1plus_operator.plan.tenancy.tenant import (
    QUOTA_KINDS,
    TENANT_GRANTS,
    TenantObservation,
    TenantPlan,
    hash_policies,
    plan_tenant,
)
from support.examples import count_examples
from support.plan.tenant_world import CONFIG, DECOY, GIVES, TenantWorld, facts
from support.tables import for_each

BY_LABEL = {
    ("NetworkPolicy", network_policies.DEFAULT_DENY),
    ("NetworkPolicy", network_policies.CALLERS),
    ("NetworkPolicy", ASK),
    ("ServiceAccount", names.PROBER),
}
"""What a namespace has by its label alone."""
BY_CR = {
    ("ResourceQuota", network_policies.LIMITS),
    ("LimitRange", network_policies.LIMITS),
    ("RoleBinding", network_policies.ADMINS),
    ("RoleBinding", network_policies.VIEWERS),
}


def what(world: TenantWorld) -> set[tuple[str, str]]:
    return {(kind, name) for namespace, kind, name in world.live if namespace == world.name}


def kinds_of(planned: TenantPlan) -> list[list[str]]:
    return [sorted({obj["kind"] for obj in stage}) for stage in planned.apply]


def test_a_label_alone_isolates_a_namespace_and_nothing_is_in_it_before_its_default_deny() -> None:
    world = TenantWorld()
    planned = world.pass_once()
    assert [obj["metadata"]["name"] for obj in planned.apply[0]] == [network_policies.DEFAULT_DENY]
    assert what(world) == BY_LABEL
    assert not world.settle().has_changes


def test_an_r1plustenant_gives_the_rest_after_the_policies_and_bears_a_finalizer_before_it_gives() -> None:
    world = TenantWorld(spec=GIVES)
    planned = world.plan()
    assert planned.finalizer is True
    assert kinds_of(planned)[2] == ["LimitRange", "ResourceQuota", "RoleBinding"]
    world.settle()
    assert what(world) == BY_LABEL | BY_CR
    assert world.finalizers == [names.FINALIZER_TENANT]
    world.expect(Ready="True NetworkPoliciesApplied")


def test_all_that_it_made_says_whose_it_is() -> None:
    world = TenantWorld(spec=GIVES).serve("credit")
    world.settle()
    assert {namespace for namespace, _, _ in world.live} == {"team", DECOY}
    for (_, _, name), obj in world.live.items():
        labels = obj["metadata"]["labels"]
        assert labels[names.LABEL_MANAGED_BY] == names.MANAGED_BY, name
        assert labels[names.LABEL_ISOLATION] in ("tenant", "probe"), name
        assert "ownerReferences" not in obj["metadata"], "it hangs on nobody's life"


SPECS = st.fixed_dictionaries(
    {},
    optional={
        "admins": st.just(GIVES["admins"]),
        "viewers": st.just(GIVES["viewers"]),
        "callers": st.just(GIVES["callers"]),
        "egress": st.sampled_from([[], GIVES["egress"], [{"namespace": "postgres", "ports": [5432, 80]}]]),
        "quota": st.sampled_from([{}, {"pods": 20}, {"cpu": "1000", "memory": "1.5Gi"}]),
        "nonsense": st.just(1),
    },
)
WORLDS = st.builds(
    TenantWorld,
    namespace=st.builds(
        facts,
        is_tenant=st.booleans(),
        pod_security=st.sampled_from(["restricted", "baseline", ""]),
        is_terminating=st.booleans(),
    ),
    spec=st.none() | SPECS,
    leaving=st.booleans(),
    finalizers=st.sampled_from([[], [names.FINALIZER_TENANT], ["else"], ["else", names.FINALIZER_TENANT]]).map(list),
    deployments=st.sampled_from([(), ("credit",)]),
    volumes=st.sampled_from([(), ("r1plus-engine-1",)]),
    addresses=st.sampled_from([(), ("10.20.0.7",)]),
    decoy_ready=st.booleans(),
    crowded=st.booleans(),
    refused=st.sampled_from(["", "403: no"]),
    serving=st.sampled_from([{}, {"credit": "w"}, {"a": "1", "b": "2"}]),
)


@settings(max_examples=count_examples(200), deadline=None)
@given(WORLDS)
def test_whatever_there_is_a_pass_over_what_passes_wrote_writes_nothing(world: TenantWorld) -> None:
    world.settle()
    before = world.writes
    for _ in range(3):
        planned = world.pass_once()
        assert not planned.has_changes
        assert planned.status is None
    assert world.writes == before


@settings(max_examples=count_examples(200), deadline=None)
@given(WORLDS, SPECS, st.integers(0, 12), st.booleans())
def test_wherever_the_operator_dies_the_next_passes_come_to_the_same(
    world: TenantWorld, spec: Json, writes: int, backwards: bool
) -> None:
    """The spec changes, and of the pass that carries it out only so many writes are made."""
    world.settle()
    if world.spec is not None:
        world.spec = spec
    other = replace(world, live=dict(world.live), finalizers=list(world.finalizers), status=dict(world.status))
    other.settle()
    world.carry_out(world.plan(), writes, backwards=backwards)
    world.settle()
    without_runs = [{key for key in one.live if key[1] != "Job"} for one in (world, other)]
    assert without_runs[0] == without_runs[1]
    assert world.finalizers == other.finalizers
    assert len(world.made) == len(other.made)


@pytest.mark.parametrize("kind_and_name", sorted(BY_LABEL | BY_CR), ids=" ".join)
def test_what_is_taken_away_or_altered_is_put_back_alone(kind_and_name: tuple[str, str]) -> None:
    world = TenantWorld(spec=GIVES)
    world.settle()
    key = (world.name, *kind_and_name)
    gone = world.live.pop(key)
    planned = world.pass_once()
    assert [obj["metadata"]["name"] for stage in planned.apply for obj in stage] == [kind_and_name[1]]
    assert world.live[key]["metadata"]["annotations"] == gone["metadata"]["annotations"]
    altered = {**world.live[key], "metadata": {**world.live[key]["metadata"], "labels": {}}}
    world.live[key] = altered
    world.settle()
    assert world.live[key]["metadata"]["labels"] == gone["metadata"]["labels"]


def test_a_pass_that_writes_a_policy_begins_no_run() -> None:
    world = TenantWorld(spec=GIVES).serve("credit")
    planned = world.pass_once()
    assert planned.apply
    assert "Job" not in {obj["kind"] for stage in planned.apply for obj in stage}
    assert not world.made
    world.pass_once()
    assert len(world.made) == 1
    world.now += 3601
    world.end()
    del world.live[world.name, "NetworkPolicy", network_policies.DEFAULT_DENY]
    world.wait(7200).pass_once()
    assert len(world.made) == 1
    world.pass_once()
    assert len(world.made) == 2


def test_what_is_being_deleted_is_neither_written_nor_deleted_again() -> None:
    world = TenantWorld()
    world.settle()
    key = (world.name, "NetworkPolicy", network_policies.DEFAULT_DENY)
    world.going.add(key)
    del world.live[key]
    assert not world.plan().has_changes
    world.going.clear()
    assert world.plan().has_changes


def test_what_bears_the_label_and_is_none_of_it_is_deleted() -> None:
    world = TenantWorld()
    world.settle()
    meta = {**network_policies.build_metadata(world.name, "open-sesame"), "uid": "forged"}
    world.live[world.name, "NetworkPolicy", "open-sesame"] = network_policies.build_policy(meta, {}, [{}], [{}])
    assert world.plan().delete == ((world.name, "NetworkPolicy", "open-sesame", "forged"),)


@for_each("narrower, gone", {
    "no admins": ({"viewers": GIVES["viewers"], "quota": GIVES["quota"]}, {("RoleBinding", network_policies.ADMINS)}),
    "no requests in its quota": ({**GIVES, "quota": {"pods": 1}}, {("LimitRange", network_policies.LIMITS)}),
    "nothing": ({}, BY_CR - {("ResourceQuota", network_policies.LIMITS)}),
})  # fmt: skip
def test_what_an_r1plustenant_gives_no_more_is_taken(narrower: Json, gone: set[tuple[str, str]]) -> None:
    world = TenantWorld(spec=GIVES)
    world.settle()
    world.alter(spec=narrower).settle()
    assert what(world) == (BY_LABEL | BY_CR) - gone


class TestDeletion:
    """Deployments, then volumes, then access; the walls stay."""

    def world(self, **given: Any) -> TenantWorld:
        world = TenantWorld(spec=GIVES, deployments=("credit", "fraud"), volumes=("r1plus-engine-1",))
        world.settle()
        world.leaving = True
        for name, value in given.items():
            setattr(world, name, value)
        return world

    def test_it_waits_for_deployments_and_then_for_volumes_and_says_so(self) -> None:
        world = self.world()
        world.settle()
        assert "R1PlusDeployment credit, R1PlusDeployment fraud;" in world.condition("Ready")[2]
        world.expect(Ready="False Deleting")
        world.alter(deployments=()).settle()
        assert "PersistentVolumeClaim r1plus-engine-1;" in world.condition("Ready")[2]
        assert what(world) == BY_LABEL | BY_CR
        assert world.spec is not None

    def test_then_it_takes_what_it_gave_and_only_then_it_is_let_go(self) -> None:
        world = self.world(deployments=(), volumes=())
        first = world.pass_once()
        assert {kind for _, kind, _, _ in first.delete} == set(TENANT_GRANTS)
        assert first.finalizer is None
        assert world.pass_once().finalizer is False
        assert world.spec is None
        world.settle()
        assert what(world) == BY_LABEL

    def test_what_others_hold_up_holds_it_no_longer_than_they_do(self) -> None:
        world = self.world(deployments=(), volumes=(), finalizers=[names.FINALIZER_TENANT, "else"])
        world.settle()
        assert world.finalizers == ["else"]
        assert not world.pass_once().has_changes

    def test_one_without_a_finalizer_gets_none_while_it_goes(self) -> None:
        world = self.world(finalizers=["else"])
        assert world.plan().finalizer is None

    @for_each("namespace", {
        "whose label has been taken off": facts(is_tenant=False),
        "that is reserved": facts("kube-public"),
        "that is being deleted": facts(is_terminating=True),
        "that is being deleted without its label": facts(is_tenant=False, is_terminating=True),
    })  # fmt: skip
    def test_it_ends_in_a_namespace(self, namespace: Any) -> None:
        world = self.world()
        world.live = {(namespace.name, kind, name): obj for (_, kind, name), obj in world.live.items()}
        world.alter(namespace=namespace).settle()
        assert world.spec is not None, "its deployments are still there"
        assert {key[1] for key in world.live if key[1] in TENANT_GRANTS} == set(TENANT_GRANTS)
        world.alter(deployments=(), volumes=()).settle()
        assert world.spec is None
        assert not [key for key in world.live if key[1] in TENANT_GRANTS]
        assert (world.name, "NetworkPolicy", network_policies.DEFAULT_DENY) in world.live


@pytest.mark.parametrize(
    ("namespace", "reason"),
    [
        pytest.param(facts(is_tenant=False), "NamespaceNotTenant", id="without the label"),
        *(
            pytest.param(facts(name), "NamespaceReserved", id=name)
            for name in ("default", "kube-system", "kube-anything", "r1plus-system", "monitoring")
        ),
    ],
)
def test_what_is_no_tenant_is_told_and_nothing_is_made_or_taken(namespace: Any, reason: str) -> None:
    world = TenantWorld(spec=GIVES, finalizers=[names.FINALIZER_TENANT]).serve("credit").probed()
    world.live = {
        (namespace.name if where == "team" else where, kind, name): obj
        for (where, kind, name), obj in world.live.items()
    }
    world.namespace = namespace
    before = dict(world.live)
    planned = world.settle()
    assert world.live == before
    assert (planned.view.is_tenant, planned.view.status, planned.view.reason) == (False, "False", reason)
    assert planned.view.callers == {"shop"}, "who called may still call"
    assert world.condition("Ready")[:2] == world.condition("IsolationVerified")[:2] == ("False", reason)
    assert world.finalizers == [names.FINALIZER_TENANT]


def test_a_namespace_that_terminates_gets_nothing() -> None:
    world = TenantWorld(facts(is_terminating=True), spec=GIVES).serve("credit")
    planned = world.plan()
    assert (planned.apply, planned.delete, planned.finalizer) == ((), (), None)
    world.settle()
    assert not world.live


def test_an_r1plustenant_that_cannot_be_read_opens_nothing_and_its_quota_stays() -> None:
    world = TenantWorld(spec=GIVES)
    world.settle()
    world.spec = {**GIVES, "callers": {"namespaces": ["Shop"]}}
    quota = world.one("ResourceQuota", network_policies.LIMITS)
    planned = world.settle()
    assert world.one("ResourceQuota", network_policies.LIMITS) == quota
    assert planned.view.callers == frozenset()
    assert {kind for kind, _ in what(world) & BY_CR} == set(QUOTA_KINDS)
    assert len(world.one("NetworkPolicy", network_policies.CALLERS)["spec"]["egress"]) == 2
    world.expect(Ready=("False InvalidSpec", "spec.callers.namespaces"))


def test_a_quota_is_raised_before_what_a_full_one_refuses() -> None:
    """Else nothing would raise it: no stage is applied after one that is refused."""
    world = TenantWorld(spec={"quota": {"networkPolicies": 2}})
    world.settle()
    del world.live[world.name, "NetworkPolicy", network_policies.DEFAULT_DENY]
    world.spec = {"quota": {"networkPolicies": 9}}
    stages = [[obj["kind"] for obj in stage] for stage in world.plan().apply]
    assert stages == [["ResourceQuota"], ["NetworkPolicy"]]


def test_a_node_that_joins_closes_its_own_address_alone() -> None:
    ways = [{"cidr": "10.0.0.0/8", "ports": [443]}, {"cidr": "192.168.0.7/32", "ports": [5432]}]
    world = TenantWorld(spec={"egress": ways}, addresses=("10.1.0.4", "fd00::1"))
    world.settle()
    opened = world.one("NetworkPolicy", network_policies.CALLERS)["spec"]["egress"][2:]
    assert [way["to"] for way in opened] == [
        [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.4/32"]}}],
        [{"ipBlock": {"cidr": "192.168.0.7/32"}}],
    ]
    world.expect(Ready="NetworkPoliciesApplied")
    world.alter(addresses=("10.1.0.4", "192.168.0.7")).settle()
    (opened,) = world.one("NetworkPolicy", network_policies.CALLERS)["spec"]["egress"][2:]
    assert opened["to"] == [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.4/32"]}}]
    world.expect(Ready=("False EgressNotOpened", "spec.egress[1].cidr: 192.168.0.7/32", "192.168.0.7"))


def test_what_the_api_server_refuses_is_told() -> None:
    world = TenantWorld(spec=GIVES)
    world.settle()
    world.alter(refused="403 Forbidden: no RoleBinding").settle()
    world.expect(Ready=("False WriteRefused", "no RoleBinding"))
    assert world.condition("IsolationVerified")[1] == "Pending", "the walls stand"
    del world.live[world.name, "NetworkPolicy", network_policies.DEFAULT_DENY]
    assert (world.plan().view.status, world.plan().view.reason) == ("False", "WriteRefused")
    assert network_policies.DEFAULT_DENY in world.plan().view.message


def test_the_figures_of_the_newest_run_are_in_the_status() -> None:
    world = TenantWorld(spec={}).serve("credit").probed(opened=("decoy-pod:8001",), blind=("metadata", "kubelet"))
    told = world.status["isolation"]
    assert (told["deployment"], told["open"], told["unseen"]) == ("credit", ["decoy-pod:8001"], ["metadata", "kubelet"])
    assert told["tries"] == told["held"] + 3
    assert told["finished"] == "1970-01-01T02:47:10Z"
    world.expect(IsolationVerified="False IsolationBroken")


def test_a_digest_tells_a_policy_that_was_made_anew_or_reads_otherwise() -> None:
    policy = {"metadata": {"name": "w", "uid": "1", "labels": {"a": "b"}}, "spec": {"podSelector": {}}}
    other = {**policy, "metadata": {**policy["metadata"], "name": "v"}}
    assert hash_policies([policy, other]) == hash_policies([other, policy])
    changes = [
        {**policy, "metadata": {**policy["metadata"], "uid": "2"}},
        {**policy, "metadata": {**policy["metadata"], "name": "x"}},
        {**policy, "spec": {"podSelector": {"matchLabels": {"a": "b"}}}},
    ]
    assert len({hash_policies([one]) for one in (policy, *changes)}) == 4
    assert hash_policies([policy]) != hash_policies([policy, other])
    labelled = {**policy, "metadata": {**policy["metadata"], "labels": {}}}
    assert hash_policies([labelled]) == hash_policies([policy])


def test_without_a_decoy_there_is_no_prober_and_what_there_was_of_it_goes() -> None:
    world = TenantWorld().serve("credit").probed()
    assert len(world.jobs()) == 3
    world.config = replace(CONFIG, isolation=IsolationTerms())
    planned = world.settle()
    assert not world.jobs()
    stands = {("NetworkPolicy", network_policies.DEFAULT_DENY), ("NetworkPolicy", network_policies.CALLERS)}
    assert what(world) == stands | {("ServiceAccount", names.PROBER)}, "its account stays: it may do nothing"
    assert (planned.view.status, planned.view.reason) == ("Unknown", "ProbingOff")


def test_nothing_is_planned_of_nothing() -> None:
    seen = TenantObservation(facts(is_tenant=False), None, {})
    planned = plan_tenant(seen, CONFIG, 0.0)
    assert not planned.has_changes
    assert planned.status is None
