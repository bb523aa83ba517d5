"""Losses of distillation: what a student is trained to match, over the tokens that count.

`distillation_loss` is T² * KL(teacher || student) at temperature T (Hinton, Vinyals and Dean 2015, with the entropy of
the teacher taken off), so that 0 means equal distributions. `top_distillation_loss` is the same over the teacher's most
likely tokens and all others as one: what a cache of a teacher has. `soft_target_cross_entropy` is the loss of the
original R1, kept to show its faults; nothing trains with it.
"""

import torch
import torch.nn.functional as functional
from torch import Tensor


def soft_target_cross_entropy(student: Tensor, teacher: Tensor, temperature: float = 3.0) -> Tensor:
    """Return the original R1's loss of two tensors of logits (..., vocabulary): -T² * mean of sum(p_t * log p_s).

    Its gradient for the student is that of `distillation_loss`. But its value at equality is the teacher's entropy, so
    it is no distance; padding counts; the teacher gets a gradient; a vocabulary of 1 is accepted for any other.
    """
    log_probabilities = functional.log_softmax(student / temperature, dim=-1)
    targets = functional.softmax(teacher / temperature, dim=-1)
    return -torch.mean(torch.sum(targets * log_probabilities, dim=-1)) * temperature**2


def distillation_loss(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float = 3.0) -> Tensor:
    """Return T² * KL(teacher || student), the mean over the tokens that `mask` has.

    Args:
        student: logits, (..., vocabulary).
        teacher: logits of the same shape. It gets no gradient.
        mask: bool, (...): which tokens count. Logits of the others may be anything, also no numbers.
        temperature: above 0; both distributions are softened by it. T² keeps the gradient's size.

    Raises:
        ValueError: shapes differ, no token counts, or the temperature is not above 0.
    """
    _check(student, teacher, mask, temperature)
    targets = functional.log_softmax(teacher.detach()[mask] / temperature, dim=-1)
    predictions = functional.log_softmax(student[mask] / temperature, dim=-1)
    return (targets.exp() * (targets - predictions)).sum(-1).mean() * temperature**2


def top_distillation_loss(
    student: Tensor, tokens: Tensor, log_probabilities: Tensor, temperature: float = 3.0
) -> Tensor:
    """Return T² * KL over the teacher's most likely tokens and one outcome more, which is any other token.

    It is never above the KL over all tokens, and equal to it if `tokens` are all of them.

    Args:
        student: logits, (N, vocabulary), of tokens that count.
        tokens: ids of the teacher's most likely tokens, (N, K).
        log_probabilities: theirs at this temperature, among the whole vocabulary, (N, K).
        temperature: that of the log-probabilities.
    """
    targets = log_probabilities.detach()
    log_probabilities = functional.log_softmax(student / temperature, dim=-1)
    predictions = log_probabilities.gather(-1, tokens)
    top = (targets.exp() * (targets - predictions)).sum(-1)
    if tokens.shape[-1] == student.shape[-1]:
        return top.mean() * temperature**2
    # Summed, not 1 - the others: of a student that is sure of its tokens that is 0, far from what it gives the rest.
    others = log_probabilities.scatter(-1, tokens, float("-inf")).logsumexp(-1)
    rest_target = _rest(targets)
    rest = rest_target * (rest_target.log() - others)
    return (top + rest).mean() * temperature**2


def hard_label_loss(student: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of logits (N, vocabulary) with the tokens that the text has, (N,), in nats."""
    return functional.cross_entropy(student, labels)


def combine_losses(soft: Tensor, hard: Tensor, hard_weight: float) -> Tensor:
    """Return (1 - w) * soft + w * hard. Raise ValueError unless w is from 0 to 1."""
    if not 0 <= hard_weight <= 1:
        raise ValueError(f"hard_weight: {hard_weight} is not from 0 to 1")
    return (1 - hard_weight) * soft + hard_weight * hard


def _rest(log_probabilities: Tensor) -> Tensor:
    """Return the probability of all other tokens, at least the smallest number, (N,)."""
    return (1 - log_probabilities.exp().sum(-1)).clamp(min=torch.finfo(log_probabilities.dtype).tiny)


def _check(student: Tensor, teacher: Tensor, mask: Tensor, temperature: float) -> None:
    if student.shape[-1] != teacher.shape[-1]:
        raise ValueError(
            f"vocabulary: the student has {student.shape[-1]} tokens and the teacher {teacher.shape[-1]}: a number of"
            " one means another token in the other; take models that share a tokenizer"
        )
    if student.shape != teacher.shape or mask.shape != student.shape[:-1]:
        raise ValueError(
            f"shapes: student {tuple(student.shape)}, teacher {tuple(teacher.shape)}, mask {tuple(mask.shape)}: the"
            " first two must be equal, and the mask without the vocabulary"
        )
    if temperature <= 0:
        raise ValueError(f"temperature: {temperature} is not above 0")
    if not mask.any():
        raise ValueError("mask: no token counts, so there is nothing to match")
