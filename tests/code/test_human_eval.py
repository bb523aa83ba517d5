"""HumanEval's own solutions, with their tests, in the calculator: how much of ordinary Python its interpreter runs."""

import json
import time
from pathlib import Path
from typing import Final

import pytest

from r1plus_sandbox.programs import ProgramLimits
from support.calculator.running import build_code_runner, running_calculator
from support.human_eval.problems import load_problems

pytestmark = [pytest.mark.code, pytest.mark.timeout(1800)]
SLOW_MACHINE: Final = ProgramLimits(cpu_seconds=120, wall_seconds=120.0)
LACKING: Final = {
    "HumanEval/38": "ModuleNotFoundError: No module named 'string'",
    "HumanEval/50": "ModuleNotFoundError: No module named 'string'",
}
"""What the interpreter does not run, and why."""


async def test_the_solutions_of_human_eval_pass_their_tests(tmp_path: Path) -> None:
    problems = load_problems()
    assert len(problems) == 164
    errors, seconds = {}, {}
    code_runner = build_code_runner(SLOW_MACHINE)
    async with running_calculator(tmp_path, size=1, evaluate=lambda _: b"{}", code_runner=code_runner) as (_, client):
        for problem in problems:
            started = time.monotonic()
            reply = await client.run(problem.program)
            seconds[problem.name] = time.monotonic() - started
            assert reply["failure"] is None, (problem.name, reply)
            if reply["run"]["error"] is not None:
                errors[problem.name] = reply["run"]["error"].splitlines()[-1]
    longest = max(seconds, key=lambda name: seconds[name])
    figures = {
        "problems": len(problems),
        "passed": len(problems) - len(errors),
        "within_2_s": sum(taken <= 2 for name, taken in seconds.items() if name not in errors),
        "longest": longest,
        "longest_seconds": round(seconds[longest], 2),
        "seconds": round(sum(seconds.values()), 1),
    }
    print(f"\n{json.dumps(figures)}")  # pytest has begun the line
    assert errors == LACKING


async def test_a_wrong_solution_does_not_pass(tmp_path: Path) -> None:
    problem = load_problems()[0]
    wrong = problem.program.replace("return True", "return False")
    assert wrong != problem.program
    async with running_calculator(
        tmp_path, size=1, evaluate=lambda _: b"{}", code_runner=build_code_runner(SLOW_MACHINE)
    ) as (_, client):
        assert (await client.run(wrong))["run"]["error"].splitlines()[-1].startswith("AssertionError")
