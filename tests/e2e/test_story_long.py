"""The three tiers, each gated by the whole suite that the product ships for it; the story gates them by a part of it.

`make e2e STORY=story-long`. All gates run at the same time.
"""

import pytest

from e2e import gateways, story
from e2e.story import Name, name_in
from e2e.target import Target
from e2e.tiers import TIERS
from r1plus_cli.deployment.view import DeploymentView

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(7200)]

NAMES = {tier: name_in(example) for tier, example in TIERS.items()}


@pytest.fixture(scope="module")
def served(target: Target) -> dict[Name, DeploymentView]:
    """All, once they are Ready."""
    gateways.apply_tenants(target.kube, print)
    story.apply(target.kube, *TIERS.values())
    return story.until_ready(target.kube, list(NAMES.values()), print)


@pytest.mark.parametrize("tier", NAMES)
def test_each_tier_serves_only_after_its_whole_suite_has_passed(served: dict[Name, DeploymentView], tier: str) -> None:
    seen = served[NAMES[tier]]
    right, total = (int(part) for part in seen.accuracy.split()[0].split("/"))

    assert seen.verdict == "Pass"
    assert seen.engine.startswith(f"smollm2-{tier}-")
    assert total >= 200
    assert right >= 0.98 * total
