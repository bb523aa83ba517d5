"""A revision that falls and the way back from it, step by step: stories 3, 4b and 9 play it, each in its own way."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from e2e import story
from e2e.accuracy.conftest import BAKE_SECONDS, Story
from e2e.accuracy.stage import Tenant, incident_of, record_of
from e2e.accuracy.witness import Witness
from e2e.kube import Json
from e2e.story import Name
from e2e.waiting import wait_for
from r1plus_contract.metrics import ALERT_BELOW_THRESHOLD, ALERT_ROLLED_BACK
from r1plus_contract.verdict import Verdict

PROMOTED_SECONDS = 300.0
FELL_SECONDS = 420.0
BACK_SECONDS = 600.0
ALERT_SECONDS = 240.0
"""A minute until Prometheus reads new rules, scrapes, evaluations, Alertmanager's first wait."""

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


def bake(seen: Witness, told: Story) -> None:
    """The revision carries traffic for long enough to be one to go back to."""
    began = told.step(f"carries traffic for {BAKE_SECONDS} s")
    wait_for(lambda: time.monotonic() - began > BAKE_SECONDS + 2 or None, "the bake is over", BAKE_SECONDS + 60.0)
    seen.more_answers()


def until_promoted(tenant: Tenant, name: Name, seen: Witness, good: str) -> str:
    """Traffic goes to another revision; which."""

    def look() -> str | None:
        return seen.revisions[-1] if seen.revisions[-1] != good else None

    return wait_for(look, "traffic moves to the new revision", PROMOTED_SECONDS, tenant.evidence(name))


def until_fallen(tenant: Tenant, name: Name, bad: str) -> Json:
    """The status tells of the fall."""

    def look() -> Json | None:
        found = incident_of(tenant.kube, name)
        return found if found.get("revision") == bad else None

    return wait_for(look, f"{bad} is told to have fallen", FELL_SECONDS, tenant.evidence(name))


def until_back(tenant: Tenant, name: Name, seen: Witness, good: str, bad: str, at: At) -> Json:
    """A control is begun, passes, and traffic is back; the record of it."""

    def step(what: str, holds: Callable[[Json], bool]) -> Json:
        def look() -> Json | None:
            found = record_of(tenant.kube, name, bad)
            return found if found and holds(found) else None

        return wait_for(look, f"{what} of {bad}", BACK_SECONDS, tenant.evidence(name))

    step("the control", lambda record: True)
    at("the control is begun")
    record = step("the switch back", lambda record: bool(record.get("switchedAt")))
    at("traffic is being switched back")
    wait_for(lambda: seen.revisions[-1] == good or None, "traffic is back", BACK_SECONDS, tenant.evidence(name))
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

    def settled() -> bool | None:
        one = story.view(tenant.kube, name)
        return (one.up_to_date and one.rolled_back and one.status_of("Ready") == "True") or None

    wait_for(settled, f"{name} is at rest, rolled back", 180.0, tenant.evidence(name))
    one = story.view(tenant.kube, name)
    assert one.revision == fallen.good
    assert one.reason_of("QualityVerified") == "RolledBack"
    assert one.reason_of("Progressing") == "RolledBack"
    assert seen.revisions == [fallen.good, fallen.bad, fallen.good]
    record = record_of(tenant.kube, name, fallen.bad)
    assert (record["to"], record["cause"], record["control"]) == (fallen.good, "BelowThreshold", Verdict.PASS.value)
    assert seen.client.failures == []
    assert seen.client.wrong_before(fallen.promoted - 1.0) == []


def figures(seen: Witness, fallen: Fallen, told: Story) -> None:
    """How long it took, and what clients had of it."""
    told.figure(f"fall told {fallen.counted - fallen.promoted:.0f} s after it had traffic")
    told.figure(f"back {fallen.back - fallen.counted:.0f} s later")
    told.figure(seen.client.told)


def assert_alerted(tenant: Tenant, name: Name, seen: Witness, told: Story, since: float) -> None:
    """The fall reached Alertmanager with its page and its runbook."""
    at, alert = seen.alert(ALERT_BELOW_THRESHOLD, ALERT_SECONDS, tenant.evidence(name))
    assert alert.labels["severity"] == "critical"
    assert alert.runbook.endswith(f"/{ALERT_BELOW_THRESHOLD}.md")
    told.figure(f"{alert.name} at Alertmanager after {at - since:.0f} s")
    told.tell(f"{alert.summary}. {alert.description} {alert.runbook}")


def assert_rollback_is_told(tenant: Tenant, name: Name, seen: Witness) -> None:
    """That it was rolled back is an alert of its own, for information."""
    _, alert = seen.alert(ALERT_ROLLED_BACK, ALERT_SECONDS, tenant.evidence(name))
    assert alert.labels["severity"] == "info"
