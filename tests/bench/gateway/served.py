"""The gateway in a process of its own, with a ledger in memory: `python -m bench.gateway.served SETTINGS LEDGER_PORT`."""

import asyncio
import sys
from pathlib import Path

import uvloop
from aiohttp import web

from r1plus_assistant.assistant import build_assistant
from r1plus_gateway.http.metrics import GatewayMetrics
from r1plus_gateway.http.server import run_gateway
from r1plus_gateway.settings import SettingsFile
from support.gateway.access import FakeAuthenticator, FakeLedger


class CountingLedger(FakeLedger):
    """Keeps only what was used, by request."""

    async def get_usage(self, _: web.Request) -> web.Response:
        """Return (prompt tokens, completion tokens, outcome) by request id, and forget them."""
        rows = {
            entry.reservation.request_id: [entry.usage.completion_tokens, entry.outcome.value] for entry in self.settled
        }
        self.settled.clear()
        return web.json_response({"open": len(self.open), "settled": rows})


async def serve(settings: Path, ledger_port: int) -> None:
    """Serve until killed."""
    ledger, metrics = CountingLedger(budget=10**12), GatewayMetrics()
    app = web.Application()
    app.router.add_get("/ledger", ledger.get_usage)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", ledger_port).start()
    run_add_on = build_assistant().run
    async with run_gateway(SettingsFile(settings), metrics, FakeAuthenticator(), ledger, ledger, run_add_on=run_add_on):
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1]), int(sys.argv[2])))
