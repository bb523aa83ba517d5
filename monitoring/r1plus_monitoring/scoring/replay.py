"""Replay: recorded answers of the reference through the live scorer. Called where a suite is read, and by the
curator.

No engine is asked here, so a difference comes from the scorer or the suite. Then neither a Pass nor a Fail of theirs
may be trusted.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Final

from r1plus_contract.inference import FinishReason
from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.suites.suite import Item, Suite
from r1plus_contract.suites.suite_reference import RecordedAnswer
from r1plus_monitoring.scoring.scorers import score

PER_STRATUM: Final = 4
"""Items of each stratum whose answers are recorded: few, since one is enough to show a scorer that is broken."""


def replay(suite: Suite, recorded: Sequence[RecordedAnswer]) -> tuple[str, ...]:
    """Return a line for every recorded answer whose score differs now; none: scorer and suite are unchanged."""
    items = {item.id: item for item in suite.items}
    new_scores = ((one, score(items[one.item], one.answer, one.finish_reason)) for one in recorded)
    return tuple(f"item {one.item}: {one.score} as recorded, {now} now" for one, now in new_scores if now != one.score)


def record(items: Sequence[Item], answers: Mapping[str, tuple[str, str]], seed: int) -> tuple[RecordedAnswer, ...]:
    """Return the answers to record. `answers`: item id -> text and finish reason.

    Of some items of every stratum: its own answer; the same cut off; and the answer to another item. The last is wrong
    as a rule, so a scorer that calls everything right is detected as well.
    """
    answers_to_record: list[RecordedAnswer] = []
    for stratum in sorted({item.stratum for item in items}):
        members = [item for item in items if item.stratum == stratum and item.id in answers]
        chance = random.Random(f"{seed}/{stratum}")  # noqa: S311 - a sample, not a secret
        sample = chance.sample(members, min(PER_STRATUM, len(members)))
        for item, other in zip(sample, [*sample[1:], *sample[:1]], strict=True):
            own, finish = answers[item.id]
            for text, reason in ((own, finish), (own, FinishReason.LENGTH.value), (answers[other.id][0], finish)):
                if (outcome := score(item, text, reason)) in (OutcomeLabel.CORRECT, OutcomeLabel.INCORRECT):
                    answers_to_record.append(RecordedAnswer(item.id, text, reason, outcome))
    return tuple(dict.fromkeys(answers_to_record))
