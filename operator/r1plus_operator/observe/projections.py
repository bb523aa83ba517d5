"""What the stores keep of each kind: the few facts that a pass needs. Called by the reflectors, once per event.

A child keeps what we set and what drift is judged by; its status and its bookkeeping are let go, so that a Deployment
that merely counts its pods causes no pass.
"""

import contextlib
import ipaddress
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import ValidationError

from r1plus_contract import names
from r1plus_contract.requests import build_annotations, read_requests
from r1plus_contract.settings import SUITE_FILE
from r1plus_contract.suite import SuiteError
from r1plus_contract.suite_baseline import find_reference_result
from r1plus_contract.suite_check import check
from r1plus_contract.suite_files import SuiteFiles
from r1plus_contract.timestamps import parse_timestamp
from r1plus_model_repo.catalog.quantity import bytes_of, cores_of
from r1plus_model_repo.catalog.types import Engine, EngineSpec
from r1plus_operator.api import kinds
from r1plus_operator.api.tenants import Network
from r1plus_operator.observe.suite_signature import signer
from r1plus_operator.plan.manifests.drift import fold_texts
from r1plus_operator.plan.observation import (
    JOB_ENDED,
    REFUSED_PODS,
    ContainerFacts,
    Json,
    NamespaceFacts,
    NodeFacts,
    PodFacts,
    SuiteSource,
    Taint,
)
from r1plus_operator.plan.podspec.pod import hash_pod_spec, list_images
from r1plus_operator.plan.revision.refresh import Refresh, read_refresh
from r1plus_operator.plan.tenancy.volumes import COMPLETE, FAILED
from r1plus_operator.runtime.resources import Resource
from r1plus_policies.engine.hardware import UNKNOWN, WHOLE_GPU, Gpus

MOST_UID = 64
"""Characters of a uid: one that is longer is none."""
MOST_TOLD, MOST_CHARACTERS = 5, 400
"""Problems of a suite that a condition tells, and how much of each."""
LABEL_SERVICE = "kubernetes.io/service-name"
"""Of an EndpointSlice, by Kubernetes; the other labels are its Service's."""
_CONDITION_TAINTS = frozenset(
    f"node.kubernetes.io/{condition}" for condition in ("not-ready", "unreachable", "unschedulable")
)
"""Taints that repeat a node's condition or its cordon."""
OPENSHIFT_USERS = "openshift.io/sa.scc.uid-range"
"""Annotation of a namespace, by which OpenShift assigns users to its pods."""
_OF_A_CR = ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp")
_BOOKKEEPING = ("managedFields", "resourceVersion", "generation", "creationTimestamp")
_OURS = f"{names.GROUP}/"
"""How our annotations begin. Those of others decide nothing, may take 256 KiB of an object, and are not kept."""
MOST_LABELS = 64
"""Of an object: where it has more, those that are not ours are not kept, either."""
_REMEMBERS = frozenset({kinds.BY_KIND["ControllerRevision"].kind})
"""Kinds whose present state is not a consequence of anything else: of these the version is kept, too."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """To which pods a Service leads, by one of its EndpointSlices."""

    service: str
    pods: frozenset[str]


@dataclass(frozen=True, slots=True)
class Kept:
    """One stored object: identity for the store, `value` for the pass."""

    namespace: str
    name: str
    uid: str
    value: Any


def _kept(obj: Json, value: Any) -> Kept:
    meta = obj["metadata"]
    return Kept(meta.get("namespace", ""), meta["name"], meta["uid"], value)


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
    """uid of the R1PlusDeployment that controls it. None: somebody took the reference away, or it has none."""
    deleting: bool
    """Kept until it is gone, since its going is what must cause the pass that makes it anew."""
    text: bytes
    volume: str = ""
    """The volume for an engine that it is of: a revision that needs it, or what brings the engine there."""
    tenant: str = ""
    """The namespace of whose walls it is; empty: of none."""
    refresh: Refresh | None = None
    """Of a revision that a refresh or a wave began: which, and how it ended."""
    made_for: str = ""
    """Of a revision: uid of the R1PlusDeployment that its pods say they are of. Not its owner's, where it was orphaned
    and taken over by a namesake."""

    @property
    def live(self) -> Json:
        """The object, without status and bookkeeping, its long texts `drift.folded`."""
        return dict(orjson.loads(self.text))


def child(resource: Resource, obj: Json) -> Child:
    """What a pass needs of a child."""
    meta = obj["metadata"]
    slim = {key: value for key, value in obj.items() if key != "status"}
    slim["apiVersion"], slim["kind"] = resource.api_version, resource.kind
    slim["metadata"] = {key: value for key, value in meta.items() if key not in _BOOKKEEPING} | _markings(meta)
    if resource.kind in _REMEMBERS:
        slim["metadata"]["resourceVersion"] = meta["resourceVersion"]
    if refused := _refused_pods(obj):
        slim[REFUSED_PODS] = refused
    if ended := _job_ended(resource, obj):
        slim[JOB_ENDED] = ended
    owner, labels = controller(meta), meta.get("labels") or {}
    by_label = labels.get(names.LABEL_DEPLOYMENT)
    # What belongs to a deployment or a volume is not its namespace's, whatever somebody has written on it.
    is_tenants = names.LABEL_ISOLATION in labels and not owner and names.LABEL_VOLUME not in labels
    return Child(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        deployments=frozenset(name for name in (by_label, owner.get("name")) if name),
        label=by_label or "",
        owner=owner.get("uid"),
        deleting="deletionTimestamp" in meta,
        text=_exact(orjson.dumps(fold_texts(slim), option=orjson.OPT_SORT_KEYS)),
        volume=_volume(resource, obj),
        tenant=_tenant_of(meta) if is_tenants else "",
        refresh=read_refresh((meta.get("annotations") or {}).get(names.ANNOTATION_REFRESH)),
        made_for=_made_for(resource, obj),
    )


def _made_for(resource: Resource, obj: Json) -> str:
    """The note in a revision's template; empty where it has none that can be read."""
    if resource.kind != "ControllerRevision":
        return ""
    try:
        return str(obj["data"]["template"]["metadata"]["annotations"][names.ANNOTATION_OWNER_UID])
    except (KeyError, TypeError):
        return ""


def _markings(meta: Json) -> Json:
    """An object's annotations and labels, as far as they are kept."""
    notes = {key: value for key, value in (meta.get("annotations") or {}).items() if key.startswith(_OURS)}
    found: Json = {"annotations": notes} if "annotations" in meta else {}
    labels = meta.get("labels") or {}
    if len(labels) > MOST_LABELS:
        marks = (names.LABEL_MANAGED_BY, names.LABEL_NAME)
        found["labels"] = {key: value for key, value in labels.items() if key.startswith(_OURS) or key in marks}
    return found


def _tenant_of(meta: Json) -> str:
    """Whose walls it is of: of the prober's, those that it tries; else of its own namespace."""
    text = (meta.get("annotations") or {}).get(names.ANNOTATION_PROBED, "")
    with contextlib.suppress(orjson.JSONDecodeError, TypeError, KeyError):
        return str(orjson.loads(text)["namespace"])
    return str(meta["namespace"])


def _volume(resource: Resource, obj: Json) -> str:
    """By its label, or where it is a revision by what that keeps."""
    if resource.kind == "ControllerRevision":
        kept = (obj.get("data") or {}).get("volume")
        return str(kept.get("name", "")) if isinstance(kept, dict) else ""
    return str((obj["metadata"].get("labels") or {}).get(names.LABEL_VOLUME, ""))


def _job_ended(resource: Resource, obj: Json) -> Json:
    """How a Job ended and when; nothing while it goes on."""
    if resource.kind != "Job":
        return {}
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition["type"] in (COMPLETE, FAILED) and condition["status"] == "True":
            final = condition.get("reason") == "PodFailurePolicy"
            at = parse_timestamp(condition.get("lastTransitionTime", ""))
            return {"type": condition["type"], "at": at, "final": final}
    return {}


def _exact(text: bytes) -> bytes:
    """The same in memory of its own size: what orjson returns holds up to twelve times as much."""
    return bytes(memoryview(text))


def _refused_pods(obj: Json) -> str:
    """Why the API server lets a Deployment make no pods, in its words: a quota, Pod Security, an admission webhook."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next(
        (c.get("message", "") for c in conditions if (c["type"], c["status"]) == ("ReplicaFailure", "True")), ""
    )


def controller(meta: Json, kind: str = names.KIND_DEPLOYMENT) -> Json:
    """The owner reference of the controller, where that is of this kind; else nothing."""
    owners = meta.get("ownerReferences") or ()
    return next((o for o in owners if o.get("kind") == kind and o.get("controller")), {})


def deployment(cr: Json) -> Json:
    """An R1PlusDeployment: what decides a pass, and the status that was last written."""
    meta = {key: cr["metadata"][key] for key in _OF_A_CR if key in cr["metadata"]}
    requests = read_requests(cr["metadata"]).items()
    if asked := {key: text for verb, request in requests for key, text in build_annotations(verb, request).items()}:
        meta["annotations"] = asked
    return {"metadata": meta, "spec": cr.get("spec") or {}, "status": cr.get("status") or {}}


@dataclass(frozen=True, slots=True)
class ServingPod:
    """A serving pod and whose it is."""

    namespace: str
    name: str
    uid: str
    deployment: str
    """Empty: it fills a volume."""
    facts: PodFacts
    volume: str = ""
    probed: str = ""
    """The namespace whose walls it tries; empty: it is none of the prober's."""
    job: str = ""
    """uid of its controller, where that is a Job."""


def pod(obj: Json) -> ServingPod | None:
    """A serving pod's facts; None of a pod that has our mark alone, which anybody may give it."""
    meta, status = obj["metadata"], obj.get("status") or {}
    labels = meta.get("labels") or {}
    if not labels.keys() & {names.LABEL_DEPLOYMENT, names.LABEL_VOLUME, names.LABEL_PROBE}:
        return None
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled") or {}
    unschedulable = scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else ""
    ready = conditions.get("Ready") or {}
    is_ready = ready.get("status") == "True"
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    facts = PodFacts(
        name=meta["name"],
        revision=labels.get(names.LABEL_REVISION, ""),
        ip=status.get("podIP", ""),
        ready=is_ready,
        terminating=bool(meta.get("deletionTimestamp")),
        unschedulable=unschedulable,
        containers=tuple(_container(item) for item in statuses),
        replica_set=controller(meta, "ReplicaSet").get("name", ""),
        owner_uid=(meta.get("annotations") or {}).get(names.ANNOTATION_OWNER_UID, "")[:MOST_UID],
        fingerprint=hash_pod_spec(obj.get("spec") or {}),
        images=list_images(obj.get("spec") or {}),
        uid=meta["uid"],
        node=(obj.get("spec") or {}).get("nodeName", ""),
        quarantine=_quarantine(meta),
        failure_reason=_turned_away(status),
        unschedulable_since=parse_timestamp(scheduled.get("lastTransitionTime") or "") if unschedulable else None,
        grace_ends_at=parse_timestamp(meta.get("deletionTimestamp", "")),
        ready_since=parse_timestamp(ready.get("lastTransitionTime") or "") if is_ready else None,
    )
    probes = names.LABEL_PROBE in labels
    return ServingPod(
        meta["namespace"],
        meta["name"],
        meta["uid"],
        # The prober stands behind a deployment's walls, and is none of its pods.
        "" if probes else labels.get(names.LABEL_DEPLOYMENT, ""),
        facts,
        labels.get(names.LABEL_VOLUME, ""),
        _tenant_of(meta) if probes else "",
        controller(meta, "Job").get("uid", ""),
    )


def _turned_away(status: Json) -> str:
    """The kubelet's words on a pod as a whole: it had no device left for it, or had to have it gone."""
    if status.get("phase") != "Failed" or not status.get("reason"):
        return ""
    return f"{status['reason']}: {status.get('message', '')}"


def _quarantine(meta: Json) -> str | None:
    """What a quarantined pod's annotation says; empty where it is gone, None where the pod is in no quarantine."""
    if (meta.get("labels") or {}).get(names.LABEL_SERVING) != names.QUARANTINED:
        return None
    return str((meta.get("annotations") or {}).get(names.ANNOTATION_QUARANTINE, ""))


def _container(item: Json) -> ContainerFacts:
    state = item.get("state") or {}
    waiting = state.get("waiting") or {}
    ended = state.get("terminated") or (item.get("lastState") or {}).get("terminated") or {}
    return ContainerFacts(
        name=item["name"],
        ready=bool(item.get("ready")),
        waiting_reason=waiting.get("reason", ""),
        terminated_reason=ended.get("reason", ""),
        message=ended.get("message") or waiting.get("message") or "",
        exit_code=ended.get("exitCode"),
        # Of an image that was loaded rather than pulled a node says a digest of its own.
        image_digest=item.get("imageID", "").partition("@")[2],
    )


def node(obj: Json) -> Kept | None:
    """A node's allocatable memory and cores; None while it does not say them."""
    allocatable = (obj.get("status") or {}).get("allocatable") or {}
    with contextlib.suppress(KeyError, ValueError):
        facts = NodeFacts(
            name=obj["metadata"]["name"],
            memory_bytes=bytes_of(allocatable["memory"]),
            cores=cores_of(allocatable["cpu"]),
            labels=obj["metadata"].get("labels") or {},
            gpus=gpus_of(allocatable, obj["metadata"].get("labels") or {}),
            addresses=_addresses(obj),
            taints=_taints(obj),
            is_ready=_is_ready(obj),
            is_cordoned=bool((obj.get("spec") or {}).get("unschedulable")),
            storage_bytes=bytes_of(allocatable.get("ephemeral-storage", "0")) or None,
        )
        return _kept(obj, facts)
    return None


def _taints(obj: Json) -> tuple[Taint, ...]:
    """Return those that keep pods away, but for what `_is_ready` and the cordon say."""
    found = (Taint(t["key"], t.get("value", ""), t["effect"]) for t in (obj.get("spec") or {}).get("taints") or ())
    return tuple(t for t in found if t.effect in ("NoSchedule", "NoExecute") and t.key not in _CONDITION_TAINTS)


def _is_ready(obj: Json) -> bool:
    """Whether the node's kubelet says that it is Ready, or nobody says anything of it."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return all(c["status"] == "True" for c in conditions if c["type"] == "Ready")


def _addresses(obj: Json) -> tuple[str, ...]:
    """Those that can be read: a node may say anything. Bridged pods reach theirs at their network's first as well."""
    listed = (obj.get("status") or {}).get("addresses") or ()
    found = [a["address"] for a in listed if a["type"] in ("InternalIP", "ExternalIP") and _network(a["address"])]
    bridges = map(_network, (obj.get("spec") or {}).get("podCIDRs") or ())
    return (*found, *(str(next(iter(net.hosts()))) for net in bridges if net))


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def endpoints(obj: Json) -> Kept | None:
    """Return the names of the ready pods of an EndpointSlice, under its Service's name; None without a Service."""
    meta = obj["metadata"]
    service = (meta.get("labels") or {}).get(LABEL_SERVICE, "")
    ready = (one for one in obj.get("endpoints") or () if (one.get("conditions") or {}).get("ready") is not False)
    pods = frozenset(str((one.get("targetRef") or {}).get("name", "")) for one in ready)
    return Kept(meta["namespace"], meta["name"], meta["uid"], Endpoints(service, pods)) if service else None


def namespace(obj: Json) -> Kept:
    """A namespace as a tenant, or as none."""
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
    return _kept(obj, facts)


def tenant(obj: Json) -> Kept:
    """An R1PlusTenant: what decides a pass, and the status that was last written."""
    meta = {key: obj["metadata"][key] for key in (*_OF_A_CR, "finalizers") if key in obj["metadata"]}
    del meta["resourceVersion"]  # Our own status moves it.
    return _kept(obj, {"metadata": meta, "spec": obj.get("spec") or {}, "status": obj.get("status") or {}})


def gpus_of(allocatable: Json, labels: Json) -> tuple[Gpus, ...]:
    """A node's GPUs by kind, as the device plugin counts them and gpu-feature-discovery describes them.

    Whole GPUs and slices of strategy `single` are `nvidia.com/gpu`; slices of strategy `mixed` are a resource each.
    """
    found = []
    for resource, count in sorted(allocatable.items()):
        if not (resource == WHOLE_GPU or resource.startswith("nvidia.com/mig-")) or not str(count).isdigit():
            continue
        memory, product = labels.get(f"{resource}.memory", ""), labels.get(f"{resource}.product", "")
        major, minor = (labels.get(f"nvidia.com/gpu.compute.{part}", "") for part in ("major", "minor"))
        capability = (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None
        reported = int(memory) if memory.isdigit() else None
        if int(count) or product:
            # None of a product that the node bears the name of: its device plugin is away, and will be back.
            found.append(Gpus(product or UNKNOWN, int(count), reported, capability, resource))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class EngineObject:
    """An R1PlusEngine as it lies in the cluster, and read; `engine=None`: it does not validate and is not on offer."""

    live: Json
    engine: Engine | None


def engine(obj: Json) -> Kept:
    """An engine of the catalog."""
    slim = {"metadata": {k: v for k, v in obj["metadata"].items() if k not in _BOOKKEEPING}, "spec": obj.get("spec")}
    live = {"apiVersion": names.API_VERSION, "kind": names.KIND_ENGINE, **slim}
    try:
        read = Engine(obj["metadata"]["name"], EngineSpec.model_validate(obj.get("spec") or {}))
    except ValidationError:
        read = None
    return _kept(obj, EngineObject(live, read))


def suite_version(obj: Json) -> Kept:
    """Of a tenant's own golden suite that it is there, and in which version; the body is not looked at."""
    return _kept(obj, obj["metadata"]["resourceVersion"])


def suite(obj: Json) -> SuiteSource:
    """A tenant's own golden suite, from its ConfigMap."""
    return suite_source(obj["metadata"]["name"], SuiteFiles.of(obj.get("data") or {}))


def suite_source(name: str, files: SuiteFiles) -> SuiteSource:
    """A suite read, checked and its signature verified, or why it cannot be used."""
    found = check(files)
    problems = [*found.problems]
    signed_by = ""
    try:
        signed_by = signer(files) if found.suite else ""
    except SuiteError as error:
        problems.append(str(error))
    if found.suite and found.suite.header.name != name:
        # Else a ConfigMap could be exchanged for another signed suite, an easier one.
        told = f"{SUITE_FILE}: name: {found.suite.header.name:.80} is not {name}"
        problems.append(f"{told}; a suite must have the name of its ConfigMap or folder")
    if problems or found.suite is None:
        return SuiteSource(name, "", "", None, f"{name}: {_told(problems)}")
    return SuiteSource(
        name,
        files.header,
        files.items,
        found.suite,
        reference_text=files.reference,
        digest=files.digest(),
        signer=signed_by,
        reference_result=find_reference_result(files.baseline, found.suite.header) if files.baseline else None,
    )


def _told(problems: list[str]) -> str:
    """The first of them, since a condition is short."""
    more = len(problems) - MOST_TOLD
    rest = f"; and {more} more: r1plus suite verify lists all" if more > 0 else ""
    return "; ".join(problem[:MOST_CHARACTERS] for problem in problems[:MOST_TOLD]) + rest
