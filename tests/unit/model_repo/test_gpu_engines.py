"""What every engine for GPUs does behind the loop, whatever its library: each backend against a stand-in for its own."""

import sys
from pathlib import Path
from typing import Any

import pytest

from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.constraint.constraints import parse_constraint
from r1plus_model_repo.backends.requests import GenerationRequest, RefusedError
from support.model_repo.fake_engine import SECONDS
from support.model_repo.gpu_stage import GpuStage, opened
from support.model_repo.stand_in_tensorrt_llm import TrtllmStage
from support.model_repo.stand_in_transformers import BEGIN
from support.model_repo.stand_in_vllm import VllmStage

Kind = type[GpuStage]
KINDS: tuple[Kind, ...] = (VllmStage, TrtllmStage)
SAMPLED = [pytest.param(kind, *case, id=f"{kind.name}-{what}") for kind in KINDS for what, case in kind.sampled.items()]
LOST = [pytest.param(kind, *case, id=f"{kind.name}-{what}") for kind in KINDS for what, case in kind.lost.items()]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch, kind: Kind) -> Any:
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "0")
    return opened(monkeypatch, kind)


@pytest.fixture
def delivered(kind: Kind, tmp_path: Path) -> dict[str, str]:
    return kind.deliver(tmp_path)


@pytest.fixture
def stage(kind: Kind, module: Any, delivered: dict[str, str]) -> GpuStage:
    return kind(module, **delivered)


@pytest.mark.parametrize(("kind", "ask", "parameters"), SAMPLED)
def test_how_an_answer_is_drawn(kind: Kind, module: Any, ask: GenerationRequest, parameters: Any) -> None:
    assert kind.sampling(module, ask) == parameters


def test_what_the_library_refuses_is_the_clients_to_hear(kind: Kind, module: Any) -> None:
    with pytest.raises(RefusedError, match=kind.refusal):
        kind.sampling(module, GenerationRequest("x", temperature=1.0, top_p=2.0))


def test_all_are_answered_with_reason_and_counts(stage: GpuStage) -> None:
    stage.answer_all()


def test_never_more_than_the_batch_run_at_once(kind: Kind, module: Any, delivered: dict[str, str]) -> None:
    stage = kind(module, max_batch="3", **delivered)
    clients = [stage.ask("x" * n) for n in range(1, 9)]
    stage.run()
    assert [len(client.text) for client in clients] == list(range(1, 9))
    assert stage.library.largest == 3


def test_an_answer_that_reaches_the_limit_says_so(stage: GpuStage) -> None:
    client = stage.ask("one two", max_new_tokens=4)
    stage.run()
    assert (client.text, client.end) == ("one ", (FinishReason.LENGTH, 8, 4))


def test_a_stop_string_over_token_borders_ends_the_generation_and_frees_its_slot(stage: GpuStage) -> None:
    client = stage.ask("one two three", stop=("two",))
    other = stage.ask("one twin", stop=("two",))
    stage.run()
    assert (client.text, client.end) == ("one ", (FinishReason.STOP, 14, 7))
    assert stage.library.cancelled == [stage.first_id]
    assert other.text == "one twin"


@pytest.mark.parametrize(("kind", "how", "named"), LOST)
def test_when_the_library_fails_nobody_waits_for_ever(stage: GpuStage, how: dict[str, Any], named: str) -> None:
    for name, value in how.items():
        setattr(stage.library, name, value)
    clients = [stage.ask(text) for text in ("one", "two", "three")]
    stage.loop.start()
    assert stage.died.wait(SECONDS)
    for client in clients:
        assert client.over.wait(SECONDS)
        assert named in client.failed


def test_too_long_a_prompt_never_reaches_the_library(stage: GpuStage) -> None:
    with pytest.raises(RefusedError, match=r"prompt has 201 tokens.*more than the context of 128"):
        stage.ask("x" * 200)
    assert stage.library.asked == []


@pytest.mark.parametrize("is_raw", [True, False], ids=["raw", "chat"])
def test_a_prompt_beyond_any_tokenizer_is_refused_before_it_is_tokenised(
    stage: GpuStage, monkeypatch: pytest.MonkeyPatch, is_raw: bool
) -> None:
    tokenizer = type(stage.engine._tokens._tokenizer)
    monkeypatch.setattr(tokenizer, "encode", lambda *_, **__: pytest.fail("it was tokenised"))
    refusal = r"prompt and system message have 2049 characters, more than 2048, which is 16 for each of the 128 tokens"
    with pytest.raises(RefusedError, match=refusal):
        stage.engine.prepare(GenerationRequest("x" * 2000, "y" * 49, raw_prompt=is_raw))
    assert stage.library.asked == []


def test_a_raw_prompt_begins_as_the_tokenizer_says(stage: GpuStage) -> None:
    assert stage.prompt_ids(stage.engine.prepare(GenerationRequest("Hi", raw_prompt=True)).prompt) == [BEGIN, *b"Hi"]


CONSTRAINTS = {"response_schema": '{"type": "boolean"}', "grammar": 'root ::= "yes"'}


@pytest.mark.parametrize(("name", "text"), CONSTRAINTS.items(), ids=CONSTRAINTS.keys())
def test_a_constraint_reaches_the_library(stage: GpuStage, name: str, text: str) -> None:
    constraint = parse_constraint({name: text}, [])
    client = stage.ask("one", constraint=constraint)
    stage.run()
    assert (client.text, stage.read_constraint()) == ("one", (name, text))


def test_without_a_constraint_the_library_gets_none(stage: GpuStage) -> None:
    stage.ask("one")
    stage.run()
    assert stage.read_constraint() is None


def test_an_image_without_xgrammar_serves_all_but_constraints(stage: GpuStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xgrammar", None)
    with pytest.raises(RefusedError, match=r"^grammar: the engine cannot compile the grammar: .*xgrammar"):
        stage.ask("one", constraint=parse_constraint({"grammar": 'root ::= "a"'}, []))
    client = stage.ask("two")
    stage.run()
    assert client.text == "two"


def test_closing_ends_what_the_library_started(stage: GpuStage) -> None:
    stage.engine.close()
    assert stage.library.closed
