"""The tenant's data as the gateway sees them: opened, watched, and usable or not with a reason.

`run` opens them and keeps trying, so a gateway without its data answers 503 and says why; it does not crash.
"""

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from sqlalchemy.engine import Connection

from r1plus_contract.gateway import DataState
from r1plus_gateway.access.api_keys import KeyRecord
from r1plus_gateway.access.caller import TokenUsage
from r1plus_gateway.store.administration.audit import AuditHead, OutsideHead, write_head_file
from r1plus_gateway.store.administration.key_lookups import KeyLookups
from r1plus_gateway.store.clock import LedgerClock
from r1plus_gateway.store.content.plaintext_cache import PlaintextCache
from r1plus_gateway.store.copies.copy_thread import CopyThread
from r1plus_gateway.store.database.opening import (
    OpenData,
    StoreConfig,
    has_other_root,
    open_data,
    refresh_ring,
    reopen_keys,
)
from r1plus_gateway.store.database.readers import Readers, ReadKind
from r1plus_gateway.store.database.unit_of_work import UnitOfWork
from r1plus_gateway.store.database.volume_errors import translate_os_error
from r1plus_gateway.store.errors import (
    CorruptError,
    RestoringError,
    StoreError,
    TooManyFilesError,
    UnavailableError,
)
from r1plus_gateway.store.keys.content_cipher import ContentCipher, Owner, UnreadableContentError
from r1plus_gateway.store.ledger.instances import BEAT_SECONDS, GONE_SECONDS, InstanceWatch, read_beats
from r1plus_gateway.store.ledger.ledger import ANSWER_SECONDS, StoreLedger, refuse_unavailable
from r1plus_gateway.store.ledger.left_instances import LeftInstances, LeftRequest
from r1plus_gateway.store.ledger.repository import LedgerRepository, list_reservations
from r1plus_gateway.store.ledger.writer import Step, Writer
from r1plus_gateway.store.upkeep.data_readiness import DataReadiness
from r1plus_gateway.store.upkeep.database_log import DatabaseLog
from r1plus_gateway.store.upkeep.maintenance import Maintenance
from r1plus_gateway.store.upkeep.retention_clock import RetentionClock

log = logging.getLogger(__name__)
T = TypeVar("T")
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.5, 15.0
_SECONDS_AHEAD: Final = 300.0


@dataclass(frozen=True, slots=True)
class Periods:
    """Seconds between two beats, without one until another gateway counts as gone, and between two of the others."""

    beat: float = BEAT_SECONDS
    gone: float = GONE_SECONDS
    prune: float = 3600.0
    hold: float = 60.0
    """Between two looks at a clock that is too far ahead."""
    retry: float = 2.0
    """Between two beats while the data cannot be used."""
    check: float = 60.0
    """Between two looks at data that are damaged."""
    left: float = 0.0
    """For so long reservations of a gateway that is gone wait for `settle_left`, before they count as used in full."""


class TenantStore:
    """One tenant's data. Implements `KeyFinder`; `ledger` implements `Ledger`."""

    def __init__(self, config: StoreConfig, clock: LedgerClock | None = None, periods: Periods | None = None) -> None:
        """Open nothing yet; `run` does."""
        self.config = config
        self.clock = clock or LedgerClock()
        self.instance = secrets.token_hex(8)
        self.retention = RetentionClock(self.clock)
        self._periods = periods or Periods()
        self._data: OpenData | None = None
        self._work: UnitOfWork | None = None
        self._readiness = DataReadiness(self.retention, self._periods.check)
        self._look_ups = KeyLookups(self.read)
        self._head = AuditHead()
        self._stored_head = OutsideHead(AuditHead())
        self._instances = InstanceWatch(self.instance, self._periods.gone)
        self._left = LeftInstances(self._periods.left)
        self._readers = Readers()
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="gateway-keeper")
        self.plaintext = PlaintextCache()
        """What was decrypted and is used again soon; each round drops what is no longer stored."""
        self.erasure_listeners: list[Callable[[Callable[[Owner], bool]], None]] = []
        """What else has content in memory; each forgets that of the owners for which its argument is true."""
        self.copier = CopyThread()
        """Makes and restores backups."""
        self._is_held = False
        self._turn = threading.Lock()
        self._log = DatabaseLog(self._turn)
        self._maintenance = Maintenance(self, self._log, self._periods.prune, self._periods.hold)
        self._writer = Writer(self._open_repository)
        self.ledger = StoreLedger(self._writer)
        self.first_try = asyncio.Event()
        """Set when the data were opened, or could not be for the first time."""
        self.is_watched = False
        """Whether the gateway listens, and `run` goes on whatever happens."""

    @property
    def state(self) -> DataState:
        """Whether the data can be used now, and why not; or why they could not be opened again."""
        return self._readiness.state

    async def run(self) -> None:
        """Open the data, try again while that fails, then watch over them. Never returns."""
        delay = FIRST_RETRY_SECONDS
        while self._data is None and not await self.open():
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_RETRY_SECONDS)
        while True:
            await asyncio.sleep(self._periods.beat if self._readiness.can_serve else self._periods.retry)
            await self._run_round()

    async def open(self) -> bool:
        """Open the data once, and settle what crashed gateways left. Return whether that worked.

        An unexpected error ends a gateway that starts; later the tries go on.
        """
        try:
            await asyncio.get_running_loop().run_in_executor(self._keeper, self._open)
        except StoreError as error:
            self._set_problem(error)
            return False
        except Exception as error:
            if not self.is_watched:
                raise
            log.exception("Tenant's data could not be opened")
            self._set_problem(UnavailableError(f"The tenant's data could not be opened: {type(error).__name__}"))
            return False
        finally:
            self.first_try.set()
        return True

    async def _run_round(self) -> None:
        """Maintain, and go on beating while that takes long: another gateway takes a silent one as gone."""
        async with asyncio.TaskGroup() as tasks:
            round_ = tasks.create_task(self.maintain())
            while not (await asyncio.wait({round_}, timeout=self._periods.beat))[0]:
                await self._do(self._beat)

    async def maintain(self) -> None:
        """Do once what is due every few seconds: beat, settle for gateways that are gone, tidy up, store the head.

        What fails is the state until it works again.
        """
        upkeep = self._maintenance
        await self._do(self._beat, upkeep.prune, upkeep.erase, upkeep.rotate, self._tidy)

    async def _do(self, *steps: Callable[[], Awaitable[None]]) -> None:
        if self._is_held:
            return
        try:
            for step in steps:
                await step()
        except StoreError as error:
            self._set_problem(error)
        except Exception:
            # The next round may work, and without rounds another gateway would take this one as gone.
            log.exception("Maintenance of the tenant's data failed")

    async def _beat(self) -> None:
        try:
            await self.write(lambda ledger: ledger.beat())
        except RestoringError:  # by another replica
            await asyncio.get_running_loop().run_in_executor(self._keeper, self._reopen_keys)
            await self.write(lambda ledger: ledger.beat())

    def prune_soon(self) -> None:
        """Let the next round remove what is over, also before the hour, and where one is on its way."""
        self._maintenance.prune_soon()

    def resume_rotation(self) -> None:
        """Let the rounds of `maintain` encrypt again what older data keys encrypted."""
        self._maintenance.resume_rotation()

    async def find_key(self, key_id: str) -> KeyRecord | None:
        """Return the record of an API key, as `KeyFinder` says."""
        try:
            return await self._look_ups.find(key_id)
        except StoreError as error:
            raise refuse_unavailable(error) from error

    def compute_key_mac(self, message: bytes) -> bytes:
        """Return the MAC of an API key's secret, as `KeyFinder` says."""
        try:
            return self.require_data().keys.compute_key_mac(message)
        except StoreError as error:
            raise refuse_unavailable(error) from error

    @property
    def audit_seq(self) -> int:
        """Number of the newest audit record that this gateway knows of: all with a larger one come after now.

        Another replica's newest are among those for up to a beat.
        """
        return self._head.seq

    @property
    def cipher(self) -> ContentCipher:
        """What encrypts content. Raises StoreError while the data are not open."""
        return ContentCipher(lambda: self.require_data().keys, self.require_data().content_uid)

    def require_data(self) -> OpenData:
        """Return the open data. Raises StoreError, why there are none."""
        if self._data is None:
            raise self._readiness.problem.renew()
        return self._data

    async def write(self, step: Step[T], seconds: float = ANSWER_SECONDS) -> T:
        """Run a step in the writer's next transaction. Raises StoreError, and what the step refuses with."""
        try:
            async with asyncio.timeout(seconds):
                return await self._writer.submit(step)
        except TimeoutError as error:
            raise UnavailableError(f"The tenant's data gave no answer for {seconds:g} s") from error

    @property
    def reads_waiting(self) -> int:
        """Reads that run or wait."""
        return self._readers.count

    async def read(
        self,
        step: Callable[[Connection], T],
        *,
        kind: ReadKind = ReadKind.SHORT,
        on_start: Callable[[], None] = lambda: None,
    ) -> T:
        """Run a step on one consistent snapshot, in a thread of its kind. Raises StoreError.

        `on_start` is called in the thread before the snapshot is made. A step that met a rotation of the root runs
        again.
        """
        data = self.require_data()
        try:
            return await self._read_once(step, kind, on_start)
        except UnreadableContentError:
            if self._data is data:
                await asyncio.get_running_loop().run_in_executor(self._keeper, self.take_rotated_root)
            if self._data is data:
                raise
            return await self._read_once(step, kind, on_start)

    async def _read_once(self, step: Callable[[Connection], T], kind: ReadKind, on_start: Callable[[], None]) -> T:
        try:
            return await self._readers.read(self.require_data().database, step, kind, on_start)
        except CorruptError as error:
            self._set_problem(error)
            raise

    @contextlib.contextmanager
    def hold(self) -> Iterator[OpenData]:
        """Record nothing in the block, since a backup is restored: what would be gets 503. Raises StoreError."""
        data = self.require_data()
        if data.problem is not None:
            raise data.problem.renew()
        self._is_held = True
        self._set_problem(RestoringError("A backup is restored into the tenant's data; wait"))
        try:
            yield data
        finally:
            self._is_held = False
            self._readiness.set_ready()

    @contextlib.contextmanager
    def hold_writer(self) -> Iterator[None]:
        """Let the writer wait during the block, which may take longer than SQLite waits for a lock."""
        with self._turn:
            yield

    async def run_alone(self, work: Callable[[], T]) -> T:
        """Run work in a thread while no copy and no long read runs. Raises CopyRunningError, and what it raises."""

        def work_alone() -> T:
            with self._readers.occupy_long():
                return work()

        return await self.copier.run(work_alone)

    async def adopt(self, data: OpenData, head: AuditHead) -> None:
        """Go on with the keys and the audit log that came with a backup."""
        self._head = head
        self._take_keys(data)
        await asyncio.get_running_loop().run_in_executor(self._keeper, self._store_head)

    def take_rotated_root(self) -> None:
        """Take over the keys of a root that was rotated, here or elsewhere; those of a restore wait for a beat.

        Raises StoreError.
        """
        before = self.require_data()
        if has_other_root(before):
            data = reopen_keys(self.config, before)
            if data.keys.pepper == before.keys.pepper:
                self._take_keys(data)

    def forget_owners(self, is_erased: Callable[[Owner], bool]) -> None:
        """Forget what was decrypted of owners that were erased."""
        self.plaintext.clear()
        for forget in self.erasure_listeners:
            forget(is_erased)

    def _take_keys(self, data: OpenData) -> None:
        self._data, self._work = data, self.make_work(data)
        self._look_ups.clear()
        self.plaintext.clear()
        self._maintenance.resume_rotation()  # as it may have been where the data come from

    def make_work(self, data: OpenData) -> UnitOfWork:
        """Return what opens transactions of this gateway."""
        return UnitOfWork(data.database, data.keys, self.clock, self.instance, data.adopted_root)

    def _reopen_keys(self) -> None:
        self._take_keys(reopen_keys(self.config, self.require_data()))

    async def empty_log(self) -> None:
        """Leave nothing of deleted rows in the database's log: now, or as soon as no reader needs it."""
        self._log.has_deleted = True
        await asyncio.get_running_loop().run_in_executor(self._keeper, self._log.move, self.require_data().database)

    async def close(self) -> None:
        """Commit what waits, store the head of the audit log, and close the data."""
        left = await asyncio.get_running_loop().run_in_executor(self._keeper, self._writer.close)
        if left:
            log.warning("Gateway ends with %d settlements unwritten; the next start asks the pods what they used", left)
        with contextlib.suppress(StoreError):
            await asyncio.get_running_loop().run_in_executor(self._keeper, self._store_head)
        self._readers.close()
        self._keeper.shutdown(wait=False, cancel_futures=True)
        self.copier.close()
        if self._data is not None:
            self._data.database.close()

    def _open(self) -> None:
        data = open_data(self.config)
        work = self.make_work(data)
        if data.problem is None:
            try:
                self._find_left(work, data)
            except BaseException:
                data.database.close()
                raise
        self._data, self._work = data, work
        if data.problem is None:
            self._readiness.set_ready()
        else:
            self._set_problem(data.problem)
        if self.clock.seconds_ahead > _SECONDS_AHEAD:
            log.warning(
                "Ledger time is %.0f s ahead of this machine's clock, which was wrong then or is now; limits and months"
                " follow ledger time", self.clock.seconds_ahead,
            )  # fmt: skip

    def _find_left(self, work: UnitOfWork, data: OpenData) -> None:
        """Find what is left of a crashed gateway: this one is the only user of a file; replicas are watched first."""
        with work.open_repository() as repository:
            repository.beat()
            self.retention.begin(repository)
            if data.database.is_sqlite:
                self._left.note(repository.list_other_instances())
                repository.forget_other_instances()
        self._head = repository.head
        self._settle_due(work)

    def _settle_due(self, work: UnitOfWork) -> None:
        self._head = self._left.settle_due(work) or self._head

    async def read_left(self) -> list[LeftRequest]:
        """Return the requests of gateways that are gone, which wait for `settle_left`. Raises StoreError."""
        instances = self._left.names
        if not instances:
            return []
        rows = await self.read(lambda connection: list_reservations(connection, instances))
        return [LeftRequest(row.request_id, row.model) for row in rows]

    async def settle_left(self, request_id: str, usage: TokenUsage | None) -> bool:
        """Settle a request of a gateway that is gone; `usage` None: as used in full. Raises StoreError.

        Return False, and change nothing, if it was settled before, as by another replica.
        """
        return await self.write(lambda ledger: ledger.settle_orphan(request_id, usage))

    async def _tidy(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._keeper, self._tidy_now)

    def _tidy_now(self) -> None:
        data, work = self.require_data(), self._work
        assert work is not None
        self._refresh_ring(data)
        self._readiness.check_damage(data.database)
        self._log.move(data.database)
        self._drop_plaintext(data)
        if not data.database.is_sqlite:
            with data.database.transaction(writes=False) as connection:
                beats = read_beats(connection)
            self._left.note(self._instances.observe(beats, time.monotonic()))
        self._settle_due(work)
        with contextlib.suppress(TooManyFilesError):  # The next beat stores it.
            self._store_head()

    def _drop_plaintext(self, data: OpenData) -> None:
        """Drop what was decrypted and nobody uses, and what retention, a new key or another replica has made stale."""
        self.plaintext.drop_idle()
        if len(self.plaintext):
            with data.database.transaction(writes=False) as connection:
                self.plaintext.drop_stale(connection)

    def _refresh_ring(self, data: OpenData) -> None:
        """Take over a half that the Secret has now. Its loss stops nothing before the next start, and is told."""
        try:
            refresh_ring(self.config, data.database)
        except TooManyFilesError:
            pass  # It says nothing of the key: what was known of it holds until the next beat.
        except StoreError as error:
            self._readiness.set_key_problem(error)
        else:
            self._readiness.set_key_problem(None)

    def _store_head(self) -> None:
        head, folder = OutsideHead(self._head, self.require_data().restore_id), self.config.folder
        if folder is None or head == self._stored_head or not head.head.seq:
            return
        try:
            write_head_file(folder, head)
        except OSError as error:
            raise translate_os_error(error, folder) from error
        self._stored_head = head

    @contextlib.contextmanager
    def _open_repository(self) -> Iterator[LedgerRepository]:
        """Open a transaction for the writer, and note how it went."""
        data = self.require_data()
        if data.problem is not None or self._is_held:
            raise (data.problem or self._readiness.problem).renew()
        try:
            with self._turn, contextlib.ExitStack() as stack:
                repository = self._enter_repository(stack)
                yield repository
        except StoreError as error:
            self._set_problem(error)
            raise
        self._head = repository.head
        self._readiness.set_ready()

    def _enter_repository(self, stack: contextlib.ExitStack) -> LedgerRepository:
        before = self._work
        assert before is not None
        try:
            repository: LedgerRepository = stack.enter_context(before.open_repository())
        except RestoringError:
            self.take_rotated_root()
            work = self._work
            # After a restore a step may have values that were made with the keys of before.
            if work is None or work is before or work.keys.pepper != before.keys.pepper:
                raise
            repository = stack.enter_context(work.open_repository())
        return repository

    def _set_problem(self, error: StoreError) -> None:
        self._readiness.set_problem(error, is_open=self._data is not None)
