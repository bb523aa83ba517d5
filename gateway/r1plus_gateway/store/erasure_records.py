"""Records of erasures: whose content, and when. What began before one stores nothing of that owner after it."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.store import tables as t
from r1plus_gateway.store.content_cipher import Owner

MOST_PRUNED = 1000
"""Records that one transaction removes."""


@dataclass(frozen=True, slots=True)
class ErasureScope:
    """Whose content is erased: an end user's, by its id, with every caller; or a caller's, with all its end users."""

    end_user: str = ""
    caller_kind: str = ""
    caller_id: str = ""

    def has(self, owner: Owner, pseudonym: str) -> bool:
        """Return whether an owner's content is in the scope; `pseudonym`: the end user's."""
        if self.end_user:
            return owner.end_user == pseudonym
        return (owner.caller_kind, owner.caller_id) == (self.caller_kind, self.caller_id)

    def describe(self) -> str:
        """Return the scope for the audit log, without the end user's id."""
        return "end user" if self.end_user else f"{self.caller_kind} {self.caller_id}"


def record_erasure(
    connection: Connection, erasure_id: str, scope: ErasureScope, pseudonym: str, erased_at: float, seq: int
) -> None:
    """Record an erasure that this transaction makes; `seq`: of its record in the audit log."""
    whose = {"caller_kind": scope.caller_kind, "caller_id": scope.caller_id, "end_user": pseudonym}
    row = {**whose, "id": erasure_id, "erased_at": erased_at, "seq": seq}
    connection.execute(sa.insert(t.erasures), [row])


def is_erased_since(connection: Connection, owner: Owner, seq: int) -> bool:
    """Return whether an owner's content was erased after the audit record of this number."""
    c = t.erasures.c
    is_caller = sa.and_(c.caller_kind == owner.caller_kind, c.caller_id == owner.caller_id)
    is_end_user = c.end_user == owner.end_user if owner.end_user else sa.false()
    found = sa.select(c.id).where(c.seq > seq, sa.or_(is_caller, is_end_user))
    return connection.scalar(found.limit(1)) is not None


def prune_erasures(connection: Connection, before: float) -> None:
    """Remove the oldest records of erasures from before a time: no request has run for so long."""
    c = t.erasures.c
    old = sa.select(c.id).where(c.erased_at < before).order_by(c.erased_at).limit(MOST_PRUNED)
    connection.execute(sa.delete(t.erasures).where(c.id.in_(old)))
