"""Rows of catalogues, which no question asks for: a handbook has hundreds of parts, faults and numbers that are alike.

They were added when the development half showed that six rows which are alike are too few: among the first five is
then whatever one asks for. They are made from word lists and a seed, and have no code of `own.PASSAGES`.
"""

import random
import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from bench.knowledge.own import PASSAGES

SEED: Final = 19
ROWS: Final = 40
"""Of each kind."""
MOST_TRIES: Final = 10_000
_CODES: Final = re.compile(
    r"E\d\d|[A-Z]{2}-\d{3}-[A-F]|[A-Z]P[ZA] \d{4}|[PRST]-\d\d|RV-[\d-]+|PRN-\w+-\d+|UN \d+|8\.\d+\.\d+|4\d{3}(-\d\d)?"
)
_PLACES: Final = ("press", "saw", "lathe", "milling machine", "conveyor", "paint booth", "crane", "compressor", "oven")
_SIDES: Final = ("left", "right", "upper", "lower", "front", "rear")
_SENSORS: Final = ("encoder", "feed motor", "light barrier", "pressure switch", "guard door", "oil pump", "cooling fan")
_STATES: Final = ("does not answer", "is too hot", "has lost its reference", "draws too much current", "is blocked")
_REMEDIES: Final = (
    "Call the service.",
    "Press RESET.",
    "Check the fuse.",
    "Clean it with a dry cloth.",
    "Wait 20 minutes.",
)
_MATERIALS: Final = ("nitrile", "fluorocarbon", "silicone", "rubber", "steel")
_NAMES: Final = (
    "Abara",
    "Bielski",
    "Castellano",
    "Drozd",
    "Eklund",
    "Fontaine",
    "Gunawan",
    "Hrubesch",
    "Iyer",
    "Jansma",
)
_DUTIES: Final = ("purchasing", "payroll", "help desk", "quality", "logistics", "legal", "training", "maintenance")
_SUBJECTS: Final = ("sick note", "overtime", "company car", "key handover", "working from home", "change of address")
_GOODS: Final = ("paint", "screws", "cardboard", "gloves", "gas bottles", "forklifts", "software", "catering", "waste")
_FIRMS: Final = ("Almqvist AB", "Barros Lda", "Corvin Kft", "Dunmore plc", "Eastgate Inc", "Farkas GmbH", "Grote BV")


def make_rows() -> list[tuple[str, str]]:
    """Return headings and texts, always the same."""
    rng = random.Random(SEED)
    return [row for make in _KINDS for row in _take(make(rng))]


def _take(rows: Iterator[tuple[str, str, str]]) -> Iterator[tuple[str, str]]:
    """Yield rows whose codes differ."""
    codes: set[str] = set()
    for code, heading, text in islice(rows, MOST_TRIES):
        if code not in codes and code not in _TAKEN:
            codes.add(code)
            yield heading, text
        if len(codes) == ROWS:
            return
    raise ValueError(f"{MOST_TRIES} rows have {len(codes)} codes, and {ROWS} are needed")


def _make_faults(rng: random.Random) -> Iterator[tuple[str, str, str]]:
    while True:
        code = f"E{rng.randrange(10, 100)}"
        what = f"the {rng.choice(_SIDES)} {rng.choice(_SENSORS)} of the {rng.choice(_PLACES)} {rng.choice(_STATES)}"
        yield code, "Faults", f"{code}: {what}. {rng.choice(_REMEDIES)}"


def _make_rings(rng: random.Random) -> Iterator[tuple[str, str, str]]:
    while True:
        code = f"4{''.join(rng.choices('147', k=3))}-{rng.choice(('03', '30', '13', '31', '33', '01', '10'))}"
        what = f"{rng.randrange(10, 90)} mm, {rng.choice(_MATERIALS)}: for the {rng.choice(_PLACES)}"
        yield code, "Parts", f"Seal ring {code}, {what}, all years."


def _make_filters(rng: random.Random) -> Iterator[tuple[str, str, str]]:
    while True:
        code = f"FK-{rng.choice((200, 202, 220, 222, 212, 221, 122, 210))}-{rng.choice('ABCDEF')}"
        what = f"{rng.choice((5, 10, 25, 40))} micrometres: for the {rng.choice(_PLACES)}"
        yield code, "Parts", f"Filter cartridge {code}, {what}, replaced every {rng.randrange(2, 20)}00 hours."


def _make_belts(rng: random.Random) -> Iterator[tuple[str, str, str]]:
    while True:
        code = f"{rng.choice(('XPZ', 'SPZ', 'XPA', 'SPA'))} {rng.choice((1, 2))}{rng.randrange(20, 60)}0"
        yield code, "Parts", f"Drive belt {code}: for the {rng.choice(_PLACES)} in hall {rng.randrange(1, 5)}."


def _make_contacts(rng: random.Random) -> Iterator[tuple[str, str, str]]:
    while True:
        code = f"4{''.join(rng.choices('1257', k=3))}"
        who = f"{rng.choice(_DUTIES).capitalize()}: {rng.choice(('Ms', 'Mr'))} {rng.choice(_NAMES)}"
        yield code, "Contacts", f"{who}, extension {code}, on weekdays and by arrangement."


def _make_forms(rng: random.Random) -> Iterator[tuple[str, str, str]]:
    while True:
        code = f"{rng.choice('PRST')}-{rng.randrange(10, 80)}"
        yield code, "Forms", f"Form {code}: {rng.choice(_SUBJECTS)}, to be signed by the head of department."


def _make_contracts(rng: random.Random) -> Iterator[tuple[str, str, str]]:
    while True:
        code = f"RV-20{rng.choice((12, 21, 20, 22, 24))}-0{rng.randrange(10, 90)}"
        what = f"{rng.choice(_GOODS)}, notice of {rng.randrange(1, 7)} months"
        yield code, "Contracts", f"Framework agreement {code} with {rng.choice(_FIRMS)}: {what}."


def _make_printers(rng: random.Random) -> Iterator[tuple[str, str, str]]:
    while True:
        code = f"PRN-{rng.randrange(1, 8)}F-{rng.choice(('02', '03', '20', '30', '22', '23', '32', '33'))}"
        colour = rng.choice(("in colour", "in black only"))
        yield code, "Network", f"Printer {code} is beside {rng.choice(_DUTIES)} and prints {colour}."


def _make_versions(rng: random.Random) -> Iterator[tuple[str, str, str]]:
    while True:
        code = f"8.{rng.choice((1, 4, 14, 41, 11, 44, 12))}.{rng.randrange(1, 25)}"
        yield code, "Software", f"Version {code} of the planning tool repairs the list of {rng.choice(_GOODS)}."


def _make_substances(rng: random.Random) -> Iterator[tuple[str, str, str]]:
    while True:
        code = f"UN 1{''.join(rng.choices('01379', k=3))}"
        yield code, "Substances", f"{code}: cabinet {rng.randrange(1, 5)}, at most {rng.randrange(1, 9)}0 litres."


_KINDS: Final = (
    _make_faults,
    _make_rings,
    _make_filters,
    _make_belts,
    _make_contacts,
    _make_forms,
    _make_contracts,
    _make_printers,
    _make_versions,
    _make_substances,
)
_TAKEN: Final = frozenset(match[0] for match in _CODES.finditer(" ".join(text for _, text in PASSAGES)))
