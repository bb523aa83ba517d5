"""Recursive descent from tokens to a tree.

    statement := equation END
    equation  := sum ["=" sum]
    sum       := product (("+" | "-") product)*
    product   := signed (("*" | "/") signed | implied)*
    implied   := a name, a call or a bracket after a number, or a bracket after a bracket: 2x, 2(x + 1), (x + 1)(x - 1)
    signed    := ("-" | "+") signed | power
    power     := postfix ["^" signed]                    right-associative: 2^3^2 is 2^9
    postfix   := atom ["!" | "%"]
    atom      := NUMBER | NAME | NAME "(" arguments ")" | "(" sum ")" | "[" arguments "]"

What people read in two ways is refused: 1/2x, 2^3x, 5!!, 10% + 5, log(x).
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from r1plus_contract.calculator_grammar.errors import (
    AmbiguousError,
    ExpressionSyntaxError,
    LimitExceededError,
    UnknownNameError,
)
from r1plus_contract.calculator_grammar.functions import ARITIES, COMMANDS, CONSTANTS, DIRECTIONS, list_variables
from r1plus_contract.calculator_grammar.limits import EXPRESSION, MOST_VARIABLES, RESULT, Bounds
from r1plus_contract.calculator_grammar.tokens import Token, TokenKind, split_tokens
from r1plus_contract.calculator_grammar.tree import (
    Equation,
    Factorial,
    FunctionCall,
    Inverse,
    Items,
    Name,
    Negative,
    Node,
    Number,
    Percent,
    Power,
    Product,
    Sum,
    walk,
)

HAS_EQUATIONS: Final = frozenset({"solve"})
"""Commands with equations and lists among their arguments."""


def parse(text: str) -> Node:
    """Return the tree of an expression, within all bounds of `limits`.

    Raises:
        CalculatorError: ExpressionSyntaxError, AmbiguousError, UnknownNameError or LimitExceededError.
    """
    tree = _parse(text, EXPRESSION)
    _check_places(tree)
    return tree


def parse_result(text: str) -> Node:
    """Return the tree of a result: also equations, and lists of them.

    Raises:
        CalculatorError: as `parse`.
    """
    return _parse(text, RESULT)


def _parse(text: str, bounds: Bounds) -> Node:
    parser = _Parser(split_tokens(text, bounds), bounds)
    tree = parser.parse_statement()
    if len(names := list_variables(tree)) > MOST_VARIABLES:
        raise LimitExceededError(f"{len(names)} variables exceed {MOST_VARIABLES}; calculate it in parts")
    return tree


def _check_places(tree: Node) -> None:
    """Refuse equations and lists outside of `solve`, and `solve` within something else."""
    for part in _list_values(tree):
        for node in walk(part):
            if isinstance(node, Equation):
                raise ExpressionSyntaxError("an equation has no value; write solve(left = right, x)")
            if isinstance(node, Items):
                raise ExpressionSyntaxError("a list has no value; write solve([equation, equation], [x, y])")
            if isinstance(node, FunctionCall) and node.function in HAS_EQUATIONS:
                raise ExpressionSyntaxError(f"{node.function} within another expression; calculate it alone")


def _list_values(tree: Node) -> list[Node]:
    """Return the parts that have to have values of their own: of `solve` the sides of its equations."""
    if not (isinstance(tree, FunctionCall) and tree.function in HAS_EQUATIONS):
        return [tree]
    entries = [item for entry in tree.arguments for item in (entry.items if isinstance(entry, Items) else (entry,))]
    return [
        side for entry in entries for side in ((entry.left, entry.right) if isinstance(entry, Equation) else (entry,))
    ]


@dataclass(slots=True)
class _Parser:
    tokens: list[Token]
    bounds: Bounds
    index: int = 0
    depth: int = 0
    nodes: int = 0

    def parse_statement(self) -> Node:
        if self._next.kind is TokenKind.END:
            raise ExpressionSyntaxError("the expression is empty; write one, such as 2 + 2", 0)
        tree = self._parse_equation()
        if self._next != self.tokens[-1]:
            raise self._build_error("the expression should end here, or go on with + - * / ^")
        return tree

    @property
    def _next(self) -> Token:
        return self.tokens[self.index]

    def _is_next(self, *symbols: str) -> bool:
        return self._next.kind is TokenKind.SYMBOL and self._next.text in symbols

    def _take(self) -> Token:
        token = self._next
        self.index += 1
        return token

    def _expect(self, symbol: str) -> None:
        if not self._is_next(symbol):
            raise self._build_error(f"expected {symbol}")
        self.index += 1

    def _build_error(self, message: str) -> ExpressionSyntaxError:
        token = self._next
        shown = f"{token.text[:20]!r} at position {token.position}" if token.text else "the end"
        return ExpressionSyntaxError(f"{shown}: {message}", token.position)

    def _enter(self) -> None:
        self.depth += 1
        if self.depth > (most := self.bounds.most_depth):
            message = f"brackets, signs and powers are nested deeper than {most}; write it flatter"
            raise LimitExceededError(message, self._next.position)

    def _count(self) -> None:
        self.nodes += 1
        if self.nodes > (most := self.bounds.most_nodes):
            message = f"the expression has more than {most} numbers, names and operations; calculate it in parts"
            raise LimitExceededError(message, self._next.position)

    def _parse_equation(self) -> Node:
        left = self._parse_sum()
        if not self._is_next("="):
            return left
        self._count()
        self._take()
        right = self._parse_sum()
        if self._is_next("="):
            raise self._build_error("a second =; write a list of equations")
        return Equation(left, right)

    def _parse_sum(self) -> Node:
        self._enter()
        terms = [self._parse_product()]
        while self._is_next("+", "-"):
            self._count()
            sign = self._take()
            term = self._parse_product()
            for one in (terms[-1], term):
                _refuse_percent(one, sign)
            terms.append(Negative(term) if sign.text == "-" else term)
        self.depth -= 1
        return terms[0] if len(terms) == 1 else Sum(tuple(terms))

    def _parse_product(self) -> Node:
        factors = [self._parse_signed()]
        is_divided = False
        while True:
            if self._is_next("*", "/"):
                self._count()
                is_divided = self._take().text == "/"
                factor = self._parse_signed()
                factors.append(Inverse(factor) if is_divided else factor)
            elif self._is_implied():
                self._count()
                self._refuse_unclear_product(factors[-1], is_divided)
                factors.append(self._parse_signed())
                is_divided = False
            else:
                return factors[0] if len(factors) == 1 else Product(tuple(factors))

    def _is_implied(self) -> bool:
        return self._next.kind in (TokenKind.NAME, TokenKind.NUMBER) or self._is_next("(", "[")

    def _refuse_unclear_product(self, left: Node, is_divided: bool) -> None:
        """Let a number be followed by a name or a bracket, and nothing else."""
        token = self._next
        before = self.tokens[self.index - 1]
        if before.text == "%":
            raise AmbiguousError(
                f"% at position {before.position} before {token.text[:20]!r} is a percentage to some and a remainder"
                " to others; write x% * y, or mod(x, y)",
                before.position,
            )
        if token.kind is TokenKind.NUMBER or token.text == "[":
            raise self._build_error("an operator is missing before it; write one of + - * / ^")
        if is_divided:
            raise AmbiguousError(
                f"{before.text[:20]}{token.text[:20]} at position {before.position} after / can be read in two ways;"
                " write 1/(2*x) or (1/2)*x",
                before.position,
            )
        is_counted = before.kind is TokenKind.NUMBER and isinstance(_strip_signs(left), Number)
        is_bracketed = before.text == ")" and token.text == "(" and not isinstance(_strip_signs(left), Power)
        if not is_counted and not is_bracketed:
            raise AmbiguousError(
                f"an operator is missing before {token.text[:20]!r} at position {token.position}; write *",
                token.position,
            )

    def _parse_signed(self) -> Node:
        if not self._is_next("+", "-"):
            return self._parse_power()
        self._enter()
        self._count()
        sign = self._take()
        operand = self._parse_signed()
        self.depth -= 1
        return Negative(operand) if sign.text == "-" else operand

    def _parse_power(self) -> Node:
        base = self._parse_postfix()
        if not self._is_next("^"):
            return base
        self._enter()
        self._count()
        self._take()
        exponent = self._parse_signed()
        self.depth -= 1
        return Power(base, exponent)

    def _parse_postfix(self) -> Node:
        atom = self._parse_atom()
        if not self._is_next("!", "%"):
            return atom
        self._count()
        sign = self._take()
        if self._is_next("!", "%"):
            raise AmbiguousError(
                f"{sign.text}{self._next.text} at position {sign.position} can be read in two ways;"
                " write brackets, such as (5!)!",
                sign.position,
            )
        return Factorial(atom) if sign.text == "!" else Percent(atom)

    def _parse_atom(self) -> Node:
        self._count()
        if self._next.kind is TokenKind.NUMBER:
            return Number(Fraction(self._take().text))
        if self._next.kind is TokenKind.NAME:
            return self._parse_name()
        if self._is_next("("):
            self._take()
            inner = self._parse_sum()
            self._expect(")")
            return inner
        if self._is_next("["):
            self._enter()
            self._take()
            items = self._parse_arguments("]")
            self.depth -= 1
            return Items(items)
        raise self._build_error("expected a number, a name or a bracket")

    def _parse_name(self) -> Node:
        token = self._take()
        is_call = self._is_next("(") and not self._next.is_after_space
        if token.text not in ARITIES:
            if not is_call:
                return Name(token.text)
            known = ", ".join(sorted(ARITIES))
            raise UnknownNameError(
                f"{token.text} at position {token.position} is no function; write {token.text}*(...) for a product,"
                f" or one of: {known}",
                token.position,
            )
        if not self._is_next("("):
            raise self._build_error(f"{token.text} needs brackets; write {ARITIES[token.text].usage}")
        self._take()
        self._enter()
        arguments = self._parse_arguments(")")
        self.depth -= 1
        _check_arguments(token, arguments)
        return FunctionCall(token.text, arguments)

    def _parse_arguments(self, end: str) -> tuple[Node, ...]:
        if self._is_next(end):
            self._take()
            return ()
        arguments = [self._parse_equation()]
        while self._is_next(","):
            self._take()
            arguments.append(self._parse_equation())
        self._expect(end)
        return tuple(arguments)


def _strip_signs(node: Node) -> Node:
    while isinstance(node, Negative):
        node = node.operand
    return node


def _refuse_percent(term: Node, sign: Token) -> None:
    if isinstance(term, Percent):
        raise AmbiguousError(
            f"a percentage next to {sign.text} at position {sign.position} can be read in two ways;"
            " write 200 * (1 + 10%), or 10/100",
            sign.position,
        )


def _check_arguments(token: Token, arguments: tuple[Node, ...]) -> None:
    arity = ARITIES[token.text]
    if token.text == "log" and len(arguments) == 1:
        raise AmbiguousError(
            f"log at position {token.position} has no base; write ln(x), log10(x) or log(x, base)", token.position
        )
    if not arity.least <= len(arguments) <= arity.most:
        raise UnknownNameError(
            f"{token.text} at position {token.position} has {len(arguments)} arguments; write {arity.usage}",
            token.position,
        )
    if token.text == "limit" and len(arguments) == 4 and arguments[3] not in [Name(name) for name in DIRECTIONS]:
        raise UnknownNameError(f"limit: the fourth argument is {' or '.join(DIRECTIONS)}", token.position)
    _check_variable(token, arguments)


def _check_variable(token: Token, arguments: tuple[Node, ...]) -> None:
    if token.text not in COMMANDS or token.text == "solve" or len(arguments) < 2:
        return
    variable = arguments[1]
    if not isinstance(variable, Name) or variable.name in CONSTANTS:
        message = f"{token.text}: the second argument names the variable; write {ARITIES[token.text].usage}"
        raise UnknownNameError(message, token.position)
