"""Two tenants side by side: A, whose administrator and whose pods attack, and B, which has what is worth having.

Both serve the demo's smallest engine, each held to a small suite of its own, and each has a gateway. Beside them a namespace
without walls, from which the same tries get through: the controls. B's gateway lets it in, A's does not.
"""

import json
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from devcluster import bringup
from devcluster.pki import Authority
from devcluster.toolchain import kubectl
from e2e import gateways, objects, story
from e2e.isolation.matrix import Trial
from e2e.isolation.people import Person
from e2e.kube import Json, Kube
from e2e.objects import TENANT_LABELS, ordinary_pod
from e2e.story import Name
from e2e.suites import OwnSuite, own_suite, sealed
from e2e.target import EmbeddedTarget
from e2e.waiting import StoryError, wait_for
from r1plus_contract.suites.suite_reference import read_reference
from r1plus_model_repo.importing.embedding import minilm
from r1plus_operator.observe.suite_signature import generate_key

A, B, OPEN, MONITORING = "wall-a", "wall-b", "wall-open", "monitoring"
MODEL, TIER, PER_STRATUM = "triage", "edge", 10
SECRET, SUITE, CLAIM, KEEPER, INTRUDER = "private", "private", "private", "keeper", "intruder"
"""What each tenant has under the same name; KEEPER mounts the claim, INTRUDER is an ordinary pod of A's."""
TRIES = (Path(__file__).parent / "tries.py").read_text()
RBAC = "rbac.authorization.k8s.io"
USERS = {A: 20100, B: 20200}
"""Tenant -> user of its pods: `runAsUser` of its R1PlusTenant."""


@dataclass(frozen=True, slots=True)
class Place:
    """A container from which tries are made."""

    kube: Kube
    namespace: str
    pod: str
    container: str

    def run(self, *words: str, given: str | None = None) -> str:
        """`kubectl exec`, as the cluster's administrator: how somebody got in there is not on trial."""
        command = ["exec", "-i", f"--namespace={self.namespace}", self.pod, f"--container={self.container}", "--"]
        return self.kube.kubectl(*command, *words, given=given)

    def try_all(self, tries: Sequence[Json]) -> dict[str, str]:
        """How each ended, by name: `open ...` or `shut ...`."""
        return dict(json.loads(self.run("python3", "-c", TRIES, given=json.dumps(list(tries)))))

    def one(self, host: str, port: int, **request: Any) -> str:
        """How a single one ended."""
        return self.try_all([{"name": "", "host": host, "port": port, **request}])[""]

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod} ({self.container})"


@dataclass(slots=True)
class Side:
    """One of the two tenants."""

    kube: Kube
    namespace: str
    admin_name: str
    admin: Person
    canary: str
    """A word that stands in its Secret, its suite, its volume, and nowhere else."""
    suite: OwnSuite
    token: str = ""
    """Of its service account INTRUDER, which may do what its administrator may."""

    @property
    def name(self) -> Name:
        """Its deployment."""
        return Name(self.namespace, MODEL)

    @property
    def pod(self) -> Json:
        """Its serving pod, now."""
        found = wait_for(lambda: story.ready_pod(self.kube, self.name), f"{self.name} has a Ready pod")
        return self.kube.get("pods", self.namespace, found) or {}

    @property
    def address(self) -> str:
        """Of that pod."""
        return str(self.pod["status"]["podIP"])

    @property
    def service(self) -> str:
        """Cluster address of its Service."""
        return str((self.kube.get("services", self.namespace, MODEL) or {})["spec"]["clusterIP"])

    def triton(self) -> Place:
        """Inside its server."""
        return Place(self.kube, self.namespace, self.pod["metadata"]["name"], "triton")

    def ordinary(self) -> Place:
        """Inside its ordinary pod."""
        return Place(self.kube, self.namespace, INTRUDER, "main")

    @property
    def gateway_pod(self) -> Json:
        """Its gateway's pod, now."""

        def look() -> Json | None:
            return next((pod for pod in gateways.gateway_pods(self.kube, self.namespace) if gateways.is_up(pod)), None)

        return wait_for(look, f"the gateway of {self.namespace} runs")

    def gateway(self, container: str = "gateway") -> Place:
        """Inside its gateway, or a helper beside it."""
        return Place(self.kube, self.namespace, self.gateway_pod["metadata"]["name"], container)


@dataclass(slots=True)
class World:
    """Everything."""

    target: EmbeddedTarget
    kube: Kube
    image: str
    a: Side
    b: Side
    platform: Person
    """Who may do everything: only ever the control."""

    @staticmethod
    def text(body: Json) -> str:
        """As it is sent."""
        return json.dumps(body)

    def person(self, name: str) -> Person:
        """Somebody with a certificate of the cluster's authority."""
        return person(self.target, name)

    def open_place(self) -> Place:
        """A pod without walls."""
        return Place(self.kube, OPEN, "open", "main")

    def watcher(self) -> Place:
        """A pod in Prometheus' namespace, whom the walls let in to the ports of metrics."""
        return Place(self.kube, MONITORING, "isolation-control", "main")


def person(target: EmbeddedTarget, name: str, groups: tuple[str, ...] = ()) -> Person:
    """Somebody with a certificate of the cluster's authority."""
    authority = Authority(target.cluster.layout.pki)
    issued = authority.issue(f"person-{name}", name, groups)
    return Person(f"https://127.0.0.1:{target.cluster.ports['api']}", authority, issued)


def administrator(target: EmbeddedTarget) -> Person:
    """The cluster's: for controls."""
    authority = Authority(target.cluster.layout.pki)
    url = f"https://127.0.0.1:{target.cluster.ports['api']}"
    return Person(url, authority, bringup.admin_client(authority))


def private_suite(canary: str) -> OwnSuite:
    """Some items of the shipped one, under a name that only its tenant knows: in its text and in an item's id."""
    base = own_suite(TIER, generate_key(), PER_STRATUM)
    recorded = read_reference(base.files.reference, base.suite)
    first, *others = base.suite.items
    said = [replace(one, item=canary) if one.item == first.id else one for one in recorded]
    header = replace(base.suite.header, name=SUITE, description=f"Of {canary}")
    return sealed(header, [replace(first, id=canary), *others], said, base.key)


def is_running(kube: Kube, namespace: str, name: str) -> bool:
    """Whether the pod runs."""
    pod = kube.get("pods", namespace, name) or {}
    return pod.get("status", {}).get("phase") == "Running"


def make_namespace(kube: Kube, name: str, labels: Mapping[str, str] = TENANT_LABELS) -> None:
    """As a platform team does. One of that name that is on its way out is waited for."""

    def free() -> bool:
        found = kube.get("namespaces", None, name)
        return found is None or "deletionTimestamp" not in found["metadata"]

    wait_for(free, f"namespace {name} can be made")
    kube.apply(objects.namespace(name, labels))


def deployment(side: Side, name: str = MODEL, **spec: Any) -> Json:
    """An R1PlusDeployment that is held to its tenant's own suite."""
    held = {"suite": SUITE, "suiteKeys": [side.suite.key.public]}
    return objects.deployment(side.namespace, name, TIER, **{"context": {"maxTokens": 1024}, "accuracy": held, **spec})


def gateway_of(namespace: str) -> Json:
    """`spec.gateway` of a side's R1PlusTenant: data in a file on its volume."""
    sources = [{"namespace": OPEN}] if namespace == B else []
    helpers = {"calculator": True, "knowledge": True, "embedding": {"engine": minilm.NAME}}
    return {"enabled": True, **helpers, "from": sources, "database": None}


def binding(name: str, namespace: str, role: str, subjects: Sequence[Json]) -> Json:
    """A RoleBinding to a ClusterRole."""
    ref = {"apiGroup": RBAC, "kind": "ClusterRole", "name": role}
    meta = {"name": name, "namespace": namespace}
    head = {"apiVersion": f"{RBAC}/v1", "kind": "RoleBinding"}
    return {**head, "metadata": meta, "roleRef": ref, "subjects": list(subjects)}


def user(name: str) -> Json:
    """Of a RoleBinding."""
    return {"apiGroup": RBAC, "kind": "User", "name": name}


def account(name: str, namespace: str) -> Json:
    """Likewise."""
    return {"kind": "ServiceAccount", "name": name, "namespace": namespace}


PLACES = {"its server": lambda world: world.a.triton(), "an ordinary pod": lambda world: world.a.ordinary()}
"""Where A attacks from, by what it is called in a test's id."""
HELPERS = {name: lambda world, name=name: world.a.gateway(name) for name in ("calculator", "documents", "embedder")}
"""Beside A's gateway: a hostile expression, document or text might take one over. By what it is called, too."""
ALL_PLACES = {
    **PLACES,
    "its gateway": lambda world: world.a.gateway(),
    **{f"its gateway's {name}": place for name, place in HELPERS.items()},
}
"""Likewise, with the pod that calls A's models for others."""
WHERE = "import socket; print(socket.gethostbyname(socket.gethostname()))"


def stands_in(trial: Trial, world: World, place: Place) -> None:
    """By its address, which is what walls go by."""
    pod = world.kube.get("pods", place.namespace, place.pod) or {}
    trial.by(pod["status"]["podIP"], place.run("python3", "-c", WHERE).strip())


@dataclass(slots=True)
class Builder:
    """Makes the two tenants, as platform team and tenants would, and takes them away."""

    target: EmbeddedTarget
    image: str
    made: list[str] = field(default_factory=list)

    @property
    def kube(self) -> Kube:
        """The cluster's API, as its administrator."""
        return self.target.kube

    def build(self) -> World:
        """Both serve, and each has an ordinary pod."""
        sides = [self._side(A, "alice"), self._side(B, "bob")]
        wait_for(lambda: story.counted(self.kube), "both quotas are counted")
        for side in sides:
            self.kube.apply(deployment(side))
        self._open()
        for side in sides:
            story.until_ready(self.kube, [side.name], print)
            gateways.until_ready(self.kube, side.namespace, print)
            for pod in (INTRUDER, KEEPER):
                what = f"{side.namespace}/{pod} runs"
                wait_for(lambda p=pod, s=side: is_running(self.kube, s.namespace, p), what)
            Place(self.kube, side.namespace, KEEPER, "main").run(
                "python3", "-c", f"open('/claim/private', 'w').write({side.canary!r})"
            )
        return World(self.target, self.kube, self.image, *sides, administrator(self.target))

    def clear(self) -> None:
        """Everything is gone; what is left would be in the next run's way."""
        self.kube.kubectl("delete", "pod", "-n", MONITORING, "isolation-control", "--ignore-not-found", "--wait=false")
        self.kube.kubectl("delete", "namespace", A, B, OPEN, "--ignore-not-found", "--wait=false")

    def _side(self, namespace: str, admin: str) -> Side:
        kube = self.kube
        canary = f"canary-{namespace}-{uuid.uuid4().hex[:12]}"
        side = Side(kube, namespace, admin, person(self.target, admin), canary, private_suite(canary))
        make_namespace(kube, namespace)
        subjects = [user(admin), account(INTRUDER, namespace)]
        own = [{"kind": "User", "name": admin}, {"kind": "ServiceAccount", "name": INTRUDER}]
        quota = {"pods": 12, "deployments": 300, "memory": "12Gi"}
        tenant = {"admins": own, "quota": quota, "gateway": gateway_of(namespace), "runAsUser": USERS[namespace]}
        kube.apply(objects.tenant(namespace, **tenant))
        gateways.init_tenant(kube, namespace, print)
        kube.apply(binding("administers", namespace, "admin", subjects))
        self._belongings(side)
        side.token = kube.kubectl("create", "token", INTRUDER, f"--namespace={namespace}", "--duration=2h").strip()
        return side

    def _belongings(self, side: Side) -> None:
        """What is worth having, under names that are no secret."""
        kube, namespace = self.kube, side.namespace
        kube.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta(INTRUDER, namespace)})
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": _meta(SECRET, namespace)}
        kube.apply({**secret, "stringData": {"value": side.canary}})
        side.suite.put(kube, namespace)
        request = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": _meta(CLAIM, namespace)}
        kube.apply({**claim, "spec": request})
        kube.apply(ordinary_pod(KEEPER, namespace, self.image, claim=CLAIM))
        kube.apply(ordinary_pod(INTRUDER, namespace, self.image, account=INTRUDER, token=True))

    def _open(self) -> None:
        make_namespace(self.kube, OPEN, {})
        for name, namespace in (("open", OPEN), ("isolation-control", MONITORING)):
            self.kube.apply(ordinary_pod(name, namespace, self.image))
            what = f"{namespace}/{name} runs"
            wait_for(lambda n=name, ns=namespace: is_running(self.kube, ns, n), what)


def _meta(name: str, namespace: str) -> Json:
    return {"name": name, "namespace": namespace}


def exec_as(target: EmbeddedTarget, who: str, *words: str) -> subprocess.CompletedProcess[str]:
    """kubectl as a person, with the kubeconfig that they would have."""
    layout = target.cluster.layout
    path = layout.kubeconfig(f"person-{who}")
    if not path.exists():
        raise StoryError(f"there is no kubeconfig of {who}")
    command = [str(kubectl()), f"--kubeconfig={path}", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
