"""`decoy`: what the prober attacks. It says who it is to whoever connects, and nothing else."""

import asyncio
from contextlib import AsyncExitStack, suppress

from r1plus_contract.isolation import BANNER


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
    """It hears nobody out: there is nothing to say to it."""
    writer.write(BANNER)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
