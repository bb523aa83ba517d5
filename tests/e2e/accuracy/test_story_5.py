"""The prober is killed or hangs: nobody takes that for good news, and nobody acts on it. The suite is deleted: the watch goes on."""

import time

import pytest

from e2e import story
from e2e.accuracy import fall, faults
from e2e.accuracy.narration import Story
from e2e.accuracy.witness import Witness
from e2e.suites import OwnSuite
from e2e.target import Target
from e2e.tenants import Tenant, r1plus_status, record_of, revisions_of
from e2e.waiting import wait_for
from r1plus_contract.metrics import ALERT_NO_DATA

pytestmark = [pytest.mark.e2e_accuracy, pytest.mark.timeout(7200)]


def test_a_prober_that_is_killed_or_hangs_is_no_data_and_moves_nothing(
    tenant: Tenant, target: Target, own_edge: OwnSuite, told: Story
) -> None:
    """5. Prober killed, hung: NoData alert, never OK, no rollback, no traffic lost. Suite deleted: told, watched on."""
    kube = tenant.kube
    name, revision = fall.serve(tenant, own_edge, "triage", "edge", replicas=2, held={"probesPerMinute": 60})
    wait_for(lambda: len(story.pods_in_traffic(kube, name)) == 2, "two pods are Ready")
    killed, hung = sorted(story.pods_in_traffic(kube, name))

    with Witness(target, name, own_edge.suite) as seen:
        began = told.step(f"the prober of {killed} is killed, that of {hung} stopped, whenever they are started anew")
        with faults.tormented(kube, name, killed, "SIGKILL"), faults.tormented(kube, name, hung, "SIGSTOP"):

            def no_data() -> bool:
                one = story.view(kube, name)
                return one.verdict == "NoData" and one.reason_of("QualityVerified") == "NoData"

            wait_for(no_data, "the status says NoData", tenant.evidence(name))
            told.figure(f"status NoData after {time.monotonic() - began:.0f} s")
            wait_for(
                lambda: {(ALERT_NO_DATA, killed), (ALERT_NO_DATA, hung)} <= set(seen.alerts),
                "R1PlusAccuracyNoData of both pods at Alertmanager",
                tenant.evidence(name),
            )
            for what, pod in (("killed", killed), ("hung", hung)):
                told.figure(
                    f"{ALERT_NO_DATA} of the {what} one after {seen.alerts[ALERT_NO_DATA, pod][0] - began:.0f} s"
                )
            one = story.view(kube, name)
            assert (one.verdict, one.status_of("QualityVerified")) == ("NoData", "False")
            assert one.status_of("Ready") == "True"
            told.tell("r1plus status:\n" + r1plus_status(kube, name))
        told.step("both are left in peace")
        tenant.until_ready(name)
        assert story.view(kube, name).verdict == "Pass"

        began = told.step("the suite is deleted")
        kube.delete("configmaps", name.namespace, own_edge.suite.header.name)

        def without_suite() -> bool:
            return story.view(kube, name).reason_of("QualityVerified") == "SuiteNotFound"

        wait_for(without_suite, "SuiteNotFound is told", tenant.evidence(name))
        told.figure(f"SuiteNotFound after {time.monotonic() - began:.0f} s")
        seen.more_answers(10)
        one = story.view(kube, name)
        assert (one.verdict, one.status_of("QualityVerified")) == ("Pass", "False"), "its pods mount the suite"
        own_edge.put(kube, tenant.namespace)
        tenant.until_ready(name)

    told.figure(seen.client.told)
    assert revisions_of(kube, name) == [revision]
    assert record_of(kube, name, revision) == {}
    assert sorted(story.pods_in_traffic(kube, name)) == [killed, hung], "the same pods serve"
    seen.assert_right_all_the_time([revision])
    assert seen.names() <= {ALERT_NO_DATA}
