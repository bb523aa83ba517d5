"""Which grants of `api.rbac` a whole run has used, by the API server's own account: its audit log.

A grant that nothing used is either not needed, and goes from the table, or not exercised, and the story lacks an act.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.reconcile.audit import Request, parsed
from e2e import chart
from r1plus_contract.names import GROUP, ROLE_REGISTRY_READER, ROLE_TENANT_ADMIN, ROLE_TENANT_VIEWER
from r1plus_operator.api import crd, kinds, rbac
from r1plus_operator.api.rbac import RbacGrant

CREATED = 201
"""The answer to a server-side apply of an object that was not there: the API server has asked for `create` as well."""


@dataclass(frozen=True, order=True, slots=True)
class Right:
    """One verb on one kind, or on the one object of it that a grant names."""

    group: str
    resource: str
    verb: str
    name: str = ""

    def __str__(self) -> str:
        kind = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {kind}{f' {self.name}' if self.name else ''}"


@dataclass(frozen=True, slots=True)
class Holder:
    """A service account of the chart's, and what it was given."""

    user: str
    grants: tuple[RbacGrant, ...]


def _account(name: str) -> str:
    return f"system:serviceaccount:{chart.NAMESPACE}:{name}"


HOLDERS = {
    "the operator": Holder(
        _account(f"{chart.RELEASE}-operator"), (*rbac.list_operator_grants(), *rbac.list_lease_grants())
    ),
    "the registry": Holder(_account(f"{chart.RELEASE}-registry"), rbac.list_registry_grants()),
    "the hook": Holder(_account(f"{chart.RELEASE}-operator-crds"), rbac.list_crd_hook_grants()),
}
ROLES = "rbac.authorization.k8s.io"
UNSEEN: Mapping[Right, str] = {
    Right(GROUP, f"{kinds.DEPLOYMENTS_PLURAL}/finalizers", "update"): (
        "OwnerReferencesPermissionEnforcement asks for it inside the API server, where a child names an owner whose"
        " deletion it holds up"
    ),
    **{
        Right(ROLES, "clusterroles", "bind", role): (
            "the RBAC check asks for it inside the API server, where a RoleBinding to that role is written by somebody who"
            " has not its rights"
        )
        for role in (ROLE_TENANT_ADMIN, ROLE_TENANT_VIEWER, ROLE_REGISTRY_READER)
    },
    **{
        Right(kind.group, kind.plural, "delete"): (
            "OwnerReferencesPermissionEnforcement asks for it inside the API server, where somebody has edited a child's"
            " owner references and the operator puts them back"
        )
        for kind in kinds.CHILDREN
        if kind.plural not in kinds.DELETED_KINDS
    },
    **{
        Right(crd.CRD.group, crd.CRD.plural, "create", definition["metadata"]["name"]): (
            "at a first install helm itself lays down crds/; an upgrade that brings a kind needs it"
        )
        for definition in crd.build_definitions().values()
    },
}
"""Rights that leave no line in the log, with the reason; tests/apiserver/test_rbac_unseen.py takes each away and sees the refusal."""


def granted(grants: Iterable[RbacGrant]) -> frozenset[Right]:
    """Each verb on each kind, and on each object where the grant names some."""
    return frozenset(
        Right(grant.group, resource, verb, name)
        for grant in grants
        for resource in grant.resources
        for verb in grant.verbs
        for name in grant.names or ("",)
    )


def used(requests: Iterable[Request]) -> frozenset[Right]:
    """What these requests needed, with the object's name and without. What was refused shows no need."""
    found = set()
    for request in requests:
        if request.code == 403:
            continue
        verbs = (request.verb, "create") if request.verb == "patch" and request.code == CREATED else (request.verb,)
        for verb in verbs:
            found |= {Right(request.group, request.resource, verb, name) for name in ("", request.name)}
    return frozenset(found)


def surplus(holder: Holder, requests: Iterable[Request]) -> list[str]:
    """Rights that the holder has and never used, beside those that cannot be seen."""
    theirs = [request for request in requests if request.user == holder.user]
    return [str(right) for right in sorted(granted(holder.grants) - used(theirs) - UNSEEN.keys())]


def requests_in(log: Path) -> Iterable[Request]:
    """Of the log and of what was rotated away from it, the oldest first."""
    for path in (*sorted(log.parent.glob(f"{log.stem}-*{log.suffix}")), log):
        with path.open("rb") as lines:
            for line in lines:
                if (request := parsed(line)) is not None:
                    yield request
