"""A unit of work: everything that one batch of requests records, in one transaction. The writer opens them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from r1plus_gateway.store.clock import LedgerClock
from r1plus_gateway.store.database.database import Database
from r1plus_gateway.store.keys.tenant_keys import TenantKeys
from r1plus_gateway.store.ledger.repository import LedgerRepository


@dataclass(frozen=True, slots=True)
class UnitOfWork:
    """Transactions of one gateway over the tenant's data."""

    database: Database
    keys: TenantKeys
    clock: LedgerClock
    instance: str
    adopted_root: str = ""

    @contextlib.contextmanager
    def open_repository(self) -> Iterator[LedgerRepository]:
        """Yield a repository. Commit at the end of the block, or record nothing if it raises."""
        with self.database.transaction(writes=True) as connection:
            repository = LedgerRepository(connection, self.keys, self.clock, self.instance, self.adopted_root)
            yield repository
            repository.flush()
