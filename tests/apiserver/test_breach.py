"""A fall on a real API server: the operator's process, monitors that say what a test lets them say, no kubelet.

The tests play what makes pods and what answers in them; every decision and every write is the operator's own.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_contract.monitor.outcomes import ProbeOutcome, ProbeResult
from r1plus_contract.requests import Request, Verb, build_annotations
from r1plus_contract.verdict import Verdict, WatchStanding
from r1plus_operator.api import kinds
from r1plus_operator.plan.revision.rollback_record import RollbackRecord
from r1plus_operator.plan.revision.storage import read_revision
from support.apiserver.manifests import CONTEXT, Json
from support.apiserver.monitors import Monitors
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.tenant import Tenant
from support.waiting import eventually

pytestmark = pytest.mark.apiserver
ROLLBACK = {"accuracy": {"onBreach": "Rollback"}}
LOST = tuple(f"addition-{n}" for n in ("17-9", "2-4", "4-8", "4-9", "6-2", "7-5"))


@pytest.fixture(scope="module")
def operator_settings() -> dict[str, str]:
    """What has served for a second has baked: no test here waits for ten minutes."""
    return {"R1PLUS_BAKE_SECONDS": "0"}


@dataclass(frozen=True, slots=True)
class Pair:
    """A deployment whose first revision has served; the second took over from it, and its monitor is `second`."""

    tenant: Tenant
    second: Monitors
    good: str
    bad: str

    async def until(self, kind: str, status: str, reason: str) -> str:
        """Wait for a condition; its message."""
        return await self.tenant.until("credit", kind, status, reason)

    async def settings(self) -> Json:
        """What the monitors are told."""
        return await self.tenant.settings("credit")

    async def ask(self, verb: Verb, why: str, revision: str = "") -> None:
        """What the command line writes."""
        request = Request("alice", why, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}", revision)
        patch = {"metadata": {"annotations": build_annotations(verb, request)}}
        await self.tenant.client.patch(kinds.R1PLUS_DEPLOYMENT, "credit", self.tenant.namespace, patch)

    async def going_back(self) -> None:
        """Wait for a control: the good revision's Deployment may still be there from before, since it drains."""
        await self.until("Progressing", "True", "RollingBack")

    async def control(self, verdict: Verdict, *, lost: int = 0) -> None:
        """The control's pod comes up, is swept as it was ordered, and says so."""
        await self.tenant.run_pod(self.good, ready=False)

        async def order() -> Json | None:
            return (await self.settings()).get("control")

        token = (await eventually(order, "the monitors have an order"))["token"]
        await self.tenant.decide(self.good, verdict, lost=lost, control=token)

    async def switch_back(self) -> None:
        """The control's pod is Ready, and traffic goes back."""
        await self.tenant.set_ready(f"{self.good}-pod", ready=True)
        await self.tenant.switched(self.good)

    async def record(self, holds: Callable[[RollbackRecord], object] = lambda record: True) -> RollbackRecord:
        """What is written down of going back, once something is of which this holds."""

        async def find() -> RollbackRecord | None:
            record = read_revision(await self.tenant.present("ControllerRevision", self.bad)).rollback
            return record if record is not None and holds(record) else None

        return await eventually(find, "the attempt is written down")


async def two_revisions(tenant: Tenant, second: Monitors, **spec: Any) -> Pair:
    good = await tenant.serve("credit", **spec)
    await tenant.deploy("credit", tier="full", context={"maxTokens": 2048}, **spec)
    bad = await tenant.candidate("credit")
    await tenant.run_pod(bad, ready=True, monitors=second)
    await tenant.decide(bad, Verdict.PASS, monitors=second)
    await tenant.switched(bad)
    await tenant.client.delete(kinds.POD, f"{good}-pod", tenant.namespace)
    tenant.monitors.report = None
    return Pair(tenant, second, good, bad)


def fall(monitors: Monitors) -> None:
    """The continuous check of this monitor's pod counts six items that its gate had."""
    monitors.stand(WatchStanding.BELOW_THRESHOLD, lost=LOST, correct=204)


@pytest.fixture
async def pair(operator: OperatorProcess, tenant: Tenant, second: Monitors) -> Pair:
    """A pair that answers a fall."""
    return await two_revisions(tenant, second, **ROLLBACK)


@pytest.fixture
async def falling(pair: Pair) -> Pair:
    """A pair whose second revision has fallen: a control is under way."""
    fall(pair.second)
    await pair.going_back()
    return pair


async def test_a_fall_is_told_only_where_that_is_asked_for(
    operator: OperatorProcess, tenant: Tenant, second: Monitors
) -> None:
    pair = await two_revisions(tenant, second)
    fall(second)
    message = await pair.until("QualityVerified", "False", "BelowThreshold")
    for words in ("204/210 right, 210/210 at its gate", "arithmetic: 6 of", "spec.accuracy.onBreach"):
        assert words in message
    incident = (await tenant.cr("credit"))["status"]["incident"]
    assert (incident["reason"], incident["revision"]) == ("AlertOnly", pair.bad)
    assert await tenant.selected() == pair.bad
    assert (await pair.settings())["control"] is None
    assert (await tenant.cr("credit"))["status"]["lastGood"] == pair.good
    await operator.shows("r1plus_rollback_blocked", namespace=tenant.namespace, reason="AlertOnly")


@pytest.mark.apiserver_sample
async def test_a_fall_is_answered_by_a_control_and_a_switch_and_does_not_return(
    operator: OperatorProcess, tenant: Tenant, pair: Pair
) -> None:
    before = read_revision(await tenant.present("ControllerRevision", pair.good)).template
    fall(pair.second)
    await pair.going_back()
    deployment = await tenant.present("Deployment", pair.good)
    assert deployment["spec"]["replicas"] == 1
    assert await tenant.selected() == pair.bad
    await pair.control(Verdict.PASS)
    await pair.switch_back()
    await pair.until("QualityVerified", "False", "RolledBack")
    await pair.until("Ready", "True", "Serving")
    record = await pair.record(lambda record: record.switched_at is not None)
    assert (record.to, record.control, record.cause) == (pair.good, Verdict.PASS, "BelowThreshold")
    assert read_revision(await tenant.present("ControllerRevision", pair.good)).template == before
    for reason in ("RollingBack", "RolledBack"):
        await tenant.events(reason)
    await operator.shows("r1plus_rollbacks_total", namespace=tenant.namespace, reason="BelowThreshold")
    assert (await pair.settings())["control"] is None
    assert len((await tenant.cr("credit"))["status"]["incident"]["tried"]) == 3
    assert "ERROR" not in operator.log
    assert operator.forbidden(tenant.namespace) == []


async def test_what_fell_comes_back_by_a_gate_of_its_own_since_somebody_let_it(
    operator: OperatorProcess, tenant: Tenant, falling: Pair
) -> None:
    await falling.control(Verdict.PASS)
    await falling.switch_back()
    await falling.ask(Verb.ACK, "another driver")
    identity = read_revision(await tenant.present("ControllerRevision", falling.bad)).identity_digest

    async def ordered() -> bool:
        return bool(((await falling.settings())["control"] or {}).get("identity") == identity)

    await eventually(ordered, "its monitors have an order")
    await tenant.decide(falling.bad, Verdict.PASS, monitors=falling.second)
    await falling.until("Progressing", "True", "RollingOut")
    assert await tenant.selected() == falling.good
    token = (await falling.settings())["control"]["token"]
    await tenant.decide(falling.bad, Verdict.PASS, monitors=falling.second, control=token)
    await tenant.switched(falling.bad)
    await falling.until("QualityVerified", "True", "GatePassed")


async def test_an_acknowledgement_is_waited_for_before_a_fall_is_answered_again(
    operator: OperatorProcess, tenant: Tenant, pair: Pair
) -> None:
    pair.second.stand(WatchStanding.STEADY)
    await pair.ask(Verb.ACK, "the node is mended")
    await tenant.events("Acknowledged")
    token = (await pair.settings())["acknowledged"]
    assert pair.second.report is not None
    pair.second.report = replace(pair.second.report, threshold=0.98, acknowledged="")
    fall(pair.second)
    await pair.second.is_asked_again()
    await pair.until("QualityVerified", "False", "BelowThreshold")
    assert (await pair.settings())["control"] is None
    pair.second.report = replace(pair.second.report, acknowledged=token)
    await pair.going_back()
    assert await tenant.selected() == pair.bad


async def test_where_the_last_good_fails_as_well_nothing_moves_until_somebody_has_looked(
    operator: OperatorProcess, tenant: Tenant, falling: Pair
) -> None:
    await falling.control(Verdict.FAIL, lost=9)
    await falling.until("QualityVerified", "False", "RollbackTargetAlsoFailed")
    await tenant.absent("Deployment", falling.good)
    assert await tenant.selected() == falling.bad
    await tenant.events("RollbackTargetAlsoFailed")
    await tenant.client.delete(kinds.POD, f"{falling.good}-pod", tenant.namespace)
    tenant.monitors.report = None
    await falling.ask(Verb.ACK, "both nodes have the old driver again")
    await falling.going_back()
    (told,) = await tenant.events("Acknowledged")
    assert told["message"] == "alice: both nodes have the old driver again (r1plus ack)"


async def test_a_control_that_finds_no_room_is_told_and_goes_on_when_there_is(
    operator: OperatorProcess, tenant: Tenant, falling: Pair
) -> None:
    condition = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": "exceeded quota: team, requested: memory=2Gi",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "lastUpdateTime": "2026-01-01T00:00:00Z",
    }
    await _fail_replicas(tenant, falling.good, [condition])
    await _age_attempt(operator, falling, 120.0)
    message = await falling.until("QualityVerified", "False", "RollbackBlocked")
    for words in ("NoCapacity", "exceeded quota: team", "free capacity"):
        assert words in message
    assert await tenant.selected() == falling.bad
    await operator.shows("r1plus_rollback_blocked", namespace=tenant.namespace, reason="NoCapacity")
    await _fail_replicas(tenant, falling.good, [])
    await falling.control(Verdict.PASS)
    await falling.switch_back()


async def _fail_replicas(tenant: Tenant, name: str, conditions: list[Json]) -> None:
    deployment = kinds.BY_KIND["Deployment"]
    await tenant.client.patch(deployment, name, tenant.namespace, {"status": {"conditions": conditions}}, subresource="status")  # fmt: skip


async def _age_attempt(operator: OperatorProcess, falling: Pair, seconds: float) -> None:
    """The attempt began so much earlier.

    The minute that want of room has is the operator's own: one whose clock is set forward has had it.
    """
    record = await falling.record()
    operator.kill()
    older = dumps(replace(record, started_at=record.started_at - seconds))
    patch = {"metadata": {"annotations": {names.ANNOTATION_ROLLBACK: older}}}
    tenant = falling.tenant
    await tenant.client.patch(kinds.BY_KIND["ControllerRevision"], falling.bad, tenant.namespace, patch)
    operator.start()


async def test_a_pin_holds_traffic_against_a_fall_and_a_person(
    operator: OperatorProcess, tenant: Tenant, pair: Pair
) -> None:
    pin = {"spec": {"rollout": {"pinned": True}}}
    await tenant.client.patch(kinds.R1PLUS_DEPLOYMENT, "credit", tenant.namespace, pin)
    fall(pair.second)
    assert "Pinned" in await pair.until("QualityVerified", "False", "RollbackBlocked")
    await pair.ask(Verb.ROLLBACK, "a wish", pair.bad)
    await tenant.events("RollbackRequested")
    assert (await pair.settings())["control"] is None
    assert await tenant.selected() == pair.bad


async def test_one_bad_pod_of_two_is_quarantined_and_its_revision_stays(
    operator: OperatorProcess, tenant: Tenant, second: Monitors
) -> None:
    await tenant.deploy("credit", tier="full", context=CONTEXT, replicas=2, **ROLLBACK)
    revision = await tenant.candidate("credit")
    one = await tenant.run_pod(revision, ready=False)
    await tenant.decide(revision, Verdict.PASS)
    other = await tenant.run_pod(revision, ready=False, monitors=second, suffix="other")
    await tenant.decide(revision, Verdict.PASS, monitors=second)
    for pod in (one, other):
        await tenant.set_ready(pod, ready=True)
    await tenant.switched(revision)
    second.stand(WatchStanding.STEADY)
    fall(tenant.monitors)
    pod = await tenant.child_that(
        "Pod",
        one,
        lambda it: it["metadata"]["labels"][names.LABEL_SERVING] == names.QUARANTINED,
        "the bad pod is out of traffic",
    )
    assert "R1PlusDeployment" in {owner["kind"] for owner in pod["metadata"]["ownerReferences"]}
    assert names.ANNOTATION_QUARANTINE in pod["metadata"]["annotations"]
    await tenant.until("credit", "QualityVerified", "True", "BadPod")
    still = await tenant.client.get(kinds.POD, other, tenant.namespace)
    assert still["metadata"]["labels"][names.LABEL_SERVING] == names.SERVING
    assert await tenant.selected() == revision
    await tenant.events("PodQuarantined")
    await operator.shows("r1plus_quarantines_total", namespace=tenant.namespace)
    assert operator.forbidden(tenant.namespace) == []


@pytest.mark.parametrize("step", ["the control begins", "the control has passed", "traffic has gone back"])
async def test_an_operator_that_is_killed_on_the_way_back_is_followed_to_the_same_end(
    step: str, operator: OperatorProcess, tenant: Tenant, falling: Pair
) -> None:
    if step == "the control begins":
        operator.restart()
    await falling.control(Verdict.PASS)

    async def is_swept_and_passed() -> bool:
        """A monitor follows its newest order: a killed operator may have written one, and not that it was given."""
        if order := (await falling.settings()).get("control"):
            await tenant.decide(falling.good, Verdict.PASS, control=order["token"])
        return (await falling.record()).control is Verdict.PASS

    await eventually(is_swept_and_passed, "the control's verdict is written down")
    if step == "the control has passed":
        operator.restart()
    await falling.switch_back()
    if step == "traffic has gone back":
        operator.restart()
    await falling.until("QualityVerified", "False", "RolledBack")
    await falling.until("Ready", "True", "Serving")
    await tenant.switched(falling.good)
    assert await falling.record()


async def test_outcomes_are_pooled_written_down_and_not_heard_twice_by_the_next_leader(
    operator: OperatorProcess, tenant: Tenant, second: Monitors
) -> None:
    revision = await tenant.serve()
    tenant.monitors.outcomes = tuple(ProbeOutcome(n, LOST[n % 6], ProbeResult.INCORRECT) for n in range(1, 61))

    async def pool() -> object:
        return read_revision(await tenant.present("ControllerRevision", revision)).pool

    await eventually(pool, "an alarm of the pool is written down")
    assert await operator.metric("r1plus_pool_evidence_ratio", namespace=tenant.namespace, detector="accuracy") >= 1
    operator.kill()
    tenant.monitors.asked_since.clear()
    operator.start()
    await eventually(lambda: tenant.monitors.asked_since, "the next leader asks for outcomes")
    assert set(tenant.monitors.asked_since) == {60}
    assert await tenant.selected() == revision


async def test_outcomes_of_a_pod_that_was_broken_into_are_passed_over(
    operator: OperatorProcess, tenant: Tenant, second: Monitors
) -> None:
    await tenant.serve()
    tenant.monitors.outcomes = tuple(ProbeOutcome(n, f"mine-{n}", ProbeResult.INCORRECT) for n in range(1, 61))
    await eventually(lambda: "is no item of the suite" in operator.log, "the page was passed over")
    assert await operator.metric("r1plus_pool_evidence_ratio", namespace=tenant.namespace) == 0
