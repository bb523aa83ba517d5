"""The reward of `math_mode`'s translation: a question in prose, whose expression the calculator finds right or not.

The prompt, the grammar and the reading of what the model writes are those of the gateway.
"""

from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

from r1plus_assistant.calculation.math_plan import plan_math
from r1plus_assistant.calculation.translation import TranslationError, TranslationTask, read_translation
from r1plus_calculator.evaluation.evaluator import calculate
from r1plus_contract.calculator import DEFAULT_DIGITS
from r1plus_contract.calculator_grammar.errors import CalculatorError

if TYPE_CHECKING:
    from r1plus_model.training.reward_tasks import RewardTask


def build_translation_task(question: str, answer: Fraction) -> "RewardTask":
    """Return the task of a question that `math_mode` has translated.

    Raises:
        ValueError: it does not, and why.
    """
    from r1plus_model.training.reward_tasks import RewardTask

    plan = plan_math(question, can_translate=True)
    if plan.skip is not None:
        raise ValueError(f"prompt: math_mode does not translate it: {plan.skip.message}")
    if plan.task is None:
        (first, *_) = plan.expressions
        raise ValueError(
            f"prompt: math_mode calculates {first.expression:.60} without a model; give questions in prose"
        )
    return RewardTask(plan.task.prompt, plan.task.grammar, answer, partial(evaluate_translation, plan.task))


def evaluate_translation(task: TranslationTask, text: str) -> Fraction | None:
    """Return the exact value of what a model has written; None if the calculator confirms none."""
    try:
        done = calculate(read_translation(task, text).expression, DEFAULT_DIGITS)
        return Fraction(done.exact) if done.verified and done.exact is not None else None
    except (TranslationError, CalculatorError, ValueError, ZeroDivisionError):
        return None
