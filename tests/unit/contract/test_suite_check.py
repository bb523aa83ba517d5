"""Everything that is wrong with a suite is told at once, each thing with file, line, field, value and remedy."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.monitor.settings import ITEMS_FILE, REFERENCE_FILE, SUITE_FILE
from r1plus_contract.suites.suite import Item, SuiteError, SuiteSampling, load_suite
from r1plus_contract.suites.suite_answers import (
    KEYWORDS,
    MAX_ANSWER,
    MAX_DEPTH,
    find_answer_problem,
    find_schema_problem,
)
from r1plus_contract.suites.suite_baseline import find_reference_result
from r1plus_contract.suites.suite_check import MOST_PROBLEMS, check, read_items
from r1plus_contract.suites.suite_files import (
    BASELINE_FILE,
    MAX_BYTES,
    SIGNATURE_FILE,
    SuiteFiles,
    key_id,
    read_signature,
)
from r1plus_contract.suites.suite_reference import RecordedAnswer, read_reference, write_reference
from support.golden_suites import BAD, baseline_of, files_of, with_item
from support.tables import for_each

SUITE = load_suite(files_of().header, files_of().items)


def problems(files: SuiteFiles) -> tuple[str, ...]:
    found = check(files)
    assert (found.suite is None) == bool(found.problems)
    return found.problems


def test_a_sound_suite_is_read() -> None:
    assert check(files_of()).suite == SUITE
    assert SUITE.strata() == {"loans": 4, "savings": 4}


@pytest.mark.parametrize(("make", "words"), BAD.values(), ids=BAD)
def test_a_bad_suite_is_refused_in_words_of_its_own(make: Callable[[], SuiteFiles], words: str) -> None:
    assert words in "; ".join(problems(make()))


def test_every_problem_is_told_at_once() -> None:
    spoilt = files_of(
        (
            Item("b", "loans", "q", "numeric", ("x",)),
            Item("a", "loans", "", "exact", ()),
            Item("a", "loans", "q", "judge", ("x",)),
        ),
        text='{"answers":["x"],"id":"b","prompt":"q","scorer":"numeric","stratum":"loans"}\n'
        "not json\n\n"
        '{"answers":[],"id":"a","prompt":" ","scorer":"exact","stratum":"loans"}\n'
        '{"answers":["x"],"id":"a","prompt":"q","scorer":"judge","stratum":"loans"}\n',
        sampling=SuiteSampling(max_new_tokens=0, temperature=-1, top_p=0, repetition_penalty=0),
        version="9",
    )
    told = problems(spoilt)
    for words in (
        "suite.json: sampling.maxNewTokens: 0 is not between 1 and 4096",
        "suite.json: sampling.temperature: -1",
        "suite.json: sampling.topP: 0",
        "suite.json: sampling.repetitionPenalty: 0",
        "suite.json: scorerVersion: the suite was built for scorers of version 9, this release has",
        "items.jsonl:1: answers[0]: 'x' for scorer numeric",
        "items.jsonl:2: Item: not JSON",
        "items.jsonl:4: prompt: is empty",
        "items.jsonl:4: answers: is empty",
        "items.jsonl:5: id: 'a' is already in line 4",
        "items.jsonl:5: answers[0]: 'x' for scorer judge: there is no scorer 'judge'; there are exact, contains",
    ):
        assert [line for line in told if words in line], (words, told)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        pytest.param(files_of(count=9), "suite.json: items: promises 9, items.jsonl has 8", id="another number of items"),
        pytest.param(files_of(text="".join(f"{line}\n" for line in reversed(files_of().items.splitlines()))), "is out of order", id="items that are not sorted"),
        pytest.param(replace(files_of(), header="{}"), "suite.json: SuiteHeader.name: missing", id="a header without fields"),
        pytest.param(replace(files_of(), items=""), "items.jsonl: is missing or empty", id="no items file"),
        pytest.param(with_item(stratum=""), "items.jsonl:1: stratum: is empty", id="no stratum"),
        pytest.param(replace(files_of(), reference="\n"), "reference.jsonl: is empty", id="a reference that holds nothing"),
        pytest.param(replace(files_of(), reference="{}"), "reference.jsonl:1: RecordedAnswer.item: missing", id="a reference that is none"),
        pytest.param(replace(files_of(), baseline="[]"), "baseline.json: BaselineFigures: expected an object", id="a baseline that is none"),
    ],
)  # fmt: skip
def test_other_bad_suites(files: SuiteFiles, words: str) -> None:
    assert [line for line in problems(files) if words in line], problems(files)


@pytest.mark.parametrize("name", MAX_BYTES)
def test_every_file_has_its_limit_to_the_byte(name: str) -> None:
    limit = MAX_BYTES[name]
    at, beyond = (SuiteFiles.of({name: "é" * (size // 2) + "e" * (size % 2)}) for size in (limit, limit + 1))
    assert at.find_oversized() == []
    assert beyond.find_oversized() == [
        f"{name}: {limit + 1} bytes, at most {limit} are allowed: a ConfigMap holds no more; make it smaller"
    ]


def test_all_files_at_their_limits_fit_a_configmap() -> None:
    assert sum(MAX_BYTES.values()) < 1024 * 1024


@pytest.mark.parametrize(
    ("scorer", "answer", "words"),
    [
        pytest.param("exact", "Paris", "", id="a word"),
        pytest.param("exact", "...", "nothing but punctuation", id="nothing but punctuation"),
        pytest.param("contains", "**", "nothing but punctuation", id="nothing but emphasis"),
        pytest.param("choice", "", "nothing but punctuation", id="nothing"),
        pytest.param("exact", "x" * MAX_ANSWER, "", id="an answer of the greatest length"),
        pytest.param("exact", "x" * (MAX_ANSWER + 1), f"{MAX_ANSWER + 1} characters, at most {MAX_ANSWER}", id="one longer"),
        pytest.param("numeric", "-1,000.5", "", id="a grouped number"),
        pytest.param("numeric", "\u22123", "", id="a typographic minus"),
        pytest.param("numeric", "nan", "not a number", id="NaN"),
        pytest.param("numeric", "Infinity", "not a number", id="infinity"),
        pytest.param("numeric", "1e300", "", id="the greatest power of ten"),
        pytest.param("numeric", "1e301", "not a number", id="one greater"),
        pytest.param("near", "42 +- 0.5", "", id="a tolerance"),
        pytest.param("near", "42±1%", "", id="a tolerance in percent"),
        pytest.param("near", "42", "write 42 +- 0.5", id="no tolerance"),
        pytest.param("near", "42 +- -1", "write 42 +- 0.5", id="a tolerance below nothing"),
        pytest.param("near", "42 +- 0", "", id="a tolerance of nothing"),
        pytest.param("near", " " * 4000, "write 42 +- 0.5", id="a long nothing"),
        pytest.param("json", "{}", "", id="a schema that takes everything"),
        pytest.param("json", "{", "not a JSON schema", id="a schema that is no JSON"),
        pytest.param("json", "[" * 3000, "not a JSON schema", id="a schema that no parser takes"),
        pytest.param("json", '{"minimum": NaN}', "NaN is not JSON", id="a schema with NaN"),
        pytest.param("json", "[]", "neither an object", id="a schema that is a list"),
        pytest.param("json", '{"properties": {"a": {"items": {"pattern": "x"}}}}', "schema.properties.a.items.pattern: regular", id="a regular expression deep inside"),
        pytest.param("json", '{"anyOf": [{}, {"patternProperties": {}}]}', "schema.anyOf[1].patternProperties: regular", id="a regular expression for names"),
        pytest.param("json", '{"$ref": "#"}', "schema.$ref: references are not supported", id="a reference"),
        pytest.param("json", '{"typ": "string"}', "schema.typ: unknown or not supported; known: $schema, title", id="a misspelt word"),
    ],
)  # fmt: skip
def test_the_form_that_an_answer_must_have(scorer: str, answer: str, words: str) -> None:
    found = find_answer_problem(scorer, answer)
    assert words in found if words else found == ""


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("$schema", "https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#"),
        ("title", "t", 1),
        ("description", "t", None),
        ("type", ["string", "null"], "sting"),
        ("type", "integer", ["string", "string"]),
        ("type", "null", []),
        ("type", "null", [{}]),
        ("enum", [1, "a"], []),
        ("const", None, ...),
        ("properties", {"a": True}, {"a": 1}),
        ("properties", {}, []),
        ("required", ["a"], ["a", "a"]),
        ("required", [], [1]),
        ("additionalProperties", False, 0),
        ("minProperties", 0, -1),
        ("maxProperties", 1, 1.5),
        ("items", {}, []),
        ("prefixItems", [{}], []),
        ("minItems", 2, True),
        ("maxItems", 2, "2"),
        ("uniqueItems", True, 1),
        ("minLength", 3, None),
        ("maxLength", 3, [3]),
        ("minimum", -1.5, "1"),
        ("maximum", 10**400, True),
        ("exclusiveMinimum", 0, None),
        ("exclusiveMaximum", 0, float("inf")),
        ("multipleOf", 0.1, 0),
        ("allOf", [{}], {}),
        ("anyOf", [True], [1]),
        ("oneOf", [{"not": {}}], [{"not": 1}]),
        ("not", {}, None),
    ],
)  # fmt: skip
def test_every_word_of_a_schema_is_checked(key: str, good: object, bad: object) -> None:
    assert find_schema_problem({key: good}) == ""
    if bad is not ...:
        assert find_schema_problem({key: bad}).startswith(f"schema.{key}")


def test_a_schema_is_at_most_so_deep() -> None:
    def nested(levels: int) -> object:
        return {"not": nested(levels - 1)} if levels else {}

    assert find_schema_problem(nested(MAX_DEPTH)) == ""
    assert f"nested deeper than {MAX_DEPTH}" in find_schema_problem(nested(MAX_DEPTH + 1))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["a", "string", "object", "integer"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", *KEYWORDS]), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(list(KEYWORDS)), VALUES, max_size=4))
def test_whatever_is_taken_is_a_schema_to_the_library_as_well(schema: dict[str, object]) -> None:
    if not find_answer_problem("json", json.dumps(schema)):
        Draft202012Validator.check_schema(schema)


def test_a_file_of_bad_lines_has_a_thousand_problems_at_most() -> None:
    """The operator reads what a tenant's people wrote: of 450,000 lines each problem would take 150 bytes and its time."""
    _, problems = read_items("x\n" * 450_000, "items.jsonl")
    assert len(problems) == MOST_PROBLEMS + 1
    assert problems[-1].startswith("items.jsonl:1001: is not read")


def test_an_item_of_bad_answers_has_a_thousand_problems_at_most() -> None:
    answers = ",".join(['""'] * 200_000)
    line = f'{{"id":"a","stratum":"s","prompt":"q","scorer":"exact","answers":[{answers}]}}'
    items, problems = read_items(line, "items.jsonl")
    assert (len(items), len(problems)) == (1, MOST_PROBLEMS)


# -- Baseline ----------------------------------------------------------------------------------------------------------


def test_the_baseline_is_the_lowest_condition_of_the_reference_engine() -> None:
    files = baseline_of(files_of(), ("batch 16", "loans", 0, 4), ("batch 16", "savings", 1, 4), ("batch 1", "loans", 2, 4), ("batch 1", "savings", 0, 4))  # fmt: skip
    assert check(files).suite == SUITE
    found = find_reference_result(files.baseline, SUITE.header)
    assert found is not None
    lost = {"loans": (2, 4), "savings": (0, 4)}
    assert (found.condition, found.correct, found.count_lost_by_stratum()) == ("batch 1", 6, lost)


def test_figures_of_another_engine_are_no_baseline() -> None:
    files = baseline_of(files_of(), *FOUR)
    other = replace(files, baseline=files.baseline.replace("bank-f16", "bank-q4"))
    assert check(other).suite == SUITE
    assert find_reference_result(other.baseline, SUITE.header) is None


FOUR = (("batch 16", "loans", 0, 4), ("batch 16", "savings", 1, 4))


def test_counts_of_thousands_of_digits_are_a_problem_and_no_error() -> None:
    """Python reads no such integer. The operator's pass would fail, and with it the deployment's watch and rollback."""
    files = baseline_of(files_of(), *FOUR)
    figures = json.loads(files.baseline)
    figures["baseline"][0]["strata"]["loans"] = f"{'9' * 5000}/{'9' * 5000}"
    checked = check(replace(files, baseline=json.dumps(figures)))
    assert checked.suite is None
    assert [problem for problem in checked.problems if "strata.loans" in problem and "is not CORRECT/ITEMS" in problem]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        pytest.param(replace(files_of(), baseline=baseline_of(with_item(prompt="other"), *FOUR).baseline), "baseline.json: suite: measured on", id="a baseline of another suite"),
        pytest.param(baseline_of(files_of(), *FOUR[:1]), "baseline.json: batch 16: 4 items, the suite has 8", id="a baseline of half the suite"),
        pytest.param(baseline_of(files_of(), *FOUR, items=9), "8 of 9 right, but by stratum 7 of 8", id="figures that contradict each other"),
        pytest.param(baseline_of(files_of(), ("b", "loans", -1, 4), ("b", "savings", 1, 4)), "strata.loans: '5/4' is not CORRECT/ITEMS", id="more right than there are"),
    ],
)  # fmt: skip
def test_a_baseline_that_is_not_this_suites_is_refused(files: SuiteFiles, words: str) -> None:
    assert [line for line in problems(files) if words in line], problems(files)


# -- Reference ---------------------------------------------------------------------------------------------------------

RECORDED = RecordedAnswer("loans-0", "answer 0\u2028", "stop", OutcomeLabel.CORRECT)


def test_recorded_answers_read_back_whatever_they_hold() -> None:
    assert read_reference(write_reference((RECORDED, RECORDED)), SUITE) == (RECORDED, RECORDED)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"item": "loans-9"}, "reference.jsonl:2: item: 'loans-9' is not in the suite"),
        ({"score": "unscorable"}, "reference.jsonl:2: score: 'unscorable' is neither correct nor incorrect"),
    ],
)
def test_a_record_that_says_nothing_is_refused(changes: dict[str, str], words: str) -> None:
    with pytest.raises(SuiteError, match=words):
        read_reference(write_reference((RECORDED, replace(RECORDED, **changes))), SUITE)


# -- Files and seal ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [SUITE_FILE, ITEMS_FILE, REFERENCE_FILE, BASELINE_FILE])
def test_a_signature_covers_every_file(name: str) -> None:
    files = files_of()
    other = SuiteFiles.of({**files.texts(), name: files.texts().get(name, "") + " "})
    assert other.build_signed_bytes() != files.build_signed_bytes()
    assert other.digest() != files.digest()


def test_a_signature_does_not_cover_itself_nor_what_is_no_file_of_a_suite() -> None:
    files = files_of()
    assert (
        SuiteFiles.of({**files.texts(), SIGNATURE_FILE: "x", "README.md": "y"}).build_signed_bytes()
        == files.build_signed_bytes()
    )


def test_one_file_cannot_stand_for_another() -> None:
    files = files_of()
    assert replace(files, reference="x").build_signed_bytes() != replace(files, baseline="x").build_signed_bytes()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "suite.sig: SuiteSignature: not JSON"),
        ('{"publicKey": "x", "signature": "y", "algorithm": "RSA"}', "suite.sig: algorithm: 'RSA' is not Ed25519"),
        ('{"publicKey": "x", "signature": "y"}', "suite.sig: publicKey: 'x' is not 32 bytes in base64"),
        (f'{{"publicKey": "{"A" * 43}=", "signature": "{"A" * 44}"}}', "suite.sig: signature: .* is not 64 bytes"),
        (f'{{"publicKey": "{"A" * 42}B=", "signature": ""}}', "suite.sig: publicKey: .* is not 32 bytes"),
    ],
)
def test_a_signature_that_is_none_names_its_field(text: str, words: str) -> None:
    with pytest.raises(SuiteError, match=words):
        read_signature(text)


@for_each("public_key, name", {
    "a key: the beginning of its sha256": ("A" * 43 + "=", "66687aadf862bd77"),
    "one byte less": ("A" * 42 + "==", "no key"),
    "no base64": ("a key", "no key"),
    "none": ("", "no key"),
})  # fmt: skip
def test_a_key_has_a_short_name_for_people(public_key: str, name: str) -> None:
    assert key_id(public_key) == name
