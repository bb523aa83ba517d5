"""Requests that run, by caller: what they generate ends when their caller is revoked."""

import contextlib
from collections.abc import Iterator

from r1plus_gateway.serving.errors import CallerRevokedError
from r1plus_gateway.serving.generation import Generation


class RunningRequest:
    """One request from its authentication to its end. It may generate several times, with pauses between."""

    def __init__(self, caller: str) -> None:
        self.caller = caller
        self._generations: list[Generation] = []
        self._is_revoked = False

    def add(self, generation: Generation) -> None:
        """Note what was begun for this request."""
        self._generations.append(generation)

    def check_caller(self) -> None:
        """Raise CallerRevokedError if the caller has been revoked since it was authenticated."""
        if self._is_revoked:
            raise CallerRevokedError

    def revoke(self) -> None:
        """End what the request generates, now and from now on."""
        self._is_revoked = True
        for generation in self._generations:
            generation.revoke()


class RunningRequests:
    """All requests that run."""

    def __init__(self) -> None:
        self._requests: dict[str, set[RunningRequest]] = {}

    def list_callers(self) -> list[str]:
        """Return the callers that have requests."""
        return list(self._requests)

    @contextlib.contextmanager
    def track(self, caller: str) -> Iterator[RunningRequest]:
        """Count a request for the block."""
        request, requests = RunningRequest(caller), self._requests.setdefault(caller, set())
        requests.add(request)
        try:
            yield request
        finally:
            requests.remove(request)
            if not requests:
                del self._requests[caller]

    def revoke(self, caller: str) -> int:
        """End the requests of a caller; return their number."""
        requests = self._requests.get(caller, set())
        for request in requests:
            request.revoke()
        return len(requests)
