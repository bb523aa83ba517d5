"""GGUF headers that nobody vouches for: whatever is in the file, there is a header or one error that says where and why."""

import contextlib
import os
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.gguf.header import (
    BLOCKS,
    MOST_ALIGNMENT,
    MOST_DIMENSIONS,
    MOST_KEYS,
    MOST_NAME_BYTES,
    MOST_TENSORS,
    read_header,
)
from r1plus_model_repo.importing.gguf.values import KEPT_ITEMS, MOST_HEADER_BYTES, MOST_STRING_BYTES, Array, Kind
from support.examples import count_examples
from support.model_repo import gguf_files

E, N, T, RAW = gguf_files.entry, gguf_files.number, gguf_files.tensor, gguf_files.raw
HUGE = 2**63


def refusal(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "given.gguf"
    path.write_bytes(content)
    with pytest.raises(WeightsError) as raised:
        read_header(path)
    assert str(raised.value).startswith(f"{path}: ")
    return str(raised.value).removeprefix(f"{path}: ")


def array(kind: int, length: int, payload: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, length) + payload


REFUSED = {
    "0 bytes": (b"", "magic: the file has 0 bytes"),
    "another kind of file": (b"PK\x03\x04" + bytes(64), "magic: b'PK\\x03\\x04' instead of b'GGUF'"),
    "three bytes": (b"GGU", "magic: the file ends at byte 3"),
    "version 1, with shorter counts": (RAW(version=1), "version: 1 is not read"),
    "a version of the future": (RAW(version=4), "version: 4 is not read"),
    "big-endian": (RAW(version=3 << 24), "version: the file is big-endian"),
    "2^63 tensors": (RAW(tensor_count=HUGE), f"tensor_count: {HUGE} tensors, at most {MOST_TENSORS}"),
    "2^63 keys": (RAW(key_count=HUGE), f"metadata_kv_count: {HUGE} keys, at most {MOST_KEYS}"),
    "more tensors than the file has room for": (RAW(tensor_count=1000), "tensor_count: 1000 tensors, but"),
    "more keys than the file has room for": (RAW(key_count=1000), "metadata_kv_count: 1000 keys, but"),
    "a text of 2^63 bytes": (
        RAW([E("a", Kind.STRING, struct.pack("<Q", HUGE))]),
        f"a: a text of {HUGE} bytes, at most {MOST_STRING_BYTES}",
    ),
    "a text beyond the file's end": (RAW([E("a", Kind.STRING, struct.pack("<Q", 5000))]), "a: the file ends at byte"),
    "a text that is not UTF-8": (RAW([E("a", Kind.STRING, gguf_files.text(b"ab\xff"))]), "a: not UTF-8 at byte"),
    "a name of 2^63 bytes": (RAW([struct.pack("<Q", HUGE)]), "metadata key 1 of 1: a text of"),
    "an array of 2^63 numbers": (RAW([E("a", Kind.ARRAY, array(Kind.UINT8, HUGE))]), f"a: {HUGE} items, but"),
    "an array of 2^63 texts": (RAW([E("a", Kind.ARRAY, array(Kind.STRING, HUGE))]), f"a: {HUGE} items, but"),
    "an array of arrays": (RAW([E("a", Kind.ARRAY, array(Kind.ARRAY, 1))]), "a: an array of arrays"),
    "a type that is none": (RAW([E("a", 13, b"")]), "a: type 13 is not a GGUF type"),
    "an array of a type that is none": (RAW([E("a", Kind.ARRAY, array(77, 1))]), "a: type 77 is not a GGUF"),
    "a truth value of 2": (RAW([E("a", Kind.BOOL, b"\x02")]), "a: a truth value is 0 or 1, not 2"),
    "a key twice": (RAW([N("a", 1), N("a", 2)]), "metadata key 2 of 2: 'a' occurs twice"),
    "a key that is a path": (RAW([N("../../etc/passwd", 1)]), "metadata key 1 of 1: '../../etc/passwd' is a path"),
    "a key with a parent folder": (RAW([N("a..b", 1)]), "metadata key 1 of 1: 'a..b' is a path"),
    "a key with a backslash": (RAW([N("a\\b", 1)]), "is a path or has blanks"),
    "a key with a terminal's commands": (RAW([N("a\x1b[2J", 1)]), "metadata key 1 of 1: 'a\\x1b[2J' is a path"),
    "a key without a name": (RAW([N("", 1)]), "metadata key 1 of 1: '' is a path"),
    "a key with too long a name": (RAW([N("a" * 257, 1)]), f"a name of 257 bytes, at most {MOST_NAME_BYTES}"),
    "a tensor whose name is a path": (RAW(tensors=[T("/tmp/x", [8])]), "tensor 1 of 1: '/tmp/x' is a path"),
    "a tensor twice": (RAW(tensors=[T("a", [8]), T("a", [8], 0, 32)]), "tensor 2 of 2: 'a' occurs twice"),
    "no dimensions": (RAW(tensors=[T("a", [])]), "tensor a: 0 dimensions"),
    "five dimensions": (RAW(tensors=[T("a", [1] * 5)]), f"tensor a: 5 dimensions, 1 to {MOST_DIMENSIONS}"),
    "2^32 - 1 dimensions": (RAW(tensors=[T("a", [1], dimensions=2**32 - 1)]), "tensor a: 4294967295 dimensions"),
    "a dimension of 0": (RAW(tensors=[T("a", [8, 0])]), "tensor a: shape [8, 0]: a dimension of 0"),
    "a type of tensor that is none": (RAW(tensors=[T("a", [8], 4)]), "tensor a: type 4 is not known"),
    "half a block": (
        RAW(tensors=[T("a", [48], 3)]),
        "tensor a: shape [48]: 48 is not a multiple of 32, the block of Q4_1",
    ),
    "an offset that is not aligned": (RAW(tensors=[T("a", [8], 0, 8)]), "tensor a: offset 8 is not a multiple of 32"),
    "a tensor beyond the end": (
        RAW(tensors=[T("a", [8], 0, 4096)]),
        "tensor a: ends at byte 4128 of the data, but the file has",
    ),
    "a tensor that ends a byte too late": (RAW(tensors=[T("a", [1025])], data=4099), "tensor a: ends at byte 4100"),
    "dimensions whose product is 2^252": (RAW(tensors=[T("a", [HUGE, HUGE, HUGE, HUGE])]), "tensor a: ends at byte"),
    "tensors in one place": (
        RAW(tensors=[T("a", [16]), T("b", [16], 0, 32)]),
        "tensor b: offset 32 lies in a, which ends at 64",
    ),
    "an alignment of 0": (RAW([N("general.alignment", 0)]), "general.alignment: 0 is not a power of two"),
    "an alignment of 4": (RAW([N("general.alignment", 4)]), "general.alignment: 4 is not a power of two"),
    "an alignment of 48": (RAW([N("general.alignment", 48)]), "general.alignment: 48 is not a power of two"),
    "an alignment of 2 MiB": (
        RAW([N("general.alignment", 2 * MOST_ALIGNMENT)]),
        f"general.alignment: {2 * MOST_ALIGNMENT} is not a power of two from 8 to {MOST_ALIGNMENT}",
    ),
    "an alignment that is a text": (
        RAW([E("general.alignment", Kind.STRING, gguf_files.text("32"))]),
        "general.alignment: '32' is not a power of two",
    ),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_wrong_is_told_with_field_value_and_remedy(tmp_path: Path, content: bytes, message: str) -> None:
    told = refusal(tmp_path, content)
    assert message in told
    assert "; " in told, "no remedy"


TAKEN = {
    "tensors side by side": RAW(tensors=[T("a", [8]), T("b", [8], 0, 32)]),
    "a tensor that ends with the file": RAW(tensors=[T("a", [1024])]),
    "a name of the greatest length": RAW([N("a" * MOST_NAME_BYTES, 1)]),
    "four dimensions": RAW(tensors=[T("a", [1] * 4)]),
    "an alignment of 8": RAW([N("general.alignment", 8)]),
    "version 2": RAW([N("a", 1)], version=2),
    "neither keys nor tensors": RAW(data=0),
}


@pytest.mark.parametrize("content", TAKEN.values(), ids=TAKEN.keys())
def test_what_is_just_within_the_limits_is_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "given.gguf"
    path.write_bytes(content)
    read_header(path)


@pytest.mark.parametrize(("kind", "size"), [(Kind.STRING, 8), (Kind.UINT8, 1), (Kind.INT16, 2), (Kind.FLOAT64, 8)])
def test_an_array_may_fill_the_file_and_not_a_byte_more(tmp_path: Path, kind: Kind, size: int) -> None:
    path = tmp_path / "given.gguf"
    head = gguf_files.head(E("a", Kind.ARRAY, array(kind, 3)))
    path.write_bytes(head + bytes(3 * size))
    found = read_header(path).metadata["a"]
    assert isinstance(found, Array) and len(found.items) == 3
    assert "a: 3 items, but" in refusal(tmp_path, head + bytes(3 * size - 1))


def test_what_is_no_plain_file_is_an_error_and_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "absent"):
        with pytest.raises(WeightsError, match=r"not a regular file|No such file"):
            read_header(path)


def test_it_reads_what_gguf_reads(tmp_path: Path) -> None:
    path = gguf_files.write(tmp_path / "whole.gguf", alignment=64)
    ours, theirs = read_header(path), gguf.GGUFReader(path)
    assert ours.data_offset == theirs.data_offset and ours.alignment == theirs.alignment == 64
    assert [
        (t.name, t.type, t.bytes, ours.data_offset + t.offset, list(t.shape), t.elements) for t in ours.tensors
    ] == [
        (t.name, t.tensor_type.name, t.n_bytes, t.data_offset, t.shape.tolist(), t.n_elements) for t in theirs.tensors
    ]
    known = {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert {k: list(v.items) if isinstance(v, Array) else v for k, v in ours.metadata.items()} == known


def test_block_sizes_are_those_of_ggml() -> None:
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    assert {number: theirs[number] for number in BLOCKS} == dict(BLOCKS)


def test_long_arrays_are_counted_and_not_kept(tmp_path: Path) -> None:
    for kind, item in ((Kind.INT16, b"\0\0"), (Kind.STRING, gguf_files.text("ü"))):
        for length, kept in ((KEPT_ITEMS, KEPT_ITEMS), (KEPT_ITEMS + 1, 0)):
            path = tmp_path / "given.gguf"
            path.write_bytes(RAW([E("a", Kind.ARRAY, array(kind, length, item * length)), N("b", 7)]))
            header = read_header(path)
            found = header.metadata["a"]
            assert isinstance(found, Array)
            assert (found.kind, found.length, len(found.items)) == (kind, length, kept)
            assert header.metadata["b"] == 7


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return gguf_files.write(tmp_path_factory.mktemp("gguf") / "whole.gguf").read_bytes()


def test_a_file_cut_at_every_4_kib_is_refused(tmp_path: Path, whole: bytes) -> None:
    cuts = range(0, len(whole), 4096)
    assert len(cuts) >= 4
    for cut in cuts:
        told = refusal(tmp_path, whole[:cut])
        assert "fetch it again" in told, cut


def test_a_header_cut_anywhere_is_refused(tmp_path: Path) -> None:
    entries = [N("n", 1), E("t", Kind.STRING, gguf_files.text("ü")), E("a", Kind.ARRAY, array(Kind.INT16, 2, b"1234"))]
    content = RAW(entries, [T("x", [8]), T("y", [32], 3, 32)])
    path = tmp_path / "whole.gguf"
    path.write_bytes(content)
    for cut in range(read_header(path).data_offset + 32 + 20):
        refusal(tmp_path, content[:cut])


@settings(max_examples=count_examples(150))
@given(flips=st.lists(st.tuples(st.integers(0, 2**20), st.integers(1, 255)), min_size=1, max_size=8))
def test_flipped_bits_give_a_header_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, whole: bytes, flips: list[tuple[int, int]]
) -> None:
    content = bytearray(whole)
    for place, mask in flips:
        content[place % 4096] ^= mask
    path = tmp_path_factory.getbasetemp() / "flipped.gguf"
    path.write_bytes(content)
    try:
        header = read_header(path)
    except WeightsError:
        return
    assert all(t.offset + t.bytes <= len(content) - header.data_offset for t in header.tensors)


@settings(max_examples=count_examples(150))
@given(content=st.binary(max_size=400), counts=st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)))
def test_any_bytes_behind_a_valid_start_give_a_header_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, counts: tuple[int, int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.gguf"
    for tensors, keys in (counts, (1, 1)):
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + content)
        with contextlib.suppress(WeightsError):
            read_header(path)


def test_a_file_that_claims_much_takes_little_memory(tmp_path: Path) -> None:
    """8 GiB on paper (sparse), all of it header by its own account: reading stops at the limit, in little memory."""
    path = tmp_path / "sparse.gguf"
    claim = RAW([E("a", Kind.ARRAY, array(Kind.UINT8, 8 * 2**30 - 8192))], data=0)
    with path.open("wb") as stream:
        stream.write(claim)
        stream.truncate(8 * 2**30)
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match="items, but"):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_many_texts_are_read_in_bounded_memory(tmp_path: Path) -> None:
    """Each is looked at, none is kept."""
    count = 200_000
    path = tmp_path / "many.gguf"
    with path.open("wb") as stream:
        stream.write(gguf_files.head(E("a", Kind.ARRAY, array(Kind.STRING, count))))
        stream.truncate(stream.tell() + 8 * count)
    script = (
        "import sys; from pathlib import Path;"
        "from r1plus_model_repo.importing.gguf.header import read_header;"
        # Not ru_maxrss, which begins at what the parent of this process had.
        "peak = lambda: int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]);"
        "before = peak(); read_header(Path(sys.argv[1])); print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8 * 1024  # KiB


def test_a_header_without_end_is_refused(tmp_path: Path) -> None:
    """Sparse: texts of 1 MiB, one after the other, until the limit."""
    path = tmp_path / "endless.gguf"
    item = struct.pack("<Q", MOST_STRING_BYTES) + bytes(MOST_STRING_BYTES)
    count = MOST_HEADER_BYTES // len(item) + 1
    with path.open("wb") as stream:
        stream.write(gguf_files.head(E("a", Kind.ARRAY, array(Kind.STRING, count))))
        for _ in range(count):
            stream.write(item[:8])
            stream.seek(MOST_STRING_BYTES, os.SEEK_CUR)
        stream.truncate(stream.tell() + 4096)
    with pytest.raises(WeightsError, match=f"a: the header is longer than {MOST_HEADER_BYTES} bytes"):
        read_header(path)
