"""`decoy`: the target of the isolation probe. It identifies itself to every client, and does nothing else."""

import asyncio
from contextlib import AsyncExitStack, suppress

from r1plus_contract.monitor.isolation import BANNER


async def listen(ports: tuple[int, ...], host: str | None = None) -> list[asyncio.Server]:
    """Listen on every port of `host`, or of every address that there is; raises OSError."""
    return [await asyncio.start_server(_greet, host, port) for port in ports]


async def serve(ports: tuple[int, ...]) -> None:
    """Listen until cancelled."""
    async with AsyncExitStack() as stack:
        for server in await listen(ports):
            stack.callback(server.close)
        print(f"The decoy listens on {', '.join(map(str, ports))}", flush=True)
        await asyncio.Event().wait()


async def _greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send the banner and close; nothing is read."""
    writer.write(BANNER)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
