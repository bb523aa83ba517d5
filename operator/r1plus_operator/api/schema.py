"""Conversion of pydantic's JSON schema to the structural OpenAPI v3 schema of a CustomResourceDefinition.

Called by `crd`. Kubernetes knows a subset of OpenAPI 3.0: no `$ref`, no `null` in a union, and `exclusiveMinimum` as a
flag. The cost of CEL rules is bounded only if every string, list and map is. A field that cannot be expressed, or has
no bound, is an error here, at generation, and not at `kubectl apply`.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

Json = dict[str, Any]

_COPIED_KEYWORDS = (
    "type", "format", "description", "default", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "minProperties", "maxProperties", "x-kubernetes-validations", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
)  # fmt: skip
"""Keywords that are the same in both dialects."""
_CONVERTED_KEYWORDS = (
    "$ref", "$defs", "anyOf", "const", "title", "properties", "required", "additionalProperties", "items",
    "exclusiveMinimum", "exclusiveMaximum", "propertyNames", "patternProperties",
)  # fmt: skip
_BOUNDS = {"string": "maxLength", "array": "maxItems"}


class StructuralSchemaError(Exception):
    """A model that Kubernetes cannot express or must not accept; the message says which field and what to change."""


def build_structural_schema(model: type[BaseModel], *, path: str, defaults: bool = True) -> Json:
    """Build the schema of `model` below `path` ("spec", "status").

    Use `defaults=False` for a status: the operator writes it whole, and a default would claim what it did not write.

    Raises:
        StructuralSchemaError: a field without a bound, or one that the dialect cannot express.
    """
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _Converter(raw.get("$defs", {}), defaults).convert(raw, path)


class _Converter:
    """One conversion: the definitions behind references, and whether defaults are copied."""

    def __init__(self, definitions: Mapping[str, Json], defaults: bool) -> None:
        self._definitions = definitions
        self._defaults = defaults

    def convert(self, node: Json, path: str) -> Json:
        node = self._resolve(node, path)
        unknown = sorted(set(node) - set(_COPIED_KEYWORDS) - set(_CONVERTED_KEYWORDS))
        if unknown:
            raise StructuralSchemaError(
                f"{path}: {', '.join(unknown)}: no such words in a structural schema; change the model"
            )
        out = {key: node[key] for key in _COPIED_KEYWORDS if key in node}
        if "const" in node:
            out["enum"] = [node["const"]]
        _convert_limits(node, out)
        if "properties" in node:
            out["properties"] = {k: self.convert(v, f"{path}.{k}") for k, v in node["properties"].items()}
            if node.get("required"):
                out["required"] = sorted(node["required"])
        elif isinstance(node.get("additionalProperties"), dict):
            out["additionalProperties"] = self.convert(node["additionalProperties"], f"{path}[*]")
        elif "patternProperties" in node:
            ((pattern, values),) = node["patternProperties"].items()
            out["additionalProperties"] = self.convert(values, f"{path}[*]")
            out["x-kubernetes-validations"] = [_build_key_rule(pattern, node.get("propertyNames", {}), path)]
        if "items" in node:
            out["items"] = self.convert(node["items"], f"{path}[]")
        self._set_default(out)
        _check_field(out, path)
        return out

    def _resolve(self, node: Json, path: str) -> Json:
        """Return the node without references and `null`; keywords next to a reference override its target's."""
        if "anyOf" in node:
            variants = [v for v in node["anyOf"] if v.get("type") != "null"]
            if len(variants) != 1:
                raise StructuralSchemaError(f"{path}: a union of {len(variants)} types; a structural schema takes one")
            node = {**variants[0], **{k: v for k, v in node.items() if k != "anyOf"}}
        if "$ref" in node:
            target = self._definitions[node["$ref"].rsplit("/", 1)[-1]]
            return self._resolve({**target, **{k: v for k, v in node.items() if k != "$ref"}}, path)
        return node

    def _set_default(self, out: Json) -> None:
        """Drop defaults that are null or empty; give an object `{}` if a field inside it has a default."""
        default = out.pop("default", None)
        if not self._defaults:
            return
        if default not in (None, {}, [], ()):
            out["default"] = default
        fields = out.get("properties", {}).values()
        if "required" not in out and any("default" in field for field in fields):
            out["default"] = {}


def _convert_limits(node: Json, out: Json) -> None:
    """Convert exclusive bounds: a number in JSON Schema 2020, a flag next to the bound in OpenAPI 3.0."""
    for exclusive, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in node:
            out[limit], out[exclusive] = node[exclusive], True
    if node.get("type") == "integer":
        out["format"] = "int64"


def _build_key_rule(pattern: str, names: Json, path: str) -> Json:
    """Build the CEL rule for a map's keys, which a structural schema cannot express; keys add no cost."""
    most = names.get("maxLength")
    if most is None or "'" in pattern:
        raise StructuralSchemaError(f"{path}: keys without maxLength, or ' in their pattern; give the keys max_length")
    return {
        "rule": f"self.all(key, size(key) <= {most} && key.matches(r'{pattern}'))",
        "message": f"keys must have at most {most} characters and match {pattern}",
    }


def _check_field(out: Json, path: str) -> None:
    kind = out.get("type")
    if kind is None:
        raise StructuralSchemaError(f"{path}: no type; give the field one")
    if "description" not in out and not path.endswith(("[]", "[*]")):
        raise StructuralSchemaError(f"{path}: no description; `kubectl explain` would show nothing")
    limit = _BOUNDS.get(kind)
    if limit and limit not in out and "enum" not in out:
        raise StructuralSchemaError(f"{path}: {kind} without {limit}; give the field max_length")
    if "additionalProperties" in out and "maxProperties" not in out:
        raise StructuralSchemaError(f"{path}: a map without maxProperties; give the field max_length")
    if kind == "object" and "properties" not in out and "additionalProperties" not in out:
        raise StructuralSchemaError(f"{path}: an object that says nothing of its fields would lose them all")
