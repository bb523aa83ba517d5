"""What each scorer calls right."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.suites.suite import Item
from r1plus_contract.suites.suite_answers import ANSWERS, find_answer_problem
from r1plus_monitoring.scoring.scorers import SCORERS, ScorerName, score


def judged(scorer: str, answer: str, *expected: str, finish: str = "stop") -> str:
    return score(Item("i", "s", "p", scorer, expected), answer, finish)


OBJECT = (
    '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": false}'
)


RIGHT = [
    pytest.param("exact", "Paris", ("paris",), "stop", id="exact ignores case"),
    pytest.param("exact", ' **"Paris."**\n', ("Paris",), "stop", id="exact ignores emphasis, quotes and full stop"),
    pytest.param("exact", "new   york", ("New York",), "stop", id="exact ignores how wide a space is"),
    pytest.param("exact", "B", ("A", "B"), "stop", id="any of the answers is right"),
    pytest.param("exact", "Au", ("AU",), "stop", id="full-width letters are letters"),
    pytest.param("contains", "The capital is Paris.", ("Paris",), "stop", id="contains finds a word"),
    pytest.param("contains", "17 + 25 = 42.", ("42",), "stop", id="contains finds a number before a full stop"),
    pytest.param("contains", "It is Paris, which", ("Paris",), "length", id="a cut behind the word does not matter"),
    pytest.param("contains", "Port-au-Prince it is", ("port-au-prince",), "stop", id="words with hyphens"),
    pytest.param("numeric", "17 + 25 = 42", ("42",), "stop", id="the last number decides"),
    pytest.param("numeric", "It is 1,000.", ("1000",), "stop", id="thousands may be grouped"),
    pytest.param("numeric", "about -3.50 degrees", ("-3.5",), "stop", id="signs and decimals"),
    pytest.param("numeric", "0.3333333", ("0.33333333",), "stop", id="within the tolerance"),
    pytest.param("numeric", "10-5=5", ("5",), "stop", id="a minus between numbers is no sign"),
    pytest.param("near", "about 42.4 kg", ("42 +- 0.5",), "stop", id="near: within the tolerance"),
    pytest.param("near", "41.5", ("42 ± 0.5",), "stop", id="near: at its lower end"),
    pytest.param("near", "42.5", ("42 +/- 0.5",), "stop", id="near: at its upper end"),
    pytest.param(
        "near", "first 1, then 98", ("100 +- 2%",), "stop", id="near: a tolerance in percent, of the last number"
    ),
    pytest.param("near", "-98", ("−100 +- 2%",), "stop", id="near: a percentage of a negative number"),
    pytest.param("json", '{"a": 1}', (OBJECT,), "stop", id="json: the whole answer"),
    pytest.param("json", 'See:\n```json\n{"a": 1}\n```\nDone.', (OBJECT,), "stop", id="json: a fenced block"),
    pytest.param(
        "json", '```\n{"b": 1}\n```\nno:\n```\n{"a": 2}\n```', (OBJECT,), "stop", id="json: the last block decides"
    ),
    pytest.param("json", '```{"a": 1}```', (OBJECT,), "stop", id="json: a block on one line"),
    pytest.param("json", '"Paris"', ('{"const": "Paris"}',), "stop", id="json: a constant"),
    pytest.param("choice", "B", ("b",), "stop", id="the letter alone"),
    pytest.param("choice", "(B) Paris", ("B",), "stop", id="in brackets"),
    pytest.param("choice", "The answer is B.", ("B",), "stop", id="after an opening"),
    pytest.param("choice", "Yes, it is", ("Yes",), "length", id="a cut behind the choice does not matter"),
]
WRONG = [
    pytest.param("exact", "It is Paris", ("Paris",), "stop", id="exact wants nothing else"),
    pytest.param("exact", "Paris", ("Paris",), "length", id="exact wants the whole answer"),
    pytest.param("exact", "", ("Paris",), "stop", id="no answer"),
    pytest.param("contains", "Parisian", ("Paris",), "stop", id="contains wants whole words"),
    pytest.param("contains", "It is Paris", ("Paris",), "length", id="a word that touches the cut may go on"),
    pytest.param("contains", "142", ("42",), "stop", id="42 is not in 142"),
    pytest.param("contains", "42.5", ("42",), "stop", id="42 is not in 42.5"),
    pytest.param("contains", "4.42", ("42",), "stop", id="42 is not in 4.42"),
    pytest.param("contains", "42,000", ("42",), "stop", id="42 is not in 42,000"),
    pytest.param("contains", "it is -42", ("42",), "stop", id="42 is not in -42"),
    pytest.param("numeric", "42, or maybe 43", ("42",), "stop", id="the first number does not decide"),
    pytest.param("numeric", "17 + 25 = 42", ("42",), "length", id="a cut answer has not said its last number"),
    pytest.param("numeric", "forty-two", ("42",), "stop", id="no number is no answer"),
    pytest.param("numeric", "42.1", ("42",), "stop", id="beyond the tolerance"),
    pytest.param("numeric", "42", ("forty",), "stop", id="an expectation that is no number is met by none"),
    pytest.param("numeric", "42", ("nan",), "stop", id="an expectation that compares with nothing is met by none"),
    pytest.param("near", "42.6", ("42 +- 0.5",), "stop", id="near: beyond the tolerance"),
    pytest.param("near", "41.4", ("42 +- 0.5",), "stop", id="near: below the tolerance"),
    pytest.param("near", "42", ("42 +- 0.5",), "length", id="near: a cut answer has not said its last number"),
    pytest.param("near", "forty-two", ("42 +- 0.5",), "stop", id="near: no number is no answer"),
    pytest.param("json", '{"a": 1}', (OBJECT,), "length", id="json: a cut answer is not whole"),
    pytest.param("json", '{"a": 1', (OBJECT,), "stop", id="json: what cannot be parsed is incorrect"),
    pytest.param("json", '```json\n{"a": 1}', (OBJECT,), "stop", id="json: a block that does not end"),
    pytest.param("json", '{"a": "1"}', (OBJECT,), "stop", id="json: another type"),
    pytest.param("json", '{"A": 1}', (OBJECT,), "stop", id="json: upper case is another name"),
    pytest.param("json", '{"a": 1, "b": 2}', (OBJECT,), "stop", id="json: a name too many"),
    pytest.param("json", '{"a": NaN}', (OBJECT.replace("integer", "number"),), "stop", id="json: NaN is no JSON"),
    pytest.param("json", '"paris"', ('{"const": "Paris"}',), "stop", id="json: a constant in another case"),
    pytest.param("json", "[" * 100_000, ('{"type": "array"}',), "stop", id="json: nested beyond what a parser takes"),
    pytest.param("json", "1e999", ('{"multipleOf": 0.1}',), "stop", id="json: a number beyond all arithmetic"),
    pytest.param("json", "9" * 4000, ('{"multipleOf": 0.1}',), "stop", id="json: a number beyond a fraction's"),
    pytest.param(
        "json", "9" * 10_000, ('{"type": "integer"}',), "stop", id="json: a number beyond what a parser takes"
    ),
    pytest.param("choice", "a dog", ("A",), "stop", id="an article chooses nothing"),
    pytest.param("choice", "Not B", ("B",), "stop", id="the choice comes first"),
    pytest.param("choice", "Yes", ("Yes",), "length", id="a choice that touches the cut may go on"),
    pytest.param("exact", "Paris", ("Paris",), "cancelled", id="a cancelled answer is a cut one"),
]


@pytest.mark.parametrize(("scorer", "answer", "expected", "finish"), RIGHT)
def test_right(scorer: str, answer: str, expected: tuple[str, ...], finish: str) -> None:
    assert judged(scorer, answer, *expected, finish=finish) == OutcomeLabel.CORRECT


@pytest.mark.parametrize(("scorer", "answer", "expected", "finish"), WRONG)
def test_wrong(scorer: str, answer: str, expected: tuple[str, ...], finish: str) -> None:
    assert judged(scorer, answer, *expected, finish=finish) == OutcomeLabel.INCORRECT


def test_a_scorer_that_does_not_exist_scores_nothing() -> None:
    assert judged("llm-judge", "Paris", "Paris") == OutcomeLabel.UNSCORABLE


def test_every_name_has_a_scorer_and_a_form_that_its_answers_must_have() -> None:
    assert set(SCORERS) == set(ScorerName) == set(ANSWERS)


@pytest.mark.parametrize(
    ("scorer", "expected"),
    [
        pytest.param("near", "42", id="a number without its tolerance"),
        pytest.param("json", "{", id="a schema that is no JSON"),
        pytest.param("json", '{"type": "sting"}', id="a type that does not exist"),
        pytest.param("json", '{"pattern": "(a+)+$"}', id="a regular expression that backtracks for ever"),
        pytest.param("json", '{"$ref": "#"}', id="a reference that leads in a circle"),
        pytest.param("json", '{"$ref": "http://127.0.0.1:1/x"}', id="a reference that leads into the network"),
    ],
)
def test_what_a_scorer_cannot_judge_by_is_never_held_against_an_engine(scorer: str, expected: str) -> None:
    assert judged(scorer, "a" * 60 + "!", expected) == OutcomeLabel.UNSCORABLE


def test_a_schema_is_judged_in_a_time_that_grows_with_schema_and_answer_only() -> None:
    """Fifteen levels of alternatives that fail at the end, over an answer as long as any engine may give."""
    schema: object = {"type": "array", "maxItems": 1}
    for _ in range(5):
        schema = {"anyOf": [{"oneOf": [schema, {"type": "null"}]}]}
        schema = {"allOf": [schema, {"not": {"type": "string"}}]}
    started = time.thread_time()
    assert judged("json", json.dumps(list(range(4000))), json.dumps(schema)) == OutcomeLabel.INCORRECT
    assert time.thread_time() - started < 2.0, "processor time: how busy the machine is does not matter"


@given(st.sampled_from(list(ScorerName)), st.text(max_size=40), st.text(min_size=1, max_size=10))
def test_any_text_gets_a_score(scorer: ScorerName, answer: str, expected: str) -> None:
    found = judged(scorer, answer, expected)
    if scorer in (ScorerName.NEAR, ScorerName.JSON) and find_answer_problem(scorer, expected):
        assert found == OutcomeLabel.UNSCORABLE
    else:
        assert found in (OutcomeLabel.CORRECT, OutcomeLabel.INCORRECT)


@given(st.text(max_size=30), st.text(max_size=30), st.sampled_from(["paris", "42", "-7"]))
def test_what_a_cut_answer_contains_stays_contained(before: str, after: str, expected: str) -> None:
    if judged("contains", before, expected, finish="length") == OutcomeLabel.CORRECT and after.isalnum():
        assert judged("contains", f"{before} {after}", expected) == OutcomeLabel.CORRECT
