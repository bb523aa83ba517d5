"""Rotation of data keys: each owner gets a new one, and what older ones encrypted is encrypted again in the background.

Both keys are valid meanwhile, so nothing stops. A round that is cut leaves rows of either key. Older keys are destroyed
in the round after which nothing needs them.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.store.content.content_books import match_owner
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.keys.content_cipher import ContentCipher, DataKey, Owner
from r1plus_gateway.store.ledger.repository import MetaName, read_meta, write_meta

MOST_ROWS: Final = 100
"""That one transaction encrypts again: requests wait for it."""
MOST_BYTES: Final = 2**20
"""Of those rows together, or one row: they are in memory."""
MOST_KEYS: Final = 200
"""Of which one transaction encrypts rows again, and which it destroys."""
MOST_OWNERS: Final = 500
"""That get a new key in one transaction."""
_ENCRYPTED: Final = (
    (t.conversations, t.conversations.c.attributes),
    (t.conversation_items, t.conversation_items.c.content),
    (t.responses, t.responses.c.content),
    (t.memories, t.memories.c.content),
    (t.files, t.files.c.attributes),
    (t.file_parts, t.file_parts.c.content),
    (t.vector_stores, t.vector_stores.c.attributes),
    (t.vector_store_files, t.vector_store_files.c.content),
    (t.chunk_batches, t.chunk_batches.c.content),
)
"""Tables whose rows name a `key_id`, and what of them it encrypts."""
_OLD: Final = t.data_keys.alias("old")
_NEW: Final = t.data_keys.alias("new")
_IS_OLDER: Final = sa.exists(
    sa.select(_NEW.c.id).where(
        *(_NEW.c[name] == _OLD.c[name] for name in t.OWNER),
        # As `content` picks the newest.
        sa.or_(
            _NEW.c.created_at > _OLD.c.created_at,
            sa.and_(_NEW.c.created_at == _OLD.c.created_at, _NEW.c.id < _OLD.c.id),
        ),
    )
)
"""Whether a key of `_OLD` is not the newest of its owner."""


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """How far a rotation is."""

    owners: int
    """That have content, or had some until a while ago."""
    older_keys: int
    """That are destroyed once nothing needs them; 0: no rotation is under way."""
    rows_left: int
    """That an older key encrypts."""


def request_rotation(connection: Connection) -> None:
    """Note that each owner is due a new key: `begin_rotation` makes them, also after a crash."""
    write_meta(connection, MetaName.ROTATION_DUE, "null")


def is_rotation_due(connection: Connection) -> bool:
    """Return whether owners wait for the new key that they are due."""
    return read_meta(connection, MetaName.ROTATION_DUE) is not None


def begin_rotation(connection: Connection, cipher: ContentCipher, now: float) -> int:
    """Make a new key for the next `MOST_OWNERS` that are due one; return of how many, fewer at the end."""
    due = read_meta(connection, MetaName.ROTATION_DUE)
    if due is None:
        return 0
    last = json.loads(due)
    owners = _make_keys(connection, cipher, now, None if last is None else Owner(*last))
    if len(owners) == MOST_OWNERS:
        write_meta(connection, MetaName.ROTATION_DUE, json.dumps(astuple(owners[-1])))
    else:
        connection.execute(sa.delete(t.meta).where(t.meta.c.name == MetaName.ROTATION_DUE.value))
    return len(owners)


def _make_keys(connection: Connection, cipher: ContentCipher, now: float, after: Owner | None) -> list[Owner]:
    c = t.data_keys.c
    names = [c[name] for name in t.OWNER]
    found = sa.select(*names, sa.func.max(c.created_at).label("newest")).group_by(*names).order_by(*names)
    if after is not None:
        found = found.where(sa.tuple_(*names) > sa.tuple_(*(sa.literal(getattr(after, name)) for name in t.OWNER)))
    rows: list[dict[str, Any]] = []
    owners: list[Owner] = []
    for *own, newest in connection.execute(found.limit(MOST_OWNERS)).all():
        owner = Owner(*own)
        key, wrapped = cipher.create_key(owner)
        # The newest key encrypts, so a new one is newer than all, whatever the clock says.
        created_at = max(now, newest + 0.001)
        row = {name: getattr(owner, name) for name in t.OWNER}
        rows.append({**row, "id": key.id, "wrapped_key": wrapped, "created_at": created_at})
        owners.append(owner)
    if rows:
        connection.execute(sa.insert(t.data_keys), rows)
    return owners


def read_rotation(connection: Connection) -> KeyRotation:
    """Return how far the rotation is."""
    c = t.data_keys.c
    owners = sa.select(*(c[name] for name in t.OWNER)).distinct().subquery()
    older = set(connection.scalars(sa.select(_OLD.c.id).where(_IS_OLDER)))
    left = 0
    for table, _ in _ENCRYPTED if older else ():
        # From one end of an index to the other: looking each key up takes ten times as long.
        counts = sa.select(table.c.key_id, sa.func.count()).group_by(table.c.key_id)
        left += sum(count for key_id, count in connection.execute(counts) if key_id in older)
    return KeyRotation(connection.scalar(sa.select(sa.func.count()).select_from(owners)) or 0, len(older), left)


def continue_rotation(connection: Connection, cipher: ContentCipher, now: float, most: int = MOST_ROWS) -> bool:
    """Make keys that are due, or encrypt some rows again, and destroy the keys that nothing needs.

    Return whether there is more to do.

    Raises:
        UnreadableContentError: a row does not decrypt; no key was destroyed.
    """
    if begin_rotation(connection, cipher, now) == MOST_OWNERS:
        return True
    older = {row.id: row for row in connection.execute(sa.select(_OLD).where(_IS_OLDER).limit(MOST_KEYS))}
    if not older:
        return False
    rotation = _Rotation(connection, cipher, older)
    for table, column in _ENCRYPTED:
        if rotation.encrypt_again(table, column, most):
            return True
    connection.execute(sa.delete(t.data_keys).where(t.data_keys.c.id.in_(list(older))))
    write_meta(connection, MetaName.ROTATION, secrets.token_hex(8))
    return len(older) == MOST_KEYS


class _Rotation:
    """One transaction's part of a rotation."""

    def __init__(self, connection: Connection, cipher: ContentCipher, older: Mapping[str, Any]) -> None:
        """`older`: id of an older key -> its row."""
        self._connection = connection
        self._cipher = cipher
        self._older = older
        self._pairs: dict[str, tuple[DataKey, DataKey]] = {}
        """Id of an older key -> itself, and the newest key of its owner."""

    def encrypt_again(self, table: sa.Table, column: sa.Column[Any], most: int) -> int:
        """Encrypt rows of a table again; return how many."""
        c, size, count = table.c, 0, 0
        found = sa.select(c.id, c.key_id, sa.func.length(column).label("size")).where(c.key_id.in_(list(self._older)))
        for row in self._connection.execute(found.limit(most)).all():
            old, new = self._open_pair(row.key_id)
            is_row = c.id == row.id
            content = bytes(self._connection.execute(sa.select(column).where(is_row)).scalar_one())
            content = self._cipher.decrypt(old, table.name, row.id, content)
            values: dict[str, Any] = {
                "key_id": new.id,
                column.name: self._cipher.encrypt(new, table.name, row.id, content),
            }
            self._connection.execute(sa.update(table).where(is_row).values(values))
            size, count = size + row.size, count + 1
            if size >= MOST_BYTES:
                break
        return count

    def _open_pair(self, key_id: str) -> tuple[DataKey, DataKey]:
        if key_id not in self._pairs:
            row, c = self._older[key_id], t.data_keys.c
            owner = Owner(row.caller_kind, row.caller_id, row.end_user)
            newest = self._connection.execute(
                sa.select(t.data_keys)
                .where(*match_owner(t.data_keys, owner))
                .order_by(c.created_at.desc(), c.id)
                .limit(1)
            ).one()
            self._pairs[key_id] = (_unwrap(self._cipher, owner, row), _unwrap(self._cipher, owner, newest))
        return self._pairs[key_id]


def _unwrap(cipher: ContentCipher, owner: Owner, row: Any) -> DataKey:
    return cipher.unwrap_key(row.id, owner, bytes(row.wrapped_key))
