"""From a model to an engine's folder: whole or not at all, and its manifest is one that the catalog takes."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1plus_contract.delivery import digest_of, file_sha256
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.quantity import bytes_of
from r1plus_model_repo.catalog.types import Engine
from r1plus_model_repo.importing.engine import import_engine
from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.folders import alone
from r1plus_model_repo.importing.manifest import Wish, WishError, weights_memory
from r1plus_model_repo.importing.model import Claims, Model
from r1plus_model_repo.importing.openvino_ir import FILES
from r1plus_model_repo.importing.reading import read
from r1plus_model_repo.kv_shape import KvShape
from unit.model_repo import gguf_files
from unit.model_repo.test_kv_shape import state

WISH = Wish(name="bank-lite", tier="lite", family="bank", image="registry.example/bank-lite:1.0.0")
CLAIMS = Claims(parameters=1000)
CONFIG = {"max_position_embeddings": 4096, "num_hidden_layers": 2, "num_key_value_heads": 3, "head_dim": 64}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What optimum-intel exports, as far as anything of it is read."""
    found = tmp_path / "export"
    found.mkdir()
    for name in FILES:
        (found / name).write_bytes(f"{name}\n".encode() * 100)
    states = [state(f"past.{n}.{part}", "?,3,?,64") for n in range(2) for part in ("key", "value")]
    (found / "openvino_model.xml").write_text(f"<net><layers>{''.join(states)}</layers></net>")
    write(found / "config.json", CONFIG)
    write(found / "openvino_config.json", {"quantization_config": {"bits": 8}})
    (found / "chat_template.jinja").write_text("{{ messages }}")
    (found / "README.md").write_text("not for pods")
    return found


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def silent(_: str) -> None:
    """Progress that nobody reads."""


def loaded(made: Path) -> Engine:
    (engine,) = load_catalog(made / "engine.yaml")
    return engine


def test_a_folder_becomes_an_engine_with_its_provenance_and_manifest(tmp_path: Path, folder: Path) -> None:
    lines: list[str] = []
    made = import_engine(folder, tmp_path / "out", WISH, CLAIMS, lines.append)
    assert made.folder == tmp_path / "out" / "bank-lite"
    assert {path.name for path in made.folder.iterdir()} == {"engine", "engine.yaml", "Containerfile"}
    beside = {"config.json", "openvino_config.json", "chat_template.jinja", "engine.json"}
    assert {path.name for path in (made.folder / "engine").iterdir()} == {*FILES, *beside}
    engine = loaded(made.folder)
    assert engine.name == "bank-lite"
    assert engine.spec.files.sha256 == made.sha256 == digest_of(made.folder / "engine")
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
    assert facts["source"]["files"]["openvino_model.bin"] == file_sha256(folder / "openvino_model.bin")
    assert str(tmp_path) not in (made.folder / "engine" / "engine.json").read_text()
    assert "COPY engine/ /engine/" in (made.folder / "Containerfile").read_text()
    assert "reading" in lines[0] and "INT8, 1,000 parameters, 2 layers, 3 KV heads of 64, context 4096" in lines[1]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bank-lite"]


def test_the_same_model_gives_the_same_engine_wherever_it_lies(tmp_path: Path, folder: Path) -> None:
    one = import_engine(folder, tmp_path / "one", WISH, CLAIMS, silent)
    (tmp_path / "moved").mkdir()
    other = import_engine(folder.rename(tmp_path / "moved" / "export"), tmp_path / "two", WISH, CLAIMS, silent)
    assert one.sha256 == other.sha256
    assert (one.folder / "engine.yaml").read_text() == (other.folder / "engine.yaml").read_text()


def test_a_name_of_several_lines_is_no_part_of_the_manifest(tmp_path: Path, folder: Path) -> None:
    made = import_engine(folder.rename(tmp_path / "a\n---\nkind: b"), tmp_path / "out", WISH, CLAIMS, silent)
    assert loaded(made.folder).name == "bank-lite"
    assert "from a?---?kind: b, sha256" in (made.folder / "engine.yaml").read_text()


def test_a_tokenizer_whose_limit_stays_is_told(tmp_path: Path, folder: Path) -> None:
    (note,) = import_engine(folder, tmp_path / "out", WISH, CLAIMS, silent).notes
    assert "expected one length limit, found 0: if the tokenizer cuts long prompts" in note


def test_an_inherited_reference_is_a_claim_that_names_whose(tmp_path: Path, folder: Path) -> None:
    wish = replace(WISH, inherited_from="bank-full", suite="bank-v3")
    made = import_engine(folder, tmp_path / "out", wish, CLAIMS, silent)
    spec = yaml.safe_load((made.folder / "engine.yaml").read_text())["spec"]
    assert spec["reference"] == {"suite": "bank-v3", "inheritedFrom": "bank-full"}


def untouched(out: Path) -> bool:
    return not out.exists() or list(out.iterdir()) == []


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def with_(name: str, value: Any) -> Callable[[Path], None]:
    return lambda folder: write(folder / name, value)


def checkpoint(folder: Path) -> None:
    for name in FILES:
        (folder / name).unlink()


def emptied(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def of_gguf(folder: Path) -> None:
    emptied(folder)
    (folder / "model-Q8_0.gguf").write_bytes(b"")


def linked(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/etc/passwd")


def text(name: str, content: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_text(content)

    return change


def template_in_config(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    write(folder / "tokenizer_config.json", {"chat_template": "{{"})


WRONG: dict[str, tuple[Callable[[Path], None], Claims, str]] = {
    "a file of the model is missing": (without("openvino_tokenizer.bin"), CLAIMS, "missing: openvino_tokenizer.bin"),
    "a checkpoint": (checkpoint, CLAIMS, "is a Hugging Face checkpoint, and the backend openvino serves OpenVINO IR"),
    "an empty folder": (emptied, CLAIMS, "is no model that is known"),
    "a folder of GGUF files": (of_gguf, CLAIMS, "holds GGUF files: import one of them, such as"),
    "a link out of the folder": (linked, CLAIMS, "config.json: is a link to /etc/passwd, out of the folder"),
    "a config.json of another model": (
        with_("config.json", CONFIG | {"num_hidden_layers": 3}),
        CLAIMS,
        "config.json: num_hidden_layers: 3, the model has 2",
    ),
    "a config.json with other heads": (
        with_("config.json", CONFIG | {"num_key_value_heads": 4}),
        CLAIMS,
        "config.json: num_key_value_heads: 4, the model has 3",
    ),
    "a config.json that is a list": (with_("config.json", []), CLAIMS, "config.json: no JSON object"),
    "a config.json nested without end": (
        text("config.json", "[" * 10**5),
        CLAIMS,
        "config.json: not JSON",
    ),
    "a context nobody tells": (without("config.json"), CLAIMS, "--context: no config.json says it"),
    "a context beyond the model's": (
        lambda folder: None,
        replace(CLAIMS, context_length=4097),
        "--context: 4097 exceeds 4096",
    ),
    "parameters nobody tells": (lambda folder: None, Claims(), "--parameters: an OpenVINO model does not say it"),
    "a precision nobody tells": (
        without("openvino_config.json"),
        CLAIMS,
        "--precision: no openvino_config.json says it",
    ),
    "no chat template": (without("chat_template.jinja"), CLAIMS, "no chat template, so no question could be put"),
    "a chat template that does not parse": (
        text("chat_template.jinja", "{% if %}"),
        CLAIMS,
        "chat_template.jinja: line 1",
    ),
    "a chat template in tokenizer_config.json that does not parse": (
        template_in_config,
        CLAIMS,
        "tokenizer_config.json: line 1",
    ),
    "a model without state": (
        text("openvino_model.xml", "<net/>"),
        CLAIMS,
        "openvino_model.xml: 0 variables of keys and values with shapes none",
    ),
}


@pytest.mark.parametrize(("change", "claims", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_folder_that_cannot_be_served_is_refused_and_nothing_is_written(
    tmp_path: Path, folder: Path, change: Callable[[Path], None], claims: Claims, message: str
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
    write(folder / "config.json", CONFIG | {"sliding_window": 1024})
    assert read(folder, CLAIMS).context_length == 1024
    write(folder / "config.json", CONFIG | {"sliding_window": 1024, "use_sliding_window": False})
    assert read(folder, CLAIMS).context_length == 4096
    assert read(folder, replace(CLAIMS, context_length=4096)).context_length == 4096


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
    tmp_path: Path, folder: Path, wish: Wish, message: str
) -> None:
    lines: list[str] = []
    with pytest.raises(WishError, match=re.escape(message)):
        import_engine(folder, tmp_path / "out", wish, CLAIMS, lines.append)
    assert untouched(tmp_path / "out") and len(lines) <= 1


def test_what_is_there_is_not_written_over(tmp_path: Path, folder: Path) -> None:
    import_engine(folder, tmp_path / "out", WISH, CLAIMS, silent)
    with pytest.raises(ImportingError, match="out/bank-lite: is there already; remove it"):
        import_engine(folder, tmp_path / "out", WISH, CLAIMS, silent)


def test_two_imports_do_not_work_in_one_folder(tmp_path: Path, folder: Path) -> None:
    with (
        alone(tmp_path / "out"),
        pytest.raises(ImportingError, match="out: another import is at work there; wait for it"),
    ):
        import_engine(folder, tmp_path / "out", WISH, CLAIMS, silent)
    assert untouched(tmp_path / "out")
    import_engine(folder, tmp_path / "out", WISH, CLAIMS, silent)


def test_what_goes_wrong_on_the_way_leaves_nothing_half_done(tmp_path: Path, folder: Path) -> None:
    def full(line: str) -> None:
        if line.startswith("computing"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        import_engine(folder, tmp_path / "out", WISH, CLAIMS, full)
    assert untouched(tmp_path / "out")


def test_a_conversion_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    """By the real converter: it does not take a model of two layers."""
    weights = gguf_files.write(tmp_path / "tiny.gguf")
    with pytest.raises(ImportingError, match=r"tiny\.gguf: conversion to OpenVINO IR failed"):
        import_engine(weights, tmp_path / "out", WISH, Claims(), silent)
    assert untouched(tmp_path / "out")


CLAIMED = {
    "another precision": (Claims(precision="Q8_0"), "--precision: Q8_0 is not what the file holds, Q4_1"),
    "other parameters": (Claims(parameters=7), "--parameters: 7 is not what the file holds, 67904"),
    "a longer context": (Claims(context_length=2049), "--context: 2049 exceeds 2048"),
}


@pytest.mark.parametrize(("claims", "message"), CLAIMED.values(), ids=CLAIMED.keys())
def test_what_is_said_of_a_gguf_file_must_agree_with_it(tmp_path: Path, claims: Claims, message: str) -> None:
    weights = gguf_files.write(tmp_path / "tiny.gguf")
    with pytest.raises(ImportingError, match=message):
        read(weights, claims)
    agreed = read(weights, Claims(context_length=1024, precision="Q4_1", parameters=67904))
    assert (agreed.context_length, agreed.shape) == (1024, KvShape(2, 2, 16))


SIZES = {"smollm2-full-f16": 269030342, "smollm2-lite-q8-0": 143952092, "smollm2-edge-q4-1": 92485340}


@pytest.mark.parametrize(("name", "size"), SIZES.items(), ids=SIZES.keys())
def test_memory_of_weights_is_estimated_near_and_not_below_what_was_measured(name: str, size: int) -> None:
    spec = next(e.spec for e in load_catalog(Path(catalog.__file__).parent) if e.name == name)
    model = Model(Path(), (), KvShape(30, 3, 64), 8192, spec.architecture.parameters, spec.precision, size)
    measured = bytes_of(spec.requirements.weights_memory)
    assert measured <= bytes_of(weights_memory(model)) <= 1.25 * measured
