"""Rights of the operator and of the chart's CRD hook: one table, no wildcard, each row with its reason.

`generate` writes the chart's roles from it. The children's rows come from `kinds`, so a new kind of child cannot be
forgotten. Reading and writing a Secret is in no row; a serving pod has no rights at all.
"""

from dataclasses import dataclass

from r1plus_contract import names
from r1plus_operator.api import crd, kinds
from r1plus_operator.api.schema import Json
from r1plus_operator.runtime.lease import LEASE
from r1plus_operator.runtime.resources import Resource

TOKEN_ISSUER_URLS = ("/.well-known/openid-configuration", "/openid/v1/jwks")


@dataclass(frozen=True, slots=True)
class RbacGrant:
    """Verbs on kinds of one API group, or on URLs; `names` narrows it to objects of these names."""

    why: str
    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    """Instead of kinds: paths of the API server that are no objects."""

    def build_rule(self) -> Json:
        """Build the rule as a role lists it."""
        if self.urls:
            return {"nonResourceURLs": list(self.urls), "verbs": list(self.verbs)}
        rule: Json = {"apiGroups": [self.group], "resources": list(self.resources), "verbs": list(self.verbs)}
        return rule | {"resourceNames": list(self.names)} if self.names else rule


_CACHE_VERBS = ("list", "watch")
_APPLY_VERBS = ("create", "patch")
"""Server-side apply is a patch; if the object is absent, the API server requires `create` as well."""


def list_operator_grants() -> tuple[RbacGrant, ...]:
    """Return what the operator needs in every namespace."""
    return (
        *_list_custom_resource_grants(),
        _grant_on("See which namespaces are tenants, and their Pod Security labels", kinds.NAMESPACE, _CACHE_VERBS),
        *(
            RbacGrant(
                "Apply the children of a deployment and the objects of a tenant",
                group,
                resources,
                (*_CACHE_VERBS, *_APPLY_VERBS),
            )
            for group, resources in _group_children()
        ),
        *(
            RbacGrant(
                "Delete those that are no longer needed; restore removed owner references, for which"
                " OwnerReferencesPermissionEnforcement requires this right",
                group,
                resources,
                ("delete",),
            )
            for group, resources in _group_children()
        ),
        RbacGrant(
            "Bind these roles and no others; `escalate` and their own rights are not needed",
            "rbac.authorization.k8s.io",
            ("clusterroles",),
            ("bind",),
            names=(names.ROLE_TENANT_ADMIN, names.ROLE_TENANT_VIEWER, names.ROLE_REGISTRY_READER),
        ),
        _grant_on(
            "Watch serving pods; label a bad one out of traffic, and delete it later",
            kinds.POD,
            (*_CACHE_VERBS, "patch", "delete"),
        ),
        _grant_on("See whether a Service routes to the pods that it selects", kinds.ENDPOINT_SLICE, _CACHE_VERBS),
        _grant_on("Read the capacity of nodes", kinds.NODE, _CACHE_VERBS),
        _grant_on("Report Events to the tenant", kinds.EVENT, _APPLY_VERBS),
        RbacGrant(
            "Read the issuer and keys of ServiceAccount tokens, for tenants' gateways",
            "",
            (),
            ("get",),
            urls=TOKEN_ISSUER_URLS,
        ),
    )


def _list_custom_resource_grants() -> tuple[RbacGrant, ...]:
    """Return what the operator needs of the project's own kinds."""
    deployments, engines, tenants = kinds.R1PLUS_DEPLOYMENT, kinds.R1PLUS_ENGINE, kinds.R1PLUS_TENANT
    return (
        _grant_on("Read the deployments", deployments, _CACHE_VERBS),
        RbacGrant("Write their status", deployments.group, (f"{deployments.plural}/status",), ("patch",)),
        RbacGrant(
            "Set blockOwnerDeletion in owner references; OwnerReferencesPermissionEnforcement requires it",
            deployments.group,
            (f"{deployments.plural}/finalizers",),
            ("update",),
        ),
        _grant_on("Apply and repair the shipped catalog", engines, (*_CACHE_VERBS, *_APPLY_VERBS)),
        _grant_on(
            "Read the tenants; set the finalizer that keeps one until its objects are deleted",
            tenants,
            (*_CACHE_VERBS, "patch"),
        ),
        RbacGrant("Write their status", tenants.group, (f"{tenants.plural}/status",), ("patch",)),
    )


def list_train_job_grants() -> tuple[RbacGrant, ...]:
    """Return what the operator needs in every namespace where engines are trained on several machines."""
    return (
        _grant_on(
            "Apply the TrainJobs that train engines on several machines; delete those that are no longer needed",
            kinds.TRAIN_JOB,
            (*_CACHE_VERBS, *_APPLY_VERBS, "delete"),
        ),
    )


def list_lease_grants() -> tuple[RbacGrant, ...]:
    """Return what the operator needs in addition in its own namespace."""
    return (
        RbacGrant(
            "Create the Lease; RBAC cannot restrict `create` to a name", LEASE.group, (LEASE.plural,), ("create",)
        ),
        RbacGrant("Renew the Lease", LEASE.group, (LEASE.plural,), ("get", "patch"), names=(names.LEASE,)),
    )


def list_registry_grants() -> tuple[RbacGrant, ...]:
    """Return what the registry needs: to check whose a token is and what that account may read. It writes no object."""
    return (
        RbacGrant("Find the user of a token", "authentication.k8s.io", ("tokenreviews",), ("create",)),
        RbacGrant("Find what that user may read", "authorization.k8s.io", ("subjectaccessreviews",), ("create",)),
        RbacGrant("See whether a namespace is still the one in the record", "", ("namespaces",), ("get",)),
    )


def list_registry_reader_grants() -> tuple[RbacGrant, ...]:
    """Return what lets an account read everything in the registry."""
    reads = ("get", "list")
    return (
        _grant_on("Read history and evaluations of every namespace", kinds.R1PLUS_DEPLOYMENT, reads),
        _grant_on("Read engines", kinds.R1PLUS_ENGINE, reads),
    )


def list_tenant_registry_reader_grants() -> tuple[RbacGrant, ...]:
    """Return what lets an account read its namespace's records in the registry. A tenant's people may read as much."""
    return (_grant_on("Read history and evaluations of the namespace", kinds.R1PLUS_DEPLOYMENT, ("get", "list")),)


def list_crd_hook_grants() -> tuple[RbacGrant, ...]:
    """Return what the chart's hook needs: exactly our definitions."""
    ours = tuple(definition["metadata"]["name"] for definition in crd.build_definitions().values())
    return (
        RbacGrant(
            "Apply the CRDs and wait until they are established",
            crd.CRD.group,
            (crd.CRD.plural,),
            ("get", *_APPLY_VERBS),
            names=ours,
        ),
    )


def _grant_on(why: str, resource: Resource, verbs: tuple[str, ...]) -> RbacGrant:
    return RbacGrant(why, resource.group, (resource.plural,), verbs)


def _group_children() -> list[tuple[str, tuple[str, ...]]]:
    """Return group -> its kinds of children, in the order of the table."""
    groups: dict[str, list[str]] = {}
    for resource in kinds.CHILDREN:
        groups.setdefault(resource.group, []).append(resource.plural)
    return [(group, tuple(plurals)) for group, plurals in groups.items()]
