"""An expression's text to its result: read, bound, compute, print, read again, check."""

from typing import Final

import mpmath
from sympy.core.function import PoleError
from sympy.polys.polyerrors import BasePolynomialError

from r1plus_calculator.evaluation.building import build
from r1plus_calculator.evaluation.checks import confirm, confirm_roots, confirm_solutions, read_rows
from r1plus_calculator.evaluation.numbers import UncertainError, is_finite
from r1plus_calculator.evaluation.quadrature import integrate_numerically
from r1plus_calculator.evaluation.reading import read
from r1plus_calculator.evaluation.solving import Solutions, solve
from r1plus_calculator.evaluation.writing import write_number, write_value
from r1plus_contract.calculator import Calculation
from r1plus_contract.calculator_grammar.errors import LimitExceededError, NoResultError
from r1plus_contract.calculator_grammar.functions import list_variables
from r1plus_contract.calculator_grammar.limits import MOST_RESULT_CHARACTERS
from r1plus_contract.calculator_grammar.parser import parse, parse_result
from r1plus_contract.calculator_grammar.printer import print_tree
from r1plus_contract.calculator_grammar.sizes import check_sizes
from r1plus_contract.calculator_grammar.tree import FunctionCall, Node

NUMERIC_DIGITS: Final = 9
"""Of a result that quadrature alone gives."""


def calculate(text: str, digits: int) -> Calculation:
    """Return the result of an expression.

    Raises:
        CalculatorError: it has none; the message says why and what to do.
    """
    tree = parse(text)
    check_sizes(tree)
    try:
        return _calculate(tree, digits)
    except (NotImplementedError, BasePolynomialError, PoleError) as error:
        raise NoResultError("no method is known for this; write the expression in another way, or in parts") from error


def _calculate(tree: Node, digits: int) -> Calculation:
    if isinstance(tree, FunctionCall) and tree.function == "solve":
        return _calculate_solutions(tree, digits)
    try:
        exact = _print(read(build(tree)))
    except NoResultError:
        if (quadrature := _integrate(tree, digits)) is not None:
            return quadrature
        raise
    result = parse_result(exact)
    check = confirm(tree, result)
    numeric = write_value(result, digits) if not list_variables(result) else None
    return Calculation(print_tree(tree), exact, numeric, check.is_verified, check.text, _list_notes(tree))


def _list_notes(tree: Node) -> tuple[str, ...]:
    if not isinstance(tree, FunctionCall):
        return ()
    if tree.function == "integrate" and len(tree.arguments) == 2:
        return ("an antiderivative; others differ from it by a constant",)
    if tree.function == "series":
        return ("the terms below the order; the rest is left out",)
    return ()


def _print(result: Node) -> str:
    """Print a result, and see that it reads the same.

    Raises:
        LimitExceededError: it is too long.
    """
    try:
        text = print_tree(result)
    except ValueError as error:  # Python writes no integer of more than 4,300 digits.
        raise LimitExceededError("the result has a number of thousands of digits; ask for a part of it") from error
    if len(text) > MOST_RESULT_CHARACTERS:
        raise LimitExceededError(
            f"the result has {len(text)} characters, more than {MOST_RESULT_CHARACTERS}; ask for a part of it"
        )
    if print_tree(parse_result(text)) != text:
        raise NoResultError("the result has a form that the calculator does not write")
    return text


def _integrate(tree: Node, digits: int) -> Calculation | None:
    """Return a definite integral without a closed form as a number."""
    if not (isinstance(tree, FunctionCall) and tree.function == "integrate" and len(tree.arguments) == 4):
        return None
    try:
        value, is_sure = integrate_numerically(tree)
    except UncertainError:
        return None
    if not is_sure or not is_finite(value):
        return None
    with mpmath.workdps(30):
        numeric = write_number(value, min(digits, NUMERIC_DIGITS))
    return Calculation(
        print_tree(tree), None, numeric, False, "numeric quadrature alone", ("no closed form was found",)
    )


def _calculate_solutions(tree: FunctionCall, digits: int) -> Calculation:
    solutions = solve(tree)
    expression = print_tree(tree)
    if solutions.roots:
        check, roots = confirm_roots(solutions), _write_roots(solutions, digits)
        return Calculation(expression, None, roots, check.is_verified, check.text, solutions.notes)
    exact = _print(solutions.build_tree())
    rows = read_rows(parse_result(exact))
    check = confirm_solutions(solutions, rows)
    numeric = _write_rows(solutions, rows, digits)
    return Calculation(expression, exact, numeric, check.is_verified, check.text, solutions.notes)


def _write_roots(solutions: Solutions, digits: int) -> str:
    name = solutions.unknowns[0]
    with mpmath.workdps(60):
        ranked = sorted(solutions.roots, key=lambda root: (abs(root.imag) > 1e-30, float(root.real), float(root.imag)))
        return f"[{', '.join(f'{name} = {write_number(root, digits)}' for root in ranked)}]"


def _write_rows(solutions: Solutions, rows: list[tuple[Node, ...]], digits: int) -> str | None:
    """Return the solutions as numbers; None where parameters remain, or where there are none."""
    if not rows or any(list_variables(value) for row in rows for value in row):
        return None
    is_system = len(solutions.unknowns) > 1 or len(solutions.equations) > 1
    texts = []
    for row in rows:
        values = [write_value(value, digits) for value in row]
        if any(value is None for value in values):
            return None
        pairs = ", ".join(f"{name} = {value}" for name, value in zip(solutions.unknowns, values, strict=True))
        texts.append(f"[{pairs}]" if is_system else pairs)
    return f"[{', '.join(texts)}]"
