"""`r1plus fit` as a platform engineer runs it: the whole command, without a cluster."""

import json
from functools import partial
from pathlib import Path

import pytest

from r1plus_policies.engine.accelerators import list_gpus
from support.cli import command

KEYS = {"engine", "hardware", "devices", "usableGiBPerDevice", "batch", "context", "fits", "maxBatch", "maxContext", "totalGiB", "perDeviceGiB", "terms", "nearest", "reason"}  # fmt: skip


run = partial(command.run, "fit")


def said(*words: str) -> dict:
    return dict(json.loads(run(*words, "-o", "json").output))


FULL = ("--tier", "full", "--context", "65536", "--batch", "32")


def test_full_at_64k_times_32_on_an_l40s() -> None:
    answer = said(*FULL, "--gpu", "L40S")
    assert set(answer) == KEYS
    assert answer["fits"] is False
    assert (answer["maxBatch"], answer["maxContext"]) == (29, 65536)
    assert answer["totalGiB"] == 44.49
    assert answer["terms"] == {"weightsGiB": 22.72, "kvCacheGiB": 20.0, "activationsGiB": 0.81, "runtimeGiB": 0.95}
    assert answer["nearest"][0] == {"batch": 29, "context": 65536, "totalGiB": 42.61}
    assert answer["nearest"][1]["batch"] == 32
    assert "32 exceeds 29" in answer["reason"]


def test_terms_add_up_to_the_total() -> None:
    for gpus in ("1", "2", "8"):
        answer = said("--tier", "full", "--gpu", "H100", "--gpus", gpus)
        assert sum(answer["terms"].values()) == pytest.approx(answer["totalGiB"], abs=0.03)
        assert answer["perDeviceGiB"] * int(gpus) == pytest.approx(answer["totalGiB"], abs=0.05)


@pytest.mark.parametrize(
    ("words", "fits", "batch"),
    [
        pytest.param((*FULL, "--gpu", "H100"), True, 32, id="fits 80 GB"),
        pytest.param((*FULL, "--gpu", "NVIDIA-H100-80GB-HBM3"), True, 32, id="by the node's label"),
        pytest.param((*FULL, "--gpu", "A100-40"), False, 21, id="40 GB hold fewer"),
        pytest.param((*FULL, "--gpu", "H100", "--window", "0"), False, 5, id="full attention holds fewer still"),
        pytest.param(("--tier", "full", "--gpu", "L4"), False, 0, id="not even one"),
        pytest.param(("--tier", "edge", "--gpu", "T4"), False, 0, id="memory enough, compute capability too low"),
        pytest.param(("--tier", "full", "--gpu", "A100-40-MIG-3g.20gb", "--gpus", "2"), False, 0, id="slices are not split over"),
        pytest.param(("--tier", "full", "--gpu", "A100-40", "--gpus", "3"), False, 0, id="heads that cannot be shared out"),
        pytest.param(("--tier", "full", "--gpu", "L40S", "--context", "99999"), False, 29, id="beyond the engine's context"),
        pytest.param(("--engine", "smollm2-full-f16", "--memory", "8Gi"), True, 16, id="on CPU"),
        pytest.param(("--tier", "lite", "--family", "qwen", "--memory", "4Gi"), True, 6, id="a family with a catalog of its own"),
        pytest.param(("--tier", "edge", "--memory", "800Mi"), True, 1, id="a tier on CPU takes an engine that runs there"),
    ],
)  # fmt: skip
def test_wishes(words: tuple[str, ...], fits: bool, batch: int) -> None:
    answer = said(*words)
    assert (answer["fits"], answer["maxBatch"]) == (fits, batch)
    assert bool(answer["reason"]) != fits
    assert run(*words).exit_code == (0 if fits else 1)


def test_without_hardware_every_gpu_of_the_table_is_told_in_json_as_in_the_table() -> None:
    answers = json.loads(run("--tier", "full", "-o", "json").output)
    assert [answer["hardware"] for answer in answers] == [gpu.name for gpu in list_gpus()]
    table = run("--tier", "full").output
    for answer in answers:
        assert f"{answer['hardware']} " in table
        assert f"{answer['usableGiBPerDevice']:.1f} GiB" in table


def test_the_table_says_why_a_gpu_with_enough_memory_is_none() -> None:
    assert "\nT4: Tesla-T4: compute capability 7.5 is below 8.0\n" in run("--tier", "edge").output


def test_a_person_reads_the_sum_and_the_nearest() -> None:
    told = run(*FULL, "--gpu", "L40S").output
    for word in ("does not fit", "weights", "KV cache", "44.49 GiB", "usable", "batch 29 x 65536 tokens or batch 32 x"):
        assert word in told
    most = "largest batch at that context: 32; longest context at that batch: 65536 tokens"
    assert most in run(*FULL, "--gpu", "H100").output


REFUSALS = {
    "a batch that is too large": ((*FULL, "--gpu", "L40S"), "--batch: 32 exceeds 29", "or lower --context to 3738"),
    "a batch beyond the engine": (("--engine", "smollm2-full-f16", "--memory", "8Gi", "--batch", "64"), "--batch: 64 exceeds 32, the engine's largest batch", "nearest that fits: batch 32 x"),
    "a context beyond the engine": (("--tier", "full", "--gpu", "L40S", "--context", "65537"), "--context: 65537 exceeds 65536, the engine's context length", "nearest that fits: batch 29 x 65536"),
    "not even one on a GPU": (("--tier", "full", "--gpu", "L4"), "L4 offers 21.37 GiB", "use a larger GPU, or more of them by --gpus"),
    "not even one on CPU": (("--tier", "edge", "--memory", "300Mi"), "a node with 300Mi for it offers 0.29 GiB", "use more memory"),
    "a GPU that is too old": (("--tier", "edge", "--gpu", "T4"), "compute capability 7.5 is below 8.0", "use another GPU: without --gpu all are listed"),
    "heads that cannot be shared out": (("--tier", "full", "--gpu", "A100-40", "--gpus", "3"), "  the engine's 8 KV heads cannot be split evenly", "use a divisor or a multiple of 8"),
}  # fmt: skip


@pytest.mark.parametrize(("words", "why", "remedy"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_names_what_was_typed_and_one_remedy_that_helps(
    words: tuple[str, ...], why: str, remedy: str
) -> None:
    told = run(*words).output
    assert why in told
    assert remedy in told
    assert "spec." not in told
    assert "nothing" not in told


@pytest.mark.parametrize(
    ("words", "names"),
    [
        pytest.param(("--tier", "full", "--gpu", "X9"), ["--gpu 'X9'", "L40S", "H100-MIG-3g.40gb", "--engine and its --memory"], id="an unknown GPU lists those known"),
        pytest.param(("--engine", "nothing", "--gpu", "L4"), ["'nothing'", "r1plus-full-fp16-vllm"], id="an unknown engine lists those known"),
        pytest.param(("--tier", "full", "--engine", "x"), ["either --tier or --engine"], id="tier and engine"),
        pytest.param((), ["either --tier or --engine"], id="neither"),
        pytest.param(("--tier", "full", "--gpu", "L4", "--memory", "1Gi"), ["either --gpu or --memory"], id="two places"),
        pytest.param(("--tier", "edge", "--memory", "8"), ["--memory: 8 is less than 1Mi", "such as 4Gi"], id="memory without its unit"),
        pytest.param(("--tier", "edge", "--memory", "8Gi", "--gpus", "2"), ["--gpus 2: smollm2-edge-q4-1 runs on CPU"], id="GPUs for an engine on CPU"),
        pytest.param(("--tier", "full", "--backend", "openvino"), ["'full openvino on GPU'", "on CPU, with --memory: ", "smollm2-full-f16"], id="a backend on CPU without --memory"),
        pytest.param(("--tier", "edge", "--memory", "much"), ["--memory", "much"], id="memory that is none"),
        pytest.param(("--engine", "smollm2-full-f16", "--gpu", "L4"), ["runs on CPU", "--memory 4Gi"], id="a CPU engine on a GPU"),
        pytest.param(("--engine", "smollm2-full-f16", "--memory", "4Gi", "--window", "512"), ["--window 512: smollm2-full-f16 runs on CPU", "limit the tokens by --context 512"], id="a window on CPU"),
        pytest.param(("--tier", "full", "-o", "xml"), ["--output", "xml"], id="another output"),
    ],
)  # fmt: skip
def test_words_that_cannot_be_answered(words: tuple[str, ...], names: list[str]) -> None:
    result = run(*words)
    assert result.exit_code != 0
    for name in names:
        assert name in str(result.exception)


def test_help_teaches_by_example() -> None:
    told = run("--help").output
    for word in ("--gpu L40S", "--window 0", "--memory 4Gi", "maxBatch", "maxContext"):
        assert word in told


def test_the_example_of_an_own_checkpoint_can_be_sized() -> None:
    folder = str(Path(__file__).parents[3] / "examples" / "engines")
    answer = said("--engine", "r1plus-full-mine", "--catalog", folder, "--gpu", "L40S")
    assert (answer["fits"], answer["maxBatch"]) == (True, 29)


def test_the_example_for_vllm_on_cpu_can_be_sized() -> None:
    folder = str(Path(__file__).parents[3] / "examples" / "engines")
    answer = said("--engine", "smollm2-full-vllm-cpu", "--catalog", folder, "--memory", "8Gi")
    assert (answer["fits"], answer["maxBatch"]) == (True, 12)
