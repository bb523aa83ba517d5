"""What is run out of the cache: not what another user may change."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_edge.errors import EdgeError
from r1plus_edge.start.preparation import check_cache_owner, prepare_engine
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog

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


def test_a_cache_that_is_not_there_yet_is_not_refused(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    check_cache_owner(cache)
    cache.mkdir()
    cache.chmod(0o1777)
    with pytest.raises(EdgeError):
        check_cache_owner(cache)


async def test_an_engine_larger_than_the_disk_of_the_cache_is_refused_before_anything_is_fetched(
    tmp_path: Path,
) -> None:
    engines = load_catalog(Path(catalog.__file__).parent / "qwen")
    (engine,) = (one for one in engines if one.name == "qwen-full-q4-k-m")
    large = engine.spec.requirements.model_copy(update={"weights_memory": "1048576Gi"})
    engine = replace(engine, spec=engine.spec.model_copy(update={"requirements": large}))
    told: list[str] = []
    problem = r"engine qwen-full-q4-k-m cannot be made: .* of disk are free, \d+ MiB are needed; free some"
    with pytest.raises(EdgeError, match=problem):
        await prepare_engine(engine, None, tmp_path / "cache", tmp_path, told.append)
    assert (told, list((tmp_path / "cache").iterdir())) == ([], [])
