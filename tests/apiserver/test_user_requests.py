"""Finding 7 of the review of 035d42d: a request bears the name of who asks, the next number and its object's uid.

The API server holds requests to that; by whose clock they are dated no longer matters.
"""

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_contract.jsonable import dumps
from r1plus_contract.requests import ANNOTATION_COUNT, Request, Verb, build_annotations
from r1plus_operator.api import kinds
from support.apiserver.manifests import ROLE_BINDING, Json, manifest, role_binding, tenant_namespace, user
from support.apiserver.people import Person, people
from support.apiserver.rights import OPERATOR
from support.apiserver.walls import POLICY, assert_held
from support.tables import for_each

pytestmark = pytest.mark.apiserver
ALICE, BOB = "alice@example.com", "bob"
NOW, TOMORROW, NEVER = "2026-11-24T17:30:00.000000Z", "2026-11-25T17:30:00.000000Z", "9999-12-31T23:59:59Z"


class Asked:
    """An R1PlusDeployment of which both people, who administer its namespace, ask something."""

    def __init__(self, namespace: str, admin: Person, who: dict[str, Person]) -> None:
        self.who = who
        self.path = kinds.R1PLUS_DEPLOYMENT.path(namespace, "credit")
        admin.do("POST", kinds.R1PLUS_DEPLOYMENT.path(namespace), self.manifest(namespace))
        self._admin, self.namespace = admin, namespace
        self.uid = str(self.read()["metadata"]["uid"])

    @staticmethod
    def manifest(namespace: str, name: str = "credit", **annotations: str) -> Json:
        body = manifest(kinds.R1PLUS_DEPLOYMENT, name, namespace, spec={"tier": "full"})
        body["metadata"]["annotations"] = annotations
        return body

    def read(self) -> Json:
        found: Json = json.loads(self._admin.ask("GET", self.path).text)
        return found

    def request(self, by: str, order: int, at: str = NOW) -> Request:
        return Request(by, 'a "reason", with quotes \\', at, "credit-0123456789", order, self.uid)

    def patch(self, verb: Verb, request: Request) -> Json:
        return {"metadata": {"annotations": build_annotations(verb, request)}}


@pytest.fixture(scope="module")
def namespace(installed_server: ApiServer, admin: Person) -> Iterator[tuple[str, dict[str, Person]]]:
    made = f"a-{uuid.uuid4().hex[:10]}"
    with people(installed_server, ALICE, BOB, OPERATOR) as who:
        admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(made))
        given = role_binding(made, "r1plus-admins", names.ROLE_TENANT_ADMIN, user(ALICE), user(BOB))
        given["metadata"]["labels"] = POLICY
        who[OPERATOR].do("POST", ROLE_BINDING.path(made), given)
        for one in (ALICE, BOB):
            who[one].gets("update", kinds.R1PLUS_DEPLOYMENT.plural, made, names.GROUP)
        yield made, who


@pytest.fixture
def asked(namespace: tuple[str, dict[str, Person]], admin: Person) -> Iterator[Asked]:
    made = Asked(namespace[0], admin, namespace[1])
    yield made
    admin.do("DELETE", made.path)


def test_finding_07_requests_are_numbered_whatever_the_clocks_say(asked: Asked) -> None:
    alice, bob = asked.who[ALICE], asked.who[BOB]
    alice.do("PATCH", asked.path, asked.patch(Verb.ACK, asked.request(ALICE, 1, TOMORROW)))
    bob.do("PATCH", asked.path, asked.patch(Verb.ROLLBACK, asked.request(BOB, 2)))
    alice.do("PATCH", asked.path, asked.patch(Verb.UNPIN, asked.request(ALICE, 3, NEVER)))
    bob.do("PATCH", asked.path, asked.patch(Verb.ROLLBACK, asked.request(BOB, 4)))
    assert asked.read()["metadata"]["annotations"][ANNOTATION_COUNT] == "4"


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
def test_finding_07_a_request_is_not_taken_with(asked: Asked, forge: Callable[[Request], Request], said: str) -> None:
    asked.who[ALICE].do("PATCH", asked.path, asked.patch(Verb.ACK, asked.request(ALICE, 1)))
    genuine = asked.request(BOB, 2)
    bob = asked.who[BOB]
    assert_held(bob.ask("PATCH", asked.path, asked.patch(Verb.ROLLBACK, forge(genuine))), "requests", said)
    assert bob.ask("PATCH", asked.path, asked.patch(Verb.ROLLBACK, genuine)).status == 200


@for_each("text", {
    "a second name behind the first": '{genuine},"by":"alice@example.com"}}',
    "a name inside another field": '{{"x":{genuine}}},"by":"alice@example.com"}}',
    "a name in front": '{{"by":"alice@example.com",{rest}',
    "no JSON": "back to the last good one, please",
})  # fmt: skip
def test_finding_07_no_other_form_of_json_hides_a_name(asked: Asked, text: str) -> None:
    genuine = dumps(asked.request(BOB, 1))
    forged = text.format(genuine=genuine[:-1], rest=genuine[1:])
    edit = {"metadata": {"annotations": {Verb.ACK.annotation: forged, ANNOTATION_COUNT: "1"}}}
    assert_held(asked.who[BOB].ask("PATCH", asked.path, edit), "requests", "not a valid request of this release")


def test_finding_07_one_request_at_a_time(asked: Asked) -> None:
    edit = asked.patch(Verb.ACK, asked.request(BOB, 1))
    edit["metadata"]["annotations"] |= build_annotations(Verb.UNPIN, asked.request(BOB, 1))
    assert_held(asked.who[BOB].ask("PATCH", asked.path, edit), "requests", "two requests at once")


def test_finding_07_numbers_do_not_begin_again_when_annotations_go(asked: Asked) -> None:
    asked.who[ALICE].do("PATCH", asked.path, asked.patch(Verb.ACK, asked.request(ALICE, 1)))
    asked.who[OPERATOR].do("PATCH", asked.path + "/status", {"status": {"requests": 1}})
    gone = {"metadata": {"annotations": {Verb.ACK.annotation: None, ANNOTATION_COUNT: None}}}
    asked.who[BOB].do("PATCH", asked.path, gone)
    again = asked.who[BOB].ask("PATCH", asked.path, asked.patch(Verb.ACK, asked.request(BOB, 1)))
    assert_held(again, "requests", "the next request must have number 2")
    asked.who[BOB].do("PATCH", asked.path, asked.patch(Verb.ACK, asked.request(BOB, 2)))


def test_finding_07_what_is_restored_keeps_requests_of_this_form_alone(asked: Asked) -> None:
    annotations = build_annotations(Verb.ACK, asked.request(ALICE, 7)) | build_annotations(
        Verb.ROLLBACK, asked.request(ALICE, 8)
    )
    restored = Asked.manifest(asked.namespace, "restored", **annotations)
    path = kinds.R1PLUS_DEPLOYMENT.path(asked.namespace)
    assert asked.who[BOB].ask("POST", path, restored).status == 201
    for forgery in (replace(asked.request(ALICE, 0), uid=""), replace(asked.request(ALICE, 7), uid="")):
        forged = Asked.manifest(asked.namespace, "forged", **build_annotations(Verb.ACK, forgery))
        assert_held(asked.who[BOB].ask("POST", path, forged), "requests", "not a valid request of this release")


def test_finding_07_a_new_object_leaves_numbers_for_its_requests(asked: Asked) -> None:
    bob, path = asked.who[BOB], kinds.R1PLUS_DEPLOYMENT.path(asked.namespace)
    for count in ("999999999999999", "9" * 30, "many"):
        full = Asked.manifest(asked.namespace, "full", **{ANNOTATION_COUNT: count})
        assert_held(bob.ask("POST", path, full), "requests", "a new object has none")
    restored = Asked.manifest(asked.namespace, "restored", **{ANNOTATION_COUNT: "999999999"})
    assert bob.ask("POST", path, restored).status == 201


def test_finding_07_other_edits_stay_open_and_the_count_alone_does_not(asked: Asked) -> None:
    edit = {"metadata": {"annotations": {"cost-centre": "17"}}, "spec": {"replicas": 2}}
    asked.who[ALICE].do("PATCH", asked.path, asked.patch(Verb.ACK, asked.request(ALICE, 1)))
    asked.who[BOB].do("PATCH", asked.path, edit)
    assert asked.read()["spec"]["replicas"] == 2
    count = {"metadata": {"annotations": {ANNOTATION_COUNT: "9"}}}
    assert_held(asked.who[BOB].ask("PATCH", asked.path, count), "requests", "the next request must have number 2")
