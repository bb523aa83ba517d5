"""From weights to an engine folder, as far as it goes without the weights: names, limits, precision."""

import struct
from pathlib import Path

import gguf
import numpy
import pytest

from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.gguf.requantise import Precision, requantise
from r1plus_model_repo.importing.gguf.values import Kind
from r1plus_model_repo.importing.openvino.ir import convert, renumber_layers
from r1plus_model_repo.importing.openvino.tokenizer_limit import LARGEST_LIMIT, remove_limit
from support.model_repo import gguf_files

ONE = '<layer id="0" name="Constant_4700_compressed" type="Const"/><layer id="1" name="Constant_4700" type="Convert"/>'
TWO = '<layer id="2" name="input_ids" type="Parameter"/><layer id="3" name="Add_17" type="Add"/>'


def test_layers_are_numbered_by_appearance() -> None:
    assert renumber_layers(ONE + TWO) == (ONE + TWO).replace("4700", "0").replace("17", "1")


def test_two_conversions_that_counted_otherwise_are_the_same_file() -> None:
    assert renumber_layers(ONE + TWO) == renumber_layers((ONE + TWO).replace("4700", "9").replace("17", "4711"))


def test_names_that_differed_still_differ() -> None:
    text = '<layer id="0" name="A_1" type="X"/><layer id="1" name="A_2" type="X"/><layer id="2" name="A_0" type="X"/>'
    assert len(set(renumber_layers(text).split('name="')[1:])) == 3


def test_what_is_no_layer_name_stays() -> None:
    text = '<net name="Model_7"><port id="3" names="x_9"/><edge from-layer="3_4"/></net>'
    assert renumber_layers(text) == text


def test_a_conversion_tells_nobody_and_leaves_nothing_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("CI", raising=False)
    weights = tmp_path / "weights.gguf"
    weights.write_bytes(b"none")
    # Where conversion fails OpenVINO has been imported, which is when it would write.
    with pytest.raises(ImportingError, match="conversion to OpenVINO IR failed"):
        convert(weights, tmp_path / "workspace", tmp_path / "target")
    assert list(home.iterdir()) == []


def tokenizer(folder: Path, layers: str, edges: str) -> Path:
    (folder / "openvino_tokenizer.xml").write_text(f"<net><layers>{layers}</layers><edges>{edges}</edges></net>")
    (folder / "openvino_tokenizer.bin").write_bytes(b"before" + (8192).to_bytes(4, "little") + b"after")
    return folder


def const(number: int, offset: int) -> str:
    data = f'<data element_type="i32" shape="" offset="{offset}" size="4" />'
    return f'<layer id="{number}" name="C" type="Const" version="opset1">{data}</layer>'


MINIMUM = '<layer id="3" name="M" type="Minimum" version="opset1"></layer>'
EDGE = '<edge from-layer="2" from-port="0" to-layer="3" to-port="1" />'


def test_the_length_limit_of_a_tokenizer_goes_and_nothing_else_changes(tmp_path: Path) -> None:
    remove_limit(tokenizer(tmp_path, const(2, 6) + MINIMUM, EDGE))
    assert (tmp_path / "openvino_tokenizer.bin").read_bytes() == b"before" + LARGEST_LIMIT + b"after"


SURPRISES = {
    "no limit": (const(2, 6), ""),
    "a limit that another layer reads, too": (const(2, 6) + const(4, 6) + MINIMUM, EDGE),
    "two limits": (const(2, 6) + const(4, 7) + MINIMUM, EDGE + EDGE.replace('"2"', '"4"')),
}


@pytest.mark.parametrize("layers, edges", SURPRISES.values(), ids=SURPRISES.keys())
def test_a_tokenizer_of_another_form_is_an_error_not_a_guess(tmp_path: Path, layers: str, edges: str) -> None:
    with pytest.raises(ImportingError, match="length limit"):
        remove_limit(tokenizer(tmp_path, layers, edges))


KINDS = gguf.GGMLQuantizationType


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A tiny Q4_1 model file."""
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 1)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_1)
    writer.add_array("tokenizer.ggml.tokens", ["a", "b", "ü"])
    numbers = numpy.random.default_rng(0).standard_normal((4, 64)).astype(numpy.float32)
    gguf_files.add_matrix(writer, "blk.0.ffn_up.weight", numbers, KINDS.Q4_1)
    writer.add_tensor("blk.0.attn_norm.weight", numbers[0])
    return gguf_files.finish(writer, path)


@pytest.mark.parametrize(("precision", "tolerance"), [(Precision.F16, 2e-3), (Precision.Q8_0, 2e-2)], ids=str)
def test_requantising_keeps_numbers_norms_and_metadata(weights: Path, precision: Precision, tolerance: float) -> None:
    target = weights.with_name("out.gguf")
    requantise(weights, target, precision)
    before, after = gguf.GGUFReader(weights), gguf.GGUFReader(target)
    exact, other = (gguf.quants.dequantize(r.tensors[0].data, r.tensors[0].tensor_type) for r in (before, after))
    assert after.tensors[0].tensor_type == precision.value[0]
    assert numpy.abs(exact - other).max() < tolerance
    assert (before.tensors[1].data == after.tensors[1].data).all()
    assert after.fields["tokenizer.ggml.tokens"].contents() == ["a", "b", "ü"]
    assert after.fields["general.file_type"].contents() == precision.value[1]


def test_requantising_twice_gives_the_same_bytes(weights: Path) -> None:
    one, two = weights.with_name("one.gguf"), weights.with_name("two.gguf")
    requantise(weights, one, Precision.F16)
    requantise(weights, two, Precision.F16)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("precision", [Precision.Q4_0, Precision.Q4_1], ids=str)
def test_the_precisions_of_four_bits(weights: Path, precision: Precision) -> None:
    target = weights.with_name("out.gguf")
    requantise(weights, target, precision)
    after = gguf.GGUFReader(target)
    assert [tensor.tensor_type.name for tensor in after.tensors] == [precision.name, "F32"]
    assert after.fields["general.file_type"].contents() == precision.value[1]


def matrix(path: Path, kind: gguf.GGMLQuantizationType, columns: int = 64) -> Path:
    """A file with one matrix, which does not say what it is, and one vector."""
    writer = gguf.GGUFWriter(path, "llama")
    numbers = numpy.random.default_rng(0).standard_normal((4, columns)).astype(numpy.float32)
    gguf_files.add_matrix(writer, "m", numbers, kind)
    writer.add_tensor("v", numbers[0].astype(numpy.float16))
    return gguf_files.finish(writer, path)


@pytest.mark.parametrize("kind", [KINDS.F32, KINDS.F16, KINDS.BF16, KINDS.Q5_0, KINDS.Q5_1], ids=str)
def test_whatever_a_matrix_was_stored_as_it_is_stored_anew_and_the_file_says_so(tmp_path: Path, kind: KINDS) -> None:
    source, target = matrix(tmp_path / "in.gguf", kind), tmp_path / "out.gguf"
    requantise(source, target, Precision.Q8_0)
    after = gguf.GGUFReader(target)
    assert [(tensor.name, tensor.tensor_type.name) for tensor in after.tensors] == [("m", "Q8_0"), ("v", "F16")]
    assert after.fields["general.file_type"].contents() == gguf.LlamaFileType.MOSTLY_Q8_0


def test_a_row_that_no_blocks_make_up_stays_in_16_bits(tmp_path: Path) -> None:
    source, target = matrix(tmp_path / "in.gguf", KINDS.F32, columns=33), tmp_path / "out.gguf"
    requantise(source, target, Precision.Q4_0)
    assert gguf.GGUFReader(target).tensors[0].tensor_type.name == "F16"


def test_an_empty_array_is_left_out(tmp_path: Path) -> None:
    source, target = tmp_path / "in.gguf", tmp_path / "out.gguf"
    empty = struct.pack("<IQ", Kind.UINT32, 0)
    entries = [
        gguf_files.entry("general.architecture", Kind.STRING, gguf_files.text("llama")),
        gguf_files.entry("general.tags", Kind.ARRAY, empty),
        gguf_files.number("llama.block_count", 1),
    ]
    source.write_bytes(gguf_files.raw(entries, [gguf_files.tensor("m", (64, 4))]))
    requantise(source, target, Precision.Q8_0)
    after = gguf.GGUFReader(target)
    assert "general.tags" not in after.fields
    assert after.fields["llama.block_count"].contents() == 1


def test_a_file_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path) -> None:
    source = matrix(tmp_path / "in.gguf", KINDS.F32)
    source.write_bytes(source.read_bytes()[:-64])
    with pytest.raises(ImportingError, match=r"in\.gguf: tensor v: ends at byte"):
        requantise(source, tmp_path / "out.gguf", Precision.Q8_0)
    assert [path.name for path in tmp_path.iterdir()] == ["in.gguf"]


def test_a_quantisation_that_cannot_be_expanded_is_named(tmp_path: Path) -> None:
    source = tmp_path / "in.gguf"
    key = gguf_files.entry("general.architecture", 8, gguf_files.text("llama"))
    source.write_bytes(gguf_files.raw([key], [gguf_files.tensor("m", [256, 1], 15)]))
    with pytest.raises(ImportingError, match="tensor m: type Q8_K cannot be expanded; use the model in F16"):
        requantise(source, tmp_path / "out.gguf", Precision.Q8_0)
    assert [path.name for path in tmp_path.iterdir()] == ["in.gguf"]


def test_a_file_without_an_architecture_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.gguf"
    source.write_bytes(gguf_files.raw())
    with pytest.raises(ImportingError, match=r"in\.gguf: general\.architecture: missing"):
        requantise(source, tmp_path / "out.gguf", Precision.Q8_0)
