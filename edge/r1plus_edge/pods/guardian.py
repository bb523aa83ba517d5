"""Leaves nothing running if `serve` is killed. `python -m r1plus_edge.pods.guardian ROOT`, started by `serve`.

It reads a pipe whose other end only `serve` has. The word `end` says that all is ended; the end of the pipe without it
says that `serve` is gone. Its own session has no terminal, and it ignores what a terminal sends.
"""

import signal
import sys
from pathlib import Path

from r1plus_edge.pods.processes import remove_remains

END = b"end\n"


def main() -> int:
    """Wait for the end of the pipe."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    root = Path(sys.argv[1])
    if sys.stdin.buffer.read() != END:
        remove_remains(root, root / "pods")
    return 0


if __name__ == "__main__":
    sys.exit(main())
