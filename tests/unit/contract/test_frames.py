"""What is read of a frame on a pipe between processes."""

import os

import pytest

from r1plus_contract.frames import FrameError, pack, read_frame_from
from support.tables import for_each

MOST_BYTES = 8


def read(sent: bytes) -> bytes:
    """Return what is read from a pipe whose writer sends this and closes it."""
    reading, writing = os.pipe()
    try:
        os.write(writing, sent)
        os.close(writing)
        return read_frame_from(reading, MOST_BYTES)
    finally:
        os.close(reading)


@for_each("sent, content", {
    "a frame": (pack(b"a frame."), b"a frame."),
    "a frame, of which only that much is read": (pack(b"one") + pack(b"two"), b"one"),
    "nothing": (b"", b""),
    "half a length": (b"\0\0", b""),
    "half a frame": (pack(b"a frame")[:-3], b""),
})  # fmt: skip
def test_a_frame_is_read_whole_or_not_at_all(sent: bytes, content: bytes) -> None:
    assert read(sent) == content


@for_each("sent", {"too large": pack(b"too large"), "empty": pack(b"")})
def test_a_frame_out_of_bounds_is_refused(sent: bytes) -> None:
    with pytest.raises(FrameError, match="is not between 1 and 8 bytes"):
        read(sent)
