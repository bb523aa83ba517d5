"""`python -m r1plus_gateway`: serve until SIGTERM, then drain."""

import asyncio
import logging
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Final

import uvloop

from r1plus_gateway.http.metrics import GatewayMetrics
from r1plus_gateway.http.server import run_gateway
from r1plus_gateway.settings import ENV_SETTINGS, SettingsError, SettingsFile

DEFAULT_SETTINGS: Final = "/etc/r1plus/gateway/settings.json"


def main() -> int:
    """Run the gateway; return the exit status: 2 for settings that cannot be used."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    metrics = GatewayMetrics()
    try:
        file = SettingsFile(Path(os.environ.get(ENV_SETTINGS, DEFAULT_SETTINGS)), metrics.set_settings_validity)
        uvloop.run(_serve(file, metrics))
    except SettingsError as error:
        logging.getLogger(__name__).error("Settings are not usable: %s", error)
        return 2
    return 0


async def _serve(file: SettingsFile, metrics: GatewayMetrics) -> None:
    open_store = import_module("r1plus_gateway.store.opening").open_store
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with (
        open_store(file.current.namespace) as store,
        run_gateway(file, metrics, store.authenticator, store.ledger, store.usage),
    ):
        await stop.wait()


if __name__ == "__main__":
    sys.exit(main())
