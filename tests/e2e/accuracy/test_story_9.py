"""The operator dies at every step of story 3."""

import pytest

from e2e import chart
from e2e.accuracy import fall
from e2e.accuracy.conftest import Story
from e2e.accuracy.stage import OwnSuite, Tenant
from e2e.accuracy.test_story_3 import FORCED, accuracy
from e2e.accuracy.witness import Witness, operator_pods
from e2e.target import Target

pytestmark = [pytest.mark.e2e_accuracy, pytest.mark.timeout(2400)]

OPERATOR = "app.kubernetes.io/name=r1plus-operator"


def test_an_operator_that_dies_at_every_step_comes_to_the_same_end(
    tenant: Tenant, target: Target, own_full: OwnSuite, told: Story
) -> None:
    """9. Every replica of the operator killed at every step of story 3: the same end."""
    kube, killed = tenant.kube, []
    own_full.put(kube, tenant.namespace)
    name = tenant.apply("credit", "full", accuracy=accuracy(own_full))
    good = tenant.until_ready(name)

    with Witness(target, name, own_full.suite.items, own_full.suite.header.sampling) as seen:
        fall.bake(seen, told)

        def kill(step: str) -> None:
            pods = operator_pods(kube)
            killed.append(step)
            told.tell(f"- {step}: kills {len(pods)} pods of the operator")
            now = ("--grace-period=0", "--force", "--wait=false")
            kube.kubectl("delete", "pods", f"--namespace={chart.NAMESPACE}", f"--selector={OPERATOR}", *now)

        fallen = fall.play(tenant, name, seen, told, good, FORCED, kill)
        fall.assert_rolled_back(tenant, name, seen, fallen)

    told.figure(f"killed {len(killed)} times")
    fall.figures(seen, fallen, told)
    assert len(killed) == 5
