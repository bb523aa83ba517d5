"""Frozen dataclasses to and from JSON, camelCase on the wire: the one codec of everything in this package.

Strict on the way in: an unknown or missing field is an error that names it, since a misspelt field must not be ignored.
`tolerant=True` ignores unknown fields, for documents that another version of this project may have written: a pod keeps
its monitor through every upgrade and downgrade of the operator. So a new field of such a document needs a default.
"""

import dataclasses
import json
import math
import types
from collections.abc import Callable
from enum import Enum
from functools import cache, partial
from typing import Any, Final, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
_Reader = Callable[[Any, str, bool], Any]
"""Of data, their place and whether unknown fields are ignored."""


class ContractError(ValueError):
    """A document does not have the form that both sides agreed on."""


def to_camel_case(name: str) -> str:
    """Convert a name: `max_batch_size` -> `maxBatchSize`."""
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


_SCALARS = frozenset({str, int, float, bool, type(None)})
_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def to_jsonable(value: Any) -> Any:
    """Turn a dataclass (and what it holds) into dicts, lists and scalars."""
    kind: Any = type(value)
    if kind in _SCALARS:
        return value
    names = _wire_names(kind)
    if names is not None:
        return {wire: to_jsonable(getattr(value, name)) for name, wire in names}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [to_jsonable(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    return value


@cache
def _wire_names(kind: Any) -> tuple[tuple[str, str], ...] | None:
    """Return (name, name on the wire) of a dataclass's fields; None: it is none."""
    if not dataclasses.is_dataclass(kind):
        return None
    return tuple((field.name, to_camel_case(field.name)) for field in dataclasses.fields(kind))


def dumps(value: Any) -> str:
    """Return canonical JSON: sorted keys, no spaces, UTF-8; the same value is always the same text."""
    return _CANONICAL.encode(to_jsonable(value))


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
    return _find_reader(kind)(data, path, tolerant)


@cache
def _find_reader(kind: Any) -> _Reader:
    """Return what reads a type. The operator reads the same few types all the time, so each is looked at once."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        inner = next(arg for arg in args if arg is not type(None))
        return partial(_read_optional, _find_reader(inner), type(None) in args)
    if origin is tuple:
        return partial(_read_tuple, args)
    if origin is dict:
        return partial(_read_dict, args[1])
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return partial(_read_dataclass, kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return partial(_read_enum, kind)
    if kind is Any:
        return _read_any
    return _read_float if kind is float else partial(_read_scalar, kind)


def _read_any(data: Any, _path: str, _tolerant: bool) -> Any:
    return data


def _read_optional(read: _Reader, may_be_none: bool, data: Any, path: str, tolerant: bool) -> Any:
    return None if data is None and may_be_none else read(data, path, tolerant)


def _read_tuple(args: tuple[Any, ...], data: Any, path: str, tolerant: bool) -> tuple[Any, ...]:
    _expect(isinstance(data, list), path, "a list", data)
    kinds = [args[0]] * len(data) if len(args) == 2 and args[1] is Ellipsis else args
    _expect(len(data) == len(kinds), path, f"{len(kinds)} values", data)
    pairs = enumerate(zip(kinds, data, strict=True))
    return tuple(_find_reader(inner)(item, f"{path}[{i}]", tolerant) for i, (inner, item) in pairs)


def _read_dict(inner: Any, data: Any, path: str, tolerant: bool) -> dict[str, Any]:
    _expect(isinstance(data, dict), path, "an object", data)
    read = _find_reader(inner)
    return {key: read(item, f"{path}.{key}", tolerant) for key, item in data.items()}


def _read_enum(kind: type[Enum], data: Any, path: str, _tolerant: bool) -> Enum:
    values = [member.value for member in kind]
    _expect(data in values, path, f"one of {', '.join(map(str, values))}", data)
    return kind(data)


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    """A field of a dataclass, as it is read."""

    name: str
    read: _Reader
    is_required: bool


def _read_dataclass(kind: Any, data: Any, path: str, tolerant: bool) -> Any:
    _expect(isinstance(data, dict), path, "an object", data)
    fields = _fields_by_wire_name(kind)
    for key in () if tolerant else data:
        if key not in fields:
            raise ContractError(f"{path}.{key}: unknown field; known: {', '.join(sorted(fields))}")
    values = {}
    for key, field in fields.items():
        if key in data:
            values[field.name] = field.read(data[key], f"{path}.{key}", tolerant)
        elif field.is_required:
            raise ContractError(f"{path}.{key}: missing")
    return kind(**values)


@cache
def _fields_by_wire_name(kind: type[Any]) -> dict[str, _Field]:
    """Return name on the wire -> field; cached."""
    hints = get_type_hints(kind)
    return {
        to_camel_case(f.name): _Field(
            f.name,
            _find_reader(hints[f.name]),
            f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING,
        )
        for f in dataclasses.fields(kind)
    }


def _read_float(data: Any, path: str, _tolerant: bool) -> float:
    _expect(isinstance(data, int | float) and not isinstance(data, bool), path, "a number", data)
    _expect(_is_computable(data), path, "a finite number", data)
    return float(data)


def _read_scalar(kind: type[Any], data: Any, path: str, _tolerant: bool) -> Any:
    fits = isinstance(data, kind) and (kind is bool or not isinstance(data, bool))
    if fits and kind is int:
        fits = _is_computable(data)
    if fits and kind is str:
        # A lone surrogate is valid JSON and no valid text: it would fail wherever the string is written on.
        fits = _is_whole(data)
    if not fits:
        raise ContractError(f"{path}: expected a value of type {kind.__name__}, got {data!r:.80}")
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
