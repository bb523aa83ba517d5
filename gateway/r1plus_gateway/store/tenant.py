"""The tenant's data as the gateway sees them: opened, watched, and usable or not with a reason.

`run` opens them and keeps trying, so a gateway without its data answers 503 and says why; it does not crash.
"""

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeVar

from sqlalchemy.engine import Connection

from r1plus_contract.gateway import DataReason, DataState
from r1plus_gateway.access.api_keys import KeyRecord
from r1plus_gateway.access.caller import TokenUsage
from r1plus_gateway.store.administration.audit import AuditHead, OutsideHead, write_head_file
from r1plus_gateway.store.administration.key_records import find_record
from r1plus_gateway.store.clock import LedgerClock
from r1plus_gateway.store.content.plaintext_cache import PlaintextCache
from r1plus_gateway.store.copies.copy_thread import CopyThread
from r1plus_gateway.store.database.database import Database
from r1plus_gateway.store.database.opening import (
    OpenData,
    StoreConfig,
    has_other_root,
    open_data,
    refresh_ring,
    reopen_keys,
)
from r1plus_gateway.store.database.unit_of_work import UnitOfWork
from r1plus_gateway.store.database.volume_errors import translate_os_error
from r1plus_gateway.store.errors import (
    BusyError,
    CorruptError,
    RestoringError,
    StoreError,
    TooManyFilesError,
    UnavailableError,
)
from r1plus_gateway.store.keys.content_cipher import ContentCipher, Owner, UnreadableContentError
from r1plus_gateway.store.keys.key_rotation import continue_rotation
from r1plus_gateway.store.ledger.instances import BEAT_SECONDS, GONE_SECONDS, InstanceWatch, read_beats
from r1plus_gateway.store.ledger.ledger import ANSWER_SECONDS, StoreLedger, refuse_unavailable
from r1plus_gateway.store.ledger.repository import MOST_PRUNED, LedgerRepository, list_reservations
from r1plus_gateway.store.ledger.writer import Step, Writer
from r1plus_gateway.store.upkeep.erasure_records import prune_erasures
from r1plus_gateway.store.upkeep.erasure_steps import continue_erasures, find_unfinished
from r1plus_gateway.store.upkeep.retention import date_back, prune_content, prune_knowledge
from r1plus_gateway.store.upkeep.retention_clock import RetentionClock

log = logging.getLogger(__name__)
T = TypeVar("T")
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.5, 15.0
_READERS: Final = 2
MOST_READS: Final = 500
"""Reads that run or wait."""
MOST_UNKNOWN_KEYS: Final = 128
"""Look-ups of keys that have not called yet, at one time: a flood of forged keys does not keep out the others."""
MOST_KNOWN_KEYS: Final = 10_000
LONG_READ_SECONDS: Final = 600.0
"""Longest verification of the audit log, and longest build of an index."""
AUDIT_BATCHES: Final = 20
"""Transactions that remove old audit records between two beats: 2,000 records a second."""
ROTATIONS_PER_ROUND: Final = 20
"""Transactions that encrypt again between two beats."""
ERASURES_PER_ROUND: Final = 20
"""Transactions between two beats that go on with erasures."""
_SECONDS_AHEAD: Final = 300.0
_LOG_TRIES: Final = 10
"""Tries to empty the database's log between two beats: short reads come and go."""
_LOG_PAUSE_SECONDS: Final = 0.01


class ReadKind(Enum):
    """Which thread reads: each kind of long read has its own, so none waits for one of another kind."""

    SHORT = "short"
    AUDIT = "audit"
    """Verification of the audit log, and reports that go through whole tables."""
    BUILD = "build"
    """An index of a vector store."""
    LARGE_BUILD = "large build"
    """An index that takes seconds."""

    @property
    def is_long(self) -> bool:
        """Whether it may take longer than a request waits for its key."""
        return self is not ReadKind.SHORT


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


@dataclass(frozen=True, slots=True)
class LeftRequest:
    """A request that ran when its gateway went."""

    id: str
    model: str


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
        self._problem: StoreError = UnavailableError("The tenant's data are being opened; wait")
        self._state = DataState(DataReason.STARTING, str(self._problem))
        self._key_problem: StoreError | None = None
        self._is_damaged = False
        self._check_at = 0.0
        self._prune_at = 0.0
        self._prune_requests = 0
        self._is_rotating = True
        """Whether older data keys may be in use: also those that a gateway before this one left."""
        self._has_deleted = True
        """Whether the database's log may have rows that were deleted: also those of a gateway before this one."""
        self._reads = 0
        self._unknown_reads = 0
        self._look_ups: dict[str, asyncio.Task[KeyRecord | None]] = {}
        """Id of a key -> its look-up that has not begun to read."""
        self._known_keys: dict[str, None] = {}
        self._head = AuditHead()
        self._stored_head = OutsideHead(AuditHead())
        self._instances = InstanceWatch(self.instance, self._periods.gone)
        self._left: dict[str, float] = {}
        """Gateways that are gone -> when what they have reserved counts as used in full, by the monotonic clock."""
        self._readers = {
            kind: ThreadPoolExecutor(1 if kind.is_long else _READERS, thread_name_prefix=f"gateway-{kind.value}-reader")
            for kind in ReadKind
        }
        self._keeper = ThreadPoolExecutor(1, thread_name_prefix="gateway-keeper")
        self.plaintext = PlaintextCache()
        """What was decrypted and is used again soon; each round drops what is no longer stored."""
        self.erasure_listeners: list[Callable[[Callable[[Owner], bool]], None]] = []
        """What else has content in memory; each forgets that of the owners for which its argument is true."""
        self.copier = CopyThread()
        """Makes and restores backups."""
        self._is_held = False
        self._turn = threading.Lock()
        self._writer = Writer(self._open_repository)
        self.ledger = StoreLedger(self._writer)
        self.first_try = asyncio.Event()
        """Set when the data were opened, or could not be for the first time."""
        self.is_watched = False
        """Whether the gateway listens, and `run` goes on whatever happens."""

    @property
    def state(self) -> DataState:
        """Whether the data can be used now, and why not; or why they could not be opened again."""
        problem = self._key_problem
        if self._state.is_ready and problem is not None:
            consequence = "This gateway runs on with the key that it has, and could not start again"
            return problem.describe(consequence, can_serve=True)
        if self._state.is_ready and (hold := self.retention.problem):
            return DataState(DataReason.CLOCK_AHEAD, str(hold), True, hold.remedy, hold.values)
        return self._state

    async def run(self) -> None:
        """Open the data, try again while that fails, then watch over them. Never returns."""
        delay = FIRST_RETRY_SECONDS
        while self._data is None and not await self.open():
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_RETRY_SECONDS)
        while True:
            await asyncio.sleep(self._periods.beat if self._state.can_serve else self._periods.retry)
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
        await self._do(self._beat, self._prune, self._erase, self._rotate, self._tidy)

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

    async def _prune(self) -> None:
        """Remove what is older than its retention, once an hour, a few batches per round: other rounds' work waits."""
        if time.monotonic() < self._prune_at:
            return
        requests, days = self._prune_requests, self.config.content_days
        present = await self.write(self.retention.advance)
        now = present.moment
        before = now - self.config.audit_days * 86400
        has_more = await self._prune_audit(before)
        has_more |= await self.write(lambda ledger: prune_content(ledger.connection, now, days))
        has_more |= await self.write(lambda ledger: prune_knowledge(ledger.connection, now))
        await self.write(lambda ledger: prune_erasures(ledger.connection, before))
        if present.held_from is None:  # Else, once it is confirmed, what is of today would begin in the past.
            await self.write(lambda ledger: date_back(ledger.connection, now))
        self._has_deleted = True
        if not has_more and requests == self._prune_requests:
            seconds = min(self._periods.prune, self._periods.hold) if self.retention.problem else self._periods.prune
            self._prune_at = time.monotonic() + seconds

    async def _erase(self) -> None:
        """Go on with erasures whose request has ended, or whose gateway is gone, as much as a round has time for."""
        for _ in range(ERASURES_PER_ROUND):
            if await self.read(find_unfinished) is None:
                return
            await self.write(continue_erasures)
            self._has_deleted = True

    async def _prune_audit(self, before: float) -> bool:
        """Remove audit records from before a time. Return whether there may be more."""
        for _ in range(AUDIT_BATCHES):
            if await self.write(lambda ledger: ledger.prune_audit(before, MOST_PRUNED)) < MOST_PRUNED:
                return False
        return True

    def prune_soon(self) -> None:
        """Let the next round remove what is over, also before the hour, and where one is on its way."""
        self._prune_at = 0.0
        self._prune_requests += 1

    def resume_rotation(self) -> None:
        """Let the rounds of `maintain` encrypt again what older data keys encrypted."""
        self._is_rotating = True

    async def _rotate(self) -> None:
        """Encrypt again what older data keys encrypted, as much as a round has time for."""
        cipher = self.cipher
        for _ in range(ROTATIONS_PER_ROUND):
            if not self._is_rotating:
                return
            try:
                self._is_rotating = await self.write(
                    lambda ledger: continue_rotation(ledger.connection, cipher, ledger.now)
                )
            except UnreadableContentError as error:
                self._is_rotating = False
                log.error("Rotation of data keys stopped, older keys stay: %s; delete it and rotate again", error)
            self._has_deleted = True

    async def find_key(self, key_id: str) -> KeyRecord | None:
        """Return the record of an API key, as `KeyFinder` says."""
        try:
            return await asyncio.shield(self._look_ups.get(key_id) or self._start_look_up(key_id))
        except StoreError as error:
            raise refuse_unavailable(error) from error

    def _start_look_up(self, key_id: str) -> "asyncio.Task[KeyRecord | None]":
        """Begin a look-up that all share who ask before it reads: so no request sees what was before it came.

        Raises:
            BusyError: too many keys are looked up that have not called yet.
        """
        is_known = key_id in self._known_keys
        if not is_known and self._unknown_reads >= MOST_UNKNOWN_KEYS:
            raise BusyError(f"{self._unknown_reads} keys that are not known are looked up already")
        self._unknown_reads += not is_known
        task = self._look_ups[key_id] = asyncio.create_task(self._look_up(key_id))

        def end(task: "asyncio.Task[KeyRecord | None]") -> None:
            self._unknown_reads -= not is_known
            if not task.cancelled():
                task.exception()  # else it is logged where all who asked have left

        task.add_done_callback(end)
        return task

    async def _look_up(self, key_id: str) -> KeyRecord | None:
        task = asyncio.current_task()

        def stop_sharing() -> None:
            if self._look_ups.get(key_id) is task:
                self._look_ups.pop(key_id, None)

        try:
            record = await self.read(lambda connection: find_record(connection, key_id), on_start=stop_sharing)
        finally:
            stop_sharing()
        if record is not None and key_id not in self._known_keys:
            if len(self._known_keys) >= MOST_KNOWN_KEYS:
                del self._known_keys[next(iter(self._known_keys))]
            self._known_keys[key_id] = None
        return record

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
            raise self._problem.renew()
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
        return self._reads

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
        data, seconds = self.require_data(), LONG_READ_SECONDS if kind.is_long else ANSWER_SECONDS
        if self._reads >= MOST_READS:
            raise BusyError(f"{self._reads} reads wait for the tenant's data already")

        def work() -> T:
            on_start()
            with data.database.transaction(writes=False, is_long=kind.is_long) as connection:
                return step(connection)

        self._reads += 1
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(self._readers[kind], work)
        except CorruptError as error:
            self._set_problem(error)
            raise
        except TimeoutError as error:
            raise UnavailableError(f"The tenant's data gave no answer for {seconds:g} s") from error
        finally:
            self._reads -= 1

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
            self._set_ready()

    @contextlib.contextmanager
    def hold_writer(self) -> Iterator[None]:
        """Let the writer wait during the block, which may take longer than SQLite waits for a lock."""
        with self._turn:
            yield

    async def run_alone(self, work: Callable[[], T]) -> T:
        """Run work in a thread while no copy and no long read runs. Raises CopyRunningError, and what it raises."""

        def work_alone() -> T:
            with contextlib.ExitStack() as stack:
                for kind in ReadKind:
                    if kind.is_long:
                        stack.enter_context(_occupy(self._readers[kind]))
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
        self._known_keys.clear()
        self.plaintext.clear()
        self._is_rotating = True  # as it may have been where the data come from

    def make_work(self, data: OpenData) -> UnitOfWork:
        """Return what opens transactions of this gateway."""
        return UnitOfWork(data.database, data.keys, self.clock, self.instance, data.adopted_root)

    def _reopen_keys(self) -> None:
        self._take_keys(reopen_keys(self.config, self.require_data()))

    async def empty_log(self) -> None:
        """Leave nothing of deleted rows in the database's log: now, or as soon as no reader needs it."""
        self._has_deleted = True
        await asyncio.get_running_loop().run_in_executor(self._keeper, self._move_log)

    def _move_log(self) -> None:
        """Move the log into the file; empty it where rows were deleted, once no reader needs it."""
        database = self.require_data().database
        if not self._has_deleted:
            database.checkpoint()
            return
        self._has_deleted = False
        try:
            self._empty_log(database)
        except BusyError:  # the next round tries again
            self._has_deleted = True
        except BaseException:
            self._has_deleted = True
            raise

    def _empty_log(self, database: Database) -> None:
        """Empty the log between two short reads. Raises StoreError; BusyError while a reader needs it."""
        database.checkpoint()  # most of the work, which stops nobody
        for has_more in (*[True] * (_LOG_TRIES - 1), False):
            try:
                with self._turn:  # else the writer would be in the way, or would meet a lock
                    database.empty_log()
            except BusyError:
                if not has_more or database.has_long_reads:
                    raise
                time.sleep(_LOG_PAUSE_SECONDS)
            else:
                return

    async def close(self) -> None:
        """Commit what waits, store the head of the audit log, and close the data."""
        left = await asyncio.get_running_loop().run_in_executor(self._keeper, self._writer.close)
        if left:
            log.warning("Gateway ends with %d settlements unwritten; the next start asks the pods what they used", left)
        with contextlib.suppress(StoreError):
            await asyncio.get_running_loop().run_in_executor(self._keeper, self._store_head)
        for threads in (*self._readers.values(), self._keeper):
            threads.shutdown(wait=False, cancel_futures=True)
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
            self._set_ready()
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
                self._note_gone(repository.list_other_instances())
                repository.forget_other_instances()
        self._head = repository.head
        self._settle_due(work)

    def _note_gone(self, instances: Sequence[str]) -> None:
        due = time.monotonic() + self._periods.left
        self._left = {name: self._left.get(name, due) for name in instances}

    def _settle_due(self, work: UnitOfWork) -> None:
        """Count what is left of gateways that are gone as used in full, once nobody has settled it in time."""
        due = [name for name, at in self._left.items() if time.monotonic() >= at]
        if not due:
            return
        with work.open_repository() as repository:
            count = repository.settle_orphans(due)
            repository.forget_instances(due)
        self._head = repository.head
        self._left = {name: at for name, at in self._left.items() if name not in due}
        if count:
            log.warning("%d requests of %d gateways that are gone were settled as used in full", count, len(due))

    async def read_left(self) -> list[LeftRequest]:
        """Return the requests of gateways that are gone, which wait for `settle_left`. Raises StoreError."""
        instances = list(self._left)
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
        self._check_damage(data)
        self._move_log()
        self._drop_plaintext(data)
        if not data.database.is_sqlite:
            with data.database.transaction(writes=False) as connection:
                beats = read_beats(connection)
            self._note_gone(self._instances.observe(beats, time.monotonic()))
        self._settle_due(work)
        with contextlib.suppress(TooManyFilesError):  # The next beat stores it.
            self._store_head()

    def _drop_plaintext(self, data: OpenData) -> None:
        """Drop what was decrypted and nobody uses, and what retention, a new key or another replica has made stale."""
        self.plaintext.drop_idle()
        if len(self.plaintext):
            with data.database.transaction(writes=False) as connection:
                self.plaintext.drop_stale(connection)

    def _check_damage(self, data: OpenData) -> None:
        """Look again at data that were damaged. Raises CorruptError."""
        if self._is_damaged and time.monotonic() >= self._check_at:
            self._check_at = time.monotonic() + self._periods.check
            data.database.check_content()
            self._is_damaged = False
            self._set_ready()

    def _refresh_ring(self, data: OpenData) -> None:
        """Take over a half that the Secret has now. Its loss stops nothing before the next start, and is told."""
        try:
            refresh_ring(self.config, data.database)
        except TooManyFilesError:
            pass  # It says nothing of the key: what was known of it holds until the next beat.
        except StoreError as error:
            if str(error) != str(self._key_problem):
                log.warning("Tenant key could not be opened again: %s: %s", error.reason.value, error)
            self._key_problem = error.renew()
        else:
            self._key_problem = None

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
            raise (data.problem or self._problem).renew()
        try:
            with self._turn, contextlib.ExitStack() as stack:
                repository = self._enter_repository(stack)
                yield repository
        except StoreError as error:
            self._set_problem(error)
            raise
        self._head = repository.head
        self._set_ready()

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

    def _set_ready(self) -> None:
        if self._is_damaged:
            return  # Pages that are whole can still be written.
        if not self._state.is_ready:
            log.info("Tenant's data can be used")
        self._state = DataState(DataReason.READY, "The tenant's data can be read and written.", can_serve=True)

    def _set_problem(self, error: StoreError) -> None:
        if isinstance(error, BusyError):
            return  # The database works.
        self._is_damaged |= isinstance(error, CorruptError) and self._data is not None
        state = error.describe()
        if state != self._state:
            log.warning("Tenant's data cannot be used: %s: %s", state.reason.value, state.message)
        self._problem, self._state = error.renew(), state


@contextlib.contextmanager
def _occupy(thread: ThreadPoolExecutor) -> Iterator[None]:
    """Wait until a thread has done what it was given before, and let it do nothing else during the block."""
    is_free, is_over = threading.Event(), threading.Event()

    def wait() -> None:
        is_free.set()
        is_over.wait()

    occupied = thread.submit(wait)
    try:
        while not is_free.wait(1.0):
            if occupied.cancelled():
                raise UnavailableError("The gateway is stopping")
        yield
    finally:
        is_over.set()
