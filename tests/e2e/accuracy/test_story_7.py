"""Nothing happens, and nobody is called."""

import threading
import time

import pytest

from e2e import story
from e2e.accuracy import faults
from e2e.accuracy.narration import Story
from e2e.accuracy.witness import Client, Witness
from e2e.inside import monitor_report
from e2e.suites import shipped
from e2e.target import Target
from e2e.tenants import Tenant, incident_of
from e2e.waiting import wait_for
from r1plus_contract.names import PORT_GRPC

pytestmark = [pytest.mark.e2e_accuracy, pytest.mark.timeout(7200)]

RATE, HOUR = 600, 6 * 60
"""Probes a minute, and as many as an hour has at the default rate."""
CALLERS = 16
"""As many as the engine's batch has slots, and none of them ever pauses."""


def test_an_hours_worth_of_probes_idle_and_under_full_load_raises_no_alarm(
    tenant: Tenant, target: Target, told: Story
) -> None:
    """7. An hour's worth of probes idle and the same under full load: no alarm."""
    kube, suite = tenant.kube, shipped("smollm2-edge-v1")
    name = tenant.apply("triage", "edge", accuracy={"onBreach": "Rollback", "probesPerMinute": RATE})
    revision = tenant.until_ready(name)
    pod = wait_for(lambda: story.ready_pod(kube, name), "its pod")

    def probed(what: str) -> None:
        began, before = time.monotonic(), faults.probes_heard(kube, name, pod)
        wait_for(
            lambda: faults.probes_heard(kube, name, pod) >= before + HOUR,
            f"{HOUR} probes {what}",
            tenant.evidence(name),
            period_s=5.0,
            seconds=story.GATE_SECONDS,
        )
        said, took = monitor_report(kube, name.namespace, pod), time.monotonic() - began
        probes = faults.probes_heard(kube, name, pod) - before
        watch, sweep = said["watch"], said.get("sweep") or {}
        told.figure(
            f"{what}: {probes} probes in {took:.0f} s, standing {watch['standing']}, evidence {watch['evidence']:g},"
            f" last sweep {sweep.get('correct', '-')}/{sweep.get('total', '-')}"
        )
        assert watch["standing"] == "Steady"
        assert not watch.get("alarmedAt")

    with Witness(target, name, suite, pause_s=1.0) as seen:
        probed("idle")
        stop = threading.Event()
        with target.reach(name.namespace, name.name, PORT_GRPC) as address:
            callers = [Client(address, suite.items[n:], suite.header.sampling, 0.0) for n in range(CALLERS)]
            threads = [threading.Thread(target=one.run, args=(stop,), daemon=True) for one in callers]
            for thread in threads:
                thread.start()
            try:
                probed("under load")
            finally:
                stop.set()
                for thread in threads:
                    thread.join(timeout=70.0)

    answered, failed = sum(c.answered for c in callers), [f for c in callers for f in c.failures]
    told.figure(f"{CALLERS} callers were answered {answered} times, {len(failed)} failed")
    assert seen.revisions == [revision]
    assert seen.alerts == {}
    assert incident_of(kube, name) == {}
    assert failed == []
    assert seen.client.failures == []
