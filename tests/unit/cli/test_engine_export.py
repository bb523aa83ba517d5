"""`r1plus engine export` without the libraries of its targets: what is refused before they are needed, and the sample."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from r1plus_cli.errors import CliError, UsageError
from r1plus_cli.local import SHIPPED_SUITES
from r1plus_cli.main import app
from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.inference import FinishReason
from r1plus_contract.suites.suite import SuiteSampling
from r1plus_export.answering import answer_all, run_child, sample_items
from r1plus_export.errors import ExportError
from r1plus_export.export import read_recorded
from r1plus_export.source import ExportedEngine, open_engine, place_checkpoint
from r1plus_export.targets import TARGETS, check_architecture
from r1plus_model_repo.importing.engine import import_engine
from r1plus_model_repo.importing.model import VLLM, Claims
from r1plus_model_repo.importing.options import ImportOptions
from r1plus_model_repo.importing.shipped import list_shipped
from r1plus_monitoring.curate.record import read_suite
from r1plus_training.engine_export import find_own_suite
from support.model_repo.checkpoints import checkpoint
from support.tables import for_each

SHIPPED = {engine.name: engine for engine in list_shipped()}
NAME = "smollm2-full-f16"


def write_engine(root: Path, facts: Mapping[str, Any], *, is_changed: bool = False, **spec: Any) -> Path:
    """Write a folder as `r1plus engine import` does, of an engine with no weights."""
    files = root / "engine"
    files.mkdir(parents=True)
    (files / "engine.json").write_text(json.dumps(facts))
    fields = SHIPPED[NAME].spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    fields["artifact"]["sha256"] = "0" * 64 if is_changed else digest_folder(files)
    document = {"apiVersion": "r1plus.ai/v1alpha1", "kind": "R1PlusEngine", "metadata": {"name": "bank"}}
    (root / "engine.yaml").write_text(yaml.safe_dump({**document, "spec": fields | spec}))
    return root


GGUF = {"engine": "bank", "format": "openvino-ir", "source": {"file": "bank.gguf", "sha256": "1" * 64}}
ENGINES: dict[str, tuple[dict[str, Any], str]] = {
    "a built TensorRT engine": (
        {"facts": GGUF | {"format": "trtllm-plan"}},
        "is a built TensorRT engine, which has no",
    ),
    "a TensorRT-LLM checkpoint": (
        {"facts": GGUF | {"format": "trtllm-checkpoint"}},
        "of the format 'trtllm-checkpoint'",
    ),
    "imported IR": (
        {"facts": GGUF | {"source": {"files": {}}}},
        "was imported from OpenVINO IR, which is not turned back",
    ),
    "files that were changed": ({"facts": GGUF, "is_changed": True}, "the files were changed; import the engine again"),
    "no provenance": ({"facts": {}}, "does not say what the files were made of"),
}


@for_each("changes, message", ENGINES)
def test_an_engine_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = write_engine(tmp_path / "bank", **changes)

    with pytest.raises(ExportError) as error:
        open_engine(str(folder), tmp_path, print)
    assert str(error.value).startswith("ENGINE: ") and message in str(error.value)


def test_what_is_no_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"'bank' is no folder and no shipped engine; give the folder that"):
        open_engine("bank", tmp_path, print)
    with pytest.raises(ExportError, match=r"has no engine.yaml and engine/; give the folder that"):
        open_engine(str(tmp_path), tmp_path, print)


def test_an_engine_of_a_file_needs_that_file(tmp_path: Path) -> None:
    engine = open_engine(str(write_engine(tmp_path / "bank", GGUF)), tmp_path, print)
    with pytest.raises(ExportError, match=rf"--weights: missing; give the file .* bank.gguf, sha256 {'1' * 64}"):
        place_checkpoint(engine, None, tmp_path / "checkpoint", "F16", tmp_path, print)


def test_the_weights_of_an_export_are_not_those_of_the_engine(tmp_path: Path) -> None:
    """What trains the exported folder writes into its files."""
    options = ImportOptions(name="bank", tier="full", family="bank", backend=VLLM)
    folder = import_engine(checkpoint(tmp_path / "source"), tmp_path / "out", options, Claims(), lambda _: None).folder
    engine = open_engine(str(folder), tmp_path, print)
    place_checkpoint(engine, None, tmp_path / "checkpoint", "F16", tmp_path, print)

    weights = [path for path in (tmp_path / "checkpoint").iterdir() if path.suffix == ".safetensors"]
    assert weights
    for path in weights:
        assert path.read_bytes() == (engine.files / path.name).read_bytes()
        assert not path.samefile(engine.files / path.name)


def test_a_record_that_names_its_engine_by_a_list_is_refused(tmp_path: Path) -> None:
    engine = open_engine(str(write_engine(tmp_path / "bank", GGUF | {"engine": ["bank"]})), tmp_path, print)
    with pytest.raises(ExportError, match=r"--weights: missing; give the file"):
        place_checkpoint(engine, None, tmp_path / "checkpoint", "F16", tmp_path, print)


FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "the own architecture": ({"model_type": "r1plus"}, "model_type: r1plus: R1+'s own architecture is not in other"),
}


@for_each("fields, message", FIELDS)
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_an_architecture_is_refused(target: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=message.replace("+", r"\+")):
        check_architecture(TARGETS[target], fields)


ONNX: dict[str, tuple[dict[str, Any], str]] = {
    "that was not tried": (
        {"model_type": "gemma3_text"},
        "'gemma3_text': --to onnx exports llama and qwen2; use --to hf",
    ),
    "that is quantised": ({"model_type": "llama", "quantization_config": {}}, "quantization_config: the checkpoint's"),
}


@for_each("fields, message", ONNX)
def test_onnx_refuses_a_model(fields: dict[str, Any], message: str) -> None:
    check_architecture(TARGETS["hf"], fields)
    with pytest.raises(ExportError, match=message):
        check_architecture(TARGETS["onnx"], fields)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_missing_package_is_named_with_its_installation(tmp_path: Path, target: str) -> None:
    words = ["engine", "export", NAME, "--to", target, "--out", str(tmp_path / "out")]
    error = CliRunner().invoke(app, words).exception

    assert isinstance(error, CliError)
    extra = TARGETS[target].extra
    assert f"is not installed, and --to {target} needs it; in a clone: pip install '.[cli,engine,{extra}]'" in str(
        error
    )
    assert not list(tmp_path.iterdir())


def open_shipped(**reference: Any) -> ExportedEngine:
    """Return a shipped engine without its files."""
    spec = SHIPPED[NAME].spec
    changed = spec.model_copy(update={"reference": spec.reference.model_copy(update=reference)})
    return ExportedEngine(NAME, changed, Path(), {})


def test_the_suite_is_the_shipped_one_that_the_engine_names() -> None:
    suite, baseline = find_own_suite(open_shipped(), None)
    assert suite.header.name == "smollm2-full-v1" and json.loads(baseline)["suite"] == suite.header.sha256


def test_another_suite_of_the_family_is_taken_and_one_of_another_is_not() -> None:
    assert find_own_suite(open_shipped(), SHIPPED_SUITES / "smollm2-lite-v1")[0].header.family == "smollm2"
    with pytest.raises(CliError, match=r"qwen-lite-v1 is a suite of the family qwen, and smollm2-full-f16 is of"):
        find_own_suite(open_shipped(), SHIPPED_SUITES / "qwen-lite-v1")


def test_a_suite_that_is_not_shipped_has_to_be_given(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"--suite: missing, and bank-v1, the golden suite of .*; give its folder"):
        find_own_suite(open_shipped(suite="bank-v1"), None)
    with pytest.raises(UsageError, match="give the folder of one suite"):
        find_own_suite(open_shipped(), tmp_path)


def test_a_sample_is_spread_over_the_strata() -> None:
    suite = read_suite(SHIPPED_SUITES / "smollm2-full-v1")
    shares = {name: count / len(suite.items) for name, count in suite.strata().items()}
    sample = sample_items(suite, 50)

    assert len({item.id for item in sample}) == 50
    for name, share in shares.items():
        assert abs(sum(item.stratum == name for item in sample) - 50 * share) <= 1
    assert len(sample_items(suite, 1000)) == len(suite.items)


def test_an_engine_that_does_not_run_here_has_its_recorded_score() -> None:
    suite = read_suite(SHIPPED_SUITES / "smollm2-full-v1")
    items = sample_items(suite, 1000)
    baseline = json.loads((SHIPPED_SUITES / "smollm2-full-v1" / "baseline.json").read_text())
    lost = suite.items[0].id
    for one in baseline["baseline"]:
        one["correct"], one["lost"] = len(items) - 1, [lost]
        stratum = suite.items[0].stratum
        one["strata"] = {n: f"{c - (n == stratum)}/{c}" for n, c in suite.strata().items()}
    answers = read_recorded(open_shipped(), suite, json.dumps(baseline), items)

    assert answers.correct == {item.id for item in items} - {lost}
    with pytest.raises(ExportError, match=r"its own score is not known; measure it with r1plus suite baseline SUITE"):
        read_recorded(replace(open_shipped(), name="bank"), suite, json.dumps(baseline), items)
    with pytest.raises(ExportError, match="its own score is not known"):
        read_recorded(open_shipped(), suite, "", items)


class Parrot:
    """A text model that answers the same tokens each time: characters."""

    end_ids = (0,)

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def encode(self, messages: Any) -> list[int]:
        return [ord(one) for message in messages for one in message["content"]]

    def generate(self, ids: list[int], most: int, is_finished: Callable[[list[int]], bool]) -> list[int]:
        answer: list[int] = []
        for character in self._answer[:most]:
            answer.append(ord(character))
            if is_finished(answer):
                break
        return answer

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


ANSWERS: dict[str, tuple[str, str, str]] = {
    "with the token that ends it": ("Paris\0 and", "Paris", FinishReason.STOP),
    "before a stop string": ("Paris. And", "Paris", FinishReason.STOP),
    "cut": ("Paris and more", "Paris an", FinishReason.LENGTH),
}


@for_each("said, text, reason", ANSWERS)
def test_an_answer_ends(said: str, text: str, reason: str) -> None:
    sampling = SuiteSampling(max_new_tokens=8, stop=(".",))
    items = read_suite(SHIPPED_SUITES / "smollm2-full-v1").items[:3]
    lines: list[str] = []
    answers = answer_all(Parrot(said), items, sampling, lines.append)

    assert {(one.text, one.finish_reason) for one in answers} == {(text, reason)}
    assert lines == ["answered 3 of 3"]


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(
        ExportError, match=r"(?s)r1plus_export.answering none: exit status 1: .*ChildRequest.engine: missing"
    ):
        run_child("r1plus_export.answering", ("none",), "{}", print)
