"""The workers of a training that run on several machines, each with the same model and a share of every step.

Every worker computes the gradients of its share, and all add them up: so each takes the same step, as one alone would
but for rounding. One worker leads: it measures, saves and writes. The names of the variables are those of torchrun,
which Kubeflow's trainer sets in the pods of a runtime with `mlPolicy.torch`.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeVar

import torch
import torch.distributed as distributed
from torch import nn

from r1plus_model.errors import DistillationError, LostWorkerError

T = TypeVar("T")
COUNT, RANK, ADDRESS, PORT = "PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"
_MOST_PORT: Final = 2**16 - 1
_TIMEOUT: Final = timedelta(minutes=30)
"""For the others to start, and for each step: a worker whose machine is gone closes no connection."""


@dataclass(frozen=True, slots=True)
class Workers:
    """This process among the workers. Alone, all that it shares is its own."""

    rank: int = 0
    count: int = 1

    @property
    def is_leader(self) -> bool:
        """Whether this worker measures, saves and writes."""
        return self.rank == 0

    def select_share(self, items: Sequence[T]) -> Sequence[T]:
        """Return the items that are this worker's."""
        return items[self.rank :: self.count]

    def add_gradients(self, model: nn.Module) -> None:
        """Replace each gradient by the sum of all workers'. One without a share of the step has none of its own."""
        if self.count == 1:
            return
        with _translate_losses():
            for parameter in model.parameters():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                distributed.all_reduce(parameter.grad)

    def add(self, value: float) -> float:
        """Return the sum of all workers' values."""
        return self._reduce(value, distributed.ReduceOp.SUM) if self.count > 1 else value

    def is_any(self, condition: bool) -> bool:
        """Return whether the condition holds for a worker."""
        return self.add(float(condition)) > 0

    def check_same(self, step: int) -> None:
        """Raise LostWorkerError if another worker has read the state of another step."""
        if self.count > 1 and self._reduce(step, distributed.ReduceOp.MAX) != self._reduce(
            step, distributed.ReduceOp.MIN
        ):
            raise LostWorkerError("the workers have read different states: they read them again")

    def wait(self) -> None:
        """Wait until all workers are here."""
        self.add(0.0)

    def _reduce(self, value: float, operation: distributed.ReduceOp.RedOpType) -> float:
        tensor = torch.tensor(value, dtype=torch.float64)
        with _translate_losses():
            distributed.all_reduce(tensor, operation)
        return float(tensor.item())


ALONE: Final = Workers()


def read_workers(environment: Mapping[str, str]) -> Workers:
    """Return this process among the workers, as the runtime has described it.

    Raises:
        DistillationError: it has not, or not so that it can be used.
    """
    if missing := [name for name in (COUNT, RANK, ADDRESS, PORT) if not environment.get(name)]:
        raise DistillationError(
            f"runtime: {', '.join(missing)} not set in the container; name a runtime whose mlPolicy is torch"
        )
    for name in (COUNT, RANK, PORT):
        if not environment[name].isdecimal():
            raise DistillationError(f"runtime: {name}={environment[name]} is no number; name a runtime that sets one")
    if not 0 < int(environment[PORT]) <= _MOST_PORT:
        raise DistillationError(
            f"runtime: {PORT}={environment[PORT]} is not from 1 to {_MOST_PORT}; name a runtime that sets such a port"
        )
    rank, count = int(environment[RANK]), int(environment[COUNT])
    if rank >= count:
        raise DistillationError(
            f"runtime: {RANK}={rank} is not below {COUNT}={count}; name a runtime that numbers from 0"
        )
    return Workers(rank, count)


@contextmanager
def join_workers(workers: Workers) -> Iterator[None]:
    """Meet the other workers, at the leader's address, and leave them at the end.

    Raises:
        LostWorkerError: they did not come in time.
    """
    address = f"tcp://{os.environ[ADDRESS]}:{os.environ[PORT]}"
    with _translate_losses():
        distributed.init_process_group("gloo", address, _TIMEOUT, world_size=workers.count, rank=workers.rank)
    yield
    distributed.destroy_process_group()


@contextmanager
def _translate_losses() -> Iterator[None]:
    """Translate what torch raises when a connection to another worker is lost."""
    try:
        yield
    except RuntimeError as error:
        raise LostWorkerError(f"another worker is gone ({error}); the training goes on when it is back") from error
