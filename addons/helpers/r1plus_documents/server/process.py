"""The process: serve until SIGTERM. `health` asks one that runs, for the kubelet."""

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path
from typing import Final

from r1plus_contract.documents import (
    DEFAULT_SOCKET,
    ENV_SOCKET,
    MOST_REPLY_BYTES,
    DocumentReply,
    DocumentRequest,
)
from r1plus_contract.frame_server import SocketError, serve_until_sigterm
from r1plus_contract.frames import LENGTH_BYTES, pack
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_sandbox.seccomp import SandboxError, refuse_networks

log = logging.getLogger(__name__)
HEALTH_SECONDS: Final = 5.0


def run() -> int:
    """Run the reader; return the exit status: 2 for a socket that cannot be used, or a kernel without filters."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what it says of a document may quote it
    from r1plus_documents.server.preload import preload
    from r1plus_documents.server.server import run_reader

    path = _read_path()
    try:
        refuse_networks()
        preload()
        asyncio.run(serve_until_sigterm(run_reader(path), "Reader of documents", str(path)))
    except SocketError as error:
        log.error("Socket is not usable: %s", error)
        return 2
    except SandboxError as error:
        log.error("Reader of documents cannot start: %s", error)
        return 2
    return 0


def check_health() -> int:
    """Return 0 if a child of a running reader answers, else 1 with the reason on standard output.

    A reader whose children are all at work takes the connection later, and is healthy.
    """
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(HEALTH_SECONDS)
            client.connect(str(_read_path()))
            client.sendall(pack(dumps(DocumentRequest("health", 0)).encode()))
            data = b""
            try:
                while chunk := client.recv(MOST_REPLY_BYTES):
                    data += chunk
            except TimeoutError:
                return 0
        reply = loads(DocumentReply, data[LENGTH_BYTES:], tolerant=True)
    except (OSError, ContractError) as error:
        print(f"The reader of documents does not answer: {error}")
        return 1
    if reply.failure is not None:
        print(f"The reader of documents cannot work: {reply.failure.message}")
        return 1
    return 0


def _read_path() -> Path:
    return Path(os.environ.get(ENV_SOCKET, DEFAULT_SOCKET))
