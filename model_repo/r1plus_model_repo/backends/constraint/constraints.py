"""The inputs `response_schema` and `grammar`: what an answer must look like, held to bounds before an engine sees it.

An engine compiles a constraint into masks over its vocabulary. That takes time and memory, and a compiler that fails
inside an engine's step would end the engine for everybody. So sizes are bounded here, and keywords that compilers
ignore are refused: a limit is enforced or refused, never dropped.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from r1plus_contract.engine.constraint_shape import ShapeError, measure_grammar
from r1plus_contract.engine.schema_constraints import (
    MOST_BYTES,
    MOST_NODES,
    MOST_REPETITIONS,
    ConstraintError,
    SchemaWalk,
    check_depth,
    check_limit,
)
from r1plus_contract.inference import GRAMMAR, RESPONSE_SCHEMA
from r1plus_model_repo.backends.constraint.compiled_size import estimate_grammar_kib, estimate_schema_kib
from r1plus_model_repo.backends.json_input import load_json
from r1plus_model_repo.backends.text.messages import find_surrogate


@dataclass(frozen=True, slots=True)
class Constraint:
    """A JSON schema or a grammar in EBNF, within the bounds."""

    name: str
    """RESPONSE_SCHEMA or GRAMMAR."""
    text: str
    compiled_kib: float
    """About what a compiler keeps of it, with a vocabulary of 49,152 tokens; it grows with the vocabulary."""

    @property
    def is_schema(self) -> bool:
        """Whether it is a JSON schema."""
        return self.name == RESPONSE_SCHEMA


def parse_constraint(texts: Mapping[str, str], problems: list[str]) -> Constraint | None:
    """Return the constraint of a request, or None. `texts` are its inputs by name; add what is wrong to `problems`."""
    given = {name: text for name, text in texts.items() if text}
    if len(given) > 1:
        problems.append(f"{RESPONSE_SCHEMA}: excludes {GRAMMAR}; send one of them")
        return None
    for name, text in given.items():
        try:
            return parse_schema(text) if name == RESPONSE_SCHEMA else parse_grammar(text)
        except ConstraintError as error:
            problems.append(str(error))
    return None


def parse_schema(text: str) -> Constraint:
    """Return the schema as a constraint. Raise ConstraintError."""
    _check_bytes(RESPONSE_SCHEMA, text)
    try:
        document = load_json(text)
    except ValueError as error:
        raise ConstraintError(RESPONSE_SCHEMA, str(error)) from error
    if not isinstance(document, dict):
        raise ConstraintError(RESPONSE_SCHEMA, "is no JSON object; send a schema such as {'type': 'object'}")
    if (place := find_surrogate_in(document)) is not None:
        raise ConstraintError(RESPONSE_SCHEMA, f"has half a character (a lone surrogate) in {place!r:.60}")
    walk = SchemaWalk(document, RESPONSE_SCHEMA)
    enforced = walk.visit(document, RESPONSE_SCHEMA, 1, ())
    return Constraint(RESPONSE_SCHEMA, text, estimate_schema_kib(enforced, text))


def parse_grammar(text: str) -> Constraint:
    """Return the grammar as a constraint. Raise ConstraintError. Rules that `root` does not need are not read."""
    _check_bytes(GRAMMAR, text)
    if "\0" in text:
        raise ConstraintError(GRAMMAR, "has a NUL character; remove it")
    depth = deepest = nodes = 0
    for symbol in _split_grammar(text):
        nodes += 1
        depth += {"(": 1, ")": -1}.get(symbol, 0)
        deepest = max(deepest, depth)
    check_depth(GRAMMAR, deepest)
    check_limit(GRAMMAR, "symbols", nodes, MOST_NODES)
    try:
        shape = measure_grammar(text)
    except ShapeError as error:
        raise ConstraintError(GRAMMAR, str(error)) from error
    except RecursionError as error:
        raise ConstraintError(GRAMMAR, "its rules name each other in too long a chain; simplify it") from error
    check_limit(GRAMMAR, "symbols, with counted repetitions written out,", shape.weight, MOST_NODES)
    check_limit(GRAMMAR, "characters in counted repetitions", shape.repeated, MOST_REPETITIONS)
    classes = sum(match.group().startswith("[") for match in _LITERALS.finditer(text))
    return Constraint(GRAMMAR, text, estimate_grammar_kib(text, nodes, classes, shape.repeated))


def find_surrogate_in(value: Any) -> str | None:
    """Return the first string in a JSON value with a lone surrogate; None without one."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str) and find_surrogate(item) is not None:
            return item.encode(errors="replace").decode()
        if isinstance(item, dict):
            pending += [*item, *item.values()]
        elif isinstance(item, list):
            pending += item
    return None


def _check_bytes(name: str, text: str) -> None:
    check_limit(name, "bytes", len(text.encode(errors="replace")), MOST_BYTES)


_LITERALS: Final = re.compile(r'#[^\n]*|"(?:\\.|[^"\\\n])*"|\[(?:\\.|[^\]\\])*\]')
_SYMBOLS: Final = re.compile(r"[()]|\w[\w-]*|\S")


def _blank_literals(text: str) -> str:
    """Return the grammar with its comments, strings and classes of characters replaced by a point."""
    return _LITERALS.sub(lambda match: "" if match.group().startswith("#") else ".", text)


def _split_grammar(text: str) -> Iterator[str]:
    return (match.group() for match in _SYMBOLS.finditer(_blank_literals(text)))
