"""How fast and how right the calculator is, through its socket: `make bench NAME=math`. A JSON line last.

Tasks are texts with an expression in them, built backwards from their answers without SymPy. Figures are of the half
that was written before the rules (`reported`); the other half (`practice`) is shown for comparison.
With `--prose`, `math_mode` answers questions in prose through a gateway before the real tritonserver (`math_mode`), and
with `--public` questions that others wrote (`public`).
"""

import argparse
import asyncio
import itertools
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import mpmath

from bench.math import practice, reported
from bench.math.math_mode import run_math_mode
from bench.math.prose import PRACTICE, REPORTED, Question, generate_questions
from bench.math.public import choose_problems, choose_sums
from bench.math.tasks import POINTS, Task, generate
from bench.running import Progress, exit_at_sigterm
from r1plus_assistant.calculation.expressions import find_expressions
from r1plus_calculator.evaluation.checks import read_rows
from r1plus_calculator.evaluation.numbers import UncertainError, convert, differentiate, evaluate
from r1plus_contract.calculator import MOST_REQUEST_BYTES
from r1plus_contract.calculator_grammar.errors import CalculatorError
from r1plus_contract.calculator_grammar.parser import parse_result
from r1plus_contract.calculator_grammar.tree import Items, Node
from r1plus_sandbox.confinement import WorkerLimits
from support.calculator.hostile import generate_hostile
from support.calculator.running import CalculatorClient, preload_once, running_calculator

ARITHMETIC: Final = (
    "12.5*(3 + 4)",
    "2^64 - 1",
    "sqrt(2) + 1/3",
    "15% * 80",
    "sin(degrees(40))",
    "20!/(18!*2)",
    "ln(10)",
)
CALCULUS: Final = (
    "diff(x^3*sin(2*x), x)",
    "integrate(x^2*exp(x), x)",
    "integrate(1/(1 + x^2), x, 0, 1)",
    "limit((1 - cos(x))/x^2, x, 0)",
    "series(exp(x)*cos(x), x, 0, 6)",
    "solve(x^3 - 6*x^2 + 11*x - 6 = 0, x)",
    "solve([x^2 + y = 7, x - y = -1], [x, y])",
    "simplify((x^3 - 1)/(x - 1))",
    "integrate(x*ln(x), x, 1, 2)",
    "sum(k^2, k, 1, n)",
)
TOLERANCE: Final = 1e-9
_HALVES: Final = (
    ("practice", practice.TEMPLATES),
    ("reported", reported.TEMPLATES),
    ("fresh", reported.FRESH),
)


@dataclass(slots=True)
class Score:
    """Of one half of the tasks."""

    tasks: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)
    wrong_verified: int = 0
    misses: list[str] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        """Return its figures."""
        total = sum(self.tasks.values())
        shares = {f"right_{kind}": round(self.right[kind] / count, 4) for kind, count in sorted(self.tasks.items())}
        return {
            "tasks": total,
            "right": round(sum(self.right.values()) / total, 4),
            "wrong_verified": self.wrong_verified,
            **shares,
        }


def is_right(task: Task, exact: str | None) -> bool:
    """Return whether a result is the task's answer."""
    if exact is None:
        return False
    try:
        return _compare(task, parse_result(exact))
    except (CalculatorError, UncertainError):
        return False


def _compare(task: Task, result: Node) -> bool:
    if task.solutions is not None:
        return isinstance(result, Items) and _read_solutions(task, result) == _list_solutions(task)
    if task.number is not None:
        return bool(evaluate(result, {}) == task.number)
    for point in POINTS:
        if task.function is not None:
            got, expected = evaluate(result, {"x": point}), task.function(point)
        else:
            assert task.slope is not None
            got, expected = differentiate(result, "x", {"x": point}), task.slope(point)
        if abs(complex(convert(got)) - expected) > TOLERANCE * (1 + abs(expected)):
            return False
    return True


def _read_solutions(task: Task, result: Items) -> set[tuple[Fraction, ...]]:
    return {tuple(evaluate(value, {}) for value in row) for row in read_rows(result)}


def _list_solutions(task: Task) -> set[tuple[Fraction, ...]]:
    assert task.solutions is not None
    return set(zip(*[values for _, values in sorted(task.solutions.items())], strict=True))


async def score(client: CalculatorClient, tasks: Iterable[Task], progress: Progress) -> Score:
    """Find, calculate and compare."""
    result = Score()
    for task in tasks:
        result.tasks[task.kind] += 1
        found = find_expressions(task.text)
        outcomes, timed_out = [], ""
        for expression in found:
            try:
                calculation = (await client.calculate(expression.expression))["calculation"] or {}
            except TimeoutError:
                calculation, timed_out = {}, expression.expression
            is_good = task.has_expression and is_right(task, calculation.get("exact"))
            result.wrong_verified += bool(calculation.get("verified")) and not is_good
            outcomes.append(is_good)
        progress.add(timed_out)
        if outcomes == ([True] if task.has_expression else []):
            result.right[task.kind] += 1
        else:
            result.misses.append(f"{task.text!r}: {[expression.expression for expression in found]}")
    return result


async def time_answers(
    client: CalculatorClient, expressions: Iterable[str], progress: Progress, at_once: int = 1
) -> tuple[list[float], Counter[str]]:
    """Return seconds, and how often which end was reached. One without an answer has the seconds of the wait."""
    seconds: list[float] = []
    ends = Counter[str]()
    waiting = iter(expressions)

    async def ask_in_turn() -> None:
        for expression in waiting:
            payload = json.dumps({"expression": expression or " "}).encode()
            if len(payload) > MOST_REQUEST_BYTES:
                ends["not_sent"] += 1
                progress.add()
                continue
            started = time.perf_counter()
            try:
                reply = await client.ask(payload)
            except TimeoutError:
                end = "timed_out"
            else:
                end = reply["failure"]["code"] if reply["failure"] else "answer"
            seconds.append(time.perf_counter() - started)
            ends[end] += 1
            if end == "failed":  # a defect, or a worker that was ended
                progress.say(f"{progress.name}: failed at {expression!r:.400}")
            progress.add(expression if end == "timed_out" else "")

    await asyncio.gather(*[ask_in_turn() for _ in range(at_once)])
    return seconds, ends


def quantile(seconds: list[float], share: float) -> float:
    """Return a quantile in milliseconds."""
    ranked = sorted(seconds)
    return round(ranked[min(len(ranked) - 1, int(share * len(ranked)))] * 1000, 1)


async def run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure; return the figures."""
    preload_once()
    figures: dict[str, Any] = {"seed": options.seed}
    async with running_calculator(folder, size=4, limits=WorkerLimits()) as (server, client):
        for name, expressions in (("arithmetic", ARITHMETIC * 30), ("calculus", CALCULUS * 10)):
            seconds, ends = await time_answers(client, expressions, Progress(name, len(expressions)))
            figures |= {f"{name}_p50_ms": quantile(seconds, 0.5), f"{name}_p99_ms": quantile(seconds, 0.99)}
            figures[f"{name}_answered"] = round(ends["answer"] / len(seconds), 4)
        for name, templates in _HALVES:
            progress = Progress(name, options.tasks)
            result = await score(client, generate(templates, options.tasks, options.seed), progress)
            figures |= {f"{name}_{key}": value for key, value in result.describe().items()}
            figures[f"{name}_timed_out"] = len(progress.timed_out)
            if options.misses:
                print(*result.misses, sep="\n")
        if options.hostile:
            figures |= await measure_hostile(client, options) | {"is_ready_after": server.pool.is_ready}
    return figures


async def measure_hostile(client: CalculatorClient, options: argparse.Namespace) -> dict[str, Any]:
    """Ask a piece of the seed's expressions; return its figures, and which piece it was."""
    start, count = options.start, options.hostile
    progress = Progress("hostile", count)
    expressions = itertools.islice(generate_hostile(start + count, options.seed), start, None)
    seconds, ends = await time_answers(client, expressions, progress, options.at_once)
    return {
        "hostile_start": start,
        "hostile": count,
        "hostile_p50_ms": quantile(seconds, 0.5),
        "hostile_p99_ms": quantile(seconds, 0.99),
        "hostile_max_ms": quantile(seconds, 1.0),
        "hostile_ends": dict(ends.most_common()),
        "hostile_timed_out": progress.timed_out,
        "hostile_without_end": len(progress.timed_out),
    }


def choose_halves(options: argparse.Namespace) -> dict[str, list[Question]]:
    """Return the questions in prose that are asked, by the name of their half."""
    prose, public, seed = options.prose, options.public, options.seed
    halves = {"practice": PRACTICE, "reported": REPORTED} if not options.routes_only else {"reported": REPORTED}
    own = {name: generate_questions(makers, prose, seed) for name, makers in halves.items() if prose}
    return own | ({"sums": choose_sums(public, seed), "problems": choose_problems(public, seed)} if public else {})


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.math", description=__doc__)
    parser.add_argument("--tasks", type=int, default=528, help="of each half")
    parser.add_argument("--hostile", type=int, default=300, help="hostile expressions; 0: none")
    parser.add_argument("--start", type=int, default=0, help="how many hostile ones of the seed come before: a piece")
    parser.add_argument("--at-once", type=int, default=1, help="hostile expressions that run at a time")
    parser.add_argument("--seed", type=int, default=19)
    parser.add_argument("--misses", action="store_true", help="show the tasks that went wrong")
    parser.add_argument("--prose", type=int, default=0, help="questions in prose of each half; 0: without Triton")
    parser.add_argument("--public", type=int, default=0, help="public questions of either kind; 0: without them")
    parser.add_argument(
        "--routes-only", action="store_true", help="of the questions way and result of half `reported`, without prose"
    )
    parser.add_argument("--engine", default="smollm2-lite-q8-0", help="a shipped one, as of r1plus engine make")
    options = parser.parse_args()
    if options.start < 0:
        parser.error(
            f"argument --start: {options.start} is negative; it is how many of the seed's come before the piece"
        )
    exit_at_sigterm()
    folder = Path(tempfile.mkdtemp(prefix="r1plus-math-"))
    try:
        with mpmath.workdps(30):
            figures = asyncio.run(run(folder, options))
        if halves := choose_halves(options):
            has_prose = not options.routes_only
            shows_misses = options.misses and not options.public
            prose = run_math_mode(folder, options.engine, halves, shows_misses=shows_misses, has_prose=has_prose)
            figures |= {f"prose_{name}": value for name, value in asyncio.run(prose).items()}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name, value in figures.items():
        print(f"{name:28} {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
