"""Processes that keep cores busy, so that a test that depends on load shows it."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def hog_cores(count: int) -> Iterator[None]:
    """Keep `count` cores busy during the block. Each hog ends with this process: its standard input closes."""
    command = [sys.executable, "-c", _LOOP]
    hogs = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(count)]
    try:
        yield
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


_LOOP = """
import select, sys
while not select.select([sys.stdin], [], [], 0)[0]:
    sum(range(1_000_000))
"""
