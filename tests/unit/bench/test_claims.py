"""The claims' figures, their table, and the picture that is drawn from it."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bench.claims import engines, picture
from bench.claims.report import EngineFigures, Run, format_table, list_claims, read_run
from bench.claims.worker import override_arguments
from evidence.records import write_record
from r1plus_model_repo import catalog
from r1plus_model_repo.backends.openvino.openvino_engine import EngineSettings
from support.engine.server import ENGINES
from support.evidence_records import make_record

OPENVINO = EngineFigures(
    name="openvino",
    backend="openvino",
    precision="FP16",
    on_gpu=False,
    file_mib=260,
    runtime="openvino_genai 1",
    memory_mib=600,
    tokens_per_second={"1": [40.0, 30.0, 50.0], "8": [200.0, 200.0, 190.0], "32": [210.0, 205.0, 200.0]},
)
TWIN = replace(OPENVINO, name="openvino-fp32", precision="FP32", file_mib=520, memory_mib=1000, tokens_per_second={})
VLLM = replace(
    OPENVINO,
    name="vllm",
    backend="vllm",
    runtime="vllm 2",
    memory_mib=None,
    tokens_per_second={"1": [20.0], "8": [270.0], "64": [300.0]},
)
RUN = Run(
    measured_at="2026-11-29T14:00:00Z",
    command="python -m bench.claims",
    rounds=3,
    processor="A processor",
    cores=2,
    threads=2,
    gpus=(),
    load_before=0.5,
    load_after=2.0,
    tokens=64,
    memory_batch=32,
    engines=(OPENVINO, TWIN, VLLM),
)


MEMORY = "openvino: -40 % (600 against 1000 MiB at batch 32, files -50 %)"
BEST = (
    "openvino: 32 of 1 to 32 (205 tokens/s), 95 % of it from 8 on",
    "vllm: 64 of 1 to 64 (300 tokens/s), 95 % of it from 64 on",
)
SPEED = "vllm to openvino: -50 % at 1, +35 % at 8"


def test_each_claim_is_printed_beside_the_publishers() -> None:
    assert format_table(RUN).splitlines() == [
        "measured on: A processor, 2 cores; no GPU; openvino_genai 1, vllm 2",
        f"{'':<32}{'publisher, on an A100':<27}measured here",
        f"{'memory, FP16 against FP32':<32}{'-40 %':<27}{MEMORY}",
        f"{'best batch':<32}{'32':<27}{BEST[0]}",
        f"{'':<59}{BEST[1]}",
        f"{'speed, engine against engine':<32}{'+35 % (TensorRT)':<27}{SPEED}",
    ]


@pytest.mark.parametrize(
    ("kept", "missing"),
    [
        pytest.param((OPENVINO, VLLM), 0, id="no engine in FP32: memory"),
        pytest.param((replace(OPENVINO, tokens_per_second={}), TWIN), 1, id="no speeds: the best batch"),
        pytest.param((OPENVINO, TWIN), 2, id="one engine alone: engine against engine"),
    ],
)
def test_what_was_not_measured_is_said(kept: tuple[EngineFigures, ...], missing: int) -> None:
    assert list_claims(replace(RUN, engines=kept))[missing][2] == ("not measured",)


def test_the_json_line_is_the_run_itself() -> None:
    figures = json.loads(RUN.to_json())
    assert json.loads(read_run(figures).to_json()) == figures


def test_a_record_and_the_output_of_its_run_give_the_same_picture(tmp_path: Path) -> None:
    record = write_record(make_record(target="bench-claims", figures=json.loads(RUN.to_json())), tmp_path)
    (tmp_path / "run.log").write_text(f"{format_table(RUN)}\n{RUN.to_json()}\n")
    for file, name in ((record, "one.png"), (tmp_path / "run.log", "other.png")):
        assert picture.main([str(file), "-o", str(tmp_path / name)]) == 0
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("no JSON here\n", "no JSON line", id="a file without the line"),
        pytest.param(replace(RUN, engines=(TWIN,)).to_json(), "no speeds", id="a run without speeds"),
        pytest.param('{"rows": []}\n', "no figures of make bench NAME=claims", id="the output of another bench"),
        pytest.param(None, "No such file", id="no file"),
    ],
)
def test_a_record_without_a_curve_gives_no_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, words: str
) -> None:
    if text is not None:
        (tmp_path / "run.log").write_text(text)
    assert picture.main([str(tmp_path / "run.log"), "-o", str(tmp_path / "no.png")]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "no.png").exists()


def test_an_engine_is_opened_with_the_parameters_of_its_configuration() -> None:
    subject = engines.Subject("openvino", ENGINES["smollm2-full-f16"], Path("/engine"))
    parameters = subject.build_parameters(batch=64, context=256, threads=3)
    settings = EngineSettings.from_parameters(parameters)
    assert parameters["backend"] == "openvino"
    assert (settings.path, settings.max_batch, settings.context, settings.threads) == (Path("/engine"), 64, 256, 3)


def test_vllm_on_a_gpu_has_the_same_cache_in_tokens_in_both_precisions() -> None:
    half = engines.Subject("bank", ENGINES["r1plus-edge-fp16-vllm"], Path("/engine"), dtype="float16")
    sizes = [
        int(one.build_parameters(batch=8, context=256, threads=1)["dtype_kv_bytes"])
        for one in (half, replace(half, dtype="float32"))
    ]
    assert sizes[1] == 2 * sizes[0] > 0


def test_vllms_settings_on_a_gpu_take_other_arguments() -> None:
    class Device:
        """As `vllm_engine.GpuSettings`, whose module needs vLLM."""

        def __init__(self, kv_precision: str, count: int, memory_fraction: float) -> None:
            self.kv_precision, self.count, self.memory_fraction = kv_precision, count, memory_fraction

        @property
        def engine_args(self) -> dict[str, object]:
            return {"dtype": "float16", "tensor_parallel_size": self.count}

    device = override_arguments(Device("FP16", 2, 0.9), {"dtype": "float32", "kv_cache_memory_bytes": 7})
    assert isinstance(device, Device)
    assert device.engine_args == {"dtype": "float32", "tensor_parallel_size": 2, "kv_cache_memory_bytes": 7}


@pytest.mark.parametrize(
    "word",
    [
        pytest.param("engines/bank", id="no Python"),
        pytest.param("/nowhere=/usr/bin/python3", id="a folder without engine.yaml"),
    ],
)
def test_an_engine_that_cannot_be_opened_is_refused_before_anything_is_measured(word: str) -> None:
    with pytest.raises(SystemExit, match="expected FOLDER=PYTHON"):
        engines.read_given([word])


def test_two_engines_of_one_name_are_refused_since_the_figures_of_one_would_be_taken_for_the_others(
    tmp_path: Path,
) -> None:
    documents = yaml.safe_load_all(Path(catalog.__file__).with_name("smollm2.yaml").read_text())
    manifest = yaml.safe_dump(next(one for one in documents if one["metadata"]["name"] == "smollm2-full-f16"))
    folders = [tmp_path / place / "bank-full" for place in ("vllm", "trtllm")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "engine.yaml").write_text(manifest)
    with pytest.raises(SystemExit, match=r"trtllm/bank-full=.*: smollm2-full-f16 is there already; import one of them"):
        engines.read_given([f"{folder}={sys.executable}" for folder in folders])
