"""A program that starts ends at SIGTERM: as a container's first process it would not get the signal otherwise."""

import signal
import subprocess
import sys

import pytest

WAITING = """
import signal, sys, time
from r1plus_contract.early_exit import end_at_sigterm
end_at_sigterm()
print("started", flush=True)
time.sleep(600)
"""
STARTING = """
import signal, sys
from {module}.__main__ import main
sys.argv[1:] = ["neither"]
assert main() == 2
print(signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN, None))
"""


def test_sigterm_ends_it() -> None:
    with subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM


@pytest.mark.parametrize("module", ["r1plus_calculator", "r1plus_documents", "r1plus_embedder"])
def test_helpers_of_the_gateway_begin_with_it(module: str) -> None:
    code = STARTING.format(module=module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.endswith("True\n"), (done.stdout, done.stderr)
