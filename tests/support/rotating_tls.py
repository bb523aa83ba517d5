"""An HTTPS server whose CA is replaced, and the file in which a kubelet would show the CA to its clients."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from devcluster.pki import Authority


class RotatingServer:
    """Answers every request with `document`, each on a connection of its own."""

    def __init__(self, folder: Path, document: dict[str, Any]) -> None:
        self._folder = folder
        self._document = document
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._authority = self._replace_authority(1)
        self.port = 0
        self.ca = folder / "ca.crt"
        self.publish()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://127.0.0.1:{self.port}"

    def rotate(self) -> None:
        """Show a certificate of another CA from the next connection on; clients see it after `publish`."""
        self._authority = self._replace_authority(2)

    def publish(self) -> None:
        """Replace the clients' file as a kubelet does, by a rename."""
        new = self.ca.with_suffix(".new")
        new.write_bytes(self._authority.certificate.read_bytes())
        new.replace(self.ca)

    def _replace_authority(self, number: int) -> Authority:
        authority = Authority(self._folder / f"authority-{number}")
        authority.ensure()
        identity = authority.issue("server", "server", hosts=["127.0.0.1"])
        self._tls.load_cert_chain(identity.certificate, identity.key)
        return authority

    @asynccontextmanager
    async def listen(self) -> AsyncIterator["RotatingServer"]:
        """Serve until the block ends."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls).start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, _: web.Request) -> web.Response:
        return web.json_response(self._document, headers={"Connection": "close"})
