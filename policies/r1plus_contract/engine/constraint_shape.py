"""What grammars and regular expressions cost an engine, by their structure alone.

A compiler turns a constraint into states, and each step of the engine asks which tokens they allow. Two things make
that slow for everybody in the batch, measured with xgrammar: repetitions within repetitions where a text can be split
in many ways, such as `([a-z]+ [a-z]+)+` (seconds a token after forty), and counted repetitions that multiply, such as
`(([a-z]{1,10}){1,10}){1,10}` (a minute to compile). Both are refused here, and recursion with them.

Sets of characters are integers: a bit for each of ASCII's 128, and one for all others.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

OTHERS: Final = 1 << 128
ALL: Final = (1 << 129) - 1
_DIGITS: Final = sum(1 << code for code in range(ord("0"), ord("9") + 1))
_WORD: Final = _DIGITS | sum(1 << ord(c) for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_SPACE: Final = sum(1 << ord(c) for c in " \t\n\r\f\v") | OTHERS
_CLASSES: Final = {
    "d": _DIGITS,
    "w": _WORD,
    "s": _SPACE,
    "D": ALL ^ _DIGITS,
    "W": ALL ^ _WORD,
    "S": ALL ^ _SPACE | OTHERS,
}
_CONTROLS: Final = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "0": "\0"}
_HEX: Final = {"x": 2, "u": 4, "U": 8}
_COUNTS: Final = re.compile(r"\{\s*(\d{1,9})\s*(?:(,)\s*(\d{1,9})?\s*)?\}")
_RULE: Final = re.compile(r"([A-Za-z_][\w.-]*)\s*::=")
_NAME: Final = re.compile(r"[A-Za-z_][\w.-]*")
_GAP: Final = re.compile(r"(?:\s|#[^\n]*)*")
_GROUP: Final = re.compile(r"\((?:\?:|\?<[A-Za-z_]\w*>)?")


class ShapeError(ValueError):
    """A text that cannot be read, or that is too costly; the message says what to do."""


@dataclass(frozen=True, slots=True)
class ConstraintShape:
    """An expression, as far as its cost needs it."""

    is_nullable: bool = True
    """Whether it matches the empty text."""
    first: int = 0
    """Characters that it may begin with."""
    tail: int = 0
    """Characters by which a match may grow at its end, also from nothing."""
    has_loop: bool = False
    is_deterministic: bool = True
    """Whether the next character always says how to go on."""
    weight: int = 0
    """Characters and classes in it, with counted repetitions written out."""
    repeated: int = 0
    """Those of them that counted repetitions have added."""

    def then(self, other: "ConstraintShape") -> "ConstraintShape":
        """Return this followed by `other`."""
        return ConstraintShape(
            self.is_nullable and other.is_nullable,
            self.first | (other.first if self.is_nullable else 0),
            other.tail | (self.tail if other.is_nullable else 0),
            self.has_loop or other.has_loop,
            self.is_deterministic and other.is_deterministic and not self.tail & other.first,
            self.weight + other.weight,
            self.repeated + other.repeated,
        )

    def either(self, other: "ConstraintShape") -> "ConstraintShape":
        """Return this or `other`."""
        conflict = self.first & other.first or (self.is_nullable and other.is_nullable)
        return ConstraintShape(
            self.is_nullable or other.is_nullable,
            self.first | other.first,
            self.tail | other.tail,
            self.has_loop or other.has_loop,
            self.is_deterministic and other.is_deterministic and not conflict,
            self.weight + other.weight,
            self.repeated + other.repeated,
        )

    def repeat(self, least: int, most: int | None) -> "ConstraintShape":
        """Return this `least` to `most` times. Raise ShapeError if it repeats what can be split in many ways."""
        is_optional = (least, most) == (0, 1)
        is_split_once = self.is_deterministic and not self.is_nullable and not self.tail & self.first
        if self.has_loop and not is_split_once and most not in (0, 1):
            raise ShapeError(
                "repeats an expression that itself repeats, where a text can be split in several ways;"
                " put a separator between the repetitions that neither begins nor continues them"
            )
        return ConstraintShape(
            self.is_nullable or least == 0,
            self.first,
            self.tail | (self.first if least != most else 0),
            self.has_loop or (least != most and not is_optional),
            is_split_once if not is_optional else self.is_deterministic and not self.is_nullable,
            self.weight * max(most or 1, least, 1),
            self.repeated + (self.weight * max(most or least, least) if not is_optional and (most or least > 1) else 0),
        )


def measure_grammar(text: str) -> ConstraintShape:
    """Return the shape of the rule `root`. Raise ShapeError with the rule's name."""
    return _GrammarReader(text).measure("root")


def measure_pattern(text: str) -> ConstraintShape:
    """Return the shape of a regular expression. Raise ShapeError."""
    reader = _PatternReader(text)
    shape = reader.read_choice()
    if reader.at < len(text):
        raise ShapeError(f"cannot be read at character {reader.at}; check the parentheses")
    return shape


class _Reader:
    """A reader of choices, sequences and repetitions; what a single term is, its subclass knows."""

    def __init__(self, text: str, begin: int = 0, end: int | None = None) -> None:
        self.text = text
        self.at = begin
        self.end = len(text) if end is None else end

    def read_choice(self) -> ConstraintShape:
        shape = self._read_sequence()
        while self._take("|"):
            shape = shape.either(self._read_sequence())
        return shape

    def _read_sequence(self) -> ConstraintShape:
        shape = ConstraintShape()
        while (self._skip() or self.at < self.end) and self.text[self.at] not in "|)":
            shape = shape.then(self._read_repetition(self._read_term()))
        return shape

    def _read_repetition(self, shape: ConstraintShape) -> ConstraintShape:
        while not self._skip() and self.at < self.end:
            if self.text[self.at] in "*+?":
                shape = shape.repeat(*{"*": (0, None), "+": (1, None), "?": (0, 1)}[self.text[self.at]])
                self.at += 1
            elif match := _COUNTS.match(self.text, self.at, self.end):
                least, comma, most = match.groups()
                shape = shape.repeat(int(least), int(most) if most else None if comma else int(least))
                self.at = match.end()
            else:
                break
            self._skip_modifier()
        return shape

    def _read_term(self) -> ConstraintShape:
        raise NotImplementedError

    def _read_group(self, begin: int) -> ConstraintShape:
        """Read the rest of a group whose content begins there."""
        self.at = begin
        shape = self.read_choice()
        if not self._take(")"):
            raise ShapeError(f"cannot be read at character {self.at}; close the parenthesis")
        return shape

    def _read_class(self) -> ConstraintShape:
        """Read `[...]`, at its beginning."""
        begin, characters, previous = self.at, 0, ""
        self.at += 1
        is_negated = self._take("^")
        while self.at < self.end and self.text[self.at] != "]":
            if previous and self.text[self.at] == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                last, _ = self._read_character()
                characters |= _range(previous, last)
                previous = ""
                continue
            previous, several = self._read_character()
            characters |= several
        if not self._take("]"):
            raise ShapeError(f"cannot be read at character {begin}; close the bracket")
        return _one_of((ALL ^ characters) | OTHERS if is_negated else characters)

    def _read_character(self) -> tuple[str, int]:
        """Read one character, perhaps escaped; return it, or nothing for a class such as `\\d`, and the set."""
        character = self.text[self.at]
        self.at += 1
        if character != "\\":
            return character, _bit(character)
        escaped = self.text[self.at : self.at + 1]
        self.at += 1
        if escaped in _CLASSES and escaped:
            return "", _CLASSES[escaped]
        if escaped in _HEX and escaped:
            digits = self.text[self.at : self.at + _HEX[escaped]]
            self.at += len(digits)
            try:
                character = chr(int(digits, 16))
            except (ValueError, OverflowError) as error:
                raise ShapeError(
                    f"cannot be read at character {self.at}; {digits!r} is no character's number"
                ) from error
            return character, _bit(character)
        character = _CONTROLS.get(escaped, escaped) or "\\"
        return character, _bit(character)

    def _take(self, symbol: str) -> bool:
        self._skip()
        if self.text[self.at : self.at + 1] != symbol or self.at >= self.end:
            return False
        self.at += 1
        return True

    def _skip(self) -> bool:
        """Skip what says nothing. Return False."""
        return False

    def _skip_modifier(self) -> None:
        """Skip what follows a repetition and changes nothing here."""


class _PatternReader(_Reader):
    """A reader of regular expressions."""

    def _read_term(self) -> ConstraintShape:
        symbol = self.text[self.at]
        if symbol == "(":
            match = _GROUP.match(self.text, self.at)
            if match is None or self.text[match.end() : match.end() + 1] == "?":
                raise ShapeError(f"cannot be read at character {self.at}; leave out what looks ahead or behind")
            return self._read_group(match.end())
        if symbol == "[":
            return self._read_class()
        if symbol in "*+?{}":
            raise ShapeError(f"cannot be read at character {self.at}; write \\{symbol} if you mean the character")
        if symbol in "^$.":
            self.at += 1
            return _one_of(ALL) if symbol == "." else ConstraintShape()
        return _one_of(self._read_character()[1])

    def _skip_modifier(self) -> None:
        if self.at < self.end and self.text[self.at] == "?":  # As few as possible: the same texts.
            self.at += 1


class _GrammarReader:
    """The rules of a grammar in EBNF."""

    def __init__(self, text: str) -> None:
        self._text = _blank_comments(text)
        heads = list(_RULE.finditer(_blank_strings(self._text)))
        ends = [*(head.start() for head in heads[1:]), len(self._text)]
        self._rules = {head.group(1): (head.end(), end) for head, end in zip(heads, ends, strict=True)}
        self._shapes: dict[str, ConstraintShape] = {}
        self._open: list[str] = []

    def measure(self, name: str) -> ConstraintShape:
        """Return the shape of a rule."""
        if name in self._shapes:
            return self._shapes[name]
        if name not in self._rules:
            raise ShapeError(f"rule {name!r:.40} is not defined")
        if name in self._open:
            raise ShapeError(f"rule {name!r:.40} is recursive; write it as a repetition, or send a schema")
        self._open.append(name)
        begin, end = self._rules[name]
        reader = _RuleReader(self._text, begin, end, self.measure)
        try:
            shape = reader.read_choice()
        except ShapeError as error:
            raise error if str(error).startswith("rule ") else ShapeError(f"rule {name!r:.40} {error}") from error
        if reader.at < end:
            raise ShapeError(f"rule {name!r:.40} cannot be read at character {reader.at}")
        self._open.pop()
        self._shapes[name] = shape
        return shape


class _RuleReader(_Reader):
    """A reader of one rule's body. `measure` returns the shape of a rule that it names."""

    def __init__(self, text: str, begin: int, end: int, measure: Callable[[str], ConstraintShape]) -> None:
        super().__init__(text, begin, end)
        self._measure = measure

    def _read_term(self) -> ConstraintShape:
        symbol = self.text[self.at]
        if symbol == "(":
            return self._read_group(self.at + 1)
        if symbol == "[":
            return self._read_class()
        if symbol == '"':
            return self._read_string()
        match = _NAME.match(self.text, self.at, self.end)
        if match is None:
            raise ShapeError(f"cannot be read at character {self.at}; rules have strings, classes, names and groups")
        self.at = match.end()
        return self._measure(match.group())

    def _read_string(self) -> ConstraintShape:
        shape = ConstraintShape()
        self.at += 1
        while self.at < self.end and self.text[self.at] != '"':
            shape = shape.then(_one_of(self._read_character()[1]))
        if self.at >= self.end:
            raise ShapeError("has a string without an end")
        self.at += 1
        return shape

    def _skip(self) -> bool:
        match = _GAP.match(self.text, self.at, self.end)
        self.at = match.end() if match else self.at
        return False


_TEXTS: Final = re.compile(r'"(?:\\.|[^"\\\n])*"|\[(?:\\.|[^\]\\\n])*\]|#[^\n]*')


def _blank_comments(text: str) -> str:
    """Return the grammar with blanks for comments."""
    return _TEXTS.sub(lambda m: " " * len(m.group()) if m.group().startswith("#") else m.group(), text)


def _blank_strings(text: str) -> str:
    """Return the grammar with blanks for strings and classes, which may look like rules."""
    return _TEXTS.sub(lambda match: " " * len(match.group()), text)


def _one_of(characters: int) -> ConstraintShape:
    return ConstraintShape(is_nullable=False, first=characters, weight=1)


def _bit(character: str) -> int:
    return 1 << ord(character) if ord(character) < 128 else OTHERS


def _range(first: str, last: str) -> int:
    """Return the set of a range; of others than ASCII all."""
    if not last:
        return ALL
    ascii_part = sum(1 << code for code in range(ord(first), min(ord(last), 127) + 1))
    return ascii_part | (OTHERS if ord(last) > 127 else 0)
