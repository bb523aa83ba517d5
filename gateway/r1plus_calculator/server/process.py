"""The process: serve until SIGTERM."""

import asyncio
import logging
import sys

from r1plus_calculator.server.health import read_socket_path
from r1plus_calculator.server.server import run_calculator
from r1plus_contract.frame_server import SocketError, serve_until_sigterm
from r1plus_sandbox.seccomp import SandboxError, refuse_networks

log = logging.getLogger(__name__)


def run() -> int:
    """Run the calculator; return the exit status: 2 for a socket that cannot be used, or a kernel without filters."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    from r1plus_calculator.server.preload import preload

    try:
        refuse_networks()
        preload()
        path = read_socket_path()
        asyncio.run(serve_until_sigterm(run_calculator(path), "Calculator", str(path)))
    except SocketError as error:
        log.error("Socket is not usable: %s", error)
        return 2
    except SandboxError as error:
        log.error("Calculator cannot start: %s", error)
        return 2
    return 0
