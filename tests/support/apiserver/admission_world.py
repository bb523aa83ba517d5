"""What admission policies are tried on: a tenant with its administrator, and an operator whose account has every right.

Both are on the server with the chart. The fixtures `world` and `attacker` make one for a module.
"""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.api.crd import CRD
from r1plus_operator.runtime.resources import Resource
from support.apiserver.manifests import (
    CHILD,
    CLUSTER_ROLE_BINDING,
    ROLE,
    ROLE_BINDING,
    Json,
    cluster_role_binding,
    deployment,
    manifest,
    role_binding,
    tenant_namespace,
    user,
)
from support.apiserver.people import Answer, Person, people, until_pods_are_taken
from support.apiserver.rights import OPERATOR
from support.apiserver.walls import REVISION, pod_of
from support.waiting import wait_until

MALLORY = "mallory"
DEPLOYMENT, SERVICE = kinds.BY_KIND["Deployment"], kinds.BY_KIND["Service"]
SERVING = {
    names.LABEL_MANAGED_BY: names.MANAGED_BY,
    names.LABEL_NAME: "r1plus-serving",
    names.LABEL_DEPLOYMENT: "credit",
    names.LABEL_REVISION: REVISION,
    names.LABEL_SERVING: "true",
}
"""Labels of a pod that serves."""
OWN, OURS = "mallorys-own", "r1plus-engine-0123456789"
"""Names of an object of the administrator's, and of one of the operator's."""
GIVEN_BY = {
    "admin": ("create", "pods", ""),
    "edit": ("create", "pods", ""),
    names.ROLE_TENANT_ADMIN: ("create", kinds.R1PLUS_DEPLOYMENT.plural, names.GROUP),
    names.ROLE_TENANT_VIEWER: ("list", "pods", ""),
}
"""Role -> what it allows: (verb, resource, API group). Kubernetes puts some roles together after they are made."""
KNOWN: Json = {"apiGroups": ["example.com"], "resources": ["bindings-are-known"], "verbs": ["get"]}


@dataclass(frozen=True, slots=True)
class TenantRights:
    """Rights of a tenant's administrator in the namespace: of ClusterRoles, and of a Role with these rules."""

    roles: tuple[str, ...] = ("admin",)
    rules: tuple[Json, ...] = ()


@dataclass(frozen=True, slots=True)
class AdmissionWorld:
    """A tenant's namespace, its administrator, and the operator's account with the rights of the chart."""

    server: ApiServer
    admin: Person
    """The cluster's administrator."""
    mallory: Person
    """The namespace's administrator."""
    operator: Person
    namespace: str

    def path(self, resource: Resource, name: str = "") -> str:
        """Return the path of a kind in the namespace, or of one object."""
        return resource.path(self.namespace, name or None)

    def bind(self, who: Person, rights: TenantRights) -> None:
        """Give a person these rights in the namespace; return once RBAC knows them."""
        bindings = self.path(ROLE_BINDING)
        for role in rights.roles:
            body = role_binding(self.namespace, f"{role}-{who.name}", role, user(who.name))
            self.admin.do("POST", bindings, body)
        if rights.rules:
            name = f"rules-{who.name}"
            self.admin.do("POST", self.path(ROLE), manifest(ROLE, name, rules=[*rights.rules, KNOWN]))
            self.admin.do("POST", bindings, role_binding(self.namespace, name, name, user(who.name), kind="Role"))
            who.gets("get", KNOWN["resources"][0], self.namespace, KNOWN["apiGroups"][0])
        for role in rights.roles:
            verb, resource, group = GIVEN_BY[role]
            who.gets(verb, resource, self.namespace, group)

    def start_serving(self) -> str:
        """Make the Deployment of a revision that serves, as the operator; return the name of its pod."""
        self.operator.do("POST", self.path(DEPLOYMENT), deployment(REVISION, SERVING, CHILD))
        return pod_of(self.admin, self.namespace, f"{names.LABEL_SERVING}=true")


@contextmanager
def admission_world(
    server: ApiServer, admin: Person, rights: TenantRights | None = None, *, is_tenant: bool = True
) -> Iterator[AdmissionWorld]:
    """Make a namespace that takes pods, and its administrator; without the tenant's label if `is_tenant` is false."""
    namespace = f"t-{uuid.uuid4().hex[:10]}"
    body = tenant_namespace(namespace)
    if not is_tenant:
        del body["metadata"]["labels"][names.LABEL_TENANT]
    with people(server, MALLORY, OPERATOR) as who:
        admin.do("POST", kinds.NAMESPACE.path(), body)
        world = AdmissionWorld(server, admin, who[MALLORY], who[OPERATOR], namespace)
        world.bind(world.mallory, rights or TenantRights())
        until_pods_are_taken(admin, namespace)
        yield world


@dataclass(frozen=True, slots=True)
class CompromisedOperator:
    """The operator's account in the hands of an attacker; somebody has made it cluster-admin by mistake."""

    admin: Person
    """The cluster's administrator."""
    account: Person
    tenant: str
    plain: str
    """A namespace that is no tenant."""

    def make(self, body: Json, namespace: str = "") -> Answer:
        """Make an object as the operator, in the tenant or in another namespace, as a dry run."""
        return self.account.ask("POST", kinds.BY_KIND[body["kind"]].path(namespace or self.tenant), body)


@contextmanager
def compromised(server: ApiServer, admin: Person) -> Iterator[CompromisedOperator]:
    """Give the operator's account every right until the block ends; make a tenant and a namespace that is none."""
    tenant, plain = (f"{letter}-{uuid.uuid4().hex[:10]}" for letter in "tp")
    mistake = cluster_role_binding("operator-is-compromised", "cluster-admin", user(OPERATOR))
    for body in (tenant_namespace(tenant), manifest(kinds.NAMESPACE, plain)):
        admin.do("POST", kinds.NAMESPACE.path(), body)
    admin.do("POST", CLUSTER_ROLE_BINDING.path(), mistake)
    with people(server, OPERATOR) as who:
        account = who[OPERATOR]
        account.gets("create", "secrets", "kube-system")
        for namespace in (tenant, plain):
            until_pods_are_taken(admin, namespace)
        yield CompromisedOperator(admin, account, tenant, plain)
        admin.do("DELETE", CLUSTER_ROLE_BINDING.path(name=mistake["metadata"]["name"]))
        wait_until(lambda: not account.may("create", "secrets", "kube-system"), "the operator has its own rights again")


def build_schemaless_crd(resource: Resource) -> Json:
    """Return a definition of a kind that takes anything."""
    anything = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": resource.version, "served": True, "storage": True, "schema": anything}
    of = {"kind": resource.kind, "plural": resource.plural, "singular": resource.kind.lower()}
    spec = {"group": resource.group, "scope": "Namespaced", "names": of, "versions": [version]}
    return manifest(CRD, resource.name, spec=spec)


@contextmanager
def serving_optional_kinds(admin: Person) -> Iterator[None]:
    """Serve the kinds of children that a cluster may not have, until the block ends."""
    definitions = [CRD.path(name=resource.name) for resource in kinds.OPTIONAL_CHILDREN]
    for resource in kinds.OPTIONAL_CHILDREN:
        admin.do("POST", CRD.path(), build_schemaless_crd(resource))
    served = [resource.path("default") for resource in kinds.OPTIONAL_CHILDREN]
    wait_until(lambda: all(admin.ask("GET", path).status == 200 for path in served), "PodMonitors and rules are served")
    yield
    for path in definitions:
        admin.do("DELETE", path)
    wait_until(lambda: all(admin.ask("GET", path).status == 404 for path in definitions), "the definitions are gone")


def read(person: Person, path: str) -> Json:
    """Return an object as the API server has it."""
    found: Json = json.loads(person.ask("GET", path).text)
    return found
