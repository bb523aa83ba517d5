"""Two replicas of the operator as pods of a namespace of their own, each with its pod's token, behind the API server's fence.

What they wrote is read from the API server's audit log: the token says which pod it was.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from apiserver.operator_rig import OperatorProcess, account, eventually, grant
from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_operator.api import fence, kinds
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ForbiddenError, NotFoundError
from r1plus_operator.runtime.lease import LEASE
from r1plus_operator.runtime.resources import Resource

SERVICE_ACCOUNT = Resource("", "v1", "serviceaccounts", "ServiceAccount")
POLICY = Resource(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", False
)
BINDING = Resource(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", False
)
NAME = "r1plus-operator"
POD_OF = "authentication.kubernetes.io/pod-name"
Json = dict[str, Any]


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
        return 200 <= self.code < 300

    @property
    def of_lease(self) -> bool:
        return "/leases" in self.path


class Replica(OperatorProcess):
    """One of the pods' processes."""

    def __init__(self, server: ApiServer, log: Path, pod: Json, kubeconfig: Path) -> None:
        meta = pod["metadata"]
        self.name = meta["name"]
        super().__init__(
            server,
            log,
            kubeconfig=kubeconfig,
            R1PLUS_POD_NAME=meta["name"],
            R1PLUS_POD_UID=meta["uid"],
            R1PLUS_OPERATOR_NAMESPACE=meta["namespace"],
        )


class Replicas:
    """A namespace for the operator: its rights, its fence, its pods."""

    def __init__(self, server: ApiServer, client: ApiClient, namespace: str, folder: Path) -> None:
        self.namespace = namespace
        self._server = server
        self._client = client
        self._folder = folder
        self._made: list[Replica] = []

    async def prepare(self) -> None:
        """Rights, a free Lease, and the fence; returns once the API server has taken that up."""
        await grant(self._client, self.namespace)
        service_account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": self.namespace}}  # fmt: skip
        await self._client.apply(SERVICE_ACCOUNT, service_account, field_manager="test")
        await self.name_holder("")
        await self._client.apply(POLICY, fence.policy(self.namespace, NAME), field_manager="test")
        await self._client.apply(BINDING, fence.binding(self.namespace, NAME), field_manager="test")

        async def fenced() -> bool:
            return await self.refusal(await self.client_of(await self.pod("probe"))) != ""

        await eventually(fenced, "the fence stands")

    async def name_holder(self, identity: str) -> None:
        """Write this into the Lease."""
        meta = {"name": names.LEASE, "namespace": self.namespace}
        lease = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": meta, "spec": {"holderIdentity": identity}}  # fmt: skip
        await self._client.apply(LEASE, lease, field_manager="test")

    async def pod(self, name: str) -> Json:
        """A pod of the operator's account; nothing runs it."""
        spec = {"serviceAccountName": NAME, "containers": [{"name": "operator", "image": "registry.local/operator:1"}]}
        meta = {"name": name, "namespace": self.namespace}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
        return await self._client.apply(kinds.POD, pod, field_manager="kubelet")

    async def kubeconfig_of(self, pod: Json, url: str = "") -> Path:
        """As the kubelet's projected token would let the pod in, through `url` if the pod shall go that way."""
        reference = {"kind": "Pod", "apiVersion": "v1", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        asked = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"name": NAME, "namespace": self.namespace},
            "spec": {"expirationSeconds": 3600, "boundObjectRef": reference},
        }
        token = (await self._client.create(SERVICE_ACCOUNT, asked, subresource="token"))["status"]["token"]
        cluster = {"server": url or self._server.url, "certificate-authority": str(self._server.ca)}
        path = self._folder / f"{pod['metadata']['name']}.kubeconfig"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.write_text(yaml.safe_dump(config))
        return path

    async def client_of(self, pod: Json) -> ApiClient:
        """A client that is this pod and looks at no clock."""
        return ApiClient.from_kubeconfig(await self.kubeconfig_of(pod))

    async def refusal(self, client: ApiClient) -> str:
        """What the API server says to a write of this client; empty if it is done. Closes the client."""
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "probe", "namespace": self.namespace},
            "involvedObject": {"kind": "Pod", "name": "probe", "namespace": self.namespace},
            "reason": "Probe",
        }
        async with client:
            try:
                await client.apply(kinds.EVENT, event, field_manager=names.FIELD_MANAGER)
            except ForbiddenError as error:
                assert fence.SUFFIX in error.message, error
                return error.message
            return ""

    async def start(self, name: str, url: str = "") -> Replica:
        """A replica that is started and synced; the caller's `stop_all` ends it."""
        pod = await self.pod(name)
        replica = Replica(self._server, self._folder / f"{name}.log", pod, await self.kubeconfig_of(pod, url))
        replica.start()
        self._made.append(replica)
        await eventually(replica.ready, f"{name} is ready")
        return replica

    def stop_all(self) -> None:
        """SIGKILL, whatever state they are in."""
        for replica in self._made:
            replica.kill()

    async def holder(self) -> str:
        """Name of the pod that the Lease names."""
        try:
            lease = await self._client.get(LEASE, names.LEASE, self.namespace)
        except NotFoundError:
            return ""
        return str(lease["spec"].get("holderIdentity", "")).split("_", maxsplit=1)[0]

    async def led_by(self, replica: Replica) -> None:
        """Wait until it holds the Lease."""

        async def holds() -> bool:
            return await self.holder() == replica.name

        await eventually(holds, f"{replica.name} holds the Lease")

    def writes(self) -> list[Write]:
        """Everything that its pods asked the API server to write, in the order of asking."""
        return sorted(self._audited(), key=lambda write: write.at)

    def _audited(self) -> Iterator[Write]:
        for line in self._server.audit_log.read_text().splitlines():
            entry = json.loads(line)
            user = entry["user"]
            if entry["stage"] not in ("ResponseComplete", "Panic") or user["username"] != account(self.namespace):
                continue
            if entry["verb"] not in ("get", "list", "watch"):
                yield Write(
                    datetime.fromisoformat(entry["requestReceivedTimestamp"]),
                    user.get("extra", {}).get(POD_OF, [""])[0],
                    entry["verb"],
                    entry["requestURI"],
                    entry.get("responseStatus", {}).get("code", 0),
                )
