"""Candidates of each family: questions with one known answer, made from tables of facts and templates.

Called by the curator, which keeps those that an engine answers right under every condition. More than are needed, and
in more strata, since the weakest engine answers fewer than half. An id is made of stratum and subject, never of a
position: adding a fact changes no other item.
"""

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_contract.inference import FinishReason
from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.suites.suite import Item
from r1plus_monitoring.curate.code_candidates import list_expressions
from r1plus_monitoring.scoring.scorers import score

FACTS: Final = Path(__file__).with_name("facts")
"""Only what is not disputed: a country with two capitals, or on two continents, has an empty cell."""
WORDS_OF_ONE_LETTER: Final = ("a", "i", "s")
"""No answer is one of these: any sentence may hold them, the last one behind an apostrophe."""


@dataclass(frozen=True, slots=True)
class Template:
    """How the facts of one table become items of one stratum."""

    stratum: str
    kind: str
    """First part of the id, unique per template."""
    prompt: str
    scorer: str = "contains"


_STRATA: Final = {
    "smollm2": {name: name for name in ("capitals", "countries", "words", "nature", "arithmetic", "copying")},
    "qwen": {
        "code": "code",
        "arithmetic": "arithmetic",
        "words": "words",
        "capitals": "facts",
        "countries": "facts",
        "nature": "facts",
    },
}
"""Family -> the strata of the templates that it is asked, and how it calls them. Others are left out."""
FAMILIES: Final = tuple(_STRATA)


def build_candidates(family: str = FAMILIES[0]) -> tuple[Item, ...]:
    """Return all candidates of a family, sorted by id."""
    strata = _STRATA[family]
    return tuple(
        dataclasses.replace(item, stratum=strata[item.stratum]) for item in _build_all() if item.stratum in strata
    )


def _build_all() -> tuple[Item, ...]:
    items = (
        *_geography_items(),
        *_word_items(),
        *_nature_items(),
        *_arithmetic_items(),
        *_sequence_items(),
        *_copying_items(),
        *_code_items(),
    )
    return tuple(sorted(items, key=lambda item: item.id))


def read_facts(table: str) -> tuple[tuple[str, ...], ...]:
    """Return the rows of a table of `facts/`, one a line, with cells between `|`; a comma separates right answers."""
    text = (FACTS / f"{table}.txt").read_text(encoding="utf-8")
    return tuple(tuple(cell.strip() for cell in line.split("|")) for line in text.splitlines())


def _build_item(template: Template, subject: str, answers: str, **more: str) -> Item:
    slug = re.sub(r"[^a-z0-9]+", "-", subject.lower()).strip("-")
    return Item(
        id=f"{template.kind}-{slug}",
        stratum=template.stratum,
        prompt=template.prompt.format(subject=subject, **more),
        scorer=template.scorer,
        answers=tuple(answer.strip() for answer in answers.split(",")),
    )


def _pair_items(template: Template, table: str, column: int = 1) -> Iterator[Item]:
    for row in read_facts(table):
        if row[column]:
            yield _build_item(template, row[0], row[column])


def _geography_items() -> Iterator[Item]:
    yield from _pair_items(Template("capitals", "capital", "What is the capital of {subject}?"), "countries")
    yield from _pair_items(Template("countries", "continent", "Which continent is {subject} in?"), "countries", 2)
    yield from _pair_items(Template("countries", "language", "What is the main language of {subject}?"), "countries", 3)
    yield from _pair_items(Template("countries", "currency", "What is the currency of {subject}?"), "countries", 4)
    yield from _pair_items(Template("capitals", "city", "Which country is the city of {subject} in?"), "cities")
    for country, capital, *_ in read_facts("countries"):
        city = capital.split(",")[0]
        if city and city not in country and country not in city:
            template = Template("capitals", "capital-of", "{subject} is the capital of which country?")
            yield _build_item(template, city, country.removeprefix("the "))


def _word_items() -> Iterator[Item]:
    yield from _pair_items(Template("words", "opposite", "What is the opposite of {subject}?"), "opposites")
    yield from _pair_items(Template("words", "plural", 'What is the plural of "{subject}"?'), "plurals")
    yield from _pair_items(Template("words", "past", 'What is the past tense of "{subject}"?'), "past_tenses")
    yield from _pair_items(Template("words", "spanish", 'What is the Spanish word for "{subject}"?'), "spanish")
    yield from _pair_items(Template("words", "french", 'What is the French word for "{subject}"?'), "french")


def _nature_items() -> Iterator[Item]:
    yield from _pair_items(Template("nature", "young", "What is a young {subject} called?"), "young")
    for animal, sounds in read_facts("sounds"):
        forms = ",".join(form for sound in sounds.split(",") for form in _inflect(sound))
        yield _build_item(Template("nature", "sound", "What sound does a {subject} make?"), animal, forms)
    for animal, kind in read_facts("kinds"):
        template = Template("nature", "kind", "What type of animal is {article} {subject}?")
        yield _build_item(template, animal, kind, article=_choose_article(animal))
    yield from _pair_items(Template("nature", "symbol", "What is the chemical symbol for {subject}?"), "elements")
    for element, symbol in read_facts("elements"):
        template = Template("nature", "element", "Which chemical element has the symbol {subject}?")
        yield _build_item(template, symbol, f"{element},aluminium" if symbol == "Al" else element)
    yield from _pair_items(Template("nature", "colour", "What color is {subject}?"), "colours")
    yield from _pair_items(Template("nature", "quantity", "{subject}", "numeric"), "quantities")


def _inflect(sound: str) -> tuple[str, ...]:
    """Return the forms of a sound: bark, barks, barking."""
    return (sound, f"{sound}s", f"{sound}ing", f"{sound}es")


def _choose_article(noun: str) -> str:
    return "an" if noun[0] in "aeio" else "a"


def _arithmetic_items() -> Iterator[Item]:
    """Build sums, differences and products of one and two digits, asked plainly and after an example.

    Not 20 - 10: an answer that only repeats the question would end with the right number.
    """
    for a, b in _operand_pairs():
        yield from _calculation_items("addition", a, "+", b, a + b)
        if b < a and a - b != b:
            yield from _calculation_items("subtraction", a, "-", b, a - b)
    for a in range(2, 11):
        for b in range(2, 11):
            yield _build_item(
                Template("arithmetic", "multiply", "What is {subject}?", "numeric"), f"{a} x {b}", str(a * b)
            )


def _operand_pairs() -> Iterator[tuple[int, int]]:
    """Yield one digit with one digit, then two digits, spread by strides, with one digit or a round number."""
    yield from ((a, b) for a in range(2, 10) for b in range(1, 10))
    yield from ((a, a % 9 + 1) for a in range(10, 100, 7))
    yield from ((a, 10) for a in range(20, 100, 10))


def _calculation_items(kind: str, a: int, sign: str, b: int, result: int) -> Iterator[Item]:
    plain = Template("arithmetic", kind, "What is {subject}?", "numeric")
    with_example = Template(
        "arithmetic", f"{kind}-shown", "Q: What is {example}?\nA: 2\nQ: What is {subject}?\nA:", "numeric"
    )
    yield _build_item(plain, f"{a}{sign}{b}", str(result))
    yield _build_item(with_example, f"{a} {sign} {b}", str(result), example="1 + 1" if sign == "+" else "3 - 1")


def _sequence_items() -> Iterator[Item]:
    """Build sequences to continue. The answer is the last term shown and the next one, so a restarted list is wrong."""
    template = Template("arithmetic", "sequence", "Continue the sequence: {subject},")
    for step in (1, 2, 3, 4, 5, 10):
        for start in sorted({step * k for k in (1, 2, 3, 5, 8)} | {1, 7, 12, 20, 31}):
            terms = [str(start + step * k) for k in range(4)]
            item = _build_item(template, ", ".join(terms), "")
            yield dataclasses.replace(item, answers=(f"{terms[-1]}, {start + step * 4}",))


def _copying_items() -> Iterator[Item]:
    """Build items that need attention and no knowledge: an engine with a broken cache fails them first."""
    words = [row[0] for row in (*read_facts("plurals"), *read_facts("past_tenses"))]
    say = Template("copying", "say", 'Say the word "{subject}".')
    first = Template("copying", "first", "What is the first word of this list: {subject}?")
    letter = Template("copying", "letter", 'What is the first letter of the word "{subject}"?')
    for n, word in enumerate(words):
        if n % 2 == 0:
            yield _build_item(say, word, word)
        elif n >= 3:
            yield _build_item(first, f"{word}, {words[n - 2]}, {words[n - 3]}", word)
        if word[0] not in WORDS_OF_ONE_LETTER:
            yield _build_item(letter, word, word[0].upper())


def _code_items() -> Iterator[Item]:
    """Build items about code; none that its own question answers, such as `max([1, 2])` by its last number."""
    numeric = Template("code", "python", "What does this Python expression give? {subject}", "numeric")
    textual = dataclasses.replace(numeric, scorer="contains")
    items = [
        *(
            _build_expression_item(numeric if result.isdecimal() else textual, text, result)
            for text, result in list_expressions()
        ),
        *_pair_items(Template("code", "term", "{subject}"), "code_terms"),
        *_pair_items(Template("code", "acronym", "What does {subject} stand for?"), "acronyms"),
    ]
    yield from (item for item in items if score(item, item.prompt, FinishReason.STOP) != OutcomeLabel.CORRECT)


def _build_expression_item(template: Template, text: str, result: str) -> Item:
    """Build an item whose id tells expressions apart that differ in signs only."""
    words = {"//": " floor ", "%": " mod ", "**": " power ", "[-1]": " last ", "[::-1]": " reversed "}
    subject = text
    for sign, word in words.items():
        subject = subject.replace(sign, word)
    return dataclasses.replace(
        _build_item(template, subject, result), prompt=template.prompt.format(subject=text), answers=(result,)
    )
