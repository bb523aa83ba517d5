"""What each request with an id has used by the engine's own count, so that a stream that was cut can be billed exactly.

A client that cancels a stream no longer sees its last responses. It asks for their count with `USAGE_OF`.
"""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Final

MOST_ENDED: Final = 4096
"""Ended requests remembered: at least a minute of a full server."""
MOST_WAITING: Final = 1024
"""Questions that wait for requests to end."""

Listener = Callable[[int, int], None]
"""Takes the tokens of prompt and answer."""


class UsageRecords:
    """May be called from any thread. Two requests with one id share a record: the later one's."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._running: dict[str, list[Listener]] = {}
        self._ended: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._waiting = 0

    def begin(self, request_id: str) -> None:
        """Note that a request has arrived."""
        with self._lock:
            self._ended.pop(request_id, None)
            self._running.setdefault(request_id, [])

    def end(self, request_id: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Note what a request has used, and tell those that wait for it."""
        with self._lock:
            listeners = self._running.pop(request_id, [])
            self._waiting -= len(listeners)
            self._ended[request_id] = (prompt_tokens, completion_tokens)
            if len(self._ended) > MOST_ENDED:
                self._ended.popitem(last=False)
        for listener in listeners:
            listener(prompt_tokens, completion_tokens)

    def call_when_ended(self, request_id: str, listener: Listener) -> bool:
        """Call `listener` once this request has ended. Return False if it is not known, or too many wait."""
        with self._lock:
            usage = self._ended.get(request_id)
            if usage is None:
                if request_id not in self._running or self._waiting >= MOST_WAITING:
                    return False
                self._running[request_id].append(listener)
                self._waiting += 1
                return True
        listener(*usage)
        return True
