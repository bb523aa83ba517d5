"""What a replica's requests and streams have in common: where they go, as whom, and what goes wrong on the way."""

from dataclasses import dataclass

from support.simulation.faults import REQUEST_KINDS, STREAM_KINDS, Faults, FaultWindow
from support.simulation.http_api import HttpApi, ParsedRequest
from support.simulation.server import SimulatedApiServer


@dataclass(frozen=True, slots=True)
class Link:
    """One replica's way to the server."""

    server: SimulatedApiServer
    api: HttpApi
    faults: Faults
    replica: str
    user: str
    agent: str

    def find_request_fault(self, parsed: ParsedRequest) -> FaultWindow | None:
        """Return the fault that a request meets now."""
        return self.faults.find(REQUEST_KINDS, self.replica, parsed.verb, parsed.plural)

    def find_stream_fault(self, plural: str) -> FaultWindow | None:
        """Return the fault that a stream's line meets now."""
        return self.faults.find(STREAM_KINDS, self.replica, "watch", plural)

    def count_stall(self) -> float:
        """Return the seconds for which this replica's process stands still from now on; 0 if it runs."""
        end = self.faults.find_stall(self.replica)
        return max(0.0, end - self.faults.read_time()) if end else 0.0
