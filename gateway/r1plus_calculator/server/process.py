"""The process: serve until SIGTERM."""

import asyncio
import logging
import signal
import sys
from pathlib import Path

from r1plus_calculator.server.health import read_socket_path
from r1plus_calculator.server.server import run_calculator
from r1plus_contract.frame_server import SocketError

log = logging.getLogger(__name__)


def run() -> int:
    """Run the calculator; return the exit status: 2 for a socket that cannot be used."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    from r1plus_calculator.server.preload import preload

    preload()
    try:
        asyncio.run(_serve(read_socket_path()))
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
