"""Of the chart's admission policies those on which a promise rests, as functions: `SimulatedApiServer.policies` takes them.

charts/r1plus-operator/templates/admission-policies.yaml has the policies, and tests/apiserver tries them.
"""

from typing import Any

from r1plus_contract import names
from r1plus_operator.api import kinds
from support.simulation.admission import Policy, Write

Object = dict[str, Any]
_CHILDREN = frozenset((*kinds.CHILDREN, kinds.TRAIN_JOB))
_BODY = ("spec", "data", "binaryData", "immutable", "revision", "automountServiceAccountToken", "roleRef", "subjects")
_OPENED_BY_PAUSE = frozenset(kinds.BY_KIND[kind] for kind in ("Deployment", "Service", "PodDisruptionBudget"))
_CLAIM = kinds.BY_KIND["PersistentVolumeClaim"]
_CONTROLLERS = ("system:serviceaccount:kube-system:", "system:kube-controller-manager")
_PREFIXES = (f"{names.GROUP}/", "service.kubernetes.io/")


def build_policies(operator: str, platform: frozenset[str] = frozenset()) -> list[Policy]:
    """Return the policies for an operator of this user name; `platform`: users who may update R1PlusTenants."""
    return [
        lambda write: refuse_changed_child(write, operator, platform),
        lambda write: refuse_foreign_object(write, operator),
    ]


def refuse_changed_child(write: Write, operator: str, platform: frozenset[str]) -> str | None:
    """Refuse what others than the operator would change of its children; to delete one is nobody's harm."""
    if write.resource not in _CHILDREN or write.user == operator or write.user.startswith(_CONTROLLERS):
        return None
    if write.operation == "DELETE" or not (_is_ours(write.before) or _is_ours(write.after)):
        return None
    if write.before is None or not _is_ours(write.before):
        return f"metadata.labels[{names.LABEL_MANAGED_BY}]: only the operator sets the value {names.MANAGED_BY}"
    assert write.after is not None
    if write.subresource == "status":
        may_write = write.resource == _CLAIM or write.user in platform
        return None if may_write else "status: Kubernetes writes it, or the platform team"
    if changed := _list_changed(write, platform):
        return f"{', '.join(changed)}: belongs to the operator, and only it changes this"
    if _select_markings(write.before) != _select_markings(write.after):
        return "belongs to the operator, and only it changes its owner, labels and annotations of its own"
    has_finalizers_changed = _read_meta(write.before, "finalizers") != _read_meta(write.after, "finalizers")
    if has_finalizers_changed and write.resource != _CLAIM:
        return "metadata.finalizers: belongs to the operator, and only it may delay its deletion"
    return None


def refuse_foreign_object(write: Write, operator: str) -> str | None:
    """Refuse the operator to overwrite or delete an object that is neither marked nor controlled as its own."""
    if write.user != operator or write.resource not in _CHILDREN or write.before is None or write.subresource:
        return None
    owners = _read_meta(write.before, "ownerReferences") or []
    is_controlled = any(one.get("controller") and one["kind"] == names.KIND_DEPLOYMENT for one in owners)
    if _is_ours(write.before) or is_controlled:
        return None
    return f"the object exists without the label {names.LABEL_MANAGED_BY}={names.MANAGED_BY}"


def _list_changed(write: Write, platform: frozenset[str]) -> list[str]:
    """Return the fields of the body that a write changes, though only the operator may."""
    assert write.before is not None
    assert write.after is not None
    is_paused = (_read_meta(write.before, "labels") or {}).get(names.LABEL_PAUSED) == "true"
    is_open = is_paused and write.resource in _OPENED_BY_PAUSE and write.user in platform
    if is_open or write.resource == _CLAIM:
        return []
    return [name for name in _BODY if write.before.get(name) != write.after.get(name)]


def _is_ours(obj: Object | None) -> bool:
    labels = (_read_meta(obj, "labels") if obj is not None else None) or {}
    return bool(labels.get(names.LABEL_MANAGED_BY) == names.MANAGED_BY)


def _select_markings(obj: Object) -> tuple[Any, Object, Object]:
    """Return an object's owners, and those of its labels and annotations that are the operator's."""
    labels, annotations = (
        {key: value for key, value in (_read_meta(obj, name) or {}).items() if key.startswith(_PREFIXES)}
        for name in ("labels", "annotations")
    )
    mark = (_read_meta(obj, "labels") or {}).get(names.LABEL_MANAGED_BY)
    return _read_meta(obj, "ownerReferences"), {**labels, "": mark}, annotations


def _read_meta(obj: Object, name: str) -> Any:
    return obj["metadata"].get(name)
