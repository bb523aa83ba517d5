"""Poller of the API server's token issuer and its keys, which gateways verify ServiceAccounts' tokens with.

Runs as one task of main. The API server rotates keys without an event. A gateway has no right at the API server, so the
operator publishes the keys in its ConfigMap.
"""

import asyncio
import logging
import random
from typing import Any, Final, Protocol

from r1plus_contract.jsonable import dumps
from r1plus_operator.api.rbac import TOKEN_ISSUER_URLS
from r1plus_operator.plan.observation import TokenIssuer
from r1plus_operator.runtime.errors import ApiError

log = logging.getLogger(__name__)
DISCOVERY, JWKS = TOKEN_ISSUER_URLS
INTERVAL_SECONDS: Final = 300.0
RETRY_SECONDS: Final = 15.0
MOST_JWKS_BYTES: Final = 256 * 1024


class PathReader(Protocol):
    """What the poller reads with; `runtime.client.ApiClient`."""

    async def read_path(self, path: str) -> dict[str, Any]:
        """Read a document that is no object."""


class TokenIssuerSink(Protocol):
    """Where the answer goes; `observe.Observer`."""

    def store_token_issuer(self, issuer: TokenIssuer) -> None:
        """Store what the API server said last."""


class TokenIssuerPoller:
    """Reads issuer and keys at the start and every five minutes; after a failure sooner, and the last answer stays."""

    def __init__(self, client: PathReader, observer: TokenIssuerSink, rand: random.Random) -> None:
        self._client = client
        self._observer = observer
        self._rand = rand
        self._problem = ""
        self.first_round = asyncio.Event()
        """Set after the first attempt: before it, no ConfigMap of a gateway can be written."""

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            is_known = await self.poll()
            self.first_round.set()
            await asyncio.sleep((INTERVAL_SECONDS if is_known else RETRY_SECONDS) * self._rand.uniform(0.8, 1.0))

    async def poll(self) -> bool:
        """Read both once, and return whether that succeeded."""
        try:
            issuer = read_issuer(await self._client.read_path(DISCOVERY), await self._client.read_path(JWKS))
        except (ApiError, ValueError) as error:
            if str(error) != self._problem:
                log.warning("Token issuer of the API server is unknown, gateways keep the keys they have: %s", error)
            self._problem = str(error)
            return False
        self._problem = ""
        self._observer.store_token_issuer(issuer)
        return True


def read_issuer(discovery: dict[str, Any], jwks: dict[str, Any]) -> TokenIssuer:
    """Return issuer and keys of the two documents.

    Raises:
        ValueError: one of them is not what OpenID Connect says.
    """
    issuer, keys = discovery.get("issuer"), jwks.get("keys")
    if not isinstance(issuer, str) or not issuer.isprintable() or not 0 < len(issuer) <= 1024:
        raise ValueError(f"{DISCOVERY}: issuer: {issuer!r:.80} is not an issuer")
    if not isinstance(keys, list) or not keys:
        raise ValueError(f"{JWKS}: keys: is empty or not a list")
    text = dumps({"keys": keys})
    if len(text) > MOST_JWKS_BYTES:
        raise ValueError(f"{JWKS}: {len(text)} bytes exceed {MOST_JWKS_BYTES}")
    return TokenIssuer(issuer, text)
