"""Units of measure: exact factors and dimensions, so that quantities are added only where they fit.

Money has a dimension of its own for each currency, and nothing converts between them. Temperatures are differences: a
reading in degrees has no fixed factor, because its zero is elsewhere.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final


@dataclass(frozen=True, slots=True)
class BaseUnit:
    """A unit of one dimension."""

    symbol: str
    dimension: str
    factor: Fraction
    """How many of the dimension's first unit it has."""
    names: tuple[str, ...] = ()
    """In lower case; the symbol itself counts as it is written."""

    @property
    def is_money(self) -> bool:
        """Whether it is a currency."""
        return self.dimension.startswith("money")


@dataclass(frozen=True, slots=True)
class Unit:
    """A product of powers of base units: km/h is km^1 h^-1. Without any it is a plain number."""

    powers: tuple[tuple[BaseUnit, int], ...] = ()

    @property
    def dimension(self) -> tuple[tuple[str, int], ...]:
        """Dimensions with their exponents, sorted, without those that cancel."""
        total: dict[str, int] = {}
        for base, power in self.powers:
            total[base.dimension] = total.get(base.dimension, 0) + power
        return tuple(sorted((name, power) for name, power in total.items() if power))

    @property
    def factor(self) -> Fraction:
        """How many of the first units of its dimensions it has."""
        factor = Fraction(1)
        for base, power in self.powers:
            factor *= base.factor**power
        return factor

    @property
    def symbol(self) -> str:
        """As an answer writes it: `km/h`; empty for a plain number."""
        above = [_write_power(base, power) for base, power in self.powers if power > 0]
        below = [_write_power(base, -power) for base, power in self.powers if power < 0]
        if not below:
            return "*".join(above)
        return "/".join(["*".join(above) or "1", *below])

    def per(self, other: "Unit") -> "Unit":
        """Return this unit per another one."""
        return Unit((*self.powers, *((base, -power) for base, power in other.powers)))


def _write_power(base: BaseUnit, power: int) -> str:
    return base.symbol if power == 1 else f"{base.symbol}^{power}"


NUMBER: Final = Unit()


def _unit(symbol: str, dimension: str, factor: str | int, *names: str) -> BaseUnit:
    return BaseUnit(symbol, dimension, Fraction(factor), names)


def _plural(*names: str) -> tuple[str, ...]:
    return tuple(form for name in names for form in (name, f"{name}s"))


BASE_UNITS: Final = (
    _unit("m", "length", 1, *_plural("metre", "meter")),
    _unit("km", "length", 1000, "kms", *_plural("kilometre", "kilometer")),
    _unit("cm", "length", "1/100", *_plural("centimetre", "centimeter")),
    _unit("mm", "length", "1/1000", *_plural("millimetre", "millimeter")),
    _unit("in", "length", "254/10000", "inch", "inches"),
    _unit("ft", "length", "3048/10000", "foot", "feet"),
    _unit("yd", "length", "9144/10000", *_plural("yard")),
    _unit("mi", "length", "1609344/1000", *_plural("mile")),
    _unit("kg", "mass", 1, "kgs", *_plural("kilogram", "kilogramme", "kilo")),
    _unit("g", "mass", "1/1000", *_plural("gram", "gramme")),
    _unit("mg", "mass", "1/1000000", *_plural("milligram", "milligramme")),
    _unit("t", "mass", 1000, *_plural("tonne")),
    _unit("lb", "mass", "45359237/100000000", "lbs"),
    _unit("oz", "mass", "45359237/1600000000", *_plural("ounce")),
    _unit("s", "time", 1, "sec", "secs", *_plural("second")),
    _unit("min", "time", 60, "mins", *_plural("minute")),
    _unit("h", "time", 3600, "hr", "hrs", *_plural("hour")),
    _unit("d", "time", 86400, *_plural("day")),
    _unit("week", "time", 604800, "weeks"),
    _unit("L", "volume", 1, "l", *_plural("litre", "liter")),
    _unit("mL", "volume", "1/1000", "ml", *_plural("millilitre", "milliliter")),
    _unit("K", "temperature", 1, *_plural("kelvin")),
    _unit("\u00b0C", "temperature", 1, "degrees celsius", "degree celsius", "celsius"),
    _unit("\u00b0F", "temperature", "5/9", "degrees fahrenheit", "degree fahrenheit", "fahrenheit"),
    _unit("EUR", "money EUR", 1, "\u20ac", "euro", "euros"),
    _unit("USD", "money USD", 1, "$", "dollar", "dollars"),
    _unit("GBP", "money GBP", 1, "\u00a3"),
)
"""Factors are exact by definition. A month and a year have none; pounds are money or mass, so the word is neither."""


def _list_names() -> Iterator[tuple[str, BaseUnit]]:
    for base in BASE_UNITS:
        yield base.symbol, base
        for name in base.names:
            yield name, base


BY_NAME: Final[Mapping[str, BaseUnit]] = dict(_list_names())
"""Symbol as it is written, and names in lower case -> the unit."""


def find_base_unit(word: str) -> BaseUnit | None:
    """Return the unit of a word."""
    if word in BY_NAME:
        return BY_NAME[word]
    base = BY_NAME.get(word.lower())
    return base if base is not None and word.lower() in base.names else None


def make_unit(base: BaseUnit) -> Unit:
    """Return a unit of one base unit."""
    return Unit(((base, 1),))


def describe_dimension(unit: Unit) -> str:
    """Return what a quantity in this unit is, in words."""
    if not unit.dimension:
        return "a plain number"
    return " ".join(name if power == 1 else f"{name}^{power}" for name, power in unit.dimension)


def list_unit_words() -> list[str]:
    """Return the words that name units after a number, the longest first. `5 in` is five in something."""
    return sorted((name for name in BY_NAME if name != "in"), key=len, reverse=True)
