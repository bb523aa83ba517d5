"""config.pbtxt against its golden files. Renew them: R1PLUS_GOLDEN=write pytest tests/unit/model_repo/test_config_pbtxt.py"""

import os
from pathlib import Path

import pytest
from google.protobuf import text_format

from r1plus_contract import inference
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.attention import Attention
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import EngineSpec, GpuRequirement, KvPrecision
from r1plus_model_repo.config_gpu import find_unservable_field
from r1plus_model_repo.config_pbtxt import count_threads, parse_config, render_config
from r1plus_model_repo.config_rules import GPU_BACKENDS, find_config_problems
from support.paths import GOLDEN

CONFIGS = GOLDEN / "config"
SHIPPED = load_catalog(Path(catalog.__file__).parent)
ENGINES = {engine.name: engine.spec for engine in SHIPPED}
WISHES = {"smollm2": ((16, 2048), (1, 8192)), "r1plus": ((32, 65536),)}
CASES = [(name, batch, context) for name in sorted(ENGINES) for batch, context in WISHES[ENGINES[name].family]]


def rendered(name: str, batch: int, context: int) -> str:
    cache = batch * context * ENGINES[name].shape.kv_bytes_per_token
    return render_config(ENGINES[name], batch=batch, context=context, kv_cache_bytes=cache)


@pytest.mark.parametrize("name, batch, context", CASES, ids=str)
def test_the_text_is_the_golden_one(name: str, batch: int, context: int) -> None:
    path = CONFIGS / f"{name}-batch{batch}-context{context}.pbtxt"
    text = rendered(name, batch, context)
    if os.environ.get("R1PLUS_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in CONFIGS.iterdir()} == {f"{n}-batch{b}-context{c}.pbtxt" for n, b, c in CASES}


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_what_is_rendered_keeps_tritons_rules_where_its_backend_is(name: str) -> None:
    text = rendered(name, 16, 2048)
    assert find_config_problems(text, name=inference.MODEL_NAME, gpus=True, backends=GPU_BACKENDS) == ()


def changed(name: str, **architecture: int) -> EngineSpec:
    spec = ENGINES[name]
    return spec.model_copy(update={"architecture": spec.architecture.model_copy(update=architecture)})


def parameters(spec: EngineSpec, batch: int, context: int) -> dict[str, str]:
    config = parse_config(render_config(spec, batch=batch, context=context, kv_cache_bytes=0))
    return {key: value.string_value for key, value in config.parameters.items()}


def test_tensorrt_llm_gets_the_window_and_as_many_tokens_as_the_fit_counted() -> None:
    given = parameters(ENGINES["r1plus-full-fp16-tensorrtllm"], 32, 65536)
    assert given["windows"] == "4096"
    assert given["kv_tokens"] == str(32 * 4096)
    assert parameters(ENGINES["r1plus-full-fp16-tensorrtllm"], 32, 2048)["windows"] == "2048"


def test_global_layers_stand_at_the_end_of_each_period_and_pages_are_for_the_longest() -> None:
    spec = changed("r1plus-full-fp16-tensorrtllm", layers=6, window=128, global_layers=2)
    given = parameters(spec, 4, 1000)
    assert given["windows"] == "128,128,1000,128,128,1000"
    assert given["kv_tokens"] == "4000"
    more = changed("r1plus-full-fp16-tensorrtllm", layers=6, window=128, global_layers=9)
    assert set(parameters(more, 4, 1000)["windows"].split(",")) == {"1000"}


def test_a_tensorrt_plan_names_key_and_value_of_every_layer() -> None:
    config = parse_config(rendered("r1plus-edge-fp16-tensorrt", 8, 4096))
    past = [i for i in config.input if i.name.startswith("past_key_values.")]
    assert len(past) == 2 * 24
    assert all(list(i.dims) == [2, -1, 64] for i in past)
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 8)


ATTENTION = {
    "sparse": ({"sparse": {"threshold": 0.9}}, {"sparse_threshold": "0.9"}),
    "evicting": (
        {"eviction": {"startTokens": 32, "recentTokens": 128, "maxTokens": 1024}},
        {"eviction_start_tokens": "32", "eviction_recent_tokens": "128", "eviction_max_tokens": "1024"},
    ),
}


@pytest.mark.parametrize("attention, told", ATTENTION.values(), ids=ATTENTION)
def test_openvino_is_told_what_to_leave_out_under_a_name_that_older_images_refuse(
    attention: dict[str, object], told: dict[str, str]
) -> None:
    dense = ENGINES["smollm2-full-f16"]
    spec = dense.model_copy(update={"attention": Attention.model_validate(attention)})
    assert parameters(spec, 16, 2048) == parameters(dense, 16, 2048) | told | {"backend": "openvino-sparse"}


def test_vllm_is_told_lengths_memory_and_gpus() -> None:
    spec = ENGINES["r1plus-full-fp16-vllm"]
    assert parameters(spec, 32, 65536) == {
        "backend": "vllm",
        "context": "65536",
        "engine_path": "/delivery/engine",
        "gpu_memory_fraction": "0.95",
        "gpus": "1",
        "kv_precision": "FP16",
        "max_batch": "32",
    }
    two = spec.requirements.model_copy(update={"gpu": GpuRequirement(count=2)})
    assert parameters(spec.model_copy(update={"requirements": two}), 1, 16)["gpus"] == "2"


def test_what_a_backend_cannot_do_is_said_with_the_field() -> None:
    spec, llm = ENGINES["r1plus-full-fp16-vllm"], ENGINES["r1plus-full-fp16-tensorrtllm"]
    eight = {"kv_precision": KvPrecision.INT8}
    two = {"requirements": spec.requirements.model_copy(update={"gpu": GpuRequirement(count=2)})}
    assert find_unservable_field(spec) is find_unservable_field(llm) is None
    assert "spec.kvPrecision: INT8: not supported by vLLM; expected FP16 or FP8" in str(
        find_unservable_field(spec.model_copy(update=eight))
    )
    assert find_unservable_field(spec.model_copy(update={"kv_precision": KvPrecision.FP8})) is None
    assert (
        find_unservable_field(spec.model_copy(update=two))
        is find_unservable_field(llm.model_copy(update=eight))
        is None
    )
    assert "spec.requirements.gpu.count: 2" in str(find_unservable_field(llm.model_copy(update=two)))


def test_what_was_built_says_by_which_key() -> None:
    spec = ENGINES["r1plus-full-fp16-tensorrtllm"]
    built = render_config(spec, batch=1, context=16, kv_cache_bytes=0, build_key="b" * 64)
    assert parse_config(built).parameters["built"].string_value == "b" * 64
    assert "built" not in parameters(spec, 1, 16)


def test_the_configuration_is_what_the_contract_says() -> None:
    config = parse_config(rendered("smollm2-full-f16", 16, 2048))
    assert config.name == inference.MODEL_NAME
    assert config.model_transaction_policy.decoupled
    assert [i.name for i in config.input if not i.optional] == []
    assert {i.name for i in config.input} == {
        *(inference.PROMPT, inference.SYSTEM, inference.RAW_PROMPT, inference.MESSAGES, inference.COUNT_ONLY),
        *(inference.MAX_NEW_TOKENS, inference.TEMPERATURE, inference.TOP_P, inference.REPETITION_PENALTY),
        *(inference.SEED, inference.STOP, inference.RESPONSE_SCHEMA, inference.GRAMMAR),
    }
    assert {o.name for o in config.output} == {
        inference.TEXT,
        inference.FINISH_REASON,
        inference.PROMPT_TOKENS,
        inference.COMPLETION_TOKENS,
    }
    assert config.parameters["engine_path"].string_value == "/delivery/engine"
    assert config.parameters["kv_cache_bytes"].string_value == str(16 * 2048 * 23040)


def test_a_typo_is_an_error_with_its_place() -> None:
    with pytest.raises(text_format.ParseError, match="1:1"):
        parse_config("max_batch_sise: 3")


THREADS = {"2": 2, "1": 1, "500m": 1, "2500m": 2, "3.9": 3, "16": 16}


@pytest.mark.parametrize("cpu, expected", THREADS.items(), ids="a limit of {}".format)
def test_threads_are_whole_and_within_the_limit(cpu: str, expected: int) -> None:
    assert count_threads(cpu) == expected
