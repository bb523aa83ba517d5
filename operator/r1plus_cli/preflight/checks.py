"""All checks in the order in which they are shown, and what an installation needs the user to be allowed."""

from collections.abc import Iterable

from r1plus_cli.preflight.cluster_checks import (
    check_namespaces,
    check_policies,
    check_releases,
    check_rights,
    check_storage,
    check_users,
    check_version,
)
from r1plus_cli.preflight.cluster_view import AccessRight, ClusterView
from r1plus_cli.preflight.monitoring_checks import KINDS, check_prometheus, check_prometheus_operator
from r1plus_cli.preflight.network_checks import check_api_ports, check_dns
from r1plus_cli.preflight.node_checks import check_capacity, check_instructions, check_platform
from r1plus_cli.preflight.outcome import CheckLevel, CheckOutcome, ClusterCheck

CHECKS = (
    ClusterCheck("Kubernetes", "the CRDs' rules and the admission policies need this version", check_version),
    ClusterCheck(
        "admission", "only these policies keep tenants from writing verdicts and network rules", check_policies
    ),
    ClusterCheck("rights", "helm makes these objects with your rights", check_rights),
    ClusterCheck("releases", "a cluster has one r1plus: each refuses the other's writes", check_releases),
    ClusterCheck("nodes", "images and engines are built for one platform", check_platform),
    ClusterCheck("AVX2", "engines on CPU use its instructions, and end without them", check_instructions),
    ClusterCheck("capacity", "a revision waits as NoNodeFits until a node has room for its engine", check_capacity),
    ClusterCheck("storage", "the registry's record and tenants' gateways are on volumes", check_storage),
    ClusterCheck("DNS", "network policies let pods reach DNS by these labels only", check_dns),
    ClusterCheck("API server", "the operator's own network policy lets it reach these ports only", check_api_ports),
    ClusterCheck("alerts", "without prometheus-operator no alert fires when accuracy falls", check_prometheus_operator),
    ClusterCheck("Prometheus", "it must be let in to scrape, and must select tenants' rules", check_prometheus),
    ClusterCheck("users", "a cluster that assigns users refuses pods that name one", check_users),
    ClusterCheck("namespaces", "what the cluster depends on can be no tenant", check_namespaces),
)

_CLUSTER_WIDE = (
    AccessRight("", "namespaces", is_namespaced=False),
    AccessRight("apiextensions.k8s.io", "customresourcedefinitions", is_namespaced=False),
    AccessRight("rbac.authorization.k8s.io", "clusterroles", is_namespaced=False),
    AccessRight("rbac.authorization.k8s.io", "clusterroles", "escalate", is_namespaced=False),
    AccessRight("rbac.authorization.k8s.io", "clusterroles", "bind", is_namespaced=False),
    AccessRight("rbac.authorization.k8s.io", "clusterrolebindings", is_namespaced=False),
    AccessRight("admissionregistration.k8s.io", "validatingadmissionpolicies", is_namespaced=False),
    AccessRight("admissionregistration.k8s.io", "validatingadmissionpolicybindings", is_namespaced=False),
)
_NAMESPACED = (
    *(AccessRight("", plural) for plural in ("serviceaccounts", "configmaps", "secrets", "services")),
    *(AccessRight("", plural) for plural in ("persistentvolumeclaims", "pods")),
    *(AccessRight("apps", plural) for plural in ("deployments", "statefulsets")),
    AccessRight("batch", "jobs"),
    AccessRight("policy", "poddisruptionbudgets"),
    AccessRight("networking.k8s.io", "networkpolicies"),
    *(AccessRight("rbac.authorization.k8s.io", plural) for plural in ("roles", "rolebindings")),
)


def list_rights(served: Iterable[str]) -> tuple[AccessRight, ...]:
    """Return what helm does with the chart on a cluster that serves these kinds."""
    optional = (kind.split("/") for kind in KINDS if kind in served)
    monitoring = tuple(AccessRight(group, plural) for group, _, plural in optional)
    return (*_CLUSTER_WIDE, *_NAMESPACED, *monitoring)


def run_checks(view: ClusterView) -> list[tuple[ClusterCheck, CheckOutcome]]:
    """Return each check with what it says."""
    return [(check, check.judge(view)) for check in CHECKS]


def find_worst(outcomes: Iterable[CheckOutcome]) -> CheckLevel:
    """Return the level of the worst outcome."""
    order = list(CheckLevel)
    return max((outcome.level for outcome in outcomes), key=order.index, default=CheckLevel.OK)
