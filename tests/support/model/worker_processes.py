"""Workers of one training as processes of this machine, with the variables that Kubeflow's trainer sets in their pods."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from r1plus_contract.jsonable import dumps
from r1plus_model.training.training_state import read_step
from support.model import environment
from support.model.training_volume import TrainingVolume
from support.ports import free_port


@dataclass
class WorkerProcesses:
    """The workers that train on a volume."""

    place: TrainingVolume
    count: int = 2
    port: int = field(default_factory=free_port)
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def work(self) -> Path:
        return self.place.volume / ".training" / "work"

    @property
    def student(self) -> Path:
        return self.place.volume / ".training" / "student"

    @property
    def steps(self) -> int:
        """Steps that the checkpoint has."""
        return read_step(self.work)

    def log(self, rank: int) -> str:
        return (self.place.root / f"worker-{rank}.log").read_text()

    def start(self, rank: int, *, save_seconds: float = 0.0, **variables: str) -> "subprocess.Popen[bytes]":
        """Start a worker as its container does; by default it saves after each step."""
        root = self.place.root
        (root / "order").mkdir(exist_ok=True)
        (root / "order" / "order.json").write_text(dumps(self.place.order))
        (root / f"termination-{rank}").touch()
        folders = {"order-dir": "order", "volume": "volume", "suite": "suite", "termination-log": f"termination-{rank}"}
        words = [word for name, path in folders.items() for word in (f"--{name}", str(root / path))]
        own = {"PET_NNODES": str(self.count), "PET_NODE_RANK": str(rank)}
        own |= {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(self.port), "GLOO_SOCKET_IFNAME": "lo"}
        own |= {"PYTHONPATH": str(environment.prepare()), "OMP_NUM_THREADS": "1"}
        command = [
            sys.executable,
            "-m",
            "r1plus_training.distill_job",
            *words,
            "--worker",
            "--save-seconds",
            str(save_seconds),
        ]
        with (root / f"worker-{rank}.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, "--port", str(free_port())], env={**os.environ, **own, **variables}, stderr=log
            )
        self.processes.append(process)
        return process

    def stop(self) -> None:
        """End all of them."""
        for process in self.processes:
            process.kill()
            process.wait()


@contextmanager
def use_workers(place: TrainingVolume, count: int = 2) -> Iterator[WorkerProcesses]:
    """Fetch the artifact, and end the workers afterwards."""
    place.fetch()
    workers = WorkerProcesses(place, count)
    try:
        yield workers
    finally:
        workers.stop()
