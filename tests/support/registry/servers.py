"""Fixtures of a real PostgreSQL: the files of a new server, and one server for all tests that only use it."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from support.registry.postgres import Cluster, Postgres


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The files of a new server, which each server starts from."""
    with closing(Cluster()) as files:
        yield files


@pytest.fixture(scope="session")
def postgresql(cluster: Cluster) -> Iterator[Postgres]:
    """One server for all tests that only use it."""
    with closing(Postgres(cluster)) as server:
        server.start()
        yield server
