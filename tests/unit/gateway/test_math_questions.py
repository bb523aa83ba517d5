"""What is read of a question: quantities and units, conversions, translations, and whether prose agrees. Pure."""

import re
from fractions import Fraction
from itertools import permutations

import pytest

from r1plus_assistant.calculation.agreement import compare_prose
from r1plus_assistant.calculation.conversions import Conversion, ConversionRefusal, find_conversion
from r1plus_assistant.calculation.math_plan import ExpressionRoute, plan_math
from r1plus_assistant.calculation.quantities import find_quantities
from r1plus_assistant.calculation.translation import (
    MOST_NUMBERS,
    Translation,
    TranslationError,
    build_grammar,
    read_task,
    read_translation,
)
from r1plus_assistant.calculation.units import BASE_UNITS, BY_NAME
from r1plus_model_repo.backends.constraint.constraints import parse_grammar
from r1plus_model_repo.backends.constraint.schema_memory import RESERVED_BYTES
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
        "half a unit": ("half an hour and half a mile", [("1/2", "h"), ("1/2", "mi")]),
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
        "half an hour": ("How many minutes are half an hour?", "1/2 * 60", "min"),
        "a decimal": ("Convert 1.5 km to m.", "1.5 * 1000", "m"),
        "quantities with a comma": ("How many seconds are 2 minutes, 5 seconds?", "2 * 60 + 5", "s"),
        "quantities that a word adds": ("How many metres are 3 km plus 5 km?", "3 * 1000 + 5 * 1000", "m"),
        "courtesy around it": ("Hello! Please tell me: how many metres are 3 km? Thank you.", "3 * 1000", "m"),
        "what is in how many": ("How many hours are there in 2 weeks and 3 days?", "2 * 168 + 3 * 24", "h"),
        "what it makes": ("The walk is 3 km. How many metres does that make?", "3 * 1000", "m"),
        "a difference to convert": ("Convert a difference of 20 \u00b0C to \u00b0F.", "20 * 9 / 5", "\u00b0F"),
        "a rise of temperature": ("The temperature rose by 5 \u00b0C. How many \u00b0F is that?", "5 * 9 / 5", "\u00b0F"),
        "warmer by some degrees": ("It is 5 \u00b0C warmer. How many \u00b0F is that?", "5 * 9 / 5", "\u00b0F"),
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
        assert isinstance(found, ConversionRefusal)
        assert said in found.message

    @for_each("text", {
        "a dish is no rise": "My risotto: convert 180 \u00b0C to \u00b0F.",
        "a risk is no rise": "The risk is 5 \u00b0C. How many \u00b0F is that?",
        "the weather of another sentence": "Convert 30 \u00b0C to \u00b0F. It is warmer than here.",
        "a difference of another sentence": "Tell me the difference. Convert 30 \u00b0C to \u00b0F.",
        "a fall to a reading": "It fell to 5 \u00b0C. How many \u00b0F is that?",
        "a reading below zero": "Convert -20 \u00b0C to \u00b0F.",
        "a difference between two readings": "Convert the difference between 20 \u00b0C and 30 \u00b0C to \u00b0F.",
        "a difference of two readings": "How many \u00b0F is a difference of 20 \u00b0C and 3 K?",
    })  # fmt: skip
    def test_of_temperatures_are_of_one_difference_that_is_named(self, text: str) -> None:
        found = find_conversion(text)
        assert isinstance(found, ConversionRefusal)
        assert "only differences of temperature" in found.message

    @for_each("text", {
        "one": "How many minutes are 2 hours and one minute?",
        "one, to convert": "Convert 2 hours and one minute to minutes.",
        "a fraction": "How many seconds are 2 minutes and 1/2 hour?",
        "a fraction of another unit": "How many metres are 3 km and 1/4 mile?",
        "a fraction of one character": "How many metres are 2 km and \u00bd km?",
        "a quarter": "How many minutes are 2 hours and a quarter?",
        "a half after it": "How many minutes are two hours and a half?",
        "a half before the unit": "How many minutes are 2 and a half hours?",
        "a number with a hyphen": "How many minutes are 2 hours and twenty-one minutes?",
        "a number of two words": "How many minutes are 2 hours and twenty one minutes?",
        "a multiple": "How many metres are 2 million km?",
        "a multiple alone": "How many metres are 3 km and hundred m?",
        "a multiple in German": "How many metres are 3 km and zweihundert m?",
        "a number in German": "How many minutes are 2 hours and f\u00fcnf minutes?",
        "dozens": "How many minutes are two dozen hours?",
        "groups with a space": "How many ml are 1 000 l?",
        "groups with a narrow space": "How many ml are 1\u202f000 l?",
        "groups with an apostrophe": "How many ml are 1'000 l?",
        "a decimal comma": "Convert 1,5 km to m.",
        "a negative number": "Convert -5 km to m.",
        "a negative number in words": "Convert minus 5 km to m.",
        "an exponent": "How many metres are 1e3 km?",
        "a range": "How many minutes are 2-3 hours?",
        "a range with a dash": "How many minutes are 2\u20133 hours?",
        "a range in words": "How many minutes are 2 to 3 hours?",
        "a range of quantities": "How many minutes are 2 hours to 3 hours?",
        "a share": "How many metres are 3 km plus 10%?",
        "a price": "How many g are 3 kg at $5?",
        "cents": "How many euros are 5 euros and a few cents?",
        "a difference": "How many metres are 3 km minus 250 m?",
        "an area": "Convert 5 m^2 to cm.",
        "an area in words": "Convert 5 m squared to cm.",
        "a time": "How many minutes are 2 hours and 1:30?",
        "a number of a name": "How many metres are 3 km and 50-metre laps?",
        "there and back": "How many metres are 3 km there and back?",
        "each": "How many metres are 3 km each way?",
        "at least": "How many hours are 2 days at least?",
        "or": "How many metres are 3 km or so?",
        "an apostrophe": "How many hours are 2 days' work?",
        "two amounts": "Convert 3 km and 5 km to metres.",
        "two questions": "How many metres are 3 km? And how many cm?",
        "two units": "Convert 3 km in m to cm.",
        "a sentence with a unit": "How many metres are 3 km? A kilometre has 900 of them.",
        "a sentence with a number": "How many metres are 3 km? I run them once.",
        "a sentence that doubles it": "Convert 3 km to m. Then double it.",
        "a sentence that adds to it": "Convert 3 km to m. Then add a bit.",
        "both": "Both films last 2 hours. How many minutes is that?",
        "each of them": "The films have each 2 hours. How many minutes is that?",
        "an hour more": "A film lasts an hour more than 2 hours. How many minutes is that?",
        "a sentence between": "A walk is 3 km. I do it every day. How many metres is that?",
        "a word after the question": "A walk is 3 km. How many metres is that there and back?",
        "a year before": "It takes a year and 2 hours. How many minutes is that?",
        "more than is read": "How many metres are 3 km?" + " " * 2048 + "And one mile?",
    })  # fmt: skip
    def test_that_leave_a_doubt_are_not_made(self, text: str) -> None:
        assert not isinstance(find_conversion(text), Conversion)
        assert all(one.route is ExpressionRoute.TRANSLATION for one in plan_math(text, can_translate=True).expressions)

    def test_that_leave_a_doubt_say_what_to_send(self) -> None:
        found = find_conversion("How many minutes are 2 hours and one minute?")
        assert isinstance(found, ConversionRefusal)
        assert found.code == "ambiguous_numbers"
        assert "send only this: How many min are 2 hours?" in found.message

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

    @for_each("text", {
        "millions": "A town has 14 million trees and another 2 million. How many trees are there?",
        "hundreds": "Of two hundred trees three hundred are new. How many are there?",
        "thousands with an article": "A thousand trees, 3 of them new and 4 old. How many are there?",
        "money in millions": "What do 3 ships of $2 million cost?",
        "money with a letter": "What do 3 bags of $5k cost?",
        "German multiples": "A town has 14 Millionen trees and 2 Millionen. How many trees are there?",
        "a German abbreviation": "How many are 5 Mio. boxes of 4?",
        "a German word": "Of zweihundert trees 3 are new and 4 old. How many are there?",
        "a German decimal": "A bag costs 2,50 euros. What do 3 bags of 4 cost?",
        "a German amount": "A bag costs \u20ac1.200,50. What do 3 bags of 2 cost?",
        "German groups": "How many are 1.000.000 boxes of 4 and 5?",
        "Indian groups": "How many are 1,23,456 boxes of 4 and 5?",
        "Swiss groups": "How many are 1'000 boxes of 4?",
        "groups with a space": "Add 1 000 l and 2 000 l: how many l are there?",
        "groups with a narrow space": "How many are 1\u202f000 boxes of 4?",
        "groups with a line": "How many are 1_000 boxes of 4 and 5?",
        "a mixed number": "A car drives 80 km/h for 2 1/2 hours. How far is that?",
        "a fraction": "How many are 5/6 of 60 and 3?",
        "a fraction of one character": "How many are \u00bd of 60 and 3?",
        "thirds": "How many are two thirds of 60 and 3?",
        "quarters": "How many are three quarters of 60?",
        "a third": "How many are a third of 60 and 3?",
        "a half more": "How many are 2 and a half boxes of 4?",
        "per mille": "How many are 5\u2030 of 60 and 3?",
        "two dozen": "How many eggs are two dozen and 3?",
        "half a dozen": "How many eggs are half a dozen and 3?",
        "dozens": "How many eggs are some dozens and 3 and 4?",
        "a number of two words": "How many are 3 boxes of twenty five?",
        "twenty one": "How many are 3 boxes of twenty one and 4?",
        "a number with a hyphen": "How many are 3 boxes of twenty-one and 4?",
        "a unit with a hyphen": "What do three 2-litre bottles cost at 4 euros?",
        "a negative number": "It is -5 K, then 10 K and 3 K more. What is the difference?",
        "a negative number in words": "It is minus 5 K, then 10 K. What is the difference?",
        "below zero": "It is 5 K below zero, then 10 K. What is the difference?",
        "a range": "How many are 2 to 3 boxes of 4?",
        "a range with a dash": "How many minutes are 2 \u2013 3 hours and 4 hours?",
        "one or the other": "How many are 2 or 3 boxes of 4?",
        "an exponent": "How many are 5e3 boxes of 4 and 5?",
        "a power": "How many are 3\u00b2 boxes of 4 and 5?",
        "a length of time": "What do 3 lessons of 1:30 hours cost at 20 euros?",
        "a currency before its number": "What do USD500 and 3 bags of 4 cost?",
    })  # fmt: skip
    def test_of_numbers_that_are_not_read_is_none(self, text: str) -> None:
        with pytest.raises(TranslationError) as caught:
            read_task(text)
        assert caught.value.code == "ambiguous_numbers"

    @for_each("text, numbers", {
        "a dozen": ("How many eggs are a dozen and 3?", ["12", "3"]),
        "twice a number": ("How many is twice 30 and 4?", ["2", "30", "4"]),
        "a part of a number": ("How many are half of 60?", ["1/2", "60"]),
        "from one number to another": ("It grew from 3 to 10. What is the difference?", ["3", "10"]),
        "a number minus another": ("What is the difference of 10 minus 5 and 3 apples?", ["10", "5", "3"]),
        "ordinals are names": ("How many are left on the 3rd day of 60 and 4?", ["60", "4"]),
        "half an hour": ("He earns 12 euros an hour and works half an hour. How many euros does he earn?", ["12", "1/2"]),
    })  # fmt: skip
    def test_of_numbers_that_are_certain_is_one(self, text: str, numbers: list[str]) -> None:
        assert [one.number for one in read_task(text).quantities] == numbers

    def test_stand_ins_have_the_order_of_the_numbers_and_leave_the_text_alone(self) -> None:
        task = read_task("Of $900, 15% go to Ann\nand 40 dollars to Ben. How much is left?")
        assert task.question == "Of $72, 5% go to Ann and 18 dollars to Ben. How much is left?"
        assert task.stand_ins == ("72", "5%", "18")

    def test_all_grammars_together_fit_the_part_of_the_gateway(self) -> None:
        """An OpenVINO engine keeps what it has compiled, and has a part of the memory for the gateway."""
        grammars: set[str] = set()
        for count in range(2, MOST_NUMBERS + 1):
            for order in permutations(range(1, count + 1)):
                for share in range(-1, count):
                    numbers = [f"{number}{'%' * (place == share)}" for place, number in enumerate(order)]
                    grammars.add(read_task(f"How many are {' of '.join(numbers)} of them?").grammar)
        assert len(grammars) == 3 + 4 + 5
        shapes = [parse_grammar(text) for text in grammars]
        assert 1024 * sum(shape.compiled_kib for shape in shapes) < RESERVED_BYTES * 3 / 4

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


@for_each("text", {
    "millions": "What is 3 * 2 million?",
    "a share of millions": "What is 5% of 2 million?",
    "a multiple with a letter": "What is 3 * 2k?",
    "dozens": "What is 3 * 2 dozen?",
    "a decimal comma": "What is 1,5 * 3?",
    "a decimal comma at the end": "What is 3 * 2,5?",
    "a German amount": "Calculate 1.000,50 * 2",
    "groups with a space": "What is 3 * 1 000?",
    "groups with an apostrophe": "What is 1'000 * 3?",
    "a fraction of one character": "What is 3 * 5\u00bd?",
    "half of it": "What is half of 3 * 4?",
    "twice it": "What is twice 3 * 4?",
    "its square": "What is the square of 3 * 4?",
    "its root": "What is the square root of 3 * 4?",
    "its square, after it": "What is 2 * 3 squared?",
    "minus it": "What is minus 3 * 4?",
    "minus it, from a number": "What is 10 minus 2 * 3?",
    "a word that adds": "What is 2 * 3 plus one?",
    "a word that divides": "What is 2 * 3 divided by 4?",
    "a power in words": "What is 3 * 10 to the power of 3?",
    "a share in words": "What is 3 * 4 per cent?",
    "a sum of more": "What is the sum of 2 * 3 and 5?",
    "a sign of a root": "What is \u221a16 * 2?",
    "a sign of a cube root": "What is \u221b8 * 2?",
    "a negative number": "What is negative 3 * 4?",
    "a remainder": "What is the remainder of 17 / 5?",
    "its absolute value": "What is the absolute value of 2 * -3?",
    "digits of another base": "What is 101 + 11 in base 2?",
    "digits of another base, before it": "In binary, what is 101 + 11?",
    "a number in words before it": "What is one hundred 3 * 4?",
    "another unit": "How many metres are 15% of 3 km?",
    "another unit to convert": "Convert 3 * 4 km to m.",
})  # fmt: skip
def test_an_expression_is_not_calculated_without_what_goes_on_around_it(text: str) -> None:
    assert all(one.route is ExpressionRoute.TRANSLATION for one in plan_math(text, can_translate=True).expressions)


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
    "a division by zero, from a calculator that misbehaves": ("It is 1.", "1/0", None, None),
    "one among solutions": ("It is 1.", "[x = 1/0]", None, None),
    "more digits than Python reads": ("It is 1.", "1" * 5000, "1" * 5000, None),
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
