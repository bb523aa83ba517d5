"""A calculator whose programs have a minute, as a process: `python -m support.calculator.patient [health]`."""

import asyncio
import sys

from r1plus_calculator.server.health import check_health, read_socket_path
from r1plus_calculator.server.server import run_calculator
from r1plus_contract.frame_server import serve_until_sigterm
from support.calculator.running import PATIENT, build_code_runner


def answer_at_once(_: bytes) -> bytes:
    """Answer an expression without SymPy."""
    return b'{"failure": null}'


async def serve() -> None:
    """Serve until SIGTERM."""
    path = read_socket_path()
    serving = run_calculator(path, PATIENT, 1, answer_at_once, code_runner=build_code_runner())
    await serve_until_sigterm(serving, "Calculator", str(path))


if __name__ == "__main__":
    if sys.argv[1:] == ["health"]:
        sys.exit(check_health())
    asyncio.run(serve())
