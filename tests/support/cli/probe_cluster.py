"""A cluster that runs preflight's probe pods, by what its network lets through."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from r1plus_cli.errors import NotFoundError
from r1plus_cli.preflight.network_probe import NAMESPACE, ProbePod
from r1plus_contract.jsonable import dumps
from r1plus_contract.monitor.isolation import AttemptFinding, AttemptOutcome, Findings

Json = dict[str, Any]
PATH = f"/api/v1/namespaces/{NAMESPACE}"
POLICIES = f"/apis/networking.k8s.io/v1/namespaces/{NAMESPACE}/networkpolicies"
Network = Callable[[ProbePod, bool], AttemptOutcome]
"""Which pod connects, and whether there are policies -> how its connection ends."""


def enforcing(pod: ProbePod, has_policies: bool) -> AttemptOutcome:
    """A network plugin that does what policies say."""
    is_blocked = has_policies and pod in (ProbePod.STRANGER, ProbePod.CONFINED)
    return AttemptOutcome.SHUT if is_blocked else AttemptOutcome.OPEN


@dataclass(slots=True)
class ProbeCluster:
    """Each pod runs and ends at once, unless its `waiting` says what it waits for."""

    network: Network = enforcing
    namespace: Json | None = None
    """What is there under the name of the proof's namespace."""
    waiting: str = ""
    is_silent: bool = False
    """Whether pods end without a report."""
    ends_namespaces: bool = True
    late: int = 0
    errors: dict[tuple[str, str], Exception] = field(default_factory=dict)
    """Method and path -> what such a request raises."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    pods: dict[str, Json] = field(default_factory=dict)
    _uids: int = 0
    _has_policies: bool = False

    def request(self, method: str, path: str, body: Json | None = None, **query: str) -> Json:
        self.requests.append((method, path))
        if error := self.errors.get((method, path)):
            raise error
        if method == "POST":
            return self._create(path, body or {})
        if method == "DELETE":
            assert body is not None and self.namespace is not None
            if body["preconditions"]["uid"] == self.namespace["metadata"]["uid"] and self.ends_namespaces:
                self.namespace, self.pods, self._has_policies = None, {}, False
            return {}
        return self._read(path)

    def list_items(self, path: str, **query: str) -> Iterator[Json]:
        yield from ()

    def _create(self, path: str, body: Json) -> Json:
        self._uids += 1
        created = {**body, "metadata": {**body["metadata"], "uid": str(self._uids)}}
        if path == "/api/v1/namespaces":
            self.namespace = created
        elif path == POLICIES:
            self._has_policies = True
        else:
            self.pods[body["metadata"]["name"]] = {**created, "status": self._run(body["metadata"]["name"])}
        return created

    def _read(self, path: str) -> Json:
        if self.namespace is None:
            raise NotFoundError(path)
        if path.startswith(f"{PATH}/pods/"):
            return self.pods[path.rpartition("/")[2]]
        return self.namespace if path == PATH else {"kind": "ServiceAccount"}

    def _run(self, name: str) -> Json:
        if self.waiting:
            return {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": self.waiting}}}]}
        if name == "server":
            return {"phase": "Running", "podIP": "10.1.0.7"}
        finding = AttemptFinding("server", self.network(ProbePod(name), self._has_policies), self.late, "timed out")
        message = "" if self.is_silent else dumps(Findings((finding,)))
        return {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"message": message}}}]}
