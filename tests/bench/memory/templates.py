"""What a half of the measurement is made of: templates of facts, and what is said in between."""

from dataclasses import dataclass
from typing import Final

KINDS: Final = ("number", "date", "name", "negation", "decision", "preference")


@dataclass(frozen=True, slots=True)
class FactTemplate:
    """A fact that a user states in prose. `{v}` is its value; each text has several wordings."""

    kind: str
    said: tuple[str, ...]
    changed: tuple[str, ...]
    """How the user replaces the value later; empty: never."""
    asked: tuple[str, ...]
    """Questions that do not have the value, in other words than the statement."""
    decoy: str
    """A sentence with another value of the same kind, which is not the user's fact."""
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Language:
    """Templates and small talk of one language."""

    facts: tuple[FactTemplate, ...]
    talk: tuple[str, ...]
    """What the user says without a fact that is asked for."""
    replies: tuple[str, ...]
    """What the assistant answers to talk."""
    acknowledgements: tuple[str, ...]
    """What the assistant answers to a fact, without its value."""


@dataclass(frozen=True, slots=True)
class Half:
    """One half of the measurement."""

    name: str
    languages: tuple[tuple[Language, int], ...]
    """Each with its number of conversations."""


def fact(kind: str, said: str, changed: str, asked: str, decoy: str, values: str) -> FactTemplate:
    """Return a template; wordings and values are separated by `|`."""
    texts = (tuple(filter(None, text.split("|"))) for text in (said, changed, asked))
    return FactTemplate(kind, *texts, decoy, tuple(values.split("|")))
