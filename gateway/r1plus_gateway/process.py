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

from r1plus_contract.gateway import (
    DIR_SETTINGS,
    ENV_INTERNAL_LISTENER,
    ENV_LISTENER,
    SETTINGS_FILE,
)
from r1plus_gateway.assembly import find_add_on
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
            run_add_on=find_add_on(),
            listener=_find_listener(ENV_LISTENER),
            internal_listener=_find_listener(ENV_INTERNAL_LISTENER),
            most_connections=most_connections,
        ),
    ):
        await stop.wait()
