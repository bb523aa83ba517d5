"""Today's code reads every document that an earlier version stored, and loses no value of it (docs/upgrades.md).

The documents are those of the stored clusters in tests/golden. What is read is written again, and must hold all that
was stored: readers pass over fields that they do not know, so one that is renamed would be lost without an error.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from pydantic import BaseModel

from r1plus_contract import names
from r1plus_contract.engine.engine_fetch import ORDER_FILE, FillOrder, FillProgress
from r1plus_contract.jsonable import loads, to_jsonable
from r1plus_contract.monitor.identity import ServingIdentity
from r1plus_contract.monitor.isolation import Findings
from r1plus_contract.monitor.outcomes import OutcomePage
from r1plus_contract.monitor.settings import (
    SETTINGS_FILE,
    SUITE_FILE,
    SUPPORTS_GATE_PROOF,
    VERDICTS_FILE,
    KnownVerdicts,
    MonitorSettings,
)
from r1plus_contract.requests import Request, Verb
from r1plus_contract.suites.suite import SuiteHeader
from r1plus_contract.verdict import MonitorReport
from r1plus_model_repo.catalog.types import EngineSpec
from r1plus_operator.api.tenants import R1PlusTenantSpec
from r1plus_operator.api.types import R1PlusDeploymentSpec, R1PlusDeploymentStatus
from r1plus_operator.config import load_shipped_suites
from r1plus_operator.observe import node_projection, pod_projection, projections, suite_projection
from r1plus_operator.pins import SHIPPED_SUITES
from r1plus_operator.plan.engine.selection import Target, resolve
from r1plus_operator.plan.revision.factory import hash_revision
from r1plus_operator.plan.revision.last_valid import LastValid
from r1plus_operator.plan.revision.record import Runtime
from r1plus_operator.plan.revision.refresh import Refresh, RefreshOutcome
from r1plus_operator.plan.revision.rollback_record import AccuracyDrop, RollbackRecord, RollbackTerms
from r1plus_operator.plan.revision.storage import GatedImages, read_revision, to_object
from r1plus_operator.plan.rollback.quarantine import Quarantine
from r1plus_operator.plan.settings import OperatorConfig, SuiteTrust, VolumeTerms
from r1plus_operator.plan.tenancy.isolation_test_run import IsolationTestRun
from r1plus_operator.runtime.lease import Claim, LeaseTerms
from r1plus_policies.detector.pool import Pool
from support.tables import for_each
from support.upgrade.comparison import RENAMED_STATUS_FIELDS, lost_values
from support.upgrade.fixture import OPERATOR_NAMESPACE, StoredCluster, read_cluster, stored_clusters
from support.upgrade.monitors import OUTCOMES, PROGRESS, VERDICT

Json = dict[str, Any]
Documents = Iterator[tuple[str, Any]]
"""Where each was found, and the document."""
SUITES = Path(__file__).parents[3] / "monitoring" / "suites"
read_once = cache(read_cluster)
clusters = pytest.mark.parametrize("folder", stored_clusters(), ids=lambda folder: folder.name)


@dataclass(frozen=True, slots=True)
class Format:
    """Documents of one form, and how today's code reads and writes them."""

    find: Callable[[StoredCluster], Documents]
    rewrite: Callable[[Any], Any]


def annotations(key: str) -> Callable[[StoredCluster], Documents]:
    """Values of an annotation, on whatever has it."""

    def find(cluster: StoredCluster) -> Documents:
        for obj in cluster.objects:
            if text := (obj["metadata"].get("annotations") or {}).get(key):
                yield f"{obj['kind']} {obj['metadata']['name']}", json.loads(text)

    return find


def files(name: str) -> Callable[[StoredCluster], Documents]:
    """Files of this name in ConfigMaps."""

    def find(cluster: StoredCluster) -> Documents:
        for obj in cluster.of_kind("ConfigMap"):
            if text := obj["data"].get(name):
                yield f"ConfigMap {obj['metadata']['name']}", json.loads(text)

    return find


def answers(path: str) -> Callable[[StoredCluster], Documents]:
    """What monitors answer there."""

    def find(cluster: StoredCluster) -> Documents:
        for monitor in cluster.monitors:
            for page in (monitor["answers"], monitor.get("next", {})):
                if path in page:
                    yield f"monitor of {monitor['pod']}", page[path]

    return find


def parts(kind: str, part: str) -> Callable[[StoredCluster], Documents]:
    """This part of all objects of a kind."""
    return lambda cluster: ((f"{kind} {obj['metadata']['name']}", obj[part]) for obj in cluster.of_kind(kind))


def statuses(cluster: StoredCluster) -> Documents:
    """Statuses of deployments, with today's names of fields: the operator derives them and never reads them back."""
    for obj in cluster.of_kind("R1PlusDeployment"):
        status = {RENAMED_STATUS_FIELDS.get(field, field): value for field, value in obj["status"].items()}
        yield f"R1PlusDeployment {obj['metadata']['name']}", status


def last_words(cluster: StoredCluster) -> Documents:
    """What the containers of the isolation test found."""
    for pod in cluster.of_kind("Pod"):
        for container in pod["status"]["containerStatuses"]:
            if names.LABEL_PROBE in pod["metadata"]["labels"]:
                message = container["state"]["terminated"]["message"]
                yield f"{pod['metadata']['name']}/{container['name']}", json.loads(message)


def revisions(cluster: StoredCluster) -> Documents:
    """ControllerRevisions, without what is the API server's and the operator's present rendering."""
    for obj in cluster.of_kind("ControllerRevision"):
        notes = {k: v for k, v in obj["metadata"]["annotations"].items() if k != names.ANNOTATION_DESIRED_HASH}
        yield obj["metadata"]["name"], {**obj, "metadata": {"name": obj["metadata"]["name"], "annotations": notes}}


def revisions_of(cluster: StoredCluster, deployment: str) -> list[Json]:
    """Return the ControllerRevisions of a deployment."""
    label = (names.LABEL_DEPLOYMENT, deployment)
    return [obj for obj in cluster.of_kind("ControllerRevision") if label in obj["metadata"]["labels"].items()]


def rewrite_revision(stored: Json) -> Json:
    return to_object(read_revision(stored), {"name": stored["metadata"]["name"], "annotations": {}})


def of_contract(kind: type[Any]) -> Callable[[Any], Any]:
    """As a reader that is tolerant of other versions reads it."""
    return lambda document: to_jsonable(loads(kind, json.dumps(document), tolerant=True))


def of_api(model: type[BaseModel]) -> Callable[[Any], Any]:
    """As a pass reads a custom resource."""
    return lambda document: model.model_validate(document).model_dump(mode="json", by_alias=True)


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "a revision": Format(revisions, rewrite_revision),
        "the verdicts of a revision": Format(annotations(names.ANNOTATION_VERDICT), of_contract(KnownVerdicts)),
        "the images that were gated": Format(annotations(names.ANNOTATION_IMAGES), of_contract(GatedImages)),
        "a rollback": Format(annotations(names.ANNOTATION_ROLLBACK), of_contract(RollbackRecord)),
        "what a spec asked for last": Format(annotations(names.ANNOTATION_LAST_VALID), of_contract(LastValid)),
        "a refresh": Format(annotations(names.ANNOTATION_REFRESH), of_contract(Refresh)),
        "a pooled detector": Format(annotations(names.ANNOTATION_POOL), of_contract(Pool)),
        "a quarantine": Format(annotations(names.ANNOTATION_QUARANTINE), of_contract(Quarantine)),
        "a run of the isolation test": Format(annotations(names.ANNOTATION_PROBED), of_contract(IsolationTestRun)),
        "what the isolation test found": Format(last_words, of_contract(Findings)),
        **{f"a request to {verb}": Format(annotations(verb.annotation), of_contract(Request)) for verb in Verb},
        "settings of monitors": Format(files(SETTINGS_FILE), of_contract(MonitorSettings)),
        "verdicts that monitors know": Format(files(VERDICTS_FILE), of_contract(KnownVerdicts)),
        "a suite's header": Format(files(SUITE_FILE), of_contract(SuiteHeader)),
        "an identity": Format(files("identity.json"), of_contract(ServingIdentity)),
        "an order to fill a volume": Format(files(ORDER_FILE), of_contract(FillOrder)),
        "a monitor's report": Format(answers(VERDICT), of_contract(MonitorReport)),
        "a page of outcomes": Format(answers(OUTCOMES), of_contract(OutcomePage)),
        "progress of a Job that fills a volume": Format(answers(PROGRESS), of_contract(FillProgress)),
        "spec of a deployment": Format(parts("R1PlusDeployment", "spec"), of_api(R1PlusDeploymentSpec)),
        "status of a deployment": Format(statuses, of_api(R1PlusDeploymentStatus)),
        "spec of a tenant": Format(parts("R1PlusTenant", "spec"), of_api(R1PlusTenantSpec)),
        "spec of an engine": Format(parts("R1PlusEngine", "spec"), of_api(EngineSpec)),
    }
)
NOT_STORED: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "cluster-035d42d": frozenset(
            {
                *(f"a request to {verb}" for verb in (Verb.UNPIN, Verb.PAUSE, Verb.RESUME, Verb.REFRESH)),
                "a refresh",
                "the images that were gated",
                "what a spec asked for last",
            }
        )
    }
)
"""Formats that are younger than a stored cluster."""
ASK_FOR_THE_NEWEST: Mapping[str, str] = MappingProxyType(
    {
        "dropping": "a rollback is under way, so the candidate is the revision that traffic goes back to",
        "pinned": "the spec changed after the pin, so its revision is neither serving nor a candidate",
    }
)
"""Deployment whose spec asks neither for `status.candidate` nor, without one, for `status.revision` -> why."""


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        pytest.param(folder, name, id=f"{folder.name}-{name}")
        for folder in stored_clusters()
        for name in FORMATS
        if name not in NOT_STORED.get(folder.name, ())
    ],
)
def test_no_value_of_a_stored_document_is_lost(folder: Path, name: str) -> None:
    form, cluster = FORMATS[name], read_once(folder)
    documents = list(form.find(cluster))
    assert documents, "it is stored under another name today"
    lost = [f"{where}: {line}" for where, stored in documents for line in lost_values(stored, form.rewrite(stored))]
    assert lost == []


ROLLBACK = RollbackRecord(
    "credit-a", RollbackTerms("credit-b", "h", 0.98, ""), 1000.0, "BelowThreshold", AccuracyDrop(), released="ack-1"
)


@for_each("value, stored", {
    "the images of a wave": (Runtime("registry.local/triton:1", "registry.local/monitor:1").digest, "5273d14c5a50"),
    "the gate of a revision that was rolled back from": (replace(ROLLBACK, released="").regate_token, "credit-a@1000.000"),
    "the gate of one that a user lets come back": (ROLLBACK.regate_token, "credit-a@1000.000+a5213bae"),
    "how a candidate of a wave ended that failed and was acknowledged": (RefreshOutcome.USER_ACK.value, "Acknowledged"),
    "the first monitor that proves its gates": (SUPPORTS_GATE_PROOF, 3),
})  # fmt: skip
def test_a_value_by_which_documents_are_compared_is_the_one_that_earlier_versions_stored(
    value: object, stored: object
) -> None:
    """With another one a wave would begin again, and a gate that a monitor has reported would be lost."""
    assert value == stored


@clusters
def test_each_serving_pod_is_its_revisions_own(folder: Path) -> None:
    """Nobody believes the monitor of a pod whose fingerprint or owner reads otherwise."""
    cluster = read_once(folder)
    pods = [
        pod.facts for obj in cluster.of_kind("Pod") if (pod := pod_projection.project_pod(obj)) and pod.facts.revision
    ]
    own = [pod.name for pod in pods if read_revision(cluster.get("ControllerRevision", pod.revision)).own_pods([pod])]
    assert pods
    assert own == [pod.name for pod in pods]


@clusters
def test_each_spec_asks_for_the_revision_that_was_made_of_it(folder: Path) -> None:
    """Another hash would be another revision: a rollout of everything at the operator's start."""
    cluster = read_once(folder)
    engines = [projections.project_engine(obj).value.engine for obj in cluster.of_kind("R1PlusEngine")]
    nodes = [node.value for obj in cluster.of_kind("Node") if (node := node_projection.project_node(obj))]
    own = [obj for obj in cluster.of_kind("ConfigMap") if names.LABEL_SUITE in obj["metadata"].get("labels", {})]
    suites = {
        **load_shipped_suites(SUITES),
        **{obj["metadata"]["name"]: suite_projection.read_suite(obj) for obj in own},
    }
    assert [suite.problem for suite in suites.values() if suite.problem] == []
    config = OperatorConfig(
        monitor_image="registry.local/monitor:2",
        triton_image="registry.local/triton:2",
        default_family="smollm2",
        operator_namespace=OPERATOR_NAMESPACE,
        monitoring_namespace="monitoring",
        suite_trust=SuiteTrust(shipped_digests=frozenset(SHIPPED_SUITES.values())),
        volumes=VolumeTerms(require_signature=False),
    )
    requested, expected = {}, {}
    for cr in cluster.of_kind("R1PlusDeployment"):
        spec = R1PlusDeploymentSpec.model_validate(cr["spec"])
        target = resolve(spec, tuple(engines), suites, tuple(nodes), config, cr["status"]["engine"])
        assert isinstance(target, Target), target
        name, status = cr["metadata"]["name"], cr["status"]
        requested[name] = f"{name}-{hash_revision(spec, target)}"
        newest = max(revisions_of(cluster, name), key=lambda obj: obj["revision"])["metadata"]["name"]
        expected[name] = newest if name in ASK_FOR_THE_NEWEST else status.get("candidate") or status["revision"]
    assert requested == expected


@clusters
def test_the_lease_that_was_handed_over_is_free_and_the_next_term_counts_on(folder: Path) -> None:
    (lease,) = read_once(folder).of_kind("Lease")
    claim = Claim("r1plus-operator-new_1", LeaseTerms(), lambda: 0.0)
    claim.observe_lease({**lease, "metadata": {**lease["metadata"], "resourceVersion": "7"}})
    assert claim.find_claimable_version() == "7"
    assert claim.build_spec(new=True)["leaseTransitions"] == lease["spec"]["leaseTransitions"] + 1
