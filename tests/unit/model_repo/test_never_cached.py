"""A probe asks the same question again and again: each time it must be computed, or a fault would never be seen."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from r1plus_model_repo.backends.openvino.openvino_engine import EngineSettings, Eviction, build_scheduler_config
from support.paths import GOLDEN

SETTINGS: dict[str, Any] = {
    "path": Path("engine"), "max_batch": 4, "context": 128, "kv_cache_bytes": 2**20, "kv_bytes_per_token": 64, "threads": 1,
    "sparse_threshold": 0.9, "eviction": Eviction(32, 32, 96),
}  # fmt: skip

CONFIGS = GOLDEN / "config"


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.iterdir()))
def test_triton_keeps_no_answer(name: str) -> None:
    config = text_format.Parse((CONFIGS / name).read_text(), ModelConfig())
    assert config.name == "r1plus"
    assert not config.response_cache.enable


def test_the_engine_keeps_no_keys_and_values_of_a_prompt_that_was_asked_before() -> None:
    assert set(SETTINGS) == {field.name for field in fields(EngineSettings)}
    assert build_scheduler_config(EngineSettings(**SETTINGS)).enable_prefix_caching is False
