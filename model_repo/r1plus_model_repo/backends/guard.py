"""End the server when its engine is lost, so that the container restarts.

Triton goes on reporting a live server and a ready model after its stub has died or its engine has stopped, and nothing
inside it would start the engine again. The kubelet does, as soon as the container ends.
"""

import os
import signal
import subprocess
import sys
import traceback

_WATCH = 'read -r word || kill -TERM "$0"'
"""Reads from a pipe that only the stub holds: a word means farewell, the pipe's end without one means it has died."""


class ServerGuard:
    """A shell of a megabyte that outlives the stub by the moment it takes to end the server."""

    def __init__(self, server: int) -> None:
        self._shell = subprocess.Popen(["/bin/sh", "-c", _WATCH, str(server)], stdin=subprocess.PIPE)

    def release(self) -> None:
        """The stub ends as planned."""
        try:
            self._shell.communicate(b"farewell\n", timeout=5)
        except (BrokenPipeError, subprocess.TimeoutExpired) as error:
            print(f"The guard had ended before: {error}", file=sys.stderr, flush=True)


def end_server(error: BaseException) -> None:
    """The engine's thread stopped while its process lives: end the server from inside."""
    print("The engine stopped, ending the server:", file=sys.stderr)
    traceback.print_exception(error, file=sys.stderr)
    sys.stderr.flush()
    os.kill(os.getppid(), signal.SIGTERM)
