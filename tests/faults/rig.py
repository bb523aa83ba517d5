"""Everything around the operator: API server, fault proxy, the operator's process, and who plays kubelet and collector.

There is no node and no controller here. The rig watches the API server directly, not through the proxy: what it sees is
the truth that the operator may not see yet.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from devcluster.apiserver_only import ApiServer
from faults.calls import Json
from faults.lane import Traffic
from faults.proxy import Proxy
from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.api.crd import CRD
from r1plus_operator.observe.projections import CachedObject
from r1plus_operator.runtime.client import ApiClient, RequestLimits
from r1plus_operator.runtime.connection import from_kubeconfig
from r1plus_operator.runtime.errors import ConflictError, NotFoundError
from r1plus_operator.runtime.reflector import Reflector
from r1plus_operator.runtime.resources import Resource
from support.apiserver.manifests import manifest, tenant_namespace
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.replicas import write_kubeconfig
from support.apiserver.rights import grant_operator, token
from support.apiserver.server import add_node, install_chart_crds, install_crd
from support.waiting import eventually

RESTART_SECONDS = 1.0
AT_WORK = 12
"""Stories that keep two cores busy; any number more may wait for a drain or through a silence."""
VERDICT_SECONDS = 2.0
LEASE_SECONDS = 15.0
"""The chart's: in the campaign an operator takes over from another."""
PATIENCE = 60
"""Attempts, up to two seconds apart: who plays the rest of the cluster outlasts a restart of the API server."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is deployed, and what it is changed into."""

    tier: str
    first: Json
    second: Json


CASES = (
    Case("edge", {"maxTokens": 1024}, {"maxTokens": 1536}),
    Case("full", {"maxTokens": 1024}, {"maxTokens": 2048}),
    Case("lite", {"maxTokens": 2048}, {"maxTokens": 1024}),
)
"""By the seed."""


@dataclass
class Operator:
    """The operator's process, started again when it ends, as the kubelet would."""

    process: OperatorProcess
    ended: list[int] = field(default_factory=list)
    """Exit codes of processes that ended by themselves."""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def keep(self) -> None:
        """Start it again a second after it ended, for ever."""
        while True:
            await asyncio.sleep(RESTART_SECONDS)
            async with self._lock:
                if (code := self.process.returncode) is not None:
                    self.ended.append(code)
                    self.process.start()

    async def restart(self) -> None:
        """SIGKILL, and a new process."""
        async with self.stopped():
            pass

    @asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """SIGKILL; a new process at the end."""
        async with self._lock:
            self.process.kill()
            try:
                yield
            finally:
                self.process.start()


class Changes:
    """Counts what changes, for any number of waiters: none takes a change from another."""

    def __init__(self) -> None:
        self.count = 0
        self._next = asyncio.Event()

    def note(self) -> None:
        """Something has changed."""
        self.count += 1
        self._next.set()
        self._next = asyncio.Event()

    async def after(self, count: int) -> None:
        """Wait until there are more changes than this; read the count before looking."""
        while self.count == count:
            await self._next.wait()


class Rig:
    """Made by `rig`. One API server, one proxy, one operator, any number of tenants."""

    def __init__(
        self,
        server: ApiServer,
        client: ApiClient,
        traffic: Traffic,
        proxy: Proxy,
        operator: Operator,
        kubeconfig: Path,
        case: Case,
        at_work: int,
    ) -> None:
        self.server = server
        self.client = client
        self.traffic = traffic
        self.proxy = proxy
        self.operator = operator
        self.kubeconfig = kubeconfig
        self.case = case
        self.busy = asyncio.Semaphore(at_work)
        """Held by a story while it does anything but wait."""
        self.lease_seconds = LEASE_SECONDS
        self.outage = 0.0
        """Seconds for which a fault that concerns everybody may hold every story up."""
        self.changes: dict[str, Changes] = {}
        """By namespace."""
        self.seen = {
            res.kind: Reflector(client, res, project=_whole, on_change=self._wake, index=lambda kept: kept.namespace)
            for res in (kinds.R1PLUS_DEPLOYMENT, *kinds.CHILDREN, kinds.POD)
        }

    @property
    def token(self) -> Path:
        """The file from which the operator reads its token."""
        return self.kubeconfig.with_name("token")

    def another_operator(self, pod: str) -> OperatorProcess:
        """One more, as a pod of its own; not started."""
        return operator_process(self.server, self.kubeconfig, self.kubeconfig.with_name(f"{pod}.log"), pod)

    async def namespace(self, name: str) -> None:
        """A tenant's namespace."""
        self.changes[name] = Changes()
        await self.client.create(kinds.NAMESPACE, tenant_namespace(name))

    def get(self, kind: str, namespace: str, name: str) -> Json | None:
        """An object as the API server has it."""
        kept = self.seen[kind].store.get(namespace, name)
        return kept.value if kept else None

    def all(self, kind: str, namespace: str) -> list[Json]:
        """All objects of a kind in a namespace."""
        return [kept.value for kept in self.seen[kind].store.by_index(namespace)]

    async def delete(self, res: Resource, obj: Json) -> None:
        """Delete this very object, as a user does who tries again while the API server is away."""
        meta = obj["metadata"]
        with suppress(NotFoundError, ConflictError):  # the try before had done it
            await self.client.delete(res, meta["name"], meta["namespace"], uid=meta["uid"])

    def shown_by(self, namespace: str) -> float:
        """When the operator is shown the last event so far of this namespace, in the loop's time."""
        return max((stream.shown_by(namespace) for stream in self.proxy.streams), default=0.0)

    async def until(self, namespace: str, holds: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until it holds, looking again at every change in the namespace; TimeoutError says what did not come."""
        changes = self.changes[namespace]
        try:
            async with asyncio.timeout(seconds):
                count = changes.count
                while not holds():
                    await changes.after(count)
                    count = changes.count
        except TimeoutError:
            raise TimeoutError(f"after {seconds:.0f} s still not so: {what}") from None

    async def collect(self, namespace: str, owner: Json) -> None:
        """What the garbage collector and the kubelet do once this R1PlusDeployment is gone."""
        uid, name = owner["metadata"]["uid"], owner["metadata"]["name"]
        for res in (*kinds.CHILDREN, kinds.POD):
            for obj in self.all(res.kind, namespace):
                meta = obj["metadata"]
                owned = uid in {reference["uid"] for reference in meta.get("ownerReferences", ())}
                if owned or (res is kinds.POD and meta["labels"].get(names.LABEL_DEPLOYMENT) == name):
                    await self.delete(res, obj)

    def _wake(self, _event: str, kept: CachedObject) -> None:
        if (changes := self.changes.get(kept.namespace)) is not None:
            changes.note()


@asynccontextmanager
async def rig(
    server: ApiServer,
    seed: int,
    folder: Path,
    at_work: int = AT_WORK,
    verdict_seconds: float = VERDICT_SECONDS,
    lease_seconds: float = LEASE_SECONDS,
) -> AsyncIterator[Rig]:
    """A rig on a running API server; `folder` is its own. The operator asks monitors every `verdict_seconds`."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    traffic = Traffic(seed)
    admin = ApiClient(from_kubeconfig(server.kubeconfig), limits=RequestLimits(retries=PATIENCE))
    async with admin as client, Proxy(server, traffic) as proxy:
        await prepare(client)
        await write_token(client, folder / "token")
        # With the token in a file, as a pod has it.
        kubeconfig = write_kubeconfig(
            folder / "operator.kubeconfig", proxy.url, server.ca, tokenFile=str(folder / "token")
        )
        log = folder / "operator.log"
        operator = Operator(
            operator_process(server, kubeconfig, log, verdict_seconds=verdict_seconds, lease_seconds=lease_seconds)
        )
        made = Rig(server, client, traffic, proxy, operator, kubeconfig, CASES[seed % len(CASES)], at_work)
        made.lease_seconds = lease_seconds
        traffic.restart = operator.restart
        tasks = [asyncio.create_task(reflector.run()) for reflector in made.seen.values()]
        await asyncio.gather(*(reflector.sync_event.wait() for reflector in made.seen.values()))
        operator.process.start()
        tasks.append(asyncio.create_task(operator.keep()))
        try:
            await catalog(client)
            yield made
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            operator.process.kill()


def operator_process(
    server: ApiServer,
    kubeconfig: Path,
    log: Path,
    pod: str = "r1plus-operator-0",
    verdict_seconds: float = VERDICT_SECONDS,
    lease_seconds: float = LEASE_SECONDS,
) -> OperatorProcess:
    """An operator behind the proxy, not started."""
    env = {
        "R1PLUS_VERDICT_INTERVAL_SECONDS": f"{verdict_seconds:g}",
        "R1PLUS_LEASE_SECONDS": f"{lease_seconds:g}",
        "R1PLUS_POD_NAME": pod,
        "R1PLUS_POD_UID": pod,
    }
    return OperatorProcess(server, log, kubeconfig=kubeconfig, **env)


async def prepare(client: ApiClient) -> None:
    """CRDs, a node, the operator's account and rights."""
    await install_chart_crds(client)
    for res in kinds.OPTIONAL_CHILDREN:
        await install_crd(client, _open_crd(res))
    await grant_operator(client)
    await add_node(client)


async def catalog(client: ApiClient) -> None:
    """Wait until the operator has applied its engines: what comes before is another story."""

    async def engines() -> list[Json]:
        return (await client.list(kinds.R1PLUS_ENGINE))[0]

    await eventually(engines, "the operator has applied its engines", period_s=0.2)


async def write_token(client: ApiClient, path: Path) -> None:
    """Put a fresh token of the operator's account where the operator reads it."""
    fresh = path.with_suffix(".new")
    fresh.write_text(await token(client, "r1plus-operator"))
    fresh.replace(path)


def scratch() -> Path:
    """A folder for logs and tokens, only this user's."""
    return Path(tempfile.mkdtemp(prefix=f"r1plus-faults-{os.getuid()}-"))


def _whole(obj: Json) -> CachedObject:
    """The object without its kind, which a list does not repeat for each."""
    meta = obj["metadata"]
    value = {key: part for key, part in obj.items() if key not in ("apiVersion", "kind")}
    return CachedObject(meta.get("namespace", ""), meta["name"], meta["uid"], value)


def _open_crd(res: Resource) -> Json:
    """A kind of prometheus-operator's with no schema: here it only has to be there."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": res.version, "served": True, "storage": True, "schema": schema}
    known = {"plural": res.plural, "singular": res.kind.lower(), "kind": res.kind}
    spec = {"group": res.group, "scope": "Namespaced", "names": known, "versions": [version]}
    return manifest(CRD, f"{res.plural}.{res.group}", spec=spec)
