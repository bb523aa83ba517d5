"""SIGTERM while a program starts."""

import os
import signal


def end_at_sigterm() -> None:
    """End at SIGTERM from now on, until the program has a handler of its own.

    A container's first process gets no signal for which it has no handler. One that loads for seconds would miss
    SIGTERM, and run on until its pod's grace period is over.
    """
    signal.signal(signal.SIGTERM, lambda number, _: os._exit(128 + number))
