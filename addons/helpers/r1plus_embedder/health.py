"""Ask an embedder that runs how it is, for the kubelet. The engine need not be loaded for that."""

import os
from pathlib import Path
from typing import Final

from r1plus_contract.embedder import DEFAULT_SOCKET, ENV_SOCKET, MOST_REPLY_BYTES, EmbedderReply, EmbeddingRequest
from r1plus_contract.frames import ask
from r1plus_contract.jsonable import ContractError, dumps, loads

HEALTH_SECONDS: Final = 2.0


def read_socket_path() -> Path:
    """Return the path of the embedder's socket."""
    return Path(os.environ.get(ENV_SOCKET, DEFAULT_SOCKET))


def check_health() -> int:
    """Return 0 if an embedder answers at the socket, else 1 with the reason on standard output."""
    try:
        reply = ask(read_socket_path(), dumps(EmbeddingRequest()).encode(), MOST_REPLY_BYTES, HEALTH_SECONDS)
        health = loads(EmbedderReply, reply, tolerant=True).health
    except (OSError, ContractError) as error:
        print(f"The embedder does not answer: {error}")
        return 1
    if health is None:
        print("The embedder does not say how it is; its log says why")
        return 1
    return 0
