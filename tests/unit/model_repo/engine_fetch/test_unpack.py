"""Out of a tar comes what belongs below `engine/`, or nothing that anybody would load."""

import io
import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_contract.engine.engine_fetch import FillRefusal
from r1plus_model_repo.engine_fetch.errors import FillError
from r1plus_model_repo.engine_fetch.unpack import MAX_FILES, unpack
from support.model_repo.engine_fetch.server import tar_of

pytestmark = pytest.mark.first_run_counts

FILES = {"engine/openvino_model.xml": b"<net/>", "engine/sub/weights.bin": random.Random(1).randbytes(3_000_000)}
SIZE = sum(map(len, FILES.values()))


def written(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:bz2", "w:xz"])
def test_the_files_come_out_as_they_went_in(tmp_path: Path, mode: str) -> None:
    unpack(io.BytesIO(tar_of(FILES, mode)), tmp_path, SIZE)
    assert written(tmp_path) == FILES


def test_the_signature_comes_beside_the_engine(tmp_path: Path) -> None:
    unpack(io.BytesIO(tar_of({"model.sig": b"{}", "engine/x": b"1"})), tmp_path, 3)
    assert written(tmp_path) == {"model.sig": b"{}", "engine/x": b"1"}


def test_one_byte_more_than_was_said_is_too_much(tmp_path: Path) -> None:
    with pytest.raises(FillError, match=f"more than the {SIZE - 1} bytes") as raised:
        unpack(io.BytesIO(tar_of(FILES)), tmp_path, SIZE - 1)
    assert raised.value.reason is FillRefusal.ENGINE_INVALID


ELSEWHERE = {
    "above": "../etc/passwd",
    "above, in the middle": "engine/../../x",
    "absolute": "/engine/x",
    "beside": "other/x",
    "at the top": "engine",
    "a name like it": "engine2/x",
    "of another system": "engine\\..\\x",
    "a line break": "engine/x\ny",
    "a separator": "engine/x\u2028y",
    "too long": "engine/" + "x/" * 300 + "y",
}


@pytest.mark.parametrize("name", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "part"
    folder.mkdir()
    with pytest.raises(FillError, match="must be below engine/"):
        unpack(io.BytesIO(tar_of({name: b"x"})), folder, 100)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@given(name=st.text(st.sampled_from("./engix\\ "), min_size=1, max_size=24))
def test_whatever_a_name_is_nothing_is_written_outside(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    root = tmp_path_factory.mktemp("tar")
    folder = root / "a" / "part"
    folder.mkdir(parents=True)
    try:
        unpack(io.BytesIO(tar_of({name: b"x"})), folder, 100)
    except FillError:
        assert [p for p in root.rglob("*") if p.is_file()] == []
    else:
        assert all(p.is_relative_to(folder / "engine") for p in root.rglob("*") if p.is_file())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_only_plain_files_are_taken(tmp_path: Path, kind: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("engine/x")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(FillError, match="plain files only"):
        unpack(io.BytesIO(buffer.getvalue()), tmp_path, 100)
    assert written(tmp_path) == {}


def test_a_file_that_is_in_it_twice_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for content in (b"one", b"two"):
            member = tarfile.TarInfo("engine/x")
            member.size = 3
            tar.addfile(member, io.BytesIO(content))
    with pytest.raises(FillError, match="twice"):
        unpack(io.BytesIO(buffer.getvalue()), tmp_path, 100)


def test_a_file_below_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FillError, match="twice"):
        unpack(io.BytesIO(tar_of({"engine/x": b"1", "engine/x/y": b"2"})), tmp_path, 100)


def make_tar_of_folders(count: int) -> io.BytesIO:
    """Return an archive of so many folders and a file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(count):
            member = tarfile.TarInfo(f"engine/{number}")
            member.type = tarfile.DIRTYPE
            tar.addfile(member)
        tar.addfile(tarfile.TarInfo("engine/file"))
    buffer.seek(0)
    return buffer


def test_more_files_and_folders_than_any_engine_has_are_refused(tmp_path: Path) -> None:
    unpack(make_tar_of_folders(MAX_FILES - 1), tmp_path / "a", 0)
    assert written(tmp_path / "a") == {"engine/file": b""}
    with pytest.raises(FillError, match=f"more than {MAX_FILES} files and folders"):
        unpack(make_tar_of_folders(MAX_FILES), tmp_path / "b", 0)


def test_a_header_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("engine/x")
        member.pax_headers = {"comment": "x" * 20_000}
        tar.addfile(member)
    with pytest.raises(FillError, match="a header of 20"):
        unpack(io.BytesIO(buffer.getvalue()), tmp_path, 10**9)


@pytest.mark.parametrize("mode", ["w:", "w:gz", "w:xz"])
def test_half_a_tar_is_none(tmp_path: Path, mode: str) -> None:
    whole = tar_of(FILES, mode)
    for place, length in enumerate(range(0, len(whole) // 2, max(1, len(whole) // 12))):
        folder = tmp_path / str(place)
        folder.mkdir()
        with pytest.raises(FillError, match="the archive"):
            unpack(io.BytesIO(whole[:length]), folder, SIZE)


def test_what_is_no_tar_at_all_is_told(tmp_path: Path) -> None:
    with pytest.raises(FillError, match="not a complete tar"):
        unpack(io.BytesIO(b"<html>Please log in</html>" * 100), tmp_path, SIZE)
