"""Structural schemas of our CustomResourceDefinitions: what they default, prune, refuse, and how values merge.

CEL rules are not evaluated: the product's own validation and tests against the real API server have them.
"""

import re
from typing import Any

from r1plus_operator.runtime.errors import FieldCause
from support.simulation.field_sets import Shape

Json = dict[str, Any]
_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


def build_shape(schema: Json) -> Shape:
    """Return how values of a schema merge."""
    items = schema.get("items") or {}
    kind = schema.get("x-kubernetes-list-type")
    keys = tuple(schema.get("x-kubernetes-list-map-keys") or ()) if kind == "map" else ()
    source = items if schema.get("type") == "array" else schema
    additional = source.get("additionalProperties")
    return Shape(
        keys=keys,
        is_set=kind == "set",
        is_atomic=schema.get("x-kubernetes-map-type") == "atomic",
        children={name: build_shape(child) for name, child in (source.get("properties") or {}).items()},
        others=build_shape(additional) if isinstance(additional, dict) else None,
    )


def set_defaults(value: Any, schema: Json) -> None:
    """Fill in the defaults of what is absent, in place."""
    if isinstance(value, list):
        for item in value:
            set_defaults(item, schema.get("items") or {})
        return
    if not isinstance(value, dict):
        return
    for name, child in (schema.get("properties") or {}).items():
        if value.get(name) is None and "default" in child:
            value[name] = _copy(child["default"])
        if name in value:
            set_defaults(value[name], child)
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        for child_value in value.values():
            set_defaults(child_value, additional)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(child) for name, child in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def find_unknown(value: Any, schema: Json, path: str = "") -> str:
    """Return the path of a field that the schema does not have; empty if there is none."""
    if isinstance(value, list):
        found = (find_unknown(item, schema.get("items") or {}, f"{path}[{i}]") for i, item in enumerate(value))
        return next((one for one in found if one), "")
    if not isinstance(value, dict) or _takes_anything(schema):
        return ""
    properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
    for name, child in value.items():
        if name in properties:
            unknown = find_unknown(child, properties[name], f"{path}.{name}")
        elif isinstance(additional, dict):
            unknown = find_unknown(child, additional, f"{path}.{name}")
        else:
            unknown = f"{path}.{name}"
        if unknown:
            return unknown
    return ""


def prune(value: Any, schema: Json) -> Any:
    """Return the value without fields that the schema does not have; null only where the schema takes it."""
    if isinstance(value, list):
        return [prune(item, schema.get("items") or {}) for item in value]
    if not isinstance(value, dict) or _takes_anything(schema):
        return value
    properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
    result = {}
    for name, child in value.items():
        child_schema = properties.get(name, additional)
        if isinstance(child_schema, dict) and not (child is None and "default" in child_schema):
            result[name] = prune(child, child_schema)
    return result


def _takes_anything(schema: Json) -> bool:
    return bool(schema.get("x-kubernetes-preserve-unknown-fields")) or (
        "properties" not in schema and "additionalProperties" not in schema
    )


def find_faults(value: Any, schema: Json, path: str) -> list[FieldCause]:
    """Return every fault of a value, with its field as the API server names it."""
    if value is None and schema.get("nullable"):
        return []
    expected = schema.get("type")
    if expected and not _is_of_type(value, expected):
        actual = "null" if value is None else _name_type(value)
        text = f'Invalid value: "{actual}": {path} in body must be of type {expected}: "{actual}"'
        return [FieldCause(path, text)]
    faults = _find_own_faults(value, schema, path)
    if isinstance(value, dict):
        faults += _find_object_faults(value, schema, path)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            faults += find_faults(item, schema.get("items") or {}, f"{path}[{index}]")
    return faults


def _is_of_type(value: Any, expected: str) -> bool:
    if isinstance(value, bool):
        return expected == "boolean"
    if expected == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[expected])


def _name_type(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object", list: "array"}
    return names[type(value)]


def _find_object_faults(value: Json, schema: Json, path: str) -> list[FieldCause]:
    faults = [
        FieldCause(f"{path}.{name}", "Required value") for name in schema.get("required") or () if name not in value
    ]
    properties, additional = schema.get("properties") or {}, schema.get("additionalProperties")
    for name, child in value.items():
        child_schema = properties.get(name, additional)
        if isinstance(child_schema, dict):
            faults += find_faults(child, child_schema, f"{path}.{name}" if path else name)
    return faults


def _find_own_faults(value: Any, schema: Json, path: str) -> list[FieldCause]:
    """Return the faults of a value itself, whatever it holds."""
    if "enum" in schema and value not in schema["enum"]:
        supported = ", ".join(f'"{one}"' for one in schema["enum"])
        return [FieldCause(path, f'Unsupported value: "{value}": supported values: {supported}')]
    if schema.get("exclusiveMinimum") and value == schema["minimum"]:
        return [FieldCause(path, f"Invalid value: {value!r}: {path} in body should be greater than {value}")]
    return [
        FieldCause(path, text.format(value=value, bound=schema[key], path=path))
        for key, holds, text in _BOUNDS
        if key in schema and not holds(value, schema[key])
    ]


_INVALID = "Invalid value: {value!r}: {path} in body should "
_BOUNDS: tuple[tuple[str, Any, str], ...] = (
    ("minLength", lambda value, bound: len(value) >= bound, _INVALID + "be at least {bound} chars long"),
    ("maxLength", lambda value, bound: len(value) <= bound, "Too long: may not be more than {bound} bytes"),
    ("pattern", lambda value, bound: re.search(bound, value) is not None, _INVALID + "match '{bound}'"),
    ("minimum", lambda value, bound: value >= bound, _INVALID + "be greater than or equal to {bound}"),
    ("maximum", lambda value, bound: value <= bound, _INVALID + "be less than or equal to {bound}"),
    ("minItems", lambda value, bound: len(value) >= bound, _INVALID + "have at least {bound} items"),
    ("maxItems", lambda value, bound: len(value) <= bound, "Too many: must have at most {bound} items"),
    ("minProperties", lambda value, bound: len(value) >= bound, _INVALID + "have at least {bound} properties"),
    ("maxProperties", lambda value, bound: len(value) <= bound, "Too many: must have at most {bound} items"),
)
