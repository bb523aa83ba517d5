"""A program of another user that tries to listen at ports of ours. Who is not root has no other user."""

import asyncio
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager

_SCRIPT = """
import os, select, socket, sys
if os.getuid() == 0:
    os.setuid(65534)
def attempt(host, port):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            listener.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            listener.bind((host, port))
            listener.listen()
            return "it listens"
        except OSError as error:
            return error.strerror
host, ports = sys.argv[1], [int(port) for port in sys.argv[2:]]
outcomes = {attempt(host, port) for port in ports}
print("tries", flush=True)
while not select.select([sys.stdin], [], [], 0.001)[0]:
    outcomes |= {attempt(host, port) for port in ports}
print(*sorted(outcomes), sep=", ")
"""


async def try_to_listen(host: str, port: int) -> str:
    """Return what came of it: `it listens`, or why not."""
    process = await asyncio.create_subprocess_exec(
        *_build_command(host, [port]), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    return output.decode().splitlines()[-1]


@contextmanager
def trying_to_listen(host: str, ports: Collection[int]) -> Iterator[list[str]]:
    """Try again and again for the block; then the list has what came of it, as `try_to_listen` says it."""
    outcomes: list[str] = []
    command = _build_command(host, ports)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "tries\n"
            yield outcomes
        finally:
            outcomes.extend(process.communicate()[0].strip().split(", "))


def _build_command(host: str, ports: Collection[int]) -> list[str]:
    return [sys.executable, "-c", _SCRIPT, host, *map(str, ports)]
