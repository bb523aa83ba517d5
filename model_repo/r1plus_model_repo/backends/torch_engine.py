"""R1+'s own architecture in torch as a `Pipeline`, on CPU: settings, sampling, tokens.

Runs in the real Triton with torch 2.13, transformers 5.19 and xgrammar 0.2.8 (`make test-long NAME=model`). Importing
this module imports no torch: only an engine of this kind needs it.
"""

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1plus_model_repo.backends.assembly import TorchParts, load_torch_parts
from r1plus_model_repo.backends.constraint.constraints import Constraint
from r1plus_model_repo.backends.constraint.xgrammar_check import check_constraint, explain_failure, import_xgrammar
from r1plus_model_repo.backends.engine_loop import Handle, Job, NeverRenewed
from r1plus_model_repo.backends.generations import Generations
from r1plus_model_repo.backends.requests import GenerationRequest, RefusedError


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The engine's settings from config.pbtxt."""

    path: Path
    """A checkpoint in Hugging Face's format, with R1+'s options in its config.json."""
    max_batch: int
    context: int
    kv_cache_bytes: int
    """Memory that there is for the KV cache."""
    threads: int

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, str]) -> "EngineSettings":
        """Read the parameters that `r1plus_model_repo.config_pbtxt` writes."""
        values = {name: int(parameters[name]) for name in ("max_batch", "context", "kv_cache_bytes", "threads")}
        for name, value in values.items():
            if value < 1:
                raise ValueError(f"{name}: {value} is less than 1")
        return cls(path=Path(parameters["engine_path"]), **values)


class TorchEngine(NeverRenewed):
    """A `Pipeline`, and the preparation of its jobs."""

    def __init__(self, settings: EngineSettings) -> None:
        # Read when torch loads its threads. They wait for each other hundreds of times per token, and by default they
        # spin, which takes the core from what they wait for where other processes use it.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        try:
            import torch

            from r1plus_model_repo.backends.text.hf_tokens import HfTokens

            self._parts = load_torch_parts()
        except ModuleNotFoundError as error:
            raise RuntimeError(
                f"{error.name} is not installed where Triton's Python looks; install r1plus[torch] there"
            ) from error
        except ImportError as error:  # of a part of the standard library, built for another Python
            raise RuntimeError(
                f"{error}; Triton embeds the library of the system's Python, so install r1plus[torch] in an environment"
                " of that Python"
            ) from error
        torch.set_num_threads(settings.threads)
        model = open_model(settings, self._parts)
        self._tokens = HfTokens(settings.path, settings.context)
        self._end_ids = self._tokens.get_end_ids()
        self._vocabulary = model.shape.vocabulary
        self._batch = self._parts.build_batch(model, settings.max_batch, settings.context, self._end_ids)
        if self._batch.cache_bytes > settings.kv_cache_bytes:
            raise RuntimeError(
                f"the KV cache of {settings.max_batch} requests of {settings.context} tokens has"
                f" {self._batch.cache_bytes} bytes, and spec.architecture says {settings.kv_cache_bytes}; correct the"
                " R1PlusEngine, or import the checkpoint again"
            )
        self._generations = Generations(self._batch.remove)
        self._ids = itertools.count(1)
        # Built before requests come: it reads the tokenizer, which another thread must not use meanwhile.
        self._compiler = build_compiler(self._tokens.library_tokenizer, self._vocabulary, self._end_ids)

    def prepare(self, request: GenerationRequest) -> Job:
        """Tokenise, check against the context, compile a constraint. Raise RefusedError. Safe from any thread."""
        ids, limit = self._tokens.prepare_prompt(request)
        self._check_vocabulary(ids, request.prompt_input)
        sampling = self._parts.build_sampling(
            limit,
            request.temperature,
            request.top_p,
            request.repetition_penalty,
            request.seed,
            self._compile(request.constraint),
        )
        return Job(ids, len(ids), sampling, request.stop, request.constraint_input)

    def count(self, request: GenerationRequest) -> int:
        """Return the tokens of the prompt; check a constraint. Raise RefusedError. Safe from any thread."""
        if request.constraint is not None:
            check_constraint(request.constraint)
        return len(self._tokens.encode_prompt(request))

    def add(self, job: Job) -> Handle:
        """See `Pipeline`."""
        request_id = next(self._ids)
        self._batch.add(request_id, job.prompt, job.sampling)
        return self._generations.begin(request_id, job.constraint)

    def step(self) -> None:
        """See `Pipeline`. A step reads a part of one prompt, so that the answers of the others go on."""
        for made in self._batch.step():
            if made.token is not None:
                self._generations.push(made.request_id, [made.token], made.reason)
            elif not self._generations.refuse(made.request_id, made.failure):
                raise RuntimeError(f"a request failed: {made.failure}")

    def decode(self, ids: Sequence[int]) -> str:
        """See `Pipeline`."""
        return self._tokens.decode(ids)

    def close(self) -> None:
        """Nothing has to be freed: the process ends."""

    def _check_vocabulary(self, ids: Sequence[int], name: str) -> None:
        """Raise RefusedError for a token without an embedding: in a step it would end all running requests."""
        if (last := max(ids)) >= self._vocabulary:
            raise RefusedError(
                f"{name}: has the tokenizer's token {last}, and the model has {self._vocabulary} (vocab_size); leave"
                " out its text, or import the checkpoint with its own tokenizer"
            )

    def _compile(self, constraint: Constraint | None) -> Any:
        """Return the grammar of a constraint, compiled for this vocabulary; Triton's model calls this in one thread."""
        if constraint is None:
            return None
        check_constraint(constraint)
        try:
            if constraint.is_schema:
                return self._compiler.compile_json_schema(constraint.text)
            return self._compiler.compile_grammar(constraint.text)
        except Exception as error:  # one of the kinds that its bindings raise
            raise RefusedError(explain_failure(constraint, error)) from error


def build_compiler(tokenizer: Any, vocabulary: int, end_ids: Sequence[int]) -> Any:
    """Return what compiles constraints for the tokens of a model; None without xgrammar, which refuses them before."""
    try:
        xgrammar = import_xgrammar()
    except ImportError:
        return None
    information = xgrammar.TokenizerInfo.from_huggingface(
        tokenizer, vocab_size=vocabulary, stop_token_ids=list(end_ids)
    )
    return xgrammar.GrammarCompiler(information, max_threads=1, cache_enabled=False)


def open_model(settings: EngineSettings, parts: TorchParts) -> Any:
    """Return the model of the checkpoint, ready to decode.

    Raises:
        RuntimeError: the checkpoint cannot be served with these settings; the message says what to do.
    """
    model = parts.load_model(settings.path)
    if settings.context > model.shape.context:
        raise RuntimeError(
            f"context: {settings.context} tokens exceed the {model.shape.context} that the model was trained for"
            " (max_position_embeddings); correct spec.architecture.contextLength"
        )
    if not model.architecture.is_llama:
        for layer in model.layers:
            layer.mlp.store_by_neuron()
    return model.eval()
