"""From a model to an engine's folder: whole or not at all, and its manifest is one that the catalog takes."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1plus_contract.engine.delivery import digest_folder, hash_file
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.quantity import bytes_of
from r1plus_model_repo.importing.engine import import_engine
from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.model import Claims, SourceModel
from r1plus_model_repo.importing.openvino.ir import FILES
from r1plus_model_repo.importing.package.folders import lock_folder
from r1plus_model_repo.importing.package.manifest import ImportOptions, ImportOptionsError, estimate_weights_memory
from r1plus_model_repo.importing.readers import read_source
from r1plus_model_repo.kv_shape import KvShape
from support.model_repo import gguf_files
from support.model_repo.checkpoints import (
    Change,
    both,
    changed,
    check_same_wherever,
    fill_disk,
    linked,
    loaded,
    rows,
    silent,
    with_file,
    without,
)
from support.model_repo.exports import write_export

WISH = ImportOptions(name="bank-lite", tier="lite", family="bank", image="registry.example/bank-lite:1.0.0")
CLAIMS = Claims(parameters=1000)
BESIDE = ("config.json", "openvino_config.json", "chat_template.jinja")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_export(tmp_path / "export")


def test_a_folder_becomes_an_engine_with_its_provenance_and_manifest(tmp_path: Path, folder: Path) -> None:
    lines: list[str] = []
    made = import_engine(folder, tmp_path / "out", WISH, CLAIMS, lines.append)
    assert made.folder == tmp_path / "out" / "bank-lite"
    assert {path.name for path in made.folder.iterdir()} == {"engine", "engine.yaml", "Containerfile"}
    assert {path.name for path in (made.folder / "engine").iterdir()} == {*FILES, *BESIDE, "engine.json"}
    engine = loaded(made.folder)
    assert engine.name == "bank-lite"
    assert engine.spec.files.sha256 == made.sha256 == digest_folder(made.folder / "engine")
    assert engine.spec.files.image == made.image == "registry.example/bank-lite:1.0.0"
    built = engine.spec.architecture
    assert (built.layers, built.kv_heads, built.head_size, built.context_length, built.parameters) == (
        2,
        3,
        64,
        4096,
        1000,
    )
    assert (engine.spec.precision, engine.spec.tier, engine.spec.family) == ("INT8", "lite", "bank")
    assert engine.spec.reference.suite == "bank-lite-v1"
    assert engine.spec.reference.claimed_by is not None
    assert engine.spec.reference.claimed_by.startswith("nobody yet: imported from export, sha256 ")
    facts = json.loads((made.folder / "engine" / "engine.json").read_text())
    assert facts["source"]["files"]["openvino_model.bin"] == hash_file(folder / "openvino_model.bin")
    assert str(tmp_path) not in (made.folder / "engine" / "engine.json").read_text()
    assert "COPY engine/ /engine/" in (made.folder / "Containerfile").read_text()
    assert "reading" in lines[0] and "INT8, 1,000 parameters, 2 layers, 3 KV heads of 64, context 4096" in lines[1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bank-lite"]


def test_the_same_model_gives_the_same_engine_wherever_it_lies(folder: Path) -> None:
    check_same_wherever(folder, WISH, CLAIMS)


def test_a_name_of_several_lines_is_no_part_of_the_manifest(tmp_path: Path, folder: Path) -> None:
    made = import_engine(folder.rename(tmp_path / "a\n---\nkind: b"), tmp_path / "out", WISH, CLAIMS, silent)
    assert loaded(made.folder).name == "bank-lite"
    assert "from a?---?kind: b, sha256" in (made.folder / "engine.yaml").read_text()


def test_a_tokenizer_whose_limit_stays_is_told(tmp_path: Path, folder: Path) -> None:
    (note,) = import_engine(folder, tmp_path / "out", WISH, CLAIMS, silent).notes
    assert "expected one length limit, found 0: if the tokenizer truncates long prompts" in note


def test_an_inherited_reference_is_a_claim_that_names_whose(tmp_path: Path, folder: Path) -> None:
    wish = replace(WISH, inherited_from="bank-full", suite="bank-v3")
    made = import_engine(folder, tmp_path / "out", wish, CLAIMS, silent)
    spec = yaml.safe_load((made.folder / "engine.yaml").read_text())["spec"]
    assert spec["reference"] == {"suite": "bank-v3", "inheritedFrom": "bank-full"}


def untouched(out: Path) -> bool:
    return not out.exists() or list(out.iterdir()) == []


EMPTY = without(*FILES, *BESIDE, "README.md")
NO_TEMPLATE = without("chat_template.jinja")


WRONG: dict[str, tuple[Any, ...]] = {
    "a file of the model is missing": (without("openvino_tokenizer.bin"), "missing: openvino_tokenizer.bin"),
    "a checkpoint": (without(*FILES), "is a Hugging Face checkpoint, and the backend openvino serves OpenVINO IR"),
    "an empty folder": (EMPTY, "is not a known model"),
    "a folder of GGUF files": (
        both(EMPTY, with_file("model-Q8_0.gguf")),
        "contains GGUF files: import one of them, such as",
    ),
    "a link outside the folder": (
        linked("config.json", "/etc/passwd"),
        "config.json: is a link to /etc/passwd, outside the folder",
    ),
    "a config.json of another model": (
        changed("config.json", num_hidden_layers=3),
        "config.json: num_hidden_layers: 3, the model has 2",
    ),
    "a config.json with other heads": (
        changed("config.json", num_key_value_heads=4),
        "config.json: num_key_value_heads: 4, the model has 3",
    ),
    "a config.json that is a list": (with_file("config.json", "[]"), "config.json: not a JSON object"),
    "a config.json nested without end": (with_file("config.json", "[" * 10**5), "config.json: not JSON"),
    "a context nobody tells": (without("config.json"), "--context: missing, and no config.json has it"),
    "a context beyond the model's": (
        lambda folder: None,
        "--context: 4097 exceeds 4096",
        replace(CLAIMS, context_length=4097),
    ),
    "parameters nobody tells": (lambda folder: None, "--parameters: an OpenVINO model does not have it", Claims()),
    "a precision nobody tells": (without("openvino_config.json"), "--precision: no openvino_config.json has it"),
    "no chat template": (NO_TEMPLATE, "no chat template, so a prompt cannot be built"),
    "a chat template that does not parse": (
        with_file("chat_template.jinja", "{% if %}"),
        "chat_template.jinja: line 1",
    ),
    "a chat template in tokenizer_config.json that does not parse": (
        both(NO_TEMPLATE, with_file("tokenizer_config.json", '{"chat_template": "{{"}')),
        "tokenizer_config.json: line 1",
    ),
    "a model without state": (
        with_file("openvino_model.xml", "<net/>"),
        "openvino_model.xml: 0 variables of keys and values with shapes none",
    ),
}


@pytest.mark.parametrize(("change", "message", "claims"), rows(WRONG, CLAIMS))
def test_a_folder_that_cannot_be_served_is_refused_and_nothing_is_written(
    tmp_path: Path, folder: Path, change: Change, message: str, claims: Claims
) -> None:
    change(folder)
    with pytest.raises(ImportingError, match=re.escape(message)):
        import_engine(folder, tmp_path / "out", WISH, claims, silent)
    assert untouched(tmp_path / "out")


def test_all_that_is_missing_is_asked_for_at_once(tmp_path: Path, folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "openvino_config.json").unlink()
    with pytest.raises(ImportingError) as raised:
        import_engine(folder, tmp_path / "out", WISH, Claims(), silent)
    assert [line.split(": ")[1] for line in str(raised.value).splitlines()] == [
        "--context",
        "--precision",
        "--parameters",
    ]


def test_a_sliding_window_bounds_the_context_of_a_folder(folder: Path) -> None:
    changed("config.json", sliding_window=1024)(folder)
    assert read_source(folder, CLAIMS).context_length == 1024
    changed("config.json", use_sliding_window=False)(folder)
    assert read_source(folder, CLAIMS).context_length == 4096
    assert read_source(folder, replace(CLAIMS, context_length=4096)).context_length == 4096


WISHES = {
    "a name that is a path": (replace(WISH, name="../../etc"), "metadata.name: String should match pattern"),
    "a name too long for a label": (replace(WISH, name="a" * 64), "metadata.name: String should have at most 63"),
    "no tier": (replace(WISH, tier="huge"), "spec.tier: Input should be 'full', 'lite' or 'edge' (got 'huge')"),
    "a version of two numbers": (replace(WISH, version="1.0"), "spec.version: "),
    "an image that is a URL": (replace(WISH, image="https://x/y"), "spec.artifact.image: "),
    "a best batch above the largest": (
        replace(WISH, best_batch=33),
        "batch.best must not exceed batch.max: 33 exceeds 32",
    ),
    "no CPU": (replace(WISH, cpu="0"), "spec.requirements.cpu: "),
}


@pytest.mark.parametrize(("wish", "message"), WISHES.values(), ids=WISHES.keys())
def test_a_wish_that_makes_no_engine_is_refused_before_any_work(
    tmp_path: Path, folder: Path, wish: ImportOptions, message: str
) -> None:
    lines: list[str] = []
    with pytest.raises(ImportOptionsError, match=re.escape(message)):
        import_engine(folder, tmp_path / "out", wish, CLAIMS, lines.append)
    assert untouched(tmp_path / "out") and len(lines) <= 1


def test_what_is_there_is_not_written_over(tmp_path: Path, folder: Path) -> None:
    import_engine(folder, tmp_path / "out", WISH, CLAIMS, silent)
    with pytest.raises(ImportingError, match="out/bank-lite: already exists; remove it"):
        import_engine(folder, tmp_path / "out", WISH, CLAIMS, silent)


def test_two_imports_do_not_work_in_one_folder(tmp_path: Path, folder: Path) -> None:
    with (
        lock_folder(tmp_path / "out"),
        pytest.raises(ImportingError, match="out: another import is running there; wait for it"),
    ):
        import_engine(folder, tmp_path / "out", WISH, CLAIMS, silent)
    assert untouched(tmp_path / "out")
    import_engine(folder, tmp_path / "out", WISH, CLAIMS, silent)


def test_what_goes_wrong_on_the_way_leaves_nothing_half_done(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        import_engine(folder, tmp_path / "out", WISH, CLAIMS, fill_disk("computing"))
    assert untouched(tmp_path / "out")


@pytest.mark.unit_slow
def test_a_conversion_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """By the real converter: it does not take a model of two layers."""
    weights = gguf_files.write(tmp_path / "tiny.gguf")
    with pytest.raises(ImportingError, match=r"tiny\.gguf: conversion to OpenVINO IR failed"):
        import_engine(weights, tmp_path / "out", WISH, Claims(), silent)
    assert untouched(tmp_path / "out")


CLAIMED = {
    "another precision": (Claims(precision="Q8_0"), "--precision: Q8_0 differs from the file, which has Q4_1"),
    "other parameters": (Claims(parameters=7), "--parameters: 7 differs from the file, which has 67904"),
    "a longer context": (Claims(context_length=2049), "--context: 2049 exceeds 2048"),
}


@pytest.mark.parametrize(("claims", "message"), CLAIMED.values(), ids=CLAIMED.keys())
def test_what_is_said_of_a_gguf_file_must_agree_with_it(tmp_path: Path, claims: Claims, message: str) -> None:
    weights = gguf_files.write(tmp_path / "tiny.gguf")
    with pytest.raises(ImportingError, match=message):
        read_source(weights, claims)
    agreed = read_source(weights, Claims(context_length=1024, precision="Q4_1", parameters=67904))
    assert (agreed.context_length, agreed.shape) == (1024, KvShape(2, 2, 16))


SIZES = {"smollm2-full-f16": 269030342, "smollm2-lite-q8-0": 143952092, "smollm2-edge-q4-1": 92485340}


@pytest.mark.parametrize(("name", "size"), SIZES.items(), ids=SIZES.keys())
def test_memory_of_weights_is_estimated_near_and_not_below_what_was_measured(name: str, size: int) -> None:
    spec = next(e.spec for e in load_catalog(Path(catalog.__file__).parent) if e.name == name)
    model = SourceModel(Path(), (), KvShape(30, 3, 64), 8192, spec.architecture.parameters, spec.precision, size)
    measured = bytes_of(spec.requirements.weights_memory)
    assert measured <= bytes_of(estimate_weights_memory(model)) <= 1.25 * measured
