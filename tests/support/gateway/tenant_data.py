"""A tenant's data for tests: its configuration, an open store, callers and requests."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from r1plus_gateway.access.caller import AnswerEvidence, Caller, CallerKind, Limits, Outcome, Reservation, TokenUsage
from r1plus_gateway.store.clock import LedgerClock
from r1plus_gateway.store.database.database import StoreLimits
from r1plus_gateway.store.database.opening import StoreConfig
from r1plus_gateway.store.keys.tenant_keys import make_half
from r1plus_gateway.store.tenant import Periods, TenantStore
from support.gateway.schema import write_schema

TENANT_UID = "0b5e6a2c-0000-4000-8000-00000000000a"
ADMIN = Caller(CallerKind.ADMIN, "team-credit/r1plus-gateway-admin", namespace="team-credit")
EVIDENCE = AnswerEvidence("credit-aaaaaaaaaa", "sha256:" + "d" * 64, "Pass")
DATABASE_LIMITS = StoreLimits(lock=0.2)
"""A test that takes a lock waits for no longer."""
PATIENT_LIMITS = StoreLimits(connect=20.0, lock=20.0, statement=60.0)
"""PostgreSQL notices only after a while that a process was killed that held a lock."""
START = 1_800_000_000.0


@dataclass
class Time:
    """A wall clock that tests set, and the time since boot, which only goes forward."""

    wall: float = START
    boot: float = 1000.0

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks."""
        self.wall += seconds
        self.boot += seconds

    def make_clock(self) -> LedgerClock:
        """Return the ledger's clock of a gateway that starts now."""
        return LedgerClock(lambda: self.wall, lambda: self.boot)


@dataclass
class Volume:
    """The folders that a gateway mounts: the Secret's and the volume's."""

    folder: Path
    tenant_uid: str = TENANT_UID
    url: str = ""
    limits: StoreLimits = DATABASE_LIMITS
    content_days: float = 30.0
    time: Time = field(default_factory=Time)

    @property
    def config(self) -> StoreConfig:
        """What the gateway is told."""
        return StoreConfig(
            self.tenant_uid,
            self.folder / "secret",
            self.folder / "data",
            self.url,
            self.limits,
            content_days=self.content_days,
            has_knowledge=True,
        )

    @property
    def database(self) -> Path:
        """The encrypted file."""
        return self.folder / "data" / "tenant.db"

    @property
    def ring(self) -> Path:
        """The file with the wrapped root."""
        return self.folder / "data" / "key-ring.json"

    def make(self, *halves: str) -> "Volume":
        """Make the folders and the Secret's halves; one if none is named."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        (self.folder / "secret").mkdir(exist_ok=True)
        for name in halves or ("half-1",):
            (self.folder / "secret" / name).write_text(make_half())
        return self

    def make_store(self, periods: Periods | None = None) -> TenantStore:
        """Return a gateway's store, which is not open yet."""
        return TenantStore(self.config, self.time.make_clock(), periods)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[TenantStore]:
        """Yield an open store; it is closed as at a gateway's normal end. New data get their schema at once."""
        if not self.url and not any((self.folder / "data").iterdir()):
            write_schema(self.config)
        store = self.make_store()
        try:
            assert await store.open(), store.state
            yield store
        finally:
            await store.close()


def make_caller(name: str = "key000000001", limits: Limits | None = None, **changes: object) -> Caller:
    """Return the caller of an API key."""
    caller = Caller(CallerKind.API_KEY, name, limits=limits or Limits())
    return replace(caller, **changes)  # type: ignore[arg-type]


async def settle(store: TenantStore, reservation: Reservation, prompt: int, completion: int) -> None:
    """Settle as an answer of so many tokens."""
    await store.ledger.settle(reservation, TokenUsage(prompt, completion), Outcome.ANSWERED, EVIDENCE)


def count_from(first: int = 0) -> Callable[[], str]:
    """Return a maker of request ids."""
    numbers = iter(range(first, 1_000_000))
    return lambda: f"req-{next(numbers)}"
