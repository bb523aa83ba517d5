"""Rotation of data keys: each owner gets a new one, and what older ones encrypted is encrypted again in the background.

Both keys are valid meanwhile, so nothing stops. A round that is cut leaves rows of either key. Older keys are destroyed
in the round after which nothing needs them.
"""

import secrets
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.store import tables as t
from r1plus_gateway.store.content_cipher import ContentCipher, DataKey, Owner
from r1plus_gateway.store.repository import MetaName, write_meta

MOST_ROWS: Final = 200
"""That one transaction encrypts again: requests wait for it."""
_ENCRYPTED: Final = (
    (t.conversations, t.conversations.c.attributes),
    (t.conversation_items, t.conversation_items.c.content),
    (t.responses, t.responses.c.content),
)
"""Tables whose rows name a `key_id`, and what of them it encrypts."""


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """How far a rotation is."""

    owners: int
    """That have content, or had some until a while ago."""
    older_keys: int
    """That are destroyed once nothing needs them; 0: no rotation is under way."""
    rows_left: int
    """That an older key encrypts."""


def begin_rotation(connection: Connection, cipher: ContentCipher, now: float) -> int:
    """Make a new key for each owner; return how many there are."""
    c = t.data_keys.c
    owners = [Owner(*row) for row in connection.execute(sa.select(*(c[name] for name in t.OWNER)).distinct())]
    rows: list[dict[str, Any]] = []
    for owner in owners:
        key, wrapped = cipher.create_key(owner)
        own = {name: getattr(owner, name) for name in t.OWNER}
        rows.append({**own, "id": key.id, "wrapped_key": wrapped, "created_at": now})
    if rows:
        # The newest key encrypts, so a new one is newer than all, whatever the clock says.
        newest = connection.scalar(sa.select(sa.func.max(c.created_at))) or 0.0
        connection.execute(sa.insert(t.data_keys), [row | {"created_at": max(now, newest + 0.001)} for row in rows])
    return len(rows)


def read_rotation(connection: Connection) -> KeyRotation:
    """Return how far the rotation is."""
    c = t.data_keys.c
    older = _find_older_keys(connection)
    owners = sa.select(*(c[name] for name in t.OWNER)).distinct().subquery()
    left = sum(
        connection.scalar(sa.select(sa.func.count()).select_from(table).where(table.c.key_id.in_(list(older)))) or 0
        for table, _ in _ENCRYPTED
        if older
    )
    return KeyRotation(connection.scalar(sa.select(sa.func.count()).select_from(owners)) or 0, len(older), left)


def continue_rotation(connection: Connection, cipher: ContentCipher, most: int = MOST_ROWS) -> bool:
    """Encrypt some rows again, and destroy the keys that nothing needs. Return whether there is more to do.

    Raises:
        UnreadableContentError: a row does not decrypt; nothing was changed.
    """
    older = _find_older_keys(connection)
    if not older:
        return False
    for table, column in _ENCRYPTED:
        c = table.c
        rows = connection.execute(
            sa.select(c.id, c.key_id, column.label("content")).where(c.key_id.in_(list(older))).limit(most)
        ).all()
        for row in rows:
            _encrypt_again(connection, cipher, table, column, row, older[row.key_id])
        if rows:
            return True
    connection.execute(sa.delete(t.data_keys).where(t.data_keys.c.id.in_(list(older))))
    write_meta(connection, MetaName.ROTATION, secrets.token_hex(8))
    return False


@dataclass(frozen=True, slots=True)
class _Pair:
    owner: Owner
    old: Any
    newest: Any


def _find_older_keys(connection: Connection) -> dict[str, _Pair]:
    """Return id of an older key -> its owner, itself and the newest key of the owner."""
    c = t.data_keys.c
    rows = connection.execute(sa.select(t.data_keys).order_by(c.created_at.desc(), c.id)).all()
    newest: dict[Owner, Any] = {}
    older: dict[str, _Pair] = {}
    for row in rows:
        owner = Owner(row.caller_kind, row.caller_id, row.end_user)
        if owner in newest:
            older[row.id] = _Pair(owner, row, newest[owner])
        else:
            newest[owner] = row
    return older


def _encrypt_again(
    connection: Connection, cipher: ContentCipher, table: sa.Table, column: sa.Column[Any], row: Any, pair: _Pair
) -> None:
    old, new = (_unwrap(cipher, pair.owner, one) for one in (pair.old, pair.newest))
    content = cipher.decrypt(old, table.name, row.id, bytes(row.content))
    values: dict[str, Any] = {"key_id": new.id, column.name: cipher.encrypt(new, table.name, row.id, content)}
    connection.execute(sa.update(table).where(table.c.id == row.id).values(values))


def _unwrap(cipher: ContentCipher, owner: Owner, row: Any) -> DataKey:
    return cipher.unwrap_key(row.id, owner, bytes(row.wrapped_key))
