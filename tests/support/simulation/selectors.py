"""Label and field selectors of lists and watches."""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from r1plus_operator.runtime.errors import ApiError

Labels = Mapping[str, str]
Matcher = Callable[[Labels], bool]
_SET = re.compile(r"^(\S+)\s+(in|notin)\s+\(([^)]*)\)$")
_SPLIT = re.compile(r",(?![^(]*\))")


@lru_cache(maxsize=256)
def parse_labels(selector: str) -> Matcher | None:
    """Return a function of an object's labels; None if every object matches."""
    terms = [_parse_term(term.strip()) for term in _SPLIT.split(selector) if term.strip()]
    if not terms:
        return None
    if len(terms) == 1:
        return terms[0]
    return lambda labels: all(term(labels) for term in terms)


def _parse_term(term: str) -> Matcher:
    if found := _SET.match(term):
        key, operator, text = found.groups()
        values = frozenset(value.strip() for value in text.split(","))
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    for operator in ("!=", "==", "="):
        if operator in term:
            key, value = (part.strip() for part in term.split(operator, 1))
            if operator == "!=":
                return lambda labels: labels.get(key) != value
            return lambda labels: labels.get(key) == value
    if term.startswith("!"):
        return lambda labels: term[1:] not in labels
    return lambda labels: term in labels


@lru_cache(maxsize=1024)
def parse_fields(selector: str) -> Mapping[str, str]:
    """Return metadata.name and metadata.namespace that a field selector asks for; no others are known."""
    asked = dict(part.replace("==", "=").split("=", 1) for part in selector.split(",") if part)
    unknown = asked.keys() - {"metadata.name", "metadata.namespace"}
    if unknown:
        raise ApiError(400, "BadRequest", f"field label not supported: {sorted(unknown)[0]}")
    return asked
