"""Helpers of a tenant's gateway: containers in its pod that share a socket with it, and nothing else."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1plus_contract.calculator import DEFAULT_SOCKET, ENV_SOCKET
from r1plus_contract.gateway import GATEWAY
from r1plus_operator.plan.observation import Json, NamespaceFacts, TokenIssuer
from r1plus_operator.plan.settings import PodUser
from r1plus_operator.plan.tenancy.gateway import GatewayObservation
from r1plus_operator.plan.tenancy.gateway_helpers import CALCULATOR, GatewayHelper
from support.plan.tenant_world import CONFIG, TenantWorld
from support.tables import for_each

ISSUER = TokenIssuer("https://issuer.example", '{"keys":[{"kid":"a"}]}')
SWITCHES = {"calculator": CALCULATOR}
"""Field of spec.gateway -> the helper that it asks for."""


def make_world(**gateway: Any) -> TenantWorld:
    return TenantWorld(
        spec={"gateway": {"enabled": True, **gateway}},
        gateway=GatewayObservation({}, (), ISSUER),
        config=replace(CONFIG, gateway_image="registry.local/gateway:1"),
    )


def settle_pod(world: TenantWorld) -> Json:
    world.settle()
    return dict(world.one("Deployment", GATEWAY)["spec"]["template"]["spec"])


def split(pod: Json) -> tuple[Json, dict[str, Json]]:
    """Return the gateway's container, and the others by name."""
    containers = {container["name"]: container for container in pod["containers"]}
    return containers.pop("gateway"), containers


def test_without_a_switch_the_pod_is_as_it_was() -> None:
    plain, off = make_world(), make_world(calculator=False)
    assert settle_pod(plain) == settle_pod(off)
    gateway, helpers = split(settle_pod(plain))
    assert not helpers
    assert [variable["name"] for variable in gateway["env"]] == ["R1PLUS_GATEWAY_SETTINGS"]


@pytest.mark.parametrize(("switch", "helper"), SWITCHES.items(), ids=SWITCHES)
def test_a_switch_restarts_the_pod_with_the_helper_and_back(switch: str, helper: GatewayHelper) -> None:
    world = make_world()
    before = settle_pod(world)
    world.spec = {"gateway": {"enabled": True, switch: True}}
    assert set(split(settle_pod(world))[1]) == {helper.name}
    assert not world.settle().has_changes
    world.spec = {"gateway": {"enabled": True}}
    assert settle_pod(world) == before


@pytest.mark.parametrize(("switch", "helper"), SWITCHES.items(), ids=SWITCHES)
class TestOneHelper:
    """What each has, and what none has."""

    def test_shares_a_socket_with_the_gateway_and_nothing_else(self, switch: str, helper: GatewayHelper) -> None:
        pod = settle_pod(make_world(**{switch: True}, tls={"secretName": "web-tls"}))
        gateway, helpers = split(pod)
        container = helpers[helper.name]
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        shared = mounted & {mount["name"] for mount in gateway["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert shared == {helper.name}
        assert all("emptyDir" in volumes[name] for name in mounted)
        (socket,) = [mount for mount in gateway["volumeMounts"] if mount["name"] == helper.name]
        assert socket["readOnly"] is True
        assert socket["mountPath"] == str(Path(helper.socket).parent)
        assert {"name": helper.socket_env, "value": helper.socket} in gateway["env"]
        assert container["env"] == [{"name": helper.socket_env, "value": helper.socket}]

    def test_runs_its_own_program_of_the_same_image(self, switch: str, helper: GatewayHelper) -> None:
        pod = settle_pod(make_world(**{switch: True}))
        gateway, helpers = split(pod)
        container = helpers[helper.name]
        assert container["image"] == gateway["image"]
        assert container["command"] == ["python3", "-m", helper.module]
        assert not {"args", "lifecycle", "ports", "readinessProbe"} & container.keys()
        for probe in ("startupProbe", "livenessProbe"):
            assert container[probe]["exec"]["command"] == ["python3", "-m", helper.module, "health"]
        secure = container["securityContext"]
        assert (secure["readOnlyRootFilesystem"], secure["allowPrivilegeEscalation"]) == (True, False)
        assert secure["capabilities"] == {"drop": ["ALL"]}

    def test_is_named_as_the_policy_expects(self, switch: str, helper: GatewayHelper) -> None:
        assert helper.socket_env == f"R1PLUS_{helper.name.upper()}_SOCKET"
        assert helper.socket_folder == f"/run/r1plus/{helper.name}"
        template = Path("charts/r1plus-operator/templates/operator-policies.yaml").read_text()
        known = re.search(r"\$helpers := dict (.*) }}", template)
        assert known is not None
        assert f'"{helper.name}" "{helper.module}"' in known[1]

    @for_each("user, expected", {
        "the chart's": (PodUser(), 1000),
        "another one": (PodUser(70_000, 70_000, 70_000), 70_000),
        "as the namespace assigns": (PodUser(None, None, None), None),
    })  # fmt: skip
    def test_has_a_user_of_its_own(
        self, switch: str, helper: GatewayHelper, user: PodUser, expected: int | None
    ) -> None:
        world = make_world(**{switch: True})
        world.config = replace(world.config, pod_user=user)
        pod = settle_pod(world)
        gateway, helpers = split(pod)
        own = helpers[helper.name]["securityContext"].get("runAsUser")
        assert own == (None if expected is None else expected + helper.user_offset)
        assert pod["securityContext"].get("runAsUser") == expected
        assert "runAsUser" not in gateway["securityContext"]

    def test_is_counted_with_cpu_memory_and_where_nodes_do_disk(self, switch: str, helper: GatewayHelper) -> None:
        world = make_world(**{switch: True})
        for counts, kinds in ((False, {"cpu", "memory"}), (True, {"cpu", "memory", "ephemeral-storage"})):
            world.gateway = replace(world.gateway, counts_storage=counts)
            resources = split(settle_pod(world))[1][helper.name]["resources"]
            assert set(resources["requests"]) == set(resources["limits"]) == kinds


def test_in_a_namespace_that_assigns_users_no_container_names_one() -> None:
    world = make_world(calculator=True)
    assert isinstance(world.namespace, NamespaceFacts)
    world.namespace = replace(world.namespace, assigns_users=True)
    pod = settle_pod(world)
    assert "runAsUser" not in str(pod)


def test_the_calculators_socket_is_where_both_sides_look_for_it() -> None:
    assert (CALCULATOR.socket, CALCULATOR.socket_env) == (DEFAULT_SOCKET, ENV_SOCKET)
