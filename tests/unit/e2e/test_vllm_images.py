"""The checkpoint that `make e2e STORY=vllm` has refused is a valid one, whose only fault are two tensors in each other's place."""

from pathlib import Path

from e2e.vllm.images import SWAPPED_TENSORS, swap_tensors
from r1plus_model_repo.importing.huggingface.safetensors_header import read_tensors
from r1plus_model_repo.importing.huggingface.safetensors_writer import TensorPlan, write_safetensors


def read_bytes(path: Path) -> dict[str, bytes]:
    """Return each tensor's bytes, by the importer's own reader of headers."""
    file = path.read_bytes()
    data = file[8 + int.from_bytes(file[:8], "little") :]
    return {name: data[one.begin : one.end] for name, one in read_tensors(path).items()}


def test_two_tensors_are_swapped_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "checkpoint"
    source.mkdir()
    names = ("first", SWAPPED_TENSORS[0], *(f"tensor {n}" for n in range(60)), SWAPPED_TENSORS[1], "last")
    blocks = [bytes([place]) * 8 for place in range(len(names))]
    write_safetensors(source / "model.safetensors", {name: TensorPlan("F16", (2, 2)) for name in names}, blocks)
    (source / "config.json").write_text("{}")
    target = swap_tensors(source, tmp_path / "swapped")
    before, after = (read_bytes(folder / "model.safetensors") for folder in (source, target))
    one, other = SWAPPED_TENSORS
    assert after == {**before, one: before[other], other: before[one]} != before
    assert (target / "config.json").read_text() == "{}"
