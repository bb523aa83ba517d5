"""Expressions in a user's text: what is found, and what only looks like one."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1plus_assistant.calculation.expressions import MOST_EXPRESSIONS, MOST_TEXT, find_expressions
from r1plus_assistant.calculation.lookalikes import LOOKALIKES, mask_lookalikes
from r1plus_contract.calculator_grammar.parser import parse
from support.tables import for_each


@for_each(
    "text, expression",
    {
        "a question": ("What is 2 + 3 * 4?", "2 + 3 * 4"),
        "a subtraction that is asked for": ("what's 12-7", "12-7"),
        "a division that is asked for": ("Compute 17 / 65.", "17 / 65"),
        "a division with its answer": ("750/15 equals what?", "750/15"),
        "an equality": ("(17 - 5) * 3 = ?", "(17 - 5) * 3"),
        "nothing but it": ("784+450-963", "784+450-963"),
        "within brackets": ("The tiles (there are 6 * 7) are blue.", "6 * 7"),
        "after an article": ("It is a 3^4 grid.", "3^4"),
        "an x between numbers": ("How much is 99 x 59?", "99 * 59"),
        "typographic signs": ("Work out 91 \u00d7 59 \u00f7 5.", "91 * 59 / 5"),
        "groups of thousands": ("We had 99,418 + 512,554 visitors.", "99418 + 512554"),
        "arguments after a comma": ("gcd(120,180) is what?", "gcd(120,180)"),
        "a percentage of a number": ("5% of 955 voted.", "5% * 955"),
        "a factorial before a question mark": ("What is 10!?", "10!"),
        "a function": ("Tell me sqrt(16) + 1.", "sqrt(16) + 1"),
        "the calculator's own words": ("integrate(x^2, x, 0, 3), what is it?", "integrate(x^2, x, 0, 3)"),
        "a derivative": ("What's the derivative of 4x^3 - 9x?", "diff(4x^3 - 9x, x)"),
        "a second derivative": ("second derivative of x^4", "diff(x^4, x, 2)"),
        "a derivative by a variable": ("Differentiate a*t^2 with respect to t.", "diff(a*t^2, t)"),
        "a derivative as it is written": ("d/dx of exp(5x)?", "diff(exp(5x), x)"),
        "an antiderivative, which is no derivative": ("the antiderivative of 4x", "integrate(4x, x)"),
        "a power before a word": ("Evaluate 10^4 - 300 for me.", "10^4 - 300"),
        "a difference before a word": ("What is 12-7 exactly", "12-7"),
        "an integral": ("integrate 4*x^2 + 6 dx", "integrate(4*x^2 + 6, x)"),
        "an integral with bounds": ("the integral of 4x^2 from 0 to 4", "integrate(4x^2, x, 0, 4)"),
        "an integral with other bounds": (
            "integral of sin(x) between -pi/2 and infinity",
            "integrate(sin(x), x, -pi/2, inf)",
        ),
        "a limit": ("limit of sin(2x)/x as x approaches 0", "limit(sin(2x)/x, x, 0)"),
        "a product to multiply out": ("Multiply out (x - 6)*(x + 1)", "expand((x - 6)*(x + 1))"),
        "a polynomial to factor": ("How do I factor x^2 + 2x + 1?", "factor(x^2 + 2x + 1)"),
        "something to simplify": ("Simplify (x^2-4)/(x-2)", "simplify((x^2-4)/(x-2))"),
        "an equation": ("Find x such that 8x - 8 = -80.", "solve(8x - 8 = -80, x)"),
        "an equation with its unknown": ("Solve for t: 12*t - 10 = v", "solve(12*t - 10 = v, t)"),
        "two equations": (
            "x + y = -3 and x - y = 1: what are x and y?",
            "solve([x + y = -3, x - y = 1])",
        ),
    },
)
def test_an_expression_is_found(text: str, expression: str) -> None:
    found = find_expressions(text)
    assert [one.expression for one in found] == [expression]
    parse(found[0].expression)


def test_its_place_in_the_text_is_known() -> None:
    text = "So 5% of 955 it is, and 2 * 3 too."
    assert [text[one.start : one.end] for one in find_expressions(text)] == ["5% of 955", "2 * 3"]


@for_each(
    "text",
    {
        "nothing": "",
        "a date": "Due 2026-05-17, or 12/05/2026, or 17.5.2026.",
        "a time": "10:00-11:30",
        "years": "in 2019/2020 and 2019-2021",
        "a version": "Python 3.11.2-rc1 and v2.0.1",
        "an address of a network": "192.168.0.1:8080/24",
        "a phone number": "+1 (555) 010-9999, 0711-1234567, 555-0199",
        "an ISBN": "ISBN 978-3-16-148410-0",
        "ranges": "From 9-5, pp. 3-7, 2-3 people, size 10-12, 10 - 12 minutes, 20-25 min.",
        "a list": "- 3 apples\n* 2 plums\n+ 1 pear\n1. first\n2) second",
        "a list in a line": "1. Boil water. 2. Add 200 g of rice. 3. Wait.",
        "words with a slash": "and/or, 1/2 cup, km/h, 3/4 of them, TCP/IP, a/b test",
        "words with a sign": "C++ C++20 A+ x86-64 UTF-8 B-12 n-1 x-ray e-mail",
        "an exclamation": "Wow, 100%! It has 2 + 2 = 4!",
        "a formula that nobody asks to solve": "E = m*c^2 is famous.",
        "variables that nobody asks about": "Let f be x^2 + 1.",
        "a temperature": "It is -5 C outside.",
        "an amount of money": "$5-$10, or EUR 1,299.00 + tax",
        "an address on the web": "https://example.com/a/b-2/3?x=1+2*3",
        "a path": "/var/log/app-1.log and src/a/b.py",
        "code": "Run `2 * 3` and ```\nx = 4 * 5\n```",
        "an order": "order 2024-0031, ticket #482-13",
        "a score": "He won 3-1.",
        "bounds that are not understood": "the integral of x^2 from here to eternity",
        "a variable that is not in it": "the derivative of x^2 with respect to y",
        "a sum that ends with an exclamation mark": "Compute 3 + 4! Please.",
        "digits of another script": "What is \u0662 + \u0663?",
        "a lone surrogate": "\ud800",
    },
)
def test_what_only_looks_like_an_expression_is_left_alone(text: str) -> None:
    assert find_expressions(text) == []


@pytest.mark.parametrize("name", LOOKALIKES)
def test_taking_out_keeps_the_length(name: str) -> None:
    text = "2026-05-17 https://a.b/c a@b.c 1.2.3 `x` $5 2019-2020 10:00 #1 24/7 x86 UTF-8 pages 3-4"
    assert len(mask_lookalikes(text)) == len(text)


def test_expressions_are_bounded_in_number() -> None:
    assert len(find_expressions("2*3, " * 50)) == MOST_EXPRESSIONS


@for_each(
    "piece",
    {repr(piece): piece for piece in ("a-", "-a", "((", "1+", "a@", "/a", "x=1,", "00", "1% of ", " ", "1,000,")},
)
def test_a_hostile_text_takes_no_long_time(piece: str) -> None:
    started = time.process_time()
    find_expressions(piece * MOST_TEXT)
    assert time.process_time() - started < 5


def test_time_grows_no_faster_than_what_looks_like_addresses() -> None:
    def measure(count: int) -> float:
        started = time.process_time()
        mask_lookalikes("a-" * count)
        return time.process_time() - started

    quarter, whole = (min(measure(count) for _ in range(3)) for count in (MOST_TEXT, 4 * MOST_TEXT))
    assert whole < 9 * quarter


@given(st.text(alphabet="0123456789xyab+-*/^!%=()., \n", max_size=120))
def test_whatever_is_found_can_be_read(text: str) -> None:
    for found in find_expressions(text):
        parse(found.expression)
        assert 0 <= found.start < found.end <= len(text)
