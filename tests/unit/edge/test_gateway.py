"""Half of the key of the gateway's data: made once, whenever the machine loses its power."""

from pathlib import Path

from r1plus_edge.data_folder import open_data_folder
from r1plus_edge.gateway import make_half


def test_a_half_whose_writing_was_cut_off_is_made_again_and_one_that_is_there_stays(tmp_path: Path) -> None:
    folder = open_data_folder(tmp_path / "data")
    (folder.secret / ".half-1.part").write_text("")
    make_half(folder)
    half = (folder.secret / "half-1").read_text()
    assert len(half) == 64
    make_half(folder)
    assert (folder.secret / "half-1").read_text() == half
