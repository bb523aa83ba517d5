"""Constraints compiled by OpenVINO GenAI before a request reaches the engine.

The engine compiles a constraint in its step. If that fails, the step fails and every later one too (2026.4): one wrong
schema would end the server. There is no call that only compiles. So each constraint is first tried on a model of no
size that has the engine's tokenizer: one that cannot be compiled fails there. Tokenizer and compiler are shared, so the
engine's step finds the constraint compiled.

The compiler keeps what it has compiled, for as long as tokenizer and pipeline live: `SchemaMemory` bounds the total.
"""

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy
import openvino
import openvino_genai
from openvino import opset13

from r1plus_contract.inference import GRAMMAR
from r1plus_model_repo.backends.constraint.constraints import Constraint
from r1plus_model_repo.backends.constraint.schema_memory import SchemaMemory
from r1plus_model_repo.backends.requests import RefusedError

MEASURED_VOCABULARY: Final = 49_152
"""With which `Constraint.compiled_kib` was measured."""


def build_structured_output(constraint: Constraint) -> Any:
    """Return the library's form of a constraint."""
    if constraint.is_schema:
        return openvino_genai.StructuredOutputConfig(json_schema=constraint.text)
    return openvino_genai.StructuredOutputConfig(grammar=constraint.text)


class ConstraintCompiler:
    """Tries constraints. Safe from any thread; one at a time."""

    def __init__(self, engine: Path, tokenizer: Any, eos: int, memory: SchemaMemory) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._eos = eos
        self._memory = memory
        self._vocabulary = 0
        self._lock = threading.Lock()
        self._trial: Any = None

    def compile(self, constraint: Constraint, owner: str) -> None:
        """Compile a constraint, unless that is done.

        Raises:
            RefusedError: it cannot be compiled.
            SchemaMemoryFullError: its owner may have no further one now.
        """
        digest = hashlib.sha256(f"{constraint.name} {constraint.text}".encode()).digest()
        if self._memory.knows(digest):  # without the lock: the engine's thread asks, too
            return
        with self._lock:
            if self._memory.knows(digest):
                return
            if self._trial is None:
                self._trial = self._build_trial()
            size = self._estimate_bytes(constraint)
            self._memory.check_room(constraint.name, owner, size)
            self._try(constraint)
            self._memory.add(digest, owner, size)

    def replace_tokenizer(self, build: Callable[[], Any]) -> None:
        """Forget all constraints: use the tokenizer that `build` returns. Nothing is compiled meanwhile."""
        with self._lock:
            self._trial = None
            self._tokenizer = build()
            self._memory.clear()

    def _try(self, constraint: Constraint) -> None:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = 1
        config.set_eos_token_id(self._eos)
        config.structured_output_config = build_structured_output(constraint)
        try:
            self._trial.generate(openvino.Tensor(numpy.array([[self._eos]], dtype=numpy.int64)), config)
        except RuntimeError as error:
            self._trial = None  # It may be left in the middle of a generation.
            what = "grammar" if constraint.name == GRAMMAR else "schema"
            raise RefusedError(f"{constraint.name}: the engine cannot compile the {what}: {_shorten(error)}") from error

    def _estimate_bytes(self, constraint: Constraint) -> int:
        return round(1024 * constraint.compiled_kib * max(1.0, self._vocabulary / MEASURED_VOCABULARY))

    def _build_trial(self) -> Any:
        if not self._vocabulary:
            model = openvino.Core().read_model(str(self._engine / "openvino_model.xml"))
            self._vocabulary = model.output("logits").partial_shape[-1].get_length()
        with TemporaryDirectory() as folder:
            path = Path(folder, "trial.xml")
            openvino.serialize(_build_model(self._vocabulary), str(path))
            xml, weights = path.read_text(encoding="utf-8"), path.with_suffix(".bin").read_bytes()
        return openvino_genai.LLMPipeline(
            xml,
            openvino.Tensor(numpy.frombuffer(weights, dtype=numpy.uint8).copy()),
            self._tokenizer,
            "CPU",
            openvino_genai.GenerationConfig(),
            ATTENTION_BACKEND="SDPA",
            INFERENCE_NUM_THREADS=1,
        )


def _build_model(vocabulary: int) -> Any:
    """Build a language model without layers: its logits are 0."""
    ids = opset13.parameter([-1, -1], numpy.int64, name="input_ids")
    others = [
        opset13.parameter([-1, -1], numpy.int64, name="attention_mask"),
        opset13.parameter([-1, -1], numpy.int64, name="position_ids"),
        opset13.parameter([-1], numpy.int32, name="beam_idx"),
    ]
    for parameter in (ids, *others):
        parameter.output(0).set_names({parameter.get_friendly_name()})
    column = opset13.unsqueeze(opset13.convert(ids, numpy.float32), opset13.constant(numpy.array([2])))
    logits = opset13.matmul(column, opset13.constant(numpy.zeros((1, vocabulary), numpy.float32)), False, False)
    logits.output(0).set_names({"logits"})
    return openvino.Model([opset13.result(logits, name="logits")], [ids, *others], "trial")


def _shorten(error: Exception) -> str:
    """Return the reason of an error of the library, without its place in the library's source."""
    return (
        " ".join(str(error).split()).rpartition(".cc:")[2].partition(": ")[2][:300]
        or " ".join(str(error).split())[:300]
    )
