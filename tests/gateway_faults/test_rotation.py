"""Everything that rotates does so while the gateway runs: the cluster's signing keys, and half of the tenant's key."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from r1plus_client import AuthenticationError
from r1plus_gateway.store.keys.tenant_keys import make_half, read_ring
from support.gateway.fake_triton import FakeTriton, answer, serving
from support.gateway.process import running_process
from support.waiting import eventually

pytestmark = pytest.mark.first_run_counts


async def test_the_clusters_signing_keys_rotate(tmp_path: Path) -> None:
    async with serving(FakeTriton(answer("a"))) as pod, running_process(tmp_path, pod) as gateway:
        old = gateway.make_token("team-credit", "web")
        gateway.signers["k2"] = rsa.generate_private_key(65537, 2048)
        new = gateway.make_token("team-credit", "web")

        async def call(token: str) -> None:
            async with gateway.make_client(token) as client:
                await client.generate(model="credit", prompt="x", max_new_tokens=5)

        await call(old)
        with pytest.raises(AuthenticationError):
            await call(new)
        gateway.write_jwks()  # both, as while the API server rotates
        await call(new)
        await call(old)
        del gateway.signers["k1"]
        gateway.write_jwks()
        await call(new)
        with pytest.raises(AuthenticationError):
            await call(old)
        (tmp_path / "jwks.json").write_text("{")  # what is damaged changes nothing
        await call(new)


async def test_the_secrets_half_rotates(tmp_path: Path) -> None:
    async with serving(FakeTriton(answer("a"))) as pod, running_process(tmp_path, pod) as gateway:
        key = await gateway.create_key()
        secret, ring = tmp_path / "secret", tmp_path / "data" / "key-ring.json"

        def count_wraps() -> int:
            found = read_ring(ring)
            return len(found.wraps) if found else 0

        async with gateway.make_client(key) as client:
            (secret / "half-2").write_text(make_half())
            await eventually(lambda: count_wraps() == 2, "the gateway has taken the new half")
            await client.list_models()
            (secret / "half-1").unlink()
            await eventually(lambda: count_wraps() == 1, "the gateway has dropped the old half")
            gateway.restart()
            await gateway.until_ready()
            await client.list_models()
            assert (await gateway.read_data_state())["reason"] == "Ready"
