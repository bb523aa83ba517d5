"""Questions that the benches train models on, and those of the shipped golden suites. Without torch."""

import random

from r1plus_model.training.suite_overlap import SuiteIndex
from r1plus_monitoring.curate.candidates import build_candidates
from r1plus_training.engine_distil import load_compared_suites


def list_prompts(index: SuiteIndex) -> list[str]:
    """Return candidates that hold no question of the index, in an order of their own.

    One with an example in it may hold a question that it does not equal.
    """
    prompts = sorted({item.prompt for item in build_candidates() if index.find(0, item.prompt) is None})
    random.Random(1).shuffle(prompts)
    return prompts


def read_suite_prompts() -> set[str]:
    """Return the questions of the shipped golden suites."""
    return {item.prompt for suite in load_compared_suites([]) for item in suite.items}
