"""What a failed call on the tenant's volume is reported as."""

import errno
import os
from pathlib import Path

import pytest

from r1plus_gateway.store.errors import (
    CorruptError,
    FullError,
    KeyLostError,
    StoreError,
    TooManyFilesError,
)
from r1plus_gateway.store.tenant_keys import read_halves
from r1plus_gateway.store.volume_errors import translate_os_error


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


def test_only_a_missing_folder_is_a_lost_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyLostError):
        read_halves(tmp_path / "missing")

    def fail(path: Path) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Path, "iterdir", fail)
    with pytest.raises(TooManyFilesError, match="Raise the limit"):
        read_halves(tmp_path)
