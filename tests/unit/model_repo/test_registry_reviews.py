"""The registry's questions to the API server, against one that does what a real one cannot be made to do."""

from pathlib import Path

import pytest

from r1plus_model_repo.registry.errors import RegistryUnavailableError
from r1plus_model_repo.registry.reviews import ApiServer, Reviews
from support.rotating_tls import RotatingServer


async def test_token_reviews_succeed_after_the_ca_of_the_api_server_has_rotated(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("own")
    document = {"status": {"authenticated": True, "audiences": ["r1plus-registry"], "user": {"username": "alice"}}}
    async with (
        RotatingServer(tmp_path, document).listen() as server,
        Reviews(ApiServer(server.url, server.ca, token)) as reviews,
    ):
        assert (await reviews.authenticate("first")) is not None
        server.rotate()
        with pytest.raises(RegistryUnavailableError, match="certificate verify failed"):
            await reviews.authenticate("second")
        server.publish()
        assert (await reviews.authenticate("second")) is not None
