"""The generic Triton model on a real tritonserver, as it lies in NVIDIA's images: what it needs is beside model.py.

There is no GPU here. `vllm` and `transformers` are stand-ins of a page, written beside model.py: the tokens of the one
are bytes, and the other says the question again, a token a step. What is proved is all around them.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1plus_contract import inference
from support.engine.client import Client
from support.engine.models import GPU_BATCH, GPU_CONTEXT, bare_python, write_gpu_model
from support.engine.server import Server, ending, serving
from support.waiting import wait_until

pytestmark = [pytest.mark.triton, pytest.mark.timeout(1500)]

RUNNING = "r1plus_engine_running_requests"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python whose folder is on the PATH, where the stub looks for packages."""
    return bare_python(tmp_path_factory.mktemp("python"))


@pytest.fixture(scope="module")
def gpu_server(tmp_path_factory: pytest.TempPathFactory, installed: Path, python: str) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("gpu")
    with serving(Server(root, installed, write_gpu_model(root), python=python)) as running:
        yield running


@pytest.fixture
def ask_gpu(gpu_server: Server) -> Iterator[Client]:
    with Client(gpu_server.grpc) as client:
        yield client


def test_what_lies_beside_the_model_is_what_runs(gpu_server: Server) -> None:
    lines = [line for line in gpu_server.log.read_text().splitlines() if line.startswith("Imported ")]
    version = gpu_server.log.parent / "models" / inference.MODEL_NAME / "1"
    assert sorted(lines) == sorted(
        f"Imported {version / module}"
        for module in ("r1plus_contract/__init__.py", "r1plus_model_repo/backends/triton_model.py", "vllm/__init__.py")
    )


def test_an_answer_streams_in_whole_characters_and_ends_with_reason_and_counts(ask_gpu: Client) -> None:
    answer = ask_gpu("Grüße 🚀", system="Be brief")
    assert answer.error == ""
    assert answer.text == "<system>Be brief<user>Grüße 🚀<assistant>"
    assert len(answer.pieces) > 20
    assert not any("\ufffd" in piece for piece in answer.pieces)
    assert answer.reason == "stop"
    assert (answer.prompt_tokens, answer.tokens) == (len(answer.text.encode()), len(answer.text.encode()) + 1)


def test_all_inputs_reach_the_engine(ask_gpu: Client) -> None:
    given = {"temperature": 0.5, "top_p": 0.9, "repetition_penalty": 1.1, "seed": 2**64 - 1}
    answer = ask_gpu("one two three", raw_prompt=True, max_new_tokens=5, **given)
    assert (answer.text, answer.reason, answer.tokens) == ("one t", "length", 5)


def test_a_conversation_and_its_count(ask_gpu: Client) -> None:
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Ho"},
        {"role": "tool", "content": "4"},
    ]
    answer, counted = ask_gpu(messages=messages), ask_gpu(messages=messages, count_only=True)
    assert answer.text == "<user>Hi<assistant>Ho<tool>4<assistant>"
    assert answer.first_prompt_tokens == answer.prompt_tokens == counted.prompt_tokens == len(answer.text)
    assert (counted.text, counted.tokens, counted.reason) == ("", 0, "stop")


def test_a_constraint_is_read_before_the_engine_gets_it(ask_gpu: Client) -> None:
    refused = ask_gpu("Hi", response_schema={"type": "integer", "minimum": 5})
    assert "response_schema: the engine cannot compile the schema: Invalid range" in refused.error
    assert ask_gpu("Hi", raw_prompt=True, response_schema={"type": "string"}).text == "Hi"


def test_a_stop_string_over_token_borders_ends_the_answer_before_it(ask_gpu: Client) -> None:
    answer = ask_gpu("one two three", raw_prompt=True, stop=["two"])
    assert (answer.text, answer.reason) == ("one ", "stop")


def test_more_than_the_batch_are_all_answered(ask_gpu: Client) -> None:
    questions = [{"prompt": "x" * n, "raw_prompt": True} for n in range(1, 3 * GPU_BATCH)]
    assert [len(answer.text) for answer in ask_gpu.all(questions)] == list(range(1, 3 * GPU_BATCH))


def test_too_long_a_prompt_is_refused_with_both_lengths(ask_gpu: Client) -> None:
    answer = ask_gpu("x" * GPU_CONTEXT, raw_prompt=True, max_new_tokens=2)
    assert f"prompt has {GPU_CONTEXT} tokens; with 2 new tokens that is {GPU_CONTEXT + 2}" in answer.error
    assert ask_gpu("next", raw_prompt=True).text == "next"


def test_who_hangs_up_frees_the_engine(ask_gpu: Client, gpu_server: Server) -> None:
    aborted, cancelled = gpu_server.log.read_text().count("Aborted"), gpu_server.requests("cancelled")
    for _ in range(GPU_BATCH):
        ask_gpu.begin(prompt="hold", raw_prompt=True, max_new_tokens=90)
    ask_gpu.take()
    gpu_server.until_metric(RUNNING, GPU_BATCH)
    ask_gpu.hang_up()
    gpu_server.until_metric(RUNNING, 0)
    assert gpu_server.log.read_text().count("Aborted") == aborted + GPU_BATCH
    assert gpu_server.requests("cancelled") == cancelled + GPU_BATCH
    assert ask_gpu("next", raw_prompt=True).text == "next"


def test_the_server_counts_tokens_and_results(ask_gpu: Client, gpu_server: Server) -> None:
    tokens = 'r1plus_engine_tokens_total{direction="completion"}'
    before, ok, refused = gpu_server.metric(tokens), gpu_server.requests("ok"), gpu_server.requests("refused")
    ask_gpu("Hi", raw_prompt=True)
    ask_gpu("Hi", max_new_tokens=0)
    wait_until(
        lambda: (gpu_server.requests("ok"), gpu_server.requests("refused")) == (ok + 1, refused + 1), "both are counted"
    )
    assert gpu_server.metric(tokens) == before + 3
    assert gpu_server.metric("r1plus_engine_time_to_first_token_seconds_count") > 0


INCOMPATIBLE = {
    "a library that the image has not": (
        {},
        "EngineIncompatible: vLLM cannot load /delivery/engine: ModuleNotFoundError: No module named 'vllm'",
    ),
    "a backend of another version": (
        {"backend": "llmapi"},
        "EngineIncompatible: backend: llmapi is not one of openvino, openvino-sparse, vllm, tensorrtllm, torch",
    ),
}


@pytest.mark.parametrize(("parameters", "word"), INCOMPATIBLE.values(), ids=INCOMPATIBLE.keys())
def test_an_engine_that_cannot_be_opened_ends_the_server_with_the_reason_in_its_log(
    tmp_path: Path, installed: Path, python: str, parameters: dict[str, str], word: str
) -> None:
    models = write_gpu_model(tmp_path, stand_ins=False, **parameters)
    with ending(Server(tmp_path, installed, models, python=python)) as server:
        server.until_ended()
        assert word in server.log.read_text()


def test_the_configuration_of_an_older_revision_is_served_and_refuses_the_newer_inputs(
    tmp_path: Path, installed: Path, python: str
) -> None:
    """Callers go by the words (docs/calling.md)."""
    models = write_gpu_model(tmp_path)
    config = models / inference.MODEL_NAME / "config.pbtxt"
    older = re.sub(
        r'input \{\n  name: "(messages|count_only|response_schema|grammar)"\n(  .*\n)+\}\n', "", config.read_text()
    )
    config.write_text(
        older.replace(
            '"text_input"\n  data_type: TYPE_STRING\n  dims: 1\n  optional: true',
            '"text_input"\n  data_type: TYPE_STRING\n  dims: 1',
        )
    )
    assert len(re.findall("^input ", config.read_text(), re.MULTILINE)) == 9
    with serving(Server(tmp_path, installed, models, python=python)) as server, Client(server.grpc) as ask:
        assert ask("Hi", raw_prompt=True).text == "Hi"
        said = ask("Hi", count_only=True, max_new_tokens=1).error
        assert "unexpected inference input 'count_only' for model 'r1plus'" in said


def test_an_image_that_lacks_an_input_of_its_configuration_ends_the_server(
    tmp_path: Path, installed: Path, python: str
) -> None:
    models = write_gpu_model(tmp_path)
    config = models / inference.MODEL_NAME / "config.pbtxt"
    config.write_text(config.read_text().replace('"grammar"', '"newer"'))
    with ending(Server(tmp_path, installed, models, python=python)) as server:
        server.until_ended()
        assert "EngineIncompatible: input: newer: the image is older than the configuration" in server.log.read_text()
