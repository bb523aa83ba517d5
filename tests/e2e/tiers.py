"""The three tiers of the examples, served: each by a small suite of its tenant.

`make e2e STORY=story-long` gates them by all that the product ships, as the demo does.
"""

from dataclasses import dataclass

from devcluster.steps import Steps
from e2e import gateways, story
from e2e.kube import Json, Kube
from e2e.story import EDGE, FULL, LITE, Name, name_in
from e2e.suites import own_suite
from e2e.target import Target
from r1plus_cli.deployment.stream import Question, ask
from r1plus_cli.deployment.view import DeploymentView
from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.names import PORT_GRPC
from r1plus_contract.suites.suite import load_suite
from r1plus_monitoring.scoring.scorers import score
from r1plus_operator.observe.suite_signature import generate_key

TIERS = {"full": FULL, "lite": LITE, "edge": EDGE}
PER_STRATUM = {"full": 6, "lite": 12, "edge": 6}
"""Items of each of four strata. `lite` has more than a further pod's short check draws, so that this is a sample there."""
ITEMS = {tier: 4 * count for tier, count in PER_STRATUM.items()}
THRESHOLDS = {"full": 0.9, "lite": 0.95, "edge": 0.9}
"""Each allows two lost items, for a CPU that rounds otherwise than the one that recorded the suite."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The three tiers, by tier."""

    names: dict[str, Name]
    accuracy: dict[str, Json]
    """`spec.accuracy` of each, by tier."""


def apply_tiers(kube: Kube) -> Applied:
    """Apply all three. They become Ready when their gates have passed."""
    key, accuracy = generate_key(), {}
    names = {tier: name_in(example) for tier, example in TIERS.items()}
    with Steps(1).step("tenants, and their quotas counted"):
        gateways.apply_tenants(kube, print)
    for tier, example in TIERS.items():
        suite = own_suite(tier, key, PER_STRATUM[tier])
        suite.put(kube, names[tier].namespace)
        accuracy[tier] = {**suite.held, "threshold": THRESHOLDS[tier]}
        kube.apply(story.deployment_in(example, accuracy[tier]))
    return Applied(names, accuracy)


@dataclass(frozen=True, slots=True)
class FirstDay:
    """How a deployment did as soon as it served."""

    view: DeploymentView
    wrong_answers: list[str]
    """Of the first items of its suite."""


def first_day(target: Target, name: Name) -> FirstDay:
    """Wait until a deployment is Ready, and ask it the first items of its suite."""
    view = story.until_ready(target.kube, [name], print)[name]
    held_to = target.kube.get("configmaps", name.namespace, f"{name.name}-accuracy")
    assert held_to is not None, name
    suite = load_suite(held_to["data"]["suite.json"], held_to["data"]["items.jsonl"])
    sampling = suite.header.sampling
    wrong = []
    with target.reach(name.namespace, name.name, PORT_GRPC) as address:
        for item in suite.items[:5]:
            answer = ask(address, Question(item.prompt, max_new_tokens=sampling.max_new_tokens, stop=sampling.stop))
            assert answer.completion_tokens > 0, answer
            assert 0 < answer.first_token_seconds <= answer.seconds, answer
            if score(item, answer.text, answer.finish_reason) != OutcomeLabel.CORRECT:
                wrong.append(answer.text)
    return FirstDay(view, wrong)
