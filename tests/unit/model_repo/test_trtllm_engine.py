"""TensorRT-LLM behind the engine's loop, with a stand-in for its executor: it steps by itself, and says prompts again."""

import datetime
import enum
import itertools
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.engine_loop import EngineLoop
from r1plus_model_repo.backends.requests import Ask, RefusedError
from unit.model_repo.fake_engine import FakeClient, FakeMeters
from unit.model_repo.test_hf_tokens import BEGIN, END, StandInTokenizer, fresh

SECONDS = 10.0
MORE = ord("$")
"""Another token that ends an answer, as the checkpoint says."""
PARAMETERS = {
    "backend": "tensorrtllm",
    "max_batch": "2",
    "context": "128",
    "kv_tokens": "256",
    "windows": "32,32,128",
    "gpu_memory_fraction": "0.9",
}
End = enum.Enum("End", "NOT_FINISHED END_ID STOP_WORDS LENGTH TIMED_OUT CANCELLED")
ModelType = enum.Enum("ModelType", "DECODER_ONLY ENCODER_ONLY ENCODER_DECODER")
BatchingType = enum.Enum("BatchingType", "STATIC INFLIGHT")
CapacitySchedulerPolicy = enum.Enum("CapacitySchedulerPolicy", "MAX_UTILIZATION GUARANTEED_NO_EVICT STATIC_BATCH")


@dataclass(kw_only=True)
class SchedulerConfig:
    capacity_scheduler_policy: CapacitySchedulerPolicy = CapacitySchedulerPolicy.GUARANTEED_NO_EVICT


@dataclass(kw_only=True)
class KvCacheConfig:
    enable_block_reuse: bool = True
    max_tokens: int | None = None
    max_attention_window: list[int] | None = None
    free_gpu_memory_fraction: float | None = None


@dataclass(kw_only=True)
class ExecutorConfig:
    max_beam_width: int = 1
    scheduler_config: SchedulerConfig = field(default_factory=SchedulerConfig)
    kv_cache_config: KvCacheConfig = field(default_factory=KvCacheConfig)
    enable_chunked_context: bool = False
    batching_type: BatchingType = BatchingType.INFLIGHT
    max_batch_size: int | None = None
    fail_fast_on_attention_window_too_large: bool = False


@dataclass(kw_only=True)
class SamplingConfig:
    """The fields that are used, with the executor's own check."""

    beam_width: int = 1
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    temperature: float | None = None
    repetition_penalty: float | None = None

    def __post_init__(self) -> None:
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise RuntimeError("[TensorRT-LLM][ERROR] Assertion failed: topP.value() <= 1.f")


@dataclass(kw_only=True)
class Request:
    input_token_ids: list[int]
    max_tokens: int
    streaming: bool = False
    sampling_config: SamplingConfig = field(default_factory=SamplingConfig)
    end_id: int | None = None
    pad_id: int | None = None
    stop_words: list[list[int]] | None = None


@dataclass
class Executor:
    """Says what follows the first token of a prompt: `pace` tokens between two looks at it.

    As the real one it ends at the end token and leaves that out (NVIDIA/TensorRT-LLM issue 2190).
    """

    model_path: str
    model_type: ModelType
    executor_config: ExecutorConfig
    running: dict[int, tuple[Request, int]] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    late: list[Any] = field(default_factory=list)
    largest: int = 0
    pace: int = 1
    fails: str = ""
    ends_as: Any = None
    gate: threading.Semaphore | None = None
    down: bool = False
    ids: Any = field(default_factory=lambda: itertools.count(7))

    def enqueue_request(self, request: Request) -> int:
        assert request.streaming
        self.asked.append(request)
        number = next(self.ids)
        self.running[number] = (request, 0)
        self.largest = max(self.largest, len(self.running))
        return int(number)

    def cancel_request(self, id: int) -> None:
        self.cancelled.append(id)
        del self.running[id]
        self.late.append(_response(id, [], End.CANCELLED))

    def await_responses(self, timeout: datetime.timedelta | None = None) -> list[Any]:
        assert timeout is not None
        assert datetime.timedelta() < timeout < datetime.timedelta(seconds=1)
        if self.gate is not None and not self.gate.acquire(timeout=timeout.total_seconds()):
            return []
        responses, self.late = self.late, []
        for number in list(self.running):
            responses.append(self._next(number))
        return responses

    def shutdown(self) -> None:
        self.down = True

    def _next(self, number: int) -> Any:
        request, said = self.running[number]
        if self.fails:
            return _response(number, [], None, self.fails)
        ids = [*request.input_token_ids[1:], END][said : said + self.pace]
        reason = next((why for why in (_why(request, token) for token in ids) if why), None)
        ids = [token for token in ids if token != request.end_id]
        if said + len(ids) >= request.max_tokens:
            ids, reason = ids[: request.max_tokens - said], reason or End.LENGTH
        reason = self.ends_as or reason
        self.running[number] = (request, said + len(ids))
        if reason:
            del self.running[number]
        return _response(number, ids, reason)


def _why(request: Request, token: int) -> Any:
    if token == request.end_id:
        return End.END_ID
    return End.STOP_WORDS if [token] in (request.stop_words or []) else None


def _response(number: int, ids: Sequence[int], reason: Any, error: str = "") -> Any:
    result = SimpleNamespace(
        is_final=reason is not None, output_token_ids=[list(ids)], finish_reasons=[reason or End.NOT_FINISHED]
    )
    return SimpleNamespace(request_id=number, has_error=lambda: bool(error), error_msg=error, result=result)


def stand_in_tensorrt_llm() -> dict[str, ModuleType]:
    package, bindings, executor = (
        ModuleType(name) for name in ("tensorrt_llm", "tensorrt_llm.bindings", "tensorrt_llm.bindings.executor")
    )
    for given in (
        Executor,
        ExecutorConfig,
        KvCacheConfig,
        SchedulerConfig,
        SamplingConfig,
        Request,
        ModelType,
        BatchingType,
        CapacitySchedulerPolicy,
    ):
        setattr(executor, given.__name__, given)
    executor.FinishReason = End  # type: ignore[attr-defined]
    executor.Result = SimpleNamespace  # type: ignore[attr-defined]
    bindings.executor = executor  # type: ignore[attr-defined]
    package.bindings = bindings  # type: ignore[attr-defined]
    return {module.__name__: module for module in (package, bindings, executor)}


@pytest.fixture
def trtllm_engine(monkeypatch: pytest.MonkeyPatch) -> Any:
    return fresh(monkeypatch, "trtllm_engine", stand_in_tensorrt_llm())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An engine as it is delivered: a plan that was built for 4 requests of 128 tokens, and a tokenizer."""
    for part in ("plan", "tokenizer"):
        (tmp_path / part).mkdir()
    built = {"max_batch_size": 4, "max_seq_len": 128, "max_num_tokens": 8192}
    (tmp_path / "plan" / "config.json").write_text(json.dumps({"version": "1.2.1", "build_config": built}))
    (tmp_path / "tokenizer" / "generation_config.json").write_text(json.dumps({"eos_token_id": [END, MORE]}))
    return tmp_path


class Stage:
    """The engine in its loop."""

    def __init__(self, module: Any, folder: Path, **changed: str) -> None:
        parameters = {**PARAMETERS, "engine_path": str(folder), **changed}
        self.engine = module.TrtllmEngine(module.EngineSettings.from_parameters(parameters))
        self.executor: Executor = self.engine._executor
        self.meters = FakeMeters()
        self.died = threading.Event()
        self.loop = EngineLoop(
            self.engine,
            self.meters,
            max_batch=int(parameters["max_batch"]),
            clock=map(float, itertools.count()).__next__,
            on_death=lambda error: self.died.set(),
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
def stage(trtllm_engine: Any, folder: Path) -> Stage:
    return Stage(trtllm_engine, folder)


def test_the_settings_become_the_executors(stage: Stage, folder: Path) -> None:
    assert stage.executor.model_path == str(folder / "plan")
    assert stage.executor.model_type is ModelType.DECODER_ONLY
    assert stage.executor.executor_config == ExecutorConfig(
        max_batch_size=2,
        enable_chunked_context=True,
        fail_fast_on_attention_window_too_large=True,
        kv_cache_config=KvCacheConfig(
            enable_block_reuse=False,
            max_tokens=256,
            max_attention_window=[32, 32, 128],
            free_gpu_memory_fraction=0.9,
        ),
    )


def test_the_tokenizer_lies_in_a_folder_of_its_own(stage: Stage, folder: Path) -> None:
    assert StandInTokenizer.opened[-1][0] == str(folder / "tokenizer")


TOO_SMALL = {
    "a longer context than the plan has": ({"context": "129"}, "max_seq_len 128, less than the 129"),
    "a larger batch than the plan has": ({"max_batch": "5"}, "max_batch_size 4, less than the 5"),
}


@pytest.mark.parametrize(("changed", "named"), TOO_SMALL.values(), ids=TOO_SMALL.keys())
def test_a_plan_that_is_too_small_is_refused_before_it_is_loaded(
    trtllm_engine: Any, folder: Path, changed: dict[str, str], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        Stage(trtllm_engine, folder, **changed)


SAMPLED = {
    "greedy, whatever else is asked": (
        Ask("x", top_p=0.5, seed=3, repetition_penalty=1.2),
        SamplingConfig(top_k=1, repetition_penalty=1.2),
    ),
    "sampled": (
        Ask("x", temperature=0.7, top_p=0.5, seed=2**64 - 1),
        SamplingConfig(temperature=0.7, top_p=0.5, seed=2**64 - 1, repetition_penalty=1.0),
    ),
}


@pytest.mark.parametrize(("ask", "config"), SAMPLED.values(), ids=SAMPLED.keys())
def test_how_an_answer_is_drawn(trtllm_engine: Any, ask: Ask, config: SamplingConfig) -> None:
    assert trtllm_engine.sampling(ask) == config


def test_without_a_seed_each_answer_is_drawn_anew(trtllm_engine: Any) -> None:
    seeds = {trtllm_engine.sampling(Ask("x", temperature=1.0)).seed for _ in range(3)}
    assert len(seeds) == 3
    assert None not in seeds


def test_what_the_executor_refuses_is_the_clients_to_hear(trtllm_engine: Any) -> None:
    with pytest.raises(RefusedError, match="refuses these sampling parameters"):
        trtllm_engine.sampling(Ask("x", temperature=1.0, top_p=2.0))


@pytest.mark.parametrize("pace", [1, 3], ids="{} tokens a response".format)
def test_all_are_answered_with_reason_and_counts(stage: Stage, pace: int) -> None:
    stage.executor.pace = pace
    clients = [stage.ask(text) for text in ("one", "héllo 🚀", "a")]
    stage.run()
    assert [client.text for client in clients] == ["one", "héllo 🚀", "a"]
    assert all("\ufffd" not in piece for client in clients for piece in client.pieces)
    assert [client.end for client in clients] == [(FinishReason.STOP, n + 1, n) for n in (3, 11, 1)]
    assert stage.meters.counted == {"prompt": 18, "completion": 15}


def test_every_token_that_ends_an_answer_ends_it(stage: Stage) -> None:
    client = stage.ask("one$two")
    stage.run()
    assert client.end == (FinishReason.STOP, 8, 4)
    (request,) = stage.executor.asked
    assert (request.end_id, request.pad_id, request.stop_words) == (END, END, [[MORE]])


def test_never_more_than_the_batch_run_at_once(trtllm_engine: Any, folder: Path) -> None:
    stage = Stage(trtllm_engine, folder, max_batch="3")
    clients = [stage.ask("x" * n) for n in range(1, 9)]
    stage.run()
    assert [len(client.text) for client in clients] == list(range(1, 9))
    assert stage.executor.largest == 3


def test_an_answer_that_reaches_the_limit_says_so(stage: Stage) -> None:
    client = stage.ask("one two", max_new_tokens=4)
    stage.run()
    assert (client.text, client.end) == ("one ", (FinishReason.LENGTH, 8, 4))


def test_a_stop_string_over_token_borders_ends_the_generation_and_frees_its_slot(stage: Stage) -> None:
    client = stage.ask("one two three", stop=("two",))
    other = stage.ask("one twin", stop=("two",))
    stage.run()
    assert (client.text, client.end) == ("one ", (FinishReason.STOP, 14, 7))
    assert stage.executor.cancelled == [7]
    assert other.text == "one twin"


def test_who_hangs_up_frees_a_slot_though_the_executor_is_silent(trtllm_engine: Any, folder: Path) -> None:
    stage = Stage(trtllm_engine, folder, max_batch="1")
    gate = stage.executor.gate = threading.Semaphore(0)
    leaving, staying = stage.ask("x" * 100), stage.ask("stay")
    stage.loop.start()
    leaving.hung_up.set()
    assert leaving.over.wait(SECONDS)
    gate.release(100)
    stage.loop.close(SECONDS)
    assert leaving.end == (FinishReason.CANCELLED, 101, 0)
    assert stage.executor.cancelled in ([], [7]), "it may have hung up before it ran"
    assert (staying.text, staying.failed) == ("stay", "")
    assert not stage.died.is_set()


LOST = {
    "a failed step": ({"fails": "CUDA error: an illegal memory access"}, "illegal memory access"),
    "a time limit that nobody set": ({"ends_as": End.TIMED_OUT}, "ended a request by itself"),
    "a cancelling that nobody asked for": ({"ends_as": End.CANCELLED}, "ended a request by itself"),
}


@pytest.mark.parametrize(("how", "named"), LOST.values(), ids=LOST.keys())
def test_when_the_executor_fails_nobody_waits_for_ever(stage: Stage, how: dict[str, Any], named: str) -> None:
    for name, value in how.items():
        setattr(stage.executor, name, value)
    clients = [stage.ask(text) for text in ("one", "two", "three")]
    stage.loop.start()
    assert stage.died.wait(SECONDS)
    for client in clients:
        assert client.over.wait(SECONDS)
        assert named in client.failed


def test_too_long_a_prompt_never_reaches_the_executor(stage: Stage) -> None:
    with pytest.raises(RefusedError, match=r"prompt has 201 tokens.*more than the context of 128"):
        stage.ask("x" * 200)
    assert stage.executor.asked == []


def test_a_raw_prompt_begins_as_the_tokenizer_says(stage: Stage) -> None:
    assert stage.engine.prepare(Ask("Hi", raw_prompt=True)).prompt.input_token_ids == [BEGIN, *b"Hi"]


def test_closing_ends_the_executors_thread(stage: Stage) -> None:
    stage.engine.close()
    assert stage.executor.down
