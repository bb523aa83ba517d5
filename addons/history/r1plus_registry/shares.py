"""Bound what runs and waits, in all and per owner, so that one user's requests leave room for the others'."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from r1plus_registry.errors import RegistryBusyError

SERVICE: Final = ""
"""Owner of what the service does for itself, the operator and the probes. It has places of its own."""


class Shares:
    """Places of a resource. An owner beyond its share waits for its own requests only."""

    def __init__(self, name: str, most: int, most_of_owner: int, running_of_owner: int) -> None:
        """`most`, `most_of_owner`: requests that run or wait; `running_of_owner`: requests of one owner that run."""
        self.name = name
        self.most = most
        self.most_of_owner = most_of_owner
        self._running_of_owner = running_of_owner
        self._pending: Counter[str] = Counter()
        self._turns: dict[str, asyncio.Semaphore] = {}

    @property
    def pending(self) -> int:
        """Requests of all owners that run or wait."""
        return self._pending.total()

    @asynccontextmanager
    async def take(self, owner: str) -> AsyncIterator[None]:
        """Hold a place. Raise RegistryBusyError if the owner has its share already, or all others have the rest."""
        if owner == SERVICE:
            yield
            return
        if self._pending[owner] >= self.most_of_owner:
            raise RegistryBusyError(f"{self.name}: {self._pending[owner]} of your requests are waiting already")
        if self.pending >= self.most:
            raise RegistryBusyError(f"{self.name}: {self.pending} requests are waiting already")
        turn = self._turns.setdefault(owner, asyncio.Semaphore(self._running_of_owner))
        self._pending[owner] += 1
        try:
            async with turn:
                yield
        finally:
            self._pending[owner] -= 1
            if not self._pending[owner]:
                del self._pending[owner], self._turns[owner]
