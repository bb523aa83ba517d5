"""The three tiers of the examples, served: `full` by the suite that the product ships, the others by small ones of their tenant."""

from dataclasses import dataclass

from e2e import story
from e2e.kube import Json, Kube
from e2e.story import EDGE, FULL, LITE, Name, name_in
from e2e.suites import own_suite
from r1plus_cli.view import DeploymentView
from r1plus_operator.suite_signature import new_key

SMALL_SUITES = {LITE: "lite", EDGE: "edge"}
PER_STRATUM, SMALL = 10, 40
"""Items of each stratum, and of a small suite. `make e2e-story-long` gates those two by all that the product ships."""
THRESHOLDS = {"full": 0.98, "lite": 0.95, "edge": 0.95}
"""The default; and of 40 items two may be lost, for a CPU that rounds otherwise than the one that recorded the suite."""


@dataclass(frozen=True, slots=True)
class Served:
    """The three tiers, by tier: which deployments they are, and how each stood when all were Ready."""

    names: dict[str, Name]
    views: dict[str, DeploymentView]
    accuracy_of_edge: Json
    """`spec.accuracy` by its small suite."""


def serve(kube: Kube) -> Served:
    """Apply all three, and wait until they are Ready."""
    key, held = new_key(), {}
    names = {"full": name_in(FULL), "lite": name_in(LITE), "edge": name_in(EDGE)}
    story.apply(kube, story.TENANTS)
    story.apply(kube, FULL)
    for example, tier in SMALL_SUITES.items():
        suite = own_suite(tier, key, PER_STRATUM)
        suite.put(kube, names[tier].namespace)
        held[tier] = {**suite.held, "threshold": THRESHOLDS[tier]}
        kube.apply(story.deployment_in(example, accuracy=held[tier]))
    views = story.until_ready(kube, list(names.values()), print)
    return Served(names, {tier: views[name] for tier, name in names.items()}, held["edge"])
