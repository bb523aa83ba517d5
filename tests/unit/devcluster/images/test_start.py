"""What Python runs at the start of our images: nothing of the folder that outlives a container, its home and work folder."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
CONTAINERFILES = ["gateway/Containerfile", "addons/history/Containerfile", "model_repo/Containerfile.triton",
                  "monitoring/Containerfile", "operator/Containerfile"]  # fmt: skip
PLANTED = "print('planted')\n"


@pytest.mark.parametrize("file", CONTAINERFILES)
def test_an_image_starts_no_code_of_its_tmp(file: str, tmp_path: Path) -> None:
    text = (ROOT / file).read_text()
    assert ("HOME=/tmp" in text, "\nWORKDIR /tmp\n" in text) == (True, True)
    variables = dict(re.findall(r"\b(PYTHON[A-Z]+)=(\S+)", text))
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = tmp_path / ".local" / "lib" / version / "site-packages"
    site.mkdir(parents=True)
    (site / "usercustomize.py").write_text(PLANTED)
    (tmp_path / "argparse.py").write_text(PLANTED)
    command = [sys._base_executable, "-m", "json.tool", "--help"]  # type: ignore[attr-defined]
    environment = {"HOME": str(tmp_path), **variables}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, "planted" in done.stdout) == (0, False), done.stderr
