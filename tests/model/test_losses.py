"""The loss of distillation, in 64 bits; and what is wrong with the loss of the original R1."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as functional

from r1plus_model.training.losses import (
    combine_losses,
    distillation_loss,
    hard_label_loss,
    soft_target_cross_entropy,
    top_distillation_loss,
)
from support.tables import for_each

pytestmark = pytest.mark.model
TOKENS, VOCABULARY, T = 7, 50, 3.0
ALL = torch.ones(TOKENS, dtype=torch.bool)


def make_logits(seed: int, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(TOKENS, VOCABULARY, generator=generator, dtype=torch.float64)


STUDENT, TEACHER = make_logits(0), make_logits(1, 2.0)


def differentiate(loss: Any, at: torch.Tensor) -> torch.Tensor:
    """Return the gradient of `loss` at the logits `at`."""
    variable = at.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(variable), variable)
    return gradient


def equal(left: torch.Tensor, right: torch.Tensor, within: float = 1e-12) -> bool:
    return bool((left - right).abs().max() <= within)


# The original loss.


def test_the_original_loss_of_equal_models_is_the_entropy_of_the_teacher_and_so_no_distance() -> None:
    probabilities = functional.softmax(TEACHER / T, -1)
    entropy = -(probabilities * probabilities.log()).sum(-1).mean()

    assert equal(soft_target_cross_entropy(TEACHER, TEACHER, T), T**2 * entropy)
    assert soft_target_cross_entropy(TEACHER, TEACHER, T) > 30
    assert equal(differentiate(lambda logits: soft_target_cross_entropy(logits, TEACHER, T), TEACHER), torch.zeros(()))


def test_the_original_loss_ranks_a_wrong_student_of_a_sure_teacher_before_a_perfect_one_of_an_unsure_teacher() -> None:
    sure, unsure = 20 * functional.one_hot(torch.arange(TOKENS), VOCABULARY).double(), torch.zeros_like(TEACHER)

    assert soft_target_cross_entropy(sure + STUDENT, sure, T) < soft_target_cross_entropy(unsure, unsure, T)


def test_the_original_loss_has_the_right_gradient_for_the_student() -> None:
    original = differentiate(lambda logits: soft_target_cross_entropy(logits, TEACHER, T), STUDENT)

    assert equal(original, differentiate(lambda logits: distillation_loss(logits, TEACHER, ALL, T), STUDENT), 1e-15)


def test_padding_changes_the_original_loss_and_not_ours() -> None:
    mask = torch.arange(TOKENS) < 4
    padded = STUDENT.clone()
    padded[~mask] = 100 * make_logits(5)[~mask]

    assert not equal(soft_target_cross_entropy(padded, TEACHER, T), soft_target_cross_entropy(STUDENT, TEACHER, T), 1.0)
    assert equal(distillation_loss(padded, TEACHER, mask, T), distillation_loss(STUDENT, TEACHER, mask, T))
    assert equal(distillation_loss(padded, TEACHER, mask, T), distillation_loss(STUDENT[:4], TEACHER[:4], ALL[:4], T))


def test_the_teacher_gets_a_gradient_of_the_original_loss_and_none_of_ours() -> None:
    assert differentiate(lambda logits: soft_target_cross_entropy(STUDENT, logits, T), TEACHER).abs().max() > 1e-3

    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    distillation_loss(student, teacher, ALL, T).backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_the_original_loss_accepts_another_vocabulary_and_ours_refuses_it() -> None:
    other = TEACHER[:, :1]

    assert soft_target_cross_entropy(STUDENT, other, T).isfinite()
    with pytest.raises(
        ValueError, match=r"vocabulary: the student has 50 tokens and the teacher 1: .* share a tokenizer"
    ):
        distillation_loss(STUDENT, other, ALL, T)


# Ours.


def test_the_loss_of_equal_models_is_nothing_and_so_is_its_gradient() -> None:
    assert distillation_loss(TEACHER, TEACHER, ALL, T) == 0
    assert differentiate(lambda logits: distillation_loss(logits, TEACHER, ALL, T), TEACHER).abs().max() < 1e-15


def test_the_loss_differs_from_the_original_by_the_entropy_of_the_teacher() -> None:
    difference = soft_target_cross_entropy(STUDENT, TEACHER, T) - distillation_loss(STUDENT, TEACHER, ALL, T)

    assert equal(difference, soft_target_cross_entropy(TEACHER, TEACHER, T))


def test_the_loss_is_that_of_torch_averaged_over_tokens_and_not_over_the_vocabulary() -> None:
    predictions, targets = functional.log_softmax(STUDENT / T, -1), functional.log_softmax(TEACHER / T, -1)
    loss = distillation_loss(STUDENT, TEACHER, ALL, T)

    by_token = functional.kl_div(predictions, targets, log_target=True, reduction="batchmean") * T**2
    with pytest.warns(UserWarning, match="divides the total loss by both the batch size and the support size"):
        by_element = functional.kl_div(predictions, targets, log_target=True, reduction="mean") * T**2
    assert equal(loss, by_token)
    assert equal(loss / by_element, torch.tensor(float(VOCABULARY)), 1e-9)


def test_the_gradient_has_its_closed_form() -> None:
    gradient = differentiate(lambda logits: distillation_loss(logits, TEACHER, ALL, T), STUDENT)

    assert equal(gradient, T * (functional.softmax(STUDENT / T, -1) - functional.softmax(TEACHER / T, -1)) / TOKENS)


@for_each("temperature, norm", {f"{t:g}": (t, n) for t, n in ((1.0, 0.17), (3.0, 0.13), (10.0, 0.12), (100.0, 0.12))})
def test_the_gradient_keeps_its_size_at_the_temperature(temperature: float, norm: float) -> None:
    torch.manual_seed(0)
    student, teacher = (torch.randn(7, 50, dtype=torch.float64), torch.randn(7, 50, dtype=torch.float64) * 2)
    gradient = differentiate(lambda logits: distillation_loss(logits, teacher, ALL, temperature), student)

    assert gradient.norm().item() == pytest.approx(norm, abs=0.006)


def test_at_a_high_temperature_it_matches_centred_logits() -> None:
    gradient = differentiate(lambda logits: distillation_loss(logits, TEACHER, ALL, 1e6), STUDENT)
    difference = STUDENT - TEACHER

    assert equal(gradient, (difference - difference.mean(-1, keepdim=True)) / (TOKENS * VOCABULARY), 1e-6)


def test_what_is_no_number_where_no_token_counts_changes_neither_value_nor_gradient() -> None:
    mask = torch.arange(TOKENS) < 4
    student, teacher = STUDENT.clone(), TEACHER.clone()
    student[~mask], teacher[~mask] = math.nan, math.inf
    gradient = differentiate(lambda logits: distillation_loss(logits, teacher, mask, T), student)

    assert equal(distillation_loss(student, teacher, mask, T), distillation_loss(STUDENT, TEACHER, mask, T))
    assert (gradient[~mask] == 0).all()
    assert gradient[mask].isfinite().all()


def test_a_batch_of_sequences_is_averaged_over_its_tokens() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    student, teacher = STUDENT[:6].view(2, 3, -1), TEACHER[:6].view(2, 3, -1)
    rows = torch.tensor([0, 1, 3])

    assert equal(
        distillation_loss(student, teacher, mask, T), distillation_loss(STUDENT[rows], TEACHER[rows], ALL[:3], T)
    )


REFUSED: dict[str, tuple[Any, ...]] = {
    "the teacher has another number of tokens": (
        STUDENT,
        TEACHER[:3],
        ALL,
        T,
        "shapes: student .7, 50., teacher .3, 50.",
    ),
    "the mask is of other tokens": (STUDENT, TEACHER, ALL[:3], T, "shapes: .* mask .3,."),
    "the temperature is 0": (STUDENT, TEACHER, ALL, 0.0, "temperature: 0.0 is not above 0"),
    "no token counts": (STUDENT, TEACHER, ~ALL, T, "mask: no token counts"),
}


@for_each("student, teacher, mask, temperature, message", REFUSED)
def test_the_loss_refuses_when(
    student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, temperature: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        distillation_loss(student, teacher, mask, temperature)


# Over what a cache has of the teacher.


def cut(teacher: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the teacher's most likely tokens and their log-probabilities."""
    top = functional.log_softmax(teacher / T, -1).topk(count, dim=-1)
    return top.indices, top.values


@for_each("count", {f"{count} tokens": count for count in (1, 8, 32, VOCABULARY)})
def test_a_part_of_the_teacher_never_gives_more_than_the_whole(count: int) -> None:
    part, whole = top_distillation_loss(STUDENT, *cut(TEACHER, count), T), distillation_loss(STUDENT, TEACHER, ALL, T)

    assert 0 < part <= whole + 1e-12
    assert top_distillation_loss(TEACHER, *cut(TEACHER, count), T).abs() < 1e-12


def test_all_tokens_of_the_teacher_give_the_whole_loss_and_gradient() -> None:
    tokens, values = cut(TEACHER, VOCABULARY)

    assert equal(top_distillation_loss(STUDENT, tokens, values, T), distillation_loss(STUDENT, TEACHER, ALL, T))
    assert equal(
        differentiate(lambda logits: top_distillation_loss(logits, tokens, values, T), STUDENT),
        differentiate(lambda logits: distillation_loss(logits, TEACHER, ALL, T), STUDENT),
    )


def test_more_tokens_of_the_teacher_bring_the_loss_nearer_to_the_whole() -> None:
    losses = [top_distillation_loss(STUDENT, *cut(TEACHER, count), T).item() for count in (1, 4, 16, 49)]

    assert losses == sorted(losses)


def test_a_student_that_gives_too_much_to_other_tokens_is_corrected_by_them_together() -> None:
    tokens, values = cut(TEACHER, 8)
    student = TEACHER.clone()
    student[:, :] += 5
    student.scatter_(-1, tokens, TEACHER.gather(-1, tokens))
    gradient = differentiate(lambda logits: top_distillation_loss(logits, tokens, values, T), student)

    others = torch.ones_like(gradient, dtype=torch.bool).scatter_(-1, tokens, False)
    assert (gradient[others] > 0).all()
    assert (gradient.gather(-1, tokens) < 0).all()


def test_a_student_that_is_sure_of_its_tokens_still_gives_the_others_more_than_nothing() -> None:
    """In 32 bits 1 - p is 0 for them; their loss would be above the whole one, and their gradient 0."""
    teacher, student = torch.zeros(1, VOCABULARY), torch.zeros(1, VOCABULARY)
    teacher[:, 0], student[:, 0] = 8.0, 40.0
    tokens, log_probabilities = torch.tensor([[0]]), teacher.log_softmax(-1)[:, :1]
    whole = distillation_loss(student, teacher, ALL[:1], 1.0)

    assert 0 < top_distillation_loss(student, tokens, log_probabilities, 1.0) <= whole + 1e-5
    gradient = differentiate(lambda logits: top_distillation_loss(logits, tokens, log_probabilities, 1.0), student)
    assert (gradient[:, 1:] < 0).all()


# Labels.


def test_labels_alone_are_cross_entropy_and_their_share_is_linear() -> None:
    labels = torch.arange(TOKENS)
    soft, hard = distillation_loss(STUDENT, TEACHER, ALL, T), hard_label_loss(STUDENT, labels)

    assert equal(hard, -functional.log_softmax(STUDENT, -1)[torch.arange(TOKENS), labels].mean())
    assert equal(combine_losses(soft, hard, 0.0), soft)
    assert equal(combine_losses(soft, hard, 1.0), hard)
    assert equal(combine_losses(soft, hard, 0.25), 0.75 * soft + 0.25 * hard)


@for_each("share", {"below 0": -0.1, "above 1": 1.1, "no number": math.nan})
def test_a_share_of_labels_is_refused_that_is(share: float) -> None:
    with pytest.raises(ValueError, match="hard_weight"):
        combine_losses(torch.tensor(1.0), torch.tensor(1.0), share)
