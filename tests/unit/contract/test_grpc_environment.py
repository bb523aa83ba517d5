"""What gateway and monitor tell gRPC, and when."""

import os
import subprocess
import sys

from r1plus_contract.engine.grpc_environment import ENV_EXPERIMENTS, WITHOUT_EVENT_ENGINE, configure_grpc

MAKE_CHANNEL = """
import asyncio, grpc
async def main():
    await grpc.aio.insecure_channel("127.0.0.1:1").close()
asyncio.run(main())
"""


def test_grpc_knows_the_setting_and_others_are_logged() -> None:
    environ = {name: value for name, value in os.environ.items() if name != ENV_EXPERIMENTS}
    configure_grpc(environ)
    assert make_channel(environ) == ""
    assert "Unknown experiment: no_such_one" in make_channel({**environ, ENV_EXPERIMENTS: "-no_such_one"})


def make_channel(environ: dict[str, str]) -> str:
    """Make a channel in a process of its own; return what it logs."""
    run = subprocess.run([sys.executable, "-c", MAKE_CHANNEL], env=environ, capture_output=True, text=True, check=True)
    return run.stderr


def test_grpc_is_not_imported_before_it_is_configured() -> None:
    script = "import sys, r1plus_gateway.__main__; sys.exit('grpc' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_value_that_is_set_stays() -> None:
    environ = {ENV_EXPERIMENTS: "tcp_frame_size_tuning"}
    configure_grpc(environ)
    assert environ == {ENV_EXPERIMENTS: "tcp_frame_size_tuning"}


STARTS_PROBERS = """
import os, runpy
from r1plus_monitoring.process import supervisor

supervisor.main = lambda: print(os.environ["GRPC_EXPERIMENTS"])
runpy.run_module("r1plus_monitoring", run_name="__main__")
"""


def test_the_monitor_gives_it_to_its_probers() -> None:
    environ = {name: value for name, value in os.environ.items() if name != ENV_EXPERIMENTS}
    command = [sys.executable, "-c", STARTS_PROBERS]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == WITHOUT_EVENT_ENGINE
