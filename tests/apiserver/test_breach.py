"""A fall on a real API server: the operator's process, monitors that say what a test lets them say, no kubelet.

The tests play what makes pods and what answers in them; every decision and every write is the operator's own.
"""

from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from apiserver.operator_rig import Json, Monitors, OperatorProcess, Tenant, add_node, eventually, grant
from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_contract.outcomes import ProbeOutcome, ProbeResult
from r1plus_contract.requests import Request, Verb, written
from r1plus_contract.verdict import Standing, Verdict
from r1plus_operator.api import kinds
from r1plus_operator.plan.revision import read
from r1plus_operator.runtime.client import ApiClient

pytestmark = pytest.mark.apiserver
LOST = tuple(f"addition-{n}" for n in ("17-9", "2-4", "4-8", "4-9", "6-2", "7-5"))


@pytest.fixture
async def operator(apiserver: ApiServer, client: ApiClient, tmp_path: Path) -> AsyncIterator[OperatorProcess]:
    """What has served for a second has baked: no test here waits for ten minutes."""
    await grant(client)
    await add_node(client)
    process = OperatorProcess(apiserver, tmp_path / "operator.log", R1PLUS_BAKE_SECONDS="0")
    process.start()
    yield process
    process.kill()


@pytest.fixture
async def second() -> AsyncIterator[Monitors]:
    """Another monitor than the tenant's, for another pod."""
    monitors = Monitors()
    await monitors.start()
    yield monitors
    await monitors.stop()


async def selected(tenant: Tenant) -> str:
    service = await tenant.present("Service", "credit")
    return str(service["spec"]["selector"][names.LABEL_REVISION])


async def two_revisions(tenant: Tenant, second: Monitors, **spec: Any) -> tuple[str, str]:
    """One has served and the next took over from it, whose monitor is `second`."""
    await tenant.deploy("credit", tier="full", context={"maxTokens": 1024}, **spec)
    good = await tenant.bring_up("credit")
    await tenant.deploy("credit", tier="full", context={"maxTokens": 2048}, **spec)
    bad = await tenant.candidate("credit")
    await tenant.run_pod(bad, ready=True, monitors=second)
    await tenant.decide(bad, Verdict.PASS, monitors=second)
    await eventually(lambda: _is(selected(tenant), bad), "the second revision takes traffic")
    await tenant.client.delete(kinds.POD, f"{good}-pod", tenant.namespace)
    tenant.monitors.report = None
    return good, bad


async def _is(found: Awaitable[str], wanted: str) -> bool:
    return await found == wanted


async def going_back(tenant: Tenant) -> None:
    """Wait for a control: the good revision's Deployment may still be there from before, since it drains."""
    await tenant.until("credit", "Progressing", "True", "RollingBack")


async def _any(found: Awaitable[list[Json]]) -> bool:
    return bool(await found)


async def control(tenant: Tenant, good: str, verdict: Verdict, *, lost: int = 0) -> None:
    """The control's pod comes up, is swept as it was ordered, and says so."""
    await tenant.run_pod(good, ready=False)

    async def ordered() -> bool:
        return bool((await tenant.settings("credit")).get("control"))

    await eventually(ordered, "the monitors have an order")
    token = (await tenant.settings("credit"))["control"]["token"]
    await tenant.decide(good, verdict, lost=lost, control=token)


async def events(tenant: Tenant, reason: str) -> list[Json]:
    found, _ = await tenant.client.list(kinds.EVENT, tenant.namespace)
    return [event for event in found if event["reason"] == reason]


async def metric(operator: OperatorProcess, name: str, **labels: str) -> float:
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"http://127.0.0.1:{operator.port}/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
    return sum(float(line.split()[-1]) for line in lines if all(f'{k}="{v}"' in line for k, v in labels.items()))


async def shows(operator: OperatorProcess, name: str, **labels: str) -> None:
    """Wait until the metric is 1: a pass counts once it is over, and its status is written first."""

    async def one() -> bool:
        return await metric(operator, name, **labels) == 1

    await eventually(one, f"{name} is 1")


async def test_a_fall_is_told_only_where_that_is_asked_for(
    operator: OperatorProcess, tenant: Tenant, second: Monitors
) -> None:
    good, bad = await two_revisions(tenant, second)
    second.stand(Standing.BELOW_THRESHOLD, lost=LOST, correct=204)
    message = await tenant.until("credit", "QualityVerified", "False", "BelowThreshold")
    for words in ("204/210 right, 210/210 at its gate", "arithmetic: 6 of", "spec.accuracy.onBreach"):
        assert words in message
    incident = (await tenant.cr("credit"))["status"]["incident"]
    assert (incident["reason"], incident["revision"]) == ("AlertOnly", bad)
    assert await selected(tenant) == bad
    assert (await tenant.settings("credit"))["control"] is None
    assert (await tenant.cr("credit"))["status"]["lastGood"] == good
    await shows(operator, "r1plus_rollback_blocked", namespace=tenant.namespace, reason="AlertOnly")


async def test_a_fall_is_answered_by_a_control_and_a_switch_and_does_not_return(
    operator: OperatorProcess, tenant: Tenant, second: Monitors
) -> None:
    good, bad = await two_revisions(tenant, second, accuracy={"onBreach": "Rollback"})
    before = read(await tenant.present("ControllerRevision", good)).template
    second.stand(Standing.BELOW_THRESHOLD, lost=LOST, correct=204)
    await going_back(tenant)
    deployment = await tenant.present("Deployment", good)
    assert deployment["spec"]["replicas"] == 1
    assert await selected(tenant) == bad
    await control(tenant, good, Verdict.PASS)
    await tenant.set_ready(f"{good}-pod", ready=True)
    await eventually(lambda: _is(selected(tenant), good), "traffic goes back")
    await tenant.until("credit", "QualityVerified", "False", "RolledBack")
    await tenant.until("credit", "Ready", "True", "Serving")
    record = read(await tenant.present("ControllerRevision", bad)).rollback
    assert record is not None
    assert (record.to, record.control, record.cause) == (good, Verdict.PASS, "BelowThreshold")
    assert record.switched_at is not None
    assert read(await tenant.present("ControllerRevision", good)).template == before
    for reason in ("RollingBack", "RolledBack"):
        await eventually(lambda reason=reason: _any(events(tenant, reason)), f"{reason} is told")  # type: ignore[misc]
    await shows(operator, "r1plus_rollbacks_total", namespace=tenant.namespace, reason="BelowThreshold")
    assert (await tenant.settings("credit"))["control"] is None
    incident = (await tenant.cr("credit"))["status"]["incident"]
    assert len(incident["tried"]) == 3
    assert "ERROR" not in operator.log
    assert operator.forbidden(tenant.namespace) == []


async def test_what_fell_comes_back_by_a_gate_of_its_own_since_somebody_let_it(
    operator: OperatorProcess, tenant: Tenant, second: Monitors
) -> None:
    good, bad = await two_revisions(tenant, second, accuracy={"onBreach": "Rollback"})
    second.stand(Standing.BELOW_THRESHOLD, lost=LOST, correct=204)
    await going_back(tenant)
    await control(tenant, good, Verdict.PASS)
    await tenant.set_ready(f"{good}-pod", ready=True)
    await eventually(lambda: _is(selected(tenant), good), "traffic goes back")
    await ask(tenant, Verb.ACK, "another driver")
    identity = read(await tenant.present("ControllerRevision", bad)).identity_digest

    async def ordered() -> bool:
        return bool(((await tenant.settings("credit"))["control"] or {}).get("identity") == identity)

    await eventually(ordered, "its monitors have an order")
    await tenant.decide(bad, Verdict.PASS, monitors=second)
    await tenant.until("credit", "Progressing", "True", "RollingOut")
    assert await selected(tenant) == good
    token = (await tenant.settings("credit"))["control"]["token"]
    await tenant.decide(bad, Verdict.PASS, monitors=second, control=token)
    await eventually(lambda: _is(selected(tenant), bad), "it takes traffic again")
    await tenant.until("credit", "QualityVerified", "True", "GatePassed")


async def test_an_acknowledgement_is_waited_for_before_a_fall_is_answered_again(
    operator: OperatorProcess, tenant: Tenant, second: Monitors
) -> None:
    _, bad = await two_revisions(tenant, second, accuracy={"onBreach": "Rollback"})
    second.stand(Standing.STEADY)
    await ask(tenant, Verb.ACK, "the node is mended")
    await eventually(lambda: _any(events(tenant, "Acknowledged")), "the ack is told")
    token = (await tenant.settings("credit"))["acknowledged"]
    assert second.report is not None
    second.report = replace(second.report, threshold=0.98, acknowledged="")
    second.stand(Standing.BELOW_THRESHOLD, lost=LOST, correct=204)
    message = await tenant.until("credit", "QualityVerified", "True", "GatePassed")
    assert message
    assert (await tenant.settings("credit"))["control"] is None
    second.report = replace(second.report, acknowledged=token)
    await going_back(tenant)
    assert await selected(tenant) == bad


async def test_where_the_last_good_fails_as_well_nothing_moves_until_somebody_has_looked(
    operator: OperatorProcess, tenant: Tenant, second: Monitors
) -> None:
    good, bad = await two_revisions(tenant, second, accuracy={"onBreach": "Rollback"})
    second.stand(Standing.BELOW_THRESHOLD, lost=LOST, correct=204)
    await going_back(tenant)
    await control(tenant, good, Verdict.FAIL, lost=9)
    await tenant.until("credit", "QualityVerified", "False", "BothArmsBad")
    await tenant.absent("Deployment", good)
    assert await selected(tenant) == bad
    await eventually(lambda: _any(events(tenant, "BothArmsBad")), "it is told")
    await tenant.client.delete(kinds.POD, f"{good}-pod", tenant.namespace)
    tenant.monitors.report = None
    await ask(tenant, Verb.ACK, "both nodes have the old driver again")
    await going_back(tenant)
    await eventually(lambda: _any(events(tenant, "Acknowledged")), "the ack is told")
    (told,) = await events(tenant, "Acknowledged")
    assert told["message"] == "alice: both nodes have the old driver again (r1plus ack)"


async def ask(tenant: Tenant, verb: Verb, why: str, revision: str = "") -> None:
    """What the command line writes."""
    request = Request("alice", why, "2026-11-24T17:30:00.000000Z", revision)
    patch = {"metadata": {"annotations": written(verb, request)}}
    await tenant.client.patch(kinds.R1PLUS_DEPLOYMENT, "credit", tenant.namespace, patch)


async def test_a_control_that_finds_no_room_is_told_and_goes_on_when_there_is(
    apiserver: ApiServer, operator: OperatorProcess, tenant: Tenant, second: Monitors
) -> None:
    good, bad = await two_revisions(tenant, second, accuracy={"onBreach": "Rollback"})
    second.stand(Standing.BELOW_THRESHOLD, lost=LOST, correct=204)
    await going_back(tenant)
    condition = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": "exceeded quota: team, requested: memory=2Gi",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "lastUpdateTime": "2026-01-01T00:00:00Z",
    }
    await _fail_replicas(tenant, good, [condition])
    # The minute that want of room has is the operator's own: one whose clock is set forward has had it.
    operator.kill()
    await _age_attempt(tenant, bad, 120.0)
    operator.start()
    message = await tenant.until("credit", "QualityVerified", "False", "RollbackBlocked")
    for words in ("NoCapacity", "exceeded quota: team", "free capacity"):
        assert words in message
    assert await selected(tenant) == bad
    await shows(operator, "r1plus_rollback_blocked", namespace=tenant.namespace, reason="NoCapacity")
    await _fail_replicas(tenant, good, [])
    await control(tenant, good, Verdict.PASS)
    await tenant.set_ready(f"{good}-pod", ready=True)
    await eventually(lambda: _is(selected(tenant), good), "traffic goes back")


async def _fail_replicas(tenant: Tenant, name: str, conditions: list[Json]) -> None:
    deployment = kinds.BY_KIND["Deployment"]
    await tenant.client.patch(deployment, name, tenant.namespace, {"status": {"conditions": conditions}}, subresource="status")  # fmt: skip


async def _age_attempt(tenant: Tenant, bad: str, seconds: float) -> None:
    """The attempt began so much earlier."""
    record = read(await tenant.present("ControllerRevision", bad)).rollback
    assert record is not None
    older = dumps(replace(record, started_at=record.started_at - seconds))
    patch = {"metadata": {"annotations": {names.ANNOTATION_ROLLBACK: older}}}
    await tenant.client.patch(kinds.BY_KIND["ControllerRevision"], bad, tenant.namespace, patch)


async def test_a_pin_holds_traffic_against_a_fall_and_a_person(
    operator: OperatorProcess, tenant: Tenant, second: Monitors
) -> None:
    _, bad = await two_revisions(tenant, second, accuracy={"onBreach": "Rollback"})
    pin = {"spec": {"rollout": {"pinned": True}}}
    await tenant.client.patch(kinds.R1PLUS_DEPLOYMENT, "credit", tenant.namespace, pin)
    second.stand(Standing.BELOW_THRESHOLD, lost=LOST, correct=204)
    assert "Pinned" in await tenant.until("credit", "QualityVerified", "False", "RollbackBlocked")
    await ask(tenant, Verb.ROLLBACK, "a wish", bad)
    await eventually(lambda: _any(events(tenant, "RollbackRequested")), "the request was heard")
    assert (await tenant.settings("credit"))["control"] is None
    assert await selected(tenant) == bad


async def test_one_bad_pod_of_two_is_quarantined_and_its_revision_stays(
    operator: OperatorProcess, tenant: Tenant, second: Monitors
) -> None:
    await tenant.deploy("credit", tier="full", context={"maxTokens": 1024}, replicas=2, accuracy={"onBreach": "Rollback"})  # fmt: skip
    revision = await tenant.candidate("credit")
    one = await tenant.run_pod(revision, ready=False)
    await tenant.decide(revision, Verdict.PASS)
    other = await tenant.run_pod(revision, ready=False, monitors=second, suffix="other")
    await tenant.decide(revision, Verdict.PASS, monitors=second)
    for pod in (one, other):
        await tenant.set_ready(pod, ready=True)
    await eventually(lambda: _is(selected(tenant), revision), "it takes traffic")
    second.stand(Standing.STEADY)
    tenant.monitors.stand(Standing.BELOW_THRESHOLD, lost=LOST, correct=204)

    async def out() -> bool:
        pod = await tenant.client.get(kinds.POD, one, tenant.namespace)
        return bool(pod["metadata"]["labels"][names.LABEL_SERVING] == names.QUARANTINED)

    await eventually(out, "the bad pod is out of traffic")
    pod = await tenant.client.get(kinds.POD, one, tenant.namespace)
    assert "R1PlusDeployment" in {owner["kind"] for owner in pod["metadata"]["ownerReferences"]}
    assert names.ANNOTATION_QUARANTINE in pod["metadata"]["annotations"]
    await tenant.until("credit", "QualityVerified", "True", "BadPod")
    still = await tenant.client.get(kinds.POD, other, tenant.namespace)
    assert still["metadata"]["labels"][names.LABEL_SERVING] == names.SERVING
    assert await selected(tenant) == revision
    await eventually(lambda: _any(events(tenant, "PodQuarantined")), "it is told")
    await shows(operator, "r1plus_quarantines_total", namespace=tenant.namespace)
    assert operator.forbidden(tenant.namespace) == []


@pytest.mark.parametrize("step", ["the control begins", "the control has passed", "traffic has gone back"])
async def test_an_operator_that_is_killed_on_the_way_back_is_followed_to_the_same_end(
    step: str, operator: OperatorProcess, tenant: Tenant, second: Monitors
) -> None:
    good, bad = await two_revisions(tenant, second, accuracy={"onBreach": "Rollback"})
    second.stand(Standing.BELOW_THRESHOLD, lost=LOST, correct=204)
    await going_back(tenant)
    if step == "the control begins":
        again(operator)
    await control(tenant, good, Verdict.PASS)
    await eventually(lambda: _swept_and_passed(tenant, good, bad), "the control's verdict is written down")
    if step == "the control has passed":
        again(operator)
    await tenant.set_ready(f"{good}-pod", ready=True)
    await eventually(lambda: _is(selected(tenant), good), "traffic goes back")
    if step == "traffic has gone back":
        again(operator)
    await tenant.until("credit", "QualityVerified", "False", "RolledBack")
    await tenant.until("credit", "Ready", "True", "Serving")
    assert await selected(tenant) == good
    assert read(await tenant.present("ControllerRevision", bad)).rollback is not None


def again(operator: OperatorProcess) -> None:
    """Killed and started anew."""
    operator.kill()
    operator.start()


async def _swept_and_passed(tenant: Tenant, good: str, bad: str) -> bool:
    """A monitor follows its newest order: a killed operator may have written one, and not that it was given."""
    if order := (await tenant.settings("credit")).get("control"):
        await tenant.decide(good, Verdict.PASS, control=order["token"])
    return await _passed(tenant, bad)


async def _passed(tenant: Tenant, bad: str) -> bool:
    record = read(await tenant.present("ControllerRevision", bad)).rollback
    return record is not None and record.control is Verdict.PASS


async def test_outcomes_are_pooled_written_down_and_not_heard_twice_by_the_next_leader(
    operator: OperatorProcess, tenant: Tenant, second: Monitors
) -> None:
    await tenant.deploy("credit", tier="full", context={"maxTokens": 1024})
    revision = await tenant.bring_up("credit")
    tenant.monitors.outcomes = tuple(ProbeOutcome(n, LOST[n % 6], ProbeResult.INCORRECT) for n in range(1, 61))

    async def written_down() -> bool:
        return bool(read(await tenant.present("ControllerRevision", revision)).pool)

    await eventually(written_down, "an alarm of the pool is written down")
    assert await metric(operator, "r1plus_pool_evidence_ratio", namespace=tenant.namespace, detector="accuracy") >= 1
    operator.kill()
    tenant.monitors.asked_since.clear()
    operator.start()

    async def asked() -> bool:
        return bool(tenant.monitors.asked_since)

    await eventually(asked, "the next leader asks for outcomes")
    assert set(tenant.monitors.asked_since) == {60}
    assert await selected(tenant) == revision


async def test_outcomes_of_a_pod_that_was_broken_into_are_passed_over(
    operator: OperatorProcess, tenant: Tenant, second: Monitors
) -> None:
    await tenant.deploy("credit", tier="full", context={"maxTokens": 1024})
    await tenant.bring_up("credit")
    tenant.monitors.outcomes = tuple(ProbeOutcome(n, f"mine-{n}", ProbeResult.INCORRECT) for n in range(1, 61))

    async def told() -> bool:
        return "is no item of the suite" in operator.log

    await eventually(told, "the page was passed over")
    assert await metric(operator, "r1plus_pool_evidence_ratio", namespace=tenant.namespace) == 0
