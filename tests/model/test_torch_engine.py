"""The torch engine in process: the contract of all backends, answers, constraints, and what it refuses to load."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from r1plus_contract.inference import FinishReason
from r1plus_model_repo.backends.constraint.constraints import parse_grammar, parse_schema
from r1plus_model_repo.backends.engine_loop import Job
from r1plus_model_repo.backends.requests import GenerationRequest, RefusedError
from r1plus_model_repo.backends.text.hf_tokens import HfTokens
from r1plus_model_repo.backends.torch_engine import EngineSettings, TorchEngine
from support.model.llamas import write_tiny
from support.model_repo.engine_contract import ContractSubject, EngineContract
from support.model_repo.hf_contract import TOKENIZER_FILES, exchange_tokens, open_tokens
from support.model_repo.smollm2_templates import TEMPLATES
from support.tables import for_each
from support.vllm.engine import convert_smollm2

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]
CONTEXT = 1024
KV_CACHE_BYTES = 256 * 2**20


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_smollm2(tmp_path_factory.mktemp("smollm2") / "checkpoint")


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Iterator[TorchEngine]:
    opened = TorchEngine(EngineSettings(checkpoint, 2, CONTEXT, KV_CACHE_BYTES, threads=1))
    yield opened
    opened.close()


@pytest.fixture(scope="module", params=TEMPLATES)
def tokens(request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> HfTokens:
    """The checkpoint's tokenizer with another chat template."""
    return open_tokens(checkpoint, request.param, tmp_path_factory.mktemp("tokenizer"), CONTEXT)


@pytest.fixture
def subject(request: pytest.FixtureRequest, engine: TorchEngine, tokens: HfTokens) -> Iterator[ContractSubject]:
    with exchange_tokens(engine, tokens, CONTEXT, request.node.name) as exchanged_subject:
        yield exchanged_subject


class TestTorch(EngineContract):
    """R1+'s own architecture in torch."""


def generate(engine: TorchEngine, *jobs: Job) -> list[tuple[str, FinishReason | None]]:
    """Return text and end of generations that run together."""
    handles, ids = [engine.add(job) for job in jobs], [list[int]() for _ in jobs]
    reasons: list[FinishReason | None] = [None for _ in jobs]
    while None in reasons:
        engine.step()
        for number, handle in enumerate(handles):
            if reasons[number] is None:
                new, reasons[number] = handle.read()
                ids[number] += new
    return [(engine.decode(one), reason) for one, reason in zip(ids, reasons, strict=True)]


def test_constraints_beside_each_other_and_beside_none(engine: TorchEngine) -> None:
    question = "What is the capital of France?"
    requests = [
        GenerationRequest(question),
        GenerationRequest("Is the sky blue?", constraint=parse_grammar('root ::= "yes" | "no"')),
        GenerationRequest("A word", constraint=parse_schema('{"enum": ["alpha", "beta"]}'), temperature=1.0, seed=1),
    ]
    (plain, ended), (grammar, _), (schema, _) = generate(engine, *map(engine.prepare, requests))

    assert "Paris" in plain
    assert ended is FinishReason.STOP
    assert grammar in ("yes", "no")
    assert json.loads(schema) in ("alpha", "beta")


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_failure_of_a_constraint_ends_its_request_alone(
    engine: TorchEngine, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    """The answer goes on after its end, so that no token follows the grammar."""
    monkeypatch.setattr(engine._batch, "_end_ids", frozenset())
    constraint = parse_grammar('root ::= "yes"')
    failing = engine.add(engine.prepare(GenerationRequest("Hi", constraint=constraint, temperature=temperature)))
    plain = engine.add(engine.prepare(GenerationRequest("Hi", max_new_tokens=12)))
    while plain.read()[1] is None:
        engine.step()

    with pytest.raises(RefusedError, match=r"^grammar: the engine failed on it: "):
        failing.read()


def test_a_cancelled_request_frees_its_row(engine: TorchEngine) -> None:
    long = [engine.prepare(GenerationRequest("Tell me a long story.", max_new_tokens=400)) for _ in range(2)]
    handles = [engine.add(job) for job in long]
    for _ in range(4):
        engine.step()
    for handle in handles:
        assert handle.read()[0]
        handle.cancel()

    ((text, _),) = generate(engine, engine.prepare(GenerationRequest("What is the capital of Sweden?")))

    assert "Stockholm" in text


def tiny_engine(folder: Path, **settings: Any) -> TorchEngine:
    chosen: dict[str, Any] = {"max_batch": 2, "context": 128, "kv_cache_bytes": 2**20, "threads": 1} | settings
    return TorchEngine(EngineSettings(folder, **chosen))


def test_a_token_that_the_model_lacks_is_refused_and_others_go_on(tmp_path: Path, checkpoint: Path) -> None:
    """The tokenizer has more tokens than the model, as where a checkpoint got added tokens and no embeddings."""
    folder = write_tiny(tmp_path / "tiny")
    for name in TOKENIZER_FILES[1:]:
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    engine = tiny_engine(folder)

    with pytest.raises(RefusedError, match=r"^text_input: has the tokenizer's token \d+, and the model has 97 "):
        engine.prepare(GenerationRequest("lighthouse", raw_prompt=True))

    job = engine.prepare(GenerationRequest("A", raw_prompt=True, max_new_tokens=4))
    ((_, reason),) = generate(engine, job)
    assert reason is not None


def change_config(**fields: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


R1PLUS = {"model_type": "r1plus", "r1plus": {"window": 16, "relative_bias": True}}


@for_each(
    "change, settings, message",
    {
        "another architecture": (change_config(model_type="gpt2"), {}, "model_type: 'gpt2' is not llama or r1plus"),
        "what R1+ adds is missing": (
            change_config(**R1PLUS),
            {},
            "3 tensors are missing: model.layers.0.self_attn.relative_bias",
        ),
        "a window beyond the context": (
            change_config(model_type="r1plus", r1plus={"window": 256}),
            {},
            "r1plus.window: 256 exceeds 128",
        ),
        "no weights": (lambda folder: (folder / "model.safetensors").unlink(), {}, "model.safetensors: cannot be read"),
        "more context than in training": (lambda _: None, {"context": 129}, "context: 129 tokens exceed the 128"),
        "less memory than the cache takes": (
            lambda _: None,
            {"kv_cache_bytes": 1000},
            "bytes, and spec.architecture says 1000; correct",
        ),
    },
)
def test_what_cannot_be_served_is_not_loaded(
    change: Callable[[Path], None], settings: dict[str, Any], message: str, tmp_path: Path, checkpoint: Path
) -> None:
    folder = write_tiny(tmp_path / "tiny")
    for name in TOKENIZER_FILES[1:]:
        (folder / name).write_bytes((checkpoint / name).read_bytes())
    tiny_engine(folder).close()  # Unchanged it is loaded.
    change(folder)

    with pytest.raises(RuntimeError) as raised:
        tiny_engine(folder, **settings)

    assert message in str(raised.value)


@pytest.mark.parametrize("parameter", ["max_batch", "context", "kv_cache_bytes", "threads"])
def test_a_parameter_below_1_is_refused(parameter: str) -> None:
    values = {"engine_path": "x", "max_batch": "1", "context": "16", "kv_cache_bytes": "1", "threads": "1"}
    with pytest.raises(ValueError, match=f"^{parameter}: 0 is less than 1"):
        EngineSettings.from_parameters(values | {parameter: "0"})


def test_without_torch_the_error_says_what_to_install() -> None:
    program = """
import sys
from pathlib import Path
from r1plus_model_repo.backends.torch_engine import EngineSettings, TorchEngine
assert "torch" not in sys.modules
try:
    TorchEngine(EngineSettings(Path("x"), 1, 16, 1, 1))
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("torch is not installed where Triton's Python looks; install r1plus[torch]")
