"""A volume holds the whole engine or none, whatever happens on the way."""

import errno
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.engine.engine_fetch import (
    EXIT_PERMANENT,
    EXIT_RETRYABLE,
    Archive,
    FillOrder,
    FillPhase,
    FillProgress,
    FillRefusal,
)
from r1plus_model_repo.engine_fetch.errors import FillError
from r1plus_model_repo.engine_fetch.storage import SPARE_BYTES
from r1plus_model_repo.engine_fetch.volume import Fetch, fill_volume
from support.model_repo.engine_fetch.builds import SMALL_BYTES, quiet, small_file_system, write

SIGNED = Path(__file__).parent / "signed"
FILES = {"openvino_model.xml": b"<net/>", "weights.bin": b"\1" * 100_000}


def brings(files: dict[str, bytes] = FILES) -> Fetch:
    return lambda part: write(part / "engine", files) and None


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


@pytest.fixture
def order(tmp_path: Path) -> FillOrder:
    write(tmp_path / "original", FILES)
    digest = digest_folder(tmp_path / "original")
    return FillOrder("bank-lite", digest, 200_000, Archive("https://models.example/x.tar", "a" * 64))


def visible(volume: Path) -> list[str]:
    """What there is beside the lock."""
    return sorted(p.relative_to(volume).as_posix() for p in volume.rglob("*") if p.name != ".lock")


WHOLE = ["engine", "engine/openvino_model.xml", "engine/weights.bin"]


def test_the_engine_is_there_and_nothing_else(volume: Path, order: FillOrder) -> None:
    told: list[FillProgress] = []
    fill_volume(order, volume, brings(), told.append)
    assert visible(volume) == WHOLE
    assert [progress.phase for progress in told] == [FillPhase.VERIFYING, FillPhase.DONE]


def test_what_is_there_is_not_fetched_again(volume: Path, order: FillOrder) -> None:
    fill_volume(order, volume, brings(), quiet)
    fill_volume(order, volume, lambda _: pytest.fail("fetched twice"), quiet)
    assert visible(volume) == WHOLE


@pytest.mark.parametrize("name", ["weights.bin", "stray"])
def test_an_engine_that_was_tampered_with_is_brought_anew(volume: Path, order: FillOrder, name: str) -> None:
    fill_volume(order, volume, brings(), quiet)
    (volume / "engine" / name).write_bytes(b"\2" * 100_000)
    fill_volume(order, volume, brings(), quiet)
    assert digest_folder(volume / "engine") == order.digest


def test_an_engine_with_a_link_in_it_is_brought_anew(volume: Path, order: FillOrder) -> None:
    fill_volume(order, volume, brings(), quiet)
    (volume / "engine" / "weights.bin").unlink()
    (volume / "engine" / "weights.bin").symlink_to("/etc/passwd")
    fill_volume(order, volume, brings(), quiet)
    assert digest_folder(volume / "engine") == order.digest


def test_other_files_than_were_promised_leave_nothing(volume: Path, order: FillOrder) -> None:
    with pytest.raises(FillError, match="these are not the files that were measured") as raised:
        fill_volume(order, volume, brings({**FILES, "weights.bin": b"\1" * 99_999}), quiet)
    assert (raised.value.reason, raised.value.exit_code) == (FillRefusal.ENGINE_DIGEST_MISMATCH, EXIT_PERMANENT)
    assert visible(volume) == []


def test_a_fetch_that_fails_half_way_leaves_nothing(volume: Path, order: FillOrder) -> None:
    def half(part: Path) -> None:
        write(part / "engine", {"openvino_model.xml": b"<net/>"})
        raise FillError(FillRefusal.FETCH_FAILED, "broke off")

    with pytest.raises(FillError, match="broke off"):
        fill_volume(order, volume, half, quiet)
    assert visible(volume) == []


def test_what_a_killed_job_left_is_cleared(volume: Path, order: FillOrder) -> None:
    write(volume / ".part" / "engine", {"half": b"x"})
    write(volume / ".incoming", {"half": b"x"})
    fill_volume(order, volume, brings(), quiet)
    assert visible(volume) == WHOLE


def test_the_files_of_an_image_are_looked_at_like_any_others(volume: Path, order: FillOrder) -> None:
    by_image = FillOrder(order.engine, order.digest, order.size)
    write(volume / ".incoming" / "engine", FILES)
    fill_volume(by_image, volume, None, quiet)
    assert visible(volume) == WHOLE
    fill_volume(by_image, volume, None, quiet)
    assert visible(volume) == WHOLE


def test_an_image_without_an_engine_is_told(volume: Path, order: FillOrder) -> None:
    (volume / ".incoming" / "engine").mkdir(parents=True)
    with pytest.raises(FillError, match="no files under /engine"):
        fill_volume(FillOrder(order.engine, order.digest, order.size), volume, None, quiet)
    assert visible(volume) == []


def brings_signed(part: Path) -> None:
    shutil.copytree(SIGNED / "engine", part / "engine")
    shutil.copy(SIGNED / "model.sig", part)


def test_an_engine_that_nobody_vouches_for_is_refused_and_a_signed_one_is_not(volume: Path, order: FillOrder) -> None:
    key = SIGNED / "signing.pub"
    signed = replace(order, digest=digest_folder(SIGNED / "engine"), keys=(key.read_text(),))
    with pytest.raises(FillError, match=r"SignatureInvalid: model\.sig is missing") as raised:
        fill_volume(signed, volume, lambda part: shutil.copytree(SIGNED / "engine", part / "engine") and None, quiet)
    assert raised.value.exit_code == EXIT_PERMANENT
    assert visible(volume) == []
    fill_volume(signed, volume, brings_signed, quiet)
    assert digest_folder(volume / "engine") == signed.digest
    fill_volume(signed, volume, lambda _: pytest.fail("fetched twice"), quiet)
    with pytest.raises(FillError, match="none of the keys"):
        fill_volume(replace(signed, keys=()), volume, brings_signed, quiet)
    (volume.parent / "other").mkdir()
    with pytest.raises(FillError, match="none of the keys"):
        fill_volume(replace(signed, keys=()), volume.parent / "other", brings_signed, quiet)


def test_two_at_once_do_the_work_once(volume: Path, order: FillOrder) -> None:
    fetching, go_on, fetches = threading.Event(), threading.Event(), []
    waiting = threading.Event()

    def slow(part: Path) -> None:
        fetches.append(part)
        fetching.set()
        assert go_on.wait(120)
        write(part / "engine", FILES)

    first = threading.Thread(target=fill_volume, args=(order, volume, slow, quiet))
    first.start()
    assert fetching.wait(120)

    def tell(progress: FillProgress) -> None:
        if progress.phase is FillPhase.WAITING:
            waiting.set()

    second = threading.Thread(target=fill_volume, args=(order, volume, slow, tell))
    second.start()
    assert waiting.wait(120)
    go_on.set()
    first.join(120)
    second.join(120)
    assert len(fetches) == 1
    assert visible(volume) == WHOLE


KILLED = """
import os, sys
from pathlib import Path
from r1plus_contract.engine.engine_fetch import Archive, FillOrder
from r1plus_model_repo.engine_fetch.volume import fill_volume
def dies(part):
    (part / "engine").mkdir()
    (part / "engine" / "weights.bin").write_bytes(b"1")
    os.kill(os.getpid(), 9)
fill_volume(FillOrder("e", sys.argv[2], 1000, Archive("https://x/y", "a" * 64)), Path(sys.argv[1]), dies, lambda _: None)
"""


def test_a_killed_job_holds_no_lock_and_nothing_of_it_is_loaded(volume: Path, order: FillOrder) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, volume, order.digest])
    assert done.returncode == -9
    assert not (volume / "engine").exists()
    fill_volume(order, volume, brings(), quiet)
    assert visible(volume) == WHOLE


@pytest.fixture
def small(volume: Path) -> Iterator[Path]:
    with small_file_system(volume):
        yield volume


def test_a_volume_that_is_too_small_is_told_before_anything_is_fetched(small: Path, order: FillOrder) -> None:
    big = FillOrder(order.engine, order.digest, SMALL_BYTES - SPARE_BYTES + 4096, order.archive)
    with pytest.raises(FillError) as raised:
        fill_volume(big, small, lambda _: pytest.fail("fetched"), quiet)
    assert (raised.value.reason, raised.value.exit_code) == (FillRefusal.STORAGE_FULL, EXIT_RETRYABLE)
    assert f"needs {big.size + SPARE_BYTES} bytes" in str(raised.value)
    assert f"{SMALL_BYTES} free" in str(raised.value)


def test_a_volume_that_fills_up_on_the_way_is_told_and_emptied(small: Path, order: FillOrder) -> None:
    with pytest.raises(FillError, match="StorageFull"):
        fill_volume(order, small, brings({"weights.bin": b"\1" * (21 * 2**20)}), quiet)
    assert visible(small) == []


def test_another_fault_of_the_volume_is_no_lack_of_room(volume: Path, order: FillOrder) -> None:
    def broken(_part: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(FillError, match="Input/output error") as raised:
        fill_volume(order, volume, broken, quiet)
    assert (raised.value.reason, raised.value.exit_code) == (FillRefusal.STORAGE_FAILED, EXIT_RETRYABLE)
