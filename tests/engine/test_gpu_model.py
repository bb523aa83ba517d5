"""The generic Triton model on a real tritonserver, as it lies in NVIDIA's images: what it needs is beside model.py.

There is no GPU here. `vllm` and `transformers` are stand-ins of a page, written beside model.py: the tokens of the one
are bytes, and the other says the question again, a token a step. What is proved is all around them.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

import r1plus_contract
import r1plus_model_repo
from engine.asking import Client
from engine.conftest import Server, serving, until
from r1plus_contract import inference

pytestmark = pytest.mark.triton

BATCH, CONTEXT = 4, 600
LONG = "x" * 500
MODEL = """
import sys

import r1plus_contract
import r1plus_model_repo.backends.triton_model
from r1plus_model_repo.backends.triton_model import TritonPythonModel

for module in (r1plus_contract, r1plus_model_repo.backends.triton_model):
    print("Imported", module.__file__, file=sys.stderr, flush=True)
"""
STAND_IN_TRANSFORMERS = '''
"""A stand-in for transformers: tokens are bytes, and 256 is the end."""


class AutoTokenizer:
    eos_token_id, pad_token_id, chat_template = 256, None, "a template"

    @classmethod
    def from_pretrained(cls, name, *, local_files_only, trust_remote_code):
        assert local_files_only and not trust_remote_code
        return cls()

    def encode(self, text, add_special_tokens):
        return list(text.encode())

    def decode(self, ids, skip_special_tokens, clean_up_tokenization_spaces):
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def apply_chat_template(self, messages, *, tokenize, add_generation_prompt):
        return "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"
'''
STAND_IN_VLLM = '''
"""A stand-in for vLLM: it says the prompt again, a token a step of a hundredth of a second."""

import sys
import time
from types import SimpleNamespace

print("Imported", __file__, file=sys.stderr, flush=True)


class EngineArgs(SimpleNamespace):
    pass


class SamplingParams(SimpleNamespace):
    pass


class LLMEngine:
    @classmethod
    def from_engine_args(cls, args):
        assert not args.enable_prefix_caching
        return cls()

    def __init__(self):
        self._running = {}
        self.engine_core = SimpleNamespace(shutdown=lambda: print("Shut down", file=sys.stderr, flush=True))

    def add_request(self, request_id, prompt, params):
        ids = prompt["prompt_token_ids"]
        if bytes(ids) == b"break":
            raise RuntimeError("out of memory in a kernel")
        ids = [*ids, 256]
        self._running[request_id] = [ids[: params.max_tokens], len(ids) > params.max_tokens]

    def abort_request(self, request_ids):
        for request_id in request_ids:
            del self._running[request_id]
            print("Aborted", file=sys.stderr, flush=True)

    def step(self):
        time.sleep(0.01)
        return [self._next(request_id) for request_id in list(self._running)]

    def _next(self, request_id):
        left, cut = self._running[request_id]
        token, reason = left.pop(0), None
        if not left:
            del self._running[request_id]
            reason = "length" if cut else "stop"
        output = SimpleNamespace(token_ids=[token], finish_reason=reason)
        return SimpleNamespace(request_id=request_id, outputs=[output])
'''
STAND_IN_SAMPLING_PARAMS = "from types import SimpleNamespace\n\nRequestOutputKind = SimpleNamespace(DELTA=1)\n"
PARAMETERS = {
    "backend": "vllm",
    "engine_path": "/delivery/engine",
    "max_batch": str(BATCH),
    "context": str(CONTEXT),
    "kv_precision": "FP16",
    "gpus": "1",
    "gpu_memory_fraction": "0.9",
}
_INPUTS = (
    (inference.PROMPT, pb.TYPE_STRING),
    (inference.SYSTEM, pb.TYPE_STRING),
    (inference.RAW_PROMPT, pb.TYPE_BOOL),
    (inference.MAX_NEW_TOKENS, pb.TYPE_INT32),
    (inference.TEMPERATURE, pb.TYPE_FP32),
    (inference.TOP_P, pb.TYPE_FP32),
    (inference.REPETITION_PENALTY, pb.TYPE_FP32),
    (inference.SEED, pb.TYPE_UINT64),
    (inference.STOP, pb.TYPE_STRING),
)
_OUTPUTS = (
    (inference.TEXT, pb.TYPE_STRING),
    (inference.FINISH_REASON, pb.TYPE_STRING),
    (inference.PROMPT_TOKENS, pb.TYPE_INT32),
    (inference.COMPLETION_TOKENS, pb.TYPE_INT32),
)


def config(parameters: dict[str, str]) -> str:
    """config.pbtxt; but for the instance's kind as for a GPU."""
    made = pb.ModelConfig(
        name=inference.MODEL_NAME,
        backend="python",
        max_batch_size=0,
        input=[
            pb.ModelInput(name=name, data_type=kind, dims=[1], optional=name != inference.PROMPT)
            for name, kind in _INPUTS
        ],
        output=[pb.ModelOutput(name=name, data_type=kind, dims=[1]) for name, kind in _OUTPUTS],
        instance_group=[pb.ModelInstanceGroup(count=1, kind=pb.ModelInstanceGroup.KIND_CPU)],
        model_transaction_policy=pb.ModelTransactionPolicy(decoupled=True),
    )
    for name, value in parameters.items():
        made.parameters[name].string_value = value
    return str(text_format.MessageToString(made))


def lay_out(root: Path, parameters: dict[str, str], *, stand_ins: bool = True) -> Path:
    """A model repository as the init container makes it: our packages beside model.py, in the model's version."""
    version = root / "models" / inference.MODEL_NAME / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(config(parameters))
    (version / "model.py").write_text(MODEL)
    contract, model_repo = (Path(str(module.__file__)).parent for module in (r1plus_contract, r1plus_model_repo))
    no_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(contract, version / "r1plus_contract", ignore=no_caches)
    shutil.copytree(model_repo / "backends", version / "r1plus_model_repo" / "backends", ignore=no_caches)
    shutil.copy(model_repo / "__init__.py", version / "r1plus_model_repo")
    if stand_ins:
        for package in ("vllm", "transformers"):
            (version / package).mkdir()
        (version / "transformers" / "__init__.py").write_text(STAND_IN_TRANSFORMERS)
        (version / "vllm" / "__init__.py").write_text(STAND_IN_VLLM)
        (version / "vllm" / "sampling_params.py").write_text(STAND_IN_SAMPLING_PARAMS)
    return root / "models"


def bare_python(root: Path) -> Path:
    """A Python with numpy and nothing of ours, as in NVIDIA's images: the path of its python3."""
    packages = root / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    packages.mkdir(parents=True)
    for installed in Path(numpy.__file__).parents[1].glob("numpy*"):
        (packages / installed.name).symlink_to(installed)
    (root / "bin").mkdir()
    python = root / "bin" / "python3"
    python.symlink_to(Path(sys.executable).resolve())
    (root / "pyvenv.cfg").write_text(f"home = {python.resolve().parent}\ninclude-system-site-packages = false\n")
    return python


@pytest.fixture(scope="module")
def as_in_the_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`Server` puts the folder of this Python on the PATH, where the stub looks for packages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(bare_python(tmp_path_factory.mktemp("python"))))
        yield


@pytest.fixture(scope="module")
def gpu_server(tmp_path_factory: pytest.TempPathFactory, installed: Path, as_in_the_image: None) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("gpu")
    with serving(Server(root, installed, lay_out(root, PARAMETERS))) as running:
        yield running


@pytest.fixture
def ask_gpu(gpu_server: Server) -> Iterator[Client]:
    with Client(gpu_server.grpc) as client:
        yield client


def ended(server: Server, result: str) -> float:
    return server.metric(f'r1plus_engine_requests_total{{result="{result}"}}')


def test_what_lies_beside_the_model_is_what_runs(gpu_server: Server) -> None:
    lines = [line for line in gpu_server.log.read_text().splitlines() if line.startswith("Imported ")]
    version = gpu_server.log.parent / "models" / inference.MODEL_NAME / "1"
    assert sorted(lines) == sorted(
        f"Imported {version / module}"
        for module in (
            "r1plus_contract/__init__.py",
            "r1plus_model_repo/backends/triton_model.py",
            "vllm/__init__.py",
        )
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


def test_a_stop_string_over_token_borders_ends_the_answer_before_it(ask_gpu: Client) -> None:
    answer = ask_gpu("one two three", raw_prompt=True, stop=["two"])
    assert (answer.text, answer.reason) == ("one ", "stop")


def test_more_than_the_batch_are_all_answered(ask_gpu: Client) -> None:
    questions = [{"prompt": "x" * n, "raw_prompt": True} for n in range(1, 3 * BATCH)]
    assert [len(answer.text) for answer in ask_gpu.all(questions)] == list(range(1, 3 * BATCH))


def test_too_long_a_prompt_is_refused_with_both_lengths(ask_gpu: Client) -> None:
    answer = ask_gpu("x" * CONTEXT, raw_prompt=True, max_new_tokens=2)
    assert f"prompt has {CONTEXT} tokens; with 2 new tokens that is {CONTEXT + 2}" in answer.error
    assert ask_gpu("next", raw_prompt=True).text == "next"


def test_who_hangs_up_frees_the_engine(ask_gpu: Client, gpu_server: Server) -> None:
    aborted, cancelled = gpu_server.log.read_text().count("Aborted"), ended(gpu_server, "cancelled")
    for _ in range(BATCH):
        ask_gpu.begin(prompt=LONG, raw_prompt=True, max_new_tokens=90)
    ask_gpu.take()
    until(lambda: gpu_server.metric("r1plus_engine_running_requests") == BATCH, 10)
    ask_gpu.hang_up()
    until(lambda: gpu_server.metric("r1plus_engine_running_requests") == 0, 10)
    assert gpu_server.log.read_text().count("Aborted") == aborted + BATCH
    assert ended(gpu_server, "cancelled") == cancelled + BATCH
    assert ask_gpu("next", raw_prompt=True).text == "next"


def test_the_server_counts_tokens_and_results(ask_gpu: Client, gpu_server: Server) -> None:
    tokens = 'r1plus_engine_tokens_total{direction="completion"}'
    before, ok, refused = gpu_server.metric(tokens), ended(gpu_server, "ok"), ended(gpu_server, "refused")
    ask_gpu("Hi", raw_prompt=True)
    ask_gpu("Hi", max_new_tokens=0)
    until(lambda: (ended(gpu_server, "ok"), ended(gpu_server, "refused")) == (ok + 1, refused + 1), 10)
    assert gpu_server.metric(tokens) == before + 3
    assert gpu_server.metric("r1plus_engine_time_to_first_token_seconds_count") > 0


INCOMPATIBLE = {
    "a library that the image has not": (
        PARAMETERS,
        "EngineIncompatible: vLLM cannot load /delivery/engine: ModuleNotFoundError: No module named 'vllm'",
    ),
    "a backend of another version": (
        {**PARAMETERS, "backend": "llmapi"},
        "EngineIncompatible: backend: llmapi is none of openvino, vllm, tensorrtllm",
    ),
}


@pytest.mark.parametrize(("parameters", "word"), INCOMPATIBLE.values(), ids=INCOMPATIBLE.keys())
def test_an_engine_that_cannot_be_opened_ends_the_server_with_the_reason_in_its_log(
    tmp_path: Path, installed: Path, as_in_the_image: None, parameters: dict[str, str], word: str
) -> None:
    server = Server(tmp_path, installed, lay_out(tmp_path, parameters, stand_ins=False))
    try:
        until(lambda: server.process.poll() is not None, 60)
        assert word in server.log.read_text()
    finally:
        server.end()


def test_an_engine_that_is_lost_ends_open_requests_and_the_server(
    tmp_path: Path, installed: Path, as_in_the_image: None
) -> None:
    with serving(Server(tmp_path, installed, lay_out(tmp_path, PARAMETERS))) as server:
        with Client(server.grpc) as ask:
            assert "the engine stopped: out of memory in a kernel" in ask("break", raw_prompt=True).error
        until(lambda: server.process.poll() is not None, 60)


def test_a_server_that_is_told_to_end_shuts_the_engine_down(
    tmp_path: Path, installed: Path, as_in_the_image: None
) -> None:
    with serving(Server(tmp_path, installed, lay_out(tmp_path, PARAMETERS))) as server:
        server.process.terminate()
        until(lambda: server.process.poll() is not None, 60)
        assert server.log.read_text().count("Shut down") == 1
