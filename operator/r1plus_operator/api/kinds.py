"""The kinds this operator reads and writes, as the API server serves them."""

from r1plus_contract import names
from r1plus_operator.runtime.resources import Resource

DEPLOYMENTS_PLURAL = "r1plusdeployments"
ENGINES_PLURAL = "r1plusengines"
TENANTS_PLURAL = "r1plustenants"

R1PLUS_DEPLOYMENT = Resource(names.GROUP, names.VERSION, DEPLOYMENTS_PLURAL, names.KIND_DEPLOYMENT)
R1PLUS_ENGINE = Resource(names.GROUP, names.VERSION, ENGINES_PLURAL, names.KIND_ENGINE, is_namespaced=False)
R1PLUS_TENANT = Resource(names.GROUP, names.VERSION, TENANTS_PLURAL, names.KIND_TENANT)
NAMESPACE = Resource("", "v1", "namespaces", "Namespace", is_namespaced=False)
POD = Resource("", "v1", "pods", "Pod")
NODE = Resource("", "v1", "nodes", "Node", is_namespaced=False)
ENDPOINT_SLICE = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
EVENT = Resource("", "v1", "events", "Event")
CONFIG_MAP = Resource("", "v1", "configmaps", "ConfigMap")

REQUIRED_CHILDREN = (
    CONFIG_MAP,
    Resource("", "v1", "serviceaccounts", "ServiceAccount"),
    Resource("", "v1", "services", "Service"),
    Resource("apps", "v1", "controllerrevisions", "ControllerRevision"),
    Resource("apps", "v1", "deployments", "Deployment"),
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"),
)
"""Every child that a deployment always has."""

VOLUME_PARTS = (
    Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim"),
    Resource("batch", "v1", "jobs", "Job"),
)
"""With a ConfigMap and a NetworkPolicy, what fetches an engine to a volume: of a namespace, not of one deployment."""

OPTIONAL_CHILDREN = (
    Resource("monitoring.coreos.com", "v1", "podmonitors", "PodMonitor"),
    Resource("monitoring.coreos.com", "v1", "prometheusrules", "PrometheusRule"),
)
"""Children that exist only where prometheus-operator's CRDs are installed."""

TRAIN_JOB = Resource(names.GROUP_TRAINER, "v1alpha1", "trainjobs", names.KIND_TRAIN_JOB)
"""What trains an engine on several machines, where the chart's trainJobs.enabled grants the right to it."""

TENANT_PARTS = (
    Resource("", "v1", "resourcequotas", "ResourceQuota"),
    Resource("", "v1", "limitranges", "LimitRange"),
    Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
)
"""With NetworkPolicies, Jobs and a ServiceAccount, what a namespace has as a tenant."""

DELETED_KINDS = frozenset(
    {
        *("configmaps", "controllerrevisions", "deployments"),  # Of revisions that are over.
        *("persistentvolumeclaims", "jobs", "trainjobs", "networkpolicies"),  # Of volumes and isolation tests.
        *("resourcequotas", "limitranges", "rolebindings"),  # Of an R1PlusTenant that grants less, or is deleted.
        *("services", "poddisruptionbudgets", "podmonitors"),  # Of a gateway that is switched off.
    }
)
"""Kinds of children (plurals) that the operator itself deletes; the others go with their owner or their namespace."""
CHILDREN = (*REQUIRED_CHILDREN, *VOLUME_PARTS, *OPTIONAL_CHILDREN, *TENANT_PARTS)
BY_KIND = {
    resource.kind: resource
    for resource in (*CHILDREN, TRAIN_JOB, R1PLUS_ENGINE, R1PLUS_DEPLOYMENT, R1PLUS_TENANT, POD, EVENT)
}
