"""Answers that follow a grammar, several for each prompt: drawn as the backend torch draws them.

Prompts of one call share the tokens that all of them begin with. An answer is one line.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from r1plus_contract.engine.schema_constraints import ConstraintError
from r1plus_model.encoder import check_embedded
from r1plus_model.errors import DistillationError
from r1plus_model.model import R1PlusModel
from r1plus_model.sampling.answer_end import StopRule
from r1plus_model.sampling.token_sampling import ConstraintFailedError, TokenSampler, TorchSampling
from r1plus_model.training.loop import deterministic
from r1plus_model.training.packing import BranchCache, find_beginning
from r1plus_model.training.reinforcement_recipe import MOST_SAMPLES
from r1plus_model_repo.backends.constraint.constraints import parse_grammar
from r1plus_model_repo.backends.constraint.xgrammar_check import import_xgrammar
from r1plus_model_repo.backends.requests import GenerationRequest, RefusedError
from r1plus_model_repo.backends.text.hf_tokens import HfTokens
from r1plus_model_repo.backends.torch_engine import build_compiler

ROWS: Final = 2 * MOST_SAMPLES
"""Answers that are written together: more are hardly faster."""
STOP: Final = "\n"


@dataclass(frozen=True, slots=True)
class ConstrainedPrompt:
    """What the model continues, and how it may."""

    tokens: tuple[int, ...]
    grammar: Any
    """Compiled for the model's vocabulary."""


@dataclass(frozen=True, slots=True)
class SampledAnswer:
    """One that was drawn."""

    tokens: tuple[int, ...]
    text: str


class PromptEncoder:
    """Turns prompts and grammars into what a model takes, as a server does."""

    def __init__(self, folder: Path, context: int, vocabulary: int) -> None:
        """Raise DistillationError for a tokenizer that cannot be used."""
        import_xgrammar()
        try:
            self._tokens = HfTokens(folder, context)
            end_ids = self._tokens.get_end_ids()
            self._compiler = build_compiler(self._tokens.library_tokenizer, vocabulary, end_ids)
        except Exception as error:  # transformers and xgrammar raise what their parts raise.
            raise DistillationError(
                f"model: {folder}: its tokenizer cannot be used: {error}; get the model's own files"
            ) from error
        self._vocabulary = vocabulary
        self.end = StopRule(frozenset(end_ids), (STOP,), self._tokens.decode)
        self._grammars: dict[str, Any] = {}

    def encode(self, prompt: str, grammar: str, field: str) -> ConstrainedPrompt:
        """Return a prompt's tokens with its grammar; `field` names its file in errors.

        Raises:
            DistillationError: the grammar cannot be compiled, or the prompt is far too long or has a token that the
                model lacks.
        """
        if grammar not in self._grammars:
            try:
                self._grammars[grammar] = self._compiler.compile_grammar(parse_grammar(grammar).text)
            except (ConstraintError, RuntimeError) as error:
                raise DistillationError(f"grammar: cannot be compiled: {error}; correct it") from error
        request = GenerationRequest(prompt=prompt, raw_prompt=True)
        try:
            tokens = self._tokens.encode_prompt(request)
        except RefusedError as error:
            raise DistillationError(f"{field}: {error}; remove long questions, or take another model") from error
        check_embedded(tokens, self._vocabulary, "model", self._tokens.library_tokenizer.convert_ids_to_tokens)
        return ConstrainedPrompt(tuple(tokens), self._grammars[grammar])


@dataclass(frozen=True, slots=True)
class AnswerSampler:
    """Draws answers of one model, whose weights do not change meanwhile."""

    model: R1PlusModel
    prompts: Sequence[ConstrainedPrompt]
    end: StopRule
    most_new_tokens: int
    beginning: int
    """Tokens that all prompts share."""
    cache: BranchCache
    """Has these."""

    def draw(self, numbers: Sequence[int], samples: int, temperature: float, seed: str) -> list[list[SampledAnswer]]:
        """Return `samples` answers for each of the prompts with these numbers, at most `ROWS` in all.

        At temperature 0 they are the most likely ones. What is drawn depends on `seed`, the prompt's number and its
        place among the samples alone.

        Raises:
            DistillationError: what the model predicts is no number.
        """
        samplers = [
            TokenSampler(self._choose_sampling(number, sample, temperature, seed), (), self.model.shape.vocabulary)
            for number in numbers
            for sample in range(samples)
        ]
        with torch.inference_mode(), deterministic():
            states = self.cache.begin([self.prompts[one].tokens[self.beginning :] for one in numbers], samples)
            rows = self._write(samplers, states)
        answers = [SampledAnswer(tuple(tokens), self.end.cut(tokens)) for tokens in rows]
        return [answers[start : start + samples] for start in range(0, len(answers), samples)]

    def _choose_sampling(self, number: int, sample: int, temperature: float, seed: str) -> TorchSampling:
        digest = hashlib.sha256(f"{seed} {number} {sample}".encode()).digest()
        own_seed = int.from_bytes(digest[:7], "big")
        return TorchSampling(self.most_new_tokens, temperature, seed=own_seed, grammar=self.prompts[number].grammar)

    def _write(self, samplers: Sequence[TokenSampler], states: Tensor) -> list[list[int]]:
        answers: list[list[int]] = [[] for _ in samplers]
        rows = list(range(len(samplers)))
        for _ in range(self.most_new_tokens):
            logits = self.model.compute_logits(states)
            if not logits.isfinite().all():
                raise DistillationError(
                    "model: what it predicts is no number; get its checkpoint again, or give a lower learning rate"
                )
            for place, row in enumerate(rows):
                answers[row].append(_choose(samplers[row], logits[place]))
            rows = [row for row in rows if not self.end.is_reached(answers[row])]
            if not rows:
                break
            states = self.cache.extend(rows, [answers[row][-1] for row in rows])
        return answers


def _choose(sampler: TokenSampler, logits: Tensor) -> int:
    try:
        return sampler.choose(logits)
    except ConstraintFailedError as error:
        raise DistillationError(f"grammar: {error}; correct it") from error


def open_sampler(
    model: R1PlusModel, prompts: Sequence[ConstrainedPrompt], end: StopRule, most_new_tokens: int
) -> AnswerSampler:
    """Return a sampler of prompts, with what they share computed."""
    tokens = [one.tokens for one in prompts]
    beginning = find_beginning(tokens)
    model.eval()
    with torch.inference_mode(), deterministic():
        cache = BranchCache(model, tokens[0][:beginning])
    return AnswerSampler(model, prompts, end, most_new_tokens, beginning, cache)
