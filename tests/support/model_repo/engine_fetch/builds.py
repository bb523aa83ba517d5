"""A Job that builds, without its cluster: the volume, an artifact that is a checkpoint, and the container `build`."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.engine.engine_fetch import Build, FillOrder, FillProgress
from r1plus_model_repo.engine_fetch.seal import prepare_checkpoint, seal
from r1plus_model_repo.gpu_build import Recipe, render_script

FILES = {
    "checkpoint/config.json": b'{"architecture": "LlamaForCausalLM"}',
    "checkpoint/rank0.safetensors": b"\1" * 50_000,
    "tokenizer/tokenizer.json": b"{}",
}
RECIPE = Recipe(
    checkpoint="c" * 64,
    backend="tensorrtllm",
    precision="FP16",
    kv_precision="FP16",
    max_batch=8,
    max_seq_len=4096,
    max_num_tokens=8192,
    gpu_product="NVIDIA-A10",
    compute_capability="8.6",
    runtime="1.2.1",
    image="tritonserver:26.07-trtllm-python-py3",
)
HOST = "r1plus-engine-0123-abcde"
WHOLE = ["engine/built.json", "engine/plan/config.json", "engine/plan/rank0.engine", "engine/tokenizer/tokenizer.json"]
BUILDER = """#!/bin/sh
printf '%s\\n' "$@" > "$RECORD"
[ "$1" = --checkpoint_dir ] && [ -f "$2/config.json" ] && [ "$3" = --output_dir ]
"""
WORKS = 'echo built > "$4/rank0.engine"; echo "{}" > "$4/config.json"\n'
FAILS = 'echo half > "$4/rank0.engine"; echo "[TRT] out of memory" >&2; exit 3\n'
DIES = 'echo half > "$4/rank0.engine"; kill -9 $PPID; exit 0\n'
IDLES = "exit 0\n"


def write(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    """Files below a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


SMALL_BYTES = 20 * 2**20


@contextmanager
def small_file_system(folder: Path) -> Iterator[None]:
    """Mount a real file system of SMALL_BYTES there; skip the test where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("mounts a file system, which needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def quiet(_progress: FillProgress) -> None:
    """Nobody asks."""


class Job:
    """One volume, and what its pods do to it."""

    def __init__(self, root: Path) -> None:
        self.root, self.volume, self.record = root, root / "volume", root / "arguments"
        self.volume.mkdir(parents=True)
        digest = digest_folder(write(root / "original"))
        build = Build(RECIPE.key, RECIPE.gpu_product)
        self.order = FillOrder("bank-full", digest, 100_000, build=build)

    @property
    def engine(self) -> Path:
        return self.volume / "engine"

    @property
    def checkpoint(self) -> Path:
        return self.volume / ".checkpoint"

    def copy(self, files: dict[str, bytes] = FILES) -> None:
        """The container `engine`."""
        shutil.rmtree(self.volume / ".incoming", ignore_errors=True)
        write(self.volume / ".incoming" / "engine", files)

    def fetch(self, **changes: object) -> bool:
        """The container `fetch`."""
        return prepare_checkpoint(replace(self.order, **changes), self.volume, None, quiet)  # type: ignore[arg-type]

    def fetch_anew(self) -> bool:
        """The containers `engine` and `fetch` of a new pod."""
        self.copy()
        return self.fetch()

    def build(self, does: str = WORKS, host: str = HOST, recipe: Recipe = RECIPE) -> subprocess.CompletedProcess[str]:
        """The container `build`, with a builder that `does` so."""
        tools = self.root / "tools"
        tools.mkdir(exist_ok=True)
        (tools / "trtllm-build").write_text(BUILDER + does)
        (tools / "trtllm-build").chmod(0o755)
        environment = {"PATH": f"{tools}:{os.environ['PATH']}", "HOSTNAME": host, "RECORD": str(self.record)}
        command = ["/bin/sh", "-ec", render_script(recipe, str(self.volume))]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    def seal(self, host: str = HOST, **changes: object) -> None:
        """The container `fill`."""
        seal(replace(self.order, **changes), self.volume, host, quiet)  # type: ignore[arg-type]

    def run(self) -> None:
        """A pod that nothing happens to."""
        self.fetch_anew()
        assert self.build().returncode == 0
        self.seal()

    def files(self, but: Sequence[str] = (".lock", ".source")) -> list[str]:
        """All of the volume, beside what only the Job reads."""
        found = (p.relative_to(self.volume).as_posix() for p in self.volume.rglob("*") if p.is_file() or p.is_symlink())
        return sorted(path for path in found if Path(path).name not in but)
