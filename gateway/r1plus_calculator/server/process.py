"""The process: serve until SIGTERM. `health` asks one that runs, for the kubelet."""

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from r1plus_calculator.server.server import run_calculator
from r1plus_contract.calculator import (
    DEFAULT_SOCKET,
    ENV_SOCKET,
    LENGTH_BYTES,
    MOST_REPLY_BYTES,
    CalculationRequest,
    CalculatorReply,
)
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_sandbox.sockets import SocketError

log = logging.getLogger(__name__)
HEALTH_SECONDS: Final = 2.0


def run() -> int:
    """Run the calculator; return the exit status: 2 for a socket that cannot be used."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    from r1plus_calculator.server.preload import preload

    preload()
    try:
        asyncio.run(_serve(_read_path()))
    except SocketError as error:
        log.error("Socket is not usable: %s", error)
        return 2
    return 0


async def _serve(path: Path) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with run_calculator(path):
        log.info("Calculator listens on %s", path)
        await stop.wait()
    log.info("Calculator stopped")


def check_health() -> int:
    """Return 0 if a calculator answers at the socket and has workers, else 1 with the reason on standard output."""
    request = dumps(CalculationRequest("")).encode()
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(HEALTH_SECONDS)
            client.connect(str(_read_path()))
            client.sendall(len(request).to_bytes(LENGTH_BYTES, "big") + request)
            data = b""
            while chunk := client.recv(MOST_REPLY_BYTES):
                data += chunk
        health = loads(CalculatorReply, data[LENGTH_BYTES:], tolerant=True).health
    except (OSError, ContractError) as error:
        print(f"The calculator does not answer: {error}")
        return 1
    if health is None or not health.is_ready:
        print("The calculator has no worker that is ready; its log says why")
        return 1
    return 0


def _read_path() -> Path:
    return Path(os.environ.get(ENV_SOCKET, DEFAULT_SOCKET))
