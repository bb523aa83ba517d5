"""Two replicas of the operator as pods of a namespace of their own, each with its pod's token, behind the API server's fence.

What they wrote is read from the API server's audit log: the token says which pod it was.
"""

import json
from pathlib import Path

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_operator.api import fence, kinds
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.errors import ForbiddenError, NotFoundError
from r1plus_operator.runtime.lease import LEASE
from support.apiserver.audit import Write, writes_of
from support.apiserver.manifests import POLICY, POLICY_BINDING, SERVICE_ACCOUNT, Json, manifest
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.rights import account, grant_operator, token
from support.waiting import eventually

NAME = "r1plus-operator"


class Replica(OperatorProcess):
    """One of the pods' processes."""

    def __init__(self, server: ApiServer, log: Path, pod: Json, kubeconfig: Path) -> None:
        meta = pod["metadata"]
        self.name = str(meta["name"])
        super().__init__(
            server,
            log,
            kubeconfig=kubeconfig,
            R1PLUS_POD_NAME=meta["name"],
            R1PLUS_POD_UID=meta["uid"],
            R1PLUS_OPERATOR_NAMESPACE=meta["namespace"],
            R1PLUS_LEASE_SECONDS="15",
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
        """Make rights, a free Lease, and the fence; return once the API server has taken that up."""
        await grant_operator(self._client, self.namespace)
        await self._client.apply(SERVICE_ACCOUNT, manifest(SERVICE_ACCOUNT, NAME, self.namespace), field_manager="test")
        await self.name_holder("")
        await self._client.apply(POLICY, fence.build_policy(self.namespace, NAME), field_manager="test")
        await self._client.apply(POLICY_BINDING, fence.build_binding(self.namespace, NAME), field_manager="test")
        probe = await self.pod("probe")

        async def is_fenced() -> bool:
            return await self.refusal(await self.client_of(probe)) != ""

        await eventually(is_fenced, "the fence stands")

    async def name_holder(self, identity: str) -> None:
        """Write this into the Lease."""
        lease = manifest(LEASE, names.LEASE, self.namespace, spec={"holderIdentity": identity})
        await self._client.apply(LEASE, lease, field_manager="test")

    async def pod(self, name: str) -> Json:
        """Make a pod of the operator's account; nothing runs it."""
        spec = {"serviceAccountName": NAME, "containers": [{"name": "operator", "image": "registry.local/operator:1"}]}
        return await self._client.apply(kinds.POD, manifest(kinds.POD, name, self.namespace, spec=spec), field_manager="kubelet")  # fmt: skip

    async def kubeconfig_of(self, pod: Json, url: str = "") -> Path:
        """Write what the kubelet's projected token would let the pod in by, through `url` if it shall go that way."""
        path = self._folder / f"{pod['metadata']['name']}.kubeconfig"
        bearer = await token(self._client, NAME, self.namespace, pod=pod)
        return write_kubeconfig(path, url or self._server.url, self._server.ca, token=bearer)

    async def client_of(self, pod: Json) -> ApiClient:
        """Return a client that is this pod and looks at no clock."""
        return ApiClient.from_kubeconfig(await self.kubeconfig_of(pod))

    async def refusal(self, client: ApiClient) -> str:
        """Return what the API server says to a write of this client; empty if it is done. Closes the client."""
        involved = {"kind": "Pod", "name": "probe", "namespace": self.namespace}
        event = manifest(kinds.EVENT, "probe", self.namespace, involvedObject=involved, reason="Probe")
        async with client:
            try:
                await client.apply(kinds.EVENT, event, field_manager=names.FIELD_MANAGER)
            except ForbiddenError as error:
                assert fence.SUFFIX in error.message, error
                return error.message
            return ""

    async def start(self, name: str, url: str = "") -> Replica:
        """Return a replica that is started and synced; the caller's `stop_all` ends it."""
        pod = await self.pod(name)
        replica = Replica(self._server, self._folder / f"{name}.log", pod, await self.kubeconfig_of(pod, url))
        replica.start()
        self._made.append(replica)
        await eventually(replica.ready, f"{name} is ready")
        return replica

    def stop_all(self) -> None:
        """Send SIGKILL, whatever state they are in."""
        for replica in self._made:
            replica.kill()

    async def holder(self) -> str:
        """Return the name of the pod that the Lease names."""
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
        """Return everything that its pods asked the API server to write, in the order of asking."""
        return writes_of(self._server, account(self.namespace))


def write_kubeconfig(path: Path, url: str, ca: Path, **user: str) -> Path:
    """Write a kubeconfig of one cluster and one user, who has a `token` or a `tokenFile`."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority": str(ca)}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(config))
    return path
