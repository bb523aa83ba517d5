"""What a tenant's people may do in their namespace: the ClusterRoles that the operator binds there.

`generate` writes the chart's template from it. Both are aggregated: a platform team adds rights by a ClusterRole of its
own with the label. Neither reaches a Secret, a token but the registry's, a shell in a pod, a wall, a verdict, or who
may do what.
"""

from dataclasses import dataclass
from typing import Final

from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.api.rbac import Grant
from r1plus_operator.runtime.resources import Resource

_READ = ("get", "list", "watch")
TO_ADMIN: Final = f"{names.GROUP}/aggregate-to-tenant-admin"
TO_VIEWER: Final = f"{names.GROUP}/aggregate-to-tenant-viewer"
TO_VIEW: Final = "rbac.authorization.k8s.io/aggregate-to-view"
"""Label by which Kubernetes' own `view`, and with it `edit` and `admin`, take in a role."""
AGGREGATED: Final = ((names.ROLE_TENANT_ADMIN, TO_ADMIN), (names.ROLE_TENANT_VIEWER, TO_VIEWER))
"""Name of each role, and the label of what it is made of."""


@dataclass(frozen=True, slots=True)
class Role:
    """A ClusterRole with the roles that take it in."""

    name: str
    why: str
    into: tuple[str, ...]
    """Labels."""
    grants: tuple[Grant, ...]


def roles() -> tuple[Role, ...]:
    """What the chart installs beside the two that are aggregated."""
    return (
        Role(f"{names.ROLE_TENANT_ADMIN}-base", "For who runs a tenant's models", (TO_ADMIN,), _admin()),
        Role(f"{names.ROLE_TENANT_VIEWER}-base", "For who looks after them, too", (TO_ADMIN, TO_VIEWER), _viewer()),
        Role("r1plus-view", "Also for who may read a namespace anyway", (TO_ADMIN, TO_VIEWER, TO_VIEW), _ours()),
        Role(
            "r1plus-catalog-viewer",
            "Engines are no namespace's: bind this one by a ClusterRoleBinding, for `r1plus explain`",
            (),
            (_reads("The catalog", kinds.R1PLUS_ENGINE),),
        ),
    )


def _admin() -> tuple[Grant, ...]:
    deployments = kinds.R1PLUS_DEPLOYMENT
    return (
        Grant(
            "Everything to its models; `r1plus rollback`, `pin`, `unpin` and `ack` are annotations of theirs",
            deployments.group,
            (deployments.plural,),
            ("create", "update", "patch", "delete", "deletecollection"),
        ),
        Grant(
            "Golden suites of its own; the policies keep the operator's ConfigMaps as they are",
            "",
            ("configmaps",),
            ("create", "update", "patch", "delete"),
        ),
        Grant("`r1plus ask`; `get` is the same by a websocket", "", ("pods/portforward",), ("get", "create")),
    )


def _ours() -> tuple[Grant, ...]:
    return (
        _reads("What is asked for, and what came of it", kinds.R1PLUS_DEPLOYMENT),
        _reads("What the platform team allows, and the result of the isolation test", kinds.R1PLUS_TENANT),
    )


def _viewer() -> tuple[Grant, ...]:
    """What the operator makes of it, all kinds of it, and how it fares."""
    groups: dict[str, list[str]] = {}
    for resource in kinds.CHILDREN:
        groups.setdefault(resource.group, []).append(resource.plural)
    groups[""] += ["pods", "events"]
    groups["apps"] += ["replicasets"]
    groups |= {"discovery.k8s.io": ["endpointslices"], "events.k8s.io": ["events"]}
    made = (
        Grant(
            "What the operator makes of it: network policies, quota and history included", group, tuple(plurals), _READ
        )
        for group, plurals in groups.items()
    )
    return (
        *made,
        Grant("Why a pod does not start", "", ("pods/log",), ("get",)),
        Grant(
            "`r1plus history`: tokens for the registry alone, to which a policy holds them",
            "",
            ("serviceaccounts/token",),
            ("create",),
            names=(names.REGISTRY_READER,),
        ),
    )


def _reads(why: str, resource: Resource) -> Grant:
    return Grant(why, resource.group, (resource.plural,), _READ)
