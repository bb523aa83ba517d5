"""What the API server's audit log says of the writes of an account."""

import json
import uuid
from dataclasses import dataclass
from datetime import datetime

from devcluster.apiserver_only import ApiServer
from r1plus_operator.api import kinds
from support.apiserver.people import administrator
from support.apiserver.rights import OPERATOR
from support.apiserver.tenant import Tenant
from support.waiting import eventually, wait_until

POD_OF = "authentication.kubernetes.io/pod-name"


@dataclass(frozen=True, slots=True)
class Write:
    """A line of the audit log; `code` 0 where the server had nobody to answer."""

    at: datetime
    pod: str
    verb: str
    path: str
    code: int

    @property
    def done(self) -> bool:
        """Whether the API server carried it out."""
        return 200 <= self.code < 300

    @property
    def of_lease(self) -> bool:
        """Whether it only concerns the Lease."""
        return "/leases" in self.path


def read_audit_log(server: ApiServer) -> list[str]:
    """Return the lines of everything that the API server has answered until now.

    It writes a line some time after its answer, and the last line may not be whole yet.
    """
    mark = uuid.uuid4().hex
    with administrator(server) as admin:
        admin.ask("GET", kinds.CONFIG_MAP.path("default", mark))

    def find() -> str:
        text = server.audit_log.read_text()
        whole = text[: text.rfind("\n") + 1]
        return whole if mark in whole else ""

    return wait_until(find, "the audit log has the newest request", period_s=0.01).splitlines()


def writes_of(server: ApiServer, account: str, namespace: str = "") -> list[Write]:
    """Return what an account asked the API server to write, in the order of asking; in this namespace if it is given."""
    found = []
    for line in read_audit_log(server):
        if account not in line:
            continue
        entry = json.loads(line)
        user, path = entry["user"], entry["requestURI"]
        if entry["stage"] not in ("ResponseComplete", "Panic") or user["username"] != account:
            continue
        if entry["verb"] not in ("get", "list", "watch") and (not namespace or f"/namespaces/{namespace}/" in path):
            at = datetime.fromisoformat(entry["requestReceivedTimestamp"])
            pod = user.get("extra", {}).get(POD_OF, [""])[0]
            found.append(Write(at, pod, entry["verb"], path, entry.get("responseStatus", {}).get("code", 0)))
    return sorted(found, key=lambda write: write.at)


async def writes_at_rest(apiserver: ApiServer, tenant: Tenant, neighbour: Tenant) -> list[Write]:
    """Return the operator's writes for a tenant, once a pass over the neighbour's deployment goes by without another."""
    written: list[Write] = []

    async def is_at_rest() -> bool:
        nonlocal written
        before = writes_of(apiserver, OPERATOR, tenant.namespace)
        await neighbour.delete_and_see_it_back("Service", "credit")
        written = writes_of(apiserver, OPERATOR, tenant.namespace)
        return len(written) == len(before)

    await eventually(is_at_rest, f"nothing more is written for {tenant.namespace}")
    return written
