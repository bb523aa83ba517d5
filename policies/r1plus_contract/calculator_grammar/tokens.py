"""Text to tokens: ASCII only, and nothing that the grammar has no use for."""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from r1plus_contract.calculator_grammar.errors import ExpressionSyntaxError, LimitExceededError
from r1plus_contract.calculator_grammar.limits import MOST_NAME_CHARACTERS, Bounds


class TokenKind(Enum):
    """Of a token."""

    NUMBER = "a number"
    NAME = "a name"
    SYMBOL = "a symbol"
    END = "the end"


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the text, and where it begins."""

    kind: TokenKind
    text: str
    position: int
    is_after_space: bool = False


_TOKEN: Final = re.compile(
    r"(?P<number>(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*)"
    r"|(?P<symbol>\*\*|[-+*/^!%=(),\[\]])"
    r"|(?P<space>[ \t\r\n]+)"
)
TOKENS_PER_NODE: Final = 4
"""Brackets and commas are no nodes."""


def split_tokens(text: str, bounds: Bounds) -> list[Token]:
    """Return the tokens of a text, the last of kind END.

    Raises:
        ExpressionSyntaxError: a character that has no place in an expression.
        LimitExceededError: the text, a number or a name is too long.
    """
    if len(text) > bounds.most_bytes or len(text.encode(errors="surrogatepass")) > bounds.most_bytes:
        raise LimitExceededError(f"the expression has more than {bounds.most_bytes} bytes; calculate it in parts")
    tokens: list[Token] = []
    position, is_after_space = 0, False
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _build_character_error(text, position)
        kind, piece = str(match.lastgroup), match.group()
        if kind != "space":
            tokens.append(_build_token(kind, piece, position, is_after_space, bounds.most_digits))
        is_after_space = kind == "space"
        position = match.end()
    if len(tokens) > (most := TOKENS_PER_NODE * bounds.most_nodes):
        raise LimitExceededError(f"the expression has {len(tokens)} signs, more than {most}; write it shorter")
    return [*tokens, Token(TokenKind.END, "", len(text))]


def _build_token(kind: str, piece: str, position: int, is_after_space: bool, most_digits: int) -> Token:
    if kind == "number":
        _check_digits(piece, position, most_digits)
        return Token(TokenKind.NUMBER, piece, position, is_after_space)
    if kind == "name":
        if len(piece) > MOST_NAME_CHARACTERS:
            message = f"the name {piece[:20]}... has {len(piece)} characters, more than {MOST_NAME_CHARACTERS}"
            raise LimitExceededError(f"{message}; shorten it", position)
        return Token(TokenKind.NAME, piece, position, is_after_space)
    return Token(TokenKind.SYMBOL, "^" if piece == "**" else piece, position, is_after_space)


def _check_digits(piece: str, position: int, most: int) -> None:
    mantissa, _, exponent = piece.lower().partition("e")
    power = exponent.lstrip("+-").lstrip("0")
    digits = len(mantissa) + (int(power) if power and len(power) < 7 else 10 ** len(power) if power else 0)
    if digits > most:
        raise LimitExceededError(f"a number has more than {most} digits; write a smaller one", position)


def _build_character_error(text: str, position: int) -> ExpressionSyntaxError:
    sign = text[position]
    shown = repr(sign) if sign.isprintable() and not 0xD800 <= ord(sign) <= 0xDFFF else f"U+{ord(sign):04X}"
    remedy = _REMEDIES.get(sign, "leave it out" if sign.isascii() else "write ASCII letters, digits and + - * / ^ !")
    return ExpressionSyntaxError(f"{shown} at position {position} has no place in an expression; {remedy}", position)


_REMEDIES: Final = {
    ".": "a point stands between two digits only",
    "_": "a name begins with a letter, and has single underscores within",
    "{": "write round brackets",
    "}": "write round brackets",
    "<": "inequalities are not calculated",
    ">": "inequalities are not calculated",
    "|": "write abs(x)",
    "\\": "LaTeX is not read: write such as integrate(x^2, x, 0, 1) or sqrt(2)",
    ";": "calculate one expression at a time",
    "×": "write *",
    "·": "write *",
    "÷": "write /",
    "−": "write - (minus)",
    "√": "write sqrt(x)",
    "π": "write pi",
    "∞": "write inf",
    "²": "write ^2",
    "³": "write ^3",
    "°": "write degrees(x)",
}
