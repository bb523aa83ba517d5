"""Where the source of a test waits for real seconds, or gives something less than a second: read from its syntax tree."""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_LIMITS = frozenset({"timeout", "seconds", "deadline", "within", "grace_s"})
_LIMIT_ENDS = ("_seconds", "_timeout")
_HARMLESS = frozenset({"failure_retry_seconds", "retry_seconds", "shutdown_timeout", "verdict_seconds"})
"""How often something happens, and how long a server waits at its end: no test fails because they are over."""
_POSITIONAL_LIMITS = frozenset({"timeout", "wait_for", "join"})
"""Functions whose last argument is a limit."""
_CLOCKS = frozenset({"time.monotonic", "time.perf_counter", "time.time"})
_FIXTURE = "virtual_time"
_SIMULATED = frozenset({"SimulationLoop", "ProcessLoop", "process_loop", "run_simulation"})
_WORDS = re.compile(r"sleep\(|timeout|wait_for|seconds=|join\(|deadline=|within=|grace_s=|assert .*time\.")
"""A module without any of them has nothing to find: most need not be parsed."""


@dataclass(frozen=True, slots=True)
class RealSecond:
    """A place that depends on how fast the machine is."""

    path: Path
    line: int
    function: str
    """Outermost function or class; empty at the module's level."""
    what: str

    @property
    def where(self) -> str:
        """File, and function or class in it."""
        return f"{self.path} {self.function}"

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


def find_real_seconds(path: Path, source: str) -> Iterator[RealSecond]:
    """Yield the sleeps, the limits below a second and the asserted elapsed times of a module."""
    if not _WORDS.search(source):
        return
    tree = ast.parse(source)
    constants = _read_constants(tree)
    for top in tree.body:
        name = top.name if isinstance(top, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else ""
        nodes = list(ast.walk(top))
        if _is_virtual(nodes):
            continue
        for node in nodes:
            for what in _describe(node, constants):
                yield RealSecond(path, getattr(node, "lineno", top.lineno), name, what)


def _read_constants(tree: ast.Module) -> dict[str, float]:
    """Return the module's names of numbers."""
    constants: dict[str, float] = {}
    for node in tree.body:
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            names, values = [target], [node.value]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                names, values = target.elts, node.value.elts
            for name, value in zip(names, values, strict=False):
                if isinstance(name, ast.Name) and (number := _evaluate(value, constants)) is not None:
                    constants[name.id] = number
    return constants


def _evaluate(node: ast.expr, constants: dict[str, float]) -> float | None:
    """Return the number of an expression; None where it has none that can be read here."""
    if isinstance(node, ast.Constant):
        return float(node.value) if isinstance(node.value, int | float) else None
    if isinstance(node, ast.Name):
        return constants.get(node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
        left, right = _evaluate(node.left, constants), _evaluate(node.right, constants)
        if left is None or not right:
            return None
        return left * right if isinstance(node.op, ast.Mult) else left / right
    return None


def _is_virtual(nodes: Iterable[ast.AST]) -> bool:
    """Return whether a function takes the fixture, enters virtual time itself, or runs in a simulation's loop."""
    return any(
        (isinstance(node, ast.arg) and node.arg == _FIXTURE)
        or (isinstance(node, ast.Constant) and node.value == _FIXTURE)
        or (isinstance(node, ast.withitem) and _read_call(node.context_expr) == _FIXTURE)
        or (isinstance(node, ast.Name) and node.id in _SIMULATED)
        for node in nodes
    )


def _read_call(node: ast.AST) -> str:
    """Return the last name of what is called; empty where nothing is."""
    if not isinstance(node, ast.Call):
        return ""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _describe(node: ast.AST, constants: dict[str, float]) -> Iterator[str]:
    if isinstance(node, ast.Assert) and any(_is_clock(part) for part in ast.walk(node.test)):
        yield "asserts how long something took"
    function = _read_call(node)
    if not function:
        return
    assert isinstance(node, ast.Call)
    if node.args and function in _POSITIONAL_LIMITS | {"sleep"}:
        last = _evaluate(node.args[-1], constants)
        if function == "sleep" and last:
            yield f"sleeps for {last:g} s"
        elif last is not None and 0 < last < 1:
            yield f"{function}() has {last:g} s"
    for keyword in node.keywords:
        name = keyword.arg or ""
        is_limit = name in _LIMITS or (name.endswith(_LIMIT_ENDS) and name not in _HARMLESS)
        number = _evaluate(keyword.value, constants) if is_limit else None
        if number is not None and 0 < number < 1:
            yield f"{name} is {number:g} s"


def _is_clock(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and ast.unparse(node.func) in _CLOCKS
