"""Defaults and omissions of built-in kinds, in place: what the product's objects look like once they are stored."""

from typing import Any

Object = dict[str, Any]
_MAPS = frozenset(
    {"labels", "annotations", "data", "binaryData", "matchLabels", "nodeSelector", "limits", "requests", "hard"}
)
"""Maps of texts: dropped where they are empty, and their values stay as they are."""
_OMITTED_ZEROS = frozenset(
    {
        *("observedGeneration", "readyReplicas", "availableReplicas", "updatedReplicas", "unavailableReplicas"),
        *("fullyLabeledReplicas", "terminatingReplicas", "active", "succeeded", "failed"),
    }
)
CLAIM_IN_USE = "kubernetes.io/pvc-protection"
_LITERAL = _MAPS | {"managedFields"}


def drop_empty(obj: Object, live: Object | None, *, is_revision: bool = False) -> Object:
    """Return a built-in object without null, empty texts, lists and maps of optional fields.

    Parts that are those of `live` are not looked at. A ControllerRevision's data is no field of Kubernetes': it stays.
    """
    before = live or {}
    result = {
        name: child if is_revision and name == "data" else _drop(name, child, before.get(name))
        for name, child in obj.items()
        if child is not None and not (child == {} and name in _MAPS and not is_revision)
    }
    if isinstance(status := result.get("status"), dict) and status is not before.get("status"):
        result["status"] = _drop_zeros(status, is_deployment=obj["kind"] == "Deployment")
    return result


def _drop_zeros(status: Object, *, is_deployment: bool) -> Object:
    """Return a status without the counts that are left out where they are 0."""
    dropped = {*_OMITTED_ZEROS, "replicas"} if is_deployment else _OMITTED_ZEROS
    return {name: value for name, value in status.items() if value != 0 or value is False or name not in dropped}


def drop_empty_metadata(meta: Object, live: Object | None) -> Object:
    """Return metadata of any kind without what is empty."""
    result: Object = _drop("metadata", meta, live)
    return result


def _drop(name: str, value: Any, live: Any) -> Any:
    if value is live or name in _LITERAL:
        return value
    if isinstance(value, dict):
        before = live if isinstance(live, dict) else {}
        result = {
            key: _drop(key, child, before.get(key))
            for key, child in value.items()
            if not (child is None or child == "" or child == [] or (child == {} and key in _MAPS))
        }
        return result if len(result) != len(value) or any(result[key] is not value[key] for key in result) else value
    if isinstance(value, list):
        before_items = live if isinstance(live, list) and len(live) == len(value) else [None] * len(value)
        items = [
            _drop(name, item, before) if isinstance(item, dict) else item
            for item, before in zip(value, before_items, strict=True)
        ]
        return value if all(one is other for one, other in zip(items, value, strict=True)) else items
    return value


def default_namespace(obj: Object) -> None:
    """Mark a namespace as Kubernetes does."""
    obj["metadata"].setdefault("labels", {}).setdefault("kubernetes.io/metadata.name", obj["metadata"]["name"])
    obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    obj.setdefault("status", {}).setdefault("phase", "Active")


def default_pod(obj: Object) -> None:
    """Fill in a pod's."""
    _default_pod_spec(obj["spec"], "Always")
    obj.setdefault("status", {}).setdefault("phase", "Pending")
    obj["spec"].setdefault("enableServiceLinks", True)


def default_deployment(obj: Object) -> None:
    """Fill in a Deployment's."""
    spec = obj["spec"]
    _default_template(spec, "Always")
    spec.setdefault("replicas", 1)
    strategy = spec.setdefault("strategy", {})
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    obj.setdefault("status", {})


def default_replica_set(obj: Object) -> None:
    """Fill in a ReplicaSet's."""
    _default_template(obj["spec"], "Always")
    obj["spec"].setdefault("replicas", 1)
    obj.setdefault("status", {}).setdefault("replicas", 0)


def default_job(obj: Object) -> None:
    """Fill in a Job's; its selector and its pods' labels name it."""
    spec = obj["spec"]
    _default_template(spec, "Never")
    for name, value in (("parallelism", 1), ("completions", 1), ("backoffLimit", 6), ("completionMode", "NonIndexed")):
        spec.setdefault(name, value)
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed")
    uid = obj["metadata"].get("uid", "")
    spec.setdefault("selector", {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}})
    labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    for prefix in ("", "batch.kubernetes.io/"):
        labels.setdefault(f"{prefix}controller-uid", uid)
        labels.setdefault(f"{prefix}job-name", obj["metadata"]["name"])
    obj.setdefault("status", {})


def default_service(obj: Object) -> None:
    """Fill in a Service's; its addresses are none of a cluster's."""
    spec = obj["spec"]
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])
    if spec.get("selector") == {}:
        del spec["selector"]
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    spec.setdefault("internalTrafficPolicy", "Cluster")
    spec.setdefault("ipFamilies", ["IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    address = spec.setdefault("clusterIP", "10.96.0.10")
    spec.setdefault("clusterIPs", [address])
    if spec.get("publishNotReadyAddresses") is False:
        del spec["publishNotReadyAddresses"]
    obj.setdefault("status", {}).setdefault("loadBalancer", {})


def default_network_policy(obj: Object) -> None:
    """Fill in a NetworkPolicy's."""
    spec = obj["spec"]
    for rule in (*(spec.get("ingress") or ()), *(spec.get("egress") or ())):
        for port in rule.get("ports") or ():
            port.setdefault("protocol", "TCP")
    spec.setdefault("policyTypes", ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])


def default_claim(obj: Object) -> None:
    """Fill in a PersistentVolumeClaim's. Its finalizer keeps it while a pod uses it."""
    if "resourceVersion" not in obj["metadata"]:
        finalizers = obj["metadata"].get("finalizers") or []
        if CLAIM_IN_USE not in finalizers:
            obj["metadata"]["finalizers"] = [*finalizers, CLAIM_IN_USE]
    obj["spec"].setdefault("volumeMode", "Filesystem")
    obj.setdefault("status", {}).setdefault("phase", "Pending")


def default_role_binding(obj: Object) -> None:
    """Fill in a RoleBinding's."""
    for subject in obj.get("subjects") or ():
        if subject["kind"] != "ServiceAccount":
            subject.setdefault("apiGroup", "rbac.authorization.k8s.io")


def default_budget(obj: Object) -> None:
    """Fill in a PodDisruptionBudget's counts."""
    status = obj.setdefault("status", {})
    for name in ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"):
        status.setdefault(name, 0)


def default_quota(obj: Object) -> None:
    """Fill in a ResourceQuota's status, which is written later."""
    obj.setdefault("status", {})


def default_event(obj: Object) -> None:
    """Fill in an Event's."""
    obj.setdefault("source", {})
    obj.setdefault("reportingComponent", "")
    obj.setdefault("reportingInstance", "")


def _default_template(spec: Object, restart_policy: str) -> None:
    _default_pod_spec(spec["template"].setdefault("spec", {}), restart_policy)


def _default_pod_spec(spec: Object, restart_policy: str) -> None:
    spec.setdefault("restartPolicy", restart_policy)
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    if "serviceAccountName" in spec:
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        _default_container(container)
    for volume in spec.get("volumes") or ():
        _default_volume(volume)


def _default_container(container: Object) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    image = container.get("image", "")
    is_latest = ("@" not in image and ":" not in image.rpartition("/")[2]) or image.endswith(":latest")
    container.setdefault("imagePullPolicy", "Always" if is_latest else "IfNotPresent")
    container.setdefault("resources", {})
    requests, limits = container["resources"].get("requests"), container["resources"].get("limits")
    if limits:
        container["resources"]["requests"] = {**limits, **(requests or {})}
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    for item in container.get("env") or ():
        reference = (item.get("valueFrom") or {}).get("fieldRef")
        if reference is not None:
            reference.setdefault("apiVersion", "v1")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in container:
            _default_probe(container[name])


def _default_probe(probe: Object) -> None:
    for name, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        probe.setdefault(name, value)
    if "httpGet" in probe:
        probe["httpGet"].setdefault("path", "/")
        probe["httpGet"].setdefault("scheme", "HTTP")


def _default_volume(volume: Object) -> None:
    for name in ("configMap", "secret", "downwardAPI", "projected"):
        if name in volume:
            volume[name].setdefault("defaultMode", 420)
    for source in (volume.get("downwardAPI"), *((volume.get("projected") or {}).get("sources") or ())):
        for item in ((source or {}).get("downwardAPI") or source or {}).get("items") or ():
            if "fieldRef" in item:
                item["fieldRef"].setdefault("apiVersion", "v1")
