"""A request names who asks, the next number and its object's uid: the API server refuses every other.

By whose clock requests are dated does not matter.
"""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_contract.requests import ANNOTATION_COUNT, Request, Verb, build_annotations
from r1plus_operator.api import kinds
from support.apiserver.admission_world import AdmissionWorld, TenantRights, read
from support.apiserver.manifests import Json, manifest
from support.apiserver.people import Person, people
from support.apiserver.walls import assert_held
from support.tables import for_each

pytestmark = pytest.mark.apiserver
ALICE, BOB = "alice@example.com", "bob"
NOW, TOMORROW, NEVER = "2026-11-24T17:30:00.000000Z", "2026-11-25T17:30:00.000000Z", "9999-12-31T23:59:59Z"


def build_deployment(namespace: str, name: str = "credit", **annotations: str) -> Json:
    """Return an R1PlusDeployment with these annotations."""
    body = manifest(kinds.R1PLUS_DEPLOYMENT, name, namespace, spec={"tier": "full"})
    body["metadata"]["annotations"] = annotations
    return body


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """An R1PlusDeployment of which both people, who administer its namespace, request something."""

    world: AdmissionWorld
    alice: Person
    bob: Person
    uid: str

    @property
    def path(self) -> str:
        return self.world.path(kinds.R1PLUS_DEPLOYMENT, "credit")

    def read(self) -> Json:
        return read(self.world.admin, self.path)

    def request(self, by: str, order: int, at: str = NOW) -> Request:
        return Request(by, 'a "reason", with quotes \\', at, "credit-0123456789", order, self.uid)

    def patch(self, verb: Verb, request: Request) -> Json:
        return {"metadata": {"annotations": build_annotations(verb, request)}}


@pytest.fixture(scope="module")
def administrators(world: AdmissionWorld) -> Iterator[tuple[Person, Person]]:
    """Two administrators of the tenant."""
    with people(world.server, ALICE, BOB) as who:
        for one in who.values():
            world.bind(one, TenantRights((names.ROLE_TENANT_ADMIN,)))
        yield who[ALICE], who[BOB]


@pytest.fixture
def target(world: AdmissionWorld, administrators: tuple[Person, Person]) -> Iterator[RequestTarget]:
    body = build_deployment(world.namespace)
    made = world.admin.do("POST", world.path(kinds.R1PLUS_DEPLOYMENT), body)
    found = RequestTarget(world, *administrators, str(made["metadata"]["uid"]))
    yield found
    world.admin.do("DELETE", found.path)


def test_requests_are_numbered_whatever_the_clocks_say(target: RequestTarget) -> None:
    alice, bob = target.alice, target.bob
    alice.do("PATCH", target.path, target.patch(Verb.ACK, target.request(ALICE, 1, TOMORROW)))
    bob.do("PATCH", target.path, target.patch(Verb.ROLLBACK, target.request(BOB, 2)))
    alice.do("PATCH", target.path, target.patch(Verb.UNPIN, target.request(ALICE, 3, NEVER)))
    bob.do("PATCH", target.path, target.patch(Verb.ROLLBACK, target.request(BOB, 4)))
    assert target.read()["metadata"]["annotations"][ANNOTATION_COUNT] == "4"


FORGERIES: dict[str, tuple[Callable[[Request], Request], str]] = {
    "somebody else's name": (lambda r: replace(r, by=ALICE), "`by` is not bob"),
    "a name that begins like one's own": (lambda r: replace(r, by="bobby"), "`by` is not bob"),
    "no number": (lambda r: replace(r, order=0), "not a valid request of this release"),
    "a number again": (lambda r: replace(r, order=1), "the next request must have number 2"),
    "a number too far": (lambda r: replace(r, order=3), "the next request must have number 2"),
    "another object's uid": (lambda r: replace(r, uid=str(uuid.uuid4())), "`uid` is not"),
    "a number without end": (lambda r: replace(r, order=10**25), "not a valid request of this release"),
    "no uid": (lambda r: replace(r, uid=""), "not a valid request of this release"),
}


@pytest.mark.parametrize("forge, said", FORGERIES.values(), ids=FORGERIES)
def test_a_request_is_refused_with(target: RequestTarget, forge: Callable[[Request], Request], said: str) -> None:
    target.alice.do("PATCH", target.path, target.patch(Verb.ACK, target.request(ALICE, 1)))
    genuine = target.request(BOB, 2)
    bob = target.bob
    assert_held(bob.ask("PATCH", target.path, target.patch(Verb.ROLLBACK, forge(genuine))), "requests", said)
    assert bob.ask("PATCH", target.path, target.patch(Verb.ROLLBACK, genuine)).status == 200


@for_each("text", {
    "a second name behind the first": '{genuine},"by":"alice@example.com"}}',
    "a name inside another field": '{{"x":{genuine}}},"by":"alice@example.com"}}',
    "a name in front": '{{"by":"alice@example.com",{rest}',
    "no JSON": "back to the last good one, please",
})  # fmt: skip
def test_no_other_form_of_json_hides_a_name(target: RequestTarget, text: str) -> None:
    genuine = dumps(target.request(BOB, 1))
    forged = text.format(genuine=genuine[:-1], rest=genuine[1:])
    edit = {"metadata": {"annotations": {Verb.ACK.annotation: forged, ANNOTATION_COUNT: "1"}}}
    assert_held(target.bob.ask("PATCH", target.path, edit), "requests", "not a valid request of this release")


def test_one_request_at_a_time(target: RequestTarget) -> None:
    edit = target.patch(Verb.ACK, target.request(BOB, 1))
    edit["metadata"]["annotations"] |= build_annotations(Verb.UNPIN, target.request(BOB, 1))
    assert_held(target.bob.ask("PATCH", target.path, edit), "requests", "two requests at once")


def test_numbers_do_not_begin_again_when_annotations_go(target: RequestTarget) -> None:
    target.alice.do("PATCH", target.path, target.patch(Verb.ACK, target.request(ALICE, 1)))
    target.world.operator.do("PATCH", target.path + "/status", {"status": {"requests": 1}})
    gone = {"metadata": {"annotations": {Verb.ACK.annotation: None, ANNOTATION_COUNT: None}}}
    target.bob.do("PATCH", target.path, gone)
    again = target.bob.ask("PATCH", target.path, target.patch(Verb.ACK, target.request(BOB, 1)))
    assert_held(again, "requests", "the next request must have number 2")
    target.bob.do("PATCH", target.path, target.patch(Verb.ACK, target.request(BOB, 2)))


def test_a_restored_object_keeps_valid_requests_alone(target: RequestTarget) -> None:
    annotations = build_annotations(Verb.ACK, target.request(ALICE, 7)) | build_annotations(
        Verb.ROLLBACK, target.request(ALICE, 8)
    )
    restored = build_deployment(target.world.namespace, "restored", **annotations)
    path = target.world.path(kinds.R1PLUS_DEPLOYMENT)
    assert target.bob.ask("POST", path, restored).status == 201
    for forgery in (replace(target.request(ALICE, 0), uid=""), replace(target.request(ALICE, 7), uid="")):
        forged = build_deployment(target.world.namespace, "forged", **build_annotations(Verb.ACK, forgery))
        assert_held(target.bob.ask("POST", path, forged), "requests", "not a valid request of this release")


def test_a_new_object_leaves_numbers_for_its_requests(target: RequestTarget) -> None:
    bob, path = target.bob, target.world.path(kinds.R1PLUS_DEPLOYMENT)
    for count in ("999999999999999", "9" * 30, "many"):
        full = build_deployment(target.world.namespace, "full", **{ANNOTATION_COUNT: count})
        assert_held(bob.ask("POST", path, full), "requests", "a new object has none")
    restored = build_deployment(target.world.namespace, "restored", **{ANNOTATION_COUNT: "999999999"})
    assert bob.ask("POST", path, restored).status == 201


def test_other_edits_are_allowed_and_one_of_the_count_alone_is_not(target: RequestTarget) -> None:
    edit = {"metadata": {"annotations": {"cost-centre": "17"}}, "spec": {"replicas": 2}}
    target.alice.do("PATCH", target.path, target.patch(Verb.ACK, target.request(ALICE, 1)))
    target.bob.do("PATCH", target.path, edit)
    assert target.read()["spec"]["replicas"] == 2
    count = {"metadata": {"annotations": {ANNOTATION_COUNT: "9"}}}
    assert_held(target.bob.ask("PATCH", target.path, count), "requests", "the next request must have number 2")
