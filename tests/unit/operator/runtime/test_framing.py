"""Lines come out of a stream whole, wherever the network cut it."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from r1plus_operator.runtime.framing import LineCutter


@given(
    lines=st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), max_size=8),
    tail=st.binary(max_size=10).map(lambda b: b.replace(b"\n", b"")),
    cuts=st.lists(st.integers(0, 300), max_size=12),
)
def test_any_chunking_gives_the_same_lines(lines: list[bytes], tail: bytes, cuts: list[int]) -> None:
    stream = b"".join(line + b"\n" for line in lines) + tail
    edges = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    cutter = LineCutter()
    found = [line for a, b in itertools.pairwise(edges) for line in cutter.feed(stream[a:b])]
    assert found == [line for line in lines if line]
    assert cutter.pending_bytes == len(tail)
