"""An R1PlusDeployment on one machine: honoured field by field, or refused by field."""

from typing import Any

import pytest

from r1plus_contract.verdict import Gate
from r1plus_edge.errors import EdgeRequestError
from r1plus_edge.start.deployment import ServeRequest, build_request
from r1plus_operator.api.types import DeliveryMode, R1PlusDeploymentSpec


def request_of(options: dict[str, Any] | None = None, **spec: Any) -> ServeRequest:
    return build_request(
        "edge", "local", R1PlusDeploymentSpec.model_validate({"tier": "edge", **spec}), **(options or {})
    )


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "two pods": ({"replicas": 2}, "spec.replicas: 2: one machine runs one pod; leave the field out"),
    "no pod": ({"replicas": 0}, "spec.replicas: 0: one machine runs one pod; leave the field out"),
    "nodes": (
        {"placement": {"nodeSelector": {"zone": "a"}}},
        "spec.placement.nodeSelector: zone=a: there is one node; leave the field out",
    ),
    "tolerations": (
        {"placement": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}},
        "spec.placement.tolerations: key='gpu'",
    ),
    "namespaces that may call": (
        {"access": {"namespaces": ["team-app"]}},
        "spec.access.namespaces: team-app: callers have API keys here; leave the field out",
    ),
    "an image": ({"delivery": {"mode": "Image"}}, "spec.delivery.mode: Image: there are no images here"),
}


@pytest.mark.parametrize(("spec", "words"), REFUSED.values(), ids=REFUSED)
def test_a_field_that_means_nothing_here_is_refused_by_its_path(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(EdgeRequestError) as refusal:
        request_of(**spec)
    assert str(refusal.value).startswith(words)


def test_each_field_of_the_spec_is_honoured_or_refused() -> None:
    """A field that the API gains is neither until somebody decides."""
    honoured = {"tier", "engine", "batching", "context", "accuracy", "rollout"}
    refused = {words.split(":")[0].removeprefix("spec.") for _, words in REFUSED.values()}
    fields = set()
    for name, field in R1PlusDeploymentSpec.model_fields.items():
        parts = {} if name in honoured else getattr(field.annotation, "model_fields", {})
        fields |= {f"{name}.{part.alias or other}" for other, part in parts.items()} or {name}
    assert honoured | refused == fields


def test_all_refused_fields_are_told_at_once() -> None:
    with pytest.raises(EdgeRequestError) as refusal:
        request_of(replicas=3, access={"namespaces": ["a"]}, delivery={"mode": "Image"})
    assert len(str(refusal.value).splitlines()) == 3


def test_what_the_plan_honours_reaches_it_unchanged() -> None:
    fields = {
        "engine": {"precision": "Q4_1"},
        "batching": {"maxBatchSize": 4},
        "context": {"maxTokens": 512},
        "accuracy": {"threshold": 0.9, "gate": "Observe", "probesPerMinute": 60},
        "rollout": {"deadline": "30m"},
    }
    spec = request_of(**fields).spec
    assert spec.model_dump(mode="json", by_alias=True, exclude_defaults=True) == {
        "tier": "edge",
        **fields,
        "delivery": {"mode": "Volume"},
    }


def test_options_are_as_if_the_file_had_them() -> None:
    spec = request_of({"gate": Gate.OBSERVE, "suite": "bank-v1", "tier": "edge"}).spec
    assert (spec.accuracy.gate, spec.accuracy.suite, spec.delivery.mode) == (
        Gate.OBSERVE,
        "bank-v1",
        DeliveryMode.VOLUME,
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tier": "lite"}, "--tier lite: the file has spec.tier: edge"),
        ({"suite": "mine-v1"}, "--suite mine-v1: the file has spec.accuracy.suite: other-v1"),
    ],
    ids=["another tier", "another suite"],
)
def test_an_option_that_contradicts_the_file_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(EdgeRequestError, match=words):
        request_of(options, accuracy={"suite": "other-v1"})
