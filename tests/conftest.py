"""For every test: a property test fails by what it finds, never by how long an example takes on a shared machine.

`make test` tries two fifths of the examples, and the same in each run: a change fails by what it touched. `make test-long NAME=unit-long`
tries all, and new ones in each run (`--hypothesis-profile=thorough`); what it finds becomes an `@example`.
"""

import gc
import os
from collections.abc import AsyncIterator, Generator

import pytest
from hypothesis import HealthCheck, settings

from support.examples import DEFAULT
from support.virtual_time import virtual_time

# With it, a process that has used gRPC may abort what it forks: a calculator's worker, in a test of its own.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

settings.register_profile("thorough", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=DEFAULT)
quick = settings(settings.get_profile("thorough"), max_examples=DEFAULT * 2 // 5, derandomize=True)
settings.register_profile("quick", quick)
settings.load_profile("quick")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect garbage of tests only, and seldom: modules and cases are 700,000 objects that stay until the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        gc.enable()


@pytest.fixture(name="virtual_time")
async def run_in_virtual_time() -> AsyncIterator[None]:
    """Run the test's loop in virtual time, from when this fixture is set up."""
    with virtual_time():
        yield
