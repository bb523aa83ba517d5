"""How good a model is: perplexity of prose, divergence from its teacher, and items of a golden suite that are right."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from r1plus_contract.inference import FinishReason
from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.suites.suite import Suite
from r1plus_model.model import R1PlusModel
from r1plus_model.sampling.answer_end import StopRule
from r1plus_model.sampling.decoding import decode_greedily
from r1plus_model.sparse import choose_largest
from r1plus_model_repo.backends.requests import GenerationRequest
from r1plus_model_repo.backends.text.hf_tokens import HfTokens
from r1plus_monitoring.scoring.scorers import score

TOGETHER = 32


@dataclass(frozen=True, slots=True)
class ProseFigures:
    """Over windows of prose; the divergence is KL(teacher || model) in nats at temperature 1."""

    perplexity: float
    divergence: float


class Prose:
    """Windows of prose (windows, tokens), and what a teacher makes of them. In bfloat16 where autocast computes in it."""

    def __init__(self, teacher: R1PlusModel, windows: Tensor) -> None:
        self._teacher, self._windows = teacher, windows
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            # States are small; logits of all tokens would take more memory than the model.
            self._states = [teacher.compute_states(ids[None]) for ids in windows]

    def measure(self, model: R1PlusModel) -> ProseFigures:
        """Measure a model."""
        loss = divergence = tokens = 0.0
        model.eval()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            for ids, states in zip(self._windows, self._states, strict=True):
                log_probabilities = model(ids[None])[0, :-1].float().log_softmax(-1)
                target = self._teacher.compute_logits(states)[0, :-1].float().log_softmax(-1)
                loss += float(functional.nll_loss(log_probabilities, ids[1:], reduction="sum"))
                divergence += float((target.exp() * (target - log_probabilities)).sum())
                tokens += len(ids) - 1
        return ProseFigures(round(math.exp(loss / tokens), 2), round(divergence / tokens, 3))


def zero_small_inputs(model: R1PlusModel, share: float) -> None:
    """Let each matrix of the layers read a token without the smallest of its inputs, as TEAL (arXiv:2408.14690) does.

    The share is exact for each token, where TEAL has a threshold for each matrix.
    """
    for layer in model.layers:
        for matrix in (one for one in layer.modules() if isinstance(one, nn.Linear)):
            matrix.register_forward_pre_hook(lambda _, inputs: (_zero_smallest(inputs[0], share),))


def _zero_smallest(x: Tensor, share: float) -> Tensor:
    size = x.shape[-1]
    return torch.where(choose_largest(x.abs(), size - round(share * size)), x, 0)


def count_right(model: R1PlusModel, tokens: HfTokens, suite: Suite) -> dict[str, tuple[int, int]]:
    """Return by stratum how many items are right, and how many there are. Answers are greedy, as the suite asks."""
    end = StopRule(set(tokens.get_end_ids()), suite.header.sampling.stop, tokens.decode)
    items = sorted(suite.items, key=lambda item: len(item.prompt))
    right: dict[str, tuple[int, int]] = {}
    for begin in range(0, len(items), TOGETHER):
        part = items[begin : begin + TOGETHER]
        prompts = [tokens.encode_prompt(GenerationRequest(prompt=item.prompt)) for item in part]
        answers = decode_greedily(model, prompts, suite.header.sampling.max_new_tokens, end.is_reached)
        for item, answer in zip(part, answers, strict=True):
            reason = FinishReason.STOP if end.is_reached(answer) else FinishReason.LENGTH
            is_right = score(item, end.cut(answer), reason) == OutcomeLabel.CORRECT
            before = right.get(item.stratum, (0, 0))
            right[item.stratum] = (before[0] + is_right, before[1] + 1)
    return dict(sorted(right.items()))
