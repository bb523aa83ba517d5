"""Ask a calculator that runs how it is, for the kubelet: without SymPy, which takes seconds to load."""

import os
import socket
from pathlib import Path
from typing import Final

from r1plus_contract.calculator import (
    DEFAULT_SOCKET,
    ENV_SOCKET,
    LENGTH_BYTES,
    MOST_REPLY_BYTES,
    CalculationRequest,
    CalculatorReply,
)
from r1plus_contract.jsonable import ContractError, dumps, loads

HEALTH_SECONDS: Final = 2.0


def read_socket_path() -> Path:
    """Return the path of the calculator's socket."""
    return Path(os.environ.get(ENV_SOCKET, DEFAULT_SOCKET))


def check_health() -> int:
    """Return 0 if a calculator answers at the socket and has workers, else 1 with the reason on standard output."""
    request = dumps(CalculationRequest("")).encode()
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(HEALTH_SECONDS)
            client.connect(str(read_socket_path()))
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
