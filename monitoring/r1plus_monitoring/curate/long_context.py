"""The stratum `context`: questions about long agreements, whose answers are single sentences somewhere in them.

Called by the curator and by `make bench NAME=context`. An agreement has as many clauses as its length asks for, each
with names and amounts of its own, so nothing but reading it gives the answer. Three kinds of question:

- needle: one sentence says it;
- hops: one sentence names a person, another, far from it, says what is asked of that person;
- summary: three facts, from the beginning, the middle and the end, in one line.

Half of the items of a kind have their sentences early, the others late. The same arguments give the same items.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from r1plus_contract.suites.suite import Item
from r1plus_monitoring.scoring.scorers import ScorerName

STRATUM: Final = "context"
CHARACTERS_PER_TOKEN: Final = 3.1
"""Of these agreements: 3.1 with the tokenizer of SmolLM2, 3.3 with that of Qwen2.5. So an item has no more tokens."""
SPARE_TOKENS: Final = 100
"""Room for the chat template and the end of the last clause."""
LEAST_TOKENS: Final = 512
"""Below it there are too few clauses to hide a sentence among."""
KINDS: Final = ("needle", "hops", "summary")
_GIVEN: Final = (
    "Alma", "Bruno", "Clara", "Dario", "Edith", "Felix", "Greta", "Hugo", "Irene", "Jonas", "Karla", "Leon", "Mira",
    "Nils", "Olga", "Pavel", "Rosa", "Silas", "Tessa", "Viktor",
)  # fmt: skip
_FAMILY: Final = (
    "Abbott", "Becker", "Castell", "Duarte", "Engel", "Fontana", "Garner", "Holm", "Ivanov", "Jansen", "Keller",
    "Lindt", "Moreau", "Novak", "Olsen", "Petrov", "Quinn", "Rossi", "Sommer", "Torres",
)  # fmt: skip
_CITIES: Final = ("Lyon", "Turin", "Porto", "Malmo", "Graz", "Ghent", "Brno", "Cork", "Bergen", "Basel")
_GOODS: Final = ("timber", "copper", "grain", "glass", "cement", "paper", "cotton", "salt", "steel", "rubber")
_ROOMS: Final = ("archive", "boiler room", "workshop", "cellar", "laboratory", "garage", "attic", "library")
_DUTIES: Final = (
    "{name} shall deliver {amount} tonnes of {goods} to the warehouse in {city} before the end of month {month}.",
    "The fee that {name} owes for the storage of {goods} in {city} is {amount} euros a quarter.",
    "If {goods} is damaged in {city}, {name} shall be told within {month} working days and may claim {amount} euros.",
    "{name} may inspect the {goods} in {city} {month} times a year, at a cost of {amount} euros for each visit.",
    "Insurance for the {goods} of {name} covers up to {amount} euros and is renewed in {city} in month {month}.",
)


@dataclass(frozen=True, slots=True)
class AgreementSentence:
    """A sentence, and where it stands in the agreement: 0 at its beginning, 1 at its end."""

    text: str
    depth: float


@dataclass(frozen=True, slots=True)
class AgreementQuestion:
    """What is asked of an agreement, the sentences that answer it, and the answer."""

    text: str
    passages: tuple[AgreementSentence, ...]
    scorer: ScorerName
    answer: str


def build_long_items(tokens: int, count: int, seed: int = 1) -> tuple[Item, ...]:
    """Build `count` items of almost `tokens` tokens, a third of each kind. Raise ValueError for fewer than 512."""
    if tokens < LEAST_TOKENS:
        raise ValueError(f"tokens: {tokens} is less than {LEAST_TOKENS}, the shortest agreement; ask for more")
    return tuple(_build_item(KINDS[number % len(KINDS)], tokens, number // len(KINDS), seed) for number in range(count))


def read_tokens(item: Item) -> int:
    """Return the length that an item was built for."""
    return int(item.id.split("-")[1])


def _build_item(kind: str, tokens: int, number: int, seed: int) -> Item:
    # Depths differ from item to item of a kind, and are the same for every length.
    generator = random.Random(f"{seed}/{kind}/{tokens}/{number}")  # noqa: S311 - a text, not a secret
    question = {"needle": _ask_needle, "hops": _ask_hops, "summary": _ask_summary}[kind](generator, number)
    characters = round((tokens - SPARE_TOKENS) * CHARACTERS_PER_TOKEN) - len(question.text)
    agreement = _write_agreement(generator, question.passages, characters)
    return Item(
        id=f"{kind}-{tokens}-{number:02}",
        stratum=STRATUM,
        prompt=f"{agreement}\n\n{question.text}",
        scorer=question.scorer.value,
        answers=(question.answer,),
    )


def _choose_depth(number: int) -> float:
    """Return the depth of an item's sentence: 0.1, 0.6, 0.3, 0.8, 0.2, 0.7, 0.4, 0.9, 0.5, and again."""
    return (0.1, 0.6, 0.3, 0.8, 0.2, 0.7, 0.4, 0.9, 0.5)[number % 9]


def _ask_needle(generator: random.Random, number: int) -> AgreementQuestion:
    room, code = generator.choice(_ROOMS), str(generator.randint(1000, 9999))
    passage = AgreementSentence(f"The access code of the {room} is {code}.", _choose_depth(number))
    text = f"What is the access code of the {room}? Answer with the code only."
    return AgreementQuestion(text, (passage,), ScorerName.NUMERIC, code)


def _ask_hops(generator: random.Random, number: int) -> AgreementQuestion:
    unit, account = generator.randint(11, 99), str(generator.randint(100_000, 999_999))
    name = _choose_name(generator)
    far = _choose_depth(number)
    passages = (
        AgreementSentence(f"The guarantor of unit {unit} is {name}.", far),
        AgreementSentence(f"The bank account of {name} has the number {account}.", 1 - far if far != 0.5 else 0.15),
    )
    text = f"What is the number of the bank account of the guarantor of unit {unit}? Answer with the number only."
    return AgreementQuestion(text, passages, ScorerName.NUMERIC, account)


def _ask_summary(generator: random.Random, number: int) -> AgreementQuestion:
    landlord, city, years = _choose_name(generator), generator.choice(_CITIES), generator.randint(3, 29)
    shift = 0.04 * (number % 3)
    passages = (
        AgreementSentence(f"The landlord under this agreement is {landlord}.", 0.05 + shift),
        AgreementSentence(f"The place of jurisdiction is {city}.", 0.45 + shift),
        AgreementSentence(f"This agreement ends after {years} years.", 0.85 + shift),
    )
    text = (
        "Summarise this agreement in one line: the landlord, the place of jurisdiction and the number of years after"
        " which it ends, separated by commas. Example: Jane Doe, Paris, 2"
    )
    return AgreementQuestion(text, passages, ScorerName.CONTAINS, f"{landlord}, {city}, {years}")


def _choose_name(generator: random.Random) -> str:
    return f"{generator.choice(_GIVEN)} {generator.choice(_FAMILY)}"


def _write_agreement(generator: random.Random, passages: Sequence[AgreementSentence], characters: int) -> str:
    """Return numbered clauses of about `characters` in all, with the passages among them."""
    waiting = sorted(passages, key=lambda passage: passage.depth)
    named = {passage.text for passage in passages}
    lines, length = ["Agreement on storage and delivery."], 0
    clauses = _iter_clauses(generator, named)
    while length < characters or waiting:
        if waiting and length >= waiting[0].depth * characters:
            sentence = waiting.pop(0).text
        else:
            sentence = next(clauses)
        lines.append(f"{len(lines)}. {sentence}")
        length += len(lines[-1]) + 1
    return "\n".join(lines)


def _iter_clauses(generator: random.Random, named: set[str]) -> Iterator[str]:
    """Yield clauses without end; none is about a person of the passages."""
    while True:
        name = _choose_name(generator)
        if any(name in sentence for sentence in named):
            continue
        yield generator.choice(_DUTIES).format(
            name=name,
            amount=f"{generator.randint(100, 9999):,}",
            goods=generator.choice(_GOODS),
            city=generator.choice(_CITIES),
            month=generator.randint(1, 12),
        )
