"""The pass over a namespace as a tenant with its queue, caches and writes: what wakes it, what it costs, what ends it."""

import contextlib
import sys
from collections import Counter
from typing import Any

import pytest

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_operator.controllers.tenant import FAILURES_BEFORE_REPORT, WITHOUT_EFFECT_SECONDS
from r1plus_operator.observe.keys import DeploymentKey, TenantKey, VolumesKey
from r1plus_operator.plan.observation import Json
from r1plus_operator.plan.status.explanations import FAILED_REMEDY, REFUSED_REMEDY
from r1plus_operator.plan.tenancy import isolation_test_jobs, isolation_test_run, network_policies
from r1plus_operator.runtime.errors import ApiError, ForbiddenError, InvalidError
from support.operator.tenant_rig import Rig, ended
from support.plan.tenant_world import CONFIG, DECOY, GIVES

KEY = TenantKey("team")


def cr(**meta: Any) -> Json:
    head = {"name": "credit", "namespace": "team", "uid": "d", "generation": 1, "resourceVersion": "5"}
    return {"metadata": {**head, **meta}, "spec": {"tier": "full"}, "status": {}}


async def tenant(spec: Json | None = None, *, serves: bool = False) -> Rig:
    """A tenant whose passes are done."""
    rig = Rig()
    rig.label(DECOY)
    rig.label("team")
    if spec is not None:
        rig.give("team", spec)
    if serves:
        rig.decoy_is_up()
        rig.serve("team", "credit")
    await rig.work()
    rig.enqueued.take()
    return rig


def run_jobs(rig: Rig) -> list[Json]:
    return [obj for (kind, _, _), obj in rig.cluster.objects.items() if kind == "Job"]


class TestWakes:
    """Which events ask for the pass of a namespace as a tenant."""

    async def test_a_namespace_that_is_labelled_or_relabelled_and_its_deployments_with_it(self) -> None:
        rig = await tenant()
        rig.observer.ingest("ADDED", cr())
        rig.enqueued.take()
        rig.label("team", "MODIFIED", labels={names.LABEL_TENANT: "true"})
        assert rig.enqueued.take() == [KEY, ("team", "credit")]
        rig.label("team", "MODIFIED", labels={names.LABEL_TENANT: "true"}, annotations={"a": "b"})
        assert rig.enqueued.take() == []

    async def test_an_r1plustenant_that_is_edited_deleted_or_gone(self) -> None:
        rig = await tenant(GIVES)
        changes: tuple[Json, ...] = ({"generation": 2}, {"deletionTimestamp": "now"}, {})
        for event, meta in zip(("MODIFIED", "MODIFIED", "DELETED"), changes, strict=True):
            rig.give("team", GIVES, event, **meta)
            assert rig.enqueued.take() == [KEY]

    async def test_not_the_echo_of_what_the_pass_wrote_itself(self) -> None:
        rig = await tenant(GIVES, serves=True)
        kinds = {*rig.observer.children, names.KIND_TENANT}
        written = [(kind, obj) for (kind, _, _), obj in rig.cluster.objects.items() if kind in kinds]
        assert {"NetworkPolicy", "RoleBinding", "Job", names.KIND_TENANT} <= {kind for kind, _ in written}
        for kind, obj in written:
            rig._reflector(kind)._apply_event("MODIFIED", obj)
        assert rig.enqueued.take() == []

    @pytest.mark.parametrize("kind", ["NetworkPolicy", "RoleBinding", "ResourceQuota", "LimitRange", "ServiceAccount"])
    @pytest.mark.parametrize("how", ["deleted", "altered"])
    async def test_what_it_has_made_is_deleted_or_altered(self, kind: str, how: str) -> None:
        rig = await tenant(GIVES)
        name = rig.has(kind, "team")[0]
        obj = rig.cluster.objects[kind, "team", name]
        changed = {**obj, "metadata": {**obj["metadata"], "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY}}}
        rig.say(*(("DELETED", kind, obj) if how == "deleted" else ("MODIFIED", kind, changed)))
        expected = KEY in rig.enqueued.urgent if kind == "NetworkPolicy" else KEY in rig.enqueued.all
        # Of a service account that lost its mark nothing hangs but the next run.
        assert expected or (kind, how) == ("ServiceAccount", "altered")
        if expected:
            await rig.work()
            assert rig.cluster.objects[kind, "team", name]["metadata"]["labels"][names.LABEL_ISOLATION]

    async def test_a_deployment_that_is_gone_for_which_an_r1plustenant_waits(self) -> None:
        rig = await tenant()
        rig.give("team", {}, "MODIFIED", deletionTimestamp="2026-11-28T12:00:00Z")
        rig.observer.ingest("ADDED", cr())
        rig.enqueued.take()
        rig.observer.ingest("DELETED", cr())
        assert set(rig.enqueued.take()) == {KEY, ("team", "credit")}
        rig.observer.ingest("ADDED", cr())
        rig.enqueued.take()
        rig.observer.forget(DeploymentKey("team", "credit"), "d")
        assert rig.enqueued.take() == [KEY]

    async def test_a_claim_that_is_gone_likewise(self) -> None:
        rig = await tenant()
        labels = {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_VOLUME: "v"}
        meta = {"name": "v", "namespace": "team", "labels": labels}
        claim = rig.say("ADDED", "PersistentVolumeClaim", {"metadata": meta})
        assert rig.enqueued.take() == [VolumesKey("team")]
        rig.say("DELETED", "PersistentVolumeClaim", claim)
        assert set(rig.enqueued.take()) == {KEY, VolumesKey("team")}

    async def test_a_pod_that_serves_and_none_that_does_not(self) -> None:
        rig = await tenant()
        rig.pod("team", "credit-x", {names.LABEL_DEPLOYMENT: "credit"}, ready=False)
        assert rig.enqueued.take() == [("team", "credit")]
        rig.pod("team", "credit-x", {names.LABEL_DEPLOYMENT: "credit"})
        assert KEY in rig.enqueued.take()

    async def test_a_decoy_that_is_there_for_every_tenant_and_none_that_is_not(self) -> None:
        rig = await tenant()
        rig.label("other")
        rig.enqueued.take()
        rig.decoy_is_up(ready=False)
        assert rig.enqueued.take() == [(DECOY, "decoy")]
        rig.decoy_is_up()
        assert set(rig.enqueued.take()) == {(DECOY, "decoy"), *(TenantKey(name) for name in (DECOY, "team", "other"))}

    async def test_a_node_for_those_who_have_a_way_out_and_nobody_else(self) -> None:
        rig = await tenant({"egress": [{"cidr": "10.0.0.7/32", "ports": [443]}]})
        rig.label("other")
        rig.give("other", {})
        rig.enqueued.take()
        node: Json = {"metadata": {"name": "n1", "uid": "n"}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi"}}}
        node["status"]["addresses"] = [{"type": "InternalIP", "address": "10.0.0.7"}]
        rig.say("ADDED", "Node", node)
        assert rig.enqueued.take() == [KEY]
        await rig.work()
        assert rig.condition("team", "Ready") == ("False", "EgressNotOpened")
        assert len(rig.cluster.objects["NetworkPolicy", "team", network_policies.CALLERS]["spec"]["egress"]) == 2

    async def test_a_job_of_its_prober_that_ends_wherever_it_lies_and_what_its_pod_said(self) -> None:
        rig = await tenant({}, serves=True)
        jobs = run_jobs(rig)
        assert {job["metadata"]["namespace"] for job in jobs} == {"team", DECOY}
        for job in jobs:
            rig.say("MODIFIED", "Job", ended(job))
            assert rig.enqueued.take() == [KEY]
            owner = {"kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"], "controller": True}
            template = job["spec"]["template"]["metadata"]
            rig.pod(job["metadata"]["namespace"], f"{job['metadata']['name']}-x", template["labels"], annotations=template["annotations"], ownerReferences=[owner])  # fmt: skip
            assert rig.enqueued.take() == [KEY], "and the decoy's namespace has no pass by it, nor a deployment"


class TestEnds:
    """No pass asks for itself for ever."""

    async def test_a_tenant_settles_in_a_few_passes(self) -> None:
        rig = Rig()
        rig.label(DECOY)
        rig.label("team")
        rig.give("team", GIVES)
        rig.decoy_is_up()
        rig.serve("team", "credit")
        assert await rig.work() <= 8
        before = list(rig.cluster.log)
        for _ in range(3):
            rig.queue.add(KEY)
            assert await rig.work() == 1
        assert rig.cluster.log == before

    async def test_writes_without_effect_are_not_repeated_at_once(self) -> None:
        """A webhook that alters what is written, say: each pass sees a drift, and each would ask for the next."""
        rig = await tenant()
        keep = rig.cluster.keep

        def altered(kind: str, obj: Json) -> Json:
            spec = {"spec": {**obj["spec"], "policyTypes": ["Ingress"]}} if kind == "NetworkPolicy" else {}
            return keep(kind, {**obj, **spec})

        rig.cluster.keep = altered  # type: ignore[method-assign]
        rig.lose("NetworkPolicy", "team", network_policies.DEFAULT_DENY)
        await rig.work()
        written = len(rig.cluster.log)
        rig.clock.advance(WITHOUT_EFFECT_SECONDS - 1)
        assert (await rig.work(), len(rig.cluster.log)) == (0, written)
        rig.clock.advance(1)
        assert await rig.work() == 1
        assert len(rig.cluster.log) == written + 1
        rig.cluster.keep = keep  # type: ignore[method-assign]
        for passes in (1, 1, 0):  # it is written as it should be, seen to be so, and that is the end of it
            rig.clock.advance(WITHOUT_EFFECT_SECONDS)
            assert await rig.work() == passes

    async def test_an_r1plustenant_whose_finalizer_somebody_else_wrote_too_is_let_go(self) -> None:
        rig = await tenant()
        rig.give("team", GIVES, finalizers=["else", names.FINALIZER_TENANT])
        await rig.work()
        rig.give("team", GIVES, "MODIFIED", finalizers=["else", names.FINALIZER_TENANT], deletionTimestamp="now")
        await rig.work()
        kept = rig.cluster.objects[names.KIND_TENANT, "team", names.TENANT]["metadata"]["finalizers"]
        assert kept == ["else"]
        assert rig.has("RoleBinding", "team") == []

    async def test_one_that_is_gone_meanwhile_fails_no_pass(self) -> None:
        rig = await tenant(GIVES)
        rig.give("team", GIVES, "MODIFIED", generation=2)
        del rig.cluster.objects[names.KIND_TENANT, "team", names.TENANT]
        await rig.work()
        assert rig.has("NetworkPolicy", "team")

    async def test_a_namespace_that_is_gone_leaves_no_job_in_the_decoys_and_no_series(self) -> None:
        rig = await tenant({}, serves=True)
        assert [name.split("-")[0] for name in rig.has("Job", DECOY)] == ["control"]
        assert rig.registry.get_sample_value("r1plus_isolation_verified", {"namespace": "team"}) == -1
        rig.label("team", "DELETED")
        await rig.work()
        assert rig.has("Job", DECOY) == []
        deleted = [entry for entry in rig.cluster.log if entry.startswith("delete")]
        assert all(f" {DECOY}/" in entry for entry in deleted), "what was in it goes with it"
        assert rig.registry.get_sample_value("r1plus_isolation_verified", {"namespace": "team"}) is None
        assert rig.reconciler.get_view("team").reason == "Pending"

    async def test_one_that_went_while_nobody_looked_likewise(self) -> None:
        rig = Rig()
        rig.label(DECOY)
        run = isolation_test_run.IsolationTestRun("bygone", "u", "credit", {}, 1)
        control = next(
            job for job in isolation_test_jobs.build_jobs(run, CONFIG) if job["metadata"]["namespace"] == DECOY
        )
        rig.say("ADDED", "Job", control)
        await rig.work()
        assert rig.has("Job", DECOY) == []
        assert [entry for entry in rig.cluster.log if entry.startswith("delete")]

    async def test_the_decoy_has_no_series_since_nobody_tries_it_as_a_tenant(self) -> None:
        rig = await tenant()
        read = rig.registry.get_sample_value
        assert read("r1plus_isolation_verified", {"namespace": "team"}) is not None
        assert read("r1plus_isolation_verified", {"namespace": DECOY}) is None


async def test_a_decoy_whose_namespace_goes_is_tried_no_more() -> None:
    rig = await tenant({}, serves=True)
    control = rig.has("Job", DECOY)
    rig.label(DECOY, "MODIFIED", deletionTimestamp="now")
    rig.say("DELETED", "Job", rig.cluster.objects["Job", DECOY, control[0]])
    await rig.work()
    assert rig.has("Job", DECOY) == [], "the API server would refuse it there"
    assert rig.condition("team", "Ready") == ("True", "NetworkPoliciesApplied")


async def test_which_node_is_told_of_a_way_that_stays_shut_changes_with_no_event() -> None:
    rig = await tenant({"egress": [{"cidr": "10.0.0.2/31", "ports": [443]}]})

    def node(name: str, address: str, event: str = "ADDED", memory: str = "8Gi") -> None:
        listed = [{"type": "InternalIP", "address": address}]
        status = {"allocatable": {"cpu": "4", "memory": memory}, "addresses": listed}
        rig.say(event, "Node", {"metadata": {"name": name, "uid": name}, "status": status})

    node("n1", "10.0.0.2")
    node("n2", "10.0.0.3")
    await rig.work()
    before = list(rig.cluster.log)
    node("n1", "10.0.0.2", "MODIFIED", "7Gi")
    assert await rig.work() == 1
    assert rig.cluster.log == before


class TestRefusals:
    """What the API server refuses for good is told, and told no more once it is written."""

    @pytest.mark.parametrize("kind", ["RoleBinding", "NetworkPolicy", "ResourceQuota"])
    @pytest.mark.parametrize(
        "error", [ForbiddenError(403, "Forbidden", "not yours"), InvalidError(422, "Invalid", "not so")]
    )
    async def test_a_write_that_is_refused(self, kind: str, error: ApiError) -> None:
        rig = await tenant()
        if kind == "NetworkPolicy":
            rig.lose(kind, "team", network_policies.DEFAULT_DENY)
        rig.cluster.refusals[kind] = error
        rig.give("team", GIVES)
        with pytest.raises(type(error)):
            await rig.work()
        assert rig.condition("team", "Ready") == ("False", "WriteRefused")
        isolation = rig.reconciler.get_view("team")
        assert ((isolation.status, isolation.reason) == ("False", "WriteRefused")) is (kind == "NetworkPolicy")
        assert isolation.message.endswith(f"; {REFUSED_REMEDY}") is (kind == "NetworkPolicy")
        del rig.cluster.refusals[kind]
        rig.queue.add(KEY)
        await rig.work()
        assert rig.condition("team", "Ready") == ("True", "NetworkPoliciesApplied")
        assert rig.has(kind, "team")

    async def test_a_full_quota_is_named_with_the_field_to_raise(self) -> None:
        rig = await tenant()
        rig.lose("NetworkPolicy", "team", network_policies.DEFAULT_DENY)
        counted = "count/networkpolicies.networking.k8s.io"
        words = f"exceeded quota: r1plus-tenant, requested: {counted}=1, used: {counted}=100, limited: {counted}=100"
        rig.cluster.refusals["NetworkPolicy"] = ForbiddenError(403, "Forbidden", words)
        rig.queue.add(KEY)
        with pytest.raises(ForbiddenError):
            await rig.work()
        message = rig.reconciler.get_view("team").message
        assert "; raise spec.quota.networkPolicies of the R1PlusTenant, or delete what" in message

    async def test_rights_that_are_withdrawn_go_whatever_is_refused_beside_them(self) -> None:
        """Somebody has made the prober's account before the operator could, say."""
        rig = await tenant(GIVES, serves=True)
        assert rig.has("RoleBinding", "team")
        rig.lose("ServiceAccount", "team", names.PROBER)
        rig.cluster.refusals["ServiceAccount"] = ForbiddenError(403, "Forbidden", "it is another's")
        bears = {"finalizers": [names.FINALIZER_TENANT]}
        rig.give("team", {"admins": [], "quota": {"pods": 1}}, "MODIFIED", generation=2, **bears)
        for _ in range(2):
            with pytest.raises(ForbiddenError):
                await rig.work()
            rig.queue.add(KEY)
        assert rig.has("RoleBinding", "team") == []
        assert rig.cluster.objects["ResourceQuota", "team", network_policies.LIMITS]["spec"]["hard"]["pods"] == "1"
        rig.give("team", {}, "MODIFIED", generation=3, deletionTimestamp="now", **bears)
        for _ in range(3):
            with pytest.raises(ForbiddenError):
                await rig.work()
            rig.queue.add(KEY)
        kept = rig.cluster.objects[names.KIND_TENANT, "team", names.TENANT]["metadata"]["finalizers"]
        assert kept == [], "nor does its R1PlusTenant stay for it"

    async def test_a_deletion_that_is_refused_holds_up_no_policy(self) -> None:
        rig = await tenant(GIVES)

        async def refuse(*_: Any, **__: Any) -> Json:
            raise ForbiddenError(403, "Forbidden", "a webhook")

        rig.cluster.delete = refuse  # type: ignore[method-assign]
        rig.lose("NetworkPolicy", "team", network_policies.DEFAULT_DENY)
        bears = {"finalizers": [names.FINALIZER_TENANT]}
        rig.give("team", {}, "MODIFIED", generation=2, **bears)
        with pytest.raises(ForbiddenError):
            await rig.work()
        assert network_policies.DEFAULT_DENY in rig.has("NetworkPolicy", "team")
        assert rig.condition("team", "Ready") == ("False", "WriteRefused")

    async def test_the_status_goes_on_telling_what_becomes_of_the_policies_while_a_write_is_refused(self) -> None:
        rig = await tenant(GIVES, serves=True)
        await rig.probed()
        assert rig.condition("team", "IsolationVerified") == ("True", "IsolationEnforced")
        rig.lose("ServiceAccount", "team", names.PROBER)
        rig.cluster.refusals["ServiceAccount"] = ForbiddenError(403, "Forbidden", "it is another's")
        for hours, told in ((0, "IsolationEnforced"), (2, "IsolationEnforced"), (1, "ProbeOverdue")):
            rig.clock.advance(3600 * hours)
            rig.queue.add(KEY)
            with pytest.raises(ForbiddenError):
                await rig.work()
            assert rig.condition("team", "IsolationVerified")[1] == told
            assert rig.reconciler.get_view("team").reason == told

    @pytest.mark.parametrize("after", [None, 30.0], ids=["at growing intervals", "when the API server says"])
    async def test_a_policy_that_cannot_be_written_is_no_policy_that_holds(self, after: float | None) -> None:
        rig = await tenant(GIVES, serves=True)
        await rig.probed()
        rig.lose("NetworkPolicy", "team", network_policies.DEFAULT_DENY)
        rig.cluster.refusals["NetworkPolicy"] = ApiError(500, "InternalError", "etcd leader changed")
        for _ in range(FAILURES_BEFORE_REPORT + 1):
            assert rig.condition("team", "IsolationVerified") == ("True", "IsolationEnforced")
            with pytest.raises(ApiError):
                await rig.work()
            rig.queue.add_failed(KEY, after)
            rig.clock.advance(100)
        assert rig.condition("team", "IsolationVerified") == ("False", "WriteRefused")
        assert rig.reconciler.get_view("team").status == "False"
        assert rig.reconciler.get_view("team").message.endswith(f"etcd leader changed; {FAILED_REMEDY}")
        rig.cluster.refusals.clear()
        await rig.work()
        assert rig.condition("team", "Ready") == ("True", "NetworkPoliciesApplied")

    async def test_runs_that_cannot_begin_take_nobodys_turn(self) -> None:
        rig = Rig()
        rig.label(DECOY)
        rig.decoy_is_up()
        rig.cluster.refusals["Job"] = ForbiddenError(403, "Forbidden", "exceeded quota: count/jobs.batch")
        for i in range(isolation_test_run.MAX_CONCURRENT_RUNS):
            rig.label(f"full-{i}")
            rig.serve(f"full-{i}", "credit")
        while rig.queue.depth:
            with contextlib.suppress(ForbiddenError):
                await rig.work()
        assert not run_jobs(rig)
        del rig.cluster.refusals["Job"]
        rig.label("team")
        rig.serve("team", "credit")
        await rig.work()
        assert len(run_jobs(rig)) == 3

    async def test_a_neighbour_is_served_all_the_same(self) -> None:
        rig = await tenant()
        rig.cluster.refusals["RoleBinding"] = ForbiddenError(403, "Forbidden", "no")
        rig.give("team", GIVES)
        with pytest.raises(ForbiddenError):
            await rig.work()
        rig.label("other")
        await rig.work()
        assert network_policies.DEFAULT_DENY in rig.has("NetworkPolicy", "other")


class TestViews:
    """What a deployment's pass is told of its namespace."""

    async def test_a_namespace_that_nobody_has_seen_is_no_tenant(self) -> None:
        assert Rig().reconciler.get_view("team").is_tenant is False

    async def test_one_without_its_label_is_none_and_one_with_it_is_before_its_first_pass(self) -> None:
        rig = Rig()
        rig.label("team", labels={})
        rig.label("other")
        assert rig.reconciler.get_view("team").is_tenant is False
        assert rig.reconciler.get_view("other").is_tenant is True

    async def test_where_it_changes_its_deployments_are_looked_at(self) -> None:
        rig = await tenant()
        rig.observer.ingest("ADDED", cr())
        rig.give("team", {"callers": {"namespaces": ["shop"]}})
        rig.enqueued.take()
        await rig.work()
        assert ("team", "credit") in rig.enqueued.take()
        assert rig.reconciler.get_view("team").callers == {"shop"}
        rig.queue.add(KEY)
        await rig.work()
        assert rig.enqueued.take() == []


async def test_no_more_runs_go_on_at_once_than_may_and_in_the_end_each_has_had_its_own() -> None:
    rig = Rig()
    rig.label(DECOY)
    rig.decoy_is_up()
    tenants = [f"team-{i}" for i in range(2 * isolation_test_run.MAX_CONCURRENT_RUNS + 3)]
    for name in tenants:
        rig.label(name)
        rig.serve(name, "credit")
    seen: set[str] = set()
    for _ in range(6):
        await rig.work(1000)
        going_on = [job for job in run_jobs(rig) if "status" not in job]
        of = {run.namespace for job in going_on if (run := isolation_test_run.read_run(job))}
        assert len(of) <= isolation_test_run.MAX_CONCURRENT_RUNS
        seen |= of
        for job in going_on:
            rig.say("MODIFIED", "Job", ended(job))
        rig.clock.advance(60)
    assert seen == set(tenants)


@pytest.mark.parametrize(
    ("where", "meta"),
    [
        pytest.param("other", {}, id="in another namespace"),
        pytest.param(DECOY, {"labels": {names.LABEL_PROBE: "knock"}}, id="in the decoy's, as what it is not"),
    ],
)
async def test_a_forged_run_convinces_nobody(where: str, meta: Json) -> None:
    """Admission refuses it; this is what comes of it where admission is switched off."""
    rig = await tenant({}, serves=True)
    rig.label("other")
    view = rig.reconciler.get_view("team")
    real = isolation_test_run.read_run(run_jobs(rig)[0])
    forged = isolation_test_run.IsolationTestRun("team", real.uid, "credit", real.walls, real.started + 5)
    for job in isolation_test_jobs.build_jobs(forged, CONFIG):
        if job["metadata"]["namespace"] == DECOY:
            continue
        rig.say("ADDED", "Job", ended({**job, "metadata": {**job["metadata"], "namespace": where}}))
    await rig.work()
    assert rig.reconciler.get_view("team") == view
    assert not [name for name in rig.has("Job", where) if forged.id in name], "and it is cleared away"


@pytest.mark.unit_slow
async def test_a_pass_over_one_of_a_thousand_tenants_does_no_more_than_over_one_of_a_few() -> None:
    """In calls, since a busy machine changes times, and so does what ran before in the same process."""

    async def count_calls(tenants: int) -> int:
        rig = Rig()
        rig.label(DECOY)
        for i in range(tenants):
            rig.label(f"team-{i}")
            for name in ("a", "b", "c"):
                rig.serve(f"team-{i}", name)
        await rig.work(10 * tenants + 100)
        counts = []
        for i in range(10):
            rig.queue.add(TenantKey(f"team-{i}"))
            events: Counter[str] = Counter()
            sys.setprofile(lambda _, event, __, events=events: events.update((event,)))
            try:
                await rig.work()
            finally:
                sys.setprofile(None)
            counts.append(events["call"] + events["c_call"])
        return min(counts)

    few, many = await count_calls(10), await count_calls(1000)
    assert many < 1.1 * few


def test_what_a_run_bears_is_small_for_a_tenant_of_three_hundred_deployments() -> None:
    run = isolation_test_run.IsolationTestRun(
        "t" * 63, "u" * 36, "d" * 63, {f"{i:063}": "01234567" for i in range(300)}, 2**31
    )
    (knock, *_) = isolation_test_jobs.build_jobs(run, CONFIG)
    assert len(dumps(knock)) < 100_000
