"""The model in a GGUF file, and whether the backend serves it. The file decides, not the user.

What `openvino-genai` does with a file was read in its sources (src/cpp/src/gguf_utils). It builds the same network for
three architectures and ignores keys that say that the model differs. Such a file would be served and answer wrongly,
so it is rejected here.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_model_repo.importing import chat_template
from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.gguf.header import Header, TensorInfo, read_header
from r1plus_model_repo.importing.gguf.values import Array, Kind, Value

ARCHITECTURES: Final = ("llama", "qwen2", "qwen3")
TENSOR_TYPES: Final = ("F32", "F16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K")
SPLITTERS: Final = ("default", "llama-bpe", "qwen2", "smollm")
"""Values of tokenizer.ggml.pre that the backend knows; with any other it splits text in the default way."""
FILE_TYPES: Mapping[int, str] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    14: "Q4_K_S",
    15: "Q4_K_M",
    18: "Q6_K",
    32: "BF16",
}
"""general.file_type: the declared type of the file (llama_ftype of llama.cpp)."""
PRECISIONS: Mapping[str, str] = {"F32": "FP32", "F16": "FP16"}
"""Tensor type -> precision of a catalog entry, where the names differ."""


MOST_TOLD = 20


@dataclass(frozen=True, slots=True)
class ModelConsumer:
    """What a model is read for, and what that supports."""

    name: str
    architectures: tuple[str, ...]
    tensor_types: tuple[str, ...]
    splitters: tuple[str, ...]
    architecture_remedy: str
    type_remedy: str


OPENVINO_READER: Final = ModelConsumer(
    "the backend openvino",
    ARCHITECTURES,
    TENSOR_TYPES,
    SPLITTERS,
    "convert the model to OpenVINO IR with optimum-intel and import the folder",
    "write the file in one of them: r1plus engine quantize FILE --to Q8_0 --out OTHER.gguf",
)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The shape of a model and the other properties of its catalog entry."""

    architecture: str
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    context_length: int
    """Trained length, or the sliding window: the backend attends to all tokens, which is the same up to there."""
    window: int | None
    """Sliding window of the file; None for full attention."""
    vocabulary: int
    parameters: int
    precision: str
    tensor_types: Mapping[str, int]
    """Number of tensors by type."""
    weights_bytes: int
    chat_template: str
    notes: tuple[str, ...] = ()
    """Warnings for the user; the model is served."""


def read_model(path: Path, consumer: ModelConsumer = OPENVINO_READER) -> ModelFacts:
    """Read the model in the file at `path`. Raise WeightsError with every reason why the consumer cannot take it."""
    header = read_header(path)
    reader = _MetadataReader(header.metadata, consumer)
    facts = reader.read_facts(header)
    if reader.problems:
        raise WeightsError(str(path), _limit_problems(reader.problems))
    return facts


def _limit_problems(problems: list[str]) -> tuple[str, ...]:
    more = len(problems) - MOST_TOLD
    return (*problems[:MOST_TOLD], *((f"and {more} more",) if more > 0 else ()))


class _MetadataReader:
    """Metadata as typed values. A missing or impossible value adds a problem and reads as 0."""

    def __init__(self, metadata: Mapping[str, Value], consumer: ModelConsumer) -> None:
        self._metadata = metadata
        self._consumer = consumer
        self.problems: list[str] = []

    def read_facts(self, header: Header) -> ModelFacts:
        name = self._read_architecture()
        layers = self._get_int(f"{name}.block_count", 1, 1024)
        embedding = self._get_int(f"{name}.embedding_length", 1, 2**20)
        heads = self._get_int(f"{name}.attention.head_count", 1, 1024)
        kv_heads = self._get_int(f"{name}.attention.head_count_kv", 1, 1024, heads)
        default = embedding // heads if heads else 0
        head_size = self._get_int(f"{name}.attention.key_length", 1, 1024, default)
        trained_length = self._get_int(f"{name}.context_length", 16, 2**30)
        window = self._get_int(f"{name}.attention.sliding_window", 0, 2**30, 0) or None
        self._check_number(f"{name}.attention.layer_norm_rms_epsilon")
        self._check_unsupported_keys(name, header)
        vocabulary = self._read_tokenizer()
        _check_tensors(header.tensors, layers, embedding, kv_heads * head_size, vocabulary, self.problems)
        return ModelFacts(
            architecture=name,
            layers=layers,
            heads=heads,
            kv_heads=kv_heads,
            head_size=head_size,
            context_length=min(trained_length, window or trained_length, 2**20),
            window=window,
            vocabulary=vocabulary,
            parameters=sum(tensor.elements for tensor in header.tensors),
            precision=self._find_precision(header.tensors),
            tensor_types=dict(Counter(tensor.type for tensor in header.tensors)),
            weights_bytes=sum(tensor.bytes for tensor in header.tensors),
            chat_template=self._read_chat_template(),
            notes=self._collect_notes(window, trained_length, header),
        )

    def _read_architecture(self) -> str:
        key = "general.architecture"
        name = self._get_text(key)
        if name and name not in self._consumer.architectures:
            supported = ", ".join(self._consumer.architectures)
            self.problems.append(
                f"{key}: {name!r:.80} is not supported by {self._consumer.name}, which reads {supported};"
                f" {self._consumer.architecture_remedy}"
            )
        return name

    def _check_unsupported_keys(self, name: str, header: Header) -> None:
        """Reject keys that the backend ignores although they change how the model computes."""
        scaling = self._metadata.get(f"{name}.rope.scaling.type", "none")
        if scaling != "none":
            self.problems.append(
                f"{name}.rope.scaling.type: {scaling!r:.40} is ignored by the backend, which would answer wrongly;"
                " use the model without scaled positions"
            )
        experts = self._get_int(f"{name}.expert_count", 0, 2**20, 0)
        if experts:
            self.problems.append(
                f"{name}.expert_count: {experts}: a mixture of experts is not supported; use a dense model"
            )
        parts = self._get_int("split.count", 0, 2**16 - 1, 1)
        if parts > 1:
            self.problems.append(
                f"split.count: {parts}: this is one part of {parts}; merge them with `llama-gguf-split --merge`"
            )

    def _read_tokenizer(self) -> int:
        model = self._get_text("tokenizer.ggml.model")
        if model and model != "gpt2":
            self.problems.append(
                f"tokenizer.ggml.model: {model!r:.40} is not supported by the backend, which reads gpt2"
                " (byte-level BPE);"
                " convert the model to OpenVINO IR with optimum-intel and import the folder"
            )
        tokens = self._get_array_length("tokenizer.ggml.tokens", Kind.STRING)
        types = self._get_array_length("tokenizer.ggml.token_type", Kind.INT32)
        self._get_array_length("tokenizer.ggml.merges", Kind.STRING)
        if tokens and types and tokens != types:
            self.problems.append(f"tokenizer.ggml.token_type: {types} items for {tokens} tokens; get the file again")
        for key in ("eos_token_id", "unknown_token_id"):
            self._get_int(f"tokenizer.ggml.{key}", 0, max(tokens - 1, 0), 0)
        return tokens

    def _read_chat_template(self) -> str:
        key = "tokenizer.chat_template"
        if key not in self._metadata:
            self.problems.append(
                f"{key}: missing, so a prompt cannot be built; use the instruction-tuned file of the model"
            )
            return ""
        template = self._get_text(key)
        problem = chat_template.find_problem(template)
        if problem:
            self.problems.append(f"{key}: {problem}")
        return template

    def _find_precision(self, tensors: tuple[TensorInfo, ...]) -> str:
        """Return what most weights are stored in, or the declared file type if it says the same more precisely."""
        elements: Counter[str] = Counter()
        for tensor in tensors:
            elements[tensor.type] += tensor.elements
        others = sorted({tensor.type for tensor in tensors} - set(self._consumer.tensor_types))
        if others:
            which = next(tensor.name for tensor in tensors if tensor.type == others[0])
            self.problems.append(
                f"tensor {which}: type {others[0]} is not supported by {self._consumer.name}, which reads"
                f" {', '.join(self._consumer.tensor_types)}; {self._consumer.type_remedy}"
            )
        most = elements.most_common(1)[0][0] if elements else ""
        key = "general.file_type"
        if key not in self._metadata:
            self.problems.append(f"{key}: missing, and the backend needs it; r1plus engine quantize writes it")
        declared_type = FILE_TYPES.get(self._get_int(key, 0, 2**16, 0), "")
        precision = declared_type if most and declared_type.startswith(most) else most
        return PRECISIONS.get(precision, precision)

    def _collect_notes(self, window: int | None, trained_length: int, header: Header) -> tuple[str, ...]:
        notes = []
        if window is not None and window < trained_length:
            notes.append(
                f"context length {window}, its sliding window: the backend attends to all tokens, which is"
                " the same only"
                f" up to there; trained for {trained_length}"
            )
        splitter = self._metadata.get("tokenizer.ggml.pre", "default")
        if splitter not in self._consumer.splitters:
            notes.append(
                f"tokenizer.ggml.pre {splitter!r:.40} is not known to the backend: it splits text in another way"
            )
        if any(tensor.name.startswith("rope_freqs") for tensor in header.tensors):
            notes.append("rope_freqs (scaled positions) is ignored by the backend: measure it on long prompts")
        return tuple(notes)

    def _get_int(self, key: str, least: int, most: int, default: int | None = None) -> int:
        value = self._metadata.get(key, default)
        if value is None:
            self.problems.append(f"{key}: missing, so the model's shape is not known; get the file again")
            return 0
        if type(value) is not int or not least <= value <= most:
            description = f"a list of {value.length}" if isinstance(value, Array) else f"{value!r:.40}"
            self.problems.append(
                f"{key}: {description} is not a whole number from {least} to {most}; get the file again"
            )
            return 0
        return value

    def _check_number(self, key: str) -> None:
        if type(self._metadata.get(key)) is not float:
            self.problems.append(f"{key}: missing or not a number, and the backend needs it; get the file again")

    def _get_text(self, key: str) -> str:
        value = self._metadata.get(key)
        if isinstance(value, str) and value:
            return value
        self.problems.append(f"{key}: missing or not a text; get the file again")
        return ""

    def _get_array_length(self, key: str, kind: Kind) -> int:
        value = self._metadata.get(key)
        if isinstance(value, Array) and value.length and value.kind is kind:
            return value.length
        self.problems.append(f"{key}: missing or not a list of {kind.name}; the backend cannot read this tokenizer")
        return 0


def _check_tensors(
    tensors: tuple[TensorInfo, ...], layers: int, embedding: int, kv_width: int, vocabulary: int, problems: list[str]
) -> None:
    """Check that the tensors have the shape of the metadata: memory is sized by one, and the other is served."""
    by_name = {tensor.name: tensor for tensor in tensors}
    blocks = {name.split(".")[1] for name in by_name if name.startswith("blk.")}
    if layers and len(blocks) != layers:
        problems.append(f"block_count: {layers}, but the file has tensors of {len(blocks)} layers; get the file again")
    expected = {
        "token_embd.weight": (embedding, vocabulary),
        "output_norm.weight": (embedding,),
        **{f"blk.{layer}.attn_k.weight": (embedding, kv_width) for layer in range(layers)},
        **{f"blk.{layer}.attn_v.weight": (embedding, kv_width) for layer in range(layers)},
    }
    for name, shape in expected.items():
        if name not in by_name:
            problems.append(f"tensor {name}: missing; get the file again")
        elif 0 not in shape and by_name[name].shape != shape:
            actual = list(by_name[name].shape)
            problems.append(f"tensor {name}: shape {actual}, the metadata says {list(shape)}; get the file again")
