"""A revision that falls and the way back from it, step by step: most stories play a part of it, each in its own way."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from e2e import story
from e2e.accuracy import faults
from e2e.accuracy.narration import Story
from e2e.accuracy.witness import Witness
from e2e.kube import Json
from e2e.story import Name
from e2e.suites import OwnSuite
from e2e.tenants import Tenant, incident_of, record_of
from e2e.waiting import wait_for
from r1plus_contract.metrics import ALERT_BELOW_THRESHOLD, ALERT_ROLLED_BACK
from r1plus_contract.verdict import Verdict

BAKE_SECONDS = 20
FORCED: Json = {"engine": {"precision": "Q4_1"}, "accuracy": {"gate": "Observe", "probesPerMinute": 240}}
RAISED = {"probesPerMinute": 240}
FIRST, SECOND = {"maxTokens": 1024}, {"maxTokens": 1000}
"""Two revisions of one engine: both pass."""

At = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Fallen:
    """What came of it; moments are monotonic."""

    good: str
    bad: str
    promoted: float
    counted: float
    """When the status first told of the fall."""
    back: float
    record: Json
    """As it stands on the bad revision's ControllerRevision."""


def accuracy(own: OwnSuite, **more: object) -> Json:
    """`spec.accuracy` by a suite of the tenant's own."""
    return {**own.held, "threshold": 0.95, "onBreach": "Rollback", **more}


def serve(
    tenant: Tenant, own: OwnSuite, name: str, tier: str, *, held: Json | None = None, **spec: object
) -> tuple[Name, str]:
    """Bring up a deployment that is held to this suite; its name, and the revision that serves."""
    own.put(tenant.kube, tenant.namespace)
    made = tenant.apply(name, tier, accuracy=accuracy(own, **(held or {})), **spec)
    return made, tenant.until_ready(made)


def bake(seen: Witness, told: Story) -> None:
    """The revision carries traffic for long enough to be one to go back to."""
    began = told.step(f"carries traffic for {BAKE_SECONDS} s")
    wait_for(lambda: time.monotonic() - began > BAKE_SECONDS + 2, "the bake is over")
    seen.more_answers()


def until_promoted(tenant: Tenant, name: Name, seen: Witness, good: str) -> str:
    """Traffic goes to another revision; which."""

    def look() -> str | None:
        return seen.revisions[-1] if seen.revisions[-1] != good else None

    return wait_for(look, "traffic moves to the new revision", tenant.evidence(name))


def two_good_revisions(tenant: Tenant, seen: Witness, name: Name, told: Story, good: str) -> str:
    """A second one takes over, by its own gate; which."""
    bake(seen, told)
    told.step(f"asks for another revision: context {SECOND}")
    tenant.change(name, context=SECOND)
    second = until_promoted(tenant, name, seen, good)
    tenant.until_ready(name)
    wait_for(lambda: len(tenant.kube.pods_of(name.namespace, name.name)) == 1, "one pod is left")
    return second


def struck(tenant: Tenant, name: Name, told: Story, pod: str) -> float:
    """The engine of the pod degrades and its detector alarms; when it was struck (monotonic)."""
    before = faults.probes_heard(tenant.kube, name, pod)
    at = faults.strike(tenant.kube, name, pod, faults.DEGRADED)
    told.tell(f"- the engine of {pod} degrades")
    faults.until_alarmed(tenant.kube, name, pod)
    probes = faults.probes_heard(tenant.kube, name, pod) - before
    told.figure(f"alarm after {probes} probes, {time.monotonic() - at:.0f} s")
    return at


def until_fallen(tenant: Tenant, name: Name, bad: str) -> Json:
    """The status tells of the fall."""

    def look() -> Json | None:
        found = incident_of(tenant.kube, name)
        return found if found.get("revision") == bad else None

    return wait_for(look, f"{bad} is told to have fallen", tenant.evidence(name))


def until_back(tenant: Tenant, name: Name, seen: Witness, good: str, bad: str, at: At) -> Json:
    """A control is begun, passes, and traffic is back; the record of it."""

    def step(what: str, holds: Callable[[Json], bool]) -> Json:
        def look() -> Json | None:
            found = record_of(tenant.kube, name, bad)
            return found if found and holds(found) else None

        return wait_for(look, f"{what} of {bad}", tenant.evidence(name))

    step("the control", lambda record: True)
    at("the control is begun")
    record = step("the switch back", lambda record: bool(record.get("switchedAt")))
    at("traffic is being switched back")
    wait_for(lambda: seen.revisions[-1] == good, "traffic is back", tenant.evidence(name))
    return record


def play(tenant: Tenant, name: Name, seen: Witness, told: Story, good: str, change: Json, at: At) -> Fallen:
    """Change the spec to a revision that falls below its threshold, and follow it to where traffic is back."""
    tenant.change(name, **change)
    at("the spec is changed")
    bad = until_promoted(tenant, name, seen, good)
    promoted = seen.moved_to(bad) or time.monotonic()
    at(f"{bad} takes traffic")
    until_fallen(tenant, name, bad)
    counted = time.monotonic()
    at("its fall is told")
    record = until_back(tenant, name, seen, good, bad, at)
    back = seen.moved_to(good) or time.monotonic()
    seen.more_answers()
    return Fallen(good, bad, promoted, counted, back, record)


def assert_rolled_back(tenant: Tenant, name: Name, seen: Witness, fallen: Fallen) -> None:
    """The end of every such story, however it was played."""

    def settled() -> bool:
        one = story.view(tenant.kube, name)
        return one.up_to_date and one.rolled_back and one.status_of("Ready") == "True"

    wait_for(settled, f"{name} is at rest, rolled back", tenant.evidence(name))
    one = story.view(tenant.kube, name)
    assert one.revision == fallen.good
    assert one.reason_of("QualityVerified") == "RolledBack"
    assert one.reason_of("Progressing") == "RolledBack"
    assert seen.revisions == [fallen.good, fallen.bad, fallen.good]
    record = record_of(tenant.kube, name, fallen.bad)
    assert (record["to"], record["cause"], record["control"]) == (fallen.good, "BelowThreshold", Verdict.PASS.value)
    assert seen.client.failures == []
    assert seen.client.wrong_before(fallen.promoted) == []


def figures(seen: Witness, fallen: Fallen, told: Story) -> None:
    """How long it took, and what clients had of it."""
    told.figure(f"fall told {fallen.counted - fallen.promoted:.0f} s after it had traffic")
    told.figure(f"back {fallen.back - fallen.counted:.0f} s later")
    told.figure(seen.client.told)


def assert_alerted(tenant: Tenant, name: Name, seen: Witness, told: Story, since: float) -> None:
    """The fall reached Alertmanager with its page and its runbook."""
    at, alert = seen.alert(ALERT_BELOW_THRESHOLD, tenant.evidence(name))
    assert alert.labels["severity"] == "critical"
    assert alert.runbook.endswith(f"/{ALERT_BELOW_THRESHOLD}.md")
    told.figure(f"{alert.name} at Alertmanager after {at - since:.0f} s")
    told.tell(f"{alert.summary}. {alert.description} {alert.runbook}")


def assert_rollback_is_told(tenant: Tenant, name: Name, seen: Witness) -> None:
    """That it was rolled back is an alert of its own, for information."""
    _, alert = seen.alert(ALERT_ROLLED_BACK, tenant.evidence(name))
    assert alert.labels["severity"] == "info"
