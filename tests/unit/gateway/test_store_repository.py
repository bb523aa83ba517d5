"""A batch of steps in one transaction has the same effect as each step in one of its own."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from r1plus_gateway.access.caller import AccessError, Limits, Outcome, Reservation, TokenUsage
from r1plus_gateway.store.database import tables as t
from r1plus_gateway.store.database.opening import open_data
from r1plus_gateway.store.database.unit_of_work import UnitOfWork
from r1plus_gateway.store.errors import ForeignTenantError
from r1plus_gateway.store.keys.tenant_keys import create_ring, open_ring
from r1plus_gateway.store.ledger.repository import LedgerRepository
from support.gateway.tenant_data import EVIDENCE, Volume, make_caller
from support.scratch import make_scratch_folder

LIMITS = Limits(requests_per_minute=20, tokens_per_minute=300, concurrent_requests=4, budget_tokens=200)
CALLERS = (make_caller("key000000001", LIMITS), make_caller("key000000002", LIMITS))
Step = tuple[str, int, int]
"""What, which request, and how many tokens."""
STEPS = st.lists(
    st.tuples(st.sampled_from(["reserve", "extend", "settle", "void"]), st.integers(0, 5), st.integers(0, 90)),
    max_size=16,
)


def run(repository: LedgerRepository, step: Step) -> Any:
    """Run a step and return what its caller would see."""
    what, number, tokens = step
    caller, request_id = CALLERS[number % 2], f"r{number}"
    if what == "void":
        return repository.void(request_id, caller.limits)
    if what == "settle":
        reservation = Reservation(request_id, caller, "credit", 0)
        return repository.settle(reservation, TokenUsage(tokens, 0), Outcome.ANSWERED, EVIDENCE)
    try:
        if what == "extend":
            extended = repository.extend(Reservation(request_id, caller, "credit", 0), tokens, tokens // 2)
            return extended.tokens, extended.remaining
        return repository.reserve(request_id, caller, "credit", tokens).remaining
    except (AccessError, ValueError) as error:
        return type(error).__name__, str(error)


def dump(work: UnitOfWork) -> dict[str, list[Any]]:
    """Return what is stored, without MACs, which depend on the tenant's key."""
    with work.database.transaction(writes=False) as connection:
        found = {}
        for table in (t.counters, t.budgets, t.reservations, t.usage, t.audit):
            columns = [column for column in table.columns if column.name not in ("mac", "instance")]
            found[table.name] = sorted(map(tuple, connection.execute(sa.select(*columns))))
        return found


@pytest.fixture(scope="module")
def new() -> Iterator[Path]:
    """A tenant's data that are migrated and empty; a migration takes longer than a batch."""
    folder = make_scratch_folder("r1plus-tenant-")
    open_data(Volume(folder).make().config).database.close()
    yield folder
    shutil.rmtree(folder)


@contextmanager
def opened(new: Path) -> Iterator[UnitOfWork]:
    volume = Volume(make_scratch_folder("r1plus-tenant-"))
    shutil.copytree(new, volume.folder, dirs_exist_ok=True)
    data = open_data(volume.config)
    yield UnitOfWork(data.database, data.keys, volume.time.make_clock(), "test")
    data.database.close()
    shutil.rmtree(volume.folder)


def play(new: Path, batches: Sequence[Sequence[Step]]) -> tuple[list[Any], dict[str, list[Any]]]:
    answers = []
    with opened(new) as work:
        for batch in batches:
            with work.open_repository() as repository:
                answers += [run(repository, step) for step in batch]
        return answers, dump(work)


@pytest.mark.unit_slow
@settings(max_examples=20)
@example([("reserve", 0, 90), ("void", 0, 0), ("reserve", 2, 90)])
@example([("reserve", 0, 90), ("settle", 0, 10), ("settle", 0, 20), ("reserve", 0, 90)])
@example([("reserve", 0, 90), ("reserve", 2, 90), ("settle", 0, 90), ("reserve", 4, 20), ("reserve", 4, 21)])
@given(STEPS)
def test_a_batch_is_the_same_as_its_steps_one_by_one(new: Path, steps: list[Step]) -> None:
    assert play(new, [steps]) == play(new, [[step] for step in steps])


@settings(max_examples=10)
@example([("reserve", 0, 90), ("reserve", 2, 90)], [("settle", 0, 10), ("reserve", 4, 90), ("settle", 2, 0)])
@example([("reserve", 0, 90), ("reserve", 2, 90)], [("void", 0, 0), ("reserve", 0, 90)])
@example([("reserve", 0, 90), ("reserve", 2, 90)], [("settle", 0, 90), ("reserve", 4, 20), ("reserve", 4, 21)])
@given(STEPS, STEPS)
def test_so_is_one_that_follows_another(new: Path, first: list[Step], second: list[Step]) -> None:
    assert play(new, [first, second]) == play(new, [[step] for step in first + second])


def test_a_limit_counts_what_the_same_batch_reserved_before_the_caller_had_it(new: Path) -> None:
    limited = make_caller(limits=Limits(budget_tokens=100))
    with opened(new) as work, work.open_repository() as repository:
        repository.reserve("a", make_caller(), "credit", 60)
        with pytest.raises(AccessError, match="60 set aside"):
            repository.reserve("b", limited, "credit", 41)
        repository.reserve("c", limited, "credit", 40)


def test_a_batch_that_fails_leaves_nothing(new: Path) -> None:
    with opened(new) as work:
        before = dump(work)
        with pytest.raises(RuntimeError), work.open_repository() as repository:
            run(repository, ("reserve", 0, 10))
            raise RuntimeError("a defect")
        assert dump(work) == before


def test_a_ring_of_another_tenant_is_refused_before_it_is_opened() -> None:
    halves = {"half-1": bytes(32)}
    with pytest.raises(ForeignTenantError, match="belong to tenant one, and this gateway serves two"):
        open_ring(create_ring("one", halves), "two", halves)


def test_a_database_that_says_it_is_another_tenants_is_refused_though_the_key_opens_it(volume: Volume) -> None:
    data = open_data(volume.config)
    with data.database.transaction(writes=True) as connection:
        connection.execute(sa.update(t.meta).where(t.meta.c.name == "tenant_uid").values(value="another-uid"))
    data.database.close()
    with pytest.raises(ForeignTenantError, match="belongs to tenant another-uid"):
        open_data(volume.config)
