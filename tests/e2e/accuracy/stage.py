"""What the stories have in common: a tenant each, small signed suites, deployments, and what stands on revisions."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from e2e import evidence, story
from e2e.kube import Json, Kube
from e2e.story import Name
from e2e.waiting import wait_for
from r1plus_cli.suite_store import manifest
from r1plus_contract.jsonable import dumps
from r1plus_contract.names import (
    ANNOTATION_ROLLBACK,
    ANNOTATION_VERDICT,
    API_VERSION,
    KIND_DEPLOYMENT,
    LABEL_REVISION,
)
from r1plus_contract.suite import Item, Suite, SuiteHeader, encode_items, load_suite, suite_hash
from r1plus_contract.suite_files import SuiteFiles
from r1plus_contract.suite_reference import Recorded, read_reference, write_reference
from r1plus_monitoring.scorers import score
from r1plus_operator.suite_signature import KeyPair, sign

SUITES = Path(__file__).parents[3] / "monitoring" / "suites"
LABELS = {"pod-security.kubernetes.io/enforce": "restricted", "r1plus.ai/tenant": "true"}
GONE_SECONDS = 180.0


def shipped(name: str) -> Suite:
    """One of the suites that come with the product."""
    return load_suite((SUITES / name / "suite.json").read_text(), (SUITES / name / "items.jsonl").read_text())


@dataclass(frozen=True, slots=True)
class OwnSuite:
    """A tenant's own suite: some items of a shipped one, signed with the tenant's key."""

    suite: Suite
    files: SuiteFiles
    key: KeyPair

    def put(self, kube: Kube, namespace: str) -> None:
        """As a tenant would: `kubectl apply` of the ConfigMap that `r1plus suite sign` writes."""
        kube.kubectl("apply", "-f", "-", given=manifest(self.files, namespace))

    def with_reference(self, text: str) -> "OwnSuite":
        """The same suite with other recorded answers, signed again."""
        return replace(self, files=sign(replace(self.files, reference=text), self.key))

    def with_items(self, items: Sequence[Item], name: str = "") -> "OwnSuite":
        """Other items under the same name or another, the recorded answers scored by them, signed by the same key."""
        by_id = {item.id: item for item in items}
        recorded = [
            replace(one, score=score(by_id[one.item], one.answer, one.finish_reason))
            for one in read_reference(self.files.reference, self.suite)
        ]
        return sealed(replace(self.suite.header, name=name or self.suite.header.name), items, recorded, self.key)


def own_suite(tier: str, key: KeyPair, per_stratum: int = 20) -> OwnSuite:
    """The first items of each stratum of the tier's shipped suite, with the answers recorded for them."""
    name = f"smollm2-{tier}-v1"
    whole, strata = shipped(name), dict[str, int]()
    chosen = []
    for item in whole.items:
        strata[item.stratum] = strata.get(item.stratum, 0) + 1
        if strata[item.stratum] <= per_stratum:
            chosen.append(item)
    kept = {item.id for item in chosen}
    recorded = read_reference((SUITES / name / "reference.jsonl").read_text(), whole)
    header = replace(whole.header, name=f"own-{tier}-v1")
    return sealed(header, chosen, [one for one in recorded if one.item in kept], key)


def sealed(header: SuiteHeader, items: Sequence[Item], recorded: Sequence[Recorded], key: KeyPair) -> OwnSuite:
    """These items as a suite, signed. Of `header` stay the name, the sampling and what it is about."""
    text = encode_items(items)
    digest = suite_hash(text, header.sampling, header.scorer_version)
    header_text = dumps(replace(header, items=len(items), sha256=digest))
    files = SuiteFiles(header_text, text, write_reference(recorded))
    return OwnSuite(load_suite(header_text, text), sign(files, key), key)


@dataclass(slots=True)
class Tenant:
    """A namespace of a story's own."""

    kube: Kube
    namespace: str
    tell: Callable[[str], None]
    _names: list[str] = field(default_factory=list)

    def make(self) -> None:
        """As a platform team does."""
        self.kube.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": LABELS}}
        )

    def apply(self, name: str, tier: str, **spec: Any) -> Name:
        """`kubectl apply` of an R1PlusDeployment."""
        self._names.append(name)
        self.kube.apply(
            {
                "apiVersion": API_VERSION,
                "kind": KIND_DEPLOYMENT,
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {"tier": tier, **spec},
            }
        )
        return Name(self.namespace, name)

    def change(self, name: Name, **spec: Any) -> None:
        """`kubectl patch --type=merge`."""
        self.kube.patch("r1plusdeployments", name.namespace, name.name, {"spec": spec})

    def until_ready(self, name: Name, seconds: float = story.READY_SECONDS) -> str:
        """The deployment serves what it asks for; the revision."""
        story.until_ready(self.kube, [name], self.tell, seconds)
        return story.serving_revision(self.kube, name)

    def evidence(self, name: Name) -> Callable[[], str]:
        """What a person would look at."""
        return lambda: evidence.of_deployment(self.kube, name.namespace, name.name)

    def clear(self) -> None:
        """The deployments and their pods are gone, then the namespace: what is left would be in the next story's way."""
        for name in self._names:
            self.kube.delete("r1plusdeployments", self.namespace, name)
        wait_for(lambda: not self.kube.all("pods", self.namespace) or None, "the pods are gone", GONE_SECONDS)
        self.kube.kubectl("delete", "namespace", self.namespace, "--timeout=90s")


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
    command = [str(Path(sys.executable).parent / "r1plus"), "status", name.name, "-n", name.namespace]
    env = {**os.environ, "KUBECONFIG": str(kube.kubeconfig), "COLUMNS": "160"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=env)
    return done.stdout


def _annotation(kube: Kube, name: Name, revision: str, annotation: str) -> Json:
    stored = kube.get("controllerrevisions", name.namespace, revision) or {}
    return dict(json.loads((stored.get("metadata", {}).get("annotations") or {}).get(annotation, "{}")))
