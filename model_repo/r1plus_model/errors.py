"""Errors of the trainer. Needs no torch.

DistillationError                  what was asked for cannot be trained, or training had to stop: field, what is wrong,
                                   what to do
├─ InterruptedDistillationError    nothing is wrong with it: the same request goes on later
│  └─ LostWorkerError              another worker of this training ended or should stop
└─ DamagedWorkError                a file of the working folder is damaged, as after a power cut
"""

from pathlib import Path


class DistillationError(RuntimeError):
    """A request that cannot be trained, or a run that had to stop; one line per problem."""


class InterruptedDistillationError(DistillationError):
    """A run that was asked to stop, or that waits for another one."""


class LostWorkerError(InterruptedDistillationError):
    """A run that another worker has left. This one may begin again at once, and waits for its successor."""


class DamagedWorkError(DistillationError):
    """A file of the working folder that cannot be used. Without `path` the run makes again what was there."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path
