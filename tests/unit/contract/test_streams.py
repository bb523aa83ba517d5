"""How much is taken of what comes in packets."""

from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract.process.streams import read_at_most


async def arriving(packets: list[bytes]) -> AsyncIterator[bytes]:
    for packet in packets:
        yield packet


@given(packets=st.lists(st.binary(max_size=8), max_size=8), most=st.integers(1, 40))
async def test_it_is_the_beginning_of_all_that_comes(packets: list[bytes], most: int) -> None:
    assert await read_at_most(arriving(packets), most) == b"".join(packets)[:most]


async def test_nothing_is_awaited_that_is_not_taken() -> None:
    packets = arriving([b"abc", b"d", b"never asked for"])
    assert await read_at_most(packets, 4) == b"abcd"
    assert await anext(packets) == b"never asked for"
