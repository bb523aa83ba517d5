"""What a failed call on the tenant's volume is reported as."""

import errno
import os
from pathlib import Path

import pytest

from r1plus_contract.gateway import DataReason
from r1plus_gateway.store.database.volume_errors import translate_os_error
from r1plus_gateway.store.errors import (
    CorruptError,
    FullError,
    KeyLostError,
    StoreError,
    TooManyFilesError,
)
from r1plus_gateway.store.keys.tenant_keys import read_halves
from support.gateway.tenant_data import Volume
from support.open_files import limit_open_files

MOST_OPEN = 3
"""So many leave a process without a descriptor that it could open, as a flood of connections does."""


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, FullError),
        (errno.EDQUOT, FullError),
        (errno.EMFILE, TooManyFilesError),
        (errno.ENFILE, TooManyFilesError),
        (errno.EIO, CorruptError),
    ],
)
def test_an_errno_has_its_reason(number: int, expected: type[StoreError], tmp_path: Path) -> None:
    assert type(translate_os_error(OSError(number, os.strerror(number)), tmp_path)) is expected


def test_without_a_descriptor_no_half_is_called_lost(tmp_path: Path) -> None:
    with pytest.raises(KeyLostError):
        read_halves(tmp_path / "missing")
    with limit_open_files(MOST_OPEN), pytest.raises(TooManyFilesError, match="Raise the limit"):
        read_halves(tmp_path)


async def test_data_cannot_be_opened_without_a_descriptor_and_open_afterwards(volume: Volume) -> None:
    store = volume.make_store()
    with limit_open_files(MOST_OPEN):
        assert not await store.open()
    assert store.state.reason is DataReason.TOO_MANY_FILES
    assert "Enlarge" not in store.state.message
    assert await store.open()
    await store.close()


async def test_data_that_are_open_stay_ready_without_a_descriptor(volume: Volume) -> None:
    """Neither the key nor the audit log's head outside of the database can be read or written then."""
    store = volume.make_store()
    assert await store.open()
    with limit_open_files(MOST_OPEN):
        store._tidy_now()
        assert store.state.is_ready
    store._tidy_now()
    assert store.state.is_ready
    await store.close()
