"""safetensors headers that nobody vouches for: whatever is in the file, there are its tensors or one error."""

import contextlib
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.huggingface.safetensors_header import (
    ELEMENT_BITS,
    MOST_CONTAINERS,
    MOST_HEADER_BYTES,
    MOST_TENSORS,
    Tensor,
    read_tensors,
)
from support.examples import count_examples
from support.model_repo.checkpoints import Shaped, lay_out, safetensors, write_tensors

HUGE = 2**63


def file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as raised:
        read_tensors(path, path.name)
    assert str(raised.value).startswith("model.safetensors: ")
    return str(raised.value).removeprefix("model.safetensors: ")


def test_tensors_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", {"a": ("BF16", (3, 5)), "one": ("F32", ()), "none": ("I8", (0, 4))})
    assert read_tensors(tmp_path / "x") == {
        "a": Tensor("BF16", (3, 5), 0, 30),
        "one": Tensor("F32", (), 30, 34),
        "none": Tensor("I8", (0, 4), 34, 34),
    }


def test_the_weights_are_not_read(tmp_path: Path) -> None:
    """A gigabyte that takes no block: its tensors are known within a megabyte of memory."""
    header, size = lay_out({"a": ("F16", (2**20, 512))})
    path = file(tmp_path, safetensors(header, b""))
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size + size)
    tracemalloc.start()
    assert read_tensors(path)["a"].elements == 2**29
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def one(**other: Any) -> bytes:
    said = {"dtype": "F16", "shape": [2, 2], "data_offsets": [0, 8]} | other
    return safetensors({"w": said}, bytes(8))


REFUSED: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "length: the file has 0 bytes"),
    "seven bytes": (bytes(7), "length: the file has 7 bytes"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "length: this is a Git LFS pointer"),
    "a header of 2^63 bytes": (HUGE.to_bytes(8, "little") + b"{}", f"length: a header of {HUGE} bytes, the file has 2"),
    "a pickle": (b"PK\x03\x04" + bytes(100), "length: a header of 67324752 bytes"),
    "no JSON": ((4).to_bytes(8, "little") + b"{{{{", "header: not JSON"),
    "a list": ((2).to_bytes(8, "little") + b"[]", "header: not a JSON object"),
    "UTF-16": ((4).to_bytes(8, "little") + "{}".encode("utf-16-le"), "header: not JSON"),
    "a number that is none": (one(x=float("nan")), "header: not JSON: NaN"),
    "half a character": (safetensors({"\ud800": {}}, b""), "tensor '\\ud800': half a character"),
    "not UTF-8": ((4).to_bytes(8, "little") + b'{"\xff"', "header: not JSON"),
    "nested without end": ((10**5 + 5).to_bytes(8, "little") + b'{"a":' + b"[" * 10**5, "header: not JSON"),
    "nothing but lists": (
        (3 * 2**20 + 7).to_bytes(8, "little") + b'{"a":[' + b"[]," * 2**20 + b"]",
        f"header: more than {MOST_CONTAINERS} lists and objects; get another file",
    ),
    "a number of a million digits": (
        (10**6 + 6).to_bytes(8, "little") + b'{"a":' + b"1" * 10**6 + b"}",
        "header: not JSON",
    ),
    "no tensor": (safetensors({"__metadata__": {}}, b""), "header: no tensor"),
    "metadata that is a list": (safetensors({"__metadata__": []}, b""), "__metadata__: not an object of texts"),
    "metadata of numbers": (safetensors({"__metadata__": {"a": 1}}, b""), "__metadata__: not an object of texts"),
    "a tensor that is a number": (safetensors({"w": 1}, b""), "tensor w: not an object with dtype"),
    "a type nobody knows": (one(dtype="Q4"), "tensor w: dtype 'Q4' is not known"),
    "a type that is a list": (one(dtype=["F16"]), "tensor w: dtype ['F16'] is not known"),
    "no shape": (one(shape=None), "tensor w: shape None is not"),
    "a negative dimension": (one(shape=[-2, -2]), "tensor w: shape [-2, -2] is not"),
    "a dimension that is true": (one(shape=[True, 4]), "tensor w: shape [True, 4] is not"),
    "a dimension of 2^63": (one(shape=[HUGE]), "tensor w: shape"),
    "too many dimensions": (one(shape=[1] * 9), "tensor w: shape"),
    "dimensions that make 2^384 elements": (one(shape=[2**48] * 8), "tensor w: 8 bytes for shape"),
    "an end before its begin": (one(data_offsets=[8, 0]), "tensor w: data_offsets [8, 0] are not a begin and an end"),
    "three offsets": (one(data_offsets=[0, 4, 8]), "tensor w: data_offsets [0, 4, 8] are not a begin and an end"),
    "an end beyond the file": (one(shape=[HUGE // 2**40], data_offsets=[0, 2**24]), "tensor w: ends at byte 16777216"),
    "more bytes than its shape takes": (one(shape=[2]), "tensor w: 8 bytes for shape [2] of F16"),
    "a byte behind the last tensor": (one() + b"\0", "header: its tensors take 8 bytes, the file has 9"),
    "a byte less": (one()[:-1], "tensor w: ends at byte 8 of the data, but the file has only 7"),
    "a tensor on another's place": (
        safetensors(
            {n: {"dtype": "F16", "shape": [4], "data_offsets": [at, at + 8]} for n, at in (("a", 0), ("b", 6))},
            bytes(14),
        ),
        "tensor b: offset 6 lies in a, which ends at 8",
    ),
    "a gap": (
        safetensors(
            {n: {"dtype": "F16", "shape": [4], "data_offsets": [at, at + 8]} for n, at in (("a", 0), ("b", 16))},
            bytes(24),
        ),
        "tensor b: offset 16 leaves a gap after a, which ends at 8",
    ),
    "a name twice": (
        (lambda text: len(text).to_bytes(8, "little") + text)(
            b'{"w": {"dtype": "F16", "shape": [], "data_offsets": [0, 2]},'
            b' "w": {"dtype": "F16", "shape": [], "data_offsets": [0, 2]}}'
        )
        + bytes(2),
        "header: w occurs twice",
    ),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_file_that_is_none_is_refused_with_field_value_and_remedy(
    tmp_path: Path, content: bytes, message: str
) -> None:
    told = refusal(file(tmp_path, content))
    assert told.startswith(message)
    assert ";" in told or "`git lfs pull`" in told


def test_absurd_counts_are_refused_before_they_are_believed(tmp_path: Path) -> None:
    path = file(tmp_path, (MOST_HEADER_BYTES + 1).to_bytes(8, "little") + b"{")
    with path.open("r+b") as stream:
        stream.truncate(MOST_HEADER_BYTES + 100)
    tracemalloc.start()
    assert f"at most {MOST_HEADER_BYTES} are read" in refusal(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    many = safetensors(dict.fromkeys(map(str, range(MOST_TENSORS + 1))), b"")
    assert f"at most {MOST_TENSORS} are read" in refusal(file(tmp_path, many))


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    """At every KiB, at the edges of its parts, and at each of the first hundred bytes."""
    tensors: Shaped = {f"model.layers.{n}.weight": ("F16", (8, 4)) for n in range(200)}
    header, size = lay_out(tensors)
    whole = safetensors(header, bytes(size))
    start = len(whole) - size
    assert start > 16 * 1024
    path = file(tmp_path, whole)
    assert len(read_tensors(path)) == 200
    for cut in {*range(0, len(whole), 1024), *range(100), start - 1, start, start + 1, len(whole) - 1}:
        path.write_bytes(whole[:cut])
        assert refusal(path)


@settings(max_examples=count_examples(200), deadline=None)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=20).filter(lambda name: name != "__metadata__"),
        st.tuples(
            st.sampled_from([d for d, b in ELEMENT_BITS.items() if b >= 8]), st.lists(st.integers(0, 5), max_size=3)
        ),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_is_written_by_the_rules_is_read(
    tmp_path_factory: pytest.TempPathFactory, said: dict[str, tuple[str, list[int]]]
) -> None:
    tensors = {name: (dtype, tuple(shape)) for name, (dtype, shape) in said.items()}
    path = tmp_path_factory.getbasetemp() / "by-the-rules"
    write_tensors(path, tensors)
    assert {name: (t.dtype, t.shape) for name, t in read_tensors(path).items()} == tensors


@pytest.mark.unit_long
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_is_changed_there_are_tensors_within_the_file_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    header, size = lay_out({"a": ("F16", (2, 3)), "b": ("F32", (4,)), "c": ("BF16", (1,))})
    content = bytearray(safetensors(header, bytes(size)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed"
    path.write_bytes(bytes(content))
    with contextlib.suppress(WeightsError):
        found = read_tensors(path)
        assert sum(tensor.bytes for tensor in found.values()) <= len(content) - 8
        assert all(tensor.elements * ELEMENT_BITS[tensor.dtype] == tensor.bytes * 8 for tensor in found.values())


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    assert refusal(tmp_path / "model.safetensors") == "cannot be read: No such file or directory"
