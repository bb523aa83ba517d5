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

A schema holds no regular expression and no reference (r1plus_contract.suite_answers), so none runs for ever.

Whoever changes what any of these says of any answer raises `SCORER_VERSION`: scores of another version are not ours.
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
from r1plus_contract.metrics import Outcome
from r1plus_contract.suite import Item
from r1plus_contract.suite_answers import PUNCTUATION, answer_problem
from r1plus_contract.suite_answers import near as bounds_of

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
    """The scorer cannot judge by this item: its expectation is none."""


def score(item: Item, answer: str, finish_reason: str) -> str:
    """`Outcome.CORRECT`, `INCORRECT`, or `UNSCORABLE` where the item's scorer or expectation is none."""
    scorer = SCORERS.get(item.scorer)
    if scorer is None:
        return Outcome.UNSCORABLE
    cut = finish_reason != FinishReason.STOP
    try:
        right = any(scorer(answer, expected, cut) for expected in item.answers)
    except Unscorable:
        return Outcome.UNSCORABLE
    return Outcome.CORRECT if right else Outcome.INCORRECT


def normalise(text: str) -> str:
    """NFKC, case folded, white space single, typographic quotes and Markdown's emphasis gone."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = text.replace("\u2019", "'").replace("\u2212", "-").replace("*", "").replace("`", "")
    return " ".join(text.split())


def trimmed(text: str) -> str:
    """Without punctuation at either end: `"Paris."` is `Paris`. A sign or currency before a number stays."""
    return text.strip(PUNCTUATION)


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
    said = _last_number(answer, cut)
    try:
        wanted = Decimal(expected.replace(",", ""))
        return said is not None and abs(said - wanted) <= abs(wanted) * RELATIVE_TOLERANCE
    except ArithmeticError:
        # No number, or NaN, which compares with nothing.
        return False


def near(answer: str, expected: str, cut: bool) -> bool:
    """The last number of the answer lies within the tolerance that stands behind the expected one: `42 +- 0.5`."""
    bounds = bounds_of(expected)
    if bounds is None:
        raise Unscorable
    said = _last_number(answer, cut)
    return said is not None and bounds[0] <= said <= bounds[1]


def fits_schema(answer: str, schema: str, cut: bool) -> bool:
    """The last fenced block of the answer, or all of it where there is none, is JSON and fits the schema."""
    validator = _validator(schema)
    if cut:
        return False
    try:
        return validator.is_valid(json.loads(_last_block(answer), parse_constant=_refuse))
    except (ValueError, RecursionError, ArithmeticError):
        # The last: a number too large for the schema's arithmetic. What cannot be parsed or judged is incorrect.
        return False


def _last_block(answer: str) -> str:
    """What stands between the last pair of fences, without the language behind the first; all of it without fences."""
    blocks = answer.split("```")[1:-1:2]
    if not blocks:
        return answer
    language, newline, rest = blocks[-1].partition("\n")
    return rest if newline else language


class Validator(Protocol):
    """What is used of `jsonschema`'s."""

    def is_valid(self, instance: Any) -> bool:
        """Whether it fits."""


@lru_cache(maxsize=1024)
def _validator(schema: str) -> Validator:
    """Compiled once per schema. One that `suite_answers` would not take is never given an answer."""
    if answer_problem(ScorerName.JSON, schema):
        raise Unscorable
    # Late: 10 MB that a suite without such items need not spend.
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads(schema))


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _last_number(answer: str, cut: bool) -> Decimal | None:
    """None where there is no number, or where the answer may go on to another."""
    found = _NUMBER.findall(answer)
    if cut or not found:
        return None
    try:
        return Decimal(found[-1].replace(",", ""))
    except InvalidOperation:
        return None


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


def _normalised(scorer: Scorer) -> Scorer:
    return lambda answer, expected, cut: scorer(normalise(answer), normalise(expected), cut)


SCORERS: Final[Mapping[str, Scorer]] = MappingProxyType(
    {
        ScorerName.EXACT: _normalised(exact),
        ScorerName.CONTAINS: _normalised(contains),
        ScorerName.NUMERIC: _normalised(numeric),
        ScorerName.NEAR: _normalised(near),
        ScorerName.CHOICE: _normalised(choice),
        # JSON distinguishes what `normalise` makes alike.
        ScorerName.JSON: fits_schema,
    }
)
