"""Lets the host's programs reach addresses inside the cluster's network namespace, over loopback.

One process holds listening sockets that were made on the host, enters the namespace, and connects from there:
`kubectl`, `helm` and tests then need no `nsenter`. Run as `python -m devcluster.forwarder NETNS FD=ADDRESS:PORT...`.
"""

import asyncio
import ctypes
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from devcluster import daemons
from devcluster.daemons import Daemon
from devcluster.layout import Layout

_CLONE_NEWNET = 0x40000000
_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Forward:
    """One loopback port of the host, and the address inside the cluster that it stands for."""

    port: int
    target: str


def start(name: str, targets: Sequence[tuple[int, str]], layout: Layout) -> list[Forward]:
    """Start one forwarder for (wanted host port, "ip:port") pairs; port 0, and a port in use, mean any free one.

    The sockets are made here and inherited, so that a connection made right after this call is already accepted.
    """
    held = [_listen(port) for port, _ in targets]
    try:
        pairs = [f"{one.fileno()}={target}" for one, (_, target) in zip(held, targets, strict=True)]
        words = (sys.executable, "-m", "devcluster.forwarder", str(layout.netns), *pairs)
        env = {"PYTHONPATH": str(Path(__file__).parent.parent)}
        descriptors = tuple(one.fileno() for one in held)
        daemons.start(Daemon(name, words, env=env, on_host=True, sockets=descriptors), layout)
        return [Forward(one.getsockname()[1], target) for one, (_, target) in zip(held, targets, strict=True)]
    finally:
        for one in held:
            one.close()


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port), backlog=128)
    except OSError:
        return socket.create_server(("127.0.0.1", 0), backlog=128)


def main(arguments: Sequence[str]) -> None:
    """Enter the namespace and serve until killed."""
    netns, *pairs = arguments
    listening = [_adopt(pair) for pair in pairs]
    _enter(netns)
    asyncio.run(_serve(listening))


def _adopt(pair: str) -> tuple[socket.socket, str, int]:
    descriptor, target = pair.split("=", 1)
    address, port = target.rsplit(":", 1)
    return socket.socket(fileno=int(descriptor)), address, int(port)


def _enter(netns: str) -> None:
    descriptor = os.open(f"/run/netns/{netns}", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"setns into {netns}")
    os.close(descriptor)


async def _serve(listening: Sequence[tuple[socket.socket, str, int]]) -> None:
    servers = []
    for held, address, port in listening:
        servers.append(await asyncio.start_server(Connector(address, port), sock=held))
    await asyncio.gather(*(server.serve_forever() for server in servers))


class Connector:
    """Carries one accepted connection to the target, both ways, until both have ended."""

    def __init__(self, address: str, port: int) -> None:
        self._address = address
        self._port = port

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Called by asyncio for each connection. A target that cannot be reached closes it."""
        try:
            far_reader, far_writer = await asyncio.open_connection(self._address, self._port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        for one in (writer, far_writer):
            one.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end of one direction, then say so to the other side: the second direction may go on."""
    try:
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


if __name__ == "__main__":
    main(sys.argv[1:])
