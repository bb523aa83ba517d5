"""Scorers: is this answer right? Called by the prober for every probe and by the curator for every candidate.

What cannot be parsed is incorrect. An answer cut at `max_new_tokens` (finish reason `length`) is judged only where
what was cut off could not change the score; everywhere else it is incorrect:

- `exact`: the whole answer must be one of the answers, so a cut answer is incorrect.
- `numeric`: the *last* number decides, and a cut answer has not said its last number yet, so it is incorrect.
- `contains`: an answer found whole, with text behind it, stays found however the text goes on, so a cut answer may
  be right; one that touches the cut ("Paris" of "Parisian") is not whole and does not count.
- `choice`: the first words decide, by the same rule as `contains`.

Whoever changes what any of these says of any answer raises `SCORER_VERSION`: scores of another version are not ours.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from r1plus_contract.inference import FinishReason
from r1plus_contract.metrics import Outcome
from r1plus_contract.suite import Item

RELATIVE_TOLERANCE: Final = Decimal("1e-6")
"""Of `numeric`: 0.333333 is 1/3 written to six digits; two integers below a million must be equal."""


class ScorerName(StrEnum):
    """Values of `Item.scorer`."""

    EXACT = "exact"
    CONTAINS = "contains"
    NUMERIC = "numeric"
    CHOICE = "choice"


def score(item: Item, answer: str, finish_reason: str) -> str:
    """`Outcome.CORRECT`, `INCORRECT`, or `UNSCORABLE` where the item names a scorer that does not exist."""
    scorer = SCORERS.get(item.scorer)
    if scorer is None:
        return Outcome.UNSCORABLE
    cut = finish_reason != FinishReason.STOP
    right = any(scorer(normalise(answer), normalise(expected), cut) for expected in item.answers)
    return Outcome.CORRECT if right else Outcome.INCORRECT


def normalise(text: str) -> str:
    """NFKC, case folded, white space single, typographic quotes and Markdown's emphasis gone."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = text.replace("\u2019", "'").replace("\u2212", "-").replace("*", "").replace("`", "")
    return " ".join(text.split())


def trimmed(text: str) -> str:
    """Without punctuation at either end: `"Paris."` is `Paris`. A sign or currency before a number stays."""
    return text.strip(" .,;:!?\"'()[]{}")


def exact(answer: str, expected: str, cut: bool) -> bool:
    """The whole answer, but for case, spaces and punctuation at its ends."""
    return not cut and trimmed(answer) == trimmed(expected)


def contains(answer: str, expected: str, cut: bool) -> bool:
    """The expected words stand in the answer as whole words; `42` is not in `142`, `4.42`, `42.5` or `-42`."""
    return any(not cut or found.end() < len(answer) for found in _whole(expected).finditer(answer))


def choice(answer: str, expected: str, cut: bool) -> bool:
    """The answer starts with the expected option, after an opening such as `The answer is` or `(`.

    A single letter must stand alone or be marked as an option (`b`, `b)`, `b. Paris`): `a dog` does not choose A.
    """
    opening = _OPENING.match(answer)
    rest = answer[opening.end() :] if opening else answer
    if len(expected) == 1 and expected.isalpha():
        found = re.match(rf"{expected}(?=$|[).:,\]])", rest)
    else:
        found = _whole(expected).match(rest)
    return found is not None and (not cut or found.end() < len(rest))


def numeric(answer: str, expected: str, cut: bool) -> bool:
    """The last number of the answer equals the expected one within RELATIVE_TOLERANCE."""
    found = _NUMBER.findall(answer)
    if cut or not found:
        return False
    try:
        said, wanted = Decimal(found[-1].replace(",", "")), Decimal(expected.replace(",", ""))
    except InvalidOperation:
        return False
    return abs(said - wanted) <= abs(wanted) * RELATIVE_TOLERANCE


_OPENING: Final = re.compile(r"(?:the (?:correct )?answer(?: is)?|answer|option|it is|it's)?[\s:(\[\"']*")
_NUMBER: Final = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\d])")


def _whole(expected: str) -> re.Pattern[str]:
    before = r"(?<!\w)"
    after = r"(?!\w)"
    if expected[:1].isdigit():
        before += r"(?<!\d[.,])(?<!-)"
    if expected[-1:].isdigit():
        after += r"(?![.,]\d)"
    return re.compile(before + re.escape(expected) + after)


Scorer = Callable[[str, str, bool], bool]
SCORERS: Final[Mapping[str, Scorer]] = MappingProxyType(
    {
        ScorerName.EXACT: exact,
        ScorerName.CONTAINS: contains,
        ScorerName.NUMERIC: numeric,
        ScorerName.CHOICE: choice,
    }
)
