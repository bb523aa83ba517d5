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


def collect_fields(value: Any, shape: Shape, *, is_new: bool = False) -> FieldSet | None:
    """Return the fields that a value sets; the empty set is the value itself. A list without items sets none: None.

    `is_new`: the value was not there before. Then each map and each list in it is a field, too.
    """
    if isinstance(value, dict) and not shape.is_atomic:
        children = (
            (f"f:{name}", collect_fields(child, shape.child(name), is_new=is_new)) for name, child in value.items()
        )
        return _mark({name: fields for name, fields in children if fields is not None}, is_member=is_new)
    if isinstance(value, list) and (shape.keys or shape.is_set) and not shape.is_atomic:
        items = index_items(value, shape).items()
        of_items = {
            name: _mark(collect_fields(item, shape.item, is_new=is_new) or {}, is_member=True) for name, item in items
        }
        return _mark(of_items, is_member=is_new) or None
    return {}


def collect_item(value: Any, shape: Shape) -> FieldSet:
    """Return the fields that come or go with a whole value."""
    return _mark(collect_fields(value, shape, is_new=True) or {}, is_member=True)


def _mark(fields: FieldSet, *, is_member: bool) -> FieldSet:
    """Return fields below a node, with the node itself if it is a field."""
    return {SELF: {}, **fields} if is_member and fields else fields


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
    """Return the fields of `one` that `other` has not; None if there is none."""
    result: FieldSet = {SELF: {}} if is_member(one) and not is_member(other) else {}
    for name, child in one.items():
        if name == SELF:
            continue
        rest = subtract(child, other[name]) if name in other else child
        if rest is not None:
            result[name] = rest
    return {} if result == {SELF: {}} else result or None


def intersect(one: FieldSet, other: FieldSet) -> FieldSet | None:
    """Return the fields of both; None if there is none."""
    result: FieldSet = {}
    if is_member(one) and is_member(other):
        result[SELF] = {}
    for name, child in one.items():
        if name != SELF and name in other and (both := intersect(child, other[name])) is not None:
            result[name] = both
    return {} if result == {SELF: {}} else result or None


def is_member(node: FieldSet) -> bool:
    """Whether a node is a field itself."""
    return not node or SELF in node


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
