"""The process of a gateway: serve until SIGTERM, then drain. Called by `__main__`."""

import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import uvloop

from r1plus_contract import calculator, documents, embedder
from r1plus_contract.gateway import (
    DIR_SETTINGS,
    ENV_CODE_INTERPRETER,
    ENV_HELPER_START_SECONDS,
    ENV_INTERNAL_LISTENER,
    ENV_LISTENER,
    SETTINGS_FILE,
)
from r1plus_gateway.assistant.calculation.client import Calculator, SocketCalculator
from r1plus_gateway.assistant.embedding.client import Embedder, SocketEmbedder
from r1plus_gateway.assistant.knowledge.documents import DocumentReader, SocketDocumentReader
from r1plus_gateway.descriptors import DescriptorLimitError, raise_descriptor_limit
from r1plus_gateway.http.metrics import GatewayMetrics
from r1plus_gateway.http.server import run_gateway
from r1plus_gateway.settings import ENV_SETTINGS, SettingsError, SettingsFile
from r1plus_gateway.store.service import run_access

DEFAULT_SETTINGS: Final = f"{DIR_SETTINGS}/{SETTINGS_FILE}"


def run() -> int:
    """Run the gateway; return the exit status: 2 for settings that cannot be used."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # `database.opening` logs the schema before and after
    metrics = GatewayMetrics()
    try:
        file = SettingsFile(Path(os.environ.get(ENV_SETTINGS, DEFAULT_SETTINGS)), metrics.set_settings_validity)
        uvloop.run(_serve(file, metrics, raise_descriptor_limit()))
    except SettingsError as error:
        logging.getLogger(__name__).error("Settings are not usable: %s", error)
        return 2
    except DescriptorLimitError as error:
        logging.getLogger(__name__).error("The gateway could not start: %s", error)
        return 2
    return 0


def _find_calculator() -> Calculator | None:
    """Return the calculator beside this gateway, if its socket is named."""
    path = os.environ.get(calculator.ENV_SOCKET, "")
    runs_code = os.environ.get(ENV_CODE_INTERPRETER, "") == "true"
    return SocketCalculator(path, start_seconds=_read_start_seconds(), runs_code=runs_code) if path else None


def _find_documents() -> DocumentReader | None:
    """Return the reader of documents beside this gateway, if its socket is named."""
    path = os.environ.get(documents.ENV_SOCKET, "")
    return SocketDocumentReader(path) if path else None


def _find_embedder() -> Embedder | None:
    """Return the embedder beside this gateway, if its socket is named."""
    path = os.environ.get(embedder.ENV_SOCKET, "")
    return SocketEmbedder(path, start_seconds=_read_start_seconds()) if path else None


def _read_start_seconds() -> float:
    return float(os.environ.get(ENV_HELPER_START_SECONDS) or 0)


def _find_listener(variable: str) -> socket.socket | None:
    """Return the socket that who started this process listens with, if it does."""
    descriptor = os.environ.get(variable, "")
    return socket.socket(fileno=int(descriptor)) if descriptor else None


async def _serve(file: SettingsFile, metrics: GatewayMetrics, most_connections: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with (
        run_access(file) as access,
        run_gateway(
            file,
            metrics,
            access.authenticator,
            access.store.ledger,
            access.usage,
            store=access.store,
            calculator=_find_calculator(),
            documents=_find_documents(),
            embedder=_find_embedder(),
            listener=_find_listener(ENV_LISTENER),
            internal_listener=_find_listener(ENV_INTERNAL_LISTENER),
            most_connections=most_connections,
        ),
    ):
        await stop.wait()
