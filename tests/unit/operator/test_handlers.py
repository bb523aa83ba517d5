"""What kopf is told about the API server."""

from pathlib import Path

import aiohttp
import pytest

from r1plus_operator.observe.edits.kopf_watch import InClusterConnection
from support.rotating_tls import RotatingServer


async def test_kopf_trusts_a_rotated_ca_of_the_api_server_without_a_restart(tmp_path: Path) -> None:
    """kopf asks for the context once, at its login, and takes a failed connection for a quiet one."""
    async with RotatingServer(tmp_path, {}).listen() as server:
        trust = InClusterConnection(server=server.url, ca_path=str(server.ca), token="secret").as_ssl_context()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session:
            assert (await session.get(server.url)).status == 200
            server.rotate()
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.get(server.url)
            server.publish()
            assert (await session.get(server.url)).status == 200
