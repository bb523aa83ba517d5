"""The process as the image starts it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from r1plus_contract.calculator import (
    ENV_INTERPRETER,
    ENV_SOCKET,
    MOST_REPLY_BYTES,
    CalculatorReply,
    CodeRequest,
    CodeRun,
)
from r1plus_contract.frames import ask
from r1plus_contract.jsonable import dumps, loads
from support.calculator.running import INTERPRETER
from support.waiting import wait_until


@pytest.mark.unit_slow
def test_an_interpreter_that_is_not_there_stops_the_start_and_is_named(tmp_path: Path) -> None:
    environment = {**os.environ, ENV_SOCKET: str(tmp_path / "calculator.sock"), ENV_INTERPRETER: "/none/monty"}
    command = [sys.executable, "-m", "r1plus_calculator"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 2
    assert "R1PLUS_CALCULATOR_INTERPRETER: '/none/monty' is no program" in run.stderr


@pytest.mark.unit_slow
def test_the_process_serves_answers_for_its_health_and_ends_with_sigterm(tmp_path: Path) -> None:
    path = tmp_path / "calculator.sock"
    environment = {**os.environ, ENV_SOCKET: str(path), ENV_INTERPRETER: str(INTERPRETER)}
    command = [sys.executable, "-m", "r1plus_calculator"]

    def check() -> int:
        return subprocess.run([*command, "health"], env=environment, capture_output=True).returncode

    assert check() == 1
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, env=environment, stderr=log) as process:
        try:
            wait_until(path.exists, "it listens", 300)
            wait_until(lambda: check() == 0, "it is healthy")
            reply = ask(path, dumps(CodeRequest("6 * 7")).encode(), MOST_REPLY_BYTES, 300)
            assert loads(CalculatorReply, reply).run == CodeRun("", "42", None)
            workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0
        finally:
            process.kill()
    assert not path.exists()
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    assert "Calculator stopped" in (tmp_path / "log").read_text()
