"""File descriptors of the process: raise their limit, and say how many connections fit below it."""

import logging
import resource
from typing import Final

from r1plus_gateway.http.listening.connections import MOST_CONNECTIONS

RESERVED_DESCRIPTORS: Final = 512
"""Kept for the store, helpers, pods, the internal port, and connections that are accepted before others are closed."""

log = logging.getLogger(__name__)


class DescriptorLimitError(RuntimeError):
    """The hard limit leaves no descriptor for clients."""


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; return how many clients' connections fit below it.

    Raises DescriptorLimitError.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    fitting = min(MOST_CONNECTIONS, hard - RESERVED_DESCRIPTORS)
    remedy = f"Raise the hard limit of open files (ulimit -Hn) to {MOST_CONNECTIONS + RESERVED_DESCRIPTORS}"
    if fitting < 2:
        raise DescriptorLimitError(f"{hard} open files leave none for clients. {remedy}")
    if fitting < MOST_CONNECTIONS:
        log.warning("Only %d connections fit into %d open files. %s", fitting, hard, remedy)
    return fitting
