"""How many files the test's own process may open."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limit_open_files(soft: int | None = None) -> Iterator[None]:
    """Set the soft limit of open files, or raise it to the hard one; put it back afterwards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if soft is None else soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
