"""Gateways that are gone, and the requests that ran when they went: settled in time, or counted as used in full."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from r1plus_gateway.store.administration.audit import AuditHead
from r1plus_gateway.store.database.unit_of_work import UnitOfWork

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeftRequest:
    """A request that ran when its gateway went."""

    id: str
    model: str


class LeftInstances:
    """Names of gateways that are gone, and until when what they have reserved may still be settled."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: for so long what one has reserved waits, before it counts as used in full."""
        self._seconds = seconds
        self._due: dict[str, float] = {}
        """Gateway that is gone -> when what it has reserved counts as used in full, by the monotonic clock."""

    @property
    def names(self) -> list[str]:
        """Gateways that are gone, with requests that may be settled."""
        return list(self._due)

    def note(self, instances: Sequence[str]) -> None:
        """Note which gateways are gone now; those that were before keep their time."""
        due = time.monotonic() + self._seconds
        self._due = {name: self._due.get(name, due) for name in instances}

    def settle_due(self, work: UnitOfWork) -> AuditHead | None:
        """Count what is left as used in full, once its time is over. Return the new head; None: no write.

        Raises StoreError.
        """
        due = [name for name, at in self._due.items() if time.monotonic() >= at]
        if not due:
            return None
        with work.open_repository() as repository:
            count = repository.settle_orphans(due)
            repository.forget_instances(due)
        self._due = {name: at for name, at in self._due.items() if name not in due}
        if count:
            log.warning("%d requests of %d gateways that are gone were settled as used in full", count, len(due))
        return repository.head
