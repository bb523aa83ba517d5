"""The curator keeps what stays right under every condition and shapes it into a suite; the engine is a fake."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from r1plus_contract.suites.suite import Item, SuiteSampling
from r1plus_contract.suites.suite_baseline import Measurement
from r1plus_monitoring.curate.asking import NATIVE, AskingCondition, CandidateAnswer, RecordedAsker, shuffle
from r1plus_monitoring.curate.candidates import FAMILIES, build_candidates
from r1plus_monitoring.curate.code_candidates import list_expressions
from r1plus_monitoring.curate.pipeline import (
    BASELINE_CONDITIONS,
    FRESH_CONDITIONS,
    SELECTION_CONDITIONS,
    SERVED_CONDITIONS,
    CurationStep,
    curate,
    fresh_conditions,
    select,
    selection_conditions,
)
from r1plus_monitoring.curate.selection import (
    NotEnoughItemsError,
    Shape,
    choose,
    count_strata,
    select_correct,
    split_evenly,
)
from r1plus_monitoring.scoring.scorers import SCORERS

SHAPE = Shape(size=12, min_size=8, min_strata=2, min_per_stratum=3)


def items(**strata: int) -> tuple[Item, ...]:
    return tuple(
        Item(id=f"{name}-{n:02}", stratum=name, prompt=f"{name} {n}?", scorer="contains", answers=("yes",))
        for name, count in strata.items()
        for n in range(count)
    )


class FakeEngine:
    """Right about everything but the ids that a condition is told to lose."""

    def __init__(self, lost: Mapping[AskingCondition, set[str]] | None = None) -> None:
        self.lost = lost or {}
        self.asked: list[tuple[AskingCondition, int]] = []

    def ask(self, items: Sequence[Item], condition: AskingCondition) -> Mapping[str, CandidateAnswer]:
        self.asked.append((condition, len(items)))
        wrong = self.lost.get(condition, set())
        return {item.id: CandidateAnswer("no" if item.id in wrong else "yes, it is", "stop", 3) for item in items}


def quiet(_line: str) -> None:
    pass


@pytest.mark.parametrize("condition", SELECTION_CONDITIONS, ids=lambda condition: f"lost under {condition.name}")
def test_an_item_lost_under_any_one_condition_is_not_in_the_suite(condition: AskingCondition) -> None:
    engine = FakeEngine({condition: {"a-00", "b-03"}})
    made = curate("fake", items(a=7, b=7), engine, SHAPE, seed=1, progress=quiet)
    assert {item.id for item in made.items} == {item.id for item in items(a=7, b=7)} - {"a-00", "b-03"}


@pytest.mark.parametrize("condition", BASELINE_CONDITIONS, ids=lambda condition: f"lost under {condition.name}")
def test_the_baseline_reports_a_lost_item_and_keeps_it(condition: AskingCondition) -> None:
    made = curate("fake", items(a=7, b=7), FakeEngine({condition: {"a-00"}}), SHAPE, seed=1, progress=quiet)
    assert "a-00" in {item.id for item in made.items}
    assert [one.lost for one in made.baseline if one.condition == condition.name] == [("a-00",)]


def test_only_the_first_condition_sees_every_candidate() -> None:
    engine = FakeEngine()
    curate("fake", items(a=50, b=50), engine, SHAPE, seed=1, progress=quiet)
    sizes = [size for _, size in engine.asked]
    assert sizes[0] == 100
    assert max(sizes[1:]) == 16


def test_the_baseline_is_asked_in_orders_that_selected_nothing() -> None:
    engine = FakeEngine()
    curate("fake", items(a=7, b=7), engine, SHAPE, seed=1, progress=quiet)
    selected, measured = (
        {condition.order for condition, _ in engine.asked if condition in conditions}
        for conditions in (SELECTION_CONDITIONS, BASELINE_CONDITIONS)
    )
    assert selected
    assert measured
    assert not selected & measured


@pytest.mark.parametrize(("batch", "batches"), [(16, [16, 8, 16, 1]), (2, [2, 1, 2, 1]), (1, [1, 1, 1, 1])])
def test_a_served_engine_is_asked_at_its_batch_twice_half_full_and_alone(batch: int, batches: list[int]) -> None:
    asked = selection_conditions(batch, NATIVE)
    assert [condition.batch for condition in asked] == batches
    assert len({condition.order for condition in asked}) == 4


@pytest.mark.parametrize(("batch", "batches"), [(16, [16, 5, 1]), (2, [2, 1]), (1, [1])])
def test_a_baseline_is_asked_in_orders_that_nothing_measured_has_used(batch: int, batches: list[int]) -> None:
    measured: list[Measurement] = []
    for _ in range(3):
        asked = fresh_conditions(batch, measured, NATIVE)
        assert [condition.batch for condition in asked] == batches
        assert not {condition.name for condition in asked} & {one.condition for one in measured}
        assert not {c.order for c in asked} & {
            c.order
            for c in (
                *SELECTION_CONDITIONS,
                *BASELINE_CONDITIONS,
                *SERVED_CONDITIONS,
                *FRESH_CONDITIONS,
                *selection_conditions(batch, NATIVE),
            )
        }
        measured += [Measurement("e", condition.name, 1, 1, {}, ()) for condition in asked]


def test_an_item_must_be_right_in_every_engine_that_is_asked() -> None:
    """The shipped conversions of one model: each is a step more."""
    condition = AskingCondition(batch=4, order=1)
    steps = [CurationStep("e", FakeEngine({condition: lost}), condition) for lost in ({"a-00"}, {"b-03"})]
    made = select(items(a=7, b=7), steps, SHAPE, seed=1, progress=quiet)
    assert not {item.id for item in made.items} & {"a-00", "b-03"}
    assert set(made.answers) == {item.id for item in made.items}


def test_too_few_items_are_refused_with_the_figures_and_nothing_is_asked_afterwards() -> None:
    engine = FakeEngine()
    with pytest.raises(NotEnoughItemsError, match="12 items in 1 strata stayed right; a suite needs 8 in 2"):
        curate("fake", items(a=30), engine, SHAPE, seed=1, progress=quiet)
    assert len(engine.asked) == 1


def test_a_baseline_that_is_measured_later_is_not_asked_for() -> None:
    engine = FakeEngine()
    made = curate("fake", items(a=7, b=7), engine, SHAPE, seed=1, progress=quiet, baseline_conditions=())
    assert made.baseline == ()
    assert len(engine.asked) == len(SELECTION_CONDITIONS)


@pytest.mark.parametrize(
    ("available", "size", "expected"),
    [
        pytest.param({"a": 9, "b": 9}, 6, {"a": 3, "b": 3}, id="large strata share evenly"),
        pytest.param({"a": 1, "b": 9}, 6, {"a": 1, "b": 5}, id="what a small stratum cannot fill goes to the others"),
        pytest.param({"a": 2, "b": 2}, 9, {"a": 2, "b": 2}, id="no more than there is"),
        pytest.param({}, 9, {}, id="nothing from nothing"),
    ],
)
def test_shares(available: dict[str, int], size: int, expected: dict[str, int]) -> None:
    assert split_evenly(available, size) == expected


def test_a_stratum_too_small_to_say_anything_is_left_out() -> None:
    assert count_strata(choose(items(a=2, b=5, c=5), SHAPE, seed=1)) == {"b": 5, "c": 5}


def test_the_choice_depends_on_the_seed_alone() -> None:
    given = items(a=20, b=20)
    assert choose(given, SHAPE, 1) == choose(tuple(reversed(given)), SHAPE, 1)
    assert choose(given, SHAPE, 1) != choose(given, SHAPE, 2)


def test_the_order_of_asking_depends_on_the_seed_alone() -> None:
    given = items(a=20)
    assert shuffle(given, 1) == shuffle(tuple(reversed(given)), 1)
    assert shuffle(given, 1) != shuffle(given, 2)


@pytest.mark.parametrize(
    ("answers", "kept"),
    [
        pytest.param({"a-00": CandidateAnswer("yes", "stop", 1)}, 1, id="a right answer is kept"),
        pytest.param({"a-00": CandidateAnswer("yes", "length", 1)}, 0, id="an answer that touches the cut is not"),
        pytest.param({"a-00": CandidateAnswer("", "stop", 0)}, 0, id="an empty answer is not"),
        pytest.param({}, 0, id="no answer is not"),
    ],
)
def test_right(answers: dict[str, CandidateAnswer], kept: int) -> None:
    assert len(select_correct(items(a=1), answers)) == kept


@pytest.mark.parametrize("family, strata", [("smollm2", 6), ("qwen", 4)])
def test_candidates_are_many_unique_and_each_accepts_its_own_answers(family: str, strata: int) -> None:
    made = build_candidates(family)
    assert len(made) >= 700
    assert len(count_strata(made)) == strata
    assert min(count_strata(made).values()) >= 200
    assert len({item.id for item in made}) == len({item.prompt for item in made}) == len(made)
    assert all(item.answers and all(item.answers) and item.scorer in SCORERS for item in made)
    assert select_correct(made, {item.id: CandidateAnswer(item.answers[0], "stop", 1) for item in made}) == made


@pytest.mark.parametrize("family", FAMILIES)
def test_no_question_gives_its_answer_away(family: str) -> None:
    """Repeating the question is no answer; but for copying and spelling, where the prompt holds what is asked for."""
    given_away = {"copying", "spelling"}
    asked = [item for item in build_candidates(family) if item.stratum not in given_away]
    assert len(asked) > 100
    told = select_correct(asked, {item.id: CandidateAnswer(item.prompt, "stop", 1) for item in asked})
    assert [item.id for item in told] == []


def test_the_answers_about_code_are_what_python_gives() -> None:
    expressions = list(list_expressions())
    assert len(expressions) > 50
    for text, result in expressions:
        assert str(eval(text, {})) == result, text


def test_a_curation_that_was_interrupted_goes_on_with_the_recorded_answers(tmp_path: Path) -> None:
    engine, folder = tmp_path / "engine", tmp_path / "answers"
    engine.mkdir()
    (engine / "openvino_model.bin").write_bytes(b"weights")
    condition, sampling = AskingCondition(batch=2, order=1), SuiteSampling()
    fake = FakeEngine()
    first = RecordedAsker(engine, sampling, folder, fake).ask(items(a=3), condition)
    assert RecordedAsker(engine, sampling, folder, fake).ask(items(a=3), condition) == first
    assert fake.asked == [(condition, 3)]


def change_items(engine: Path) -> tuple[tuple[Item, ...], AskingCondition, SuiteSampling]:
    return items(a=4), AskingCondition(batch=2, order=1), SuiteSampling()


def change_sampling(engine: Path) -> tuple[tuple[Item, ...], AskingCondition, SuiteSampling]:
    return items(a=3), AskingCondition(batch=2, order=1), SuiteSampling(max_new_tokens=7)


def change_engine(engine: Path) -> tuple[tuple[Item, ...], AskingCondition, SuiteSampling]:
    (engine / "openvino_model.bin").write_bytes(b"other weights")
    return items(a=3), AskingCondition(batch=2, order=1), SuiteSampling()


@pytest.mark.parametrize("change", [change_items, change_sampling, change_engine], ids=lambda one: one.__name__)
def test_answers_to_something_else_are_asked_again(
    tmp_path: Path, change: Callable[[Path], tuple[tuple[Item, ...], AskingCondition, SuiteSampling]]
) -> None:
    engine, folder, fake = tmp_path / "engine", tmp_path / "answers", FakeEngine()
    engine.mkdir()
    (engine / "openvino_model.bin").write_bytes(b"weights")
    RecordedAsker(engine, SuiteSampling(), folder, fake).ask(items(a=3), AskingCondition(batch=2, order=1))
    candidates, condition, sampling = change(engine)
    RecordedAsker(engine, sampling, folder, fake).ask(candidates, condition)
    assert len(fake.asked) == 2
