"""The golden suite of the simulation: small, so that a gate is some hundred probes."""

from r1plus_contract.jsonable import dumps
from r1plus_contract.suites.suite import Item, SuiteHeader, SuiteSampling, encode_items, load_suite, suite_hash
from r1plus_operator.plan.observation import SuiteSource

NAME = "smollm2-full-v1"


def build_suite(items: int) -> SuiteSource:
    """Return a sound suite of two strata for tier full."""
    made = [Item(f"i{n:03}", ("sums", "capitals")[n % 2], f"Question {n}?", "exact", ("yes",)) for n in range(items)]
    text = encode_items(made)
    header = SuiteHeader(
        NAME, "1.0.0", "smollm2", "full", "for simulations", "e", suite_hash(text, SuiteSampling(), "1"), items,
        SuiteSampling(),
    )  # fmt: skip
    return SuiteSource(NAME, dumps(header), text, load_suite(dumps(header), text))


def number_prompts(items: int) -> dict[str, int]:
    """Return the number of each prompt's item, in an order that spreads over the strata."""
    return {f"Question {n}?": n for n in range(items)}
