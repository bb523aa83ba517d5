"""A tenant's gateway: which objects it has and when, what they open, what the condition says, and what outlives it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from r1plus_contract import names
from r1plus_contract.gateway import (
    ANNOTATION_DIRECT_ACCESS,
    GATEWAY,
    GATEWAY_ADMIN,
    GATEWAY_KEY,
    GATEWAY_SERVICE,
    LABEL_GATEWAY,
    Capability,
    DataReason,
    DataState,
    GatewayLimits,
    GatewaySettings,
    ModelSettings,
    RevisionFacts,
    name_pods_service,
)
from r1plus_gateway.http.body.bodies import SHARE_OF_CALLER
from r1plus_gateway.settings import parse_settings
from r1plus_operator.api.conditions import Reason
from r1plus_operator.api.tenants import R1PlusTenantSpec
from r1plus_operator.plan.observation import (
    REFUSED_PODS,
    ContainerFacts,
    GatewayView,
    Json,
    PodFacts,
    TenantView,
    TokenIssuer,
)
from r1plus_operator.plan.revision.storage import read_revisions
from r1plus_operator.plan.tenancy import network_policies
from r1plus_operator.plan.tenancy.gateway import GatewayObservation
from r1plus_operator.plan.tenancy.gateway_condition import VOLUMES_SECONDS
from r1plus_operator.plan.tenancy.gateway_models import build_model
from support.examples import count_examples
from support.plan.selectors import selects
from support.plan.tenant_world import CONFIG, TenantWorld, facts
from support.plan.world import World
from support.tables import for_each

IMAGE = "registry.local/gateway:1"
LEFT = {("PersistentVolumeClaim", GATEWAY), ("ServiceAccount", GATEWAY), ("ServiceAccount", GATEWAY_ADMIN)}
"""What outlives a gateway."""
ISSUER = TokenIssuer("https://issuer.example", '{"keys":[{"kid":"a"}]}')
CREDIT = ModelSettings("credit", "credit-pods.team.svc", 2048, 8, namespaces=("mail", "shop"))
DATABASE: Json = {"secretName": "store", "egress": {"cidr": "10.9.0.0/16", "ports": [5432]}}
POD = PodFacts("gateway-1", "", "10.0.0.9", True, False, "")
OBJECTS = {
    ("NetworkPolicy", GATEWAY),
    ("ServiceAccount", GATEWAY),
    ("ServiceAccount", GATEWAY_ADMIN),
    ("ConfigMap", GATEWAY),
    ("PersistentVolumeClaim", GATEWAY),
    ("Deployment", GATEWAY),
    ("Service", GATEWAY_SERVICE),
}


def make_world(*pods: PodFacts, **gateway: Any) -> TenantWorld:
    """Return a tenant with a gateway, whose deployment `credit` serves."""
    return TenantWorld(
        spec={"gateway": {"enabled": True, **gateway}, "callers": {"namespaces": ["shop"]}},
        gateway=GatewayObservation({"credit": CREDIT}, pods, ISSUER),
        config=replace(CONFIG, gateway_image=IMAGE),
    )


def list_objects(world: TenantWorld) -> set[tuple[str, str]]:
    """Return kind and name of what belongs to the gateway."""
    return {
        (kind, name) for (_, kind, name), obj in world.live.items()
        if obj["metadata"]["labels"].get(names.LABEL_ISOLATION) == "gateway"
    }  # fmt: skip


def read_settings(world: TenantWorld) -> GatewaySettings:
    """Read them as the gateway does, with all of its checks."""
    return parse_settings(world.one("ConfigMap", GATEWAY)["data"]["gateway.json"].encode())


def get_pod(world: TenantWorld) -> Json:
    return dict(world.one("Deployment", GATEWAY)["spec"]["template"]["spec"])


GATEWAYS = st.fixed_dictionaries(
    {"enabled": st.booleans()},
    optional={
        "directAccess": st.booleans(),
        "tls": st.just({"secretName": "web-tls"}),
        "database": st.just(DATABASE),
        "replicas": st.integers(0, 3),
        "calculator": st.booleans(),
        "codeInterpreter": st.booleans(),
        "knowledge": st.booleans(),
        "nonsense": st.just(1),
    },
)
NAMES = st.sets(st.sampled_from(["credit", "credit-pods", GATEWAY_SERVICE]))
OBSERVATIONS = st.builds(
    GatewayObservation,
    models=NAMES.map(lambda names_of_it: {name: replace(CREDIT, name=name) for name in sorted(names_of_it)}),
    pods=st.sampled_from([(), (POD,), (replace(POD, ready=False, volumes_pending_since=1.0),)]),
    issuer=st.sampled_from([None, ISSUER]),
    kinds=st.sampled_from([frozenset(), frozenset({"PodMonitor"})]),
    counts_storage=st.booleans(),
)
SCENES = st.fixed_dictionaries(
    {
        "spec": st.none() | st.builds(lambda gateway: {"gateway": gateway}, GATEWAYS),
        "gateway": OBSERVATIONS,
        "namespace": st.builds(facts, is_tenant=st.booleans(), is_terminating=st.booleans()),
        "leaving": st.booleans(),
        "deployments": st.sampled_from([(), ("credit",)]),
        "addresses": st.sampled_from([(), ("10.9.0.4",)]),
        "refused": st.sampled_from(["", "403: no"]),
        "config": st.sampled_from([CONFIG, replace(CONFIG, gateway_image=IMAGE)]),
    }
)


@settings(max_examples=count_examples(150), deadline=None)
@given(SCENES, SCENES)
def test_whatever_changes_passes_come_to_an_end_and_leave_no_more_than_the_data(before: Json, after: Json) -> None:
    world = TenantWorld()
    for scene in (before, after):
        for field, value in scene.items():
            setattr(world, field, value)
        world.settle()
        for _ in range(2):
            planned = world.pass_once()
            assert not planned.has_changes
            assert planned.status is None
    if planned.view.gateway is None and world.namespace.is_tenant and not world.namespace.is_terminating:
        assert {kind for kind, _ in list_objects(world)} <= {"ServiceAccount", "PersistentVolumeClaim"}


def test_without_it_a_tenant_is_as_it_was() -> None:
    plain, off = TenantWorld(spec={}), TenantWorld(spec={"gateway": {"enabled": False}})
    for world in (plain, off):
        world.settle()
    assert plain.live == off.live
    assert list_objects(off) == set()
    assert [c["type"] for c in off.status["conditions"]] == ["Ready", "IsolationVerified"]
    assert off.plan().view.gateway is None


def test_enabled_it_has_its_objects_and_the_pods_come_after_what_they_mount() -> None:
    world = make_world()
    stages = [{obj["kind"] for obj in stage} for stage in world.plan().apply[-3:]]
    assert stages == [
        {"NetworkPolicy", "ServiceAccount", "ConfigMap", "PersistentVolumeClaim"},
        {"Deployment"},
        {"Service"},
    ]
    world.settle()
    assert list_objects(world) == OBJECTS
    assert not world.settle().has_changes


def test_the_settings_name_what_serves_and_who_may_call_it() -> None:
    world = make_world(limits={"bodyBytes": 4096, "silenceSeconds": 60, "chunksPerKey": 100_000})
    world.settle()
    told = read_settings(world)
    assert told.namespace == "team"
    assert told.models == (replace(CREDIT, namespaces=("shop",)),), "mail is not allowed by the platform team"
    assert (told.limits.body_bytes, told.limits.silence_seconds) == (4096, 60.0)
    assert told.limits.chunks_per_key == told.limits.chunks_per_tenant == 100_000
    assert told.tls is None
    data = world.one("ConfigMap", GATEWAY)["data"]
    assert (data["jwks.json"], told.tokens.issuer) == (ISSUER.jwks, ISSUER.issuer)
    assert told.tokens.namespaces == ("shop",)
    assert (told.data.tenant_uid, told.data.database_url_file) == ("uid-of-team", "")


def test_a_promotion_and_a_rotation_of_keys_change_the_settings_and_restart_nothing() -> None:
    world = make_world(POD)
    world.settle()
    before = world.one("Deployment", GATEWAY)
    rotated = TokenIssuer(ISSUER.issuer, '{"keys":[{"kid":"b"}]}')
    world.gateway = replace(world.gateway, models={"credit": replace(CREDIT, batch=2)}, issuer=rotated)
    written = [obj["kind"] for stage in world.pass_once().apply for obj in stage]
    assert written == ["ConfigMap"]
    assert read_settings(world).models[0].batch == 2
    assert world.one("Deployment", GATEWAY) == before
    world.expect(GatewayReady="True Ready")


def test_what_is_read_at_the_start_only_replaces_the_pod() -> None:
    world = make_world()
    world.settle()
    before = world.one("Deployment", GATEWAY)["spec"]["template"]
    world.spec = {"gateway": {"enabled": True, "limits": {"bodyBytes": 1024}}}
    world.settle()
    assert world.one("Deployment", GATEWAY)["spec"]["template"] != before


def test_its_pod_is_locked_down_and_mounts_the_tenants_secrets_only() -> None:
    world = make_world(tls={"secretName": "web-tls"})
    world.settle()
    pod = get_pod(world)
    (container,) = pod["containers"]
    assert pod["serviceAccountName"] == GATEWAY
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["image"] == IMAGE
    assert not {"command", "args"} & container.keys(), "the image's own entry point runs beside the Secrets"
    secrets = [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]
    assert secrets == [GATEWAY_KEY, "web-tls"]
    assert {probe["httpGet"]["port"] for name, probe in container.items() if name.endswith("Probe")} == {"internal"}
    (port,) = world.one("Service", GATEWAY_SERVICE)["spec"]["ports"]
    target = next(own for own in container["ports"] if own["name"] == port["targetPort"])
    assert (port["port"], target["containerPort"]) == (443, 8080)
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    told = read_settings(world)
    assert {told.data.folder, told.data.secret_folder, str(Path(told.tokens.jwks).parent)} <= mounts
    assert told.tls is not None
    assert str(Path(told.tls.key).parent) in mounts
    assert container["env"] == [{"name": "R1PLUS_GATEWAY_SETTINGS", "value": "/etc/r1plus/gateway/gateway.json"}]


def test_with_a_volume_one_pod_stops_before_the_next_starts_and_with_a_database_several_run() -> None:
    alone, several = make_world(), make_world(replicas=3, database=DATABASE)
    for world in (alone, several):
        world.settle()
    assert alone.one("Deployment", GATEWAY)["spec"]["strategy"] == {"type": "Recreate"}
    volumes = {volume["name"]: volume for volume in get_pod(alone)["volumes"]}
    assert volumes["store"]["persistentVolumeClaim"] == {"claimName": GATEWAY}
    spec = several.one("Deployment", GATEWAY)["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (3, "RollingUpdate")
    assert ("PersistentVolumeClaim", GATEWAY) not in list_objects(several)
    data = read_settings(several).data
    assert (data.folder, data.database_url_file) == ("", "/etc/r1plus/database/url")
    assert ("PodDisruptionBudget", GATEWAY) in list_objects(several)
    assert ("PodDisruptionBudget", GATEWAY) not in list_objects(alone)
    assert [v["secret"]["secretName"] for v in get_pod(several)["volumes"] if "secret" in v] == [GATEWAY_KEY, "store"]


@for_each("database, seconds", {"the next one waits for its volume": (None, 60), "others answer": (DATABASE, 600)})
def test_running_answers_end_before_its_grace_period(database: Json | None, seconds: int) -> None:
    world = make_world(database=database) if database else make_world()
    world.settle()
    assert read_settings(world).drain_seconds == seconds
    assert get_pod(world)["terminationGracePeriodSeconds"] == 5 + seconds + 25


def test_one_body_is_at_most_a_callers_share_of_all() -> None:
    most = GatewayLimits().bodies_bytes // SHARE_OF_CALLER
    R1PlusTenantSpec.model_validate({"gateway": {"limits": {"bodyBytes": most}}})
    with pytest.raises(ValidationError, match="bodyBytes"):
        R1PlusTenantSpec.model_validate({"gateway": {"limits": {"bodyBytes": most + 1}}})


def test_a_claim_that_was_enlarged_is_not_overruled() -> None:
    world = make_world()
    world.settle()
    world.one("PersistentVolumeClaim", GATEWAY)["spec"]["resources"]["requests"]["storage"] = "5Gi"
    assert not world.settle().has_changes


def test_it_is_scraped_where_prometheus_operator_is() -> None:
    world = make_world()
    world.gateway = replace(world.gateway, kinds=frozenset({"PodMonitor"}))
    world.settle()
    assert world.one("PodMonitor", GATEWAY)["spec"]["podMetricsEndpoints"][0]["port"] == "internal"


def test_it_stays_on_the_tenants_own_nodes_and_counts_disk_where_nodes_do() -> None:
    world = make_world()
    assert world.spec is not None
    toleration = {"key": "dedicated", "value": "credit", "effect": "NoSchedule"}
    world.spec["placement"] = {"nodeSelectors": [{"pool": "credit"}], "tolerations": [toleration]}
    world.gateway = replace(world.gateway, counts_storage=True)
    world.settle()
    pod = get_pod(world)
    assert pod["nodeSelector"]["pool"] == "credit"
    assert pod["tolerations"][0]["key"] == "dedicated"
    assert "ephemeral-storage" in pod["containers"][0]["resources"]["requests"]


class TestWhoConnects:
    """What the network policies let through."""

    def test_its_policy_lets_in_clients_and_prometheus_and_out_to_models(self) -> None:
        sources = [{"namespace": "ingress"}, {"cidr": "10.1.0.0/16"}]
        world = make_world(database=DATABASE, **{"from": sources})
        world.addresses = ("10.9.0.4",)
        world.settle()
        spec = world.one("NetworkPolicy", GATEWAY)["spec"]
        assert selects(spec["podSelector"], {LABEL_GATEWAY: "true"})
        clients, platform = spec["ingress"]
        assert clients["from"][0] == {"podSelector": {}}
        assert clients["from"][1]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == "ingress"
        assert clients["from"][2] == {"ipBlock": {"cidr": "10.1.0.0/16"}}
        assert [port["port"] for port in clients["ports"]] == [8080]
        sources = [
            source["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for source in platform["from"]
        ]
        assert sources == ["monitoring", "r1plus-system"]
        assert [port["port"] for port in platform["ports"]] == [8081]
        _, models, database = spec["egress"]
        assert [port["port"] for port in models["ports"]] == [names.PORT_GRPC, names.PORT_MONITOR]
        assert selects(models["to"][0]["podSelector"], {names.LABEL_DEPLOYMENT: "credit"})
        assert database["to"] == [{"ipBlock": {"cidr": "10.9.0.0/16", "except": ["10.9.0.4/32"]}}]

    def test_the_tenants_own_pods_reach_it_and_it_has_none_of_their_ways_out(self) -> None:
        world = make_world()
        assert world.spec is not None
        world.spec["egress"] = [{"namespace": "postgres", "ports": [5432]}]
        world.settle()
        spec = world.one("NetworkPolicy", network_policies.CALLERS)["spec"]
        assert not selects(spec["podSelector"], {LABEL_GATEWAY: "true"})
        assert selects(spec["podSelector"], {"app": "web"})
        ways = {json.dumps(rule["to"]): [port["port"] for port in rule["ports"]] for rule in spec["egress"][1:]}
        assert [8080] in ways.values()
        assert [names.PORT_HTTP, names.PORT_GRPC] in ways.values()

    def test_others_are_shut_out_when_it_is_first_ready_and_a_restart_lets_none_in(self) -> None:
        world = make_world(directAccess=False)
        world.settle()
        assert world.plan().view.gateway == GatewayView()
        world.gateway = replace(world.gateway, pods=(POD,))
        world.settle()
        assert world.plan().view.gateway == GatewayView(is_exclusive=True)
        annotations = world.one("NetworkPolicy", GATEWAY)["metadata"]["annotations"]
        assert annotations[ANNOTATION_DIRECT_ACCESS] == "closed"
        callers = world.one("NetworkPolicy", network_policies.CALLERS)["spec"]["egress"]
        assert [[port["port"] for port in rule["ports"]] for rule in callers[1:]] == [[8080]]
        world.gateway = replace(world.gateway, pods=(replace(POD, ready=False),), issuer=None)
        world.settle()
        world.expect(GatewayReady="False Starting")
        assert world.plan().view.gateway == GatewayView(is_exclusive=True)

    def test_direct_access_opens_again_when_it_is_allowed_again(self) -> None:
        world = make_world(POD, directAccess=False)
        world.settle()
        world.spec = {"gateway": {"enabled": True}}
        world.settle()
        assert world.plan().view.gateway == GatewayView()
        assert ANNOTATION_DIRECT_ACCESS not in world.one("NetworkPolicy", GATEWAY)["metadata"]["annotations"]


def starts(**changed: Any) -> PodFacts:
    return replace(POD, ready=False, **changed)


def container(**state: Any) -> tuple[ContainerFacts, ...]:
    return (ContainerFacts("gateway", ready=False, **state),)


class TestTheCondition:
    """GatewayReady names the cause and what to do."""

    @for_each("pods, refused, expected", {
        "a pod is ready": ((POD,), "", ("True Ready", "1 of 1 pods", "1 model")),
        "none has been made yet": ((), "", ("False Starting", "no pod yet")),
        "it is on its way": ((starts(),), "", ("False Starting", "not ready yet", "kubectl logs gateway-1")),
        "its node mounts volumes": ((starts(volumes_pending_since=10_000.0),), "", ("False Starting",)),
        "a Secret is missing": ((starts(volumes_pending_since=10_000.0 - VOLUMES_SECONDS - 5),), "", ("False KeyMissing", GATEWAY_KEY, "web-tls", "kubectl describe pod")),
        "the image is": ((starts(containers=container(waiting_reason="ImagePullBackOff", message="not found")),), "", ("False ImagePullFailed", "not found", "images.gateway")),
        "no node takes it": ((starts(unschedulable="0/1 nodes"),), "", ("False Unschedulable", "0/1 nodes", "storage class")),
        "it ends again and again": ((starts(containers=container(waiting_reason="CrashLoopBackOff", exit_code=2, message="Settings are not usable")),), "", ("False CrashLooping", "exit code 2", "Settings are not usable", "-c gateway")),
        "its calculator does": ((starts(containers=(ContainerFacts("calculator", ready=False, waiting_reason="CrashLoopBackOff", exit_code=2),)),), "", ("False CrashLooping", "Container calculator of pod gateway-1", "kubectl logs gateway-1 -c calculator")),
        "the quota has no room": ((), "pods is forbidden: exceeded quota: pods=20", ("False QuotaExceeded", "exceeded quota", "spec.quota")),
        "admission refuses it": ((), "denied by policy x", ("False PodRefused", "denied by policy x")),
        "the former one only ends": ((replace(POD, terminating=True),), "", ("False Starting", "no pod yet")),
    })  # fmt: skip
    def test_of_a_gateway_whose_objects_stand(self, pods: tuple[PodFacts, ...], refused: str, expected: Any) -> None:
        world = make_world(tls={"secretName": "web-tls"})
        world.settle()
        world.now = 10_000.0
        if refused:
            world.one("Deployment", GATEWAY)[REFUSED_PODS] = refused
        world.gateway = replace(world.gateway, pods=pods)
        world.pass_once()
        world.expect(GatewayReady=expected)

    @for_each("ready, state, expected, of_data", {
        "the volume is full": (False, DataState(DataReason.FULL, "/data: no space.\nEnlarge it"), ("False VolumeFull", "Pod gateway-1 cannot use the tenant's data: /data: no space. Enlarge it"), ("False VolumeFull", "Pod gateway-1 reports: /data: no space. Enlarge it")),
        "PostgreSQL is gone": (False, DataState(DataReason.UNAVAILABLE, "refused"), ("False DatabaseUnavailable", "refused"), ("False DatabaseUnavailable", "refused")),
        "it opens its data": (False, DataState(DataReason.STARTING, "are being opened; wait"), ("False Starting", "are being opened; wait"), ("Unknown Starting", "see GatewayReady")),
        "it can serve, and its probe has not seen that": (False, DataState(DataReason.READY, "fine", True), ("False Starting", "kubectl logs gateway-1"), ("True Ready", "can be read and written")),
        "its probe has not failed often enough": (True, DataState(DataReason.LOCKED, "in use"), "True Ready", ("False Locked", "Pod gateway-1 reports: in use")),
        "a half is gone that only a start needs": (True, DataState(DataReason.KEY_LOST, "could not start again", True), "True Ready", ("False KeyLost", "could not start again")),
        "nothing is wrong": (True, DataState(DataReason.READY, "fine", True), ("True Ready", "serves 1 model"), ("True Ready", "No conversation is stored", "spec.data.retentionDays")),
        "the message is endless": (False, DataState(DataReason.CORRUPT, "x" * 10_000), ("False DataCorrupt", "x" * 600), ("False DataCorrupt", "x" * 600)),
    })  # fmt: skip
    def test_of_one_that_reports_on_its_data(self, ready: bool, state: DataState, expected: Any, of_data: Any) -> None:
        world = make_world()
        world.settle()
        world.gateway = replace(world.gateway, pods=(replace(POD, ready=ready),), data_states={POD.name: state})
        world.pass_once()
        world.expect(GatewayReady=expected, DataReady=of_data)
        for condition in world.status["conditions"]:
            assert len(condition["message"]) < 800
            assert "fine" not in condition["message"]

    @for_each("pod, expected", {
        "none has reported": (POD, ("Unknown Starting", "see GatewayReady")),
        "a Secret is missing": (starts(volumes_pending_since=0.0), ("False KeyMissing", GATEWAY_KEY)),
    })  # fmt: skip
    def test_of_data_that_nothing_is_known_of(self, pod: PodFacts, expected: Any) -> None:
        world = make_world(pod)
        world.settle()
        world.now = 10_000.0
        world.pass_once()
        world.expect(DataReady=expected)

    def test_of_data_that_are_kept_says_for_how_long(self) -> None:
        world = make_world(POD)
        world.spec = {**world.spec, "data": {"retentionDays": 30}}
        world.gateway = replace(world.gateway, data_states={POD.name: DataState(DataReason.READY, "fine", True)})
        world.settle()
        world.expect(DataReady=("True Ready", "Conversations are kept for 30 days after their last use"))
        settings = json.loads(world.one("ConfigMap", GATEWAY)["data"]["gateway.json"])
        assert settings["data"]["contentDays"] == 30

    def test_every_reason_of_a_gateway_is_one_of_the_condition(self) -> None:
        assert {reason.value for reason in DataReason} <= {reason.value for reason in Reason}

    def test_a_pod_that_waits_for_its_volumes_is_looked_at_again_in_time(self) -> None:
        world = make_world(starts(volumes_pending_since=10_000.0))
        world.now = 10_005.0
        assert world.plan().requeue_after == pytest.approx(VOLUMES_SECONDS - 5)

    @for_each("change, expected", {
        "no image is set": ({"config": CONFIG}, ("False ImageNotSet", "images.gateway")),
        "the issuer is unknown": ({"gateway": GatewayObservation({}, (), None)}, ("False IssuerUnknown", "/openid/v1/jwks")),
        "a deployment has the Service's name": ({"gateway": GatewayObservation({GATEWAY_SERVICE: None}, (), ISSUER)}, ("False NameTaken", "under another name")),
    })  # fmt: skip
    def test_of_one_that_cannot_be_made(self, change: dict[str, Any], expected: Any) -> None:
        world = make_world()
        for field, value in change.items():
            setattr(world, field, value)
        world.settle()
        world.expect(GatewayReady=expected, Ready="True")
        assert list_objects(world) == set()

    @for_each("change, service_stands, expected", {
        "no image is set any more": ({"config": CONFIG}, True, "False ImageNotSet"),
        "its Service is gone, and a deployment has the name": ({"gateway": GatewayObservation({GATEWAY_SERVICE: None}, (POD,), ISSUER)}, False, "False NameTaken"),
        "a database's network cannot be opened": ({"addresses": ("10.9.0.4",)}, True, "False EgressNotOpened"),
        "a write is refused": ({"refused": "403: no", "spec": {"gateway": {"enabled": True}}}, True, "False WriteRefused"),
    })  # fmt: skip
    def test_of_one_that_cannot_be_changed_while_its_pods_serve(
        self, change: dict[str, Any], service_stands: bool, expected: str
    ) -> None:
        world = make_world(POD, database={"secretName": "store", "egress": {"cidr": "10.9.0.4/32", "ports": [5432]}})
        world.settle()
        for field, value in change.items():
            setattr(world, field, value)
        if not service_stands:
            del world.live[world.namespace.name, "Service", GATEWAY_SERVICE]
        world.pass_once()
        world.expect(GatewayReady=(expected, "Pods that run go on unchanged", "are ready"))
        (condition,) = [one for one in world.status["conditions"] if one["type"] == "GatewayReady"]
        assert not any(claim in condition["message"] for claim in ("there is none", "is not made"))

    def test_a_write_that_is_refused_is_reported_with_the_remedy(self) -> None:
        world = make_world()
        world.refused = "403: no; ask an administrator"
        world.pass_once()
        world.expect(GatewayReady=("False WriteRefused", "NetworkPolicy r1plus-gateway is not in place", "403: no"))

    def test_a_database_among_the_nodes_stays_shut(self) -> None:
        egress = {"cidr": "10.9.0.4/32", "ports": [5432]}
        world = make_world(POD, database={"secretName": "store", "egress": egress})
        world.addresses = ("10.9.0.4",)
        world.settle()
        world.expect(GatewayReady=("False EgressNotOpened", "10.9.0.4/32", "another network"))
        assert world.plan().gateway_ready_pods == 1, "a pod that serves already goes on"

    def test_a_deployment_whose_headless_service_another_one_has_is_named(self) -> None:
        world = make_world(POD)
        world.gateway = replace(world.gateway, models={"credit": None, "credit-pods": None})
        world.settle()
        world.expect(GatewayReady=("True Ready", "Without credit", "NAME-pods"))
        assert world.plan().view.gateway == GatewayView(unreachable=frozenset({"credit"}))

    def test_while_the_operator_starts_a_gateway_that_runs_is_as_ready_as_it_was(self) -> None:
        world = make_world(POD)
        world.settle()
        before = dict(world.live)
        world.gateway = replace(world.gateway, issuer=None)
        world.settle()
        world.expect(GatewayReady="True Ready")
        assert world.live == before


FULL = DataState(DataReason.FULL, "no space; enlarge the volume")
FINE = DataState(DataReason.READY, "fine", True)
BROKEN, OTHER = replace(POD, name="gateway-2", ready=False), replace(POD, name="gateway-3")


class TestCallersOfOneThatCannotServe:
    """They get an answer with the reason instead of no connection, and never one while another pod can serve."""

    def publishes(self, world: TenantWorld, *pods: PodFacts, **states: DataState) -> bool:
        """Return whether the Service leads to pods that are not ready, after passes over these pods."""
        data_states = {name.replace("_", "-"): state for name, state in states.items()}
        world.gateway = replace(world.gateway, pods=pods, data_states=data_states)
        world.settle()
        assert not world.pass_once().has_changes
        return bool(world.one("Service", GATEWAY_SERVICE)["spec"].get("publishNotReadyAddresses"))

    @for_each("pods, states, is_published", {
        "its only pod is ready": ((POD,), {"gateway_1": FINE}, False),
        "its only pod is not ready and reports why": ((starts(),), {"gateway_1": FULL}, True),
        "its only pod reports why, and its probe has not failed yet": ((POD,), {"gateway_1": FULL}, True),
        "a half is gone that only a start needs": ((POD,), {"gateway_1": replace(FULL, can_serve=True)}, False),
        "one of two pods can serve": ((OTHER, BROKEN), {"gateway_2": FULL, "gateway_3": FINE}, False),
        "neither of two pods can": ((OTHER, BROKEN), {"gateway_2": FULL, "gateway_3": FULL}, True),
        "one of them says nothing, and is ready": ((OTHER, BROKEN), {"gateway_2": FULL}, False),
        "it starts, and its data can be used": ((starts(),), {"gateway_1": FINE}, False),
        "it starts, and says nothing yet": ((starts(),), {}, False),
        "it opens its data for long": ((starts(),), {"gateway_1": DataState(DataReason.STARTING, "wait")}, False),
        "the pod that reports why only ends": ((replace(BROKEN, terminating=True),), {"gateway_2": FULL}, False),
        "there is none": ((), {}, False),
    })  # fmt: skip
    def test_the_service_leads_to_pods_that_are_not_ready(
        self, pods: tuple[PodFacts, ...], states: dict[str, DataState], is_published: bool
    ) -> None:
        world = make_world(replicas=2, database=DATABASE)
        assert self.publishes(world, *pods, **states) is is_published

    def test_it_does_until_one_is_ready_so_that_a_repair_leaves_no_gap(self) -> None:
        world = make_world()
        assert self.publishes(world, starts(), gateway_1=FULL)
        assert self.publishes(world, starts(), gateway_1=FINE), "its probe has not seen that yet"
        assert self.publishes(world), "its pod is replaced"
        assert not self.publishes(world, POD, gateway_1=FINE)
        assert not self.publishes(world, starts(), gateway_1=FINE)


class TestItsEnd:
    """What goes, what stays, and in which order."""

    def test_switched_off_all_goes_but_data_and_account_and_the_condition_says_so(self) -> None:
        world = make_world(POD, directAccess=False)
        world.settle()
        world.spec = {"gateway": {"enabled": False}}
        world.settle()
        assert list_objects(world) == LEFT
        world.expect(
            GatewayReady=("False Disabled", "PersistentVolumeClaim r1plus-gateway", GATEWAY_KEY),
            DataReady="Unknown Disabled",
        )
        assert world.plan().view.gateway is None
        del world.live["team", "PersistentVolumeClaim", GATEWAY]
        world.settle()
        assert [c["type"] for c in world.status["conditions"]] == ["Ready", "IsolationVerified"]

    def test_with_its_r1plustenant_it_stays_for_its_deployments_and_goes_with_the_grants(self) -> None:
        world = make_world(POD)
        world.settle()
        world.leaving, world.deployments = True, ("credit",)
        world.settle()
        assert list_objects(world) == OBJECTS
        world.deployments = ()
        assert world.pass_once().finalizer is None
        assert list_objects(world) == LEFT
        world.settle()
        assert world.spec is None, "the R1PlusTenant is gone"

    @for_each("policy, left", {
        "by default its data stay": ({}, LEFT),
        "its data stay": ({"deletionPolicy": "Retain"}, LEFT),
        "its data go as well": ({"deletionPolicy": "Delete"}, LEFT - {("PersistentVolumeClaim", GATEWAY)}),
    })  # fmt: skip
    def test_with_its_r1plustenant(self, policy: Json, left: set[tuple[str, str]]) -> None:
        world = make_world(POD)
        world.spec = {**world.spec, "data": policy}
        world.settle()
        assert list_objects(world) == OBJECTS
        world.leaving = True
        assert world.pass_once().finalizer is None, "the R1PlusTenant waits until all has gone"
        world.settle()
        assert list_objects(world) == left
        assert world.spec is None, "the R1PlusTenant is gone"

    def test_switched_off_its_data_stay_whatever_is_to_go_with_the_r1plustenant(self) -> None:
        world = make_world(POD)
        world.spec = {"gateway": {"enabled": True}, "data": {"deletionPolicy": "Delete"}}
        world.settle()
        world.spec = {"gateway": {"enabled": False}, "data": {"deletionPolicy": "Delete"}}
        world.settle()
        assert list_objects(world) == LEFT

    @pytest.mark.parametrize(
        "spec", [{"gateway": {"replicas": 9}}, {"gateway": "yes"}, {"quota": {"pods": "many"}}], ids=str
    )
    def test_while_the_spec_cannot_be_read_it_stays_as_it_is(self, spec: Json) -> None:
        world = make_world(POD, directAccess=False)
        world.settle()
        before = {key: obj for key, obj in world.live.items() if key[2] in (GATEWAY, GATEWAY_SERVICE)}
        world.spec = spec
        world.settle()
        assert {key: obj for key, obj in world.live.items() if key[2] in (GATEWAY, GATEWAY_SERVICE)} == before
        world.expect(GatewayReady="Unknown InvalidSpec", DataReady="Unknown InvalidSpec", Ready="False InvalidSpec")
        assert world.plan().view.gateway == GatewayView(is_exclusive=True)

    def test_a_lost_label_changes_nothing_of_it(self) -> None:
        world = make_world(POD)
        world.settle()
        before = dict(world.live)
        world.namespace = facts(is_tenant=False)
        world.settle()
        assert world.live == before
        assert world.plan().view.gateway == GatewayView()


def make_tenant(gateway: GatewayView | None) -> TenantView:
    return TenantView("True", Reason.ISOLATION_ENFORCED, "all of them", callers=frozenset({"shop"}), gateway=gateway)


def allows(policy: Json, labels: dict[str, str], port: int) -> bool:
    """Return whether a policy lets in a pod of the namespace with these labels."""
    return any(
        "podSelector" in peer and "namespaceSelector" not in peer and selects(peer["podSelector"], labels)
        for rule in policy["spec"]["ingress"]
        for peer in rule["from"]
        if port in [one["port"] for one in rule["ports"]]
    )


class TestADeploymentOfATenantWithAGateway:
    """The deployment's own pass: its headless Service and its network policy."""

    def serve(self, gateway: GatewayView | None) -> World:
        world = World({"tier": "full", "access": {"namespaces": ["shop"]}}, tenant=make_tenant(gateway))
        world.bring_up()
        return world

    def test_without_one_is_as_it_was(self) -> None:
        world = self.serve(None)
        assert ("Service", "credit-pods") not in world.children
        policy = world.children["NetworkPolicy", "credit"]
        assert allows(policy, {"app": "web"}, names.PORT_GRPC)
        assert not allows(policy, {LABEL_GATEWAY: "true"}, names.PORT_MONITOR)

    def test_has_an_address_for_each_pod_of_what_takes_traffic(self) -> None:
        world = self.serve(GatewayView())
        service, pods = world.children["Service", "credit"]["spec"], world.children["Service", "credit-pods"]["spec"]
        assert pods["clusterIP"] == "None"
        assert pods["selector"] == service["selector"]
        assert [port["port"] for port in pods["ports"]] == [names.PORT_GRPC, names.PORT_MONITOR]

    @for_each("view, caller, port, is_allowed", {
        "the gateway calls the model": (GatewayView(), {LABEL_GATEWAY: "true"}, names.PORT_GRPC, True),
        "it reads the verdict": (GatewayView(), {LABEL_GATEWAY: "true"}, names.PORT_MONITOR, True),
        "others still call it": (GatewayView(), {"app": "web"}, names.PORT_GRPC, True),
        "others read no verdict": (GatewayView(), {"app": "web"}, names.PORT_MONITOR, False),
        "alone, it calls the model": (GatewayView(is_exclusive=True), {LABEL_GATEWAY: "true"}, names.PORT_GRPC, True),
        "others are shut out": (GatewayView(is_exclusive=True), {"app": "web"}, names.PORT_GRPC, False),
        "of HTTP as well": (GatewayView(is_exclusive=True), {"app": "web"}, names.PORT_HTTP, False),
        "monitors still test the Service": (GatewayView(is_exclusive=True), {names.LABEL_DEPLOYMENT: "credit"}, names.PORT_GRPC, True),
        "another model does not": (GatewayView(is_exclusive=True), {names.LABEL_DEPLOYMENT: "other"}, names.PORT_GRPC, False),
    })  # fmt: skip
    def test_lets_in_whom_it_should(self, view: GatewayView, caller: Any, port: int, is_allowed: bool) -> None:
        assert allows(self.serve(view).children["NetworkPolicy", "credit"], caller, port) is is_allowed

    def test_lets_in_no_other_namespace_where_the_gateway_alone_calls(self) -> None:
        policy = self.serve(GatewayView(is_exclusive=True)).children["NetworkPolicy", "credit"]
        spaces = [
            peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
            for rule in policy["spec"]["ingress"] for peer in rule["from"] if "namespaceSelector" in peer
        ]  # fmt: skip
        assert spaces == ["monitoring", "r1plus-system"]

    @for_each("view", {"there is no gateway any more": None, "another deployment has the name": GatewayView(unreachable=frozenset({"credit"}))})  # fmt: skip
    def test_loses_its_headless_service_when(self, view: GatewayView | None) -> None:
        world = self.serve(GatewayView())
        world.tenant = make_tenant(view)
        planned = world.pass_once()
        assert [gone[:2] for gone in planned.delete] == [("Service", "credit-pods")]
        assert not world.pass_once().writes

    def test_as_a_model_is_what_takes_traffic_with_the_revisions_before_it(self) -> None:
        world = self.serve(GatewayView())
        cr = world.observed().cr
        cr["metadata"]["creationTimestamp"] = "1970-01-01T00:01:40Z"
        revisions = read_revisions(world.children).values()
        (revision,) = revisions
        model = build_model(cr, world.children["Service", "credit-pods"], revisions)
        assert model is not None
        assert (model.host, model.batch, model.context_tokens) == (
            "credit-pods.team.svc",
            revision.batch,
            revision.context,
        )
        facts_of_it = RevisionFacts(revision.name, revision.identity_digest, revision.identity.engine_digest)
        assert model.revisions == (facts_of_it,)
        assert (model.namespaces, model.created_at) == (("shop",), 100)

    def test_names_a_candidate_before_it_takes_traffic(self) -> None:
        world = self.serve(GatewayView())

        def list_revisions() -> set[str]:
            revisions = read_revisions(world.children).values()
            model = build_model(world.observed().cr, world.children["Service", "credit-pods"], revisions)
            assert model is not None
            return {one.name for one in model.revisions}

        first = world.selected()
        second = world.apply(context={"maxTokens": 1024})
        world.expect(serves=first)
        assert list_revisions() == {first, second}, "its answers have evidence from the first one on"
        world.bring_up()
        world.expect(serves=second)
        assert list_revisions() == {first, second}
        third = world.apply(context={"maxTokens": 512})
        world.apply(context={"maxTokens": 1024})
        assert third not in list_revisions(), "one that is no candidate any more is not known"

    def test_whose_configuration_has_the_inputs_has_the_capabilities(self) -> None:
        world = self.serve(GatewayView())
        (revision,) = read_revisions(world.children).values()
        config = 'input { name: "messages" }\ninput { name: "count_only" }\noutput { name: "response" }'
        able = replace(revision, data=revision.data | {"configPbtxt": config})
        model = build_model(world.observed().cr, world.children["Service", "credit-pods"], [able])
        assert model is not None
        assert model.capabilities == (Capability.MESSAGES, Capability.COUNT_ONLY)

    def test_is_no_model_before_anything_takes_traffic(self) -> None:
        world = World({"tier": "full"}, tenant=make_tenant(GatewayView()))
        world.pass_once()
        service = {"spec": {"selector": {names.LABEL_REVISION: "nothing-promoted"}}}
        assert build_model(world.observed().cr, service, read_revisions(world.children).values()) is None
        assert name_pods_service("credit") == "credit-pods"
