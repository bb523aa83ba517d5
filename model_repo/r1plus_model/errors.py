"""Errors of the trainer. Needs no torch.

DistillationError                  what was asked for cannot be trained, or training had to stop: field, what is wrong,
                                   what to do
└─ InterruptedDistillationError    nothing is wrong with it: the same request goes on later
"""


class DistillationError(RuntimeError):
    """A request that cannot be trained, or a run that had to stop; one line per problem."""


class InterruptedDistillationError(DistillationError):
    """A run that was asked to stop, or that waits for another one."""
