"""vLLM behind the engine's loop, with a stand-in for vLLM that says the prompt again, a byte a step."""

import enum
import itertools
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.engine_loop import EngineLoop
from r1plus_model_repo.backends.requests import Ask, RefusedError
from unit.model_repo.fake_engine import FakeClient, FakeMeters
from unit.model_repo.test_hf_tokens import BEGIN, END, fresh

SECONDS = 10.0
PARAMETERS = {
    "backend": "vllm",
    "engine_path": "/delivery/engine",
    "max_batch": "2",
    "context": "128",
    "kv_precision": "FP16",
    "gpus": "1",
    "gpu_memory_fraction": "0.9",
}


class RequestOutputKind(enum.Enum):
    CUMULATIVE = 0
    DELTA = 1
    FINAL_ONLY = 2


@dataclass(kw_only=True)
class SamplingParams:
    """The fields that are used, with vLLM's defaults and checks."""

    temperature: float = 1.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 16
    detokenize: bool = True
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE

    def __post_init__(self) -> None:
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}.")


@dataclass(kw_only=True)
class EngineArgs:
    model: str = ""
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    tensor_parallel_size: int = 1
    gpu_memory_utilization: float = 0.9
    enable_prefix_caching: bool | None = None
    trust_remote_code: bool = False
    disable_log_stats: bool = False


@dataclass
class Request:
    prompt: list[int]
    params: SamplingParams
    said: int = 0
    read: bool = False


@dataclass
class LLMEngine:
    """Says what follows the first token of a prompt, then the end. Reading a prompt takes a step that brings nothing."""

    args: EngineArgs
    running: dict[str, Request] = field(default_factory=dict)
    asked: list[SamplingParams] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    largest: int = 0
    steps: int = 0
    ends_as: str = ""
    late: list[Any] = field(default_factory=list)
    gate: threading.Semaphore | None = None
    closed: bool = False

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs) -> "LLMEngine":
        assert os.environ["VLLM_NO_USAGE_STATS"] == "1"
        return cls(engine_args)

    @property
    def engine_core(self) -> Any:
        return SimpleNamespace(shutdown=lambda: setattr(self, "closed", True))

    def add_request(self, request_id: str, prompt: dict[str, Any], params: SamplingParams) -> str:
        assert isinstance(request_id, str)
        assert prompt.keys() == {"type", "prompt_token_ids"}
        assert prompt["type"] == "token"
        assert not params.detokenize
        self.asked.append(params)
        self.running[request_id] = Request(prompt["prompt_token_ids"], params)
        return request_id

    def abort_request(self, request_ids: list[str], internal: bool = False) -> None:
        for request_id in request_ids:
            self.aborted.append(request_id)
            del self.running[request_id]
            # What was under way still comes.
            self.late.append(_output(request_id, [ord("!")], "abort"))

    def step(self) -> list[Any]:
        if self.gate is not None:
            self.gate.acquire()
        self.steps += 1
        self.largest = max(self.largest, len(self.running))
        outputs, self.late = self.late, []
        for request_id, request in list(self.running.items()):
            if not request.read:
                request.read = True
                continue
            outputs.append(self._next(request_id, request))
        return outputs

    def _next(self, request_id: str, request: Request) -> Any:
        said = [*request.prompt[1:], END]
        token = said[request.said]
        request.said += 1
        reason = "stop" if token == END else "length" if request.said == request.params.max_tokens else None
        reason = self.ends_as or reason
        if reason:
            del self.running[request_id]
        return _output(request_id, [token], reason)


def _output(request_id: str, ids: list[int], reason: str | None) -> Any:
    return SimpleNamespace(request_id=request_id, outputs=[SimpleNamespace(token_ids=ids, finish_reason=reason)])


def stand_in_vllm() -> dict[str, ModuleType]:
    vllm, params = ModuleType("vllm"), ModuleType("vllm.sampling_params")
    for given in (EngineArgs, LLMEngine, SamplingParams):
        setattr(vllm, given.__name__, given)
    params.RequestOutputKind = RequestOutputKind  # type: ignore[attr-defined]
    return {"vllm": vllm, "vllm.sampling_params": params}


@pytest.fixture
def vllm_engine(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("VLLM_NO_USAGE_STATS", "0")
    return fresh(monkeypatch, "vllm_engine", stand_in_vllm())


class Stage:
    """The engine in its loop."""

    def __init__(self, module: Any, **changed: str) -> None:
        self.engine = module.VllmEngine(module.EngineSettings.from_parameters({**PARAMETERS, **changed}))
        self.vllm: LLMEngine = self.engine._engine
        self.meters = FakeMeters()
        self.deaths: list[BaseException] = []
        self.loop = EngineLoop(
            self.engine,
            self.meters,
            max_batch=int(changed.get("max_batch", PARAMETERS["max_batch"])),
            clock=map(float, itertools.count()).__next__,
            on_death=self.deaths.append,
        )

    def ask(self, prompt: str, **given: Any) -> FakeClient:
        client = FakeClient()
        self.loop.submit(self.engine.prepare(Ask(prompt, raw_prompt=True, **given)), client)
        return client

    def run(self) -> None:
        """Start, answer all that was asked, end."""
        self.loop.start()
        self.loop.close(SECONDS)


@pytest.fixture
def stage(vllm_engine: Any) -> Stage:
    return Stage(vllm_engine)


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_settings_become_vllms(stage: Stage) -> None:
    assert stage.vllm.args == EngineArgs(
        model="/delivery/engine",
        dtype="float16",
        kv_cache_dtype="auto",
        max_model_len=128,
        max_num_seqs=2,
        tensor_parallel_size=1,
        gpu_memory_utilization=0.9,
        enable_prefix_caching=False,
        trust_remote_code=False,
        disable_log_stats=True,
    )


def test_a_cache_in_8_bits_on_two_gpus(vllm_engine: Any) -> None:
    args = Stage(vllm_engine, kv_precision="FP8", gpus="2").vllm.args
    assert (args.kv_cache_dtype, args.tensor_parallel_size) == ("fp8", 2)


def test_a_precision_that_vllms_cache_has_not_is_refused(vllm_engine: Any) -> None:
    with pytest.raises(ValueError, match="kv_precision: INT8: vLLM's KV cache is FP16 or FP8"):
        vllm_engine.EngineSettings.from_parameters({**PARAMETERS, "kv_precision": "INT8"})


def _params(**given: Any) -> SamplingParams:
    return SamplingParams(detokenize=False, output_kind=RequestOutputKind.DELTA, **given)


SAMPLED = {
    "greedy, whatever else is asked": (
        Ask("x", top_p=0.5, seed=3, repetition_penalty=1.2),
        _params(temperature=0.0, max_tokens=9, repetition_penalty=1.2),
    ),
    "sampled": (
        Ask("x", temperature=0.7, top_p=0.5, seed=3),
        _params(temperature=0.7, top_p=0.5, seed=3, max_tokens=9),
    ),
    "sampled without a seed": (Ask("x", temperature=0.7), _params(temperature=0.7, max_tokens=9)),
    "a seed of 64 bits": (
        Ask("x", temperature=0.7, seed=2**64 - 1),
        _params(temperature=0.7, seed=2**63 - 1, max_tokens=9),
    ),
}


@pytest.mark.parametrize(("ask", "params"), SAMPLED.values(), ids=SAMPLED.keys())
def test_how_an_answer_is_drawn(vllm_engine: Any, ask: Ask, params: SamplingParams) -> None:
    assert vllm_engine.sampling(ask, 9) == params


def test_what_vllm_refuses_is_the_clients_to_hear(vllm_engine: Any) -> None:
    with pytest.raises(RefusedError, match="refuses these sampling parameters: top_p must be in"):
        vllm_engine.sampling(Ask("x", temperature=1.0, top_p=2.0), 9)


def test_all_are_answered_with_reason_and_counts(stage: Stage) -> None:
    clients = [stage.ask(text) for text in ("one", "héllo 🚀", "a")]
    stage.run()
    assert [client.text for client in clients] == ["one", "héllo 🚀", "a"]
    assert all("\ufffd" not in piece for client in clients for piece in client.pieces)
    # The end is a token, too.
    assert [client.end for client in clients] == [(FinishReason.STOP, n + 1, n + 1) for n in (3, 11, 1)]
    assert stage.meters.counted == {"prompt": 18, "completion": 18}
    assert stage.vllm.running == {}


def test_never_more_than_the_batch_run_at_once(vllm_engine: Any) -> None:
    stage = Stage(vllm_engine, max_batch="3")
    clients = [stage.ask("x" * n) for n in range(1, 9)]
    stage.run()
    assert [len(client.text) for client in clients] == list(range(1, 9))
    assert stage.vllm.largest == 3


def test_an_answer_that_reaches_the_limit_says_so(stage: Stage) -> None:
    client = stage.ask("one two", max_new_tokens=4)
    stage.run()
    assert (client.text, client.end) == ("one ", (FinishReason.LENGTH, 8, 4))


def test_a_stop_string_over_token_borders_ends_the_generation_and_frees_its_slot(stage: Stage) -> None:
    client = stage.ask("one two three", stop=("two",))
    other = stage.ask("one twin", stop=("two",))
    stage.run()
    assert (client.text, client.end) == ("one ", (FinishReason.STOP, 14, 7))
    assert stage.vllm.aborted == ["1"]
    assert other.text == "one twin"


def test_who_hangs_up_frees_a_slot_and_what_still_comes_for_it_is_nobodys(vllm_engine: Any) -> None:
    stage = Stage(vllm_engine, max_batch="1")
    gate = stage.vllm.gate = threading.Semaphore(3)
    leaving, staying = stage.ask("x" * 100), stage.ask("stay")
    stage.loop.start()
    until(lambda: stage.vllm.steps == 3)
    leaving.hung_up.set()
    gate.release(100)
    stage.loop.close(SECONDS)
    assert leaving.end is not None
    assert leaving.end[0] is FinishReason.CANCELLED
    assert stage.vllm.aborted == ["1"]
    assert (staying.text, staying.failed) == ("stay", "")
    assert stage.deaths == []


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_an_end_that_nobody_asked_for_ends_the_loop(stage: Stage, reason: str) -> None:
    stage.vllm.ends_as = reason
    client = stage.ask("one")
    stage.loop.start()
    assert client.over.wait(SECONDS)
    assert f"vLLM ended a request by itself: {reason}" in client.failed
    until(lambda: stage.deaths)


def test_too_long_a_prompt_never_reaches_vllm(stage: Stage) -> None:
    with pytest.raises(RefusedError, match=r"prompt has 201 tokens.*more than the context of 128"):
        stage.ask("x" * 200)
    assert stage.vllm.asked == []


def test_a_raw_prompt_begins_as_the_tokenizer_says(stage: Stage) -> None:
    assert stage.engine.prepare(Ask("Hi", raw_prompt=True)).prompt == [BEGIN, *b"Hi"]


def test_closing_ends_vllms_processes(stage: Stage) -> None:
    stage.engine.close()
    assert stage.vllm.closed


def test_the_settings_path_is_the_checkpoint(vllm_engine: Any) -> None:
    assert vllm_engine.EngineSettings.from_parameters(PARAMETERS).path == Path("/delivery/engine")
