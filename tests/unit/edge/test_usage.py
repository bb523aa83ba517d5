"""How to call what serves: with the key for a person, and with its file where others read along."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from r1plus_edge.data_folder import DataFolder
from r1plus_edge.report import ServePhase, ServeStatus
from r1plus_edge.usage import describe_usage, is_journal

STATUS = ServeStatus(ServePhase.SERVING, deployment="edge", url="http://127.0.0.1:8400")


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    folder = DataFolder(tmp_path / "it's data")
    folder.root.mkdir()
    folder.key.write_text("r1p_secret\n")
    return folder


def test_a_person_gets_the_key_in_each_line(folder: DataFolder) -> None:
    assert describe_usage(STATUS, folder).count("r1p_secret") == 3


def test_where_others_read_along_the_lines_read_the_key_from_its_file(folder: DataFolder, tmp_path: Path) -> None:
    text = describe_usage(STATUS, folder, shows_key=False)
    assert "r1p_secret" not in text
    assert f"key      in {folder.key}\n" in text
    curl = text[text.index("curl ") : text.index("  from openai")].replace("curl ", "printf '%s\\n' ", 1)
    assert "Authorization: Bearer r1p_secret\n" in subprocess.check_output(["sh", "-c", curl], text=True)
    argument = text[text.index("api_key=") + len("api_key=") : text.index(")\n  answer")]
    assert subprocess.check_output([sys.executable, "-c", f"print({argument})"], text=True) == "r1p_secret\n"


def test_the_journal_is_known_by_its_own_stream(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out:
        status = os.fstat(out.fileno())
        assert is_journal(out.fileno(), {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        for other in ({}, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"}, {"JOURNAL_STREAM": ""}):
            assert not is_journal(out.fileno(), other)
