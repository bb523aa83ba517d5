"""Runs the contract of all backends on the real vLLM: contract_in_process.py, in vLLM's environment."""

import os
import subprocess
from pathlib import Path

import pytest

import r1plus_contract
import r1plus_model_repo

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]

MODULE = Path(__file__).with_name("contract_in_process.py")
TESTS = MODULE.parents[1]


def test_the_contract_of_all_backends(python: Path, checkpoint: Path, tmp_path: Path) -> None:
    rooms = [Path(package.__path__[0]).parent for package in (r1plus_contract, r1plus_model_repo)]
    environment = {
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(map(str, (*rooms, TESTS))),
        "R1PLUS_TEST_CHECKPOINT": str(checkpoint),
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    # Without the settings of pytest and the conftest of the project, which need more packages.
    options = [
        "-c",
        os.devnull,
        "--noconftest",
        "--rootdir",
        str(TESTS),
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        "-q",
    ]
    done = subprocess.run([python, "-m", "pytest", *options, MODULE], env=environment, check=False)
    assert done.returncode == 0, "pytest's output is above"
