"""Termination of the server when its engine is lost, so that the container restarts.

Triton still reports a live server and a ready model after its stub has died or its engine has stopped, and does not
restart the engine. The kubelet does when the container ends.
"""

import os
import signal
import subprocess
import sys
import traceback

_WATCH = 'read -r word || kill -TERM "$0"'
"""Reads from a pipe that only the stub holds: a word means a planned end, the pipe's end means a crash."""


class ServerGuard:
    """A small shell process that ends the server if the stub dies."""

    def __init__(self, server: int) -> None:
        self._shell = subprocess.Popen(["/bin/sh", "-c", _WATCH, str(server)], stdin=subprocess.PIPE)

    def release(self) -> None:
        """End the guard before a planned end of the stub."""
        try:
            self._shell.communicate(b"farewell\n", timeout=5)
        except (BrokenPipeError, subprocess.TimeoutExpired) as error:
            print(f"The guard ended early: {error}", file=sys.stderr, flush=True)


def end_server(error: BaseException) -> None:
    """End the server from inside, when the engine's thread has stopped and its process lives."""
    print("The engine stopped, ending the server:", file=sys.stderr)
    traceback.print_exception(error, file=sys.stderr)
    sys.stderr.flush()
    os.kill(os.getppid(), signal.SIGTERM)
