"""What callers do with stored content: reads in a thread, changes in the writer's next transaction."""

from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from sqlalchemy.engine import Connection

from r1plus_assistant.store.content_reader import ContentReader
from r1plus_assistant.store.content_writer import ContentWriter
from r1plus_gateway.access.caller import Caller
from r1plus_gateway.access.turns import Turns
from r1plus_gateway.store.content.content import ContentLimits
from r1plus_gateway.store.content.plaintext_cache import PlaintextCache
from r1plus_gateway.store.errors import StoreError
from r1plus_gateway.store.keys.content_cipher import Owner
from r1plus_gateway.store.ledger.ledger import refuse_unavailable
from r1plus_gateway.store.ledger.writer import REFUSALS
from r1plus_gateway.store.tenant import TenantStore

T = TypeVar("T")


class SteppedWriter(Protocol):
    """What changes content in a transaction of others."""

    connection: Connection


W = TypeVar("W", bound=SteppedWriter)
READS_AT_ONCE: Final = 1
"""Of one caller: the other thread looks up the keys of the others."""
WRITES_AT_ONCE: Final = 2
"""Of one caller: the reservations of the others wait for no more of them."""


class TenantContent:
    """The content of all callers. Each step sees that of the caller and its end user only."""

    def __init__(self, store: TenantStore, read_limits: Callable[[], ContentLimits]) -> None:
        self._store = store
        self._read_limits = read_limits
        self._readers = Turns()
        self._writers = Turns()

    @property
    def is_stored(self) -> bool:
        """Whether the tenant's policy lets content be stored."""
        return self.days > 0

    @property
    def days(self) -> float:
        """How long content is kept after its last use; 0: nothing new is stored."""
        return self._store.config.content_days

    @property
    def audit_seq(self) -> int:
        """Number of the newest audit record, by which an erasure is known to come later."""
        return self._store.audit_seq

    @property
    def plaintext(self) -> PlaintextCache:
        """What was decrypted and is used again soon."""
        return self._store.plaintext

    def identify(self, caller: Caller) -> Owner:
        """Return whose content a caller's is. Raises AccessError 503 while the data are not open."""
        try:
            return self._store.cipher.identify(caller)
        except StoreError as error:
            raise refuse_unavailable(error) from error

    def forget(self, caller: Caller, name: str) -> None:
        """Drop what was decrypted of something that was deleted."""
        self.plaintext.forget(self.identify(caller), name)

    def forget_owner(self, caller: Caller) -> None:
        """Drop all that was decrypted of a caller's: what was deleted may be a part of any of it."""
        self.plaintext.forget_owner(self.identify(caller))

    async def read(self, caller: Caller, step: Callable[[ContentReader], T]) -> T:
        """Run a step on one consistent snapshot.

        Raises:
            AccessError: 503 while the data cannot be read.
            UnreadableContentError: what is stored does not decrypt.
        """
        try:
            cipher, now, over_by = self._store.cipher, self._store.clock.read(), self._store.retention.estimate()
            owner = cipher.identify(caller)
            async with self._readers.wait(caller.group_id, READS_AT_ONCE):
                return await self._store.read(
                    lambda connection: step(ContentReader(connection, cipher, owner, now, over_by))
                )
        except StoreError as error:
            raise refuse_unavailable(error) from error

    async def write(self, caller: Caller, step: Callable[[ContentWriter], T]) -> T:
        """Run a step in one transaction. A step that refuses has changed nothing.

        Raises:
            AccessError: 503 while the data cannot be written.
            ContentLimitError: there is no room.
            UnreadableContentError: what is stored does not decrypt.
        """
        try:
            cipher, limits, over_by = self._store.cipher, self._read_limits(), self._store.retention.estimate()
            owner = cipher.identify(caller)
            async with self._writers.wait(caller.group_id, WRITES_AT_ONCE):
                return await self._store.write(
                    lambda ledger: take_step(
                        step, ContentWriter(ledger.connection, cipher, owner, ledger.now, over_by, limits)
                    )
                )
        except StoreError as error:
            raise refuse_unavailable(error) from error


def take_step(step: Callable[[W], T], content: W) -> T:
    """Run a step. What it refuses with takes back what it has written, which the writer would commit."""
    savepoint = content.connection.begin_nested()
    try:
        result = step(content)
    except REFUSALS:
        # Any other error ends the whole transaction, of which the database may have nothing left by then.
        savepoint.rollback()
        raise
    savepoint.commit()
    return result
