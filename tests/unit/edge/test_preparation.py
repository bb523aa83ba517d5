"""What is run out of the cache: not what another user may change."""

import os
from pathlib import Path

import pytest

from r1plus_edge.errors import EdgeError
from r1plus_edge.preparation import check_cache_owner

KEPT = (Path("tritonserver"), Path("bundles"))


@pytest.mark.parametrize("place", [Path(), *KEPT])
def test_a_cache_that_all_may_write_is_refused(tmp_path: Path, place: Path) -> None:
    (tmp_path / place).mkdir(exist_ok=True)  # The others are not there yet.
    check_cache_owner(tmp_path)
    (tmp_path / place).chmod(0o1777)
    with pytest.raises(EdgeError, match="another user may change what runs out of it"):
        check_cache_owner(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a folder away")
def test_another_users_cache_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(EdgeError, match="name a folder of your own with R1PLUS_CACHE"):
        check_cache_owner(tmp_path)


def test_a_cache_that_is_not_there_yet_is_made(tmp_path: Path) -> None:
    check_cache_owner(tmp_path / "cache")
