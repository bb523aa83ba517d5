"""What the server adds to a written object and takes from it: defaults, and fields that its kind does not have."""

from typing import Any

from r1plus_operator.runtime.errors import FieldCause
from support.simulation import admission, builtin_defaults, schemas
from support.simulation.traits import Traits

Object = dict[str, Any]
_HEAD = ("apiVersion", "kind", "metadata")


def complete(traits: Traits, obj: Object, live: Object | None) -> Object:
    """Return an object as it is stored. Parts that are those of `live`, the object before, are complete already."""
    if traits.schema is not None:
        obj = {**obj, "metadata": builtin_defaults.drop_empty_metadata(obj["metadata"], (live or {}).get("metadata"))}
        return _complete_custom(traits.schema, obj, live or {})
    is_revision = traits.resource.kind == "ControllerRevision"
    obj = builtin_defaults.drop_empty(obj, live, is_revision=is_revision)
    if live is None or _list_changed(obj, live):
        traits.set_defaults(obj)
    return obj


def has_empty_list(value: Any) -> bool:
    """Whether a value has an empty list in it, which a built-in object loses."""
    if isinstance(value, dict):
        return any(map(has_empty_list, value.values()))
    return value == [] or (isinstance(value, list) and any(map(has_empty_list, value)))


def find_faults(traits: Traits, obj: Object, live: Object | None) -> list[FieldCause]:
    """Return the faults of those parts of a complete object that are not those of `live`."""
    changed = _list_changed(obj, live or {})
    if not changed and live is not None:
        return []
    return admission.check_schema(traits, obj)


def _list_changed(obj: Object, live: Object) -> list[str]:
    return [name for name, value in obj.items() if name not in _HEAD and value is not live.get(name)]


def _complete_custom(schema: Object, obj: Object, live: Object) -> Object:
    properties = schema.get("properties")
    if properties is None:
        return obj
    result = {name: obj[name] for name in _HEAD if name in obj}
    for name, value in obj.items():
        if name in _HEAD or name not in properties:
            continue
        if value is not live.get(name):
            value = schemas.prune(value, properties[name])
            schemas.set_defaults(value, properties[name])
        result[name] = value
    absent = {name: part for name, part in properties.items() if name not in _HEAD and result.get(name) is None}
    schemas.set_defaults(result, {"properties": absent})
    return result
