"""Which of the public problems are asked: those whose answer is a whole number, since others are rounded there."""

from fractions import Fraction

from bench.math.public import list_problems


def test_a_problem_with_a_whole_number_is_asked() -> None:
    examples = [
        {"input": " a hall has 3 rows of 4 seats . how many ? ", "target_scores": {"12": 1, "7": 0, "none": 0}},
        {"input": "what is 1 / 3 of 4 ?", "target_scores": {"1.33": 1, "3": 0}},
        {"input": "what remains ?", "target_scores": {"4": 0, "none of these": 1}},
    ]
    (question,) = list_problems(examples)
    assert (question.kind, question.text) == ("translation", "a hall has 3 rows of 4 seats . how many ?")
    assert question.answer == Fraction(12)
