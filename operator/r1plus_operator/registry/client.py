"""Client of the registry: delivers facts over HTTP as the operator's service account. Called by `recorder` alone."""

import logging
from typing import Protocol

import aiohttp

from r1plus_contract.history import Facts, Receipt
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.process.streams import read_at_most
from r1plus_operator.runtime.connection import FileToken

log = logging.getLogger(__name__)
TIMEOUT_SECONDS = 20.0
MOST_ANSWER_BYTES = 64 * 1024


class DeliveryError(Exception):
    """The facts were not recorded; a retry may help: the service, its database or our credentials failed."""


class FactRefusedError(Exception):
    """The registry cannot record these facts: a retry does not help."""


class RegistrySink(Protocol):
    """Where facts are delivered to; `RegistryClient`, or a fake in tests."""

    async def deliver(self, facts: Facts) -> Receipt:
        """Record all facts or none; raise DeliveryError or FactRefusedError."""


class RegistryClient:
    """Client with one session to one registry; use it as a context."""

    def __init__(self, url: str, token: FileToken) -> None:
        """Take the service's `url` as seen inside the cluster; `token` is read again when its file changes."""
        self._url = url.rstrip("/")
        self._token = token
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "RegistryClient":
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS, connect=5.0))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def deliver(self, facts: Facts) -> Receipt:
        """POST the facts to /v1/facts; raise DeliveryError or FactRefusedError."""
        if self._session is None:
            raise RuntimeError("RegistryClient: not entered")
        try:
            headers = {"Authorization": f"Bearer {self._token()}", "Content-Type": "application/json"}
            url = f"{self._url}/v1/facts"
            async with self._session.post(
                url, data=dumps(facts).encode(), headers=headers, allow_redirects=False
            ) as answer:
                text = await read_at_most(answer.content.iter_any(), MOST_ANSWER_BYTES)
                # 500: the registry fails at these very facts, and others must not wait behind them.
                if answer.status in (400, 413, 500):
                    raise FactRefusedError(f"{answer.status} {_decode_excerpt(text)}")
                if answer.status != 200:
                    raise DeliveryError(f"{self._url}: {answer.status} {_decode_excerpt(text)}")
                return loads(Receipt, text, tolerant=True)
        except (aiohttp.ClientError, TimeoutError, OSError, ContractError) as error:
            raise DeliveryError(f"{self._url}: {str(error) or type(error).__name__}") from error


def _decode_excerpt(text: bytes) -> str:
    return text.decode(errors="replace")[:300]
