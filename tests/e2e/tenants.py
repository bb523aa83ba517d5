"""A namespace of a story's own with its deployments, and what is recorded on their revisions."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from e2e import evidence, objects, story
from e2e.command_line import run_r1plus
from e2e.kube import Json, Kube
from e2e.story import Name
from e2e.suites import OwnSuite
from e2e.waiting import wait_for
from r1plus_contract.names import ANNOTATION_ROLLBACK, ANNOTATION_VERDICT, LABEL_REVISION, LABEL_SERVING


@dataclass(slots=True)
class Tenant:
    """A namespace of a story's own."""

    kube: Kube
    namespace: str
    tell: Callable[[str], None]
    _names: list[str] = field(default_factory=list)
    _engines: list[str] = field(default_factory=list)

    def make(self) -> None:
        """As a platform team does."""
        self.kube.apply(objects.namespace(self.namespace))

    def apply(self, name: str, tier: str, **spec: Any) -> Name:
        """`kubectl apply` of an R1PlusDeployment."""
        self._names.append(name)
        self.kube.apply(objects.deployment(self.namespace, name, tier, **spec))
        return Name(self.namespace, name)

    def register(self, engine: Json) -> None:
        """Apply an R1PlusEngine, which goes with the namespace."""
        self._engines.append(engine["metadata"]["name"])
        self.kube.apply(engine)

    def change(self, name: Name, **spec: Any) -> None:
        """`kubectl patch --type=merge`."""
        self.kube.patch("r1plusdeployments", name.namespace, name.name, {"spec": spec})

    def until_ready(self, name: Name) -> str:
        """The deployment serves what it asks for; the revision."""
        story.until_ready(self.kube, [name], self.tell)
        return story.serving_revision(self.kube, name)

    def evidence(self, name: Name) -> Callable[[], str]:
        """What a person would look at."""
        return lambda: evidence.of_deployment(self.kube, name.namespace, name.name)

    def clear(self) -> None:
        """Deployments and their pods are gone, then namespace and engines: what is left would be in the next story's way."""
        for name in self._names:
            self.kube.delete("r1plusdeployments", self.namespace, name)
        wait_for(lambda: not self.kube.all("pods", self.namespace, LABEL_SERVING), "the pods are gone")
        self.kube.kubectl("delete", "namespace", self.namespace, "--timeout=90s")
        for engine in self._engines:
            self.kube.delete("r1plusengines", None, engine)


@contextmanager
def open_tenant(kube: Kube, namespace: str, suite: OwnSuite) -> Iterator[Tenant]:
    """Yield a namespace that has a golden suite. It is gone at the end, with its engines."""
    tenant = Tenant(kube, namespace, print)
    tenant.make()
    suite.put(kube, namespace)
    yield tenant
    tenant.clear()


def record_of(kube: Kube, name: Name, revision: str) -> Json:
    """The way back from a revision as it stands on its ControllerRevision; empty while there is none."""
    return _annotation(kube, name, revision, ANNOTATION_ROLLBACK)


def gates_of(kube: Kube, name: Name, revision: str) -> list[Json]:
    """The gates decided about a revision, oldest first."""
    return list(_annotation(kube, name, revision, ANNOTATION_VERDICT).get("reports") or [])


def revisions_of(kube: Kube, name: Name) -> list[str]:
    """Names of all its ControllerRevisions."""
    found = kube.all("controllerrevisions", name.namespace, f"r1plus.ai/deployment={name.name}")
    return [one["metadata"]["name"] for one in found]


def pods_of(kube: Kube, name: Name, revision: str) -> list[Json]:
    """Its pods, whatever they are labelled as otherwise."""
    return [p for p in kube.pods_of(name.namespace, name.name) if p["metadata"]["labels"][LABEL_REVISION] == revision]


def incident_of(kube: Kube, name: Name) -> Json:
    """`status.incident`; empty while there is none."""
    cr = kube.get("r1plusdeployments", name.namespace, name.name) or {}
    return dict(cr.get("status", {}).get("incident") or {})


def in_container(kube: Kube, name: Name, pod: str, container: str, *words: str) -> str:
    """`kubectl exec`."""
    return kube.kubectl("exec", f"--namespace={name.namespace}", pod, f"--container={container}", "--", *words)


def r1plus_status(kube: Kube, name: Name) -> str:
    """What `r1plus status NAME -n NAMESPACE` prints."""
    return run_r1plus(kube, "status", name.name, "-n", name.namespace).stdout


def _annotation(kube: Kube, name: Name, revision: str, annotation: str) -> Json:
    stored = kube.get("controllerrevisions", name.namespace, revision) or {}
    return dict(json.loads((stored.get("metadata", {}).get("annotations") or {}).get(annotation, "{}")))
