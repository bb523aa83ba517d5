"""Rights of a tenant's people in their namespace: the ClusterRoles that the operator binds there.

`generate` writes the chart's template from it. Both are aggregated: a platform team adds rights by a ClusterRole of its
own with the label. Neither grants Secrets, tokens other than the registry's, a shell in a pod, network policies,
verdicts, or roles.
"""

from dataclasses import dataclass
from typing import Final

from r1plus_contract import names
from r1plus_contract.gateway import GATEWAY_ADMIN
from r1plus_operator.api import kinds
from r1plus_operator.api.rbac import RbacGrant
from r1plus_operator.runtime.resources import Resource

_READ = ("get", "list", "watch")
TO_ADMIN: Final = f"{names.GROUP}/aggregate-to-tenant-admin"
TO_VIEWER: Final = f"{names.GROUP}/aggregate-to-tenant-viewer"
TO_VIEW: Final = "rbac.authorization.k8s.io/aggregate-to-view"
"""Label by which Kubernetes' own `view`, and with it `edit` and `admin`, include a role."""
AGGREGATED_ROLES: Final = ((names.ROLE_TENANT_ADMIN, TO_ADMIN), (names.ROLE_TENANT_VIEWER, TO_VIEWER))
"""Name of each role, and the label of the roles that it includes."""


@dataclass(frozen=True, slots=True)
class TenantRole:
    """A ClusterRole with the roles that include it."""

    name: str
    why: str
    into: tuple[str, ...]
    """Labels."""
    grants: tuple[RbacGrant, ...]


def list_roles() -> tuple[TenantRole, ...]:
    """Return the roles that the chart installs in addition to the two aggregated ones."""
    return (
        TenantRole(
            f"{names.ROLE_TENANT_ADMIN}-base", "For who runs a tenant's models", (TO_ADMIN,), _list_admin_grants()
        ),
        TenantRole(
            f"{names.ROLE_TENANT_VIEWER}-base",
            "For who looks after them, too",
            (TO_ADMIN, TO_VIEWER),
            _list_viewer_grants(),
        ),
        TenantRole(
            "r1plus-view",
            "Also for who may read a namespace anyway",
            (TO_ADMIN, TO_VIEWER, TO_VIEW),
            _list_view_grants(),
        ),
        TenantRole(
            "r1plus-catalog-viewer",
            "Engines are no namespace's: bind this one by a ClusterRoleBinding, for `r1plus explain`",
            (),
            (_grant_read("The catalog", kinds.R1PLUS_ENGINE),),
        ),
    )


def _list_admin_grants() -> tuple[RbacGrant, ...]:
    deployments = kinds.R1PLUS_DEPLOYMENT
    return (
        RbacGrant(
            "Everything to its models; `r1plus rollback`, `pin`, `unpin` and `ack` are annotations of theirs",
            deployments.group,
            (deployments.plural,),
            ("create", "update", "patch", "delete", "deletecollection"),
        ),
        RbacGrant(
            "Golden suites of its own; the policies keep the operator's ConfigMaps as they are",
            "",
            ("configmaps",),
            ("create", "update", "patch", "delete"),
        ),
        RbacGrant("`r1plus ask`; `get` is the same by a websocket", "", ("pods/portforward",), ("get", "create")),
        RbacGrant(
            "`r1plus key`, `usage` and `audit`: tokens for the gateway alone, to which a policy holds them",
            "",
            ("serviceaccounts/token",),
            ("create",),
            names=(GATEWAY_ADMIN,),
        ),
    )


def _list_view_grants() -> tuple[RbacGrant, ...]:
    return (
        _grant_read("What is asked for, and what came of it", kinds.R1PLUS_DEPLOYMENT),
        _grant_read("What the platform team allows, and whether isolation tests passed", kinds.R1PLUS_TENANT),
    )


def _list_viewer_grants() -> tuple[RbacGrant, ...]:
    """Return the right to read everything that the operator creates, and its state."""
    groups: dict[str, list[str]] = {}
    for resource in kinds.CHILDREN:
        groups.setdefault(resource.group, []).append(resource.plural)
    groups[""] += ["pods", "events"]
    groups["apps"] += ["replicasets"]
    groups |= {"discovery.k8s.io": ["endpointslices"], "events.k8s.io": ["events"]}
    child_grants = (
        RbacGrant(
            "What the operator makes of it: network policies, quota and history included", group, tuple(plurals), _READ
        )
        for group, plurals in groups.items()
    )
    return (
        *child_grants,
        RbacGrant("Why a pod does not start", "", ("pods/log",), ("get",)),
        RbacGrant(
            "`r1plus history`: tokens for the registry alone, to which a policy holds them",
            "",
            ("serviceaccounts/token",),
            ("create",),
            names=(names.REGISTRY_READER,),
        ),
    )


def _grant_read(why: str, resource: Resource) -> RbacGrant:
    return RbacGrant(why, resource.group, (resource.plural,), _READ)
