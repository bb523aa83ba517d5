"""The chart's policies as functions: who may change what the operator made."""

from typing import Any

import pytest

from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.runtime.errors import ForbiddenError
from support.api_contract.cluster import CONFIG_MAP, DEPLOYMENT, REVISION
from support.apiserver import manifests
from support.apiserver.manifests import MARK
from support.simulation.policies import build_policies
from support.simulation.server import SimulatedApiServer

OPERATOR, PLATFORM, TENANT = "operator", "platform", "anna"
NAMESPACE = "team-a"


@pytest.fixture
async def guarded(server: SimulatedApiServer) -> SimulatedApiServer:
    """A server with the policies, and a revision and a Deployment of the operator's."""
    server.policies += build_policies(OPERATOR, frozenset({PLATFORM}))
    revision = manifests.manifest(REVISION, "r", NAMESPACE, labels=MARK, revision=1, data={"a": 1})
    server.apply(REVISION, revision, field_manager="op", user=OPERATOR)
    deployment = manifests.deployment("d", {"app": "x"}, MARK)
    deployment["metadata"]["namespace"] = NAMESPACE
    server.apply(DEPLOYMENT, deployment, field_manager="op", user=OPERATOR)
    return server


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"revision": 2}, "revision"),
        ({"metadata": {"annotations": {f"{names.GROUP}/verdict": "Pass"}}}, "annotations of its own"),
        ({"metadata": {"labels": {names.LABEL_MANAGED_BY: None}}}, "labels"),
        ({"metadata": {"finalizers": ["r1plus.test/hold"]}}, "finalizers"),
        ({"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]}}, "owner"),
    ],
)
async def test_a_tenant_changes_nothing_of_a_revision(
    guarded: SimulatedApiServer, body: dict[str, Any], field: str
) -> None:
    with pytest.raises(ForbiddenError, match=field):
        guarded.patch(REVISION, NAMESPACE, "r", body, user=TENANT)
    guarded.patch(REVISION, NAMESPACE, "r", body, user=OPERATOR)


async def test_a_tenant_may_label_and_delete_a_child(guarded: SimulatedApiServer) -> None:
    guarded.patch(REVISION, NAMESPACE, "r", {"metadata": {"labels": {"team": "a"}}}, user=TENANT)
    guarded.delete(REVISION, NAMESPACE, "r", user=TENANT)


async def test_a_tenant_makes_no_child_of_the_operator(guarded: SimulatedApiServer) -> None:
    with pytest.raises(ForbiddenError, match="only the operator sets"):
        guarded.create(CONFIG_MAP, manifests.config_map("a", NAMESPACE, MARK), user=TENANT)
    guarded.create(CONFIG_MAP, manifests.config_map("a", NAMESPACE), user=TENANT)


async def test_the_platform_team_edits_what_is_paused(guarded: SimulatedApiServer) -> None:
    body = {"spec": {"replicas": 3}}
    with pytest.raises(ForbiddenError, match="spec"):
        guarded.patch(DEPLOYMENT, NAMESPACE, "d", body, user=PLATFORM)
    pause = {"metadata": {"labels": {names.LABEL_PAUSED: "true"}}}
    guarded.patch(DEPLOYMENT, NAMESPACE, "d", pause, user=OPERATOR)
    with pytest.raises(ForbiddenError, match="spec"):
        guarded.patch(DEPLOYMENT, NAMESPACE, "d", body, user=TENANT)
    guarded.patch(DEPLOYMENT, NAMESPACE, "d", body, user=PLATFORM)


async def test_controllers_write_statuses_and_collect(guarded: SimulatedApiServer) -> None:
    status = {"status": {"readyReplicas": 1}}
    with pytest.raises(ForbiddenError, match="status"):
        guarded.patch(DEPLOYMENT, NAMESPACE, "d", status, user=TENANT, subresource="status")
    controller = "system:serviceaccount:kube-system:deployment-controller"
    guarded.patch(DEPLOYMENT, NAMESPACE, "d", status, user=controller, subresource="status")


async def test_the_operator_overwrites_nothing_foreign(guarded: SimulatedApiServer) -> None:
    guarded.create(CONFIG_MAP, manifests.config_map("credit-accuracy", NAMESPACE), user=TENANT)
    ours = manifests.config_map("credit-accuracy", NAMESPACE, MARK, x="1")
    with pytest.raises(ForbiddenError, match="exists without the label"):
        guarded.apply(CONFIG_MAP, ours, field_manager="op", user=OPERATOR)
    with pytest.raises(ForbiddenError, match="exists without the label"):
        guarded.delete(CONFIG_MAP, NAMESPACE, "credit-accuracy", user=OPERATOR)


async def test_the_operator_takes_back_what_its_deployment_controls(guarded: SimulatedApiServer) -> None:
    obj = manifests.config_map("credit-accuracy", NAMESPACE, MARK)
    head = {"apiVersion": names.API_VERSION, "kind": kinds.R1PLUS_DEPLOYMENT.kind, "name": "credit", "uid": "u"}
    obj["metadata"]["ownerReferences"] = [{**head, "controller": True}]
    guarded.apply(CONFIG_MAP, obj, field_manager="op", user=OPERATOR)
    guarded.policies.clear()
    unmarked = {"metadata": {"labels": {names.LABEL_MANAGED_BY: None}}}
    guarded.patch(CONFIG_MAP, NAMESPACE, "credit-accuracy", unmarked)
    guarded.policies += build_policies(OPERATOR)
    guarded.apply(CONFIG_MAP, obj, field_manager="op", user=OPERATOR)
