"""The half of the tasks that the rules were written on. Its figures are shown and not reported."""

import random
from fractions import Fraction
from typing import Final

from bench.math.tasks import Task, Template, draw_polynomial, multiply


def _number(text: str, value: Fraction | int) -> Task:
    return Task("arithmetic", text, number=Fraction(value))


def _plain(draw: random.Random) -> Task:
    a, b, c = (draw.randint(2, 99) for _ in range(3))
    return _number(f"What is {a} + {b} * {c}?", a + b * c)


def _minus(draw: random.Random) -> Task:
    a, b = draw.randint(2, 99), draw.randint(2, 99)
    return _number(f"what's {a}-{b}", a - b)


def _division(draw: random.Random) -> Task:
    a, b = draw.randint(2, 99), draw.randint(2, 99)
    return _number(f"Compute {a} / {b}.", Fraction(a, b))


def _letter(draw: random.Random) -> Task:
    a, b = draw.randint(2, 99), draw.randint(2, 99)
    return _number(f"How much is {a} x {b}?", a * b)


def _bracket_in_text(draw: random.Random) -> Task:
    a, b = draw.randint(2, 99), draw.randint(2, 99)
    return _number(f"The tiles (there are {a} * {b}) are blue; how many are there?", a * b)


def _article(draw: random.Random) -> Task:
    a, b = draw.randint(2, 9), draw.randint(2, 5)
    return _number(f"It is a {a}^{b} grid, so its size is ...", a**b)


def _grouped(draw: random.Random) -> Task:
    a, b = draw.randint(1000, 999_999), draw.randint(1000, 999_999)
    return _number(f"In 2026 we had {a:,} + {b:,} visitors.", a + b)


def _share(draw: random.Random) -> Task:
    a, b = draw.randint(2, 99), draw.randint(100, 999)
    return _number(f"{a}% of {b} voted; how many is that?", Fraction(a * b, 100))


def _exclaimed(draw: random.Random) -> Task:
    a = draw.randint(4, 12)
    value = 1
    for factor in range(2, a + 1):
        value *= factor
    return _number(f"What is {a}!?", value)


def _power_before_a_word(draw: random.Random) -> Task:
    a, b = draw.randint(2, 9), draw.randint(2, 99)
    return _number(f"Evaluate {a}^3 - {b} and tell me.", a**3 - b)


def _difference_before_a_word(draw: random.Random) -> Task:
    a, b = draw.randint(2, 99), draw.randint(2, 99)
    return _number(f"What is {a}-{b} exactly", a - b)


def _opposite(draw: random.Random) -> Task:
    polynomial = draw_polynomial(draw, 2)
    return Task("calculus", f"I need the antiderivative of {polynomial.write()}", slope=polynomial)


def _equation(draw: random.Random) -> Task:
    a, root, b = draw.randint(2, 9), draw.randint(-9, 9), draw.randint(1, 9)
    return Task("algebra", f"Find x such that {a}x - {b} = {a * root - b}.", solutions={"x": (Fraction(root),)})


def _two_equations(draw: random.Random) -> Task:
    x, y = draw.randint(-9, 9), draw.randint(-9, 9)
    text = f"x + y = {x + y} and x - y = {x - y}: what are x and y?"
    return Task("algebra", text, solutions={"x": (Fraction(x),), "y": (Fraction(y),)})


def _roots(draw: random.Random) -> Task:
    a, b = sorted(draw.sample(range(-9, 10), 2))
    text = f"Find the roots of {multiply((-a, 1), (-b, 1)).write()} = 0"
    return Task("algebra", text, solutions={"x": (Fraction(a), Fraction(b))})


def _product(draw: random.Random) -> Task:
    a, b = draw.randint(1, 9), draw.randint(1, 9)
    return Task("algebra", f"Please multiply out (x - {a})*(x + {b})", function=multiply((-a, 1), (b, 1)))


def _factors(draw: random.Random) -> Task:
    polynomial = multiply((draw.randint(1, 9), 1), (draw.randint(1, 9), 1))
    return Task("algebra", f"Factorise the polynomial {polynomial.write()}", function=polynomial)


def _slope(draw: random.Random) -> Task:
    polynomial = draw_polynomial(draw, 3)
    return Task(
        "calculus", f"What's the derivative of the function {polynomial.write()}?", function=polynomial.differentiate()
    )


def _area(draw: random.Random) -> Task:
    polynomial, high = draw_polynomial(draw, 2), draw.randint(1, 4)
    text = f"Compute the integral of {polynomial.write()} from 0 to {high}."
    return Task("calculus", text, number=polynomial.integrate(0, high))


def _primitive(draw: random.Random) -> Task:
    polynomial = draw_polynomial(draw, 2)
    return Task("calculus", f"integrate {polynomial.write(star='*')} dx", slope=polynomial)


def _limit(draw: random.Random) -> Task:
    a = draw.randint(2, 9)
    return Task("calculus", f"limit of (x - {a})/(x^2 - {a * a}) as x tends to {a}", number=Fraction(1, 2 * a))


def _nothing(text: str) -> Template:
    return lambda _: Task("none", text, has_expression=False)


TEMPLATES: Final[tuple[Template, ...]] = (
    _plain,
    _minus,
    _division,
    _letter,
    _bracket_in_text,
    _article,
    _grouped,
    _share,
    _exclaimed,
    _power_before_a_word,
    _difference_before_a_word,
    _opposite,
    _equation,
    _two_equations,
    _roots,
    _product,
    _factors,
    _slope,
    _area,
    _primitive,
    _limit,
    _nothing("Due 2026-05-17, call 0711-1234567 or +1 (555) 010-9999."),
    _nothing("From 9-5, pp. 3-7, 2-3 people, size 10-12."),
    _nothing("Version 3.11.2 on 192.168.0.1:8080/24, python3.11, x86_64."),
    _nothing("- 3 apples\n- 4 pears\n* 2 plums\n1. first\n2) second"),
    _nothing("and/or, he/she, 1/2 cup, km/h, 3/4 of them, TCP/IP"),
    _nothing("I am 5'11\" and a size 42. Wow, 100%! I got 95% today."),
    _nothing("E = mc^2 is famous, x = 3 is not."),
    _nothing("It is -5 C outside, a -20 C freezer is colder."),
    _nothing("A+ B- C++ C# a/b test, i/o, n-1 error, x-ray, e-mail"),
)
