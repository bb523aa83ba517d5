"""The operator dies at every step of story 3."""

import pytest

from e2e import chart
from e2e.accuracy import fall
from e2e.accuracy.fall import FORCED
from e2e.accuracy.narration import Story
from e2e.accuracy.witness import Witness
from e2e.suites import OwnSuite
from e2e.target import Target
from e2e.tenants import Tenant

pytestmark = [pytest.mark.e2e_accuracy, pytest.mark.timeout(7200)]


def test_an_operator_that_dies_at_every_step_comes_to_the_same_end(
    tenant: Tenant, target: Target, own_full: OwnSuite, told: Story
) -> None:
    """9. Every replica of the operator killed at every step of story 3: the same end."""
    kube, killed = tenant.kube, []
    name, good = fall.serve(tenant, own_full, "credit", "full")

    with Witness(target, name, own_full.suite) as seen:
        fall.bake(seen, told)

        def kill(step: str) -> None:
            pods = chart.operator_pods(kube)
            killed.append(step)
            told.tell(f"- {step}: kills {len(pods)} pods of the operator")
            now = ("--grace-period=0", "--force", "--wait=false")
            kube.kubectl("delete", "pods", f"--namespace={chart.NAMESPACE}", f"--selector={chart.OPERATOR}", *now)

        fallen = fall.play(tenant, name, seen, told, good, FORCED, kill)
        fall.assert_rolled_back(tenant, name, seen, fallen)

    told.figure(f"killed {len(killed)} times")
    fall.figures(seen, fallen, told)
    assert len(killed) == 5
