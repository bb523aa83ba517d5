"""What every reader of one owner's rows has. Called with the connection of `TenantStore.read` or `write`."""

from sqlalchemy.engine import Connection

from r1plus_gateway.store.keys.content_cipher import ContentCipher, Owner
from r1plus_gateway.store.keys.data_keys import KeyChain


class OwnerReader:
    """One owner's rows, in one transaction."""

    def __init__(self, connection: Connection, cipher: ContentCipher, owner: Owner, now: float, over_by: float) -> None:
        """`now`: ledger time, in epoch seconds. What has its end by `over_by` is not there."""
        self.connection = connection
        self.cipher = cipher
        self.owner = owner
        self.now = now
        self.over_by = over_by
        self._keys = KeyChain(connection, cipher)
