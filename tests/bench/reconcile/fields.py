"""Which fields of an object a field manager owns, by the API server's own record, and every edit that touches one.

`metadata.managedFields` names each owned field: `f:name` a field, `k:{...}` an item of a keyed list, `v:...` a member
of a set. What is recorded without anything below it is owned whole: a scalar, or an atomic list or map. Paths here are
tuples of such steps; `i:3` is a place in an atomic list.
"""

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
Path = tuple[str, ...]
ABSENT = "(absent)"
OTHER_WORDS = ("1", "Always", "Never", "File", "UDP", "Recreate", "ClusterIP", "None", "R1PlusEngine", "30s", "9")
"""What a field of few words may take where its own value with a letter more is refused."""


def owned_fields(obj: Json, manager: str) -> Json:
    """The `fieldsV1` of what `manager` applied to the object itself; empty where it applied nothing."""
    for entry in obj["metadata"].get("managedFields") or ():
        if (entry["manager"], entry["operation"]) == (manager, "Apply") and not entry.get("subresource"):
            return dict(entry["fieldsV1"])
    return {}


def owned_values(fields: Json, obj: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """(path, value) of every owned field; the value is ABSENT where it is gone."""
    below = [step for step in fields if step != "."]
    if not below:
        yield path, obj
    for step in below:
        yield from owned_values(fields[step], _below(obj, step), (*path, step))


def _below(value: Any, step: str) -> Any:
    kind, _, rest = step.partition(":")
    if kind == "f":
        return value.get(rest, ABSENT) if isinstance(value, dict) else ABSENT
    if not isinstance(value, list):
        return ABSENT
    place = _place(value, kind, json.loads(rest))
    return ABSENT if place is None else value[place]


def _place(items: list[Any], kind: str, wanted: Any) -> int | None:
    if kind == "i":
        return wanted if wanted < len(items) else None
    matches = (_has_keys(item, wanted) if kind == "k" else item == wanted for item in items)
    return next((place for place, matched in enumerate(matches) if matched), None)


def _has_keys(item: Any, keys: Mapping[str, Any]) -> bool:
    return isinstance(item, dict) and all(item.get(key) == value for key, value in keys.items())


@dataclass(frozen=True, slots=True)
class Edit:
    """One JSON patch operation that touches an owned field."""

    op: str
    """replace | remove | add"""
    path: Path
    value: Any = None

    def patch(self, obj: Json) -> Json:
        """As a JSON patch operation on the object as it is now. LookupError where its place is gone."""
        operation: Json = {"op": self.op, "path": _pointer(obj, self.path)}
        return operation if self.op == "remove" else {**operation, "value": self.value}

    def __str__(self) -> str:
        return f"{self.op} {'/'.join(self.path)}"


def _pointer(obj: Any, path: Path) -> str:
    words = []
    for step in path:
        kind, _, rest = step.partition(":")
        if kind in ("f", "-"):
            words.append(rest.replace("~", "~0").replace("/", "~1") if kind == "f" else "-")
        else:
            place = _place(obj, kind, json.loads(rest)) if isinstance(obj, list) else None
            if place is None:
                raise LookupError(f"{step} of {'/'.join(path)}: not there")
            words.append(str(place))
        obj = _below(obj, step) if kind != "-" else ABSENT
    return "".join(f"/{word}" for word in words)


def edits(fields: Json, obj: Any, path: Path = ()) -> Iterator[tuple[Edit, ...]]:
    """Every edit of an owned field, each as the ways to make it: the first that the API server takes is the edit.

    Each value is changed and removed, each keyed item and each object removed, each atomic list and map added to.
    """
    below = [step for step in fields if step != "."]
    if not below:
        yield from _edits_of_value(obj, path)
        return
    if path and "." in fields:
        yield (Edit("remove", path),)
    for step in below:
        if (value := _below(obj, step)) is not ABSENT:
            yield from edits(fields[step], value, (*path, step))


def _edits_of_value(value: Any, path: Path) -> Iterator[tuple[Edit, ...]]:
    yield (Edit("remove", path),)
    if isinstance(value, dict):
        yield (Edit("add", (*path, "f:intruder"), "was here"),)
        # Another key makes another item: an owner reference of another uid is the garbage collector's business.
        keys = json.loads(path[-1][2:]) if path[-1].startswith("k:") else ()
        for key in (key for key in value if key not in keys):
            yield from _edits_of_value(value[key], (*path, f"f:{key}"))
    elif isinstance(value, list):
        if value:
            yield (Edit("add", (*path, "-:"), value[-1]),)
        for place, item in enumerate(value):
            yield from _edits_of_value(item, (*path, f"i:{place}"))
    else:
        yield tuple(Edit("replace", path, other) for other in _other_values(value))


def _other_values(value: Any) -> Iterable[Any]:
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int | float):
        return (value + 1, value - 1, 1)
    return itertools.chain((f"{value}x",), (word for word in OTHER_WORDS if word != value))
