"""Sets of an object's fields, as `managedFields` has them: `{"f:data": {"f:a": {}}}` is the field `data.a`.

A node without children is a field; one with the child `.` is a field that has others below it. All functions return
new sets and change none.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

FieldSet = dict[str, Any]
SELF = "."
_DEFAULTS = {"protocol": "TCP"}
"""Keys of list items that the API server fills in before it merges."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How one value merges: granular, or whole where it is `is_atomic`. A list without `keys` is atomic unless a set."""

    keys: tuple[str, ...] = ()
    """Fields that identify the items of a list."""
    is_set: bool = False
    is_atomic: bool = False
    has_atomic_items: bool = False
    """Whether a list's items are found by their keys, and each is one value."""
    children: dict[str, "Shape"] = field(default_factory=dict)
    """By field; those of a list's items, too."""
    others: "Shape | None" = None
    """Shape of the children that are not named."""

    @property
    def item(self) -> "Shape":
        """The shape of a list's items."""
        return ATOMIC if self.has_atomic_items else self

    def child(self, name: str) -> "Shape":
        """Return the shape of a field, of a map's or of a list's items."""
        return self.children.get(name) or self.others or PLAIN


PLAIN = Shape()
ATOMIC = Shape(is_atomic=True)


def collect_fields(value: Any, shape: Shape) -> FieldSet:
    """Return the fields that a value sets; the empty set is the value itself."""
    if isinstance(value, dict):
        if shape.is_atomic:
            return {}
        return {f"f:{name}": collect_fields(child, shape.child(name)) for name, child in value.items()}
    if isinstance(value, list) and (shape.keys or shape.is_set) and not shape.is_atomic:
        return {name: _collect_item(item, shape.item) for name, item in index_items(value, shape).items()}
    return {}


def _collect_item(item: Any, shape: Shape) -> FieldSet:
    """Return the fields of a list's item: one that has fields of its own is a field, too."""
    is_granular = isinstance(item, dict) and not shape.is_atomic
    return {SELF: {}, **collect_fields(item, shape)} if is_granular else {}


def index_items(items: list[Any], shape: Shape) -> dict[str, Any]:
    """Return a keyed list's items by their names in a field set, in order; the last of two with one key counts."""
    return {name_item(item, shape): item for item in items}


def name_item(item: Any, shape: Shape) -> str:
    """Return an item's name in a field set."""
    if not shape.keys or not isinstance(item, dict):
        return "v:" + orjson.dumps(item).decode()
    key = {name: item.get(name, _DEFAULTS.get(name)) for name in shape.keys}
    return "k:" + orjson.dumps(key, option=orjson.OPT_SORT_KEYS).decode()


def union(one: FieldSet, other: FieldSet) -> FieldSet:
    """Return the fields of either."""
    if not one or not other:
        return _join_leaf(one, other)
    result = dict(one)
    for name, child in other.items():
        result[name] = union(result[name], child) if name in result else child
    return result


def _join_leaf(one: FieldSet, other: FieldSet) -> FieldSet:
    """Join two nodes of which one is a field without others below it."""
    more = one or other
    return {SELF: {}, **more} if more and SELF not in more else more


def subtract(one: FieldSet, other: FieldSet) -> FieldSet | None:
    """Return the fields of `one` that `other` has not; None if there is none. A field takes those below it along."""
    if not other or (SELF in other and not one):
        return None
    if not one:
        return one
    result: FieldSet = {}
    for name, child in one.items():
        if name not in other:
            result[name] = child
        elif (rest := subtract(child, other[name])) is not None:
            result[name] = rest
    if not result or (result == {SELF: {}} and SELF not in one):
        return None
    return result


def list_paths(fields: FieldSet, prefix: str = "") -> Iterable[str]:
    """Return the paths of a set's fields as the API server's messages write them."""
    if not fields:
        yield prefix
        return
    for name, child in fields.items():
        if name == SELF:
            yield prefix
        else:
            yield from list_paths(child, prefix + _format_step(name))


def _format_step(name: str) -> str:
    kind, _, text = name.partition(":")
    if kind == "f":
        return f".{text}"
    if kind == "v":
        return f"[={text}]"
    return "[" + ",".join(f"{key}={orjson.dumps(value).decode()}" for key, value in orjson.loads(text).items()) + "]"
