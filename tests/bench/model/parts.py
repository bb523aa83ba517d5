"""The parts of `make bench NAME=model`. Each prints a table of its figures and returns them."""

import argparse
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import torch

from bench.model import served
from bench.model.healed import HEALED, R1PLUS, RANK, WINDOWED, Curve, choose_recipe, heal_model, name_folder
from bench.model.material import (
    SUITES,
    build_suite_index,
    digest_texts,
    draw_batch,
    list_answered,
    list_own_candidates,
    read_prose,
    sample_items,
)
from bench.model.prompts import list_prompts
from bench.model.quality import Prose, count_right, zero_small_inputs
from bench.model.speed import Decoder, compute_mlps, time_in_turn
from r1plus_contract.engine.llama_architecture import LlamaArchitecture
from r1plus_contract.suites.suite import Suite
from r1plus_model.checkpoint import load_model, save_model
from r1plus_model.model import R1PlusModel
from r1plus_model.sparse import NeuronChoice, share_read
from r1plus_model.training.healing import set_active
from r1plus_model_repo.backends.text.hf_tokens import HfTokens
from r1plus_monitoring.curate.record import read_suite
from r1plus_monitoring.curate.selection import sample
from support.vllm.engine import convert_smollm2

SUITE: Final = "smollm2-full-v1"
SHORT, LONG = 512, 2048
SHARES: Final = (0.7, 0.5, 0.3, 0.15)
ASKED_SHARES: Final = (0.5, 0.15)
"""Shares at which the suite is asked, too."""
ZEROED: Final = (0.25, 0.4, 0.5, 0.85)
"""Of the inputs of all matrices."""
ASKED_ZEROED: Final = (0.25, 0.5)
WINDOWS: Final[Mapping[str, LlamaArchitecture]] = {
    "window 128": LlamaArchitecture(window=128),
    "window 128, 4 sinks": LlamaArchitecture(window=128, sinks=4),
    "window 128, 1 of 6 global": LlamaArchitecture(window=128, global_every=6),
    "window 128, 4 sinks, 1 of 6 global": WINDOWED,
    "window 128, 4 sinks, 1 of 3 global": replace(WINDOWED, global_every=3),
}
TOKENS_64K: Final = 65_536
READ: Final = 256
"""Tokens that decoders have read before they are timed."""
BATCHES: Final = (1, 16)
TRAINING_TOKENS: Final = 400_000
CANDIDATES_PER_ITEM: Final = 4
"""Of a suite with fewer items than usual; all are asked otherwise."""


class Bench:
    """One run: the teacher, its tokenizer, and how much to measure."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        torch.set_num_threads(arguments.threads)
        torch.manual_seed(0)
        self._arguments = arguments
        self._names = arguments.heal or list(HEALED)
        if unknown := sorted(set(self._names) - set(HEALED)):
            raise SystemExit(f"--heal {unknown[0]!r}: there are {', '.join(map(repr, HEALED))}")
        self._scratch = tempfile.TemporaryDirectory(prefix="r1plus-bench-")
        self._work = arguments.work or Path(self._scratch.name)
        self._work.mkdir(parents=True, exist_ok=True)
        self._folder = convert_smollm2(Path(self._scratch.name) / "smollm2")
        self._teacher = load_model(self._folder).eval().requires_grad_(requires_grad=False)
        self._tokens = HfTokens(self._folder, self._teacher.shape.context)
        self._suite = sample_items(read_suite(SUITES / SUITE), arguments.items)
        count = max(arguments.windows * SHORT, arguments.long_windows * LONG)
        prose = read_prose(self._folder, count, is_held_out=True)
        self._short = Prose(self._teacher, prose[: arguments.windows * SHORT].view(-1, SHORT))
        self._long = prose[: arguments.long_windows * LONG].view(-1, LONG)

    def measure_quality(self) -> dict[str, Any]:
        """Perplexity and suite against sparsity and window, before any training."""
        rows: dict[str, Any] = {"dense": self._judge_sample(self._teacher)}

        def add(name: str, figures: dict[str, Any]) -> None:
            rows[name] = figures
            print(f"{name}: {figures}", flush=True)

        for choice in NeuronChoice:
            rank = RANK if choice is NeuronChoice.PREDICTOR else None
            model = load_model(self._folder, LlamaArchitecture(active=SHARES[0], predictor_rank=rank))
            for layer in model.layers:
                layer.mlp.choice = choice
            for share in SHARES:
                set_active(model, share)
                add(f"{share:.0%} by {choice}", self._judge(model, self._suite if share in ASKED_SHARES else None))
        for share in ZEROED:
            model = load_model(self._folder)
            zero_small_inputs(model, share)
            add(f"{share:.0%} of inputs zeroed", self._judge(model, self._suite if share in ASKED_ZEROED else None))
        prose = Prose(self._teacher, self._long)
        for name, architecture in {f"dense, {LONG} tokens": LlamaArchitecture(), **WINDOWS}.items():
            add(name, asdict(prose.measure(load_model(self._folder, architecture))))
        return rows

    def measure_cache(self) -> dict[str, Any]:
        """Bytes of keys and values that one sequence of 64K allocates, in the two bytes of bfloat16."""
        rows = {}
        for name, architecture in {"full attention": LlamaArchitecture(), **WINDOWS}.items():
            model = load_model(self._folder, architecture, torch.bfloat16)
            rows[name] = model.allocate_cache(1, TOKENS_64K).bytes
            print(f"{name}: {rows[name] / 2**20:.1f} MiB of keys and values at 64K", flush=True)
        return rows

    def measure_speed(self) -> dict[str, Any]:
        """Milliseconds of the MLPs and of a whole token, in turn with the dense model."""
        models = {
            "dense": self._teacher,
            "gate 15%": load_model(self._folder, LlamaArchitecture(active=0.15)),
            "predictor 15%": load_model(self._folder, LlamaArchitecture(active=0.15, predictor_rank=RANK)),
            "r1plus": load_model(self._folder, R1PLUS),
            "r1plus-predictor": load_model(self._folder, replace(R1PLUS, predictor_rank=RANK)),
        }
        for model in list(models.values())[1:]:
            for layer in model.layers:
                layer.mlp.store_by_neuron()
        rounds = self._arguments.tokens
        rows = {"MLPs, batch 1": _time({name: compute_mlps(model) for name, model in models.items()}, rounds)}
        for batch in BATCHES:
            decoders = {name: Decoder(model, batch, READ, rounds) for name, model in models.items()}
            rows[f"token, batch {batch}"] = _time({name: one.step for name, one in decoders.items()}, rounds)
        shares = {f"{batch}": round(share_read(0.15, batch), 3) for batch in (*BATCHES, 32)}
        print(f"Expected share of neurons that a batch reads, if tokens choose independently: {shares}", flush=True)
        return rows | {"expected_share_read": shares}

    def measure_healing(self) -> dict[str, Any]:
        """Distil each of the chosen models; measure it before, meanwhile and, with the whole suite, after."""
        dense, healed = self._judge_sample(self._teacher), {}
        print(f"dense: {dense}", flush=True)
        for name in self._names:
            model, curve = self._heal(name)
            whole = self._judge(model, read_suite(SUITES / SUITE))
            healed[name] = {"steps": curve.steps, "curve": curve.points, "whole": whole, **_describe_learned(model)}
            print(f"{name}: {healed[name]}", flush=True)
        return {"dense": dense, "healed": healed}

    def measure_served(self) -> dict[str, Any]:
        """Serve a healed model as an engine of the edge tier: the first of those that were chosen."""
        name = self._names[0]
        model, curve = self._heal(name)
        scratch = Path(self._scratch.name)
        save_model(model, scratch / "healed", self._folder)
        arguments = self._arguments
        request = served.Request(
            healed=scratch / "healed",
            dense=self._folder,
            candidates=sample(list_own_candidates(), (), CANDIDATES_PER_ITEM * arguments.items, seed=1),
            reference_suite=self._suite,
            items=arguments.items,
            tokens=arguments.tokens,
            threads=arguments.threads,
        )
        (scratch / "served").mkdir()
        return {"model": name, "healed": curve.points[-1], **served.measure(request, scratch / "served")}

    def _heal(self, name: str) -> tuple[R1PlusModel, Curve]:
        """Return the model after its training, which is in the working folder or is done now."""
        index = build_suite_index()
        prompts = list_prompts(index)[: self._arguments.prompts]
        data = digest_texts(prompts)
        file = self._work / f"answers-{data}.jsonl"
        answered = list_answered(self._teacher, self._tokens, prompts, index, file)
        dialogues = [one.dialogue for one in answered]
        print(f"{len(dialogues)} answers hold no question of a golden suite", flush=True)
        prose = read_prose(self._folder, TRAINING_TOKENS, is_held_out=False)
        architecture, _ = HEALED[name]
        model = load_model(self._folder, architecture)
        recipe = choose_recipe(name, self._arguments.steps)
        # Figures of other windows or items are no part of this curve.
        measured = f"curve-{self._arguments.windows}-{len(self._suite.items)}.jsonl"
        curve = Curve(self._work / name_folder(name, recipe.steps, data) / measured, recipe.steps)
        print(f"healing {name}: {recipe.steps} steps", flush=True)
        heal_model(
            model, self._teacher, lambda step: draw_batch(dialogues, prose, step), recipe, curve, self._judge_sample
        )
        return model, curve

    def _judge_sample(self, model: R1PlusModel) -> dict[str, Any]:
        return self._judge(model, self._suite)

    def _judge(self, model: R1PlusModel, suite: Suite | None) -> dict[str, Any]:
        figures: dict[str, Any] = asdict(self._short.measure(model))
        if suite is not None:
            strata = count_right(model, self._tokens, suite)
            figures |= {"right": sum(right for right, _ in strata.values()), "items": len(suite.items)}
            figures["strata"] = {name: f"{right} of {count}" for name, (right, count) in strata.items()}
        return figures


def _time(steps: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Any]:
    paces = time_in_turn(steps, rounds)
    for name, pace in paces.items():
        print(f"{name}: {pace}", flush=True)
    return {name: asdict(pace) for name, pace in paces.items()}


def _describe_learned(model: R1PlusModel) -> dict[str, float]:
    """Return how far bias and spans are from where they began."""
    attentions = [layer.self_attn for layer in model.layers]
    biases = [one.relative_bias.detach() for one in attentions if one.relative_bias is not None]
    spans = [one.spans.detach() for one in attentions if one.spans is not None]
    learned = {}
    if biases:
        learned["bias_root_mean_square"] = round(float(torch.stack(biases).pow(2).mean().sqrt()), 4)
        learned["bias_largest"] = round(float(torch.stack(biases).abs().max()), 4)
    if spans:
        learned["least_span"] = round(float(torch.stack(spans).min()), 4)
        learned["mean_span"] = round(float(torch.stack(spans).mean()), 4)
    return learned
