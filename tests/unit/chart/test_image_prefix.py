"""`images.prefix` leads every reference without a registry to one registry, and no other reference."""

import json
from typing import Any

import pytest
import yaml

from support.chart import Objects, Refusal, Render

PREFIX = "registry.bank.example:5000/r1plus"
SELF = f"@sha256:{'4' * 64}"


def list_references(objects: Objects) -> dict[str, str]:
    """Return the images of a rendered chart: name of the value or the engine -> reference."""
    references: dict[str, str] = {}
    for item in objects:
        for engine in yaml.safe_load_all(item.get("data", {}).get("engines.yaml", "")):
            if engine and "artifact" in engine["spec"]:
                references[engine["metadata"]["name"]] = engine["spec"]["artifact"]["image"]
        template = item.get("spec", {}).get("template", {}).get("spec", {})
        for container in template.get("containers", []):
            references[f"{item['kind']}/{container['name']}"] = container["image"]
            for variable in container.get("env", []):
                if variable["name"].endswith(("_IMAGE", "_RUNTIMES", "_IMAGES")) and "value" in variable:
                    references[variable["name"]] = variable["value"]
    return references


@pytest.mark.parametrize(
    ("reference", "rendered"),
    [
        pytest.param("r1plus-operator" + SELF, f"{PREFIX}/r1plus-operator{SELF}", id="a name by digest"),
        pytest.param("r1plus-operator:0.1.0", f"{PREFIX}/r1plus-operator:0.1.0", id="a name by tag"),
        pytest.param("team/operator" + SELF, f"{PREFIX}/team/operator{SELF}", id="a name with a folder"),
        pytest.param("ghcr.io/team/operator" + SELF, f"ghcr.io/team/operator{SELF}", id="a registry"),
        pytest.param("mirror:5000/operator" + SELF, f"mirror:5000/operator{SELF}", id="a registry with a port only"),
        pytest.param("localhost/operator" + SELF, f"localhost/operator{SELF}", id="the registry localhost"),
    ],
)
def test_only_a_reference_without_a_registry_gets_the_prefix(render: Render, reference: str, rendered: str) -> None:
    values = {"images": {"prefix": PREFIX, "requireDigests": False, "operator": reference, "gateway": reference,
                         "cpu": {"vllm": {"image": reference, "version": "1"}}}}  # fmt: skip
    references = list_references(render(values))
    operators = {name: value for name, value in references.items() if name.endswith(("/operator", "/crds"))}
    assert operators
    assert set(operators.values()) == {rendered}, references
    runtimes = [json.loads(value) for value in references.values() if value.startswith("{") and "vllm" in value]
    assert runtimes == [{"vllm": {"image": rendered, "version": "1"}}]


def test_the_prefix_leads_every_image_of_the_chart_to_one_registry(render: Render) -> None:
    shipped = [name for name, image in list_references(render()).items() if image.startswith("r1plus.local/engine-")]
    engines = {name: f"engines/{name}{SELF}" for name in shipped}
    values = {"images": {"prefix": PREFIX, "requireDigests": False, "gateway": "r1plus-gateway:1", "engines": engines}}
    references = {name: value for name, value in list_references(render(values)).items() if value not in ("", "{}")}
    others = {name: value for name, value in references.items() if not value.startswith(f"{PREFIX}/")}
    assert "smollm2-edge-q4-1" in shipped
    assert references.keys() >= set(shipped)
    assert others == {}


def test_the_admission_policy_names_the_gateway_as_its_pods_do(render: Render) -> None:
    values = {"images": {"prefix": PREFIX, "requireDigests": False, "gateway": "r1plus-gateway:1"}}
    rules = json.dumps([item for item in render(values) if item["kind"] == "ValidatingAdmissionPolicy"])
    assert f"'{PREFIX}/r1plus-gateway:1'" in rules
    assert "'r1plus-gateway:1'" not in rules


@pytest.mark.parametrize("prefix", ["https://registry.example.com", "registry.example.com/", "a b", "x/UPPER"])
def test_a_prefix_that_is_no_registry_is_refused(refusal: Refusal, prefix: Any) -> None:
    assert "/images/prefix" in refusal({"images": {"prefix": prefix}})
