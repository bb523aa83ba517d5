"""The choice of the next token from a model's logits, for one request."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from r1plus_model_repo.backends.constraint.xgrammar_check import import_xgrammar


@dataclass(frozen=True, slots=True)
class TorchSampling:
    """How the tokens of one request are chosen."""

    limit: int
    """Tokens of the answer, at most."""
    temperature: float = 0.0
    """0: the most likely token, the same every time."""
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    """Above 1: tokens of the prompt and of the answer so far become less likely (Keskar et al. 2019)."""
    seed: int | None = None
    grammar: Any = None
    """What xgrammar has compiled; None: any token may follow."""


class ConstraintFailedError(RuntimeError):
    """The engine failed on a request's constraint, and on that alone."""


class TokenSampler:
    """Chooses the tokens of one request. What others in the batch ask for has no influence."""

    def __init__(self, sampling: TorchSampling, prompt: Sequence[int], vocabulary: int) -> None:
        self._sampling = sampling
        self._generator = torch.Generator()
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)
        self._seen: Tensor | None = None
        if sampling.repetition_penalty != 1:
            self._seen = torch.zeros(vocabulary, dtype=torch.bool)
            self._seen[list(prompt)] = True
        self._matcher, self._bitmask = None, None
        if sampling.grammar is not None:
            xgrammar = import_xgrammar()
            self._matcher = xgrammar.GrammarMatcher(sampling.grammar)
            self._bitmask = xgrammar.allocate_token_bitmask(1, vocabulary)

    def choose(self, logits: Tensor) -> int:
        """Return the next token by the logits (vocabulary).

        Raises:
            ConstraintFailedError: no token follows the grammar.
        """
        logits = self._constrain(logits.float())
        if self._seen is not None:
            # In 64 bits: a penalty near 0 would give infinite numbers, of which nothing can be drawn.
            logits, penalty = logits.double(), self._sampling.repetition_penalty
            penalised = torch.where(logits > 0, logits / penalty, logits * penalty)
            logits = torch.where(self._seen, penalised, logits)
        token = self._draw(logits) if self._sampling.temperature > 0 else int(logits.argmax())
        if self._seen is not None:
            self._seen[token] = True
        if self._matcher is not None and not self._matcher.accept_token(token):
            raise ConstraintFailedError(f"token {token} does not follow the grammar")
        return token

    def _constrain(self, logits: Tensor) -> Tensor:
        if self._matcher is None:
            return logits
        try:
            self._matcher.fill_next_token_bitmask(self._bitmask)
        except RuntimeError as error:  # Of this matcher alone: others in the batch go on.
            raise ConstraintFailedError(str(error)) from error
        constrained = logits[None].clone()
        import_xgrammar().apply_token_bitmask_inplace(constrained, self._bitmask)
        if bool(torch.isneginf(constrained).all()):
            raise ConstraintFailedError("no token follows the grammar")
        return constrained[0]

    def _draw(self, logits: Tensor) -> int:
        # Divided in 64 bits: a temperature near 0 would give infinite numbers.
        chances = torch.softmax(logits.double() / self._sampling.temperature, -1)
        if self._sampling.top_p < 1:
            chances, tokens = chances.sort(descending=True)
            # The token that reaches `top_p` is the last.
            chances = torch.where(chances.cumsum(-1) - chances < self._sampling.top_p, chances, 0)
            return int(tokens[torch.multinomial(chances, 1, generator=self._generator)])
        return int(torch.multinomial(chances, 1, generator=self._generator))
