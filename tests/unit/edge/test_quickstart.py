"""`make quickstart` in a clone whose environment does not run any more. With a sound one, see tests/engine."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "edge" / "quickstart.py"


def test_a_command_whose_interpreter_is_gone_counts_as_one_that_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "r1plus"
    broken.write_text("#!/nonesuch/bin/python\n")
    broken.chmod(0o755)
    call = runpy.run_path(str(SCRIPT))["call"]
    call.__globals__["COMMAND"] = broken
    assert call("serve", "status", is_silent=True) == 126
    assert call("serve", "stop") == 126
    assert "`make quickstart` repairs it" in capsys.readouterr().err
