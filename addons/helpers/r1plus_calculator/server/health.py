"""Ask a calculator that runs how it is, for the kubelet: without SymPy, which takes seconds to load."""

import os
from pathlib import Path
from typing import Final

from r1plus_contract.calculator import (
    DEFAULT_SOCKET,
    ENV_SOCKET,
    MOST_REPLY_BYTES,
    CalculationRequest,
    CalculatorReply,
)
from r1plus_contract.frames import ask
from r1plus_contract.jsonable import ContractError, dumps, loads

HEALTH_SECONDS: Final = 2.0


def read_socket_path() -> Path:
    """Return the path of the calculator's socket."""
    return Path(os.environ.get(ENV_SOCKET, DEFAULT_SOCKET))


def check_health() -> int:
    """Return 0 if a calculator answers at the socket and has workers, else 1 with the reason on standard output."""
    request = dumps(CalculationRequest("")).encode()
    try:
        reply = ask(read_socket_path(), request, MOST_REPLY_BYTES, HEALTH_SECONDS)
        health = loads(CalculatorReply, reply, tolerant=True).health
    except (OSError, ContractError) as error:
        print(f"The calculator does not answer: {error}")
        return 1
    if health is None or not health.is_ready:
        print("The calculator has no worker that is ready; its log says why")
        return 1
    return 0
