"""The tenant's data in a real PostgreSQL: each test has a database of its own, and gateways that share it."""

import shutil
from collections.abc import Iterator

import pytest

from support.gateway.tenant_data import PATIENT_LIMITS, Volume
from support.registry.postgres import Postgres
from support.registry.servers import cluster, postgresql
from support.scratch import make_scratch_folder

__all__ = ["cluster", "postgresql"]


@pytest.fixture
def tenant(postgresql: Postgres) -> Iterator[Volume]:
    """A tenant whose data are in an empty database, and whose gateway has no volume but for the head of its log."""
    folder = make_scratch_folder("r1plus-tenant-")
    with postgresql.scratch() as url:
        yield Volume(folder, url=url, limits=PATIENT_LIMITS).make()
    shutil.rmtree(folder, ignore_errors=True)
