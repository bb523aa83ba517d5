"""Shares of the memory for compiled schemas: nobody takes all of it, and it is emptied when it is full."""

import json
from dataclasses import dataclass, field

import pytest

from r1plus_contract.inference import GATEWAY_OWNER
from r1plus_model_repo.backends.constraint.constraints import parse_schema
from r1plus_model_repo.backends.constraint.schema_memory import MOST_SCHEMA_BYTES, RENEWAL_SECONDS, SchemaMemory
from r1plus_model_repo.backends.requests import RefusedError, SchemaMemoryFullError

MIB = 2**20


@dataclass
class Stage:
    """A memory of 64 MiB, 8 of them the gateway's, with schemas of one size."""

    now: float = 0.0
    size: int = MIB
    count: int = 0
    memory: SchemaMemory = field(init=False)

    def __post_init__(self) -> None:
        self.memory = SchemaMemory(lambda: self.now, 64 * MIB, 8 * MIB)

    def compile(self, owner: str) -> None:
        self.memory.check_room("response_schema", owner, self.size)
        self.count += 1
        self.memory.add(b"%d" % self.count, owner, self.size)

    def fill(self, owner: str) -> int:
        """Compile until that is refused; return how many MiB the owner got."""
        before = self.count
        with pytest.raises(SchemaMemoryFullError):
            while True:
                self.compile(owner)
        return (self.count - before) * self.size // MIB


def test_a_caller_alone_gets_half_and_the_next_ones_find_as_much_as_is_free() -> None:
    stage = Stage()
    assert [stage.fill(f"caller:{number}") for number in range(4)] == [28, 14, 7, 3]


def test_callers_that_ask_by_turns_get_equal_parts_and_leave_one_to_a_newcomer() -> None:
    stage = Stage(size=MIB // 4)
    refused: set[str] = set()
    owners = ["a", "b", "c"]
    while len(refused) < len(owners):
        for owner in owners:
            try:
                stage.compile(owner)
            except SchemaMemoryFullError:
                refused.add(owner)
    assert stage.memory.used_bytes == 3 * 14 * MIB
    stage.compile("newcomer")


def test_the_gateway_has_a_part_that_no_caller_takes() -> None:
    stage = Stage(size=MIB // 64)
    for number in range(100):
        stage.fill(f"caller:{number}")
    assert stage.memory.used_bytes == pytest.approx(56 * MIB, rel=0.01)
    stage.size = MIB
    for _ in range(8):
        stage.compile(GATEWAY_OWNER)
    assert stage.memory.used_bytes <= 64 * MIB


def test_what_the_gateway_takes_beyond_its_part_is_not_there_for_callers() -> None:
    stage = Stage()
    for _ in range(40):
        stage.compile(GATEWAY_OWNER)
    assert stage.fill("a") == 12
    assert stage.fill(GATEWAY_OWNER) == 12


def test_a_schema_that_is_too_large_for_any_caller_is_refused_for_good() -> None:
    """A hundred bounds with fractions, in 2 KB of JSON."""
    schema = {"type": "object", "properties": {f"a{number}": {"minimum": 0.1} for number in range(100)}}
    size = round(1024 * parse_schema(json.dumps(schema)).compiled_kib)
    memory = SchemaMemory(lambda: 0.0)
    memory.check_room("response_schema", "a", MOST_SCHEMA_BYTES)
    with pytest.raises(
        RefusedError, match=r"^response_schema: takes about 18\d+ bytes once it is compiled, more than 16777216"
    ):
        memory.check_room("response_schema", "a", size)
    assert not memory.is_renewal_due()


def test_a_refusal_says_how_much_there_is_and_when_to_try_again() -> None:
    stage = Stage(now=1000.0)
    stage.fill("a")
    stage.now = 1100.0
    with pytest.raises(SchemaMemoryFullError) as refused:
        stage.compile("a")
    assert str(refused.value) == (
        "SchemaMemoryFull: response_schema: the engine keeps 28 schemas and grammars in 29360128 bytes, 29360128 of them"
        " for this caller, who may hold as much as is free; this one needs 1048576 more. Send one that the engine knows,"
        " or try again: the memory is emptied at the first idle moment in 200 s or later"
    )


def test_the_memory_is_emptied_after_a_refusal_and_not_more_often_than_every_five_minutes() -> None:
    stage = Stage()
    stage.now = 2 * RENEWAL_SECONDS
    assert not stage.memory.is_renewal_due()
    stage.fill("a")
    assert stage.memory.is_renewal_due()
    stage.memory.clear()
    assert (stage.memory.used_bytes, stage.memory.knows(b"1"), stage.memory.is_renewal_due()) == (0, False, False)
    assert stage.fill("a") == 28
    stage.now += RENEWAL_SECONDS - 1
    assert not stage.memory.is_renewal_due()
    stage.now += 1
    assert stage.memory.is_renewal_due()


def test_the_memory_is_emptied_before_it_is_full() -> None:
    stage = Stage(now=0.0)
    stage.now = RENEWAL_SECONDS
    for _ in range(51):
        stage.compile(GATEWAY_OWNER)
    assert not stage.memory.is_renewal_due()
    stage.compile(GATEWAY_OWNER)
    assert stage.memory.is_renewal_due()
