"""Lines of a watch's byte stream. Used by the client's `watch`.

aiohttp's own `readline` refuses lines above 128 KiB, and an object may have 1.5 MiB.
"""


class LineCutter:
    """Cutter that takes chunks as they arrive and returns the lines that they complete. Does no I/O."""

    def __init__(self) -> None:
        self._pending: list[bytes] = []

    @property
    def pending_bytes(self) -> int:
        """Bytes of a line that has begun and not ended; above 0 at the stream's end, the stream was cut off."""
        return sum(map(len, self._pending))

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that are complete now, without newlines and without empty lines."""
        first, *others = chunk.split(b"\n")
        if not others:
            if first:
                self._pending.append(first)
            return []
        lines = [b"".join([*self._pending, first]), *others[:-1]]
        self._pending = [others[-1]] if others[-1] else []
        return [line for line in lines if line]
