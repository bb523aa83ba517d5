"""Frozen dataclasses to and from JSON, camelCase on the wire: the one codec of everything in this package.

Strict on the way in: an unknown or missing field is an error that names it, since a misspelt field must not be ignored.
`tolerant=True` ignores unknown fields, for documents that another version of this project may have written: a pod keeps
its monitor through every upgrade and downgrade of the operator. So a new field of such a document needs a default.
"""

import dataclasses
import json
import math
import types
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


class ContractError(ValueError):
    """A document does not have the form that both sides agreed on."""


def to_camel_case(name: str) -> str:
    """Convert a name: `max_batch_size` -> `maxBatchSize`."""
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


_SCALARS = frozenset({str, int, float, bool, type(None)})


def to_jsonable(value: Any) -> Any:
    """Turn a dataclass (and what it holds) into dicts, lists and scalars."""
    if type(value) in _SCALARS:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {wire: to_jsonable(getattr(value, name)) for name, wire in _wire_names(type(value))}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [to_jsonable(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    return value


@cache
def _wire_names(kind: type[Any]) -> tuple[tuple[str, str], ...]:
    """Return (name, name on the wire) of a dataclass's fields."""
    return tuple((field.name, to_camel_case(field.name)) for field in dataclasses.fields(kind))


def dumps(value: Any) -> str:
    """Return canonical JSON: sorted keys, no spaces, UTF-8; the same value is always the same text."""
    return json.dumps(to_jsonable(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def loads(kind: type[T], text: str | bytes, *, tolerant: bool = False, most_values: int | None = None) -> T:
    """Read a `kind` from JSON text; raises ContractError that names the field.

    `most_values`: of all objects and lists together, where reading more would take a process's time from others.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        # RecursionError: nested deeper than any valid document.
        raise ContractError(f"{kind.__name__}: not JSON: {error}") from error
    if most_values is not None:
        _check_count(data, kind.__name__, most_values)
    return cast(T, from_jsonable(kind, data, kind.__name__, tolerant=tolerant))


def _check_count(data: Any, path: str, most: int) -> None:
    count, rest = 0, [data]
    while rest:
        one = rest.pop()
        if isinstance(one, dict | list):
            count += len(one)
            if count > most:
                raise ContractError(f"{path}: more than {most} values")
            rest += one.values() if isinstance(one, dict) else one


def from_jsonable(kind: Any, data: Any, path: str, *, tolerant: bool = False) -> Any:
    """Build `kind` from plain data. `path` names the place in error messages."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _read_optional(kind, data, path, tolerant)
    if origin is tuple:
        return _read_tuple(kind, data, path, tolerant)
    if origin is dict:
        _expect(isinstance(data, dict), path, "an object", data)
        inner = get_args(kind)[1]
        return {key: from_jsonable(inner, item, f"{path}.{key}", tolerant=tolerant) for key, item in data.items()}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _read_dataclass(kind, data, path, tolerant)
    if isinstance(kind, type) and issubclass(kind, Enum):
        values = [member.value for member in kind]
        _expect(data in values, path, f"one of {', '.join(map(str, values))}", data)
        return kind(data)
    if kind is Any:
        return data
    return _read_scalar(kind, data, path)


def _read_optional(kind: Any, data: Any, path: str, tolerant: bool) -> Any:
    if data is None and type(None) in get_args(kind):
        return None
    inner = [arg for arg in get_args(kind) if arg is not type(None)]
    return from_jsonable(inner[0], data, path, tolerant=tolerant)


def _read_tuple(kind: Any, data: Any, path: str, tolerant: bool) -> tuple[Any, ...]:
    _expect(isinstance(data, list), path, "a list", data)
    args = get_args(kind)
    kinds = [args[0]] * len(data) if len(args) == 2 and args[1] is Ellipsis else args
    _expect(len(data) == len(kinds), path, f"{len(kinds)} values", data)
    pairs = enumerate(zip(kinds, data, strict=True))
    return tuple(from_jsonable(inner, item, f"{path}[{i}]", tolerant=tolerant) for i, (inner, item) in pairs)


def _read_dataclass(kind: Any, data: Any, path: str, tolerant: bool) -> Any:
    _expect(isinstance(data, dict), path, "an object", data)
    fields = _fields_by_wire_name(kind)
    for key in () if tolerant else data:
        if key not in fields:
            raise ContractError(f"{path}.{key}: unknown field; known: {', '.join(sorted(fields))}")
    values = {}
    for key, (f, hint) in fields.items():
        if key in data:
            values[f.name] = from_jsonable(hint, data[key], f"{path}.{key}", tolerant=tolerant)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ContractError(f"{path}.{key}: missing")
    return kind(**values)


@cache
def _fields_by_wire_name(kind: type[Any]) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """Return name on the wire -> field and its type; cached."""
    hints = get_type_hints(kind)
    return {to_camel_case(f.name): (f, hints[f.name]) for f in dataclasses.fields(kind)}


def _read_scalar(kind: Any, data: Any, path: str) -> Any:
    if kind is float:
        _expect(isinstance(data, int | float) and not isinstance(data, bool), path, "a number", data)
        _expect(_is_computable(data), path, "a finite number", data)
        return float(data)
    fits = isinstance(data, kind) and (kind is bool or not isinstance(data, bool))
    if fits and kind is int:
        fits = _is_computable(data)
    if fits and kind is str:
        # A lone surrogate is valid JSON and no valid text: it would fail wherever the string is written on.
        fits = _is_whole(data)
    _expect(fits, path, f"a value of type {kind.__name__}", data)
    return data


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_computable(number: int | float) -> bool:
    """Return whether a number can be computed with: JSON allows integers beyond any float, and NaN and Infinity."""
    return abs(number) < 2**63 if isinstance(number, int) else math.isfinite(number)


def _expect(holds: bool, path: str, expected: str, value: Any) -> None:
    if not holds:
        raise ContractError(f"{path}: expected {expected}, got {value!r:.80}")
