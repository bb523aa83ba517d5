"""The form of backups: what is cut, changed, reordered, mixed or prolonged does not open, and nothing is held in memory."""

import io
import itertools
import json
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from r1plus_gateway.store.copies.sealed_stream import (
    FRAME_BYTES,
    SealedStreamError,
    StreamHeader,
    StreamKind,
    StreamReader,
    seal,
)
from support.tables import for_each

pytestmark = pytest.mark.first_run_counts

KEY = bytes(range(32))
HEADER = StreamHeader(StreamKind.BACKUP, "backup_1", "team-credit", "uid", "ab" * 8, "0002", 1_800_000_000, 3)
PLAIN = bytes(range(256)) * 1000
PREFIX, TAG = 4, 16
HEAD_BYTES = len(HEADER.encode())
FRAME = PREFIX + FRAME_BYTES + TAG


def make(plain: bytes = PLAIN, header: StreamHeader = HEADER) -> bytes:
    return b"".join(seal(header, KEY, [plain[:100], b"", plain[100:]]))


def read(stream: bytes, kind: StreamKind = StreamKind.BACKUP, key: bytes = KEY) -> bytes:
    reader = StreamReader(io.BytesIO(stream).read, kind)
    plain = b"".join(reader.open_frames(key))
    reader.require_end()
    return plain


@for_each("size", {
    "nothing": 0,
    "a byte": 1,
    "a frame": FRAME_BYTES,
    "a frame and a byte": FRAME_BYTES + 1,
    "three frames": 3 * FRAME_BYTES,
})  # fmt: skip
def test_what_was_sealed_opens_again(size: int) -> None:
    plain = (PLAIN * (1 + size // len(PLAIN)))[:size]
    stream = make(plain)
    assert read(stream) == plain
    assert StreamReader(io.BytesIO(stream).read, StreamKind.BACKUP).header == HEADER


def test_two_streams_may_follow_each_other() -> None:
    both = io.BytesIO(make(b"one") + make(b"two"))
    for plain in (b"one", b"two"):
        assert b"".join(StreamReader(both.read, StreamKind.BACKUP).open_frames(KEY)) == plain


def test_the_form_can_be_copied_without_a_key() -> None:
    stream = make()
    assert b"".join(StreamReader(io.BytesIO(stream).read, StreamKind.BACKUP).copy_frames()) == stream


def test_the_same_content_is_sealed_differently_each_time_and_shows_nothing() -> None:
    one, other = (make(header=StreamHeader(StreamKind.BACKUP, *["x"] * 5, 0, 0)) for _ in range(2))
    assert one[-1000:] != other[-1000:]
    assert PLAIN[:64] not in one


def test_a_cut_at_any_byte_is_told() -> None:
    stream = make()
    frames = range(HEAD_BYTES, len(stream), FRAME)
    places = sorted(
        {*range(30), HEAD_BYTES - 1, *(at + more for at in frames for more in (0, 1, 4, 20)), len(stream) - 1}
    )
    for end in places:
        if end < len(stream):
            with pytest.raises(SealedStreamError, match=r"^backup: (is cut|is not a file)"):
                read(stream[:end])
            with pytest.raises(SealedStreamError, match=r"^backup: (is cut|is not a file)"):
                list(StreamReader(io.BytesIO(stream[:end]).read, StreamKind.BACKUP).copy_frames())


def test_a_flipped_bit_anywhere_is_told() -> None:
    stream = make(PLAIN[:1000])
    for place, bit in itertools.product(range(len(stream)), (1, 0x80)):
        changed = bytearray(stream)
        changed[place] ^= bit
        with pytest.raises(SealedStreamError):
            read(bytes(changed))


def swap_frames(stream: bytes) -> bytes:
    one, two = (stream[HEAD_BYTES + FRAME * n : HEAD_BYTES + FRAME * (n + 1)] for n in range(2))
    return stream[:HEAD_BYTES] + two + one + stream[HEAD_BYTES + 2 * FRAME :]


def leave_frame_out(stream: bytes) -> bytes:
    return stream[: HEAD_BYTES + FRAME] + stream[HEAD_BYTES + 2 * FRAME :]


def end_early(stream: bytes) -> bytes:
    """Mark the second frame as the last."""
    changed = bytearray(stream[: HEAD_BYTES + 2 * FRAME])
    changed[HEAD_BYTES + FRAME] |= 0x80
    return bytes(changed)


def mix(stream: bytes) -> bytes:
    """Take the second frame from another stream of the same tenant."""
    other = make(header=StreamHeader(StreamKind.BACKUP, *["x"] * 5, 0, 0))
    start = len(other) - (len(stream) - HEAD_BYTES) + FRAME
    return stream[: HEAD_BYTES + FRAME] + other[start : start + FRAME] + stream[HEAD_BYTES + 2 * FRAME :]


def rewrite_header(stream: bytes, **changes: object) -> bytes:
    document = json.loads(stream[12:HEAD_BYTES]) | changes
    text = json.dumps(document).encode()
    return stream[:8] + len(text).to_bytes(4, "big") + text + stream[HEAD_BYTES:]


@for_each("spoil, message", {
    "frames that were swapped": (swap_frames, "was changed, or put together of parts"),
    "a frame that was left out": (leave_frame_out, "was changed, or put together of parts"),
    "an end before the end": (end_early, "was changed, or put together of parts"),
    "a frame of another stream": (mix, "was changed, or put together of parts"),
    "something behind the end": (lambda one: one + b"x", "goes on behind its end"),
    "another schema in the header": (lambda one: rewrite_header(one, schema="0001"), "was changed"),
    "another time in the header": (lambda one: rewrite_header(one, created_at=1), "was changed"),
    "no salt": (lambda one: rewrite_header(one, salt="ä"), "has a header that was changed"),
    "a name of two lines": (lambda one: rewrite_header(one, namespace="a\nb"), "has a header that was changed"),
    "a long name": (lambda one: rewrite_header(one, schema="9" * 254), "has a header that was changed"),
    "a time that is none": (lambda one: rewrite_header(one, created_at=10**18), "has a header that was changed"),
    "a time before all": (lambda one: rewrite_header(one, created_at=-1), "has a header that was changed"),
    "rows that are true": (lambda one: rewrite_header(one, rows=True), "has a header that was changed"),
    "a number as a name": (lambda one: rewrite_header(one, id=1), "has a header that was changed"),
    "a field that is not known": (lambda one: rewrite_header(one, more=1), "has a header that was changed"),
    "a format of text": (lambda one: rewrite_header(one, format="1"), "has a header that was changed"),
    "a newer format": (lambda one: rewrite_header(one, format=2), "has format 2, newer than this program's 1"),
    "another kind": (lambda one: rewrite_header(one, kind="R1PlusTenantKeys"), "is a file of keys; the files were swapped"),
    "a header of 4 GiB": (lambda one: one[:8] + b"\xff" * 4 + one[12:], "is cut within its header"),
    "a frame of 2 GiB": (lambda one: one[:HEAD_BYTES] + b"\x7f\xff\xff\xff" + one[HEAD_BYTES + 4 :], "was changed at byte"),
    "another file": (lambda _: b"SQLite format 3\0", "is not a file of r1plus tenant backup"),
    "an empty file": (lambda _: b"", "is not a file of r1plus tenant backup"),
})  # fmt: skip
def test_what_is_not_whole_does_not_open(spoil: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(SealedStreamError, match=f"^backup: {message}"):
        read(spoil(make()))


def test_another_key_opens_nothing() -> None:
    with pytest.raises(SealedStreamError, match="at or before byte"):
        read(make(), key=bytes(32))


def test_little_is_in_memory_at_a_time() -> None:
    def produce() -> Iterator[bytes]:
        for _ in range(500):
            yield bytes(FRAME_BYTES)

    pieces = seal(HEADER, KEY, produce())
    buffer = bytearray()

    def pull(count: int) -> bytes:
        while len(buffer) < count and (piece := next(pieces, b"")):
            buffer.extend(piece)
        taken = bytes(buffer[:count])
        del buffer[:count]
        return taken

    tracemalloc.start()
    try:
        total = sum(map(len, StreamReader(pull, StreamKind.BACKUP).open_frames(KEY)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 500 * FRAME_BYTES
    assert peak < 2 * 2**20
