"""Filters of a search by the attributes of files, as OpenAI has them."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Value = str | float | bool
_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}
PLAIN: Final = tuple(_COMPARISONS)
LISTS: Final = ("in", "nin")
COMPARISONS: Final = (*PLAIN, *LISTS)
COMPOUNDS: Final = ("and", "or")
_NEGATIVE: Final = ("ne", "nin")


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one attribute has to be. A file without the attribute is not equal to anything."""

    kind: str
    key: str
    value: Value | Sequence[Value]

    def matches(self, attributes: Mapping[str, Any]) -> bool:
        """Return whether a file of these attributes may be found."""
        if self.key not in attributes:
            return self.kind in _NEGATIVE
        own = attributes[self.key]
        if self.kind in LISTS:
            assert isinstance(self.value, Sequence)
            return any(_is_comparable(own, one) and own == one for one in self.value) == (self.kind == "in")
        if not _is_comparable(own, self.value):
            return self.kind in _NEGATIVE
        return _COMPARISONS[self.kind](own, self.value)


@dataclass(frozen=True, slots=True)
class Compound:
    """Filters that must all match, or one of them."""

    kind: str
    filters: Sequence["Comparison | Compound"]

    def matches(self, attributes: Mapping[str, Any]) -> bool:
        """Return whether a file of these attributes may be found."""
        results = (one.matches(attributes) for one in self.filters)
        return all(results) if self.kind == "and" else any(results)


Filter = Comparison | Compound


def _is_comparable(own: Any, other: Any) -> bool:
    if isinstance(own, bool) or isinstance(other, bool):
        return isinstance(own, bool) and isinstance(other, bool)
    return isinstance(own, str) == isinstance(other, str)
