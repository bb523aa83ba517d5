"""config.pbtxt against its golden files. Renew them: R1PLUS_GOLDEN=write pytest tests/unit/model_repo/test_config_pbtxt.py"""

import os
from pathlib import Path

import pytest
from google.protobuf import text_format

from r1plus_contract import inference
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.config_pbtxt import parse, render, threads

GOLDEN = Path(__file__).parents[2] / "golden" / "config"
SHIPPED = load_catalog(Path(catalog.__file__).parent)
ENGINES = {engine.name: engine.spec for engine in SHIPPED if engine.spec.backend == "openvino"}
CASES = [(name, batch, context) for name in sorted(ENGINES) for batch, context in ((16, 2048), (1, 8192))]


def rendered(name: str, batch: int, context: int) -> str:
    cache = batch * context * ENGINES[name].shape.kv_bytes_per_token
    return render(ENGINES[name], batch=batch, context=context, kv_cache_bytes=cache)


@pytest.mark.parametrize("name, batch, context", CASES, ids=str)
def test_the_text_is_the_golden_one(name: str, batch: int, context: int) -> None:
    path = GOLDEN / f"{name}-batch{batch}-context{context}.pbtxt"
    text = rendered(name, batch, context)
    if os.environ.get("R1PLUS_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"{n}-batch{b}-context{c}.pbtxt" for n, b, c in CASES}


def test_the_configuration_is_what_the_contract_says() -> None:
    config = parse(rendered("smollm2-full-f16", 16, 2048))
    assert config.name == inference.MODEL_NAME
    assert config.model_transaction_policy.decoupled
    assert [i.name for i in config.input if not i.optional] == [inference.PROMPT]
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
        parse("max_batch_sise: 3")


THREADS = {"2": 2, "1": 1, "500m": 1, "2500m": 2, "3.9": 3, "16": 16}


@pytest.mark.parametrize("cpu, expected", THREADS.items(), ids="a limit of {}".format)
def test_threads_are_whole_and_within_the_limit(cpu: str, expected: int) -> None:
    assert threads(cpu) == expected
