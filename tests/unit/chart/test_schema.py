"""The way from pydantic to a structural schema: what passes, what is rewritten, what is refused at generation."""

from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from r1plus_operator.api import crd
from r1plus_operator.api.schema import SchemaError, structural
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
    found = structural(Outer, path="spec")
    assert found["properties"][field] == schema
    assert found["required"] == ["colour"]
    assert "additionalProperties" not in found


def test_what_holds_for_a_maps_keys_becomes_a_rule() -> None:
    found = structural(Labels, path="spec")["properties"]["labels"]
    assert found["additionalProperties"] == {"type": "string", "maxLength": 3}
    assert found["x-kubernetes-validations"] == [
        {
            "rule": "self.all(key, size(key) <= 9 && key.matches(r'^[a-z]+$'))",
            "message": "keys must have at most 9 characters and match ^[a-z]+$",
        }
    ]


def test_a_status_has_no_defaults() -> None:
    assert "default" not in str(structural(Outer, path="status", defaults=False))


class NoBound(BaseModel):
    """A string without an end."""

    text: str = Field(description="Text.")


class NoItems(BaseModel):
    """A list without an end."""

    texts: list[Annotated[str, Field(max_length=1)]] = Field(description="Texts.")


class NoMap(BaseModel):
    """A map without an end."""

    texts: dict[str, Annotated[str, Field(max_length=1)]] = Field(description="Texts.")


class Labels(BaseModel):
    """A map whose keys are held to something."""

    labels: dict[Annotated[str, Field(max_length=9, pattern="^[a-z]+$")], Annotated[str, Field(max_length=3)]] = Field(
        max_length=2, description="Labels."
    )


class NoKeys(BaseModel):
    """Keys without an end."""

    labels: dict[Annotated[str, Field(pattern="^[a-z]+$")], Annotated[str, Field(max_length=3)]] = Field(
        max_length=2, description="Labels."
    )


class NoWords(BaseModel):
    """A field that nobody explains."""

    number: int


class Union(BaseModel):
    """Two types at once."""

    either: int | Annotated[str, Field(max_length=1)] = Field(description="Either.")


class Anything(BaseModel):
    """A field of any type."""

    thing: Any = Field(description="Thing.")


class Multiple(BaseModel):
    """A word that Kubernetes' dialect lacks in our table."""

    number: int = Field(multiple_of=2, description="Number.")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (NoBound, "spec.text: string without maxLength"),
        (NoItems, "spec.texts: array without maxItems"),
        (NoMap, "spec.texts: a map without maxProperties"),
        (NoKeys, "spec.labels: keys without maxLength"),
        (NoWords, "spec.number: no description"),
        (Union, "spec.either: a union of 2 types"),
        (Anything, "spec.thing: no type"),
        (Multiple, "spec.number: multipleOf: no such words"),
    ],
    ids=[
        "a string without a bound",
        "a list without a bound",
        "a map without a bound",
        "keys without a bound",
        "a field without a description",
        "a union",
        "a field of any type",
        "a word that is not known",
    ],
)
def test_what_kubernetes_cannot_hold_is_refused_at_generation(model: type[BaseModel], said: str) -> None:
    with pytest.raises(SchemaError) as caught:
        structural(model, path="spec")
    assert str(caught.value).startswith(said)


def test_names_columns_and_scope_are_those_that_users_type() -> None:
    made = {definition["spec"]["names"]["kind"]: definition["spec"] for definition in crd.definitions().values()}
    deployments, engines = made["R1PlusDeployment"], made["R1PlusEngine"]
    assert (deployments["scope"], engines["scope"]) == ("Namespaced", "Cluster")
    assert (deployments["names"]["shortNames"], engines["names"]["shortNames"]) == (["r1p"], ["r1e"])
    assert [c["name"] for c in deployments["versions"][0]["additionalPrinterColumns"]] == [
        "Tier", "Engine", "Batch", "Accuracy", "Verdict", "Ready", "Age",
    ]  # fmt: skip
    assert [c["name"] for c in engines["versions"][0]["additionalPrinterColumns"]] == [
        "Family", "Tier", "Version", "Precision", "Backend", "Suite", "Age",
    ]  # fmt: skip


def test_every_default_that_the_server_fills_in_is_the_models_own() -> None:
    filled = structural(R1PlusDeploymentSpec, path="spec")["properties"]
    defaults = {"tier": "full", "replicas": filled["replicas"]["default"]}
    defaults["accuracy"] = {
        name: field["default"] for name, field in filled["accuracy"]["properties"].items() if "default" in field
    }
    assert R1PlusDeploymentSpec.model_validate(defaults) == R1PlusDeploymentSpec.model_validate({"tier": "full"})


def test_the_checked_in_definitions_hold_no_reference() -> None:
    assert "$ref" not in "".join(crd.to_yaml(definition) for definition in crd.definitions().values())
