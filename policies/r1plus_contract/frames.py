"""Frames on sockets and pipes between processes of one pod: a length in 4 bytes, big-endian, then that many bytes."""

import asyncio
import os
import socket
from pathlib import Path
from typing import Final

LENGTH_BYTES: Final = 4


class FrameError(ValueError):
    """What arrived is no frame, or one that is too large."""


def pack(payload: bytes) -> bytes:
    """Return a frame."""
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def ask(path: Path, request: bytes, most: int, seconds: float) -> bytes:
    """Return the reply of a server at a Unix socket, without its length; `most`: bytes that are read at once.

    Raises:
        OSError: it is away, or silent for so long.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(seconds)
        client.connect(str(path))
        client.sendall(pack(request))
        data = b""
        while chunk := client.recv(most):
            data += chunk
    return data[LENGTH_BYTES:]


def read_length(head: bytes, most: int) -> int:
    """Return the length of a frame's content.

    Raises:
        FrameError: it is 0 or too large.
    """
    length = int.from_bytes(head, "big")
    if not 0 < length <= most:
        raise FrameError(f"a frame of {length} bytes is not between 1 and {most} bytes")
    return length


async def read_frame(reader: asyncio.StreamReader, most: int) -> bytes:
    """Return a frame's content.

    Raises:
        FrameError: it is empty or too large.
        asyncio.IncompleteReadError: the other side has closed the connection.
    """
    length = read_length(await reader.readexactly(LENGTH_BYTES), most)
    return await reader.readexactly(length)


def read_frame_from(descriptor: int, most: int) -> bytes:
    """Return a frame's content from a blocking descriptor; empty when the other side has closed it.

    Raises:
        FrameError: it is empty or too large.
    """
    head = _read_exactly(descriptor, LENGTH_BYTES)
    return _read_exactly(descriptor, read_length(head, most)) if head else b""


def _read_exactly(descriptor: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = os.read(descriptor, count - len(data))
        if not chunk:
            return b""
        data += chunk
    return data


def write_to(descriptor: int, data: bytes) -> None:
    """Write all to a blocking descriptor."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
