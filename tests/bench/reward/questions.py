"""Questions in prose for `make bench NAME=reward`, built backwards from their answers: a half to train on, one held out.

The halves share no template, no name, no good and no number: numbers are even in training and odd in what is held out.
`split_questions` checks that of what it has made.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

Numbers = dict[str, int]


@dataclass(frozen=True, slots=True)
class Question:
    """One question."""

    template: int
    text: str
    answer: Fraction
    expression: str
    """One that is right, with its numbers."""


@dataclass(frozen=True, slots=True)
class Half:
    """What the questions of one half are made of."""

    parity: int
    """Of all numbers: 0 even, 1 odd."""
    names: tuple[str, ...]
    goods: tuple[str, ...]
    templates: tuple[tuple[str, str], ...]
    """Form of the expression, and the text."""


class _Draw:
    """Draws numbers of one parity."""

    def __init__(self, seed: random.Random, parity: int) -> None:
        self._seed, self._parity = seed, parity

    def between(self, least: int, most: int) -> int:
        """Return a number from `least` to about `most`."""
        return self._seed.randrange(least + (least + self._parity) % 2, most, 2)

    @property
    def small(self) -> int:
        """A number of groups."""
        return self.between(3, 13)

    @property
    def middle(self) -> int:
        """A number of things in a group."""
        return self.between(14, 60)

    @property
    def large(self) -> int:
        """A number from which the others can be taken."""
        return self.between(150, 480)

    def even(self) -> int:
        """A number whose product with any other is even."""
        return 2 * self._seed.randrange(4, 20)


def _divide(draw: _Draw) -> Numbers:
    groups = draw.small
    return {"a": groups * draw.middle, "b": groups}


def _share_sum(draw: _Draw) -> Numbers:
    groups = draw.small
    total = groups * draw.even()
    first = draw.between(3, max(5, total - 3))
    return {"a": first, "b": total - first, "c": groups}


FORMS: Final[Mapping[str, Callable[[_Draw], Numbers]]] = {
    "{a} + {b}": lambda draw: {"a": draw.large, "b": draw.middle},
    "{b} + {a}": lambda draw: {"a": draw.large, "b": draw.middle},
    "{a} - {b}": lambda draw: {"a": draw.large, "b": draw.middle},
    "{a} * {b}": lambda draw: {"a": draw.small, "b": draw.middle},
    "{b} * {a}": lambda draw: {"a": draw.small, "b": draw.middle},
    "{a} / {b}": _divide,
    "{a}% * {b}": lambda draw: {"a": draw.middle, "b": draw.large},
    "{a} + {b} + {c}": lambda draw: {"a": draw.middle, "b": draw.large, "c": draw.small},
    "{a} - {b} + {c}": lambda draw: {"a": draw.large, "b": draw.middle, "c": draw.small},
    "{a} + {b} - {c}": lambda draw: {"a": draw.large, "b": draw.small, "c": draw.middle},
    "{a} - {b} - {c}": lambda draw: {"a": draw.large, "b": draw.middle, "c": draw.small},
    "{a} * {b} + {c}": lambda draw: {"a": draw.small, "b": draw.middle, "c": draw.between(60, 140)},
    "{a} * {b} - {c}": lambda draw: {"a": draw.small, "b": draw.middle, "c": draw.between(3, 30)},
    "{a} * {b} * {c}": lambda draw: {"a": draw.small, "b": draw.middle, "c": draw.between(61, 99)},
    "({a} + {b}) * {c}": lambda draw: {"a": draw.middle, "b": draw.between(61, 99), "c": draw.small},
    "({a} - {b}) * {c}": lambda draw: {"a": draw.between(61, 99), "b": draw.middle, "c": draw.small},
    "({a} + {b}) / {c}": _share_sum,
}
"""Form -> how its numbers are drawn, so that answers are above 0; shares are whole."""

TRAINING: Final = Half(
    parity=0,
    names=("Clara", "David", "Elif", "Frank", "Greta", "Hugo", "Irina", "Kofi", "Maya", "Nils", "Olga", "Pablo"),
    goods=("apples", "books", "coins", "eggs", "flowers", "keys", "lamps", "marbles", "nails", "pears", "ropes", "shirts"),
    templates=(
        ("{a} + {b}", "{name} has {a} {good} and buys {b} more. How many {good} does {name} have now?"),
        ("{a} + {b}", "A shelf holds {a} {good}. Someone adds {b} {good}. How many {good} are on the shelf?"),
        ("{b} + {a}", "{name} found {b} {good} and {other} found {a} {good}. How many {good} did they find altogether?"),
        ("{a} - {b}", "{name} owns {a} {good} and sells {b} of them. How many {good} are left?"),
        ("{a} - {b}", "{name} collected {a} {good}. {other} collected {b} {good}. How many more did {name} collect?"),
        ("{a} - {b}", "There were {a} {good} in a drawer. {name} took {b}. How many {good} stayed in the drawer?"),
        ("{a} * {b}", "{name} fills {a} bags. Every bag gets {b} {good}. How many {good} are in the bags?"),
        ("{a} * {b}", "A truck makes {a} trips and brings {b} {good} on each trip. How many {good} does it bring?"),
        ("{b} * {a}", "A lamp costs {b} dollars. {name} orders {a} lamps. How much does {name} pay?"),
        ("{a} / {b}", "{a} {good} are split evenly between {b} families. How many {good} does each family receive?"),
        ("{a} / {b}", "{name} puts {a} {good} into crates. Each crate takes {b} {good}. How many crates are needed?"),
        ("{a} / {b}", "{b} coats cost {a} dollars together. How much does each coat cost?"),
        ("{a}% * {b}", "{name} has {b} {good}, and {a}% of them are red. How many red {good} are there?"),
        ("{a}% * {b}", "Of {b} visitors, {a}% paid with a card. How many visitors paid with a card?"),
        ("{a} + {b} + {c}", "{name} has {a} {good}, {other} has {b} and their aunt has {c}. How many {good} are that in total?"),
        ("{a} + {b} + {c}", "A shop sold {a} {good} in May, {b} in June and {c} in July. How many {good} did it sell in all?"),
        ("{a} - {b} + {c}", "{name} had {a} {good}, lost {b} and then found {c}. How many {good} does {name} have now?"),
        ("{a} - {b} + {c}", "A store has {a} {good}. It sells {b} and gets {c} new ones. How many {good} does it have?"),
        ("{a} + {b} - {c}", "{name} had {a} {good}, received {b} more and gave away {c}. How many {good} remain?"),
        ("{a} + {b} - {c}", "A lorry carries {a} {good}. {b} are loaded and {c} are unloaded. How many {good} does it carry?"),
        ("{a} - {b} - {c}", "Of {a} {good}, {name} ate {b} and {other} ate {c}. How many {good} are left?"),
        ("{a} - {b} - {c}", "A fund has {a} dollars. It pays {b} dollars for paint and {c} dollars for brushes. How much is left?"),
        ("{a} * {b} + {c}", "{name} has {a} boxes of {b} {good} and {c} loose {good}. How many {good} does {name} have?"),
        ("{a} * {b} + {c}", "{name} buys {a} chairs for {b} dollars each and a table for {c} dollars. How much is the total?"),
        ("{a} * {b} + {c}", "A guide charges {c} dollars plus {b} dollars for each of {a} guests. How much does the group pay?"),
        ("{a} * {b} - {c}", "{name} packs {a} boxes with {b} {good} in each. {c} {good} break. How many {good} are whole?"),
        ("{a} * {b} - {c}", "{name} sells {a} cakes for {b} dollars each and spends {c} dollars on flour. How much is left?"),
        ("{a} * {b} * {c}", "A tower has {a} floors with {b} rooms each. In every room are {c} {good}. How many {good} are in it?"),
        ("{a} * {b} * {c}", "{a} teams of {b} workers carry {c} {good} each. How many {good} do they carry?"),
        ("({a} + {b}) * {c}", "A meal costs {a} dollars and a drink {b} dollars. How much do {c} people pay who take both?"),
        ("({a} + {b}) * {c}", "Each of {c} kits has {a} {good} and {b} spare ones. How many {good} are in all kits?"),
        ("({a} - {b}) * {c}", "A pan costs {b} dollars to make and sells for {a} dollars. What is the profit on {c} pans?"),
        ("({a} - {b}) * {c}", "{name} gets {a} {good} a turn and loses {b} of them. How many {good} are that after {c} turns?"),
        ("({a} + {b}) / {c}", "{name} has {a} {good} and {other} has {b}. They share all with {c} people. How many gets each?"),
        ("({a} + {b}) / {c}", "{a} red and {b} blue {good} go into {c} equal piles. How many {good} are in each pile?"),
    ),
)  # fmt: skip

HELD_OUT: Final = Half(
    parity=1,
    names=("Amir", "Beate", "Chen", "Dora", "Ezra", "Fatou", "Goran", "Hanna", "Ivo", "Judith", "Karim", "Luisa"),
    goods=("badges", "bricks", "cups", "figs", "hats", "kites", "lemons", "medals", "plums", "spoons", "tiles", "towels"),
    templates=(
        ("{a} + {b}", "An album contains {a} photos. Over the summer {b} new photos are put in. How many photos does it contain then?"),
        ("{b} + {a}", "{name} scored {b} points before lunch and {a} after lunch. How many points is that?"),
        ("{a} + {b}", "The older tree bears {a} {good} and the younger tree {b}. How many {good} do both trees bear?"),
        ("{a} - {b}", "A novel has {a} pages. {name} has read {b} of them. How many pages are still to be read?"),
        ("{a} - {b}", "{b} of the {a} seats in a cinema are taken. How many seats are free?"),
        ("{a} - {b}", "A coat was {a} euros and is now {b} euros cheaper. How much does it cost now?"),
        ("{a} * {b}", "{a} buses stand in a yard, and {b} passengers fit in each bus. How many passengers fit in the buses?"),
        ("{b} * {a}", "A gardener plants {b} {good} in a row and makes {a} such rows. How many {good} does the gardener plant?"),
        ("{a} * {b}", "{name} saves {b} euros each month. How many euros does {name} save in {a} months of work?"),
        ("{a} / {b}", "A baker arranges {a} rolls on {b} trays, the same number on each tray. How many rolls lie on a tray?"),
        ("{a} / {b}", "{name} cuts a ribbon into {b} pieces for {a} {good}. How many {good} go with every piece?"),
        ("{a} / {b}", "The bill of {a} euros is divided equally among {b} guests. How many euros does every guest pay?"),
        ("{a}% * {b}", "In a town of {b} houses, {a}% have a garden. How many houses have a garden?"),
        ("{a}% * {b}", "Of {b} letters, {name} answered {a}%. How many letters did {name} answer?"),
        ("{a} + {b} + {c}", "The choir has {a} altos, {b} sopranos and {c} basses. How many singers does it have?"),
        ("{a} + {b} + {c}", "{name} spends {a} euros on food, {b} euros on rent and {c} euros on books. How much does {name} spend?"),
        ("{a} - {b} + {c}", "A library lends out {b} of its {a} films, and {c} come back. How many films are in the library?"),
        ("{a} - {b} + {c}", "A pond holds {a} fish. A heron catches {b} and the keeper puts in {c}. How many fish swim there now?"),
        ("{a} + {b} - {c}", "On a bus are {a} riders. {b} climb on and {c} climb off. How many riders are on the bus?"),
        ("{a} + {b} - {c}", "{name} opens the till with {a} euros, takes in {b} euros and pays out {c} euros. How much is in it?"),
        ("{a} - {b} - {c}", "From {a} {good} in a basket, {b} are rotten and {c} are sold. How many {good} stay in the basket?"),
        ("{a} - {b} - {c}", "A walk has {a} steps. {name} takes {b} before noon and {c} in the evening. How many steps are missing?"),
        ("{a} * {b} + {c}", "{name} lays {a} rows of {b} {good} and {c} {good} along the edge. How many {good} does {name} lay?"),
        ("{a} * {b} + {c}", "A printer costs {c} euros and each of {a} cartridges {b} euros. What is the total price?"),
        ("{a} * {b} - {c}", "A school orders {a} packs of {b} {good}, but {c} {good} are missing. How many {good} arrive?"),
        ("{a} * {b} - {c}", "{name} mows {a} lawns for {b} euros each and pays {c} euros for petrol. How much does {name} keep?"),
        ("{a} * {b} * {c}", "A farm has {a} barns, each with {b} boxes, and every box holds {c} {good}. How many {good} are stored?"),
        ("{a} * {b} * {c}", "{a} printers run for {b} shifts and print {c} posters a shift. How many posters do they print?"),
        ("({a} + {b}) * {c}", "A visitor pays {a} euros for the museum and {b} euros for the tour. How much do {c} visitors pay?"),
        ("({a} + {b}) * {c}", "Each of {c} parcels contains {a} {good} and {b} ribbons. How many objects do the parcels contain?"),
        ("({a} - {b}) * {c}", "A ticket of {a} euros is reduced by {b} euros. How much do {c} reduced tickets cost?"),
        ("({a} - {b}) * {c}", "A hall has {a} chairs in each row, of which {b} are broken. How many good chairs have {c} rows?"),
        ("({a} + {b}) / {c}", "{name} picks {a} {good} and {other} picks {b}. They fill {c} jars evenly. How many {good} are in a jar?"),
        ("({a} + {b}) / {c}", "Classes of {a} and {b} pupils are put into {c} equal groups. How many pupils are in a group?"),
    ),
)  # fmt: skip


def generate_questions(half: Half, count: int, seed: int) -> list[Question]:
    """Return so many different questions, each template as often as the others."""
    random_numbers = random.Random(seed)
    draw, questions = _Draw(random_numbers, half.parity), dict[str, Question]()
    while len(questions) < count:
        template = len(questions) % len(half.templates)
        form, text = half.templates[template]
        numbers = FORMS[form](draw)
        if len(set(numbers.values())) < len(numbers):
            continue
        name, other = random_numbers.sample(half.names, 2)
        words = {"name": name, "other": other, "good": random_numbers.choice(half.goods)}
        expression = form.format(**numbers)
        question = Question(template, text.format(**numbers, **words), compute(form, numbers), expression)
        questions.setdefault(question.text, question)
    return list(questions.values())


def compute(form: str, numbers: Numbers) -> Fraction:
    """Return the value of a form, in Python's own fractions."""
    text = re.sub(r"\{(\w)\}%", r"({\1} / F(100))", form)
    text = re.sub(r"\{(\w)\}", r"F({\1})", text).format(**numbers)
    value: Fraction = eval(text, {"F": Fraction, "__builtins__": {}})
    return value


def split_questions(training: int, held_out: int, seed: int) -> tuple[list[Question], list[Question]]:
    """Return questions of both halves. Raise ValueError if they share a template, a name, a good or a number."""
    halves = generate_questions(TRAINING, training, seed), generate_questions(HELD_OUT, held_out, seed)
    for what, (one, other) in _list_parts(halves).items():
        if shared := one & other:
            raise ValueError(f"{what}: {sorted(shared)[:5]} are in both halves; change questions.py")
    return halves


def _list_parts(halves: tuple[list[Question], list[Question]]) -> dict[str, tuple[set[str], set[str]]]:
    texts = [{text for _, text in half.templates} for half in (TRAINING, HELD_OUT)]
    numbers = [{number for one in half for number in _find_numbers(one.text)} for half in halves]
    return {
        "templates": (texts[0], texts[1]),
        "names": (set(TRAINING.names), set(HELD_OUT.names)),
        "goods": (set(TRAINING.goods), set(HELD_OUT.goods)),
        "numbers": (numbers[0], numbers[1]),
    }


def _find_numbers(text: str) -> Iterator[str]:
    yield from re.findall(r"\d+", text)
