"""`r1plus bundle` costs the other commands no start-up time."""

import subprocess
import sys


def test_the_command_starts_without_the_http_client_of_a_push() -> None:
    code = "import sys, r1plus_cli.main; sys.exit('httpx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
