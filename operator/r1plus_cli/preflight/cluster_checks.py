"""Checks of the API server and of what is installed: version, rights, policies, storage, users, another r1plus."""

import re

from r1plus_cli.preflight.cluster_view import ClusterView
from r1plus_cli.preflight.outcome import ChartValue, CheckOutcome, fail, not_known, ok, warn

LEAST_VERSION = (1, 31)
"""The chart's kubeVersion."""
TESTED_VERSION = (1, 34)
POLICIES = "admissionregistration.k8s.io/v1/validatingadmissionpolicies"
ENFORCED, AUDITED = "Deny", "Audit"
"""Actions of a binding: its policy refuses what it does not allow, or lets it through with a line in the audit log."""
ALWAYS_ENFORCED = (
    *("-operator-reach", "-operator-pods", "-operator-templates", "-foreign-objects"),
    *("-train-jobs", "-gateway-pods", "-gateway-secrets", ".fence.r1plus.ai"),
)
"""Ends of the names of bindings that limit the operator itself: of no chart do they audit only."""
DEFAULT_CLASS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
UID_RANGE = "openshift.io/sa.scc.uid-range"
OPENSHIFT_USERS = "security.openshift.io/v1/securitycontextconstraints"
CLUSTER_NAMESPACES = ("openshift-", "istio-system", "cert-manager", "gatekeeper-system", "kyverno", "calico-", "cilium")
"""Starts of namespaces that a cluster cannot do without, beyond kube-*."""


def check_version(view: ClusterView) -> CheckOutcome:
    """Judge the version of Kubernetes."""
    text = str(view.version.get("gitVersion", ""))
    numbers = re.match(r"v?(\d+)\.(\d+)", text)
    if numbers is None:
        return warn(
            f"not known: {text or 'no version'}", f"compare it with {_format(LEAST_VERSION)}, the chart's least"
        )
    version = int(numbers[1]), int(numbers[2])
    if version < LEAST_VERSION:
        return fail(
            text, f"upgrade to {_format(LEAST_VERSION)} or newer; r1plus is tested on {_format(TESTED_VERSION)}"
        )
    return ok(text if version == TESTED_VERSION else f"{text}; tested on {_format(TESTED_VERSION)}")


def check_policies(view: ClusterView) -> CheckOutcome:
    """Judge whether the API server enforces admission policies, and r1plus' own where they are installed."""
    if POLICIES not in view.served:
        return fail("ValidatingAdmissionPolicy v1 is not served", "enable admissionregistration.k8s.io/v1")
    if view.policy_bindings is None:
        return ok("ValidatingAdmissionPolicy v1 is served")
    lax = {
        str(one["metadata"]["name"]): one["spec"].get("validationActions") or ()
        for one in view.policy_bindings
        if ENFORCED not in (one["spec"].get("validationActions") or ())
    }
    if lax and all(AUDITED in actions and not name.endswith(ALWAYS_ENFORCED) for name, actions in lax.items()):
        seen = f"{len(lax)} of {len(view.policy_bindings)} bindings of r1plus refuse nothing: admissionPolicy.action is"
        return warn(
            f"{seen} Audit", "set admissionPolicy.action: Deny once you have reviewed them, before tenants come"
        )
    if lax:
        remedy = "set admissionPolicy.enabled, and upgrade the chart; who edited these bindings may write verdicts"
        return fail(f"{len(lax)} bindings of r1plus refuse nothing: {', '.join(sorted(lax)[:3])}", remedy)
    installed = f"; {len(view.policy_bindings)} bindings of r1plus, all {ENFORCED}" if view.policy_bindings else ""
    return ok(f"ValidatingAdmissionPolicy v1 is served{installed}")


def check_rights(view: ClusterView) -> CheckOutcome:
    """Judge whether the user may do what helm does."""
    if not view.rights:
        return warn("not known: the API server answered no SelfSubjectAccessReview", "use an account of cluster-admin")
    missing = sorted(right.text for right, is_allowed in view.rights.items() if not is_allowed)
    if missing:
        listed = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        return fail(f"you may not {listed}", "install as a user with ClusterRole cluster-admin")
    return ok(f"all {len(view.rights)} that helm needs")


def check_releases(view: ClusterView) -> CheckOutcome:
    """Judge whether another release of r1plus is in the cluster."""
    if view.operators is None:
        return not_known("deployments of all namespaces")
    namespaces = sorted({str(one["metadata"]["namespace"]) for one in view.operators})
    others = [one for one in namespaces if one != view.namespace]
    if others:
        remedy = f"run preflight and helm upgrade with -n {others[0]}; two releases refuse each other's writes"
        return fail(f"r1plus is installed in {', '.join(namespaces)}", remedy)
    return ok(f"installed in {view.namespace}: helm upgrade goes on with it" if namespaces else "no other release")


def check_storage(view: ClusterView) -> CheckOutcome:
    """Judge whether volumes get a StorageClass."""
    if view.storage_classes is None:
        return not_known("storageclasses")
    names = sorted(str(one["metadata"]["name"]) for one in view.storage_classes)
    notes = [one["metadata"].get("annotations") or {} for one in view.storage_classes]
    if any(note.get(key) == "true" for note in notes for key in DEFAULT_CLASS):
        return ok(f"{len(names)} StorageClasses, with a default")
    if not names:
        off = ChartValue("registry.enabled", False, "no StorageClass gives the registry a volume")
        remedy = "install a StorageClass for the registry's record and for tenants' gateways, then set registry.enabled"
        return warn("no StorageClass", remedy, off)
    if len(names) == 1:
        reason = "the only StorageClass; it is not marked as the default"
        values = (ChartValue(f"{path}.className", names[0], reason) for path in ("registry.storage", "delivery.volume"))
        return warn(f"{names[0]} is not the default", f"mark it as the default: {_mark(names[0])}", *values)
    seen = f"none of {', '.join(names)} is the default"
    return fail(seen, f"mark one as the default, such as {_mark(names[0])}, or set registry.storage.className")


def check_users(view: ClusterView) -> CheckOutcome:
    """Judge whether the cluster assigns users to pods, as OpenShift does."""
    if view.namespaces is None:
        return not_known("namespaces")
    ranges = sum(UID_RANGE in (one["metadata"].get("annotations") or {}) for one in view.namespaces)
    if OPENSHIFT_USERS not in view.served and not ranges:
        return ok("pods may name their user")
    reason = "OpenShift assigns users from the namespace's range, and refuses others"
    values = (ChartValue(f"podSecurity.{field}", None, reason) for field in ("runAsUser", "runAsGroup", "fsGroup"))
    return ok(f"{ranges} namespaces have a range of users", *values)


def check_namespaces(view: ClusterView) -> CheckOutcome:
    """Judge which namespaces are to be reserved: those of the cluster's own services are never tenants."""
    if view.namespaces is None:
        return not_known("namespaces")
    names = sorted(str(one["metadata"]["name"]) for one in view.namespaces)
    reserved = [name for name in names if name.startswith(CLUSTER_NAMESPACES)]
    if not reserved:
        return ok(f"{len(names)} namespaces, none that is known as the cluster's own beyond kube-*")
    reason = "of the cluster's own services: they can be no tenants, and policies on pods leave them alone"
    return ok(
        f"{len(reserved)} of {len(names)} namespaces are the cluster's own",
        ChartValue("isolation.reservedNamespaces", reserved, reason),
    )


def _mark(name: str) -> str:
    return f"kubectl annotate storageclass {name} {DEFAULT_CLASS[0]}=true"


def _format(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
