"""A Hugging Face checkpoint becomes an engine for vLLM: what is taken of it, and what is said."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from r1plus_contract.engine.delivery import digest_folder, hash_file
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.importing.engine import import_engine
from r1plus_model_repo.importing.errors import ImportingError
from r1plus_model_repo.importing.model import VLLM, Claims, GpuDetails, SourceModel
from r1plus_model_repo.importing.package.manifest import ImportOptions, build_spec
from r1plus_model_repo.kv_shape import KvShape
from support.model_repo.checkpoints import (
    HIDDEN,
    INTERMEDIATE,
    changed,
    check_same_wherever,
    checkpoint,
    elements,
    fill_disk,
    llama,
    loaded,
    silent,
)

WISH = ImportOptions(
    name="bank-full", tier="full", family="bank", image="registry.example/bank-full:1.0.0", backend=VLLM
)
INDEX = "model.safetensors.index.json"
SECOND = "model-00002-of-00002.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "Bank-8B")


def test_a_checkpoint_becomes_an_engine_with_its_provenance_and_manifest(tmp_path: Path, folder: Path) -> None:
    lines: list[str] = []
    made = import_engine(folder, tmp_path / "out", WISH, Claims(), lines.append)
    assert {path.name for path in made.folder.iterdir()} == {"engine", "engine.yaml", "Containerfile"}
    files = made.folder / "engine"
    taken = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert {path.name for path in files.iterdir()} == {*taken, "generation_config.json", "engine.json"}
    engine = loaded(made.folder)
    assert engine.spec.files.sha256 == made.sha256 == digest_folder(files)
    assert (engine.spec.backend, engine.spec.precision, engine.spec.build) == ("vllm", "FP16", None)
    shape = engine.spec.architecture
    assert (shape.layers, shape.kv_heads, shape.head_size, shape.context_length) == (2, 2, 8, 4096)
    assert (shape.parameters, shape.window, shape.global_layers) == (elements(llama()), None, None)
    said = yaml.safe_load((made.folder / "engine.yaml").read_text())["spec"]
    assert said["requirements"] == {
        "cpu": "2",
        "cpuRequest": "1",
        "weightsMemory": "1Mi",
        "runtimeMemory": "972Mi",
        "activationMemory": f"{-(-8192 * 2 * (2 * HIDDEN + 3 * INTERMEDIATE) // 2**20)}Mi",
        "gpu": {"count": 1, "minCapability": "8.0"},
    }
    assert said["batch"] == {"best": 32, "max": 64}
    assert said["reference"]["claimedBy"].startswith("nobody yet: imported from Bank-8B, sha256 ")
    facts = json.loads((files / "engine.json").read_text())
    assert (facts["format"], facts["engine"]) == ("huggingface", "bank-full")
    assert facts["source"]["files"]["model.safetensors"] == hash_file(folder / "model.safetensors")
    assert str(tmp_path) not in (files / "engine.json").read_text()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["bank-full"]
    assert "FP16, 19,616 parameters, 2 layers, 2 KV heads of 8, context 4096" in lines[1]


def test_shards_are_taken_with_their_index_and_other_files_are_left(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "sharded", shards=2)
    for name in ("consolidated.safetensors", "pytorch_model.bin", "params.json", "tekken.json"):
        (folder / name).write_bytes(b"")
    made = import_engine(folder, tmp_path / "out", WISH, Claims(), silent)
    names = {path.name for path in (made.folder / "engine").iterdir()}
    assert {INDEX, SECOND, "model-00001-of-00002.safetensors"} < names
    assert not names & {"consolidated.safetensors", "pytorch_model.bin", "params.json", "tekken.json"}
    assert loaded(made.folder).spec.architecture.parameters == elements(llama())
    assert any("not copied, because" in note and "consolidated.safetensors" in note for note in made.notes)


def test_weights_get_a_second_name_and_small_files_a_copy(tmp_path: Path, folder: Path) -> None:
    (folder / "model.safetensors").chmod(0o644)
    (folder / "config.json").chmod(0o600)
    files = import_engine(folder, tmp_path / "out", WISH, Claims(), silent).folder / "engine"
    assert (files / "model.safetensors").samefile(folder / "model.safetensors")
    assert not (files / "config.json").samefile(folder / "config.json")
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.iterdir()} == {0o644}
    assert stat.S_IMODE(files.stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "config.json").stat().st_mode) == 0o600


def test_weights_that_others_may_not_read_are_copied_and_stay_as_they_are(tmp_path: Path, folder: Path) -> None:
    (folder / "model.safetensors").chmod(0o600)
    files = import_engine(folder, tmp_path / "out", WISH, Claims(), silent).folder / "engine"
    assert stat.S_IMODE((files / "model.safetensors").stat().st_mode) == 0o644
    assert stat.S_IMODE((folder / "model.safetensors").stat().st_mode) == 0o600


def test_where_no_link_can_be_made_weights_are_copied(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", elsewhere)
    made = import_engine(folder, tmp_path / "out", WISH, Claims(), silent)
    weights = made.folder / "engine" / "model.safetensors"
    assert not weights.samefile(folder / "model.safetensors")
    assert digest_folder(made.folder / "engine") == made.sha256


def test_links_within_the_folder_are_resolved(tmp_path: Path, folder: Path) -> None:
    (folder / "blobs").mkdir()
    (folder / "model.safetensors").rename(folder / "blobs" / "0123")
    (folder / "model.safetensors").symlink_to("blobs/0123")
    (folder / "tokenizer.json").rename(folder / "blobs" / "4567")
    (folder / "tokenizer.json").symlink_to("blobs/4567")
    files = import_engine(folder, tmp_path / "out", WISH, Claims(), silent).folder / "engine"
    assert not any(path.is_symlink() for path in files.iterdir())
    assert (files / "model.safetensors").samefile(folder / "blobs" / "0123")


def test_the_same_checkpoint_gives_the_same_engine_wherever_it_lies(folder: Path) -> None:
    check_same_wherever(folder, WISH, Claims())


def test_a_checkpoint_that_changes_meanwhile_is_no_engine(tmp_path: Path, folder: Path) -> None:
    def meddle(line: str) -> None:
        if line == "copying the files":
            changed("config.json", max_position_embeddings=2048)(folder)

    with pytest.raises(ImportingError, match="changed during the import; import it again"):
        import_engine(folder, tmp_path / "out", WISH, Claims(), meddle)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_goes_wrong_on_the_way_leaves_nothing_and_the_source_as_it_was(tmp_path: Path, folder: Path) -> None:
    before = digest_folder(folder)
    with pytest.raises(OSError, match="No space left"):
        import_engine(folder, tmp_path / "out", WISH, Claims(), fill_disk("computing the engine's"))
    assert list((tmp_path / "out").iterdir()) == []
    assert digest_folder(folder) == before
    assert (folder / "model.safetensors").stat().st_nlink == 1


PUBLISHED = {"full": (40, 5120, 14336), "lite": (28, 3072, 8192), "edge": (24, 896, 4864)}
"""Layers, hidden and intermediate size that catalog/r1plus.yaml assumes for its shapes."""


@pytest.mark.parametrize(("tier", "widths"), PUBLISHED.items(), ids=PUBLISHED.keys())
def test_memory_is_estimated_as_for_the_published_shapes(tier: str, widths: tuple[int, int, int]) -> None:
    spec = next(e.spec for e in load_catalog(Path(catalog.__file__).parent) if e.name == f"r1plus-{tier}-fp16-vllm")
    shape = spec.architecture
    model = SourceModel(
        Path(),
        ("config.json",),
        KvShape(shape.layers, shape.kv_heads, shape.head_size),
        shape.context_length,
        shape.parameters,
        "FP16",
        2 * shape.parameters,
        gpu=GpuDetails(VLLM, 2 * shape.kv_heads, widths[1], widths[2], shape.window),
    )
    assert shape.layers == widths[0]
    made = build_spec(replace(WISH, tier=tier), model, "0" * 64, "")
    assert (made.architecture, made.batch, made.requirements) == (shape, spec.batch, spec.requirements)


def test_what_is_said_of_the_gpus_and_the_memory_is_in_the_manifest(tmp_path: Path, folder: Path) -> None:
    wish = replace(
        WISH,
        gpus=4,
        gpu_products=("NVIDIA-L40S", "NVIDIA-H100-PCIe"),
        weights_memory="2Gi",
        runtime_memory="1Gi",
        best_batch=8,
        max_batch=128,
        cpu="500m",
    )
    spec = loaded(import_engine(folder, tmp_path / "out", wish, Claims(1024), silent).folder).spec
    gpu = spec.requirements.gpu
    assert gpu is not None
    assert (gpu.count, gpu.products) == (4, ("NVIDIA-L40S", "NVIDIA-H100-PCIe"))
    assert (spec.requirements.weights_memory, spec.requirements.runtime_memory) == ("2Gi", "1Gi")
    assert (spec.batch.best, spec.batch.max, spec.architecture.context_length) == (8, 128, 1024)
    assert spec.requirements.cpu_request == "100m"
