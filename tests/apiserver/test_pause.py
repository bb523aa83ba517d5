"""`spec.rollout.paused`: what the operator leaves alone, and whom the API server lets edit it by hand."""

import uuid
from collections.abc import Iterator

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_operator.api import kinds
from support.apiserver.manifests import MARK, ROLE_BINDING, deployment, manifest, role_binding, tenant_namespace, user
from support.apiserver.operator_process import OperatorProcess
from support.apiserver.people import STRATEGIC, Person, people
from support.apiserver.rights import OPERATOR
from support.apiserver.tenant import Tenant
from support.apiserver.walls import assert_held

pytestmark = pytest.mark.apiserver
MALLORY = "mallory"
PAUSED, WORKING = "credit-0123456789", "credit-abcdef0123"
DEPLOYMENT = kinds.BY_KIND["Deployment"]
EDIT = {"spec": {"replicas": 7}}


@pytest.fixture(scope="module")
def namespace(installed_server: ApiServer, admin: Person) -> Iterator[tuple[str, Person]]:
    """A tenant of Mallory, who has Kubernetes' `admin` as well, with a Deployment that is paused and one that is not."""
    made = f"a-{uuid.uuid4().hex[:10]}"
    with people(installed_server, MALLORY, OPERATOR) as who:
        admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(made))
        admin.do("POST", ROLE_BINDING.path(made), role_binding(made, "admin", "admin", user(MALLORY)))
        who[MALLORY].gets("update", DEPLOYMENT.plural, made, DEPLOYMENT.group)
        spec = deployment("d", {names.LABEL_DEPLOYMENT: "credit"})["spec"]
        for name, more in ((PAUSED, {names.LABEL_PAUSED: "true"}), (WORKING, {})):
            labels = {**MARK, names.LABEL_DEPLOYMENT: "credit", **more}
            who[OPERATOR].do("POST", DEPLOYMENT.path(made), manifest(DEPLOYMENT, name, labels=labels, spec=spec))
        yield made, who[MALLORY]


IMAGE = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "registry.local/c:2"}]}}}}
LABELS = {"spec": {"template": {"metadata": {"labels": {names.LABEL_SERVING: "true"}}}}}


def test_of_a_template_that_is_paused_all_but_its_labels_may_be_edited(
    namespace: tuple[str, Person], admin: Person
) -> None:
    paused, working = (DEPLOYMENT.path(namespace[0], name) for name in (PAUSED, WORKING))
    assert admin.ask("PATCH", paused, IMAGE, kind=STRATEGIC).status == 200
    for path, edit in ((paused, LABELS), (working, IMAGE)):
        assert admin.ask("PATCH", path, edit, kind=STRATEGIC).refused


def test_who_sets_an_image_by_hand_is_told_that_the_whole_template_is_the_operators(
    namespace: tuple[str, Person], admin: Person
) -> None:
    working = DEPLOYMENT.path(namespace[0], WORKING)
    image = admin.ask("PATCH", working, IMAGE, kind=STRATEGIC)
    labels = admin.ask("PATCH", DEPLOYMENT.path(namespace[0], PAUSED), LABELS, kind=STRATEGIC)
    # Two policies refuse it, and the API server tells what either says.
    assert image.status == 403
    assert "template.spec (image" in image.text or "spec: belongs to the operator" in image.text, image
    assert "metadata.labels" not in image.text
    assert_held(labels, "serving-templates", "template.metadata.labels: a pod template with the label")


def test_the_platform_team_alone_edits_what_is_paused_and_nothing_else(
    namespace: tuple[str, Person], admin: Person
) -> None:
    where, mallory = namespace
    paused, working = (DEPLOYMENT.path(where, name) for name in (PAUSED, WORKING))
    assert admin.ask("PATCH", paused, EDIT, kind=STRATEGIC).status == 200
    assert_held(admin.ask("PATCH", working, EDIT, kind=STRATEGIC), "children", "r1plus pause")
    for path in (paused, working):
        assert_held(mallory.ask("PATCH", path, EDIT, kind=STRATEGIC), "children", "belongs to the operator")


def test_nobody_but_the_operator_says_what_is_paused(namespace: tuple[str, Person], admin: Person) -> None:
    where, mallory = namespace
    on = {"metadata": {"labels": {names.LABEL_PAUSED: "true"}}}
    for who in (admin, mallory):
        answer = who.ask("PATCH", DEPLOYMENT.path(where, WORKING), on, kind=STRATEGIC)
        assert_held(answer, "children", "under r1plus.ai/")


async def test_a_pause_holds_back_all_but_the_policies_until_it_is_resumed(
    operator: OperatorProcess, tenant: Tenant
) -> None:
    revision = await tenant.serve()
    await tenant.client.patch(
        kinds.R1PLUS_DEPLOYMENT, "credit", tenant.namespace, {"spec": {"rollout": {"paused": True}}}
    )
    await tenant.until("credit", "Progressing", "False", "Paused")
    for kind, name in (("Deployment", revision), ("Service", "credit"), ("PodDisruptionBudget", "credit")):
        await tenant.child_that(
            kind, name, lambda it: it["metadata"]["labels"].get(names.LABEL_PAUSED) == "true", "it is marked"
        )
    by_hand = {"spec": {"template": {"spec": {"priorityClassName": ""}}, "replicas": 3}}
    await tenant.client.patch(DEPLOYMENT, revision, tenant.namespace, by_hand)
    policy = kinds.BY_KIND["NetworkPolicy"]
    await tenant.client.patch(policy, "credit", tenant.namespace, {"spec": {"ingress": [{}]}})
    await tenant.child_that("NetworkPolicy", "credit", lambda it: {} not in it["spec"]["ingress"], "the wall is back")
    found = await tenant.present("Deployment", revision)
    assert found["spec"]["replicas"] == 3
    await tenant.client.patch(
        kinds.R1PLUS_DEPLOYMENT, "credit", tenant.namespace, {"spec": {"rollout": {"paused": False}}}
    )
    await tenant.child_that("Deployment", revision, lambda it: it["spec"]["replicas"] == 1, "it is put right")
    for kind, name in (("Deployment", revision), ("Service", "credit")):
        await tenant.child_that(
            kind, name, lambda it: names.LABEL_PAUSED not in it["metadata"]["labels"], "the mark is gone"
        )
