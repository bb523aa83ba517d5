"""What the OpenVINO backend makes of the attention in config.pbtxt; what it does not know it refuses."""

from typing import Any

import openvino_genai
import pytest

from r1plus_contract.engine.openvino import BLOCK_TOKENS, SPARSE_BACKEND
from r1plus_model_repo.backends.openvino.openvino_engine import EngineSettings, Eviction, build_scheduler_config
from r1plus_model_repo.catalog.attention import Attention
from r1plus_model_repo.catalog.types import EngineSpec
from r1plus_model_repo.config_pbtxt import parse_config, render_config
from r1plus_policies.engine.memory_fit import compute_fit
from support.engine.server import ENGINES
from support.tables import for_each

DENSE = ENGINES["smollm2-full-f16"]
BOTH = {
    "sparse": {"threshold": 0.85},
    "eviction": {"startTokens": 64, "recentTokens": 256, "maxTokens": 1024},
}


def parameters(spec: EngineSpec, build_key: str = "") -> dict[str, str]:
    config = parse_config(render_config(spec, batch=4, context=2048, kv_cache_bytes=0, build_key=build_key))
    return {name: value.string_value for name, value in config.parameters.items()}


def settings(fields: dict[str, Any]) -> EngineSettings:
    spec = DENSE.model_copy(update={"attention": Attention.model_validate(fields)})
    return EngineSettings.from_parameters(parameters(spec))


def test_what_is_rendered_is_read_again() -> None:
    read = settings(BOTH)
    assert (read.sparse_threshold, read.eviction) == (0.85, Eviction(64, 256, 1024))
    dense = EngineSettings.from_parameters(parameters(DENSE))
    assert (dense.sparse_threshold, dense.eviction) == (None, None)


def test_an_engine_that_a_job_has_made_is_served_as_any_other() -> None:
    made = parameters(DENSE, build_key="ab" * 32)
    assert made["built"] == "ab" * 32
    assert EngineSettings.from_parameters(made) == EngineSettings.from_parameters(parameters(DENSE))


def test_the_scheduler_does_what_is_asked_and_nothing_else() -> None:
    config = build_scheduler_config(settings(BOTH))
    assert config.use_sparse_attention and config.use_cache_eviction
    assert config.sparse_attention_config.mode == openvino_genai.SparseAttentionMode.XATTENTION
    assert config.sparse_attention_config.xattention_threshold == pytest.approx(0.85)
    kept = config.cache_eviction_config
    assert (kept.get_start_size(), kept.get_recent_size(), kept.get_max_cache_size()) == (64, 256, 1024)
    sparse = build_scheduler_config(settings({"sparse": BOTH["sparse"]}))
    evicting = build_scheduler_config(settings({"eviction": BOTH["eviction"]}))
    assert (sparse.use_sparse_attention, sparse.use_cache_eviction) == (True, False)
    assert (evicting.use_sparse_attention, evicting.use_cache_eviction) == (False, True)
    dense = build_scheduler_config(EngineSettings.from_parameters(parameters(DENSE)))
    assert (dense.use_sparse_attention, dense.use_cache_eviction) == (False, False)


@for_each("changes, words", {
    "a setting of a later version": ({"sparse_stride": "16"}, "sparse_stride: the image is older than the configuration"),
    "a threshold under the name of the dense engine": (
        {"sparse_threshold": "0.9"}, "backend: openvino-sparse goes with sparse_threshold or eviction_max_tokens"
    ),
    "the name of the sparse engine, and nothing to leave out": ({"backend": SPARSE_BACKEND}, "backend: openvino-sparse"),
})  # fmt: skip
def test_it_is_refused_and_never_computed_densely(changes: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EngineSettings.from_parameters(parameters(DENSE) | changes)


def test_the_pool_has_room_for_one_whole_prompt_and_for_what_stays_of_the_others() -> None:
    dense = EngineSettings.from_parameters(parameters(DENSE))
    assert dense.kv_blocks == 4 * 64
    assert settings(BOTH).kv_blocks == 64 + 3 * (32 + 1)
    small = {"eviction": {"startTokens": 32, "recentTokens": 32, "maxTokens": 96}}
    assert settings(small).kv_blocks == 64 + 3 * (32 + 1), "two steps may read 1024 tokens before anything is evicted"


@pytest.mark.parametrize("batch", [8, 512, 1000])
def test_the_backend_takes_no_more_memory_than_the_fit_gives_it(batch: int) -> None:
    small = Attention.model_validate({"eviction": {"startTokens": 32, "recentTokens": 32, "maxTokens": 96}})
    size = DENSE.batch.model_copy(update={"max": batch})
    spec = DENSE.model_copy(update={"attention": small, "batch": size})
    planned = compute_fit(spec.shape, batch, 8192).kv_cache_bytes
    config = parse_config(render_config(spec, batch=batch, context=8192, kv_cache_bytes=planned))
    read = EngineSettings.from_parameters({name: value.string_value for name, value in config.parameters.items()})
    assert read.kv_blocks * BLOCK_TOKENS * read.kv_bytes_per_token <= planned
