"""Helpers of a tenant's gateway: containers in its pod that share a socket with it, and nothing else."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from r1plus_contract import embedder
from r1plus_contract.calculator import DEFAULT_INTERPRETER, DEFAULT_SOCKET, ENV_INTERPRETER, ENV_SOCKET
from r1plus_contract.gateway import ENV_CODE_INTERPRETER, GATEWAY
from r1plus_model_repo.catalog.embedding import EmbeddingEngine
from r1plus_operator.plan.observation import Json, NamespaceFacts, TokenIssuer
from r1plus_operator.plan.settings import PodUser
from r1plus_operator.plan.tenancy.gateway import GatewayObservation
from r1plus_operator.plan.tenancy.gateway_helpers import CALCULATOR, DOCUMENTS, GatewayHelper, build_embedder
from support.plan.embedding_engine import EMBEDDING_ENGINE
from support.plan.tenant_world import CONFIG, TenantWorld
from support.tables import for_each

ISSUER = TokenIssuer("https://issuer.example", '{"keys":[{"kid":"a"}]}')
SWITCHES = {"calculator": CALCULATOR, "embedding": build_embedder(EMBEDDING_ENGINE), "knowledge": DOCUMENTS}
"""Field of spec.gateway -> the helper that it asks for."""
ON: dict[str, Any] = {"calculator": True, "embedding": {"engine": "minilm"}, "knowledge": True}


def make_world(**gateway: Any) -> TenantWorld:
    return TenantWorld(
        spec={"gateway": {"enabled": True, **gateway}},
        gateway=GatewayObservation({}, (), ISSUER, embedding=EMBEDDING_ENGINE, has_embedding_name=True),
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


def test_code_is_run_by_the_calculator_alone_and_only_where_it_is_asked_for() -> None:
    gateway, helpers = split(settle_pod(make_world(calculator=True, codeInterpreter=True)))
    assert set(helpers) == {"calculator"}
    variables = {one["name"]: one["value"] for one in helpers["calculator"]["env"]}
    assert variables == {ENV_SOCKET: DEFAULT_SOCKET, ENV_INTERPRETER: DEFAULT_INTERPRETER}
    assert {"name": ENV_CODE_INTERPRETER, "value": "true"} in gateway["env"]
    without = make_world(calculator=True)
    assert settle_pod(without) == settle_pod(make_world(calculator=True, codeInterpreter=False))
    assert "INTERPRETER" not in json.dumps(settle_pod(without))


@pytest.mark.parametrize(("switch", "helper"), SWITCHES.items(), ids=SWITCHES)
def test_a_switch_restarts_the_pod_with_the_helper_and_back(switch: str, helper: GatewayHelper) -> None:
    world = make_world()
    before = settle_pod(world)
    world.spec = {"gateway": {"enabled": True, switch: ON[switch]}}
    assert set(split(settle_pod(world))[1]) == {helper.name}
    assert not world.settle().has_changes
    world.spec = {"gateway": {"enabled": True}}
    assert settle_pod(world) == before


@pytest.mark.parametrize(("switch", "helper"), SWITCHES.items(), ids=SWITCHES)
class TestOneHelper:
    """What each has, and what none has."""

    def test_shares_a_socket_with_the_gateway_and_nothing_else(self, switch: str, helper: GatewayHelper) -> None:
        pod = settle_pod(make_world(**{switch: ON[switch]}, tls={"secretName": "web-tls"}))
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
        settings = [{"name": name, "value": value} for name, value in helper.settings]
        assert container["env"] == [{"name": helper.socket_env, "value": helper.socket}, *settings]
        assert all(name.startswith(f"R1PLUS_{helper.name.upper()}_") for name, _ in helper.settings)

    def test_runs_its_own_program_of_the_same_image(self, switch: str, helper: GatewayHelper) -> None:
        pod = settle_pod(make_world(**{switch: ON[switch]}))
        gateway, helpers = split(pod)
        container = helpers[helper.name]
        assert container["image"] == gateway["image"]
        assert container["command"] == ["python3", "-m", helper.module]
        assert not {"args", "ports", "readinessProbe"} & container.keys()
        # Else SIGTERM in the first seconds of a container is lost, and its pod stays for the whole grace period.
        hook = ["python3", "-m", "r1plus_contract.early_exit", "5"]
        assert container["lifecycle"]["preStop"]["exec"]["command"] == hook
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
        world = make_world(**{switch: ON[switch]})
        world.config = replace(world.config, pod_user=user)
        pod = settle_pod(world)
        gateway, helpers = split(pod)
        own = helpers[helper.name]["securityContext"].get("runAsUser")
        assert own == (None if expected is None else expected + helper.user_offset)
        assert pod["securityContext"].get("runAsUser") == expected
        assert "runAsUser" not in gateway["securityContext"]

    def test_is_counted_with_cpu_memory_and_where_nodes_do_disk(self, switch: str, helper: GatewayHelper) -> None:
        world = make_world(**{switch: ON[switch]})
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


def test_the_embedders_engine_is_copied_out_of_its_image_and_checked_by_its_digest() -> None:
    pod = settle_pod(make_world(embedding=ON["embedding"]))
    (copy,) = pod["initContainers"]
    assert (copy["name"], copy["image"]) == ("embedder-engine", "registry.local/minilm:1")
    assert copy["command"] == ["/bin/sh", "-ec", "cp -R /engine/. /run/r1plus/embedder-engine/"]
    assert copy["volumeMounts"] == [{"name": "embedder-engine", "mountPath": "/run/r1plus/embedder-engine"}]
    container = split(pod)[1]["embedder"]
    (files,) = [mount for mount in container["volumeMounts"] if mount["name"] == "embedder-engine"]
    assert (files["mountPath"], files["readOnly"]) == (embedder.DEFAULT_ENGINE_DIR, True)
    assert {variable["name"]: variable["value"] for variable in container["env"]} == {
        "R1PLUS_EMBEDDER_SOCKET": "/run/r1plus/embedder/embedder.sock",
        "R1PLUS_EMBEDDER_ENGINE": "minilm",
        "R1PLUS_EMBEDDER_SHA256": "5a" * 32,
        "R1PLUS_EMBEDDER_THREADS": "2",
    }
    resources = container["resources"]
    assert resources == {"requests": {"cpu": "100m", "memory": "380Mi"}, "limits": {"cpu": "2500m", "memory": "380Mi"}}
    assert "initContainers" not in settle_pod(make_world(calculator=True))


def read_settings(world: TenantWorld) -> Json:
    settings: Json = json.loads(world.one("ConfigMap", GATEWAY)["data"]["gateway.json"])
    return settings


def test_the_disk_of_an_engines_files_is_asked_for() -> None:
    world = make_world(embedding=ON["embedding"])
    world.gateway = replace(world.gateway, counts_storage=True)
    pod = settle_pod(world)
    (volume,) = [one for one in pod["volumes"] if one["name"] == "embedder-engine"]
    assert volume["emptyDir"] == {"sizeLimit": "204Mi"}
    resources = split(pod)[1]["embedder"]["resources"]
    # Log 32 and 128, socket 1, files 204.
    assert resources["requests"]["ephemeral-storage"] == "237Mi"
    assert resources["limits"]["ephemeral-storage"] == "333Mi"


def test_the_gateway_is_told_which_engine_its_embedder_has() -> None:
    world = make_world(embedding=ON["embedding"])
    world.settle()
    assert read_settings(world)["embedding"] == {
        "name": "minilm",
        "sha256": "5a" * 32,
        "dimensions": 384,
        "mostTokens": 256,
        "createdAt": 0,
    }


def test_without_an_engine_the_settings_are_those_that_older_gateways_read() -> None:
    world = make_world()
    world.settle()
    assert "embedding" not in read_settings(world)


@for_each(
    "has_name, words",
    {
        "an engine that is not there": (False, "R1PlusEngine minilm does not exist in this cluster"),
        "an engine that answers prompts": (True, "R1PlusEngine minilm is not of kind embedding"),
    },
)
def test_an_engine_that_cannot_embed_changes_nothing_and_the_condition_names_it(has_name: bool, words: str) -> None:
    world = make_world()
    before = settle_pod(world)
    world.spec = {"gateway": {"enabled": True, "embedding": ON["embedding"]}}
    world.gateway = replace(world.gateway, embedding=None, has_embedding_name=has_name)
    assert settle_pod(world) == before
    (ready,) = [one for one in world.status["conditions"] if one["type"] == "GatewayReady"]
    assert (ready["status"], ready["reason"]) == ("False", "EngineNotFound")
    assert words in ready["message"]
    assert "name an engine of kind embedding" in ready["message"]
    world.gateway = replace(world.gateway, embedding=EMBEDDING_ENGINE)
    assert "embedder" in split(settle_pod(world))[1]


def test_an_engine_of_other_files_restarts_the_pod() -> None:
    world = make_world(embedding=ON["embedding"])
    before = settle_pod(world)
    spec = EMBEDDING_ENGINE.spec.model_copy(
        update={
            "artifact": EMBEDDING_ENGINE.spec.artifact.model_copy(
                update={"sha256": "6b" * 32, "image": "registry.local/m:2"}
            )
        }
    )
    world.gateway = replace(world.gateway, embedding=EmbeddingEngine("minilm", spec))
    assert settle_pod(world) != before
    assert read_settings(world)["embedding"]["sha256"] == "6b" * 32
