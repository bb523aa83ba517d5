"""The way from pydantic to a structural schema: what passes, what is rewritten, what is refused at generation."""

from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model

from r1plus_operator.api import crd
from r1plus_operator.api.schema import StructuralSchemaError, build_structural_schema
from r1plus_operator.api.types import R1PlusDeploymentSpec


class Colour(StrEnum):
    """A choice."""

    RED = "red"


class Inner(BaseModel):
    """The inner."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-validations": [{"rule": "true"}]})

    size: int = Field(3, gt=0, lt=9, description="Size.")


class Outer(BaseModel):
    """The outer."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=5)] | None = Field(None, description="Name.")
    colour: Colour = Field(description="Colour.")
    kind: Literal["one"] = Field("one", description="Kind.")
    inner: Inner = Field(default_factory=Inner, description="Inside.")
    tags: dict[str, Annotated[str, Field(max_length=3)]] = Field(
        default_factory=dict, max_length=2, description="Tags."
    )
    items: tuple[Inner, ...] = Field((), max_length=4, description="Items.")


INNER = {
    "type": "object",
    "x-kubernetes-validations": [{"rule": "true"}],
    "properties": {
        "size": {
            "type": "integer",
            "format": "int64",
            "description": "Size.",
            "minimum": 0,
            "exclusiveMinimum": True,
            "maximum": 9,
            "exclusiveMaximum": True,
            "default": 3,
        }
    },
}


@pytest.mark.parametrize(
    ("field", "schema"),
    [
        ("name", {"type": "string", "maxLength": 5, "description": "Name."}),
        ("colour", {"type": "string", "enum": ["red"], "description": "Colour."}),
        ("kind", {"type": "string", "enum": ["one"], "default": "one", "description": "Kind."}),
        ("inner", {**INNER, "description": "Inside.", "default": {}}),
        (
            "tags",
            {
                "type": "object",
                "maxProperties": 2,
                "description": "Tags.",
                "additionalProperties": {"type": "string", "maxLength": 3},
            },
        ),
        (
            "items",
            {
                "type": "array",
                "maxItems": 4,
                "description": "Items.",
                "items": {**INNER, "description": "The inner.", "default": {}},
            },
        ),
    ],
    ids=[
        "null leaves a union of two",
        "a reference to a choice is inlined",
        "a single choice is a choice of one",
        "a field's description wins over its model's, and an inner default needs an empty object",
        "a map keeps its bound",
        "an empty default is no default",
    ],
)
def test_a_field_becomes_structural(field: str, schema: dict[str, Any]) -> None:
    found = build_structural_schema(Outer, path="spec")
    assert found["properties"][field] == schema
    assert found["required"] == ["colour"]
    assert "additionalProperties" not in found


def test_what_holds_for_a_maps_keys_becomes_a_rule() -> None:
    found = build_structural_schema(Labels, path="spec")["properties"]["labels"]
    assert found["additionalProperties"] == {"type": "string", "maxLength": 3}
    assert found["x-kubernetes-validations"] == [
        {
            "rule": "self.all(key, size(key) <= 9 && key.matches(r'^[a-z]+$'))",
            "message": "keys must have at most 9 characters and match ^[a-z]+$",
        }
    ]


@pytest.mark.parametrize("defaults", [True, False])
def test_a_status_has_no_defaults(defaults: bool) -> None:
    assert ("default" in str(build_structural_schema(Outer, path="status", defaults=defaults))) is defaults


class Labels(BaseModel):
    """A map whose keys are held to something."""

    labels: dict[Annotated[str, Field(max_length=9, pattern="^[a-z]+$")], Annotated[str, Field(max_length=3)]] = Field(
        max_length=2, description="Labels."
    )


SHORT = Annotated[str, Field(max_length=3)]
BAD: dict[str, tuple[tuple[Any, Any], str]] = {
    "a string without a bound": ((str, Field(description="It.")), "spec.it: string without maxLength"),
    "a list without a bound": ((list[SHORT], Field(description="It.")), "spec.it: array without maxItems"),
    "a map without a bound": ((dict[str, SHORT], Field(description="It.")), "spec.it: a map without maxProperties"),
    "keys without a bound": (
        (dict[Annotated[str, Field(pattern="^[a-z]+$")], SHORT], Field(max_length=2, description="It.")),
        "spec.it: keys without maxLength",
    ),
    "a field without a description": ((int, Field()), "spec.it: no description"),
    "a union": ((int | SHORT, Field(description="It.")), "spec.it: a union of 2 types"),
    "a field of any type": ((Any, Field(description="It.")), "spec.it: no type"),
    "a word that is not known": (
        (int, Field(multiple_of=2, description="It.")),
        "spec.it: multipleOf: no such words",
    ),
}


@pytest.mark.parametrize(("field", "said"), BAD.values(), ids=BAD)
def test_what_kubernetes_cannot_hold_is_refused_at_generation(field: tuple[Any, Any], said: str) -> None:
    with pytest.raises(StructuralSchemaError) as caught:
        build_structural_schema(create_model("Model", it=field), path="spec")
    assert str(caught.value).startswith(said)


def test_names_columns_and_scope_are_those_that_users_type() -> None:
    made = {definition["spec"]["names"]["kind"]: definition["spec"] for definition in crd.build_definitions().values()}
    deployments, engines = made["R1PlusDeployment"], made["R1PlusEngine"]
    assert (deployments["scope"], engines["scope"]) == ("Namespaced", "Cluster")
    assert (deployments["names"]["shortNames"], engines["names"]["shortNames"]) == (["r1p"], ["r1e"])
    assert [c["name"] for c in deployments["versions"][0]["additionalPrinterColumns"]] == [
        "Tier", "Engine", "Batch", "Accuracy", "Verdict", "Ready", "Reason", "Age",
    ]  # fmt: skip
    assert [c["name"] for c in engines["versions"][0]["additionalPrinterColumns"]] == [
        "Kind", "Family", "Tier", "Version", "Precision", "Backend", "Suite", "Age",
    ]  # fmt: skip


def test_every_default_that_the_server_fills_in_is_the_models_own() -> None:
    filled = build_structural_schema(R1PlusDeploymentSpec, path="spec")["properties"]
    defaults = {"tier": "full", "replicas": filled["replicas"]["default"]}
    defaults["accuracy"] = {
        name: field["default"] for name, field in filled["accuracy"]["properties"].items() if "default" in field
    }
    assert R1PlusDeploymentSpec.model_validate(defaults) == R1PlusDeploymentSpec.model_validate({"tier": "full"})


def test_the_checked_in_definitions_hold_no_reference() -> None:
    rendered = [crd.render_yaml(definition) for definition in crd.build_definitions().values()]
    assert "openAPIV3Schema" in rendered[0]
    assert [text for text in rendered if "$ref" in text] == []
