"""Errors of the trainer. Needs no torch.

DistillationError                  what was asked for cannot be trained, or training had to stop: field, what is wrong,
                                   what to do
├─ StorageError                    the disk has too little room, or a file cannot be written
├─ ForeignFolderError              a folder has what another run has made, or other files
├─ DamagedWorkError                a file of the working folder is damaged, as after a power cut
└─ InterruptedDistillationError    nothing is wrong with it: the same request goes on later
   └─ LostWorkerError              another worker of this training ended or should stop
"""

from pathlib import Path


class DistillationError(RuntimeError):
    """A request that cannot be trained, or a run that had to stop; one line per problem.

    `remedy` is what to do on one's own machine. Of the kinds below it is apart, since in a cluster it is another one.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        super().__init__(f"{problem}; {remedy}" if remedy else problem)
        self.problem = problem


class StorageError(DistillationError):
    """A disk on which a run does not find room."""


class ForeignFolderError(DistillationError):
    """A folder that is not this run's."""


class InterruptedDistillationError(DistillationError):
    """A run that was asked to stop, or that waits for another one."""


class LostWorkerError(InterruptedDistillationError):
    """A run that another worker has left. This one may begin again at once, and waits for its successor."""


class DamagedWorkError(DistillationError):
    """A file of the working folder that cannot be used. Without `path` the run makes again what was there."""

    def __init__(self, problem: str, remedy: str, path: Path) -> None:
        super().__init__(problem, remedy)
        self.path = path
