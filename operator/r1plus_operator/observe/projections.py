"""What the caches store of each kind: the few facts that a pass needs. Called by the reflectors, once per event.

Of a child the cache stores what we set and what drift is detected by. Its status and bookkeeping are dropped, so that
a Deployment that merely counts its pods causes no pass.
"""

import contextlib
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import ValidationError

from r1plus_contract import names
from r1plus_contract.requests import build_annotations, read_requests
from r1plus_contract.timestamps import parse_timestamp
from r1plus_model_repo.catalog.embedding import EmbeddingEngine, EmbeddingEngineSpec, read_spec
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.api import kinds
from r1plus_operator.plan.manifests.drift import fold_texts
from r1plus_operator.plan.observation import (
    JOB_ENDED,
    REFUSED_PODS,
    Json,
    NamespaceFacts,
)
from r1plus_operator.plan.revision.refresh import Refresh, read_refresh
from r1plus_operator.plan.tenancy.volumes import COMPLETE, FAILED
from r1plus_operator.runtime.resources import Resource

LABEL_SERVICE = "kubernetes.io/service-name"
"""Label of an EndpointSlice, set by Kubernetes; the other labels are its Service's."""
OPENSHIFT_USERS = "openshift.io/sa.scc.uid-range"
"""Annotation of a namespace, by which OpenShift assigns users to its pods."""
_OF_A_CR = ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp")
_BOOKKEEPING_FIELDS = ("managedFields", "resourceVersion", "generation", "creationTimestamp")
_OURS = f"{names.GROUP}/"
"""Prefix of our annotations and labels. Other annotations may take 256 KiB of an object."""
_VERSIONED_KINDS = frozenset({kinds.BY_KIND["ControllerRevision"].kind})
"""Kinds whose state follows from nothing else: of these the version is stored as well."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The pods that a Service leads to, by one of its EndpointSlices."""

    service: str
    pods: frozenset[str]


@dataclass(frozen=True, slots=True)
class CachedObject:
    """One stored object: identity for the store, `value` for the pass."""

    namespace: str
    name: str
    uid: str
    value: Any


def build_cached_object(obj: Json, value: Any) -> CachedObject:
    """Return `value` with the object's identity."""
    meta = obj["metadata"]
    return CachedObject(meta.get("namespace", ""), meta["name"], meta["uid"], value)


@dataclass(frozen=True, slots=True)
class Child:
    """A child of an R1PlusDeployment. Its body is JSON text: as objects it would take five times the memory."""

    namespace: str
    name: str
    uid: str
    deployments: frozenset[str]
    """Names of the R1PlusDeployments that it may belong to, by its label and by its owner: either may be edited."""
    label: str
    """Name of its R1PlusDeployment by its label."""
    owner: str | None
    """uid of the R1PlusDeployment that controls it. None: somebody removed the reference, or it has none."""
    is_deleting: bool
    """Stored until it is gone, since that causes the pass that creates it again."""
    text: bytes
    volume: str = ""
    """The volume that a revision needs, or to which a Job fetches an engine."""
    tenant: str = ""
    """The tenant's namespace to whose isolation it belongs; empty: to none."""
    refresh: Refresh | None = None
    """Of a revision that a refresh or a wave began: which, and how it ended."""
    pods_owner_uid: str = ""
    """Of a revision: uid of the R1PlusDeployment that its pods name. It is not the owner's uid if the revision was
    orphaned and adopted by a namesake."""

    @property
    def live(self) -> Json:
        """The object without status and bookkeeping, its long texts folded (`drift.fold_texts`)."""
        return dict(orjson.loads(self.text))


def project_child(resource: Resource, obj: Json) -> Child:
    """Return what a pass needs of a child."""
    meta = obj["metadata"]
    slim = {key: value for key, value in obj.items() if key != "status"}
    slim["apiVersion"], slim["kind"] = resource.api_version, resource.kind
    slim["metadata"] = {key: value for key, value in meta.items() if key not in _BOOKKEEPING_FIELDS} | _select_markings(
        meta
    )
    if resource.kind in _VERSIONED_KINDS:
        slim["metadata"]["resourceVersion"] = meta["resourceVersion"]
    if refusal := _read_pod_refusal(obj):
        slim[REFUSED_PODS] = refusal
    if job_end := _read_job_end(resource, obj):
        slim[JOB_ENDED] = job_end
    owner, labels = find_controller(meta), meta.get("labels") or {}
    by_label = labels.get(names.LABEL_DEPLOYMENT)
    # An object of a deployment or a volume is no object of the tenant, whatever labels somebody sets.
    is_tenant_object = names.LABEL_ISOLATION in labels and not owner and names.LABEL_VOLUME not in labels
    return Child(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        deployments=frozenset(name for name in (by_label, owner.get("name")) if name),
        label=by_label or "",
        owner=owner.get("uid"),
        is_deleting="deletionTimestamp" in meta,
        text=_copy_exact(orjson.dumps(fold_texts(slim), option=orjson.OPT_SORT_KEYS)),
        volume=_read_volume_name(resource, obj),
        tenant=read_probed_namespace(meta) if is_tenant_object else "",
        refresh=read_refresh((meta.get("annotations") or {}).get(names.ANNOTATION_REFRESH)),
        pods_owner_uid=_read_pods_owner(resource, obj),
    )


def _read_pods_owner(resource: Resource, obj: Json) -> str:
    """Return the owner's uid in a revision's template; empty if there is none that can be read."""
    if resource.kind != "ControllerRevision":
        return ""
    try:
        return str(obj["data"]["template"]["metadata"]["annotations"][names.ANNOTATION_OWNER_UID])
    except (KeyError, TypeError):
        return ""


def _select_markings(meta: Json) -> Json:
    """Return our annotations and labels of an object. Those of others decide nothing, so their edits cause no pass."""
    annotations = {key: value for key, value in (meta.get("annotations") or {}).items() if key.startswith(_OURS)}
    markings: Json = {"annotations": annotations} if "annotations" in meta else {}
    if labels := meta.get("labels"):
        marks = (names.LABEL_MANAGED_BY, names.LABEL_NAME)
        markings["labels"] = {key: value for key, value in labels.items() if key.startswith(_OURS) or key in marks}
    return markings


def read_probed_namespace(meta: Json) -> str:
    """Return the namespace that an isolation test's object tests; of any other object its own namespace."""
    text = (meta.get("annotations") or {}).get(names.ANNOTATION_PROBED, "")
    with contextlib.suppress(orjson.JSONDecodeError, TypeError, KeyError):
        return str(orjson.loads(text)["namespace"])
    return str(meta["namespace"])


def _read_volume_name(resource: Resource, obj: Json) -> str:
    """Return the name of an object's volume, from a revision's data or from the label."""
    if resource.kind == "ControllerRevision":
        volume = (obj.get("data") or {}).get("volume")
        return str(volume.get("name", "")) if isinstance(volume, dict) else ""
    return str((obj["metadata"].get("labels") or {}).get(names.LABEL_VOLUME, ""))


def _read_job_end(resource: Resource, obj: Json) -> Json:
    """Return how a Job or TrainJob ended and when; empty while it runs."""
    if resource.kind not in ("Job", kinds.TRAIN_JOB.kind):
        return {}
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition["type"] in (COMPLETE, FAILED) and condition["status"] == "True":
            final = condition.get("reason") == "PodFailurePolicy"
            end = {
                "type": condition["type"],
                "at": parse_timestamp(condition.get("lastTransitionTime", "")),
                "final": final,
            }
            return end if resource.kind == "Job" else {**end, "message": condition.get("message", "")[:600]}
    return {}


def _copy_exact(text: bytes) -> bytes:
    """Return a copy in memory of its own size: what orjson returns holds up to twelve times as much."""
    return bytes(memoryview(text))


def _read_pod_refusal(obj: Json) -> str:
    """Return why the API server refuses a Deployment's pods: a quota, Pod Security or an admission webhook."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next(
        (c.get("message", "") for c in conditions if (c["type"], c["status"]) == ("ReplicaFailure", "True")), ""
    )


def find_controller(meta: Json, kind: str = names.KIND_DEPLOYMENT) -> Json:
    """Return the owner reference of the controller if that is of this kind, else an empty one."""
    owners = meta.get("ownerReferences") or ()
    return next((o for o in owners if o.get("kind") == kind and o.get("controller")), {})


def project_deployment(cr: Json) -> Json:
    """Return an R1PlusDeployment with what decides a pass, and the status that was last written."""
    meta = {key: cr["metadata"][key] for key in _OF_A_CR if key in cr["metadata"]}
    if "deletionTimestamp" in meta:
        meta["finalizers"] = cr["metadata"].get("finalizers") or []
    requests = read_requests(cr["metadata"]).items()
    if annotations := {
        key: text for verb, request in requests for key, text in build_annotations(verb, request).items()
    }:
        meta["annotations"] = annotations
    return {"metadata": meta, "spec": cr.get("spec") or {}, "status": cr.get("status") or {}}


def project_endpoints(obj: Json) -> CachedObject | None:
    """Return the names of the ready pods of an EndpointSlice, under its Service's name; None without a Service."""
    meta = obj["metadata"]
    service = (meta.get("labels") or {}).get(LABEL_SERVICE, "")
    ready = (one for one in obj.get("endpoints") or () if (one.get("conditions") or {}).get("ready") is not False)
    pods = frozenset(str((one.get("targetRef") or {}).get("name", "")) for one in ready)
    return CachedObject(meta["namespace"], meta["name"], meta["uid"], Endpoints(service, pods)) if service else None


def project_namespace(obj: Json) -> CachedObject:
    """Return a namespace's facts, tenant or not."""
    meta = obj["metadata"]
    labels = meta.get("labels") or {}
    facts = NamespaceFacts(
        name=meta["name"],
        uid=meta["uid"],
        is_tenant=labels.get(names.LABEL_TENANT) == "true",
        pod_security=labels.get(names.LABEL_POD_SECURITY, ""),
        is_terminating="deletionTimestamp" in meta,
        created_at=meta.get("creationTimestamp") or "",
        assigns_users=OPENSHIFT_USERS in (meta.get("annotations") or {}),
    )
    return build_cached_object(obj, facts)


def project_tenant(obj: Json) -> CachedObject:
    """Return an R1PlusTenant with what decides a pass, and the status that was last written."""
    meta = {key: obj["metadata"][key] for key in (*_OF_A_CR, "finalizers") if key in obj["metadata"]}
    del meta["resourceVersion"]  # Our own status moves it.
    return build_cached_object(
        obj, {"metadata": meta, "spec": obj.get("spec") or {}, "status": obj.get("status") or {}}
    )


@dataclass(frozen=True, slots=True)
class EngineObject:
    """An R1PlusEngine as it is in the cluster, and parsed."""

    live: Json
    engine: Engine | None
    """None if it does not validate, or is of kind embedding."""
    embedding: EmbeddingEngine | None = None
    """None if it does not validate, or answers prompts."""


def project_engine(obj: Json) -> CachedObject:
    """Return an engine of the catalog."""
    slim = {
        "metadata": {k: v for k, v in obj["metadata"].items() if k not in _BOOKKEEPING_FIELDS},
        "spec": obj.get("spec"),
    }
    live = {"apiVersion": names.API_VERSION, "kind": names.KIND_ENGINE, **slim}
    name = obj["metadata"]["name"]
    try:
        spec = read_spec(obj.get("spec") or {})
    except ValidationError:
        return build_cached_object(obj, EngineObject(live, None))
    if isinstance(spec, EmbeddingEngineSpec):
        return build_cached_object(obj, EngineObject(live, None, EmbeddingEngine(name, spec)))
    return build_cached_object(obj, EngineObject(live, Engine(name, spec)))
