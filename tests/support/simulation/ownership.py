"""Server-side apply and who owns which field (`metadata.managedFields`). They return new objects and change none."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from r1plus_operator.runtime.errors import FieldCause
from support.simulation import refusals
from support.simulation.field_sets import (
    SELF,
    FieldSet,
    Shape,
    collect_fields,
    collect_item,
    index_items,
    intersect,
    is_member,
    list_paths,
    subtract,
    union,
)

Object = dict[str, Any]
_NOT_FIELDS = frozenset({"apiVersion", "kind", "metadata"})
_UNOWNED_METADATA = frozenset(
    {"name", "namespace", "uid", "creationTimestamp", "generation", "managedFields", "resourceVersion", "selfLink"}
)


@dataclass(frozen=True, slots=True)
class Manager:
    """Who owns fields: a name, for one way of writing and one endpoint."""

    name: str
    operation: str
    subresource: str = ""


Owners = dict[Manager, FieldSet]


def read_owners(obj: Object) -> Owners:
    """Return the owners that an object's managedFields name."""
    return {
        Manager(entry["manager"], entry["operation"], entry.get("subresource", "")): entry["fieldsV1"]
        for entry in obj["metadata"].get("managedFields") or ()
    }


def write_owners(before: Object | None, owners: Owners, api_version: str, time: str) -> list[Object]:
    """Return managedFields, in the API server's order; an entry that did not change keeps its time."""
    former = {} if before is None else {_identify(e): e for e in before["metadata"].get("managedFields") or ()}
    entries = []
    for manager, fields in owners.items():
        entry = former.get(manager)
        if entry is None or entry["fieldsV1"] != fields:
            entry = {
                "manager": manager.name,
                "operation": manager.operation,
                "apiVersion": api_version,
                "time": time,
                "fieldsType": "FieldsV1",
                "fieldsV1": fields,
            }
            if manager.subresource:
                entry["subresource"] = manager.subresource
        entries.append(entry)
    return sorted(entries, key=lambda entry: (entry["operation"], entry["time"], entry["manager"]))


def _identify(entry: Object) -> Manager:
    return Manager(entry["manager"], entry["operation"], entry.get("subresource", ""))


def apply(
    live: Object | None, config: Object, owners: Owners, manager: Manager, shape: Shape, *, force: bool
) -> tuple[Object, Owners]:
    """Return the object as `manager` applies it, and who owns it then.

    Raises:
        ConflictError: others own fields that would change; `causes` names them.
    """
    fields = collect_object_fields(config, shape)
    others = {one: owned for one, owned in owners.items() if one != manager}
    if live is None:
        return config, {manager: fields} if fields else {}
    result = _merge(live, config, shape)
    former = owners.get(manager)
    if former is not None and former != fields:
        # Metadata is never dropped as a whole: it names the object.
        held: FieldSet = {"f:metadata": {}, **fields}
        for owned in others.values():
            held = union(held, owned)
        result = _prune(result, former, held, shape)
    if result is not live:
        others = _take_changed(live, result, others, shape, force=force)
    return result, ({**others, manager: fields} if fields else others)


def _take_changed(live: Object, result: Object, others: Owners, shape: Shape, *, force: bool) -> Owners:
    """Return what the others own still; refuse to take it from them without `force`."""
    causes: list[FieldCause] = []
    rest: Owners = {}
    for manager, owned in others.items():
        taken = _find_changes(live, result, owned, shape)
        if taken is None:
            rest[manager] = owned
            continue
        changed, removed = taken
        causes += [
            FieldCause(path, f'conflict with "{manager.name}"') for path in (list_paths(changed) if changed else ())
        ]
        remaining = _without(owned, changed, removed)
        if remaining:
            rest[manager] = remaining
    if causes and not force:
        raise refusals.owned_by_others(causes)
    return rest


def _without(owned: FieldSet, changed: FieldSet | None, removed: FieldSet | None) -> FieldSet | None:
    """Return what is left of a manager's fields."""
    remaining = owned if changed is None else subtract(owned, changed)
    return subtract(remaining, removed) if remaining and removed is not None else remaining


def record_update(live: Object | None, result: Object, owners: Owners, manager: Manager, shape: Shape) -> Owners:
    """Return who owns what after a write that is no apply: `manager` owns what it changed."""
    if live is None:
        fields = collect_object_fields(result, shape)
        return {manager: fields} if fields else {}
    changed, removed = diff(live, result, shape)
    if changed is None and removed is None:
        return owners
    after: Owners = {}
    for one, owned in owners.items():
        remaining = _without(owned, changed if one != manager else None, removed)
        if remaining:
            after[one] = remaining
    if changed is not None:
        after[manager] = union(after[manager], changed) if manager in after else changed
    return after


def collect_object_fields(obj: Object, shape: Shape) -> FieldSet:
    """Return the fields that a whole object sets, without what identifies it."""
    fields = _collect_children({key: value for key, value in obj.items() if key not in _NOT_FIELDS}, shape)
    owned = {key: value for key, value in obj["metadata"].items() if key not in _UNOWNED_METADATA}
    of_metadata = _collect_children(owned, shape.child("metadata"))
    return {"f:metadata": of_metadata, **fields} if of_metadata else fields


def _collect_children(value: Object, shape: Shape) -> FieldSet:
    return (collect_fields(value, shape) or {}) if value else {}


def _merge(live: Any, config: Any, shape: Shape) -> Any:
    """Return `live` with all that `config` sets; `live` itself if that changes nothing."""
    if isinstance(live, dict) and isinstance(config, dict) and not shape.is_atomic:
        return _merge_maps(live, config, shape)
    if isinstance(live, list) and isinstance(config, list) and (shape.keys or shape.is_set):
        return _merge_lists(live, config, shape)
    return live if live == config else config


def _merge_maps(live: Object, config: Object, shape: Shape) -> Object:
    result = live
    for name, value in config.items():
        before = live.get(name)
        merged = _merge(before, value, shape.child(name)) if name in live else value
        if merged is not before or name not in live:
            if result is live:
                result = dict(live)
            result[name] = merged
    return result


def _merge_lists(live: list[Any], config: list[Any], shape: Shape) -> list[Any]:
    """Return the items in the order of `config`; those of others stay behind the one that they follow."""
    before, wanted = index_items(live, shape), index_items(config, shape)
    merged = {
        name: _merge(before[name], item, shape.item) if name in before and isinstance(item, dict) else item
        for name, item in wanted.items()
    }
    if before.keys() == wanted.keys() and list(before) == list(wanted):
        return live if all(before[name] is merged[name] for name in before) else list(merged.values())
    order = [name for name in before if name not in wanted]
    items = list(merged)
    if order:
        # The applied ones keep their order; a foreign one comes after those that it followed before.
        items = _weave(list(before), items)
    return [merged[name] if name in merged else before[name] for name in items]


def _weave(before: list[str], wanted: list[str]) -> list[str]:
    result, waiting, applied = [], list(wanted), set(wanted)
    for name in before:
        if name not in applied:
            result.append(name)
        else:
            while waiting and name in waiting:
                result.append(waiting.pop(0))
    return result + waiting


def _prune(value: Any, former: FieldSet, held: FieldSet, shape: Shape) -> Any:
    """Return `value` without the fields of `former` that nobody holds any more."""
    if isinstance(value, dict):
        return _prune_map(value, former, held, shape)
    if isinstance(value, list):
        kept = [
            _prune(item, former[name], held.get(name, {}), shape) if former.get(name) else item
            for name, item in index_items(value, shape).items()
            if name not in former or not is_member(former[name]) or (name in held and is_member(held[name]))
        ]
        return kept if kept != value else value
    return value


def _prune_map(value: Object, former: FieldSet, held: FieldSet, shape: Shape) -> Object:
    result = value
    for step, below in former.items():
        name = step[2:]
        if step == SELF or name not in value:
            continue
        if step not in held:
            result = {key: child for key, child in result.items() if key != name}
            continue
        if below and (child := _prune(value[name], below, held[step], shape.child(name))) is not value[name]:
            result = {**result, name: child}
    return result


Difference = tuple[FieldSet | None, FieldSet | None]
"""Fields that have another value, and fields that are gone; None for none."""


def _find_changes(live: Any, result: Any, owned: FieldSet, shape: Shape) -> Difference | None:
    """Return the difference in owned fields; None if there is none."""
    if live is result or live == result:
        return None
    before, after = _split(live, shape), _split(result, shape)
    if before is None or after is None:
        return {}, None
    changed: FieldSet = {}
    removed: FieldSet = {}
    for step, below in owned.items():
        if step == SELF:
            continue
        child_shape = shape.child(step[2:]) if isinstance(live, dict) else shape.item
        found = _compare_child(before, after, step, below, child_shape)
        for target, part in zip((changed, removed), found or (None, None), strict=True):
            if part is not None:
                target[step] = part
    return (changed or None, removed or None) if changed or removed else None


def _compare_child(
    before: dict[str, Any], after: dict[str, Any], step: str, below: FieldSet, shape: Shape
) -> Difference | None:
    """Return the difference in one owned child. One that is new was dropped as empty when its owner set it."""
    if step not in before:
        added = intersect(below, collect_fields(after[step], shape, is_new=True) or {}) if step in after else None
        return None if added is None else (added, None)
    if step not in after:
        return None, _collect_pruned(step, before[step], shape)
    if below:
        return _find_changes(before[step], after[step], below, shape)
    return _compare_leaf(before[step], after[step], shape)


def _collect_pruned(step: str, value: Any, shape: Shape) -> FieldSet:
    """Return the fields that an apply removes with a value. A map or a list of its own stays owned as an empty one."""
    fields = collect_fields(value, shape, is_new=True) or {}
    return {name: child for name, child in fields.items() if name != SELF} if step.startswith("f:") else fields


def _compare_leaf(one: Any, other: Any, shape: Shape) -> tuple[FieldSet, None] | None:
    """Return the field itself if it has another value; a map or a list that merges is no value of its own."""
    is_granular = _split(one, shape) is not None and _split(other, shape) is not None
    return None if is_granular or one == other else ({}, None)


def _split(value: Any, shape: Shape) -> dict[str, Any] | None:
    """Return a value's children by their names in a field set; None if it is atomic."""
    if isinstance(value, dict):
        return None if shape.is_atomic else {f"f:{name}": child for name, child in value.items()}
    if isinstance(value, list) and (shape.keys or shape.is_set):
        return index_items(value, shape)
    return None


def diff(live: Object, result: Object, shape: Shape) -> Difference:
    """Return the fields that are new or have another value, and those that are gone; None for none."""
    names = live.keys() | result.keys()
    changed: FieldSet = {}
    removed: FieldSet = {}
    for name in sorted(names - _NOT_FIELDS):
        _diff_child(live, result, name, f"f:{name}", shape.child(name), changed, removed)
    of_metadata: tuple[FieldSet, FieldSet] = ({}, {})
    one, other, meta_shape = live["metadata"], result["metadata"], shape.child("metadata")
    for name in sorted((one.keys() | other.keys()) - _UNOWNED_METADATA):
        _diff_child(one, other, name, f"f:{name}", meta_shape.child(name), *of_metadata)
    for target, found in zip((changed, removed), of_metadata, strict=True):
        if found:
            target["f:metadata"] = found
    return changed or None, removed or None


def _diff_child(
    one: dict[str, Any], other: dict[str, Any], name: str, step: str, shape: Shape, changed: FieldSet, removed: FieldSet
) -> None:
    """Add a child's difference to `changed` and `removed`."""
    if name not in other:
        removed[step] = collect_item(one[name], shape)
    elif name not in one:
        changed[step] = collect_item(other[name], shape)
    elif one[name] is not other[name] and one[name] != other[name]:
        before, after = _split(one[name], shape), _split(other[name], shape)
        if before is None or after is None:
            changed[step] = {}
            return
        found: tuple[FieldSet, FieldSet] = ({}, {})
        is_map = isinstance(one[name], dict)
        for child in _list_steps(before, after):
            child_shape = shape.child(child[2:]) if is_map else shape.item
            _diff_child(before, after, child, child, child_shape, *found)
        for target, part in zip((changed, removed), found, strict=True):
            if part:
                target[step] = part


def _list_steps(before: dict[str, Any], after: dict[str, Any]) -> Iterable[str]:
    return [*before, *(step for step in after if step not in before)]
