"""`solve`: one equation with one unknown, or a system. A list of solutions is complete, or it is an error."""

import math
from dataclasses import dataclass
from typing import Any

import mpmath
import sympy

from r1plus_calculator.evaluation.building import build, create_symbol
from r1plus_calculator.evaluation.reading import read
from r1plus_contract.calculator_grammar.errors import CalculatorError, NoResultError, UnknownNameError
from r1plus_contract.calculator_grammar.functions import COMMANDS, CONSTANTS, list_variables
from r1plus_contract.calculator_grammar.limits import MOST_UNKNOWNS
from r1plus_contract.calculator_grammar.tree import Equation, FunctionCall, Items, Name, Node

Expression = Any
REAL_ONLY = "real solutions only"


@dataclass(frozen=True, slots=True)
class Solutions:
    """What `solve` found."""

    unknowns: tuple[str, ...]
    equations: tuple[tuple[Node, Node], ...]
    """Left and right sides."""
    values: tuple[tuple[Node, ...], ...]
    """One tuple per solution, in the order of the unknowns; empty where only numbers were found."""
    roots: tuple[Any, ...] = ()
    """mpmath's numbers, where no exact form was found."""
    is_counted: bool = False
    """Whether there are as many as there can be: roots of a polynomial, or the one of a linear system."""
    has_real_domain: bool = False
    """Whether complex solutions were left out."""
    notes: tuple[str, ...] = ()

    def build_tree(self) -> Items:
        """Return the result as the grammar has it: [x = 1, x = 2], of systems [[x = 1, y = 2]]."""
        rows = [
            tuple(Equation(Name(name), value) for name, value in zip(self.unknowns, row, strict=True))
            for row in self.values
        ]
        if len(self.equations) == 1 and len(self.unknowns) == 1:
            return Items(tuple(row[0] for row in rows))
        return Items(tuple(Items(row) for row in rows))


def solve(call: FunctionCall) -> Solutions:
    """Solve.

    Raises:
        CalculatorError: NoResultError where the solutions cannot be listed.
    """
    entries = call.arguments[0].items if isinstance(call.arguments[0], Items) else (call.arguments[0],)
    sides = tuple((one.left, one.right) if isinstance(one, Equation) else (one, ZERO) for one in entries)
    unknowns = _read_unknowns(call, entries)
    if not sides:
        raise UnknownNameError(f"solve has no equation; write {COMMANDS['solve'].usage}")
    symbols = [create_symbol(name) for name in unknowns]
    differences = [build(left) - build(right) for left, right in sides]
    if len(differences) == 1 and len(symbols) == 1:
        return _solve_one(unknowns, sides, differences[0], symbols[0])
    return _solve_system(unknowns, sides, differences, symbols)


ZERO: Node = read(sympy.Integer(0))


def _read_unknowns(call: FunctionCall, entries: tuple[Node, ...]) -> tuple[str, ...]:
    if len(call.arguments) == 2:
        second = call.arguments[1]
        nodes = second.items if isinstance(second, Items) else (second,)
        names = tuple(node.name for node in nodes if isinstance(node, Name) and node.name not in CONSTANTS)
        if len(names) != len(nodes) or len(set(names)) != len(names) or not names:
            raise UnknownNameError(f"solve: the second argument names the unknowns; write {COMMANDS['solve'].usage}")
    else:
        names = tuple(sorted({name for entry in entries for name in list_variables(entry)}))
        if len(names) != max(1, len(entries)):
            shown = ", ".join(names) or "none"
            raise UnknownNameError(f"solve: name the unknowns as second argument; variables are {shown}")
    if len(names) > MOST_UNKNOWNS or len(entries) > MOST_UNKNOWNS:
        raise NoResultError(f"solve takes at most {MOST_UNKNOWNS} equations and unknowns")
    return names


def _solve_one(
    unknowns: tuple[str, ...], sides: tuple[tuple[Node, Node], ...], difference: Expression, symbol: Expression
) -> Solutions:
    if not difference.has(symbol):
        if sympy.simplify(difference) == 0:
            raise NoResultError(f"the equation holds for every {symbol.name}, as far as both sides have a value")
        if not difference.is_number:
            raise NoResultError(f"the equation does not depend on {symbol.name}; name another unknown")
        return Solutions(unknowns, sides, (), is_counted=True)
    expanded = sympy.expand(difference)
    if expanded.is_polynomial(symbol):
        return _solve_polynomial(unknowns, sides, sympy.Poly(expanded, symbol))
    found = sympy.solveset(difference, symbol, sympy.S.Reals)
    if found is sympy.S.EmptySet:
        return Solutions(unknowns, sides, (), has_real_domain=True, notes=(REAL_ONLY,))
    if not isinstance(found, sympy.FiniteSet):
        raise NoResultError(
            "the solutions are infinitely many, or depend on conditions, or have no closed form; they cannot be listed"
        )
    values = tuple((read(value),) for value in sorted(found, key=sympy.default_sort_key))
    return Solutions(unknowns, sides, values, has_real_domain=True, notes=(REAL_ONLY,))


def _solve_polynomial(
    unknowns: tuple[str, ...], sides: tuple[tuple[Node, Node], ...], polynomial: Expression
) -> Solutions:
    if polynomial.degree() <= 0:
        if polynomial.is_zero:
            raise NoResultError(f"the equation holds for every {unknowns[0]}")
        return Solutions(unknowns, sides, (), is_counted=True)
    notes = _describe_parameters(polynomial)
    roots = sympy.roots(polynomial)
    is_complete = sum(roots.values()) == polynomial.degree()
    try:
        values = tuple((read(root),) for root in sorted(roots, key=_rank_root)) if is_complete else ()
    except CalculatorError:
        values = ()
    if values:
        return Solutions(unknowns, sides, values, is_counted=True, notes=notes)
    if polynomial.free_symbols_in_domain:
        raise NoResultError("the solutions have no closed form that was found; give the other variables numbers")
    found = tuple(root for root in polynomial.nroots(n=60, maxsteps=200))
    return Solutions(unknowns, sides, (), _to_numbers(found), is_counted=True, notes=("no closed form was found",))


def _to_numbers(roots: tuple[Expression, ...]) -> tuple[Any, ...]:
    with mpmath.workdps(60):
        return tuple(mpmath.mpc(*[_to_float(part) for part in root.as_real_imag()]) for root in roots)


def _to_float(value: Expression) -> Any:
    return mpmath.mpf(value._mpf_) if value.is_Float else mpmath.mpf(int(value))


def _rank_root(root: Expression) -> tuple[Any, ...]:
    """Return a key that puts real roots first, small ones before large ones."""
    if root.free_symbols:
        return (2, 0.0, 0.0, sympy.default_sort_key(root))
    value = complex(root.evalf(15))
    is_complex = abs(value.imag) > 1e-9 * (1 + abs(value))
    return (int(is_complex), value.real, value.imag, sympy.default_sort_key(root))


def _describe_parameters(polynomial: Expression) -> tuple[str, ...]:
    if polynomial.free_symbols_in_domain and not polynomial.LC().is_number:
        return ("the leading coefficient is taken not to be 0",)
    return ()


def _solve_system(
    unknowns: tuple[str, ...],
    sides: tuple[tuple[Node, Node], ...],
    differences: list[Expression],
    symbols: list[Expression],
) -> Solutions:
    infinitely = NoResultError("the system has infinitely many solutions; add an equation, or take an unknown away")
    if not all(sympy.expand(one).is_polynomial(*symbols) for one in differences):
        raise NoResultError("a system is solved only if its equations are polynomials in the unknowns")
    polynomials = [sympy.Poly(sympy.expand(one), *symbols) for one in differences]
    if all(one.total_degree() <= 1 for one in polynomials):
        found = sympy.linsolve([one.as_expr() for one in polynomials], *symbols)
        rows = [] if found is sympy.S.EmptySet else list(found)
        if any(value.has(*symbols) for row in rows for value in row):
            raise infinitely
        notes = _describe_parameters(polynomials[0])
        values = tuple(tuple(read(value) for value in row) for row in rows)
        return Solutions(unknowns, sides, values, is_counted=True, notes=notes)
    try:
        rows = sympy.solve_poly_system(polynomials, *symbols)
    except NotImplementedError as error:
        raise infinitely from error
    values = tuple(tuple(read(value) for value in row) for row in rows or ())
    # By Bezout there are at most so many, where they are finitely many.
    most = math.prod(one.total_degree() for one in polynomials)
    return Solutions(unknowns, sides, values, is_counted=len(set(rows or ())) == most)
