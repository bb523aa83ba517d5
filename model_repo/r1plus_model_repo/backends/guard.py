"""Termination of the server when its engine is lost, so that the container restarts.

Triton still reports a live server and a ready model after its stub has died or its engine has stopped, and does not
restart the engine. The kubelet does when the container ends.

SIGTERM alone does not end Triton then (2.51, server/src/main.cc): it waits for its exit timeout, since the lost engine
cannot be unloaded, and calls `exit`, in which the gRPC service waits without a limit for its open streams. Answers of a
dead stub stay open until their clients give up. SIGKILL reaches the server where it is not the first process of its PID
namespace (`triton_args.START`); elsewhere SIGTERM closes HTTP, and the liveness probe fails.
"""

import subprocess
import sys
import traceback
from typing import Final

ANSWER_SECONDS: Final = 5
"""For the last answers of an engine that has stopped to reach their clients, before the server is killed."""
_WATCH: Final = """\
read -r word
kill -0 "$0" 2>/dev/null || exit
case $word in
farewell) exit ;;
stopped) left=$1 ;;
*) left=0; echo "The process of the engine has died, ending the server" >&2 ;;
esac
kill -TERM "$0"
while [ $left -gt 0 ] && kill -0 "$0"; do sleep 1; left=$((left - 1)); done 2>/dev/null
kill -KILL "$0" 2>/dev/null
"""
"""Reads from a pipe that only the stub holds: a word says what happens, the pipe's end means a crash."""


class ServerGuard:
    """A small shell process that ends the server if the stub dies or its engine stops."""

    def __init__(self, server: int) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, str(server), str(ANSWER_SECONDS)], stdin=subprocess.PIPE
        )

    def release(self) -> None:
        """End the guard before a planned end of the stub."""
        self._tell("farewell")

    def end_server(self, error: BaseException) -> None:
        """End the server, when the engine's thread has stopped and its process lives."""
        print("The engine stopped, ending the server:", file=sys.stderr)
        traceback.print_exception(error, file=sys.stderr)
        sys.stderr.flush()
        self._tell("stopped")

    def _tell(self, word: str) -> None:
        assert self._shell.stdin is not None
        try:
            self._shell.stdin.write(f"{word}\n".encode())
            self._shell.stdin.flush()
        except OSError as error:
            print(f"The guard ended early: {error}", file=sys.stderr, flush=True)
