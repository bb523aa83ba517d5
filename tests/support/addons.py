"""Programs that run where no add-on is installed."""

import subprocess
import sys

from support.paths import ROOT, TESTS

ADDONS = sorted(path.name for path in ROOT.glob("addons/*/r1plus_*") if any(path.glob("*.py")))
BLOCKED = f"""
import sys

sys.path.insert(0, {str(TESTS)!r})

class Absence:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ADDONS}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Absence())
"""


def run_without_addons(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this code where no add-on can be imported, and what tests share can."""
    command = [sys.executable, "-c", BLOCKED + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
