"""Questions of `make bench NAME=reward`: halves that share nothing, each with an answer that can be found."""

import re
from dataclasses import replace
from fractions import Fraction
from itertools import chain

import pytest

from bench.reward import questions
from bench.reward.questions import HELD_OUT, TRAINING, Half, generate_questions, split_questions
from r1plus_assistant.calculation.math_plan import plan_math
from r1plus_model.training.reward_tasks import check_disjoint
from r1plus_training.translation_reward import build_translation_task, evaluate_translation
from support.tables import for_each

COUNTS = (2 * len(TRAINING.templates), 2 * len(HELD_OUT.templates))


def test_each_question_is_translated_and_its_own_expression_is_right() -> None:
    for question in chain(*split_questions(*COUNTS, seed=3)):
        task = plan_math(question.text, can_translate=True).task
        assert task is not None, question
        stand_ins = {one.number: text for one, text in zip(task.quantities, task.stand_ins, strict=True)}
        expression = re.sub(r"\d+%?", lambda match: stand_ins[match[0]], question.expression)  # noqa: B023
        assert evaluate_translation(task, f" {expression}\n") == question.answer, question
        assert question.answer > 0


def test_the_halves_share_no_question_with_other_numbers() -> None:
    halves = [
        [build_translation_task(one.text, one.answer) for one in half] for half in split_questions(*COUNTS, seed=3)
    ]
    check_disjoint(halves[0], halves[1])


def test_a_template_is_asked_as_often_as_the_others_and_no_question_twice() -> None:
    made = generate_questions(TRAINING, COUNTS[0], seed=5)

    assert [one.template for one in made] == [*range(len(TRAINING.templates))] * 2
    assert len({one.text for one in made}) == len(made)
    assert made != generate_questions(TRAINING, COUNTS[0], seed=6)


SHARED: dict[str, tuple[str, Half]] = {
    "templates": ("templates", replace(HELD_OUT, templates=(*HELD_OUT.templates, TRAINING.templates[0]))),
    "names": ("names", replace(HELD_OUT, names=(*HELD_OUT.names, TRAINING.names[0]))),
    "goods": ("goods", replace(HELD_OUT, goods=(*HELD_OUT.goods, TRAINING.goods[0]))),
    "numbers": ("numbers", replace(HELD_OUT, parity=TRAINING.parity)),
}


@for_each("what, half", SHARED)
def test_halves_are_refused_that_share(monkeypatch: pytest.MonkeyPatch, what: str, half: Half) -> None:
    monkeypatch.setattr(questions, "HELD_OUT", half)
    with pytest.raises(ValueError, match=f"{what}: .* are in both halves; change questions.py"):
        split_questions(*COUNTS, seed=3)


def test_the_reward_is_of_the_value_that_the_calculator_finds() -> None:
    task = build_translation_task("Of 14 plums 6 were eaten and 4 sold. How many plums are left?", Fraction(4))
    # 4, 6 and 14 are read as 5, 18 and 72: the model sees no other numbers.
    rewards = {
        text: task.is_right(text) for text in (" 72 - 18 - 5\n", " 72 - 5 - 18\n", " 72 - 18 + 5\n", " 72 - 18\n")
    }

    assert rewards == {" 72 - 18 - 5\n": True, " 72 - 5 - 18\n": True, " 72 - 18 + 5\n": False, " 72 - 18\n": False}
    assert not task.is_right("14 - 6 - 4")
    assert not task.is_right("\n")


def test_an_answer_that_is_a_fraction_is_compared_exactly() -> None:
    text = "12 cakes are shared equally by 9 guests. How many cakes does each guest get?"
    assert build_translation_task(text, Fraction(4, 3)).is_right(" 40 / 8\n")
    assert not build_translation_task(text, Fraction("1.333333333333333")).is_right(" 40 / 8\n")
