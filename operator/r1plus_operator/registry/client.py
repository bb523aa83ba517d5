"""Delivers facts to the registry over HTTP, as the operator's service account. Called by `history` alone."""

import logging
from typing import Protocol

import aiohttp

from r1plus_contract.history import Facts, Receipt
from r1plus_contract.jsonable import ContractError, dumps, loads
from r1plus_contract.streams import read_at_most
from r1plus_operator.runtime.connection import FileToken

log = logging.getLogger(__name__)
TIMEOUT_SECONDS = 20.0
MOST_ANSWER_BYTES = 64 * 1024


class DeliveryError(Exception):
    """It was not recorded, and may be later: the service does not answer, its database does not, or it knows us not."""


class RefusedError(Exception):
    """It cannot be recorded as it is: asking again does not help."""


class Courier(Protocol):
    """Who delivers; `RegistryClient`, and what tests put in its place."""

    async def deliver(self, facts: Facts) -> Receipt:
        """Record whole or not at all; raises DeliveryError or RefusedError."""


class RegistryClient:
    """One session to one registry; use it as a context."""

    def __init__(self, url: str, token: FileToken) -> None:
        """`url` as a client inside the cluster reaches the service; `token` is read anew when its file changes."""
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
        """POST /v1/facts."""
        if self._session is None:
            raise RuntimeError("RegistryClient: not entered")
        try:
            headers = {"Authorization": f"Bearer {self._token()}", "Content-Type": "application/json"}
            url = f"{self._url}/v1/facts"
            async with self._session.post(
                url, data=dumps(facts).encode(), headers=headers, allow_redirects=False
            ) as answer:
                text = await read_at_most(answer.content.iter_any(), MOST_ANSWER_BYTES)
                # 500 is a fault of the registry's own at these facts: others must not wait behind them.
                if answer.status in (400, 413, 500):
                    raise RefusedError(f"{answer.status} {_said(text)}")
                if answer.status != 200:
                    raise DeliveryError(f"{self._url}: {answer.status} {_said(text)}")
                return loads(Receipt, text, tolerant=True)
        except (aiohttp.ClientError, TimeoutError, OSError, ContractError) as error:
            raise DeliveryError(f"{self._url}: {str(error) or type(error).__name__}") from error


def _said(text: bytes) -> str:
    return text.decode(errors="replace")[:300]
