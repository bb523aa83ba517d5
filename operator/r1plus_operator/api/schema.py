"""From pydantic's JSON schema to the structural OpenAPI v3 schema that a CustomResourceDefinition takes.

Called by `crd`. Kubernetes knows a subset of OpenAPI 3.0: no `$ref`, no `null` in a union, `exclusiveMinimum` as a
flag, and a cost for CEL rules that only stays bounded where every string, list and map is. What cannot be expressed, or
has no bound, is an error here, at generation, not a surprise at `kubectl apply`.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

Json = dict[str, Any]

_KEPT = (
    "type", "format", "description", "default", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength",
    "minItems", "maxItems", "minProperties", "maxProperties", "x-kubernetes-validations", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
)  # fmt: skip
"""What passes from one dialect to the other unchanged."""
_HANDLED = (
    "$ref", "$defs", "anyOf", "const", "title", "properties", "required", "additionalProperties", "items",
    "exclusiveMinimum", "exclusiveMaximum", "propertyNames", "patternProperties",
)  # fmt: skip
_BOUNDS = {"string": "maxLength", "array": "maxItems"}


class SchemaError(Exception):
    """A model that Kubernetes cannot express or must not accept; names the field and what to change in the model."""


def structural(model: type[BaseModel], *, path: str, defaults: bool = True) -> Json:
    """The schema of `model` as it stands below `path` ("spec", "status").

    `defaults=False` for a status: the operator writes it whole, and a default would be a claim that nobody made.

    Raises:
        SchemaError: a field without a bound, or one that the dialect has no words for.
    """
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _Converter(raw.get("$defs", {}), defaults).convert(raw, path)


class _Converter:
    """One conversion: the definitions that references lead to, and whether defaults pass."""

    def __init__(self, definitions: Mapping[str, Json], defaults: bool) -> None:
        self._definitions = definitions
        self._defaults = defaults

    def convert(self, node: Json, path: str) -> Json:
        node = self._resolved(node, path)
        unknown = sorted(set(node) - set(_KEPT) - set(_HANDLED))
        if unknown:
            raise SchemaError(f"{path}: {', '.join(unknown)}: no such words in a structural schema; change the model")
        out = {key: node[key] for key in _KEPT if key in node}
        if "const" in node:
            out["enum"] = [node["const"]]
        _limits(node, out)
        if "properties" in node:
            out["properties"] = {k: self.convert(v, f"{path}.{k}") for k, v in node["properties"].items()}
            if node.get("required"):
                out["required"] = sorted(node["required"])
        elif isinstance(node.get("additionalProperties"), dict):
            out["additionalProperties"] = self.convert(node["additionalProperties"], f"{path}[*]")
        elif "patternProperties" in node:
            ((pattern, values),) = node["patternProperties"].items()
            out["additionalProperties"] = self.convert(values, f"{path}[*]")
            out["x-kubernetes-validations"] = [_keys(pattern, node.get("propertyNames", {}), path)]
        if "items" in node:
            out["items"] = self.convert(node["items"], f"{path}[]")
        self._set_default(out)
        _check(out, path)
        return out

    def _resolved(self, node: Json, path: str) -> Json:
        """The node without references and without `null`; what stands beside a reference wins over what it leads to."""
        if "anyOf" in node:
            variants = [v for v in node["anyOf"] if v.get("type") != "null"]
            if len(variants) != 1:
                raise SchemaError(f"{path}: a union of {len(variants)} types; a structural schema takes one")
            node = {**variants[0], **{k: v for k, v in node.items() if k != "anyOf"}}
        if "$ref" in node:
            target = self._definitions[node["$ref"].rsplit("/", 1)[-1]]
            return self._resolved({**target, **{k: v for k, v in node.items() if k != "$ref"}}, path)
        return node

    def _set_default(self, out: Json) -> None:
        """Drop defaults that say nothing (null, empty); give an object `{}` where a field inside it has a default."""
        given = out.pop("default", None)
        if not self._defaults:
            return
        if given not in (None, {}, [], ()):
            out["default"] = given
        fields = out.get("properties", {}).values()
        if "required" not in out and any("default" in field for field in fields):
            out["default"] = {}


def _limits(node: Json, out: Json) -> None:
    """JSON Schema 2020 writes an exclusive bound as a number, OpenAPI 3.0 as a flag beside the bound."""
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in node:
            out[bound], out[exclusive] = node[exclusive], True
    if node.get("type") == "integer":
        out["format"] = "int64"


def _keys(pattern: str, names: Json, path: str) -> Json:
    """A structural schema has no words for a map's keys. CEL has, and to its cost estimate a key costs nothing."""
    most = names.get("maxLength")
    if most is None or "'" in pattern:
        raise SchemaError(f"{path}: keys without maxLength, or ' in their pattern; give the keys max_length")
    return {
        "rule": f"self.all(key, size(key) <= {most} && key.matches(r'{pattern}'))",
        "message": f"keys must have at most {most} characters and match {pattern}",
    }


def _check(out: Json, path: str) -> None:
    kind = out.get("type")
    if kind is None:
        raise SchemaError(f"{path}: no type; give the field one")
    if "description" not in out and not path.endswith(("[]", "[*]")):
        raise SchemaError(f"{path}: no description; `kubectl explain` would show nothing")
    bound = _BOUNDS.get(kind)
    if bound and bound not in out and "enum" not in out:
        raise SchemaError(f"{path}: {kind} without {bound}; give the field max_length")
    if "additionalProperties" in out and "maxProperties" not in out:
        raise SchemaError(f"{path}: a map without maxProperties; give the field max_length")
    if kind == "object" and "properties" not in out and "additionalProperties" not in out:
        raise SchemaError(f"{path}: an object that says nothing of its fields would lose them all")
