"""The data keys of owners, opened as they are needed in one transaction."""

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from r1plus_gateway.store.content.content_books import match_owner
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.keys.content_cipher import ContentCipher, DataKey, Owner, UnreadableContentError


class KeyChain:
    """Opens the data keys of owners, and makes an owner's first one."""

    def __init__(self, connection: Connection, cipher: ContentCipher) -> None:
        self._connection = connection
        self._cipher = cipher
        self._opened: dict[str, DataKey] = {}

    def open(self, key_id: str, owner: Owner) -> DataKey:
        """Return a key of an owner. Raises UnreadableContentError."""
        if key_id not in self._opened:
            c = t.data_keys.c
            own = (c.id == key_id, *match_owner(t.data_keys, owner))
            wrapped = self._connection.scalar(sa.select(c.wrapped_key).where(*own))
            if wrapped is None:
                raise UnreadableContentError(f"Data key {key_id} is gone: what it encrypted cannot be read any more")
            self._opened[key_id] = self._cipher.unwrap_key(key_id, owner, bytes(wrapped))
        return self._opened[key_id]

    def get_newest(self, owner: Owner, now: float) -> DataKey:
        """Return the key that encrypts; made with the owner's first content.

        It is looked up each time: what this transaction has deleted may have destroyed the one of before.
        """
        c = t.data_keys.c
        newest = sa.select(c.id).where(*match_owner(t.data_keys, owner)).order_by(c.created_at.desc(), c.id).limit(1)
        key_id = self._connection.scalar(newest)
        if key_id is not None:
            return self.open(key_id, owner)
        key, wrapped = self._cipher.create_key(owner)
        own = {name: getattr(owner, name) for name in t.OWNER}
        row = {**own, "id": key.id, "wrapped_key": wrapped, "created_at": now}
        self._connection.execute(sa.insert(t.data_keys), [row])
        self._opened[key.id] = key
        return key
