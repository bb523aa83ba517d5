"""The part `served` of `make bench NAME=model`, in small: half of the neurons, without training, so a part of what was known is lost.

The real Triton, the product's commands and `r1plus serve`: a suite of its own passes, the dense model's refuses it.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from bench.model.material import (
    SUITES,
    build_suite_index,
    list_answered,
    list_own_candidates,
    sample_items,
)
from bench.model.prompts import list_prompts
from bench.model.served import DENSE, HEALED, SUITE, Request, measure
from r1plus_contract.engine.llama_architecture import LlamaArchitecture
from r1plus_contract.suites.suite import Suite
from r1plus_model.checkpoint import load_model, save_model
from r1plus_model.training.suite_overlap import SuiteIndex
from r1plus_model_repo.backends.requests import GenerationRequest
from r1plus_model_repo.backends.text.hf_tokens import HfTokens
from r1plus_monitoring.curate.record import read_suite
from r1plus_monitoring.curate.selection import sample
from support.vllm.engine import convert_smollm2

pytestmark = [pytest.mark.model, pytest.mark.timeout(3600)]
HALF = LlamaArchitecture(window=128, sinks=4, global_every=6, relative_bias=True, span_ramp=32, active=0.5)
DENSE_SUITE = "smollm2-full-v1"
ITEMS = 8
CANDIDATES = 36
"""Enough for the small suite, and asked in a minute."""


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("served")
    checkpoint = convert_smollm2(root / "smollm2")
    save_model(load_model(checkpoint, HALF), root / "half", checkpoint)
    (root / "bench").mkdir()
    request = Request(
        healed=root / "half",
        dense=checkpoint,
        candidates=sample(list_own_candidates(), (), CANDIDATES, seed=1),
        reference_suite=sample_items(read_suite(SUITES / DENSE_SUITE), ITEMS),
        items=ITEMS,
        tokens=4,
        threads=1,
    )
    return measure(request, root / "bench")


def test_no_candidate_for_its_suite_is_in_the_training_of_healing() -> None:
    """Nor within a prompt that has an example in it."""
    candidates = list_own_candidates()
    index = SuiteIndex([Suite(read_suite(SUITES / DENSE_SUITE).header, candidates)])
    trained = list_prompts(build_suite_index())
    assert len(trained) > 1000
    assert [overlap for line, prompt in enumerate(trained) if (overlap := index.find(line, prompt))] == []
    assert len({item.prompt for item in candidates}) == len({item.id for item in candidates}) == len(candidates)


def test_an_answer_that_ends_with_a_question_of_a_suite_is_left_out(tmp_path: Path) -> None:
    checkpoint = convert_smollm2(tmp_path / "smollm2")
    tokens, library = HfTokens(checkpoint, 8192), Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    item = read_suite(SUITES / DENSE_SUITE).items[0]
    answers = {"Say yes.": "Yes.", "Say no.": f"No. {item.prompt}"}
    lines = [
        {"prompt": tokens.encode_prompt(GenerationRequest(prompt=prompt)), "answer": library.encode(answer).ids}
        for prompt, answer in answers.items()
    ]
    (tmp_path / "answers.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")

    kept = list_answered(load_model(checkpoint), tokens, list(answers), build_suite_index(), tmp_path / "answers.jsonl")

    assert [(one.prompt, one.answer) for one in kept] == [("Say yes.", "Yes.")]


def test_it_passes_the_suite_that_was_built_of_what_it_knows(figures: dict[str, Any]) -> None:
    assert len(figures["suite"]["strata"]) >= 2
    assert figures["batch"] == 1, "the best of a sparse engine"
    gate = figures[f"gate on {SUITE}"]
    assert (gate["verdict"], gate["right"]) == ("Pass", figures["suite"]["items"])


def test_the_suite_of_the_dense_model_refuses_it_with_figures(figures: dict[str, Any]) -> None:
    gate = figures[f"gate on {DENSE_SUITE}"]
    assert (gate["verdict"], gate["reason"]) == ("Fail", "TooManyLost")
    assert gate["right"] < gate["asked"]


def test_it_is_served_and_answers_under_its_verdict(figures: dict[str, Any]) -> None:
    assert (figures["serve"]["verdict"], figures["serve"]["right"]) == ("Pass", True)


def test_its_pace_is_beside_that_of_the_dense_engine(figures: dict[str, Any]) -> None:
    assert list(figures["tokens_per_second"]) == ["1", "4", "8"]
    for both in figures["tokens_per_second"].values():
        assert list(both) == [DENSE, HEALED]
        assert all(one["tokens_per_second"] > 0 for one in both.values())
