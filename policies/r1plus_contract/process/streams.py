"""Reading answers of other processes without filling our memory."""

from collections.abc import AsyncIterable


async def read_at_most(chunks: AsyncIterable[bytes], most: int) -> bytes:
    """Read the first `most` bytes, however they are cut into packets; later bytes are not awaited."""
    data = bytearray()
    async for chunk in chunks:
        data += chunk
        if len(data) >= most:
            break
    return bytes(data[:most])
