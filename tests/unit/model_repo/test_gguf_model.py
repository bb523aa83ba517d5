"""What model a file holds: read alike from whatever tool wrote it, and every reason not to serve it at once."""

import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1plus_model_repo.importing import chat_template
from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.gguf.model import ARCHITECTURES, MOST_TOLD, ModelFacts, read_model
from support.model_repo import gguf_files
from support.model_repo.gguf_files import Keys

KIND = gguf.GGUFValueType
QUANT = gguf.GGMLQuantizationType


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def test_shape_precision_and_sizes_come_from_the_file(path: Path) -> None:
    facts = read_model(gguf_files.write(path))
    parameters = 96 * 64 + 64 + 2 * (2 * 64 + 2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64)
    quantised = (parameters - 5 * 64) // 32 * 20
    assert facts == ModelFacts(
        architecture="llama",
        layers=2,
        heads=4,
        kv_heads=2,
        head_size=16,
        context_length=2048,
        window=None,
        vocabulary=96,
        parameters=parameters,
        precision="Q4_1",
        tensor_types={"Q4_1": 15, "F32": 5},
        weights_bytes=quantised + 5 * 64 * 4,
        chat_template=gguf_files.TEMPLATE,
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_architecture_that_the_backend_serves(path: Path, architecture: str) -> None:
    assert read_model(gguf_files.write(path, architecture)).architecture == architecture


@settings(max_examples=10)
@given(order=st.permutations(range(len(gguf_files.keys()) + 5)))
def test_a_strangers_tool_may_write_in_another_order_and_add_keys(
    tmp_path_factory: pytest.TempPathFactory, order: list[int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "shuffled.gguf"
    plain = read_model(gguf_files.write(path))
    more: Keys = {
        "general.base_model.0.name": ("Somebody's", KIND.STRING, None),
        "quantize.imatrix.file": ("/models_out/a b.imatrix", KIND.STRING, None),
        "stranger.list": ([0.5] * 2000, KIND.ARRAY, KIND.FLOAT64),
        "Stranger-X.flag": (True, KIND.BOOL, None),
        "stranger.count": (2**60, KIND.UINT64, None),
    }
    every = list((gguf_files.keys() | more).items())
    metadata = dict(every[index] for index in order)
    tensors = dict(reversed(gguf_files.shapes().items()))
    assert read_model(gguf_files.write(path, metadata=metadata, tensors=tensors, alignment=128)) == plain


PRECISIONS = {
    (QUANT.F16, gguf.LlamaFileType.MOSTLY_F16): "FP16",
    (QUANT.F32, gguf.LlamaFileType.ALL_F32): "FP32",
    (QUANT.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0): "Q8_0",
    (QUANT.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0): "Q4_0",
    # The file's word counts only where the tensors say the same.
    (QUANT.Q8_0, gguf.LlamaFileType.MOSTLY_Q4_K_M): "Q8_0",
    (QUANT.Q4_0, gguf.LlamaFileType.GUESSED): "Q4_0",
}


@pytest.mark.parametrize(("stored", "precision"), PRECISIONS.items(), ids=str)
def test_the_precision_is_that_of_most_weights(
    path: Path, stored: tuple[QUANT, gguf.LlamaFileType], precision: str
) -> None:
    kind, word = stored
    metadata = gguf_files.keys() | {"general.file_type": (int(word), KIND.UINT32, None)}
    assert read_model(gguf_files.write(path, metadata=metadata, kind=kind)).precision == precision


def test_a_k_quant_goes_by_the_files_own_word(path: Path) -> None:
    """`gguf` writes none, so the descriptions are made by hand: 256 weights per block."""
    facts = _described(path, 12, gguf.LlamaFileType.MOSTLY_Q4_K_M)
    assert facts.precision == "Q4_K_M" and facts.tensor_types == {"Q4_K": 3, "F32": 1}


def _described(path: Path, kind: int, word: int) -> ModelFacts:
    """One layer, 256 wide, with one KV head of 256."""
    tensor, number, entry = gguf_files.tensor, gguf_files.number, gguf_files.entry
    words = struct.pack("<IQ", 8, 256) + gguf_files.text("t") * 256
    entries = [
        entry("general.architecture", 8, gguf_files.text("llama")),
        *(number(f"llama.{key}", 1) for key in ("block_count", "attention.head_count")),
        *(number(f"llama.{key}", 256) for key in ("embedding_length", "context_length")),
        entry("llama.attention.layer_norm_rms_epsilon", 6, struct.pack("<f", 1e-5)),
        number("general.file_type", word),
        entry("tokenizer.ggml.model", 8, gguf_files.text("gpt2")),
        entry("tokenizer.ggml.tokens", 9, words),
        entry("tokenizer.ggml.merges", 9, words),
        entry("tokenizer.ggml.token_type", 9, struct.pack("<IQ", 5, 256) + bytes(4 * 256)),
        entry("tokenizer.chat_template", 8, gguf_files.text("{{ messages }}")),
    ]
    places = {
        "token_embd.weight": kind,
        "output_norm.weight": 0,
        "blk.0.attn_k.weight": kind,
        "blk.0.attn_v.weight": kind,
    }
    tensors = [
        tensor(name, [256] if name == "output_norm.weight" else [256, 256], type_, 2**20 * index)
        for index, (name, type_) in enumerate(places.items())
    ]
    path.write_bytes(gguf_files.raw(entries, tensors, data=2**22))
    return read_model(path)


def without(name: str) -> Callable[[Keys], None]:
    def change(keys: Keys) -> None:
        del keys[name]

    return change


def with_(name: str, value: object, kind: KIND = KIND.UINT32, inner: KIND | None = None) -> Callable[[Keys], None]:
    return lambda keys: keys.update({name: (value, kind, inner)})


WRONG: dict[str, tuple[Callable[[Keys], None], str]] = {
    "no layers given": (without("llama.block_count"), "llama.block_count: missing"),
    "more layers than there are": (with_("llama.block_count", 3), "block_count: 3, but the file has tensors of 2"),
    "no layers at all": (with_("llama.block_count", 0), "llama.block_count: 0 is not a whole number from 1 to 1024"),
    "1025 layers": (with_("llama.block_count", 1025), "llama.block_count: 1025 is not a whole number from 1 to 1024"),
    "a count that is a text": (with_("llama.block_count", "2", KIND.STRING), "llama.block_count: '2' is not a whole"),
    "a count that is a truth value": (with_("llama.block_count", True, KIND.BOOL), "llama.block_count: True is no"),
    "KV heads by layer": (
        with_("llama.attention.head_count_kv", [2, 1], KIND.ARRAY, KIND.INT32),
        "llama.attention.head_count_kv: a list of 2 is not a whole number",
    ),
    "another number of KV heads than its tensors have": (
        with_("llama.attention.head_count_kv", 4),
        "tensor blk.0.attn_k.weight: shape [64, 32], the metadata says [64, 64]",
    ),
    "another head size than its tensors have": (
        with_("llama.attention.key_length", 8),
        "tensor blk.1.attn_v.weight: shape [64, 32], the metadata says [64, 16]",
    ),
    "another width than its tensors have": (
        with_("llama.embedding_length", 128),
        "tensor output_norm.weight: shape [64], the metadata says [128]",
    ),
    "another vocabulary than its tensors have": (
        with_("tokenizer.ggml.tokens", ["a"] * 97, KIND.ARRAY, KIND.STRING),
        "tensor token_embd.weight: shape [64, 96], the metadata says [64, 97]",
    ),
    "a context of 15": (with_("llama.context_length", 15), "llama.context_length: 15 is not a whole number from 16"),
    "no epsilon": (
        without("llama.attention.layer_norm_rms_epsilon"),
        "llama.attention.layer_norm_rms_epsilon: missing",
    ),
    "scaled positions": (
        with_("llama.rope.scaling.type", "yarn", KIND.STRING),
        "llama.rope.scaling.type: 'yarn' is ignored by the backend",
    ),
    "a mixture of experts": (with_("llama.expert_count", 8), "llama.expert_count: 8: a mixture of experts"),
    "one part of three": (with_("split.count", 3, KIND.UINT16), "split.count: 3: this is one part of 3"),
    "another tokenizer": (
        with_("tokenizer.ggml.model", "llama", KIND.STRING),
        "tokenizer.ggml.model: 'llama' is not supported by the backend",
    ),
    "no tokens": (without("tokenizer.ggml.tokens"), "tokenizer.ggml.tokens: missing"),
    "no merges": (without("tokenizer.ggml.merges"), "tokenizer.ggml.merges: missing"),
    "types of tokens that are no INT32": (
        with_("tokenizer.ggml.token_type", [1] * 96, KIND.ARRAY, KIND.INT8),
        "tokenizer.ggml.token_type: missing or not a list of INT32",
    ),
    "types of fewer tokens": (
        with_("tokenizer.ggml.token_type", [1] * 95, KIND.ARRAY, KIND.INT32),
        "tokenizer.ggml.token_type: 95 items for 96 tokens",
    ),
    "an end of text that is no token": (
        with_("tokenizer.ggml.eos_token_id", 96),
        "tokenizer.ggml.eos_token_id: 96 is not a whole number from 0 to 95",
    ),
    "no file type": (without("general.file_type"), "general.file_type: missing"),
    "no chat template": (without("tokenizer.chat_template"), "tokenizer.chat_template: missing"),
    "an empty chat template": (with_("tokenizer.chat_template", " ", KIND.STRING), "tokenizer.chat_template: is empty"),
    "a chat template that does not parse": (
        with_("tokenizer.chat_template", "a\n{% for m in %}", KIND.STRING),
        "tokenizer.chat_template: line 2: Expected an expression",
    ),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_model_that_is_not_served_is_refused_with_field_value_and_remedy(
    path: Path, change: Callable[[Keys], None], message: str
) -> None:
    metadata = gguf_files.keys()
    change(metadata)
    with pytest.raises(WeightsError) as raised:
        read_model(gguf_files.write(path, metadata=metadata))
    told = [line for line in raised.value.problems if message in line]
    assert told and "; " in told[0]


def test_the_last_token_may_end_a_text(path: Path) -> None:
    metadata = gguf_files.keys()
    with_("tokenizer.ggml.eos_token_id", 95)(metadata)
    read_model(gguf_files.write(path, metadata=metadata))


def test_another_architecture_is_named_with_those_that_are_served(path: Path) -> None:
    with pytest.raises(WeightsError, match=r"general\.architecture: 'gemma3' is not supported by the backend openvino"):
        read_model(gguf_files.write(path, "gemma3"))


def test_a_quantisation_that_is_not_served_says_how_to_get_another(path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"tensor \S+: type Q5_0 is not supported .* r1plus engine quantize FILE --to"
    ):
        read_model(gguf_files.write(path, kind=QUANT.Q5_0))


def test_all_that_is_wrong_is_told_at_once_and_much_of_it_is_counted(path: Path) -> None:
    metadata = gguf_files.keys()
    without("general.file_type")(metadata)
    with_("llama.block_count", 30)(metadata)
    with pytest.raises(WeightsError) as raised:
        read_model(gguf_files.write(path, metadata=metadata))
    assert len(raised.value.problems) == MOST_TOLD + 1
    assert raised.value.problems[-1] == f"and {1 + 28 * 2 + 1 - MOST_TOLD} more"


WINDOWS = {"smaller": (512, 512, True), "as long": (2048, 2048, False), "0, which is none": (0, 2048, False)}


@pytest.mark.parametrize(("window", "context", "noted"), WINDOWS.values(), ids=WINDOWS.keys())
def test_a_sliding_window_bounds_the_context(path: Path, window: int, context: int, noted: bool) -> None:
    metadata = gguf_files.keys()
    with_("llama.attention.sliding_window", window)(metadata)
    facts = read_model(gguf_files.write(path, metadata=metadata))
    assert (facts.context_length, facts.window, bool(facts.notes)) == (context, window or None, noted)


def test_an_unknown_way_of_splitting_text_is_noted(path: Path) -> None:
    metadata = gguf_files.keys()
    with_("tokenizer.ggml.pre", "tekken", KIND.STRING)(metadata)
    assert "'tekken' is not known" in read_model(gguf_files.write(path, metadata=metadata)).notes[0]


TEMPLATES = {
    "a loop": ("{% for m in messages %}{{ m.content }}{% endfor %}", None),
    "what is marked for training": ("{% generation %}{{ 1 }}{% endgeneration %}", None),
    "a loop that ends early": ("{% for m in messages %}{% break %}{% endfor %}", None),
    "a loop that would never end is not run": ("{% for i in range(10**12) %}{% endfor %}", None),
    "an end too few": ("{% if a %}", "Unexpected end of template"),
    "an unknown tag": ("{% include_all %}", "unknown tag 'include_all'"),
    "what is marked without an end": ("{% generation %}", "Unexpected end of template"),
    "too deep": ("{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}", "nested too deeply"),
    "a number that Python reads none of": ("{{ " + "9" * 5000 + " }}", "fix it, or get the file from"),
    "half a character": ("ab\ud800", "has half a character (a lone surrogate) at 2"),
    "too long": ("a" * (chat_template.MOST_BYTES + 1), f"{chat_template.MOST_BYTES + 1} bytes, at most"),
    "as long as may be": ("a" * chat_template.MOST_BYTES, None),
}


@pytest.mark.parametrize(("template", "message"), TEMPLATES.values(), ids=TEMPLATES.keys())
def test_a_chat_template_is_parsed_and_not_run(template: str, message: str | None) -> None:
    found = chat_template.find_problem(template)
    assert found is None if message is None else found is not None and message in found
