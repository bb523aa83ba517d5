"""A question in prose to an expression, by the model: which numbers are combined how. Pure: what it reads and writes.

Stand-ins take the place of the question's numbers, in their order of size, and a grammar allows each of them once. So
the model can invent no number, and questions with as many numbers share one grammar: engines keep what they have
compiled, and refuse further grammars when their memory for it is full.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, permutations
from typing import Final

from r1plus_assistant.calculation.conversions import write_scaled
from r1plus_assistant.calculation.quantities import MOST_TEXT, Quantity, find_quantities, has_range
from r1plus_assistant.calculation.units import (
    NUMBER,
    BaseUnit,
    Unit,
    describe_dimension,
    find_base_unit,
    list_unit_words,
)
from r1plus_assistant.calculation.unread_numbers import find_unread_number
from r1plus_contract.calculator_grammar.errors import CalculatorError
from r1plus_contract.calculator_grammar.parser import parse
from r1plus_contract.calculator_grammar.printer import print_tree
from r1plus_contract.calculator_grammar.tree import Inverse, Name, Negative, Node, Number, Percent, Product, Sum, walk

_STAND_INS: Final[Mapping[int, tuple[int, ...]]] = {2: (8, 40), 3: (5, 18, 72), 4: (4, 12, 30, 85)}
"""How many numbers a question has -> what takes their place, from the smallest. Small models read letters worse."""
_LETTERS: Final = "xyzw"
"""Of the numbers, while an expression is read."""
_ANSWER: Final = re.compile(r"[\d%+*/() -]{1,64}")
_STAND_IN: Final = re.compile(r"\d+%?")
NO_EXPRESSION: Final = "the model wrote no expression; write it yourself"
LEAST_NUMBERS: Final = 2
MOST_NUMBERS: Final = 4
MOST_NEW_TOKENS: Final = 24
"""Of a translation: four letters, signs and brackets."""
_EXAMPLES: Final = (
    ("What is the sum of 31 and 48?", "31 + 48"),
    (
        "Tom has 6 bags with 8 marbles in each bag. Tom loses 7 marbles. How many marbles does Tom have left?",
        "6 * 8 - 7",
    ),
    (
        "A train carries 80 people. At the station 12 people get off and 25 people get on. How many are on it now?",
        "80 - 12 + 25",
    ),
    ("36 sweets are shared equally among 9 children. How many sweets does each child get?", "36 / 9"),
    ("15% of the 60 trees in a park are oaks. How many oaks are there?", "15% * 60"),
    ("Ann has 52 books and Ben has 17 books. How many more books does Ann have than Ben?", "52 - 17"),
    ("A ticket costs 14 euros and the bus 23 euros. What do 5 people pay for tickets and one bus?", "14 * 5 + 23"),
    (
        "A jar had 95 coins. Tom took out 21 coins and Ann took out 34. How many coins are left?",
        "95 - 21 - 34",
    ),
    ("There are 16 shelves with 45 jars on each shelf. How many jars are there?", "16 * 45"),
    (
        "On Monday 41 guests came, on Tuesday 27 and on Wednesday 58. How many guests came in all?",
        "41 + 27 + 58",
    ),
    ("8 friends share 32 nuts equally. How many nuts does each friend get?", "32 / 8"),
    (
        "There are 65 birds on a roof. 18 birds fly away and 30 birds come back. How many birds are on the roof?",
        "65 - 18 + 30",
    ),
    ("A crate has 24 bottles. How many bottles are in 7 crates?", "24 * 7"),
    (
        "Ben earns 13 euros an hour and works 6 hours a day. How many euros does Ben earn in 4 days?",
        "13 * 6 * 4",
    ),
)
_ASKS: Final = re.compile(
    r"\bhow (?:many|much|far|long|old|tall|high|wide|heavy|fast|big|large)\b"
    r"|\b(?:calculate|compute|work out|determine)\b"
    r"|\bwhat(?:'s|\u2019s| is| are| was| were| will| would| do| does| did)?\b[^.?!\n]{0,80}?\b(?:total|sum|costs?"
    r"|price|average|difference|speed|area|volume|perimeter|distance|change|profit|share|left|remains?|pay|earns?"
    r"|weighs?)\b",
    re.IGNORECASE,
)
_ASKED_UNIT: Final = re.compile(
    rf"\bhow (?:many|much)\s+(?:more\s+)?(?P<unit>(?:{'|'.join(re.escape(word) for word in list_unit_words())})(?!\w))",
    re.IGNORECASE,
)
_COUNTS: Final = re.compile(r"\bhow many\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TranslationTask:
    """A question that a model may translate."""

    question: str
    """With stand-ins for its numbers."""
    quantities: tuple[Quantity, ...]
    stand_ins: tuple[str, ...]
    """Of each quantity: `18`, or `18%` for a share."""
    asked: BaseUnit | None
    """The unit that it asks for; None: it names none."""
    asks_for_count: bool
    """Whether it asks how many of something that is no unit."""

    @property
    def prompt(self) -> str:
        """What the model continues."""
        examples = "".join(f"Question: {question}\nExpression: {answer}\n\n" for question, answer in _EXAMPLES)
        head = "Translate each question into one arithmetic expression.\n\n"
        return f"{head}{examples}Question: {self.question}\nExpression:"

    @property
    def grammar(self) -> str:
        """What the model may write."""
        return build_grammar(sorted(self.stand_ins))


@dataclass(frozen=True, slots=True)
class Translation:
    """An expression with the question's numbers."""

    expression: str
    unit: Unit


class TranslationError(Exception):
    """A question that is not calculated, with a code, and what to do in words."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def read_task(text: str) -> TranslationTask:
    """Return what a model is to translate.

    Raises:
        TranslationError: the text asks for no number, or has too few or too many of them.
    """
    if not _ASKS.search(text):
        raise TranslationError("no_expression", "the text has no expression, and asks for no number")
    if len(text) > MOST_TEXT:
        raise TranslationError(
            "question_too_long", f"the text has {len(text)} characters; only {MOST_TEXT} are translated, so send less"
        )
    if has_range(text):
        raise TranslationError("ambiguous_numbers", "the text has a range of numbers; name the numbers that are meant")
    quantities = tuple(find_quantities(text))
    if (unread := find_unread_number(text, quantities)) is not None:
        raise TranslationError(
            "ambiguous_numbers",
            f"it is not certain what number {unread!r} is part of; write each number in digits: 14000000, 2.5",
        )
    if len(quantities) < LEAST_NUMBERS:
        raise TranslationError("too_few_numbers", f"the text has no expression, and less than {LEAST_NUMBERS} numbers")
    if len(quantities) > MOST_NUMBERS:
        raise TranslationError(
            "too_many_numbers",
            f"the text has {len(quantities)} numbers, and at most {MOST_NUMBERS} are translated; ask in steps, or write"
            " the expression",
        )
    if sum(one.is_percentage for one in quantities) > 1:
        raise TranslationError("too_many_shares", "the text has several per cent signs; ask in steps, or write it")
    asked = _ASKED_UNIT.findall(text)
    stand_ins = _choose_stand_ins(quantities)
    return TranslationTask(
        _replace_numbers(text, quantities, stand_ins),
        quantities,
        stand_ins,
        find_base_unit(asked[-1]) if asked else None,
        asks_for_count=not asked and bool(_COUNTS.search(text)),
    )


def _choose_stand_ins(quantities: Sequence[Quantity]) -> tuple[str, ...]:
    """Return a stand-in for each quantity: the smaller number gets the smaller one."""
    ranked = sorted(range(len(quantities)), key=lambda place: (Fraction(quantities[place].number.rstrip("%")), place))
    numbers = dict(zip(ranked, _STAND_INS[len(quantities)], strict=True))
    return tuple(f"{numbers[place]}{'%' * one.is_percentage}" for place, one in enumerate(quantities))


def _replace_numbers(text: str, quantities: Sequence[Quantity], stand_ins: Sequence[str]) -> str:
    """Return the text in one line, with stand-ins for its numbers."""
    parts, last = [], 0
    for stand_in, one in zip(stand_ins, quantities, strict=True):
        parts += [text[last : one.number_start], stand_in.rstrip("%")]
        last = one.number_end
    return " ".join("".join([*parts, text[last:]]).split())


def build_grammar(numbers: Sequence[str]) -> str:
    """Return the grammar of expressions with each of these numbers once, in EBNF.

    A rule for each set of numbers that are left; none is recursive. Brackets begin an expression, or there are none.
    """
    everything = tuple(numbers)
    rules = [f'root ::= " " {_name(everything)} "\\n"']
    for size in range(len(everything), 0, -1):
        has_brackets = 2 < size == len(everything)
        rules += [_build_rule(left, has_brackets=has_brackets) for left in combinations(everything, size)]
    return "\n".join([*rules, 'sign ::= " + " | " - " | " * " | " / "', 'sum ::= " + " | " - "']) + "\n"


def _name(numbers: Sequence[str]) -> str:
    return "left-" + "-".join(number.replace("%", "p") for number in numbers)


def _build_rule(numbers: tuple[str, ...], *, has_brackets: bool) -> str:
    choices = [_continue(f'"{number}"', _drop(numbers, number)) for number in numbers]
    if has_brackets:
        choices += [
            _continue(f'"({first}" sum "{second})"', _drop(numbers, first, second))
            for first, second in permutations(numbers, 2)
        ]
    return f"{_name(numbers)} ::= {' | '.join(choices)}"


def _drop(numbers: tuple[str, ...], *used: str) -> tuple[str, ...]:
    return tuple(number for number in numbers if number not in used)


def _continue(operand: str, rest: tuple[str, ...]) -> str:
    return f"{operand} sign {_name(rest)}" if rest else operand


def read_translation(task: TranslationTask, answer: str) -> Translation:
    """Return the expression that a model has written, with the question's numbers.

    Raises:
        TranslationError: it cannot be read, leaves out a number, or its units do not fit.
    """
    tree = _read_tree(task, answer.strip())
    names = dict(zip(_LETTERS, task.quantities, strict=False))
    used = [part.name for part in walk(tree) if isinstance(part, Name)]
    if left := [one.number for name, one in names.items() if name not in used]:
        raise TranslationError(
            "numbers_unused", f"the model's expression leaves out {', '.join(left)}; ask for one number, or write it"
        )
    if len(used) > len(names):
        raise TranslationError("translation_failed", NO_EXPRESSION)
    unit = _Units(names).measure(tree)
    target = _choose_unit(task, unit)
    bases = _list_bases(task)
    scaled = {name: write_scaled(one.number, _scale(one.unit, bases)) for name, one in names.items()}
    text = re.sub(rf"[{_LETTERS}]", lambda match: _enclose(scaled[match[0]]), print_tree(tree))
    ratio = Fraction(_measure_base(unit, bases), target.factor)
    expression = text if ratio == 1 else write_scaled(f"({text})", ratio)
    return Translation(expression, target)


def _read_tree(task: TranslationTask, answer: str) -> Node:
    """Return what a model has written, with letters for the stand-ins."""
    letters = dict(zip(task.stand_ins, _LETTERS, strict=False))
    if not _ANSWER.fullmatch(answer):
        raise TranslationError("translation_failed", NO_EXPRESSION)
    try:
        return parse(_STAND_IN.sub(lambda match: letters[match[0]], answer))
    except (CalculatorError, KeyError):
        raise TranslationError("translation_failed", NO_EXPRESSION) from None


def _enclose(value: str) -> str:
    """Return a value in brackets, unless it is one number."""
    return value if re.fullmatch(r"[\d.]+%?", value) else f"({value})"


def _list_bases(task: TranslationTask) -> dict[str, BaseUnit]:
    """Return the unit that each dimension is calculated in: the one that is asked for, or the question's first."""
    bases: dict[str, BaseUnit] = {} if task.asked is None else {task.asked.dimension: task.asked}
    for one in task.quantities:
        for base, _ in one.unit.powers:
            bases.setdefault(base.dimension, base)
    return bases


def _measure_base(unit: Unit, bases: Mapping[str, BaseUnit]) -> Fraction:
    """Return the factor of a unit's dimensions in the units that are calculated in."""
    factor = Fraction(1)
    for dimension, power in unit.dimension:
        factor *= bases[dimension].factor ** power
    return factor


def _scale(unit: Unit, bases: Mapping[str, BaseUnit]) -> Fraction:
    """Return by what a quantity is multiplied, so that all of its dimension are in one unit."""
    factor = unit.factor
    for base, power in unit.powers:
        factor /= bases[base.dimension].factor ** power
    return factor


def _choose_unit(task: TranslationTask, unit: Unit) -> Unit:
    """Return the unit of the answer: the one that is asked for, or one of the question that fits.

    Raises:
        TranslationError: the expression has another dimension than what is asked for.
    """
    if any(name.startswith("money") and power not in (-1, 1) for name, power in unit.dimension):
        raise _build_misfit(f"it is {describe_dimension(unit)}, and money is not multiplied with money")
    if task.asked is not None:
        target = Unit(((task.asked, 1),))
        if target.dimension == unit.dimension:
            return target
        has_none = not any(one.unit.dimension for one in task.quantities)
        if has_none and not unit.dimension:
            return target  # 3 and 4 and how many euros: only the question says what they are of
        raise _build_misfit(f"the expression is {describe_dimension(unit)}, and {task.asked.symbol} is asked for")
    if task.asks_for_count and unit.dimension:
        raise _build_misfit(f"the expression is {describe_dimension(unit)}, and a number of things is asked for")
    for one in task.quantities:
        if one.unit.dimension == unit.dimension:
            return one.unit if unit.dimension else NUMBER
    bases = _list_bases(task)
    return Unit(tuple((bases[dimension], power) for dimension, power in unit.dimension))


def _build_misfit(message: str) -> TranslationError:
    return TranslationError(
        "units_do_not_fit",
        f"the model's expression was not calculated, because {message}; write the expression yourself",
    )


@dataclass(frozen=True, slots=True)
class _Units:
    """Units of expressions."""

    values: dict[str, Quantity]

    def measure(self, tree: Node) -> Unit:
        """Return the unit of an expression.

        Raises:
            TranslationError: it adds what does not fit.
        """
        match tree:
            case Number() | Percent():
                return NUMBER
            case Name(name):
                return self.values[name].unit
            case Negative(operand):
                return self.measure(operand)
            case Inverse(operand):
                return NUMBER.per(self.measure(operand))
            case Product(operands):
                return Unit(tuple(power for one in operands for power in self.measure(one).powers))
            case Sum(operands):
                return self._add([self.measure(one) for one in operands])
        raise TranslationError("translation_failed", NO_EXPRESSION)

    def _add(self, units: list[Unit]) -> Unit:
        first = units[0]
        for other in units[1:]:
            if other.dimension != first.dimension:
                raise _build_misfit(f"it adds {describe_dimension(first)} and {describe_dimension(other)}")
        return first
