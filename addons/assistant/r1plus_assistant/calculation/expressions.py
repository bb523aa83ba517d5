"""Expressions in a user's text, by rules: rather none than a wrong one.

A run of numbers and signs counts where its signs leave no doubt (2 * 3), or where words ask for its value ("what is
12-7", "750/15 equals"). With variables it counts after the word for what is to be done: solve, derivative, integral,
limit, factor. Whatever is found can be read by the calculator's grammar.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from r1plus_assistant.calculation.conversions import has_other_unit
from r1plus_assistant.calculation.lookalikes import mask_lookalikes
from r1plus_assistant.calculation.quantities import FACTOR_WORDS, NUMBER_WORDS
from r1plus_assistant.calculation.spans import Piece, Span, find_spans
from r1plus_assistant.calculation.unread_numbers import PARTS, SCALES, SIGNS
from r1plus_contract.calculator_grammar.errors import CalculatorError
from r1plus_contract.calculator_grammar.functions import COMMANDS, list_variables
from r1plus_contract.calculator_grammar.limits import MOST_UNKNOWNS
from r1plus_contract.calculator_grammar.parser import parse
from r1plus_contract.calculator_grammar.tree import FunctionCall, Name, Negative, Node, Number, Percent, walk

MOST_TEXT: Final = 8192
"""Characters that are looked at; expressions after them are not found."""
MOST_EXPRESSIONS: Final = 8
MOST_SPANS: Final = 100
"""Runs that are looked at."""
_NEAR: Final = 200
"""Characters before and after a run in which words about it are looked for."""


@dataclass(frozen=True, slots=True)
class FoundExpression:
    """An expression, and where the text has it."""

    expression: str
    start: int
    end: int


_ASKS: Final = re.compile(
    r"(?:what(?:'s|\u2019s| is| are| does| do you get for)|calculate|compute|evaluate|work out|solve|tell me|give me"
    r"|is|how much (?:is|are|would)|(?:result|value|sum|product|difference|quotient) of)\s*:?"
    r"\s*(?:the value of\s*)?$",
    re.IGNORECASE,
)
_ANSWERS: Final = re.compile(r"\s*(?:=\s*(?:\?|$)|equals?\b|is (?:what|equal)|makes\b|gives\b|\?)", re.IGNORECASE)
_LINK: Final = r"(?:\s*(?:the|of|for|function|expression|equation|polynomial|following|f\(x\)\s*=|y\s*=|this|:))*\s*$"
_DERIVE: Final = re.compile(
    r"\b(?:(?:(?P<order>first|second|third|fourth)\s+)?derivative of|differentiate|derive|"
    r"d\s*/\s*d(?P<variable>[a-z])(?: of)?)" + _LINK,
    re.IGNORECASE,
)
_INTEGRATE: Final = re.compile(
    r"\b(?:integral of|antiderivative of|primitive of|integrate|area under)" + _LINK, re.IGNORECASE
)
_LIMIT: Final = re.compile(r"\blimit of" + _LINK, re.IGNORECASE)
_REWRITE: Final = re.compile(r"\b(?P<word>simplify|factor(?:i[sz]e)?|expand|multiply out)" + _LINK, re.IGNORECASE)
_SOLVE: Final = re.compile(
    r"\b(?:solve|solving|solutions?|roots?|zeros|satisf(?:y|ies)|such that|for which|find [a-z]|determine [a-z]"
    r"|what (?:is|are|value of) [a-z](?: and [a-z])?)\b",
    re.IGNORECASE,
)
_UNKNOWN: Final = re.compile(r"\b(?:for|find|which|determine)\s+([a-z])\b", re.IGNORECASE)
_VARIABLE: Final = re.compile(r"\s*(?:,?\s*with respect to|w\.?r\.?t\.?|for)\s+(?P<variable>[a-z])\b", re.IGNORECASE)
_DIFFERENTIAL: Final = re.compile(r"\s*\*?\s*d(?P<variable>[a-z])\b")
_BOUND: Final = r"(-?\s*(?:\d+(?:\.\d+)?(?:\s*\*?\s*pi)?(?:\s*/\s*\d+)?|pi(?:\s*/\s*\d+)?|e\b|inf\b|infinity\b))"
_BOUNDS: Final = re.compile(
    rf"\s*,?\s*(?:(?:for|over|with)\s+[a-z]\s+)?(?:from|between)\s+(?:[a-z]\s*=\s*)?{_BOUND}\s+(?:to|and)\s+{_BOUND}",
    re.IGNORECASE,
)
_ANY_BOUNDS: Final = re.compile(r"\s*,?\s*(?:from|between|over|on)\b", re.IGNORECASE)
_POINT: Final = re.compile(
    rf"\s*,?\s*(?:as|when|for|if)\s+(?P<variable>[a-z])\s*(?:approaches|goes to|tends to|->|\u2192|to)\s*{_BOUND}",
    re.IGNORECASE,
)
_ORDERS: Final = {"first": 1, "second": 2, "third": 3, "fourth": 4}
_REWRITES: Final = {"s": "simplify", "f": "factor", "e": "expand", "m": "expand"}
_JOIN: Final = re.compile(r"\s*(?:,|;|and|,\s*and)\s*", re.IGNORECASE)
_NUMBERS: Final = rf"(?:one|{'|'.join((*NUMBER_WORDS, *FACTOR_WORDS))})"
_SENTENCE_END: Final = re.compile(r"[.?!;]\s|\n")


def find_expressions(text: str) -> list[FoundExpression]:
    """Return the expressions of a text, in its order; at most `MOST_EXPRESSIONS`."""
    text = text[:MOST_TEXT]
    spans = [span for span in find_spans(mask_lookalikes(text)) if span.is_compound][:MOST_SPANS]
    found: list[FoundExpression] = []
    last = 0
    for index, span in enumerate(spans):
        if span.start < last:
            continue
        for rule in _RULES:
            if (expression := rule(text, spans, index)) is not None:
                found.append(expression)
                last = expression.end
                break
    return found[:MOST_EXPRESSIONS]


def _read(text: str) -> Node | None:
    try:
        return parse(text)
    except CalculatorError:
        return None


def _match(pattern: re.Pattern[str], text: str, start: int) -> re.Match[str] | None:
    return pattern.match(text, start, start + _NEAR)


def _get_sentence(text: str, end: int) -> str:
    """Return the part of a sentence before a place."""
    before = text[max(0, end - _NEAR) : end]
    return _SENTENCE_END.split(before)[-1]


def _build(expression: str, start: int, end: int) -> FoundExpression | None:
    return FoundExpression(expression, start, end) if _read(expression) is not None else None


def _find_command(text: str, spans: list[Span], index: int) -> FoundExpression | None:
    """Find what is written in the grammar itself: integrate(x^2, x)."""
    span = spans[index]
    tree = _read(span.text)
    if isinstance(tree, FunctionCall) and tree.function in COMMANDS:
        return FoundExpression(span.text, span.start, span.end)
    return None


def _choose_variable(tree: Node, given: str | None) -> str | None:
    """Return the variable that is meant: the one that is named, or the only one, or x."""
    variables = list_variables(tree)
    if given and (given in variables or not variables):
        return given
    if given:
        return None
    if len(variables) == 1:
        return variables[0]
    return "x" if "x" in variables or not variables else None


def _find_derivative(text: str, spans: list[Span], index: int) -> FoundExpression | None:
    span = spans[index]
    asked = _DERIVE.search(_get_sentence(text, span.start))
    tree = _read(span.text)
    if asked is None or tree is None:
        return None
    after = _match(_VARIABLE, text, span.end)
    variable = _choose_variable(tree, asked["variable"] or (after["variable"] if after else None))
    if variable is None:
        return None
    order = _ORDERS.get((asked["order"] or "first").lower(), 1)
    end = after.end() if after else span.end
    return _build(f"diff({span.text}, {variable}{f', {order}' if order > 1 else ''})", span.start, end)


def _find_integral(text: str, spans: list[Span], index: int) -> FoundExpression | None:
    span = spans[index]
    tree = _read(span.text)
    if tree is None or not _INTEGRATE.search(_get_sentence(text, span.start)):
        return None
    end, given = span.end, None
    for pattern in (_DIFFERENTIAL, _VARIABLE):
        if match := _match(pattern, text, end):
            end, given = match.end(), match["variable"]
    bounds = _match(_BOUNDS, text, end)
    if bounds:
        end = bounds.end()
        if match := _match(_VARIABLE, text, end) or _match(_DIFFERENTIAL, text, end):
            end, given = match.end(), match["variable"]
    elif _match(_ANY_BOUNDS, text, end):
        return None  # bounds that are not understood
    variable = _choose_variable(tree, given)
    if variable is None:
        return None
    limits = f", {_write_bound(bounds[1])}, {_write_bound(bounds[2])}" if bounds else ""
    return _build(f"integrate({span.text}, {variable}{limits})", span.start, end)


def _write_bound(text: str) -> str:
    return re.sub(r"infinity", "inf", text.strip(), flags=re.IGNORECASE)


def _find_limit(text: str, spans: list[Span], index: int) -> FoundExpression | None:
    span = spans[index]
    point = _match(_POINT, text, span.end)
    if point is None or not _LIMIT.search(_get_sentence(text, span.start)):
        return None
    expression = f"limit({span.text}, {point['variable']}, {_write_bound(point[2])})"
    return _build(expression, span.start, point.end())


def _find_rewriting(text: str, spans: list[Span], index: int) -> FoundExpression | None:
    span = spans[index]
    asked = _REWRITE.search(_get_sentence(text, span.start))
    if asked is None or not (span.has("+", "-", "*", "/", "^", "(") or asked["word"].lower().startswith("f")):
        return None
    return _build(f"{_REWRITES[asked['word'][0].lower()]}({span.text})", span.start, span.end)


def _find_equations(text: str, spans: list[Span], index: int) -> FoundExpression | None:
    """Find an equation, or several that are joined, in a sentence that asks for a solution."""
    equations = [spans[index]]
    if not _is_equation(equations[0]):
        return None
    for span in spans[index + 1 : index + MOST_UNKNOWNS]:
        if not _is_equation(span) or not _JOIN.fullmatch(text[equations[-1].end : span.start]):
            break
        equations.append(span)
    end = equations[-1].end
    after = text[end : end + 60]
    is_asked = _SOLVE.search(_get_sentence(text, equations[0].start)) or _SOLVE.search(_SENTENCE_END.split(after)[0])
    if not is_asked:
        return None
    if len(equations) > 1:
        inner = ", ".join(span.text for span in equations)
        return _build(f"solve([{inner}])", equations[0].start, end)
    tree = _read(f"solve({equations[0].text})")
    before = re.search(
        r"\b(?:for|find|which|determine)\s+([a-z])\b", _get_sentence(text, equations[0].start), re.IGNORECASE
    )
    named = _match(_VARIABLE, text, end)
    given = named["variable"] if named else before[1] if before else None
    variable = _choose_variable(tree, given) if tree is not None else None
    if variable is None:
        return None
    return _build(f"solve({equations[0].text}, {variable})", equations[0].start, end)


def _is_equation(span: Span) -> bool:
    sides = span.text.split("=")
    if len(sides) != 2 or not all(side.strip() for side in sides):
        return False
    tree = _read(f"solve({span.text})")
    return tree is not None and bool(list_variables(tree))


_ROOTS: Final = "\u221a-\u221c"
"""Signs of roots, which no expression has."""
_GOES_ON_BEFORE: Final = re.compile(
    rf"(?:\d[.,'\u2019\u00a0\u202f]|[{SIGNS}]|[{_ROOTS}]\s*)$"
    rf"|(?<![a-z])(?:minus|plus|times|half|twice|double|triple|(?:\d|{SCALES}|{PARTS}|percent|per\s+cent|square|cube"
    r"|squares|cubes|roots?|power|factorial|reciprocal|inverse|negative|opposite|logarithm|log|sine|cosine|tangent|remainder"
    r"|modulus|floor|ceiling|(?:integer|whole|fractional)\s+part|absolute\s+value|digits?)\s+of|negative|hundred|thousand|million)"
    r"\s+(?:of\s+)?(?:the\s+)?$|\bdivided\s+by\s+$",
    re.IGNORECASE,
)
_GOES_ON_AFTER: Final = re.compile(
    rf"[.,'\u2019]\d|\s*[{SIGNS}]|[kKM]\b|\s+\d"
    rf"|[\s-]*(?:{SCALES}|{PARTS}|dozen|plus|minus|times|multiplied|divided|over|squared|cubed|per\s?cent|mod(?:ulo)?"
    rf"|to\s+the|half)(?![a-z])|\s+of\s+(?:the\s+|an?\s+)?(?:[\d($\u20ac\u00a3]|{_NUMBERS}\b)",
    re.IGNORECASE,
)
"""What goes on with a calculation in words, or with a number in another form: 3 * 2 million, 1,5 * 3."""
_OTHER_DIGITS: Final = re.compile(r"\b(?:binary|octal|hex(?:adecimal)?|base[\s-]*\d+)\b", re.IGNORECASE)
"""Numbers of another base may be written with the same digits."""
_OF_SEVERAL: Final = re.compile(r"\b(?:sum|product|difference|quotient)\s+of\s+(?:the\s+)?$", re.IGNORECASE)
_AND_MORE: Final = re.compile(rf"\s*,?\s*(?:and|from)\s+(?:[-$\u20ac\u00a3]?\d|\(|{_NUMBERS}\b)", re.IGNORECASE)
_SURE_KINDS: Final = frozenset({"call", "of"})


def _find_arithmetic(text: str, spans: list[Span], index: int) -> FoundExpression | None:
    span = _use_letter_as_sign(spans[index])
    pieces, has_equals = span.pieces, False
    if pieces[-1].text == "=":
        span, has_equals = Span(_strip_end(pieces)), True
    tree = _read(span.text)
    if tree is None or list_variables(tree) or isinstance(tree, Number | Name | Percent):
        return None
    if isinstance(tree, Negative) and isinstance(tree.operand, Number):
        return None
    if _is_part(text, span):
        return None
    after = text[span.end : span.end + 40]
    is_asked = bool(
        has_equals
        or _ASKS.search(_get_sentence(text, span.start))
        or _ANSWERS.match(after)
        or text.strip(" \t\n.?=:") == text[span.start : span.end]
    )
    if not is_asked and not _is_sure(spans[index], tree):
        return None
    if span.pieces[-1].text == "!" and not _is_factorial(span, after):
        return None
    return FoundExpression(span.text, span.start, span.end)


def _is_part(text: str, span: Span) -> bool:
    """Return whether the text around a run may change its value, or asks for it in another unit."""
    before = _get_sentence(text, span.start)
    if _GOES_ON_BEFORE.search(before) or _match(_GOES_ON_AFTER, text, span.end):
        return True
    if _OTHER_DIGITS.search(text):
        return True
    if _OF_SEVERAL.search(before) and _match(_AND_MORE, text, span.end):
        return True
    return has_other_unit(text, span.end)


def _use_letter_as_sign(span: Span) -> Span:
    """Read an x between two numbers, with spaces around it, as a multiplication."""
    pieces = list(span.pieces)
    for place in range(2, len(pieces) - 2):
        around = [pieces[place + step].kind for step in (-2, -1, 1, 2)]
        if pieces[place].text in ("x", "X") and around == ["number", "space", "space", "number"]:
            pieces[place] = Piece("letter", "*", pieces[place].start, pieces[place].end)
    return Span(tuple(pieces))


def _strip_end(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """Take away signs of equality and spaces at the end."""
    while pieces[-1].text == "=" or pieces[-1].kind == "space":
        pieces = pieces[:-1]
    return pieces


def _is_sure(span: Span, tree: Node) -> bool:
    """Return whether signs alone make a run an expression: not a hyphen or a slash, which ranges and dates have too."""
    if any(piece.kind in _SURE_KINDS for piece in span.pieces):
        return True
    if span.has("*", "^"):
        return True
    is_spaced = all(
        span.pieces[place - 1].kind == span.pieces[place + 1].kind == "space"
        for place, piece in enumerate(span.pieces)
        if piece.text in "+/" and 0 < place < len(span.pieces) - 1
    )
    numbers = sum(isinstance(part, Number) for part in walk(tree))
    return numbers > 1 and span.has("+") and is_spaced


def _is_factorial(span: Span, after: str) -> bool:
    """Return whether an exclamation mark at the end belongs to the number and not to the sentence."""
    return bool(re.match(r"\s*(?:[=?,]|[a-z])", after)) or (len(span.pieces) == 2 and not after.strip())


_RULES: Final[tuple[Callable[[str, list[Span], int], FoundExpression | None], ...]] = (
    _find_command,
    _find_derivative,
    _find_integral,
    _find_limit,
    _find_rewriting,
    _find_equations,
    _find_arithmetic,
)


def list_sources(text: str) -> Iterator[str]:
    """Yield the pieces of a text that its expressions come from."""
    for found in find_expressions(text):
        yield text[found.start : found.end]
