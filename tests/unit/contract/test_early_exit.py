"""A program that starts ends at SIGTERM: as a container's first process it would not get the signal otherwise."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from r1plus_contract.early_exit import hears_sigterm, main
from support.tables import for_each

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
RUNNING = """
import atexit, runpy, signal, sys
sys.argv = {options}
atexit.register(lambda: print(callable(signal.getsignal(signal.SIGTERM)), flush=True))
runpy.run_module("{module}", run_name="__main__")
"""
LOADING = """
import os, runpy, signal, sys

class Look:
    def find_spec(self, name, path=None, target=None):
        if name == "{heavy}":
            print(callable(signal.getsignal(signal.SIGTERM)), flush=True)
            os._exit(0)

sys.meta_path.insert(0, Look())
runpy.run_module("{module}", run_name="__main__")
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


@for_each("module, heavy", {
    "the monitor": ("r1plus_monitoring", "r1plus_monitoring.process.supervisor"),
    "the operator": ("r1plus_operator", "r1plus_operator.main"),
})  # fmt: skip
def test_what_loads_for_seconds_begins_with_it(module: str, heavy: str) -> None:
    code = LOADING.format(module=module, heavy=heavy)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "True\n", (done.stdout, done.stderr)


@for_each("module, options", {
    "the check of an engine": ("r1plus_model_repo.delivery", ["--revision-dir", "R", "--delivery-dir", "D"]),
    "the fetching of an engine": ("r1plus_model_repo.engine_fetch", ["--order-dir", "O", "--volume", "V"]),
    "the registry": ("r1plus_registry", ["current"]),
})  # fmt: skip
def test_what_runs_as_the_first_process_of_a_container_has_a_handler(module: str, options: list[str]) -> None:
    code = RUNNING.format(module=module, options=[module, *options])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.endswith("True\n"), (done.stdout, done.stderr)


LOADING_STATUS = "Name:\tpython3\nSigIgn:\t0000000001001000\nSigCgt:\t0000000000000002\n"
READY_STATUS = "Name:\tpython3\nSigIgn:\t0000000001001000\nSigCgt:\t0000000000004002\n"


@for_each("text, hears", {
    "one that has a handler": (READY_STATUS, True),
    "one that loads": (LOADING_STATUS, False),
    "one that ignores it": ("SigIgn:\t0000000000004000\nSigCgt:\t0000000000000000\n", False),
})  # fmt: skip
def test_the_hook_knows_who_can_handle_sigterm(tmp_path: Path, text: str, hears: bool) -> None:
    status = tmp_path / "status"
    status.write_text(text)
    assert hears_sigterm(status) == hears


HOOK = """
import sys
from pathlib import Path
from r1plus_contract.early_exit import main

class Status(type(Path())):
    def read_text(self, *options):
        print("looks", flush=True)
        return super().read_text(*options)

sys.exit(main(["0"], Status(sys.argv[1])))
"""


def test_the_hook_waits_until_the_first_process_can_handle_it(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text(LOADING_STATUS)
    with subprocess.Popen([sys.executable, "-c", HOOK, str(status)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "looks\n"
        assert process.poll() is None
        status.write_text(READY_STATUS)
        assert process.wait(60) == 0


def test_the_hook_does_not_wait_for_a_process_that_has_ended(tmp_path: Path) -> None:
    assert main(["0"], tmp_path / "none") == 0
