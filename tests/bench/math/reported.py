"""The half of the tasks whose figures are reported. It was written before the rules that find expressions, and no rule
was written on it: what it shows to be wrong is fixed only by what the other half shows as well."""

import math
import random
from fractions import Fraction
from typing import Final

from bench.math.tasks import Task, Template, draw_polynomial, multiply

_ABOUT: Final = (
    "Hello! ",
    "",
    "Quick one for the report due on 2026-11-30: ",
    "Our build 4.12.0 prints something else. ",
    "Ticket #48213, line 7. ",
    "We are a team of 12 and nobody agrees. ",
    "(see page 214 of the manual) ",
    "Yesterday at 14:30 my colleague asked me this. ",
)
_AFTER: Final = (
    "",
    " Thanks!",
    " Please answer in one line.",
    " I need it by 5 pm.",
    " Is it more than people expect?",
)


def _number(kind: str, text: str, value: Fraction | int) -> Task:
    return Task(kind, text, number=Fraction(value))


def _money(draw: random.Random) -> tuple[str, Fraction]:
    cents = draw.randint(100, 99999)
    return f"{cents // 100}.{cents % 100:02d}", Fraction(cents, 100)


def _product_of_sum(draw: random.Random) -> Task:
    a, b, c = (draw.randint(2, 99) for _ in range(3))
    text = f"{draw.choice(_ABOUT)}What do you get for {a} * ({b} + {c})?{draw.choice(_AFTER)}"
    return _number("arithmetic", text, a * (b + c))


def _sum_of_prices(draw: random.Random) -> Task:
    (a, first), (b, second), (c, third) = (_money(draw) for _ in range(3))
    text = f"The three receipts from 17 May add up as {a} + {b} + {c}, so what is the total?"
    return _number("arithmetic", text, first + second + third)


def _evaluate_please(draw: random.Random) -> Task:
    a, b, c = draw.randint(2, 12), draw.randint(2, 5), draw.randint(1, 400)
    return _number("arithmetic", f"Can you evaluate {a}^{b} - {c} for me?{draw.choice(_AFTER)}", a**b - c)


def _quotient(draw: random.Random) -> Task:
    b = draw.randint(2, 40)
    a = b * draw.randint(2, 400)
    return _number("arithmetic", f"{draw.choice(_ABOUT)}{a}/{b} equals what, exactly?", a // b)


def _with_equals(draw: random.Random) -> Task:
    a, b, c = (draw.randint(2, 60) for _ in range(3))
    return _number("arithmetic", f"({a} - {b}) * {c} = ?", (a - b) * c)


def _percentage(draw: random.Random) -> Task:
    share, whole = draw.randint(1, 99), draw.randint(10, 5000)
    text = f"{draw.choice(_ABOUT)}How much is {share}% of {whole}?"
    return _number("arithmetic", text, Fraction(share * whole, 100))


def _typographic_signs(draw: random.Random) -> Task:
    a, b, c = draw.randint(2, 99), draw.randint(2, 99), draw.choice((2, 4, 5, 8, 10))
    return _number("arithmetic", f"Work out {a} \u00d7 {b} \u00f7 {c}.", Fraction(a * b, c))


def _thousands(draw: random.Random) -> Task:
    a, b = draw.randint(1000, 9_999_999), draw.randint(2, 50)
    return _number(
        "arithmetic", f"Revenue of {a:,} divided among us is {a:,} / {b}; how many euros is that?", Fraction(a, b)
    )


def _root(draw: random.Random) -> Task:
    a, b = draw.randint(2, 60), draw.randint(2, 60)
    return _number("arithmetic", f"{draw.choice(_ABOUT)}Could you tell me sqrt({a * a}) + {b}?", a + b)


def _nested(draw: random.Random) -> Task:
    a, b, c, d = (draw.randint(2, 30) for _ in range(4))
    text = f"My calculator says one thing and Excel another. ({a} + {b}) * ({c} - {d}) / 4 is?"
    return _number("arithmetic", text, Fraction((a + b) * (c - d), 4))


def _factorial(draw: random.Random) -> Task:
    a, b = draw.randint(5, 12), draw.randint(2, 4)
    value = math.factorial(a) // (math.factorial(b) * math.factorial(a - b))
    return _number("arithmetic", f"What's {a}!/({b}! * {a - b}!) in numbers?", value)


def _binomial(draw: random.Random) -> Task:
    a, b = draw.randint(5, 30), draw.randint(2, 5)
    return _number("arithmetic", f"Give me binomial({a}, {b}) + 1.", math.comb(a, b) + 1)


def _decimals(draw: random.Random) -> Task:
    a, b = draw.randint(1, 999), draw.randint(1, 999)
    text = f"Floats are odd: what is 0.{a:03d} + 0.{b:03d} really?"
    return _number("arithmetic", text, Fraction(a, 1000) + Fraction(b, 1000))


def _negative(draw: random.Random) -> Task:
    a, b, c = (draw.randint(2, 90) for _ in range(3))
    return _number("arithmetic", f"Is -{a} + {b} * -{c} negative? State the value.", -a + b * -c)


def _on_its_own(draw: random.Random) -> Task:
    a, b, c = (draw.randint(2, 999) for _ in range(3))
    return _number("arithmetic", f"{a}+{b}-{c}", a + b - c)


def _scientific(draw: random.Random) -> Task:
    a, b = draw.randint(2, 9), draw.randint(2, 9)
    return _number("arithmetic", f"For the lab sheet: {a}e6 * {b}e-3, as a plain number.", a * b * 1000)


def _linear(draw: random.Random) -> Task:
    a, root, b = draw.randint(2, 12), draw.randint(-20, 20), draw.randint(-30, 30)
    sign = "+" if b >= 0 else "-"
    text = f"{draw.choice(_ABOUT)}For which x is {a}x {sign} {abs(b)} = {a * root + b}?"
    return Task("algebra", text, solutions={"x": (Fraction(root),)})


def _linear_both_sides(draw: random.Random) -> Task:
    a, c, root = draw.randint(5, 12), draw.randint(2, 4), draw.randint(-9, 9)
    d = (a - c) * root
    sign = "+" if d >= 0 else "-"
    return Task("algebra", f"Solve {a}x = {c}x {sign} {abs(d)}, please.", solutions={"x": (Fraction(root),)})


def _quadratic(draw: random.Random) -> Task:
    a, b = sorted(draw.sample(range(-9, 10), 2))
    polynomial = multiply((-a, 1), (-b, 1))
    text = f"Determine the solutions of {polynomial.write()} = 0.{draw.choice(_AFTER)}"
    return Task("algebra", text, solutions={"x": (Fraction(a), Fraction(b))})


def _quadratic_with_star(draw: random.Random) -> Task:
    a, b = sorted(draw.sample(range(-9, 10), 2))
    polynomial = multiply(multiply((-a, 1), (-b, 1)).coefficients, (3,))
    text = f"I have to solve {polynomial.write(star='*', spaces=False)}=0 for x before Monday 3 March."
    return Task("algebra", text, solutions={"x": (Fraction(a), Fraction(b))})


def _cubic(draw: random.Random) -> Task:
    roots = sorted(draw.sample(range(-5, 6), 3))
    polynomial = multiply(multiply((-roots[0], 1), (-roots[1], 1)).coefficients, (-roots[2], 1))
    text = f"What are the roots of the equation {polynomial.write()} = 0?"
    return Task("algebra", text, solutions={"x": tuple(Fraction(root) for root in roots)})


def _system(draw: random.Random) -> Task:
    x, y, a, b = draw.randint(-9, 9), draw.randint(-9, 9), 2, 3
    text = f"Solve the system x + y = {x + y} and {a}x - {b}y = {a * x - b * y}."
    return Task("algebra", text, solutions={"x": (Fraction(x),), "y": (Fraction(y),)})


def _other_letter(draw: random.Random) -> Task:
    a, root, b = draw.randint(2, 12), draw.randint(-20, 20), draw.randint(1, 30)
    text = f"Solve for t: {a}*t - {b} = {a * root - b}"
    return Task("algebra", text, solutions={"t": (Fraction(root),)})


def _expand(draw: random.Random) -> Task:
    a, b = draw.randint(1, 9), draw.randint(1, 9)
    return Task("algebra", f"Expand (x + {a})(x - {b}).", function=multiply((a, 1), (-b, 1)))


def _factor(draw: random.Random) -> Task:
    a, b = draw.sample(range(-9, 10), 2)
    polynomial = multiply((a, 1), (b, 1))
    return Task("algebra", f"{draw.choice(_ABOUT)}How do I factor {polynomial.write()}?", function=polynomial)


def _simplify(draw: random.Random) -> Task:
    a = draw.randint(2, 15)
    text = f"Simplify (x^2 - {a * a})/(x - {a}).{draw.choice(_AFTER)}"
    return Task("algebra", text, function=lambda value: float(value + a))


def _derivative(draw: random.Random) -> Task:
    polynomial = draw_polynomial(draw, draw.randint(2, 4))
    text = f"{draw.choice(_ABOUT)}Find the derivative of {polynomial.write()}."
    return Task("calculus", text, function=polynomial.differentiate())


def _differentiate(draw: random.Random) -> Task:
    polynomial = draw_polynomial(draw, 3)
    text = f"Please differentiate {polynomial.write(star='*')} with respect to x."
    return Task("calculus", text, function=polynomial.differentiate())


def _derivative_of_product(draw: random.Random) -> Task:
    a, b = draw.randint(2, 5), draw.randint(2, 5)
    text = f"What is the derivative of x^{a}*sin({b}x)?"

    def compute(value: Fraction) -> float:
        at = float(value)
        return a * at ** (a - 1) * math.sin(b * at) + b * at**a * math.cos(b * at)

    return Task("calculus", text, function=compute)


def _derivative_of_exponential(draw: random.Random) -> Task:
    a = draw.randint(2, 6)
    text = f"d/dx of exp({a}x) is what?{draw.choice(_AFTER)}"
    return Task("calculus", text, function=lambda value: a * math.exp(a * float(value)))


def _second_derivative(draw: random.Random) -> Task:
    polynomial = draw_polynomial(draw, 4)
    text = f"Compute the second derivative of {polynomial.write()}."
    return Task("calculus", text, function=polynomial.differentiate().differentiate())


def _definite(draw: random.Random) -> Task:
    polynomial, low, high = draw_polynomial(draw, draw.randint(1, 3)), draw.randint(-2, 0), draw.randint(1, 4)
    text = f"{draw.choice(_ABOUT)}Integrate {polynomial.write()} from {low} to {high}."
    return _number("calculus", text, polynomial.integrate(low, high))


def _area(draw: random.Random) -> Task:
    polynomial, high = draw_polynomial(draw, 2), draw.randint(1, 5)
    text = f"What is the integral of {polynomial.write()} between 0 and {high}?"
    return _number("calculus", text, polynomial.integrate(0, high))


def _antiderivative(draw: random.Random) -> Task:
    polynomial = draw_polynomial(draw, draw.randint(1, 4))
    return Task("calculus", f"Give an antiderivative of {polynomial.write()}.", slope=polynomial)


def _antiderivative_of_cosine(draw: random.Random) -> Task:
    a = draw.randint(2, 9)
    text = f"Find the indefinite integral of cos({a}x) dx."
    return Task("calculus", text, slope=lambda value: math.cos(a * float(value)))


def _limit(draw: random.Random) -> Task:
    a = draw.randint(2, 12)
    text = f"{draw.choice(_ABOUT)}Calculate the limit of (x^2 - {a * a})/(x - {a}) as x approaches {a}."
    return _number("calculus", text, 2 * a)


def _limit_of_sine(draw: random.Random) -> Task:
    a, b = draw.randint(2, 12), draw.randint(2, 12)
    text = f"What's the limit of sin({a}x)/({b}x) when x goes to 0?"
    return _number("calculus", text, Fraction(a, b))


def _in_the_grammar(draw: random.Random) -> Task:
    a = draw.randint(2, 9)
    return _number("calculus", f"integrate({a}*x^2, x, 0, 3), what is it?", 9 * a)


def _nothing(text: str) -> Template:
    return lambda draw: Task("none", draw.choice(_ABOUT) + text, has_expression=False)


TEMPLATES: Final[tuple[Template, ...]] = (
    _product_of_sum,
    _sum_of_prices,
    _evaluate_please,
    _quotient,
    _with_equals,
    _percentage,
    _typographic_signs,
    _thousands,
    _root,
    _nested,
    _factorial,
    _binomial,
    _decimals,
    _negative,
    _on_its_own,
    _scientific,
    _linear,
    _linear_both_sides,
    _quadratic,
    _quadratic_with_star,
    _cubic,
    _system,
    _other_letter,
    _expand,
    _factor,
    _simplify,
    _derivative,
    _differentiate,
    _derivative_of_product,
    _derivative_of_exponential,
    _second_derivative,
    _definite,
    _area,
    _antiderivative,
    _antiderivative_of_cosine,
    _limit,
    _limit_of_sine,
    _in_the_grammar,
    _nothing("Call me at +49 30 1234-5678 or 555-0199 tomorrow."),
    _nothing("The meeting is on 12/05/2026, 10:00-11:30, in room B-12."),
    _nothing("Upgrade from 1.2.3 to 1.2.4-rc1 on 10.0.12.7/24."),
    _nothing("Read pages 12-18 and chapters 3/4 of ISBN 978-3-16-148410-0."),
    _nothing("Our 24/7 support has a 50/50 chance, 3-4 people and a 2-year contract."),
    _nothing("1. Boil water. 2. Add 200 g of rice. 3. Wait 10-12 minutes."),
    _nothing("Set the env var to a-b_c and run x86-64 with UTF-8 and C++20."),
    _nothing("It costs $5-$10, or EUR 1,299.00, and weighs 3.5 kg."),
    _nothing("See https://example.com/a/b-2/3?x=1+2 and /var/log/app-1.log."),
    _nothing("He scored 3-1 in 2019/2020; order 2024-0031 has item no. 7."),
)


def _ratio(draw: random.Random) -> Task:
    a, b = draw.randint(2, 90), draw.randint(2, 90)
    return _number("arithmetic", f"In lowest terms, what is 1/{a} + 1/{b}?", Fraction(1, a) + Fraction(1, b))


def _power_of_sum(draw: random.Random) -> Task:
    a, b = draw.randint(2, 20), draw.randint(2, 20)
    return _number("arithmetic", f"{draw.choice(_ABOUT)}I get stuck at ({a} + {b})^2 - {a}^2.", (a + b) ** 2 - a * a)


def _total_with_quantity(draw: random.Random) -> Task:
    (price, value), count = _money(draw), draw.randint(2, 40)
    text = f"We ordered {count} chairs at {price} each; the invoice says {count} * {price} = ? Please fill it in."
    return _number("arithmetic", text, count * value)


def _discount(draw: random.Random) -> Task:
    share, whole = draw.randint(5, 80), draw.randint(20, 900)
    text = f"The coat was {whole} euros. Calculate {whole} * (1 - {share}/100) for the sale on 1 May."
    return _number("arithmetic", text, Fraction(whole * (100 - share), 100))


def _lines(draw: random.Random) -> Task:
    a, b, c = draw.randint(2, 90), draw.randint(2, 90), draw.randint(2, 9)
    return _number("arithmetic", f"Please do this one:\n\n    {a} * {b} - {c}\n\nand nothing else.", a * b - c)


def _modulus(draw: random.Random) -> Task:
    a, b = draw.randint(100, 9999), draw.randint(2, 97)
    return _number("arithmetic", f"mod({a}, {b}) is which remainder?", a % b)


def _difference(draw: random.Random) -> Task:
    a, b = draw.randint(100, 999), draw.randint(2, 97)
    return _number("arithmetic", f"How much is {a} - {b} in the end?", a - b)


def _quadratic_moved(draw: random.Random) -> Task:
    a, b = sorted(draw.sample(range(-9, 10), 2))
    text = f"Which values satisfy x^2 = {a + b}*x - {a * b}?".replace("- -", "+ ")
    return Task("algebra", text, solutions={"x": (Fraction(a), Fraction(b))})


def _absolute(draw: random.Random) -> Task:
    a, b = draw.randint(-9, 9), draw.randint(1, 9)
    text = f"Solve abs(x - {a}) = {b} for x.".replace("- -", "+ ")
    return Task("algebra", text, solutions={"x": (Fraction(a - b), Fraction(a + b))})


def _three_unknowns(draw: random.Random) -> Task:
    x, y, z = (draw.randint(-5, 5) for _ in range(3))
    text = f"Solve x + y + z = {x + y + z}, x - y = {x - y}, y + 2z = {y + 2 * z}."
    return Task("algebra", text, solutions={name: (Fraction(value),) for name, value in (("x", x), ("y", y), ("z", z))})


def _rewriting(draw: random.Random) -> Task:
    a, b = draw.randint(1, 9), draw.randint(1, 9)
    text = f"{draw.choice(_ABOUT)}Could you expand the expression ({a}x + 1)^2 - {b}x?"
    return Task("algebra", text, function=lambda value: float((a * value + 1) ** 2 - b * value))


def _slope_of_quotient(draw: random.Random) -> Task:
    a = draw.randint(1, 9)
    text = f"Differentiate x/(x^2 + {a}), it is for homework 3."
    return Task("calculus", text, function=lambda value: float((a - value**2) / (value**2 + a) ** 2))


def _third_derivative(draw: random.Random) -> Task:
    polynomial = draw_polynomial(draw, 4)
    expected = polynomial.differentiate().differentiate().differentiate()
    return Task("calculus", f"third derivative of the function {polynomial.write()} please", function=expected)


def _integral_with_differential(draw: random.Random) -> Task:
    polynomial, high = draw_polynomial(draw, 2), draw.randint(1, 5)
    text = f"Evaluate the integral of ({polynomial.write()}) dx from 0 to {high}."
    return _number("calculus", text, polynomial.integrate(0, high))


def _primitive(draw: random.Random) -> Task:
    a = draw.randint(2, 9)
    text = f"What is the antiderivative of exp({a}x)?"
    return Task("calculus", text, slope=lambda value: math.exp(a * float(value)))


def _limit_at_infinity(draw: random.Random) -> Task:
    a, b = draw.randint(2, 9), draw.randint(2, 9)
    text = f"Find the limit of ({a}n + 1)/({b}n - 1) as n goes to infinity."
    return _number("calculus", text, Fraction(a, b))


FRESH: Final[tuple[Template, ...]] = (
    _ratio,
    _power_of_sum,
    _total_with_quantity,
    _discount,
    _lines,
    _modulus,
    _difference,
    _quadratic_moved,
    _absolute,
    _three_unknowns,
    _rewriting,
    _slope_of_quotient,
    _third_derivative,
    _integral_with_differential,
    _primitive,
    _limit_at_infinity,
    _nothing("Flight LH-454 leaves at 9:05 from gate B 12-14, seats 23A/B."),
    _nothing("Mix 1/2 cup with 3-4 spoons; bake 20-25 min at 180-200 C."),
    _nothing("Model T-800 beats A/B tests, 2-1 in games, 4-0 in sets."),
    _nothing("Sections 4.1.2 and 5-7 of ISO/IEC 27001:2022 apply since 1/1/2024."),
    _nothing("IBAN DE89 3704 0044 0532 0130 00, amount EUR 1.299,00 +/- 5 %."),
    _nothing("git log -n 5 --since=2024-01-01 && make -j4 test-unit"),
    _nothing("Dial 112, or 0800/123-4567, between 8-12 and 13-17."),
    _nothing("The ratio was 3:1 and the vote 52-48, on 3 - 4 May."),
)
"""Written after the first run over `TEMPLATES` had shown two defects of the rules, and before those were mended."""
