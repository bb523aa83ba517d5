"""A golden suite that an echo passes: so the gate stands in the way as it does for any engine, and opens by itself."""

from e2e.suites import OwnSuite, sealed
from r1plus_contract.inference import FinishReason
from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.suites.suite import SCORER_VERSION, Item, SuiteHeader, SuiteSampling
from r1plus_contract.suites.suite_reference import RecordedAnswer
from r1plus_operator.observe.suite_signature import generate_key

NAME = "echo-v1"
WORDS = (
    *("amber", "birch", "cedar", "dune", "ember", "fjord", "garnet", "harbour", "iris", "juniper"),
    *("kelp", "lagoon", "maple", "nectar", "opal", "pebble", "quartz", "raven", "saffron", "tundra"),
    *("umber", "velvet", "willow", "yarrow", "zephyr", "acorn", "breeze", "clover", "delta", "elm"),
    *("fern", "glacier", "heather", "island", "jasmine", "knoll", "lichen", "meadow", "nutmeg", "orchard"),
)


def echo_suite() -> OwnSuite:
    """Forty things to say again, of two kinds, signed with a key of its own."""
    said = {word: word if place % 2 else f"{word} and {word}" for place, word in enumerate(WORDS)}
    items = [
        Item(f"say-{word}", "words" if text == word else "pairs", f"Say {text} again", "contains", (text,))
        for word, text in said.items()
    ]
    header = SuiteHeader(
        name=NAME,
        version="1.0.0",
        family="bank-gpu",
        tier="edge",
        description="What whoever says the question again gets right.",
        reference_engine="a stand-in that says every prompt again",
        sha256="",
        items=len(items),
        sampling=SuiteSampling(max_new_tokens=96),
        scorer_version=SCORER_VERSION,
    )
    # Of each item an answer that is right and one that is wrong: the monitor holds its scorer to both.
    recorded = [
        RecordedAnswer(f"say-{word}", f"Say {said[other]} again", FinishReason.STOP, score)
        for word, wrong in zip(WORDS, reversed(WORDS), strict=True)
        for other, score in ((word, OutcomeLabel.CORRECT), (wrong, OutcomeLabel.INCORRECT))
    ]
    return sealed(header, items, recorded, generate_key())
