"""The catalog: what is shipped, and what is refused with file, object, field and value."""

import copy
import functools
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import CatalogError, load_catalog
from r1plus_model_repo.catalog.types import ArchiveFile, Backend, EngineSpec, Tier
from r1plus_policies.engine.memory_fit import GIB, compute_fit

SHIPPED = Path(catalog.__file__).parent


@functools.cache
def parse_documents() -> dict[str, dict]:
    files = [yaml.safe_load_all(path.read_text()) for path in sorted(SHIPPED.glob("*.yaml"))]
    return {d["metadata"]["name"]: d for file in files for d in file}


def documents() -> dict[str, dict]:
    """Return the shipped engines by name; each caller may change its own."""
    return copy.deepcopy(parse_documents())


def text_of(*objects: dict) -> str:
    return yaml.safe_dump_all(objects)


def changed(path: str, value: object) -> str:
    """The F16 engine with one field set (or taken away: None)."""
    document = documents()["smollm2-full-f16"]
    *parents, last = path.split(".")
    place = document
    for key in parents:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return text_of(document)


def test_the_shipped_catalog_has_an_engine_for_every_tier_and_a_rival() -> None:
    engines = {engine.name: engine.spec for engine in load_catalog(SHIPPED)}
    assert {spec.tier for spec in engines.values()} == set(Tier)
    rival = engines["smollm2-full-q4-1"]
    assert (rival.tier, rival.reference.inherited_from) == (Tier.FULL, "smollm2-full-f16")
    assert rival.reference.suite == engines["smollm2-full-f16"].reference.suite


def test_the_shipped_engines_promise_real_digests() -> None:
    digests = [engine.spec.artifact.sha256 for engine in load_catalog(SHIPPED) if engine.spec.artifact]
    assert len(set(digests)) == 4
    assert not any(set(digest) == {"0"} for digest in digests)


def test_published_shapes_are_there_for_every_tier_and_gpu_backend_and_claim_nothing_as_measured() -> None:
    shapes = [engine.spec for engine in load_catalog(SHIPPED) if engine.spec.family == "r1plus"]
    gpu = [backend for backend in Backend if backend not in (Backend.OPENVINO, Backend.TORCH)]
    assert {(s.tier, s.backend) for s in shapes} == {(tier, backend) for tier in Tier for backend in gpu}
    assert all(s.artifact is None and s.reference.claimed_by and s.precision == "FP16" for s in shapes)
    assert all(s.batch.best == 32 and s.architecture.context_length == 65536 for s in shapes)


WEIGHTS = {"full": (12.2e9, 22.7, 44.5), "lite": (3.2e9, 6.0, 21.4), "edge": (0.7e9, 1.3, 4.0)}


@pytest.mark.parametrize("tier, figures", WEIGHTS.items(), ids=WEIGHTS.keys())
def test_the_memory_of_a_published_shape_follows_from_its_parameters(tier: str, figures: tuple[float, ...]) -> None:
    parameters, weights, total = figures
    engines = [one for one in load_catalog(SHIPPED) if (one.spec.family, one.spec.tier) == ("r1plus", tier)]
    assert engines
    for engine in engines:
        assert engine.spec.architecture.parameters == parameters
        assert 0 <= engine.spec.shape.weights_bytes - 2 * parameters < 2**20
        assert round(engine.spec.shape.weights_bytes / GIB, 1) == weights
        assert round(compute_fit(engine.spec.shape, 32, 65536).total_bytes / GIB, 1) == total


def test_kv_cache_bytes_per_token_follow_from_the_shape() -> None:
    spec = next(engine.spec for engine in load_catalog(SHIPPED) if engine.name == "smollm2-full-f16")
    assert spec.shape.kv_bytes_per_token == 2 * 30 * 3 * 64 * 2 == 23040


def test_an_engine_survives_the_wire() -> None:
    engines = load_catalog(SHIPPED)
    assert {Tier.FULL, Tier.LITE, Tier.EDGE} <= {engine.spec.tier for engine in engines}
    for engine in engines:
        wire = engine.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
        assert EngineSpec.model_validate(wire) == engine.spec
        assert wire == documents()[engine.name]["spec"]


def test_a_file_a_folder_and_text_are_the_same() -> None:
    text = "\n---\n".join(path.read_text() for path in SHIPPED.glob("*.yaml"))
    assert load_catalog(SHIPPED) == load_catalog(text)
    assert load_catalog(SHIPPED / "smollm2.yaml") == load_catalog((SHIPPED / "smollm2.yaml").read_text())


REFUSED = {
    "another kind": (changed("kind", "Engine"), "apiVersion, kind: expected r1plus.ai/v1alpha1 R1PlusEngine"),
    "no name": (changed("metadata.name", None), "metadata.name: missing"),
    "an unknown field": (
        changed("spec.batch.maximum", 3),
        "spec.batch.maximum: no such field; expected one of best, max (got 3)",
    ),
    "an unknown tier": (
        changed("spec.tier", "huge"),
        "spec.tier: Input should be 'full', 'lite' or 'edge' (got 'huge')",
    ),
    "a backend nobody implements": (changed("spec.backend", "onnx"), "spec.backend: Input should be 'openvino'"),
    "a GPU backend without a GPU": (
        changed("spec.backend", "tensorrtllm"),
        "requirements.gpu is required with backends tensorrtllm and tensorrt",
    ),
    "a KV cache that vLLM has not on CPU": (
        changed("spec.backend", "vllm").replace("backend: vllm", "backend: vllm\n  kvPrecision: FP16"),
        "kvPrecision must be absent with backend vllm on CPU, whose KV cache has 32 bits: it is FP16",
    ),
    "a KV cache that torch has not": (
        changed("spec.backend", "torch").replace("backend: torch", "backend: torch\n  kvPrecision: FP16"),
        "kvPrecision must be absent with backend torch, whose KV cache has 32 bits: it is FP16",
    ),
    "a window that OpenVINO would not keep": (
        changed("spec.architecture.window", 512),
        "absent with backend openvino, whose layers keep all tokens: window is 512",
    ),
    "global layers where all are": (
        changed("spec.architecture.globalLayers", 0),
        "globalLayers must be absent with backend openvino",
    ),
    "a KV cache that OpenVINO would not keep": (
        changed("spec.kvPrecision", "INT8"),
        "kvPrecision must be FP16 with backend openvino, whose KV cache has 16 bits: it is INT8",
    ),
    "attention that no runtime does": (
        changed("spec.attention", {"sparse": {"threshold": 0.9}}).replace("backend: openvino", "backend: vllm"),
        "attention is for the backend openvino; no other runtime here leaves tokens out by these settings: backend is",
    ),
    "attention that leaves nothing out": (
        changed("spec.attention", {}),
        "spec.attention: attention needs sparse, eviction or both; omit it where every token attends to all before it",
    ),
    "a threshold that OpenVINO takes for dense": (
        changed("spec.attention", {"sparse": {"threshold": 1}}),
        "spec.attention.sparse.threshold: Input should be less than or equal to 0.99 (got 1)",
    ),
    "a threshold that OpenVINO takes for off": (
        changed("spec.attention", {"sparse": {"threshold": 0}}),
        "spec.attention.sparse.threshold: Input should be greater than or equal to 0.1 (got 0)",
    ),
    "eviction of half a block": (
        changed("spec.attention", {"eviction": {"startTokens": 32, "recentTokens": 65, "maxTokens": 1024}}),
        "maxTokens must be multiples of 32, the tokens of a block: they are 32, 65 and 1024",
    ),
    "eviction of nothing": (
        changed("spec.attention", {"eviction": {"startTokens": 32, "recentTokens": 992, "maxTokens": 1024}}),
        "maxTokens must exceed startTokens + recentTokens, which are always kept: they are 32, 992 and 1024",
    ),
    "eviction without a limit": (
        changed("spec.attention", {"eviction": {"startTokens": 32, "recentTokens": 64}}),
        "spec.attention.eviction.maxTokens: missing; it has no default",
    ),
    "another sparse attention": (
        changed("spec.attention", {"triShape": {}}),
        "spec.attention.triShape: no such field; expected one of eviction, sparse",
    ),
    "a CPU backend with a GPU": (
        changed("spec.requirements.gpu", {"count": 1}),
        "must be absent with openvino and torch, which run on CPU; vllm runs on CPU without it: backend is openvino",
    ),
    "measured files that are not there": (changed("spec.artifact", None), "artifact is required unless"),
    "a capability that is none": (
        changed("spec.requirements.gpu", {"count": 1, "minCapability": "8"}),
        "spec.requirements.gpu.minCapability",
    ),
    "a version that is none": (changed("spec.version", "v1"), "spec.version"),
    "an image and an archive": (
        changed("spec.artifact.archive", {"url": "https://a.example/e.tar", "sha256": "a" * 64, "size": "1Gi"}),
        "spec.artifact: artifact needs exactly one of image and archive",
    ),
    "neither": (changed("spec.artifact.image", None), "artifact needs exactly one of image and archive"),
    "a short digest": (changed("spec.artifact.sha256", "abc"), "spec.artifact.sha256"),
    "memory that is no quantity": (
        changed("spec.requirements.weightsMemory", "lots"),
        "spec.requirements.weightsMemory",
    ),
    "no layers": (changed("spec.architecture.layers", 0), "spec.architecture.layers: Input should be greater"),
    "the best batch above the largest": (
        changed("spec.batch.best", 64),
        "batch.best must not exceed batch.max: 64 exceeds 32",
    ),
    "two sources of the reference": (
        changed("spec.reference.inheritedFrom", "smollm2-lite-q8-0"),
        "exactly one of inheritedFrom, measured and claimedBy",
    ),
    "no source of the reference": (
        changed("spec.reference.measured", None),
        "exactly one of inheritedFrom, measured and claimedBy",
    ),
    "a claim beside a measurement": (
        changed("spec.reference.claimedBy", "us"),
        "exactly one of inheritedFrom, measured and claimedBy",
    ),
    "a reference inherited from nobody": (
        text_of(documents()["smollm2-full-q4-1"]),
        "smollm2-full-q4-1: spec.reference.inheritedFrom: smollm2-full-f16: no measured engine",
    ),
    "one name twice": (
        changed("spec.version", "1.0.1") + "\n---\n" + changed("spec.version", "1.0.2"),
        "2 engines have this name",
    ),
    "text that is no YAML": ("a: [", "text: not YAML"),
    "a list": ("- 1", "apiVersion, kind"),
}


@pytest.mark.parametrize("text, message", REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_engine_is_refused_with_field_and_value(text: str, message: str) -> None:
    with pytest.raises(CatalogError) as refusal:
        load_catalog(text)
    assert message in str(refusal.value)


def test_all_problems_are_told_with_their_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(changed("spec.tier", "huge"))
    (tmp_path / "b.yaml").write_text(changed("spec.version", "1"))
    with pytest.raises(CatalogError) as refusal:
        load_catalog(tmp_path)
    assert [line.split(":")[0] for line in refusal.value.problems] == ["a.yaml", "b.yaml"]


ADDRESSES = {
    "https://artifacts.bank.example/engines/lite.tar": "",
    "https://10.20.0.5:8443/e.tar.xz?X-Amz-Signature=a%2Fb&n=1": "",
    "https://0cean.example/e.tar": "",
    "https://localhosts.example/e.tar": "",
    "https://127.example/e.tar": "",
    "http://artifacts.bank.example/e.tar": "String should match pattern",
    "file:///etc/passwd": "String should match pattern",
    "https://user:pw@artifacts.bank.example/e.tar": "String should match pattern",
    "https://artifacts.bank.example": "String should match pattern",
    "https://artifacts.bank.example/e.tar#part": "String should match pattern",
    "https://[::1]/e.tar": "String should match pattern",
    "https://localhost/e.tar": "must not lead to this machine",
    "https://a.localhost:8443/e.tar": "must not lead to this machine",
    "https://metadata.google.internal/computeMetadata/v1/": "must not lead to this machine",
    "https://127.0.0.1/e.tar": "must not lead to this machine",
    "https://127.1/e.tar": "must not lead to this machine",
    "https://2130706433/e.tar": "must not lead to this machine",
    "https://0x7f.1/e.tar": "must not lead to this machine",
    "https://0.0.0.0/e.tar": "must not lead to this machine",
    "https://169.254.169.254/latest/meta-data/": "must not lead to this machine",
}


@pytest.mark.parametrize(("url", "refusal"), ADDRESSES.items())
def test_from_which_addresses_an_archive_may_come(url: str, refusal: str) -> None:
    given = {"url": url, "sha256": "a" * 64, "size": "1Gi"}
    if not refusal:
        assert ArchiveFile.model_validate(given).url == url
        return
    with pytest.raises(ValidationError, match=refusal):
        ArchiveFile.model_validate(given)
