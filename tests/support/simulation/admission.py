"""What the API server checks before it stores: namespaces, quotas, immutable fields, schemas, and a test's own policies."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from r1plus_operator.api import kinds
from r1plus_operator.runtime.errors import FieldCause
from r1plus_operator.runtime.resources import Resource
from support.simulation import refusals, schemas
from support.simulation.store import Record, Store
from support.simulation.traits import Traits

Object = dict[str, Any]
QUOTA = kinds.BY_KIND["ResourceQuota"]
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*").fullmatch
_NOT_CHECKED = FieldCause(
    "<nil>",
    "Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing"
    " errors to complete validation",
)
_LABEL_NAMES = frozenset({"namespaces", "services"})
_QUANTITY = re.compile(r"([0-9.]+)([a-zA-Z]*)").fullmatch
_UNITS = {
    "": 1.0,
    "m": 1e-3,
    **{unit: 1000.0 ** (power + 1) for power, unit in enumerate(("k", "M", "G", "T", "P"))},
    **{unit: 1024.0 ** (power + 1) for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi"))},
}
_CORE_COUNTS = frozenset(
    {"pods", "services", "configmaps", "secrets", "persistentvolumeclaims", "resourcequotas", "replicationcontrollers"}
)


@dataclass(frozen=True, slots=True)
class Write:
    """A write before it is stored. `operation`: CREATE, UPDATE or DELETE."""

    operation: str
    resource: Resource
    subresource: str
    user: str
    before: Object | None
    after: Object | None


class Policy(Protocol):
    """A rule of the cluster's: a test's stand-in for a ValidatingAdmissionPolicy."""

    def __call__(self, write: Write) -> str | None:
        """Return why the write is refused (403), or None."""


def check_name(traits: Traits, name: str) -> list[FieldCause]:
    """Return the fault of an object's name."""
    longest = 63 if traits.resource.plural in _LABEL_NAMES else 253
    if name and len(name) <= longest and _NAME(name) and not (longest == 63 and "." in name):
        return []
    text = f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters'
    return [FieldCause("metadata.name", text if name else "Required value: name or generateName is required")]


def check_metadata(obj: Object) -> list[FieldCause]:
    """Return the faults of an object's owner references."""
    controllers = [one for one in obj["metadata"].get("ownerReferences") or () if one.get("controller")]
    if len(controllers) < 2:
        return []
    text = "Invalid value: Only one reference can have Controller set to true"
    return [FieldCause("metadata.ownerReferences", text)]


def check_immutable(traits: Traits, before: Object, after: Object) -> list[FieldCause]:
    """Return each field that an update may not change."""
    faults = []
    for path in traits.immutable:
        if _read(before, path) != _read(after, path):
            faults.append(FieldCause(".".join(path), f"Invalid value: {_read(after, path)!r}: field is immutable"))
    if traits.resource == kinds.CONFIG_MAP and before.get("immutable"):
        faults += [
            FieldCause(name, "Forbidden: field is immutable when `immutable` is set")
            for name in ("data", "binaryData", "immutable")
            if before.get(name) != after.get(name)
        ]
    return faults


def _read(obj: Any, path: tuple[str, ...]) -> Any:
    for step in path:
        obj = (obj or {}).get(step)
    return obj


def check_schema(traits: Traits, obj: Object) -> list[FieldCause]:
    """Return every fault of a custom resource by its definition; of a built-in kind those that tests rely on."""
    if traits.schema is not None:
        properties = traits.schema.get("properties") or {}
        checked = {name: value for name, value in obj.items() if name != "metadata" and name in properties}
        faults = schemas.find_faults(checked, traits.schema, "")
        return [*faults, _NOT_CHECKED] if any(map(_keeps_rules_from_checking, faults)) else faults
    spec = obj.get("spec")
    if traits.resource.kind == "Service" and not obj["spec"].get("ports") and obj["spec"].get("clusterIP") != "None":
        return [FieldCause("spec.ports", "Required value")]
    replicas = spec.get("replicas") if isinstance(spec, dict) else None
    if isinstance(replicas, int) and replicas < 0:
        text = f"Invalid value: {replicas}: must be greater than or equal to 0"
        return [FieldCause("spec.replicas", text)]
    return []


def _keeps_rules_from_checking(fault: FieldCause) -> bool:
    """Whether a fault is of those after which the API server evaluates no CEL rule."""
    text = fault.message
    return text.startswith(("Required", "Unsupported", "Too long", "Too many")) or "must be of type" in text


def check_namespace(store: Store, resource: Resource, obj: Object) -> None:
    """Refuse to create in a namespace that is not there, or that is being deleted."""
    if not resource.is_namespaced:
        return
    namespace = obj["metadata"]["namespace"]
    record = store.get(kinds.NAMESPACE, ("", namespace))
    if record is None:
        raise refusals.not_found(kinds.NAMESPACE, namespace)
    if "deletionTimestamp" in record.obj["metadata"]:
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        cause = FieldCause("metadata.namespace", f"namespace {namespace} is being terminated")
        raise refusals.forbidden(resource, obj["metadata"]["name"], why, [cause])


def check_quota(store: Store, resource: Resource, before: Object | None, obj: Object) -> list[tuple[Record, Object]]:
    """Return each quota that counts a new object, with what it has used then.

    Raises:
        ForbiddenError: a quota would be exceeded.
    """
    charged = []
    for quota in store.list_records(QUOTA, obj["metadata"].get("namespace")):
        hard = quota.obj["spec"].get("hard") or {}
        asked = _subtract(_measure(resource, obj, hard), _measure(resource, before, hard) if before else {})
        if not asked:
            continue
        used = measure_used(store, quota.obj)
        beyond = [
            name for name, amount in asked.items() if amount > 0 and used[name] + amount > parse_quantity(hard[name])
        ]
        if beyond:
            amounts = (
                ("requested", asked),
                ("used", used),
                ("limited", {name: parse_quantity(hard[name]) for name in beyond}),
            )
            text = ", ".join(f"{word}: " + ",".join(f"{n}={_format(of[n])}" for n in beyond) for word, of in amounts)
            name = obj["metadata"].get("name", "")
            raise refusals.forbidden(resource, name, f"exceeded quota: {quota.obj['metadata']['name']}, {text}")
        total = {name: _format(used[name] + asked.get(name, 0.0)) for name in hard}
        charged.append((quota, {"hard": hard, "used": total}))
    return charged


def measure_used(store: Store, quota: Object) -> dict[str, float]:
    """Return what a quota's namespace uses of each thing that it limits."""
    hard = quota["spec"].get("hard") or {}
    used = dict.fromkeys(hard, 0.0)
    for resource, record in store.list_namespace(quota["metadata"]["namespace"]):
        for name, amount in _measure(resource, record.obj, hard).items():
            used[name] += amount
    return used


def _subtract(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {name: amount - other.get(name, 0.0) for name, amount in one.items() if amount != other.get(name, 0.0)}


def _measure(resource: Resource, obj: Object, hard: Object) -> dict[str, float]:
    """Return what one object takes of a quota."""
    counts = (
        {f"count/{resource.name}", resource.plural} if resource.plural in _CORE_COUNTS else {f"count/{resource.name}"}
    )
    if resource == kinds.POD and (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        counts.discard("pods")
    measured = {name: 1.0 for name in counts if name in hard}
    if resource == kinds.POD and "pods" in counts:
        measured |= _measure_pod(obj, hard)
    if resource.kind == "PersistentVolumeClaim" and "requests.storage" in hard:
        measured["requests.storage"] = parse_quantity(_read(obj, ("spec", "resources", "requests", "storage")) or "0")
    return measured


def _measure_pod(pod: Object, hard: Object) -> dict[str, float]:
    measured = {}
    for name in hard:
        of, _, what = name.rpartition(".") if name.startswith(("requests.", "limits.")) else ("requests", "", name)
        if name.startswith(("requests.", "limits.")):
            of, what = name.split(".", 1)
        elif name not in ("cpu", "memory"):
            continue
        amounts = [
            parse_quantity(str(((container.get("resources") or {}).get(of) or {}).get(what, "0")))
            for container in pod["spec"].get("containers") or ()
        ]
        if total := math.fsum(amounts):
            measured[name] = total
    return measured


def parse_quantity(text: str) -> float:
    """Return the number that a quantity such as `500m` or `2Gi` is."""
    found = _QUANTITY(str(text))
    if found is None:
        raise ValueError(f"{text}: is no quantity")
    return float(found[1]) * _UNITS[found[2]]


def _format(amount: float) -> str:
    return str(int(amount)) if float(amount).is_integer() else f"{round(amount * 1000)}m"


Admit = Callable[[Write], None]
