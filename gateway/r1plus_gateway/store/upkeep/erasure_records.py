"""Records of erasures: whose content, and when. What began before one stores nothing of that owner after it."""

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.keys.content_cipher import Owner

MOST_PRUNED: Final = 100
"""Records that one transaction removes, with their keys' ids."""


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


def is_erased_since(connection: Connection, owner: Owner, seq: int) -> bool:
    """Return whether an owner's content was erased after the audit record of this number, or is being erased."""
    c = t.erasures.c
    found = sa.select(c.id).where(sa.or_(c.seq > seq, c.seq.is_(None)), _match_erasures(owner))
    return connection.scalar(found.limit(1)) is not None


def match_shown(table: sa.Table, owner: Owner | None) -> Any:
    """Return the condition that a row is not waiting to be deleted by an erasure: its data key is there.

    `table`: one whose rows name their owner. `owner`: whose rows they are, or those that its caller shares; None: any.
    """
    keys, c = t.data_keys.c, t.erasures.c
    is_readable = sa.exists(sa.select(keys.id).where(keys.id == table.c.key_id))
    is_own = sa.true() if owner is None else _match_erasures(owner)
    return sa.or_(~sa.exists(sa.select(c.id).where(c.finished_at.is_(None), is_own)), is_readable)


def prune_erasures(connection: Connection, before: float) -> None:
    """Remove the oldest records of erasures from before a time: no request has run for so long."""
    c = t.erasures.c
    is_old = (c.erased_at < before, c.finished_at.is_not(None))
    ids = connection.scalars(sa.select(c.id).where(*is_old).order_by(c.erased_at).limit(MOST_PRUNED)).all()
    if ids:
        connection.execute(sa.delete(t.erased_keys).where(t.erased_keys.c.erasure_id.in_(ids)))
        connection.execute(sa.delete(t.erasures).where(c.id.in_(ids)))


def _match_erasures(owner: Owner) -> Any:
    c = t.erasures.c
    is_caller = sa.and_(c.caller_kind == owner.caller_kind, c.caller_id == owner.caller_id)
    return sa.or_(is_caller, c.end_user == owner.end_user) if owner.end_user else is_caller
