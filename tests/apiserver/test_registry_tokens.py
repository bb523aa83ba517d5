"""Tokens of the account by which a tenant's people read the registry: for the registry alone, and for an hour at most."""

from collections.abc import Iterator
from typing import Any

import pytest

from r1plus_contract import names
from r1plus_contract.history import AUDIENCE
from r1plus_operator.api import kinds
from r1plus_operator.plan.tenancy import network_policies
from r1plus_operator.runtime.resources import Resource
from support.apiserver.admission_world import MALLORY, AdmissionWorld, TenantRights
from support.apiserver.manifests import ROLE_BINDING, SECRET, SERVICE_ACCOUNT, Json, manifest, pod, role_binding, user
from support.apiserver.people import Answer, Person, people
from support.apiserver.registry_process import READER
from support.apiserver.rights import OPERATOR_NAMESPACE
from support.apiserver.walls import assert_held

pytestmark = pytest.mark.apiserver
FOR_AN_HOUR = {"audiences": [AUDIENCE], "expirationSeconds": 3600}
NOT_FOR_THE_REGISTRY: dict[str, Json] = {
    "for the API server": {"expirationSeconds": 3600},
    "for the registry and another": {"audiences": [AUDIENCE, "vault"], "expirationSeconds": 3600},
    "for years": {"audiences": [AUDIENCE], "expirationSeconds": 100_000_000},
}
ROLES = {"anna": names.ROLE_TENANT_ADMIN, "vera": names.ROLE_TENANT_VIEWER}


@pytest.fixture(scope="module")
def members(world: AdmissionWorld) -> Iterator[dict[str, Person]]:
    """The people of a tenant with the reader's account as the operator makes it, and with an account `app`."""
    for obj in network_policies.build_registry_reader(world.namespace):
        world.operator.do("POST", world.path(kinds.BY_KIND[obj["kind"]]), obj)
    world.admin.do("POST", world.path(SERVICE_ACCOUNT), manifest(SERVICE_ACCOUNT, "app"))
    with people(world.server, *ROLES) as known:
        for name, role in ROLES.items():
            world.bind(known[name], TenantRights((role,)))
            known[name].gets("list", "pods", world.namespace)
        world.mallory.gets("create", "serviceaccounts", world.namespace, subresource="token")
        yield {**known, MALLORY: world.mallory}


def make_token(who: Person, namespace: str, account: str, **spec: Any) -> Answer:
    """As `kubectl create token`; nothing is stored, so that it need not be a dry run."""
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    return who.ask("POST", f"{SERVICE_ACCOUNT.path(namespace, account)}/token", request, dry=False)


@pytest.mark.parametrize("who", [*ROLES, MALLORY])
@pytest.mark.parametrize("spec", NOT_FOR_THE_REGISTRY.values(), ids=NOT_FOR_THE_REGISTRY)
def test_tokens_of_the_readers_account_are_for_the_registry_and_for_an_hour(
    world: AdmissionWorld, members: dict[str, Person], who: str, spec: Json
) -> None:
    assert make_token(members[who], world.namespace, names.REGISTRY_READER, **FOR_AN_HOUR).status == 201
    answer = make_token(members[who], world.namespace, names.REGISTRY_READER, **spec)
    assert answer.refused
    assert "lasts 3600 seconds at most" in answer.text


def test_a_member_makes_tokens_of_no_other_account_and_changes_nothing_of_the_readers(
    world: AdmissionWorld, members: dict[str, Person], admin: Person
) -> None:
    for who in ROLES:
        assert make_token(members[who], world.namespace, "app", **FOR_AN_HOUR).refused
    assert make_token(world.mallory, world.namespace, "app", **FOR_AN_HOUR).status == 201
    reader = role_binding(world.namespace, "more", names.ROLE_REGISTRY_READER, user("eve"))
    for who, person in members.items():
        changes: dict[Resource, Json] = {
            SERVICE_ACCOUNT: {"metadata": {"labels": {names.LABEL_MANAGED_BY: who}}},
            ROLE_BINDING: {"subjects": [user(who)]},
        }
        for resource, change in changes.items():
            path = world.path(resource, names.REGISTRY_READER)
            assert person.ask("DELETE", path).refused
            assert person.ask("PATCH", path, change).refused
        assert person.ask("POST", world.path(ROLE_BINDING), reader).refused
    assert admin.ask("POST", world.path(ROLE_BINDING), reader).status == 201
    for whose in (world.namespace, OPERATOR_NAMESPACE):
        assert make_token(world.operator, whose, READER, **FOR_AN_HOUR).refused


def token_secret(account: str) -> Json:
    """Return a Secret that the token controller fills with a token of this account, which never ends."""
    made = manifest(SECRET, "token", type="kubernetes.io/service-account-token")
    made["metadata"]["annotations"] = {"kubernetes.io/service-account.name": account}
    return made


def test_no_secret_holds_a_token_of_the_registrys_reader(world: AdmissionWorld, admin: Person) -> None:
    mallory, path = world.mallory, world.path(SECRET)
    for person in (mallory, admin):
        assert_held(person.ask("POST", path, token_secret(names.REGISTRY_READER)), "registry-tokens", "never ends")
    assert mallory.ask("POST", path, token_secret("default")).status == 201
    mallory.do("POST", path, token_secret("default"))
    theirs = {"metadata": {"annotations": {"kubernetes.io/service-account.name": names.REGISTRY_READER}}}
    assert_held(mallory.ask("PATCH", f"{path}/token", theirs), "registry-tokens", "never ends")
    assert admin.ask("POST", SECRET.path(OPERATOR_NAMESPACE), token_secret(names.REGISTRY_READER)).status == 201


def test_no_pod_runs_as_the_registrys_reader(world: AdmissionWorld, members: dict[str, Person]) -> None:
    path = world.path(kinds.POD)
    for field in ("serviceAccountName", "serviceAccount"):
        refused = world.mallory.ask("POST", path, pod("reads", **{field: names.REGISTRY_READER}))
        assert_held(refused, "registry-tokens", "no pod runs as r1plus-registry-reader")
    token = {"serviceAccountToken": {"audience": AUDIENCE, "path": "token"}}
    own = pod("reads", volumes=[{"name": "w", "projected": {"sources": [token]}}])
    assert world.mallory.ask("POST", path, own).status == 201
