"""A volume, and the containers of a Job that distils an engine onto it, without a cluster."""

import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1plus_contract.engine.delivery import digest_folder
from r1plus_contract.engine.engine_fetch import Build, DistillationOptions, FillOrder, FillProgress
from r1plus_model_repo.distillation_build import compute_key
from r1plus_model_repo.engine_fetch.seal import prepare_checkpoint, seal
from r1plus_training.distill_job import TrainingJob, train_engine

OPTIONS = DistillationOptions(
    layers=3,
    temperature=3.0,
    hard_weight=0.0,
    steps=6,
    batch=4,
    length=48,
    learning_rate=3e-4,
    top=16,
    training_precision="float32",
    seed=0,
    backend="vllm",
    precision="FP32",
)


def ignore(progress: FillProgress) -> None:
    """Nobody asks."""


@dataclass
class TrainingVolume:
    """A volume, the artifact that belongs on it, and the pods of its Job."""

    root: Path
    options: DistillationOptions
    engine_name: str = "bank-edge"
    save_seconds: float = 0.0

    @property
    def volume(self) -> Path:
        return self.root / "volume"

    @property
    def engine(self) -> Path:
        return self.volume / "engine"

    @property
    def order(self) -> FillOrder:
        digest = digest_folder(self.root / "artifact")
        build = Build(compute_key(digest, self.options), "", self.options, 2**30)
        return FillOrder(self.engine_name, digest, 2**20, build=build)

    def fetch(self) -> bool:
        """The containers `engine` and `fetch`."""
        self.volume.mkdir(exist_ok=True)
        incoming = self.volume / ".incoming"
        shutil.rmtree(incoming, ignore_errors=True)
        shutil.copytree(self.root / "artifact", incoming / "engine")
        return prepare_checkpoint(self.order, self.volume, None, ignore)

    def train(
        self,
        host: str = "pod-1",
        report: Callable[[FillProgress], None] = ignore,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """The container `build`."""
        ticks = itertools.count()
        job = TrainingJob(
            self.order,
            self.volume,
            self.root / "suite",
            host,
            report,
            should_stop,
            clock=lambda: 40.0 * next(ticks),
            save_seconds=self.save_seconds,
        )
        return train_engine(job)

    def run(self, host: str = "pod-1", **process: Any) -> list[FillProgress]:
        """A pod that nothing happens to; return what it reported."""
        progress: list[FillProgress] = []
        self.fetch()
        self.train(host, progress.append, **process)
        seal(self.order, self.volume, host, ignore)
        return progress
