"""One API server for the tests here; the fault-free trace is learned on it first."""

from collections.abc import Iterator

import pytest

from devcluster.apiserver_only import ApiServer
from support.apiserver.server import started


@pytest.fixture(scope="session")
def apiserver() -> Iterator[ApiServer]:
    """Started once, built first if the cache lacks it."""
    with started() as server:
        yield server
