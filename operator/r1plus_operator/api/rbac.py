"""What the operator and the chart's CRD hook may do: one table, no wildcard, each row with the reason why.

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
class Grant:
    """Verbs on kinds of one API group, or on URLs; `names` narrows it to objects of these names."""

    why: str
    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()
    """Instead of kinds: paths of the API server that are no objects."""

    def rule(self) -> Json:
        """As a role lists it."""
        if self.urls:
            return {"nonResourceURLs": list(self.urls), "verbs": list(self.verbs)}
        rule: Json = {"apiGroups": [self.group], "resources": list(self.resources), "verbs": list(self.verbs)}
        return rule | {"resourceNames": list(self.names)} if self.names else rule


_CACHED = ("list", "watch")
_APPLIED = ("create", "patch")
"""Server-side apply is a patch; where the object is absent the API server asks for `create` as well."""


def operator() -> tuple[Grant, ...]:
    """What the running operator needs in every namespace."""
    deployments, engines, tenants = kinds.R1PLUS_DEPLOYMENT, kinds.R1PLUS_ENGINE, kinds.R1PLUS_TENANT
    return (
        _on("What tenants ask for", deployments, _CACHED),
        Grant("The answer to it", deployments.group, (f"{deployments.plural}/status",), ("patch",)),
        Grant(
            "Owner references that hold up a deletion; OwnerReferencesPermissionEnforcement asks for it",
            deployments.group,
            (f"{deployments.plural}/finalizers",),
            ("update",),
        ),
        _on("The shipped catalog is applied, and repaired", engines, (*_CACHED, *_APPLIED)),
        _on(
            "What the platform team allows; its finalizer keeps it until what it had made is gone",
            tenants,
            (*_CACHED, "patch"),
        ),
        Grant("The answer to it", tenants.group, (f"{tenants.plural}/status",), ("patch",)),
        _on("Which namespaces are tenants, and how they are held to Pod Security", kinds.NAMESPACE, _CACHED),
        *(
            Grant("Children of a deployment, walls of a tenant", group, resources, (*_CACHED, *_APPLIED))
            for group, resources in _children()
        ),
        *(
            Grant(
                "What is over of them, and owner references that somebody took away:"
                " OwnerReferencesPermissionEnforcement asks for it",
                group,
                resources,
                ("delete",),
            )
            for group, resources in _children()
        ),
        Grant(
            "A RoleBinding to these, and to no other: neither `escalate` nor a right of theirs is needed",
            "rbac.authorization.k8s.io",
            ("clusterroles",),
            ("bind",),
            names=(names.ROLE_TENANT_ADMIN, names.ROLE_TENANT_VIEWER, names.ROLE_REGISTRY_READER),
        ),
        _on(
            "How serving pods fare; a bad one is labelled out of traffic, and deleted in time",
            kinds.POD,
            (*_CACHED, "patch", "delete"),
        ),
        _on("Whether a Service leads to the pods that it selects", kinds.ENDPOINT_SLICE, _CACHED),
        _on("What nodes can hold", kinds.NODE, _CACHED),
        _on("What happened, told to the tenant", kinds.EVENT, _APPLIED),
        Grant(
            "Who issues the tokens of service accounts, and with which keys: tenants' gateways verify them",
            "",
            (),
            ("get",),
            urls=TOKEN_ISSUER_URLS,
        ),
    )


def lease() -> tuple[Grant, ...]:
    """What the running operator needs in its own namespace, beside that."""
    return (
        Grant(
            "The first Lease: a right to create cannot name what it creates", LEASE.group, (LEASE.plural,), ("create",)
        ),
        Grant("Who holds it writes", LEASE.group, (LEASE.plural,), ("get", "patch"), names=(names.LEASE,)),
    )


def registry() -> tuple[Grant, ...]:
    """What the registry needs: to ask who bears a token, what that one may read, and where. It writes no object."""
    return (
        Grant("Who bears a token", "authentication.k8s.io", ("tokenreviews",), ("create",)),
        Grant("What the bearer may read", "authorization.k8s.io", ("subjectaccessreviews",), ("create",)),
        Grant("Whether a namespace is still the one that a history is of", "", ("namespaces",), ("get",)),
    )


def registry_reader() -> tuple[Grant, ...]:
    """What lets an account see everything in the registry."""
    reads = ("get", "list")
    return (
        _on("Histories and evaluations of every namespace", kinds.R1PLUS_DEPLOYMENT, reads),
        _on("Engines", kinds.R1PLUS_ENGINE, reads),
    )


def tenant_registry_reader() -> tuple[Grant, ...]:
    """What lets an account see in the registry what is of its namespace. A tenant's people may read as much."""
    return (_on("Histories and evaluations of the namespace", kinds.R1PLUS_DEPLOYMENT, ("get", "list")),)


def crd_hook() -> tuple[Grant, ...]:
    """What the chart's hook needs: exactly our two definitions."""
    ours = tuple(definition["metadata"]["name"] for definition in crd.definitions().values())
    return (
        Grant(
            "Apply the definitions and see them established",
            crd.CRD.group,
            (crd.CRD.plural,),
            ("get", *_APPLIED),
            names=ours,
        ),
    )


def _on(why: str, resource: Resource, verbs: tuple[str, ...]) -> Grant:
    return Grant(why, resource.group, (resource.plural,), verbs)


def _children() -> list[tuple[str, tuple[str, ...]]]:
    """Group -> its kinds of children, in the order of the table."""
    groups: dict[str, list[str]] = {}
    for resource in kinds.CHILDREN:
        groups.setdefault(resource.group, []).append(resource.plural)
    return [(group, tuple(plurals)) for group, plurals in groups.items()]
