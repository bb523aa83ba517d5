"""Items about long texts: only the text gives the answer, lengths are what was asked for, and the same again."""

import re
from argparse import ArgumentTypeError

import pytest

from r1plus_contract.inference import FinishReason
from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.suites.suite import MAX_SUITE_BYTES, Item, encode_items
from r1plus_contract.suites.suite_answers import find_answer_problem
from r1plus_monitoring.curate.__main__ import build_context_items, parse_lengths
from r1plus_monitoring.curate.long_context import (
    CHARACTERS_PER_TOKEN,
    KINDS,
    STRATUM,
    build_long_items,
    read_tokens,
)
from r1plus_monitoring.scoring.scorers import score
from support.tables import for_each

LENGTHS = (512, 2048, 32768)
ITEMS = {tokens: build_long_items(tokens, 27) for tokens in LENGTHS}
lengths = pytest.mark.parametrize("tokens", LENGTHS, ids="{} tokens".format)


def clauses(item: Item) -> list[str]:
    return [line for line in item.prompt.split("\n") if re.match(r"\d+\. ", line)]


def places(item: Item, words: str) -> list[float]:
    """Where clauses with these words stand, 0 at the beginning and 1 at the end."""
    lines = clauses(item)
    return [number / len(lines) for number, line in enumerate(lines) if words in line]


@lengths
def test_an_item_has_the_length_that_was_asked_for_and_says_it(tokens: int) -> None:
    most = tokens * CHARACTERS_PER_TOKEN
    assert all(0.7 * most < len(item.prompt) < most for item in ITEMS[tokens])
    assert {read_tokens(item) for item in ITEMS[tokens]} == {tokens}


@lengths
def test_items_differ_and_are_the_same_again(tokens: int) -> None:
    assert build_long_items(tokens, 27) == ITEMS[tokens]
    assert build_long_items(tokens, 27, seed=2) != ITEMS[tokens]
    assert len({item.id for item in ITEMS[tokens]}) == len({item.prompt for item in ITEMS[tokens]}) == 27
    kinds = [item.id.split("-")[0] for item in ITEMS[tokens]]
    assert {kind: kinds.count(kind) for kind in KINDS} == dict.fromkeys(KINDS, 9)
    assert {item.stratum for item in ITEMS[tokens]} == {STRATUM}


def test_more_items_change_none_of_the_former() -> None:
    assert build_long_items(2048, 60)[:27] == ITEMS[2048]


@lengths
def test_the_question_alone_gives_no_answer_and_the_answer_is_a_right_one(tokens: int) -> None:
    for item in ITEMS[tokens]:
        question = item.prompt.split("\n\n")[-1]
        assert score(item, question, FinishReason.STOP) == OutcomeLabel.INCORRECT, item.id
        assert score(item, item.answers[0], FinishReason.STOP) == OutcomeLabel.CORRECT, item.id
        assert find_answer_problem(item.scorer, item.answers[0]) == ""


@lengths
def test_what_answers_stands_once_in_the_text_early_in_some_items_and_late_in_others(tokens: int) -> None:
    needles = [item for item in ITEMS[tokens] if item.id.startswith("needle")]
    depths = [places(item, f"is {item.answers[0]}.") for item in needles]
    assert all(len(found) == 1 for found in depths)
    assert min(found[0] for found in depths) < 0.25 and max(found[0] for found in depths) > 0.75


@lengths
def test_a_look_up_needs_two_clauses_that_are_far_apart(tokens: int) -> None:
    hops = [item for item in ITEMS[tokens] if item.id.startswith("hops")]
    assert hops
    for item in hops:
        (guarantor,) = places(item, "The guarantor of unit")
        (account,) = places(item, f"has the number {item.answers[0]}.")
        assert abs(guarantor - account) > 0.15, item.id


@lengths
def test_a_summary_needs_the_beginning_the_middle_and_the_end(tokens: int) -> None:
    summaries = [item for item in ITEMS[tokens] if item.id.startswith("summary")]
    assert summaries
    for item in summaries:
        landlord, city, years = item.answers[0].split(", ")
        ((first,), (second,), (third,)) = (
            places(item, f"The landlord under this agreement is {landlord}."),
            places(item, f"The place of jurisdiction is {city}."),
            places(item, f"This agreement ends after {years} years."),
        )
        assert first < 0.3 < second < 0.7 < third


def test_a_stratum_of_many_lengths_fits_a_suite() -> None:
    pairs = parse_lengths("2048:40,4096:12,8192:4,16384:2,32768:1")
    items = build_context_items(pairs, seed=1)
    assert len(items) == 59
    assert len(encode_items(items).encode()) < MAX_SUITE_BYTES


@for_each("text, words", {
    "no numbers": ("long", "'long' is not TOKENS:ITEMS,..., such as 2048:60,4096:20"),
    "one number": ("2048", "'2048' is not TOKENS:ITEMS"),
    "too short": ("2048:3,100:3", "100 tokens: at least 512, and at least one item"),
    "a length twice": ("2048:3,4096:1,2048:3", "'2048:3,4096:1,2048:3' has a length twice, whose items would be the same"),
    "more than a suite can hold": ("99999999:1", "99999999 tokens in all, at most 4194304 are written: a suite holds"),
    "no items": ("2048:0", "2048 tokens: at least 512, and at least one item"),
})  # fmt: skip
def test_lengths_that_are_none_are_refused(text: str, words: str) -> None:
    with pytest.raises(ArgumentTypeError, match=re.escape(words)):
        parse_lengths(text)


def test_a_text_too_short_to_hide_a_sentence_is_refused() -> None:
    with pytest.raises(ValueError, match="tokens: 511 is less than 512, the shortest agreement; ask for more"):
        build_long_items(511, 1)
