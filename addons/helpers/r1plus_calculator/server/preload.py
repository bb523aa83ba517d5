"""What every worker shares by being forked: SymPy with all that it imports late, and its caches warm."""

import contextlib
import gc
import importlib
import logging
import pkgutil
import sys
import time
import warnings
from typing import Final

import sympy

from r1plus_calculator.evaluation.evaluator import calculate
from r1plus_contract.calculator import DEFAULT_DIGITS

log = logging.getLogger(__name__)
_SKIPPED: Final = frozenset(
    {
        *("tests", "benchmarks", "testing", "physics", "plotting", "parsing", "interactive", "vector", "stats"),
        *("diffgeom", "categories", "crypto", "codegen", "holonomic", "liealgebras", "unify", "sandbox", "conftest"),
        *("geometry", "tensor", "printing", "this", "galgebra", "release", "abc", "combinatorics", "algebras"),
        *("meijerint_doc", "hyperexpand_doc", "trace", "autowrap"),
    }
)
"""Parts of SymPy that no command reaches; what it imports of them itself is there."""
_EXPRESSIONS: Final = (
    "0.1 + 2*3",
    "sin(degrees(30)) + sqrt(8)",
    "diff(x^2*sin(x)*exp(x), x)",
    "integrate(x^2*exp(x)*sin(x), x)",
    "integrate(1/(x^2 + 3*x + 2), x)",
    "integrate(1/(1 + x^2), x, 0, 1)",
    "integrate(exp(-x^2), x, -inf, inf)",
    "integrate(sin(x)/x, x)",
    "limit(sin(x)/x, x, 0)",
    "limit((1 + 1/n)^n, n, inf)",
    "series(cos(x), x, 0, 5)",
    "sum(k^2, k, 1, n)",
    "sum(1/k^2, k, 1, inf)",
    "simplify(sin(x)^2 + cos(x)^2)",
    "factor(x^4 - 1)",
    "factor(360)",
    "expand((x + 1)^5)",
    "solve(x^2 - 5*x + 6 = 0, x)",
    "solve(x^3 - 3*x + 1 = 0, x)",
    "solve(x^5 - x - 1 = 0, x)",
    "solve(exp(x) = 2, x)",
    "solve(sqrt(x + 3) = x - 3, x)",
    "solve([x + y = 3, x - y = 1], [x, y])",
    "solve([x*y = 2, x + y = 3], [x, y])",
)
_PARSERS: Final = ("sympy.parsing.sympy_parser", "sympy.parsing.sympy_tokenize", "sympy.parsing.latex")


def preload() -> None:
    """Load and warm. Workers can import nothing, since they can open no file."""
    started = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parts that SymPy will remove
        for module in pkgutil.walk_packages(sympy.__path__, "sympy.", onerror=lambda _: None):
            if not _SKIPPED.intersection(module.name.split(".")):
                with contextlib.suppress(ImportError):
                    importlib.import_module(module.name)
    for text in _EXPRESSIONS:
        calculate(text, DEFAULT_DIGITS)
    forbid_parsers()
    gc.collect()
    gc.freeze()  # else a collection in a worker would copy every page
    log.info("SymPy %s loaded in %.1f s", sympy.__version__, time.monotonic() - started)


def forbid_parsers() -> None:
    """Let imports of SymPy's parsers of text fail: they end in `eval`, so text that reaches them must be an error."""
    for name in _PARSERS:
        sys.modules[name] = None  # type: ignore[assignment]
