"""What builds an engine. Renew the golden files: R1PLUS_GOLDEN=write pytest tests/unit/model_repo/test_building.py"""

import os
import re
import subprocess
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from r1plus_contract import names
from r1plus_contract.jsonable import from_jsonable, to_jsonable
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import Backend
from r1plus_model_repo.config_pbtxt import parse_config, render_config
from r1plus_model_repo.gpu_build import TENSORRT, TENSORRT_LLM, Recipe, build_command, render_script
from support.model_repo.engine_fetch.builds import RECIPE

GOLDEN = Path(__file__).parents[2] / "golden" / "build"
ENGINES = {engine.name: engine.spec for engine in load_catalog(Path(catalog.__file__).parent)}
CASES = [f"r1plus-{tier}-fp16-tensorrtllm" for tier in ("edge", "full", "lite")] + ["r1plus-edge-fp16-tensorrt"]


def shipped(name: str, batch: int = 32, context: int = 65536) -> Recipe:
    """As the operator writes it."""
    spec = ENGINES[name]
    assert spec.build is not None
    shape = spec.architecture
    return replace(
        RECIPE,
        backend=spec.backend.value,
        precision=spec.precision,
        max_batch=batch,
        max_seq_len=context,
        max_num_tokens=spec.build.max_num_tokens,
        layers=shape.layers,
        kv_heads=shape.kv_heads,
        head_size=shape.head_size,
    )


@pytest.mark.parametrize("name", CASES)
def test_the_command_is_the_golden_one(name: str) -> None:
    path = GOLDEN / f"{name}-batch32-context65536.txt"
    text = (
        "\n".join(build_command(shipped(name), "/volume/.checkpoint/engine/checkpoint", "/volume/.built-POD/plan"))
        + "\n"
    )
    if os.environ.get("R1PLUS_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {f"{name}-batch32-context65536.txt" for name in CASES}


RECIPES = st.builds(
    Recipe,
    checkpoint=st.text("0123456789abcdef", min_size=64, max_size=64),
    backend=st.sampled_from([TENSORRT_LLM, TENSORRT]),
    precision=st.sampled_from(["FP16", "FP8", "INT8"]),
    kv_precision=st.sampled_from(["FP16", "FP8", "INT8"]),
    max_batch=st.integers(1, 1024),
    max_seq_len=st.integers(16, 2**20),
    max_num_tokens=st.integers(16, 2**20),
    gpu_product=st.text(max_size=20),
    compute_capability=st.sampled_from(["", "8.0", "8.9", "9.0"]),
    runtime=st.sampled_from(["", "1.2.1", "10.14"]),
    image=st.text(max_size=20),
    layers=st.integers(1, 8),
    kv_heads=st.integers(1, 16),
    head_size=st.integers(1, 256),
)
VARIED = [field.name for field in fields(Recipe) if field.name != "tensor_parallel"]


@given(RECIPES)
def test_equal_recipes_have_one_key(recipe: Recipe) -> None:
    assert re.fullmatch("[0-9a-f]{64}", recipe.key)
    assert from_jsonable(Recipe, to_jsonable(recipe), "").key == recipe.key


@given(RECIPES, RECIPES, st.sampled_from(VARIED))
def test_whatever_differs_makes_another_key(recipe: Recipe, other: Recipe, name: str) -> None:
    changed = replace(recipe, **{name: getattr(other, name)})
    assume(changed != recipe)
    assert changed.key != recipe.key


def test_the_command_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of this project that builds with other flags builds every engine anew."""
    monkeypatch.setattr("r1plus_model_repo.gpu_build.build_command", lambda *_: ("trtllm-build", "--other"))
    other = RECIPE.key
    monkeypatch.undo()
    assert other != RECIPE.key


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a backend that loads checkpoints": ({"backend": "vllm"}, "spec.backend: vllm"),
    "a backend on CPU": ({"backend": "openvino"}, "expected tensorrtllm or tensorrt"),
    "several GPUs": ({"tensor_parallel": 2}, "spec.requirements.gpu.count: 2"),
    "TensorRT without layers": ({"backend": "tensorrt", "kv_heads": 1, "head_size": 1}, "spec.architecture: layers"),
    "TensorRT without heads": ({"backend": "tensorrt", "layers": 1, "head_size": 1}, "kvHeads"),
    "TensorRT without their size": ({"backend": "tensorrt", "layers": 1, "kv_heads": 1}, "headSize"),
}


@pytest.mark.parametrize("changes, message", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_built_is_told(changes: dict[str, Any], message: str) -> None:
    recipe = replace(RECIPE, **changes)
    for ask in (lambda: build_command(recipe, "c", "t"), lambda: render_script(recipe), lambda: recipe.key):
        with pytest.raises(ValueError, match=re.escape(message)):
            ask()


def test_the_backends_are_the_catalogs() -> None:
    assert {TENSORRT_LLM, TENSORRT} == {Backend.TENSORRT_LLM.value, Backend.TENSORRT.value}


def options(recipe: Recipe) -> dict[str, str]:
    words = build_command(recipe, "c", "t")[1:]
    return dict(zip(words[::2], words[1::2], strict=True))


def test_tensorrt_llm_gets_prompts_of_the_whole_context_less_a_token_to_answer_with() -> None:
    given = options(replace(RECIPE, max_batch=3, max_seq_len=100, max_num_tokens=200))
    assert given["--max_input_len"] == "99"
    assert (given["--max_batch_size"], given["--max_seq_len"], given["--max_num_tokens"]) == ("3", "100", "200")
    assert (given["--checkpoint_dir"], given["--output_dir"]) == ("c", "t")


@pytest.mark.parametrize("batch, context, asked, step", [(2, 100, 199, 199), (2, 100, 200, 200), (2, 100, 201, 200)])
def test_a_step_has_no_more_tokens_than_all_requests_together(batch: int, context: int, asked: int, step: int) -> None:
    given = options(replace(RECIPE, max_batch=batch, max_seq_len=context, max_num_tokens=asked))
    assert given["--max_num_tokens"] == str(step)


Shapes = dict[str, tuple[int, ...]]


def shapes(recipe: Recipe) -> list[Shapes]:
    """Least, best and most, by tensor."""
    words = dict(word.partition("=")[::2] for word in build_command(recipe, "c", "t") if "Shapes=" in word)
    pairs = [[item.split(":") for item in words[f"--{which}Shapes"].split(",")] for which in ("min", "opt", "max")]
    return [{name: tuple(map(int, shape.split("x"))) for name, shape in corner} for corner in pairs]


@given(RECIPES.map(lambda recipe: replace(recipe, backend=TENSORRT)))
def test_a_profile_holds_together(recipe: Recipe) -> None:
    least, best, most = shapes(recipe)
    for corner in (least, best, most):
        batch, tokens = corner["input_ids"]
        past = corner["past_key_values.0.key"]
        assert (past[0], past[1], past[3]) == (batch, recipe.kv_heads, recipe.head_size)
        assert corner["attention_mask"] == (batch, past[2] + tokens)
        assert corner["position_ids"] == (batch, tokens)
        assert {corner[name] for name in corner if name.startswith("past")} == {past}
    for name in least:
        assert all(a <= b <= c for a, b, c in zip(least[name], best[name], most[name], strict=True))
    assert least["input_ids"] == (1, 1)
    assert least["past_key_values.0.value"][2] == 0, "a first token has nothing behind it"
    assert best["input_ids"] == (recipe.max_batch, 1)
    assert most["past_key_values.0.value"][2] == recipe.max_seq_len - 1
    batch, tokens = most["input_ids"]
    assert batch == recipe.max_batch
    assert 1 <= tokens <= recipe.max_seq_len
    assert tokens == 1 or batch * tokens <= recipe.max_num_tokens < batch * (tokens + 1) or tokens == recipe.max_seq_len


def test_a_profile_names_the_tensors_that_triton_feeds() -> None:
    name = "r1plus-edge-fp16-tensorrt"
    config = parse_config(render_config(ENGINES[name], batch=32, context=65536, kv_cache_bytes=0))
    assert list(shapes(shipped(name))[0]) == [tensor.name for tensor in config.input]


def test_tensorrt_writes_what_triton_looks_for_at_half_precision() -> None:
    words = build_command(shipped("r1plus-edge-fp16-tensorrt"), "/c", "/t")
    assert {"--onnx=/c/model.onnx", "--saveEngine=/t/model.plan", "--fp16"} <= set(words)


@pytest.mark.parametrize("name", CASES)
def test_the_script_runs_the_command_in_the_pods_own_folder(name: str, tmp_path: Path) -> None:
    """With a builder that tells its arguments, on a volume whose name a shell would take apart."""
    volume = tmp_path / "it's a $(volume) {0}"
    recipe = shipped(name)
    (volume / ".checkpoint").mkdir(parents=True)
    tool = tmp_path / build_command(recipe, "c", "t")[0]
    leaves = f'for plan in "{tmp_path}"/*/.built-pod/plan; do touch "$plan/x"; done'
    tool.write_text(f'#!/bin/sh\npwd\nprintf "%s\\n" "$@"\n{leaves}\n')
    tool.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOSTNAME": "pod"}
    shell = ["/bin/sh", "-ec", render_script(recipe, str(volume))]
    done = subprocess.run(shell, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    expected = build_command(recipe, f"{volume}/.checkpoint/engine/checkpoint", f"{volume}/.built-pod/plan")
    assert done.stdout.splitlines() == ["/tmp", *expected[1:]]


def test_a_pod_is_known_by_its_hostname_where_no_variable_says_it(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint").mkdir()
    shell = ["/bin/sh", "-ec", render_script(RECIPE, str(tmp_path))]
    done = subprocess.run(shell, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert (done.returncode, "trtllm-build" in done.stderr) == (127, True)
    assert (tmp_path / f".built-{os.uname().nodename}" / "plan").is_dir()


def test_the_script_is_for_the_volume_of_the_job() -> None:
    assert render_script(RECIPE) == render_script(RECIPE, names.DIR_VOLUME)
    assert "\0" not in render_script(RECIPE)
