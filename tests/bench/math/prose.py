"""Questions in prose whose answers take a calculation, built backwards from the answers, without SymPy.

Both halves were written before the rules and the few-shot prompt of `math_mode`; the prompt's examples are of neither.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

NAMES: Final = ("Mina", "Otto", "Priya", "Jonas", "Lea", "Tariq", "Sofia", "Emil")
GOODS: Final = ("pencils", "stickers", "oranges", "screws", "tickets", "candles", "postcards", "buttons")


@dataclass(frozen=True, slots=True)
class Question:
    """One question; without an answer it is one that no calculation belongs to."""

    kind: str
    """`translation`, `units` or `none`: the way that it is meant for."""
    template: str
    text: str
    answer: Fraction | None = None
    unit: str = ""
    """Symbol; empty: a plain number."""


Maker = Callable[[random.Random], tuple[str, Fraction | int | None, str]]


def _boxes(draw: random.Random) -> tuple[str, int, str]:
    boxes, each, gone, good = draw.randint(4, 30), draw.randint(6, 40), draw.randint(5, 20), draw.choice(GOODS)
    name = draw.choice(NAMES)
    text = f"{name} buys {boxes} packets of {good}. Each packet holds {each} {good}. {name} uses up {gone} of them."
    return f"{text} How many {good} remain?", boxes * each - gone, ""


def _lift(draw: random.Random) -> tuple[str, int, str]:
    start, out, more = draw.randint(30, 90), draw.randint(5, 29), draw.randint(5, 60)
    text = (
        f"A ferry leaves with {start} passengers. At the island {out} of them leave the ferry and {more} others board."
    )
    return f"{text} How many passengers does the ferry carry then?", start - out + more, ""


def _share(draw: random.Random) -> tuple[str, int, str]:
    people, each, good = draw.randint(3, 12), draw.randint(6, 40), draw.choice(GOODS)
    return (
        f"If {people * each} {good} are divided equally among {people} pupils, how many {good} does each one get?",
        each,
        "",
    )


def _rows(draw: random.Random) -> tuple[str, int, str]:
    rows, seats = draw.randint(6, 40), draw.randint(8, 30)
    return (
        f"A hall has {rows} rows with {seats} seats in every row. How many seats are there in the hall?",
        rows * seats,
        "",
    )


def _savings(draw: random.Random) -> tuple[str, int, str]:
    before, gift, spent = draw.randint(100, 400), draw.randint(20, 90), draw.randint(15, 95)
    name = draw.choice(NAMES)
    text = f"{name} had {before} euros, was given {gift} euros for a birthday and spent {spent} euros on shoes."
    return f"{text} How many euros are left?", before + gift - spent, ""


def _difference(draw: random.Random) -> tuple[str, int, str]:
    less, gap = draw.randint(40, 400), draw.randint(11, 300)
    first, second = draw.sample(NAMES, 2)
    return (
        f"{first} has read {less + gap} pages and {second} has read {less} pages. How many more pages has {first} read?",
        gap,
        "",
    )


def _sum(draw: random.Random) -> tuple[str, int, str]:
    a, b, c = (draw.randint(12, 400) for _ in range(3))
    text = f"A bakery sold {a} loaves on Friday, {b} loaves on Saturday and {c} loaves on Sunday."
    return f"{text} How many loaves did it sell altogether?", a + b + c, ""


def _per_cent(draw: random.Random) -> tuple[str, Fraction, str]:
    share, whole = draw.choice((5, 10, 20, 25, 40, 60, 75)), draw.randint(2, 60) * 20
    text = f"A village has {whole} inhabitants, and {share}% of them own a bicycle."
    return f"{text} How many inhabitants own a bicycle?", Fraction(share * whole, 100), ""


def _price(draw: random.Random) -> tuple[str, int, str]:
    count, price, fee = draw.randint(2, 20), draw.randint(3, 60), draw.randint(4, 30)
    good = draw.choice(GOODS)
    return (
        f"A shop charges {price} euros for a bag of {good}. What do {count} bags cost with {fee} euros for delivery?",
        count * price + fee,
        "",
    )


def _teams(draw: random.Random) -> tuple[str, int, str]:
    teams, size = draw.randint(3, 12), draw.randint(4, 11)
    return f"{teams * size} players form teams of {size} players. How many teams are there?", teams, ""


def _pay(draw: random.Random) -> tuple[str, int, str]:
    hours, wage, days = draw.randint(3, 9), draw.randint(11, 40), draw.randint(2, 20)
    text = f"{draw.choice(NAMES)} works {hours} hours a day and earns {wage} euros an hour."
    return f"{text} How many euros is that after {days} days?", hours * wage * days, ""


def _left_over(draw: random.Random) -> tuple[str, int, str]:
    total, first, second = draw.randint(200, 600), draw.randint(20, 90), draw.randint(20, 90)
    text = f"A roll has {total} stamps. In the morning {first} stamps are sold and in the afternoon {second}."
    return f"{text} How many stamps are still on the roll?", total - first - second, ""


def _metres(draw: random.Random) -> tuple[str, int, str]:
    a, b = draw.randint(2, 40), draw.randint(5, 990)
    return f"How many metres are {a} km and {b} m?", a * 1000 + b, "m"


def _minutes(draw: random.Random) -> tuple[str, int, str]:
    a, b = draw.randint(2, 9), draw.randint(5, 55)
    return f"A film lasts {a} hours and {b} minutes. How many minutes is that?", a * 60 + b, "min"


def _to_kilograms(draw: random.Random) -> tuple[str, Fraction, str]:
    a = draw.randint(120, 9900)
    return f"Convert {a} g to kilograms.", Fraction(a, 1000), "kg"


def _inches(draw: random.Random) -> tuple[str, Fraction, str]:
    a = draw.randint(2, 96)
    return f"What is {a} inches in centimetres?", a * Fraction(254, 100), "cm"


def _misfit(draw: random.Random) -> tuple[str, None, str]:
    return f"How many metres are {draw.randint(2, 90)} kg?", None, ""


def _no_number(text: str) -> Maker:
    return lambda _: (text, None, "")


def _year(draw: random.Random) -> tuple[str, None, str]:
    return f"Which treaty was signed in {draw.randint(1648, 1990)}?", None, ""


REPORTED: Final[tuple[tuple[str, Maker], ...]] = (
    ("translation", _boxes),
    ("translation", _lift),
    ("translation", _share),
    ("translation", _rows),
    ("translation", _savings),
    ("translation", _difference),
    ("translation", _sum),
    ("translation", _per_cent),
    ("translation", _price),
    ("translation", _teams),
    ("translation", _pay),
    ("translation", _left_over),
    ("units", _metres),
    ("units", _minutes),
    ("units", _to_kilograms),
    ("units", _inches),
    ("none", _misfit),
    ("none", _year),
    ("none", _no_number("Who painted the ceiling of the Sistine Chapel?")),
    ("none", _no_number("Write two sentences about the sea.")),
)
"""The half whose figures are reported."""


def _p_eggs(draw: random.Random) -> tuple[str, int, str]:
    trays, each, broken = draw.randint(3, 20), draw.randint(6, 30), draw.randint(2, 15)
    return (
        f"A farm packs {trays} trays with {each} eggs each. {broken} eggs break on the way. How many eggs arrive?",
        trays * each - broken,
        "",
    )


def _p_train(draw: random.Random) -> tuple[str, int, str]:
    a, b, c = draw.randint(40, 120), draw.randint(5, 39), draw.randint(5, 50)
    return (
        f"There are {a} cars in a garage. {b} drive away and {c} come in. How many cars are in the garage now?",
        a - b + c,
        "",
    )


def _p_cake(draw: random.Random) -> tuple[str, int, str]:
    people, each = draw.randint(3, 12), draw.randint(2, 9)
    return (
        f"{people} friends share {people * each} slices of pizza equally. How many slices does each friend eat?",
        each,
        "",
    )


def _p_garden(draw: random.Random) -> tuple[str, int, str]:
    a, b = draw.randint(3, 30), draw.randint(3, 30)
    return f"A garden has {a} beds and {b} tulips grow in each bed. How many tulips grow in the garden?", a * b, ""


def _p_purse(draw: random.Random) -> tuple[str, int, str]:
    a, b = draw.randint(50, 200), draw.randint(5, 49)
    return f"{draw.choice(NAMES)} has {a} dollars and pays {b} dollars for lunch. How much money is left?", a - b, ""


def _p_total(draw: random.Random) -> tuple[str, int, str]:
    a, b = draw.randint(12, 300), draw.randint(12, 300)
    return f"In one jar are {a} beans and in another {b} beans. How many beans are in both jars together?", a + b, ""


def _p_discount(draw: random.Random) -> tuple[str, Fraction, str]:
    share, whole = draw.choice((5, 10, 20, 25, 50)), draw.randint(2, 60) * 20
    return (
        f"{share}% of the {whole} people at a concert were children. How many children were there?",
        Fraction(share * whole, 100),
        "",
    )


def _p_rent(draw: random.Random) -> tuple[str, int, str]:
    a, b, c = draw.randint(2, 12), draw.randint(10, 90), draw.randint(5, 60)
    return (
        f"A bike costs {b} dollars a day and {c} dollars for insurance. What is the price for {a} days?",
        a * b + c,
        "",
    )


def _p_hours(draw: random.Random) -> tuple[str, int, str]:
    a = draw.randint(2, 20)
    return f"How many hours are {a} days?", a * 24, "h"


def _p_feet(draw: random.Random) -> tuple[str, Fraction, str]:
    a = draw.randint(2, 20)
    return f"Convert {a} feet to metres", a * Fraction(3048, 10000), "m"


PRACTICE: Final[tuple[tuple[str, Maker], ...]] = (
    ("translation", _p_eggs),
    ("translation", _p_train),
    ("translation", _p_cake),
    ("translation", _p_garden),
    ("translation", _p_purse),
    ("translation", _p_total),
    ("translation", _p_discount),
    ("translation", _p_rent),
    ("units", _p_hours),
    ("units", _p_feet),
    ("none", _no_number("How are you?")),
    ("none", _no_number("My flight LH 454 leaves on 2026-12-01 from gate 27. Where is the lounge?")),
)
"""The half that the rules and the prompt were written on."""


def generate_questions(makers: tuple[tuple[str, Maker], ...], count: int, seed: int) -> list[Question]:
    """Return so many questions, each template as often as the others."""
    draw = random.Random(seed)
    questions = []
    for number in range(count):
        kind, make = makers[number % len(makers)]
        text, answer, unit = make(draw)
        template = make.__name__.strip("_")
        questions.append(Question(kind, template, text, None if answer is None else Fraction(answer), unit))
    return questions
