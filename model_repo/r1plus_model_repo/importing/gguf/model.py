"""What model a GGUF file holds, and whether the backend serves it: asked of the file, never of who brings it.

What `openvino-genai` makes of a file was read in its sources (src/cpp/src/gguf_utils): it builds one and the same
network for three architectures, and passes over keys that say the model is another. Such a file would be served and
answer wrongly, so it is refused here.
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
"""Values of tokenizer.ggml.pre whose way of splitting text the backend knows; others are split the default way."""
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
"""general.file_type: what the file calls itself (llama.cpp's llama_ftype)."""
PRECISIONS: Mapping[str, str] = {"F32": "FP32", "F16": "FP16"}
"""Of a catalog entry, where it has another name than the tensors' type."""


MOST_TOLD = 20


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The model's shape and what else an engine's catalog entry says of it."""

    architecture: str
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    context_length: int
    """Trained for, or the sliding window: the backend attends to all tokens, which is the same up to there."""
    window: int | None
    """Sliding window as the file says, None for full attention."""
    vocabulary: int
    parameters: int
    precision: str
    tensor_types: Mapping[str, int]
    """Number of tensors by type."""
    weights_bytes: int
    chat_template: str
    notes: tuple[str, ...] = ()
    """What whoever imports it should know although it is served."""


def read_model(path: Path) -> ModelFacts:
    """The model in the file at `path`; WeightsError lists every reason why it is not served."""
    header = read_header(path)
    reading = _Reading(header.metadata)
    facts = reading.facts(header)
    if reading.problems:
        raise WeightsError(str(path), _first(reading.problems))
    return facts


def _first(problems: list[str]) -> tuple[str, ...]:
    more = len(problems) - MOST_TOLD
    return (*problems[:MOST_TOLD], *((f"and {more} more of the kind",) if more > 0 else ()))


class _Reading:
    """Metadata as typed values; what is missing or impossible is noted, and stands for 0."""

    def __init__(self, metadata: Mapping[str, Value]) -> None:
        self._metadata = metadata
        self.problems: list[str] = []

    def facts(self, header: Header) -> ModelFacts:
        name = self._architecture()
        layers = self._whole(f"{name}.block_count", 1, 1024)
        embedding = self._whole(f"{name}.embedding_length", 1, 2**20)
        heads = self._whole(f"{name}.attention.head_count", 1, 1024)
        kv_heads = self._whole(f"{name}.attention.head_count_kv", 1, 1024, heads)
        default = embedding // heads if heads else 0
        head_size = self._whole(f"{name}.attention.key_length", 1, 1024, default)
        trained = self._whole(f"{name}.context_length", 16, 2**30)
        window = self._whole(f"{name}.attention.sliding_window", 0, 2**30, 0) or None
        self._number(f"{name}.attention.layer_norm_rms_epsilon")
        self._otherwise_computed(name, header)
        vocabulary = self._tokenizer()
        _check_tensors(header.tensors, layers, embedding, kv_heads * head_size, vocabulary, self.problems)
        return ModelFacts(
            architecture=name,
            layers=layers,
            heads=heads,
            kv_heads=kv_heads,
            head_size=head_size,
            context_length=min(trained, window or trained, 2**20),
            window=window,
            vocabulary=vocabulary,
            parameters=sum(tensor.elements for tensor in header.tensors),
            precision=self._precision(header.tensors),
            tensor_types=dict(Counter(tensor.type for tensor in header.tensors)),
            weights_bytes=sum(tensor.bytes for tensor in header.tensors),
            chat_template=self._chat_template(),
            notes=self._notes(window, trained, header),
        )

    def _architecture(self) -> str:
        key = "general.architecture"
        name = self._text(key)
        if name and name not in ARCHITECTURES:
            served = ", ".join(ARCHITECTURES)
            self.problems.append(
                f"{key}: {name!r:.80} is not served by the backend openvino, which reads {served}; convert the model"
                " to OpenVINO IR with optimum-intel and import the folder"
            )
        return name

    def _otherwise_computed(self, name: str, header: Header) -> None:
        """Keys that the backend passes over, although they say that the model computes in another way."""
        scaling = self._metadata.get(f"{name}.rope.scaling.type", "none")
        if scaling != "none":
            self.problems.append(
                f"{name}.rope.scaling.type: {scaling!r:.40} is passed over by the backend, which would answer wrongly;"
                " take the model without scaled positions"
            )
        experts = self._whole(f"{name}.expert_count", 0, 2**20, 0)
        if experts:
            self.problems.append(
                f"{name}.expert_count: {experts}: a mixture of experts is not served; take a dense model"
            )
        parts = self._whole("split.count", 0, 2**16 - 1, 1)
        if parts > 1:
            self.problems.append(
                f"split.count: {parts}: this is one part of {parts}; merge them with `llama-gguf-split --merge`"
            )

    def _tokenizer(self) -> int:
        model = self._text("tokenizer.ggml.model")
        if model and model != "gpt2":
            self.problems.append(
                f"tokenizer.ggml.model: {model!r:.40} is not served by the backend, which reads gpt2 (byte-level BPE);"
                " convert the model to OpenVINO IR with optimum-intel and import the folder"
            )
        tokens = self._length("tokenizer.ggml.tokens", Kind.STRING)
        types = self._length("tokenizer.ggml.token_type", Kind.INT32)
        self._length("tokenizer.ggml.merges", Kind.STRING)
        if tokens and types and tokens != types:
            self.problems.append(f"tokenizer.ggml.token_type: {types} items for {tokens} tokens; get the file again")
        for key in ("eos_token_id", "unknown_token_id"):
            self._whole(f"tokenizer.ggml.{key}", 0, max(tokens - 1, 0), 0)
        return tokens

    def _chat_template(self) -> str:
        key = "tokenizer.chat_template"
        if key not in self._metadata:
            self.problems.append(
                f"{key}: missing, so no question could be put; take the instruction-tuned file of the model"
            )
            return ""
        template = self._text(key)
        wrong = chat_template.problem(template)
        if wrong:
            self.problems.append(f"{key}: {wrong}")
        return template

    def _precision(self, tensors: tuple[TensorInfo, ...]) -> str:
        """What most weights are stored in, or the file's own word where that says the same more precisely."""
        elements: Counter[str] = Counter()
        for tensor in tensors:
            elements[tensor.type] += tensor.elements
        others = sorted({tensor.type for tensor in tensors} - set(TENSOR_TYPES))
        if others:
            which = next(tensor.name for tensor in tensors if tensor.type == others[0])
            self.problems.append(
                f"tensor {which}: type {others[0]} is not served by the backend, which reads {', '.join(TENSOR_TYPES)};"
                " write the file in one of them: r1plus engine quantize FILE --to Q8_0 --out OTHER.gguf"
            )
        most = elements.most_common(1)[0][0] if elements else ""
        key = "general.file_type"
        if key not in self._metadata:
            self.problems.append(f"{key}: missing, and the backend needs it; r1plus engine quantize writes it")
        word = FILE_TYPES.get(self._whole(key, 0, 2**16, 0), "")
        named = word if most and word.startswith(most) else most
        return PRECISIONS.get(named, named)

    def _notes(self, window: int | None, trained: int, header: Header) -> tuple[str, ...]:
        notes = []
        if window is not None and window < trained:
            notes.append(
                f"context length {window}, its sliding window: the backend attends to all tokens, which is the same up"
                f" to there and another model beyond; trained for {trained}"
            )
        splitter = self._metadata.get("tokenizer.ggml.pre", "default")
        if splitter not in SPLITTERS:
            notes.append(f"tokenizer.ggml.pre {splitter!r:.40} is not known to the backend: text is split another way")
        if any(tensor.name.startswith("rope_freqs") for tensor in header.tensors):
            notes.append("rope_freqs (scaled positions) is passed over by the backend: measure it on long questions")
        return tuple(notes)

    def _whole(self, key: str, least: int, most: int, default: int | None = None) -> int:
        value = self._metadata.get(key, default)
        if value is None:
            self.problems.append(f"{key}: missing, so the model's shape is not known; get the file again")
            return 0
        if type(value) is not int or not least <= value <= most:
            shown = f"a list of {value.length}" if isinstance(value, Array) else f"{value!r:.40}"
            self.problems.append(f"{key}: {shown} is no whole number from {least} to {most}; get the file again")
            return 0
        return value

    def _number(self, key: str) -> None:
        if type(self._metadata.get(key)) is not float:
            self.problems.append(f"{key}: missing or no number, and the backend needs it; get the file again")

    def _text(self, key: str) -> str:
        value = self._metadata.get(key)
        if isinstance(value, str) and value:
            return value
        self.problems.append(f"{key}: missing or no text; get the file again")
        return ""

    def _length(self, key: str, kind: Kind) -> int:
        value = self._metadata.get(key)
        if isinstance(value, Array) and value.length and value.kind is kind:
            return value.length
        self.problems.append(f"{key}: missing or no list of {kind.name}; no tokenizer that the backend reads")
        return 0


def _check_tensors(
    tensors: tuple[TensorInfo, ...], layers: int, embedding: int, kv_width: int, vocabulary: int, problems: list[str]
) -> None:
    """Do the tensors have the shape that the metadata claims? Whoever sizes memory by the one serves the other."""
    by_name = {tensor.name: tensor for tensor in tensors}
    blocks = {name.split(".")[1] for name in by_name if name.startswith("blk.")}
    if layers and len(blocks) != layers:
        problems.append(f"block_count: {layers} claimed, the file has tensors of {len(blocks)}; get the file again")
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
            found = list(by_name[name].shape)
            problems.append(f"tensor {name}: shape {found}, the metadata claims {list(shape)}; get the file again")
