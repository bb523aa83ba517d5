"""A gateway whose PostgreSQL is gone is alive and not ready, and is ready again when the server is back."""

from contextlib import closing
from pathlib import Path

import pytest

from support.gateway.fake_triton import FakeTriton, answer, serving
from support.gateway.process import GatewayProcess
from support.gateway.rig import FakeMonitor
from support.registry.postgres import PASSWORD, Cluster, Postgres

pytestmark = pytest.mark.postgres


async def test_it_is_unready_without_its_database_at_the_start_and_later(cluster: Cluster, tmp_path: Path) -> None:
    url = tmp_path / "url"
    with closing(Postgres(cluster)) as server:
        url.write_text(server.dsn())
        async with serving(FakeTriton(answer("a"))) as pod, FakeMonitor().listen() as monitor:
            process = GatewayProcess(tmp_path, pod, monitor)
            process.settings["data"] |= {"folder": "", "databaseUrlFile": str(url)}
            process.write_settings()
            process.start()
            try:
                said = [await process.until_unready("DatabaseUnavailable")]
                server.start()
                await process.until_ready()
                key = await process.create_key()
                server.stop()
                said.append(await process.until_unready("DatabaseUnavailable"))
                server.start()
                await process.until_ready()
                async with process.make_client(key) as client:
                    assert (await client.generate(model="credit", prompt="x", max_new_tokens=5)).text == "a"
            finally:
                process.kill()
    assert PASSWORD not in "".join(said)
