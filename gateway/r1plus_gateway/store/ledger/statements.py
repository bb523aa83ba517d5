"""The ledger's statements, built once per kind of database: building one costs more than running it."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from r1plus_gateway.store.database import tables as t

SELECT_META = sa.select(t.meta.c.name, t.meta.c.value).where(
    t.meta.c.name.in_(["ledger_time", "time_confirmation", "audit_head", "adopted_root"])
)
SELECT_RESERVATION = sa.select(t.reservations).where(t.reservations.c.request_id == sa.bindparam("wanted"))


def _pick(table: sa.Table, column: Any, *conditions: Any) -> Any:
    """Return what a table has of one caller."""
    own = (table.c.caller_kind == sa.bindparam("kind"), table.c.caller_id == sa.bindparam("name"))
    return sa.select(column).select_from(table).where(*own, *conditions).scalar_subquery()


_RESERVED: Any = sa.func.sum(t.reservations.c.tokens)
_MONTH: Any = sa.bindparam("month")
SELECT_CALLER = sa.select(
    _pick(t.counters, t.counters.c.requests).label("requests"),
    _pick(t.counters, t.counters.c.tokens).label("tokens"),
    _pick(t.counters, t.counters.c.updated_at).label("updated_at"),
    _pick(t.reservations, sa.func.count()).label("running"),
    _pick(t.reservations, _RESERVED, t.reservations.c.month == _MONTH).label("reserved_tokens"),
    _pick(t.budgets, t.budgets.c.used_tokens, t.budgets.c.month == _MONTH).label("used_tokens"),
)
"""All that limits ask for: what a caller has used of the minute, what runs, and what it has used of a month."""
INSERT_RESERVATION = sa.insert(t.reservations)
DELETE_RESERVATION = sa.delete(t.reservations).where(t.reservations.c.request_id == sa.bindparam("settled_id"))
INSERT_AUDIT = sa.insert(t.audit)
USAGE_SUMS = ("requests", "prompt_tokens", "completion_tokens", "unsettled_tokens")


@dataclass(frozen=True, slots=True)
class Upserts:
    """Statements whose form differs between databases."""

    meta: Any
    counters: Any
    budgets: Any
    usage: Any
    beat: Any


@functools.cache
def build_upserts(dialect: str) -> Upserts:
    """Return the statements for `sqlite` or `postgresql`."""
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    beat = insert(t.instances)
    return Upserts(
        meta=_replace(insert(t.meta), ("value",)),
        counters=_replace(insert(t.counters), ("requests", "tokens", "updated_at")),
        budgets=_add(insert(t.budgets), ("used_tokens",)),
        usage=_add(insert(t.usage), USAGE_SUMS),
        beat=beat.on_conflict_do_update(
            index_elements=[t.instances.c.id],
            set_={"seen_at": beat.excluded.seen_at, "beats": t.instances.c.beats + 1},
        ),
    )


def _replace(statement: Any, columns: Sequence[str]) -> Any:
    changes = {name: statement.excluded[name] for name in columns}
    return statement.on_conflict_do_update(index_elements=list(statement.table.primary_key.columns), set_=changes)


def _add(statement: Any, columns: Sequence[str]) -> Any:
    changes = {name: statement.table.c[name] + statement.excluded[name] for name in columns}
    return statement.on_conflict_do_update(index_elements=list(statement.table.primary_key.columns), set_=changes)
