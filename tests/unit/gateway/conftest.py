"""What the gateway's unit tests share: a tenant's volume, and a store that is open on it."""

import shutil
from collections.abc import AsyncIterator, Iterator

import pytest

from r1plus_gateway.store.tenant import TenantStore
from support.gateway.tenant_data import Volume
from support.scratch import make_scratch_folder


@pytest.fixture
def volume() -> Iterator[Volume]:
    """The folders of a tenant whose gateway has never run."""
    folder = make_scratch_folder("r1plus-tenant-")
    yield Volume(folder).make()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def store(volume: Volume) -> AsyncIterator[TenantStore]:
    """A store that is open on it."""
    async with volume.open() as opened:
        yield opened
