"""What is read of a question: quantities and units, conversions, translations, and whether prose agrees. Pure."""

import re
from fractions import Fraction
from itertools import permutations

import pytest

from r1plus_gateway.calculation.agreement import compare_prose
from r1plus_gateway.calculation.conversions import Conversion, Misfit, find_conversion
from r1plus_gateway.calculation.quantities import find_quantities
from r1plus_gateway.calculation.translation import (
    MOST_NUMBERS,
    Translation,
    TranslationError,
    build_grammar,
    read_task,
    read_translation,
)
from r1plus_gateway.calculation.units import BASE_UNITS, BY_NAME
from r1plus_model_repo.backends.constraints import parse_grammar
from r1plus_model_repo.backends.openvino_constraints import (
    BYTES_PER_CONSTRAINT,
    BYTES_PER_NODE,
    MOST_COMPILED_BYTES,
)
from support.tables import for_each


class TestQuantities:
    """Numbers with their units."""

    @for_each("text, expected", {
        "plain numbers": ("6 bags with 8 pens", [("6", ""), ("8", "")]),
        "units, with and without a space": ("3 km and 250m", [("3", "km"), ("250", "m")]),
        "thousands and decimals": ("1,200 g or 3.5 kg", [("1200", "g"), ("3.5", "kg")]),
        "a rate": ("60 km/h, 5 miles per hour, 20 euros an hour", [("60", "km/h"), ("5", "mi/h"), ("20", "EUR/h")]),
        "money before its number": ("$5 and \u20ac1,200.50", [("5", "USD"), ("1200.50", "EUR")]),
        "shares": ("25% and 3 per cent", [("25%", ""), ("3%", "")]),
        "words": ("two hours, a dozen, half of it", [("2", "h"), ("12", ""), ("1/2", "")]),
        "a unit in capitals at a sentence's begin": ("5 Kilometres", [("5", "km")]),
        "what is no quantity": ("the 3rd of 2026-01-02 at 12:30, v1.2.3, room12, #77", []),
        "in is no inch": ("5 in my hand, 5 inches", [("5", ""), ("5", "in")]),
    })  # fmt: skip
    def test_of_a_text(self, text: str, expected: list[tuple[str, str]]) -> None:
        assert [(one.number, one.unit.symbol) for one in find_quantities(text)] == expected

    def test_no_name_means_two_units(self) -> None:
        names = [name for base in BASE_UNITS for name in {base.symbol, *base.names}]
        assert len(names) == len(set(names)) == len(BY_NAME)


class TestConversions:
    """By rules, exactly; what does not fit is said."""

    @for_each("text, expression, unit", {
        "a sum": ("How many metres are 3 km and 250 m?", "3 * 1000 + 250", "m"),
        "the question comes after": ("A film lasts 2 hours and 5 minutes. How many minutes is that?", "2 * 60 + 5", "min"),
        "convert to": ("Convert 1500 g to kilograms.", "1500 / 1000", "kg"),
        "what is in": ("What is 12 inches in centimetres?", "12 * 127 / 50", "cm"),
        "no factor": ("How many m are 5 metres?", "5", "m"),
        "speeds": ("Convert 10 kg to g", "10 * 1000", "g"),
        "a difference of temperatures": ("How many kelvin is a difference of 18 \u00b0F?", "18 * 5 / 9", "K"),
    })  # fmt: skip
    def test_that_are_made(self, text: str, expression: str, unit: str) -> None:
        found = find_conversion(text)
        assert isinstance(found, Conversion)
        assert (found.expression, found.unit.symbol) == (expression, unit)

    @for_each("text, said", {
        "a mass is no length": ("How many metres are 3 kg?", "3 kg is mass, and m measures length"),
        "currencies have no rate": ("Convert 5 euros to dollars", "money EUR"),
        "a reading of a thermometer": ("Convert 20 \u00b0C to \u00b0F", "only differences of temperature"),
    })  # fmt: skip
    def test_that_do_not_fit(self, text: str, said: str) -> None:
        found = find_conversion(text)
        assert isinstance(found, Misfit)
        assert said in found.message

    @pytest.mark.parametrize(
        "text",
        [
            "In 2 hours I run 12 km. How many km is that?",
            "How many metres?",
            "I am 2 m tall.",
            "5 km with 3 dogs: how many km?",
        ],
    )
    def test_that_are_none(self, text: str) -> None:
        assert find_conversion(text) is None


def translate(text: str, answer: str) -> Translation:
    """Return what is read of a model's answer, in which x, y and z are the question's numbers in their order."""
    task = read_task(text)
    for letter, stand_in in zip("xyzw", task.stand_ins, strict=False):
        answer = answer.replace(letter, stand_in)
    return read_translation(task, answer)


class TestTranslations:
    """Which numbers are combined how: the numbers are the question's, and the units have to fit."""

    @for_each("text, answer, expression, unit", {
        "plain numbers": ("Mia has 7 boxes of 12 pens. 5 are lost. How many pens are left?", " x * y - z\n", "7*12 - 5", ""),
        "brackets": ("How many are 3 and 4 in groups of 7?", " (x + y) / z\n", "(3 + 4)/7", ""),
        "a share": ("15% of the 60 trees are oaks. How many oaks are there?", " x * y\n", "15%*60", ""),
        "units of one dimension": ("A rope of 3 km and one of 250 m: how many metres are they?", " x + y\n", "(3 * 1000) + 250", "m"),
        "a rate that cancels": ("How far does a train run in 3 hours at 80 km per hour?", " x * y\n", "3*80", "km"),
        "hours of a day": ("She works 6 hours a day for 20 euros an hour. How many euros are 4 days?", " x * y * z\n", "(6 / 24)*20*(4 * 24)", "EUR"),
        "without a unit in the question": ("How long is a 3 m pole with a 4 m pole on it?", " x + y\n", "3 + 4", "m"),
    })  # fmt: skip
    def test_that_can_be_used(self, text: str, answer: str, expression: str, unit: str) -> None:
        found = translate(text, answer)
        assert (found.expression, found.unit.symbol) == (expression, unit)

    @for_each("text, answer, code", {
        "lengths and times added": ("How far is 3 km and 4 hours?", " x + y\n", "units_do_not_fit"),
        "an area for a length": ("A field is 3 m by 4 m. How many metres is it around?", " x * y\n", "units_do_not_fit"),
        "a length for a number of things": ("How many posts has a fence of 12 m with 3 m gaps?", " x - y\n", "units_do_not_fit"),
        "money of two countries": ("How much are 5 euros and 3 dollars?", " x + y\n", "units_do_not_fit"),
        "money times money": ("What do bags of 5 euros cost with 3 euros for delivery?", " x * y\n", "units_do_not_fit"),
        "a number is left out": ("How many are 3 boxes of 4 with 5 lids?", " x * y\n", "numbers_unused"),
        "a number is used twice": ("How many are 3 boxes of 4?", " x * y * x\n", "translation_failed"),
        "a number of its own": ("How many are 3 boxes of 4?", " x * y * 7\n", "translation_failed"),
        "no expression": ("How many are 3 boxes of 4?", " twelve\n", "translation_failed"),
        "a function": ("How many are 3 boxes of 4?", " sin(x) * y\n", "translation_failed"),
        "nothing": ("How many are 3 boxes of 4?", "\n", "translation_failed"),
    })  # fmt: skip
    def test_that_cannot(self, text: str, answer: str, code: str) -> None:
        with pytest.raises(TranslationError) as caught:
            translate(text, answer)
        assert caught.value.code == code

    def test_stand_ins_have_the_order_of_the_numbers_and_leave_the_text_alone(self) -> None:
        task = read_task("Of $900, 15% go to Ann\nand 40 dollars to Ben. How much is left?")
        assert task.question == "Of $72, 5% go to Ann and 18 dollars to Ben. How much is left?"
        assert task.stand_ins == ("72", "5%", "18")

    def test_all_grammars_together_leave_an_engine_room_for_others(self) -> None:
        """An OpenVINO engine keeps what it has compiled, and refuses more beyond a bound."""
        grammars: set[str] = set()
        for count in range(2, MOST_NUMBERS + 1):
            for order in permutations(range(1, count + 1)):
                for share in range(-1, count):
                    numbers = [f"{number}{'%' * (place == share)}" for place, number in enumerate(order)]
                    grammars.add(read_task(f"How many are {' of '.join(numbers)} of them?").grammar)
        assert len(grammars) == 3 + 4 + 5
        shapes = [parse_grammar(text) for text in grammars]
        size = sum(BYTES_PER_CONSTRAINT + BYTES_PER_NODE * shape.nodes for shape in shapes)
        assert size < MOST_COMPILED_BYTES / 4
        assert not any(shape.repetitions for shape in shapes)

    def test_a_grammar_has_no_number_but_those_it_is_made_of(self) -> None:
        text = build_grammar(["5", "18%", "72"])
        quoted = {piece.strip("() ") for piece in text.split('"')[1::2]} - {"+", "-", "*", "/", "", "\\n"}
        assert quoted == {"5", "18%", "72"}

    def test_the_prompts_examples_are_read_as_they_are_written(self) -> None:
        prompt = read_task("How many are 3 boxes of 4?").prompt
        examples = prompt.split("Question: ")[1:-1]
        assert len(examples) >= 10
        for example in examples:
            question, answer = example.strip().split("\nExpression: ")
            task = read_task(question)
            letters = dict(zip([one.number for one in task.quantities], task.stand_ins, strict=True))
            written = re.sub(r"\d+%?", lambda match, letters=letters: letters[match[0]], answer)
            assert isinstance(read_translation(task, written), Translation)


@for_each("prose, exact, numeric, expected", {
    "it has the number": ("He has 41 left.", "41", "41", True),
    "it has another one": ("It is 42.", "41", "41", False),
    "it has none": ("I do not know.", "41", "41", None),
    "thousands": ("That is 1,250 m.", "1250", "1250", True),
    "a fraction": ("It is 3/10.", "3/10", "0.3", True),
    "its decimals": ("It is 0.3.", "3/10", "0.3", True),
    "rounded": ("About 3.14.", "pi", "3.14159265358979", True),
    "rounded the wrong way": ("About 3.15.", "pi", "3.14159265358979", False),
    "negative": ("It is -7.", "-7", "-7", True),
    "each solution": ("x is 2 or 3", "[x = 2, x = 3]", None, True),
    "one solution of two": ("x is 2", "[x = 2, x = 3]", None, False),
    "a function": ("It is 2*x.", "2*x", None, None),
})  # fmt: skip
def test_prose_is_compared_by_its_numbers(
    prose: str, exact: str | None, numeric: str | None, expected: bool | None
) -> None:
    assert compare_prose(prose, exact, numeric) is expected


def test_factors_are_those_of_the_definitions() -> None:
    factors = {base.symbol: base.factor for base in BASE_UNITS}
    assert factors["in"] * 12 == factors["ft"]
    assert factors["ft"] * 3 == factors["yd"]
    assert factors["yd"] * 1760 == factors["mi"]
    assert factors["oz"] * 16 == factors["lb"] == Fraction("0.45359237")
    assert factors["\u00b0F"] * 9 == factors["\u00b0C"] * 5
