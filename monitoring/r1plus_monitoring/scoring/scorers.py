"""Scorers: is this answer right? Called by the prober for every probe and by the curator for every candidate.

What cannot be parsed is incorrect. An answer cut at `max_new_tokens` (finish reason `length`) is judged only where
what was cut off could not change the score; everywhere else it is incorrect:

- `exact`: the whole answer must be one of the answers, so a cut answer is incorrect.
- `numeric`: the *last* number decides, and a cut answer has not said its last number yet, so it is incorrect.
- `contains`: an answer found whole, with text behind it, stays found however the text goes on, so a cut answer may
  be right; one that touches the cut ("Paris" of "Parisian") is not whole and does not count.
- `choice`: the first words decide, by the same rule as `contains`.
- `near`: like `numeric`, within a tolerance that the answer names.
- `json`: the whole answer, or its last fenced block, must be JSON that fits a schema, so a cut answer is incorrect.

A schema holds no regular expression and no reference (r1plus_contract.suites.suite_answers), so none runs for ever.

To change the score of any answer, raise `SCORER_VERSION`: scores of another version do not count.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Protocol

from r1plus_contract.inference import FinishReason
from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.suites.suite import Item
from r1plus_contract.suites.suite_answers import PUNCTUATION, find_answer_problem
from r1plus_contract.suites.suite_answers import parse_near as bounds_of

RELATIVE_TOLERANCE: Final = Decimal("1e-6")
"""Of `numeric`: 0.333333 is 1/3 written to six digits; two integers below a million must be equal."""


class ScorerName(StrEnum):
    """Values of `Item.scorer`."""

    EXACT = "exact"
    CONTAINS = "contains"
    NUMERIC = "numeric"
    NEAR = "near"
    CHOICE = "choice"
    JSON = "json"


class Unscorable(Exception):  # noqa: N818 - an outcome, not an error
    """The scorer cannot judge by this item: its expectation is invalid."""


def score(item: Item, answer: str, finish_reason: str) -> str:
    """Return `Outcome.CORRECT`, `INCORRECT`, or `UNSCORABLE` where the scorer or the expectation is invalid."""
    scorer = SCORERS.get(item.scorer)
    if scorer is None:
        return OutcomeLabel.UNSCORABLE
    cut = finish_reason != FinishReason.STOP
    try:
        right = any(scorer(answer, expected, cut) for expected in item.answers)
    except Unscorable:
        return OutcomeLabel.UNSCORABLE
    return OutcomeLabel.CORRECT if right else OutcomeLabel.INCORRECT


def normalise(text: str) -> str:
    """Normalise to NFKC, case folded, single white space, without typographic quotes and Markdown's emphasis."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = text.replace("\u2019", "'").replace("\u2212", "-").replace("*", "").replace("`", "")
    return " ".join(text.split())


def trim_punctuation(text: str) -> str:
    """Strip punctuation at either end: `"Paris."` is `Paris`. A sign or currency before a number stays."""
    return text.strip(PUNCTUATION)


def match_exact(answer: str, expected: str, cut: bool) -> bool:
    """Compare the whole answer, but for case, spaces and punctuation at its ends."""
    return not cut and trim_punctuation(answer) == trim_punctuation(expected)


def match_contained(answer: str, expected: str, cut: bool) -> bool:
    """Find the expected words in the answer as whole words; `42` is not in `142`, `4.42`, `42.5` or `-42`."""
    return any(not cut or match.end() < len(answer) for match in _compile_whole_words(expected).finditer(answer))


def match_choice(answer: str, expected: str, cut: bool) -> bool:
    """Match the expected option at the start, after an opening such as `The answer is` or `(`.

    A single letter must be alone or marked as an option (`b`, `b)`, `b. Paris`): `a dog` does not choose A.
    """
    prefix = _ANSWER_PREFIX.match(answer)
    rest = answer[prefix.end() :] if prefix else answer
    if len(expected) == 1 and expected.isalpha():
        match = re.match(rf"{expected}(?=$|[).:,\]])", rest)
    else:
        match = _compile_whole_words(expected).match(rest)
    return match is not None and (not cut or match.end() < len(rest))


def match_number(answer: str, expected: str, cut: bool) -> bool:
    """Compare the last number of the answer with the expected one, within RELATIVE_TOLERANCE."""
    number = _parse_last_number(answer, cut)
    try:
        target = Decimal(expected.replace(",", ""))
        return number is not None and abs(number - target) <= abs(target) * RELATIVE_TOLERANCE
    except ArithmeticError:
        # No number, or NaN, which compares with nothing.
        return False


def match_near(answer: str, expected: str, cut: bool) -> bool:
    """Compare the last number of the answer within the tolerance of the expectation: `42 +- 0.5`."""
    bounds = bounds_of(expected)
    if bounds is None:
        raise Unscorable
    number = _parse_last_number(answer, cut)
    return number is not None and bounds[0] <= number <= bounds[1]


def match_schema(answer: str, schema: str, cut: bool) -> bool:
    """Validate the last fenced block of the answer, or all of it without fences, against the schema."""
    validator = _compile_schema(schema)
    if cut:
        return False
    try:
        return validator.is_valid(json.loads(_extract_last_block(answer), parse_constant=_refuse_constant))
    except (ValueError, RecursionError, ArithmeticError):
        # The last: a number too large for the schema's arithmetic. What cannot be parsed or judged is incorrect.
        return False


def _extract_last_block(answer: str) -> str:
    """Return the text between the last pair of fences, without the language tag; all of it without fences."""
    blocks = answer.split("```")[1:-1:2]
    if not blocks:
        return answer
    language, newline, rest = blocks[-1].partition("\n")
    return rest if newline else language


class Validator(Protocol):
    """The part of `jsonschema`'s validator that is used."""

    def is_valid(self, instance: Any) -> bool:
        """Return whether the instance fits."""


@lru_cache(maxsize=1024)
def _compile_schema(schema: str) -> Validator:
    """Compile a schema, once. One that `suite_answers` rejects raises Unscorable."""
    if find_answer_problem(ScorerName.JSON, schema):
        raise Unscorable
    # Late: 10 MB that a suite without such items need not spend.
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads(schema))


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _parse_last_number(answer: str, cut: bool) -> Decimal | None:
    """Return the last number; None where there is none, or where the answer may continue to another."""
    numbers = _NUMBER.findall(answer)
    if cut or not numbers:
        return None
    try:
        return Decimal(numbers[-1].replace(",", ""))
    except InvalidOperation:
        return None


_ANSWER_PREFIX: Final = re.compile(r"(?:the (?:correct )?answer(?: is)?|answer|option|it is|it's)?[\s:(\[\"']*")
_NUMBER: Final = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\d])")


def _compile_whole_words(expected: str) -> re.Pattern[str]:
    before = r"(?<!\w)"
    after = r"(?!\w)"
    if expected[:1].isdigit():
        before += r"(?<!\d[.,])(?<!-)"
    if expected[-1:].isdigit():
        after += r"(?![.,]\d)"
    return re.compile(before + re.escape(expected) + after)


Scorer = Callable[[str, str, bool], bool]


def _normalise_both(scorer: Scorer) -> Scorer:
    return lambda answer, expected, cut: scorer(normalise(answer), normalise(expected), cut)


SCORERS: Final[Mapping[str, Scorer]] = MappingProxyType(
    {
        ScorerName.EXACT: _normalise_both(match_exact),
        ScorerName.CONTAINS: _normalise_both(match_contained),
        ScorerName.NUMERIC: _normalise_both(match_number),
        ScorerName.NEAR: _normalise_both(match_near),
        ScorerName.CHOICE: _normalise_both(match_choice),
        # JSON distinguishes what `normalise` makes alike.
        ScorerName.JSON: match_schema,
    }
)
