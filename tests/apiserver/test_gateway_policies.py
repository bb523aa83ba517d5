"""A tenant's gateway mounts Secrets: the policies that hold the operator's account to which, and beside which program.

Also what nobody but the operator makes around it. Every refusal stands beside its control.
"""

import copy
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import pytest

from devcluster.apiserver_only import ApiServer
from r1plus_contract import names
from r1plus_contract.gateway import GATEWAY, GATEWAY_ADMIN, GATEWAY_KEY, GATEWAY_SERVICE, LABEL_GATEWAY
from r1plus_operator.api import kinds
from r1plus_operator.plan.observation import Json, TokenIssuer
from r1plus_operator.plan.tenancy.gateway import GatewayObservation
from r1plus_operator.plan.tenancy.tenant import TenantObservation, plan_tenant
from r1plus_operator.runtime.resources import Resource
from support.apiserver.chart import GATEWAY_IMAGE
from support.apiserver.manifests import (
    MARK,
    ROLE_BINDING,
    SECRET,
    SERVICE_ACCOUNT,
    manifest,
    pod,
    pod_template,
    r1plus_tenant,
    role_binding,
    tenant_namespace,
    user,
)
from support.apiserver.people import APPLY, Answer, Person, people, until_pods_are_taken
from support.apiserver.rights import OPERATOR
from support.apiserver.walls import CONFIGURED, POLICY, assert_held
from support.plan.embedding_engine import EMBEDDING_ENGINE
from support.plan.tenant_world import facts
from support.waiting import wait_until

pytestmark = [pytest.mark.apiserver, pytest.mark.first_run_counts]
SPEC: Json = {
    "gateway": {
        "enabled": True,
        "replicas": 2,
        "calculator": True,
        "codeInterpreter": True,
        "knowledge": True,
        "embedding": {"engine": "minilm"},
        "tls": {"secretName": "web-tls"},
        "database": {"secretName": "store", "egress": {"cidr": "10.9.0.0/16", "ports": [5432]}},
    }
}
NINA = "nina"
"""An administrator of the namespace, by Kubernetes' own role."""
ANNA = "anna"
"""The tenant's admin, by ours."""
Change = Callable[[Json], object]


@dataclass(frozen=True, slots=True)
class World:
    """A tenant whose R1PlusTenant asks for a gateway, and who writes there."""

    namespace: str
    operator: Person
    nina: Person
    anna: Person

    def list_objects(self) -> list[Json]:
        """Return the gateway's objects, as the operator makes them."""
        cr = {"metadata": {"name": names.TENANT, "namespace": self.namespace, "uid": "1"}, "spec": SPEC, "status": {}}
        issuer = TokenIssuer("https://issuer.example", '{"keys":[]}')
        gateway = GatewayObservation(issuer=issuer, embedding=EMBEDDING_ENGINE)
        config = replace(CONFIGURED, gateway_image=GATEWAY_IMAGE)
        stages = plan_tenant(TenantObservation(facts(self.namespace), cr, {}, gateway=gateway), config, 0.0).apply
        return [obj for stage in stages[-3:] for obj in stage]

    def get_deployment(self) -> Json:
        return copy.deepcopy(next(obj for obj in self.list_objects() if obj["kind"] == "Deployment"))

    def apply(self, obj: Json) -> Answer:
        """Apply an object as the operator; a dry run."""
        path = kinds.BY_KIND[obj["kind"]].path(obj["metadata"]["namespace"], obj["metadata"]["name"])
        return self.operator.ask("PATCH", path, obj, kind=APPLY)


@pytest.fixture(scope="module")
def world(installed_server: ApiServer, admin: Person) -> Iterator[World]:
    namespace = f"t-{uuid.uuid4().hex[:10]}"
    with people(installed_server, OPERATOR, NINA, ANNA) as who:
        made = World(namespace, who[OPERATOR], who[NINA], who[ANNA])
        admin.do("POST", kinds.NAMESPACE.path(), tenant_namespace(namespace))
        until_pods_are_taken(admin, namespace)
        admin.do("POST", ROLE_BINDING.path(namespace), role_binding(namespace, NINA, "admin", user(NINA)))
        role = role_binding(namespace, ANNA, names.ROLE_TENANT_ADMIN, user(ANNA))
        admin.do("POST", ROLE_BINDING.path(namespace), role)
        admin.do("POST", kinds.R1PLUS_TENANT.path(namespace), r1plus_tenant(**SPEC))
        made.operator.gets("patch", "deployments", namespace, "apps")
        made.nina.gets("create", "services", namespace)
        for account in (obj for obj in made.list_objects() if obj["kind"] == "ServiceAccount"):
            path = SERVICE_ACCOUNT.path(namespace, account["metadata"]["name"])
            made.operator.do("PATCH", path, account, kind=APPLY)
        foreign = mount_secret("foreign")
        deployment = made.get_deployment()
        foreign(deployment)
        wait_until(lambda: made.apply(deployment).status == 403, "the policy knows the R1PlusTenant")
        yield made


def get_pod(deployment: Json) -> Json:
    spec: Json = deployment["spec"]["template"]["spec"]
    return spec


def get_container(deployment: Json) -> Json:
    container: Json = deployment["spec"]["template"]["spec"]["containers"][0]
    return container


def get_helper(deployment: Json, name: str = "calculator") -> Json:
    (container,) = [one for one in get_pod(deployment)["containers"] if one["name"] == name]
    helper: Json = container
    return helper


def get_copy(deployment: Json) -> Json:
    """Return the init container that copies the embedder's engine."""
    (container,) = get_pod(deployment)["initContainers"]
    copying: Json = container
    return copying


def fill_engine_volume(source: Json) -> Change:
    """Make the volume of the embedder's engine one of another kind, under the same name."""

    def change(deployment: Json) -> None:
        volumes = get_pod(deployment)["volumes"]
        volumes[:] = [one for one in volumes if one["name"] != "embedder-engine"] + [
            {"name": "embedder-engine", **source}
        ]

    return change


def rename_copy(name: str) -> Change:
    """Let the same copy fill a volume for another helper."""

    def change(deployment: Json) -> None:
        get_pod(deployment)["volumes"].append({"name": name, "emptyDir": {}})
        command = ["/bin/sh", "-ec", f"cp -R /engine/. /run/r1plus/{name}/"]
        mounts = [{"name": name, "mountPath": f"/run/r1plus/{name}"}]
        get_copy(deployment).update(name=name, command=command, volumeMounts=mounts)

    return change


def mount_engine_as_tmp(deployment: Json) -> None:
    (mount,) = [one for one in get_container(deployment)["volumeMounts"] if one["mountPath"] == "/tmp"]
    mount["name"] = "embedder-engine"


def mount_in_helper(volume: str, path: str) -> Change:
    return lambda it: get_helper(it)["volumeMounts"].append({"name": volume, "mountPath": path})


def swap_socket(source: Json) -> Change:
    """Make the helper's volume one of another kind, under the same name."""

    def change(deployment: Json) -> None:
        volumes = get_pod(deployment)["volumes"]
        volumes[:] = [volume for volume in volumes if volume["name"] != "calculator"] + [
            {"name": "calculator", **source}
        ]

    return change


def run_in_helper(kind: str, *command: str) -> Change:
    return lambda it: get_helper(it).update({kind: {"exec": {"command": list(command)}}})


def make_user(container: Callable[[Json], Json], user: int | None) -> Change:
    def change(deployment: Json) -> None:
        secure = container(deployment)["securityContext"]
        secure.pop("runAsUser", None)
        secure.update({} if user is None else {"runAsUser": user})

    return change


def add_second_helper(deployment: Json) -> None:
    """Add a program that no policy knows."""
    get_pod(deployment)["containers"].append({**get_helper(deployment), "name": "miner"})


def start_helper_first(deployment: Json) -> None:
    helper = get_helper(deployment)
    get_pod(deployment)["containers"].remove(helper)
    # The API server takes neither of an init container.
    fields = {key: value for key, value in helper.items() if not key.endswith("Probe") and key != "lifecycle"}
    get_pod(deployment)["initContainers"] = [fields]


def mount_secret(name: str) -> Change:
    return lambda it: get_pod(it)["volumes"].append({"name": "more", "secret": {"secretName": name}})


def rename(name: str) -> Change:
    return lambda it: it["metadata"].update(name=name)


def add_init_container(deployment: Json) -> None:
    secure = get_container(deployment)["securityContext"]
    get_pod(deployment)["initContainers"] = [{"name": "i", "image": "evil:1", "securityContext": secure}]


HELD: dict[str, tuple[Change, str, str]] = {
    "a Secret that the R1PlusTenant does not name": (mount_secret("foreign"), "gateway-secrets", "r1plus-gateway-key, web-tls, store"),
    "an image of its own choice": (lambda it: get_container(it).update(image="evil:1"), "gateway-pods", "the chart's images.gateway"),
    "another program": (lambda it: get_container(it).update(command=["sh"]), "gateway-pods", "no command, no args"),
    "other arguments": (lambda it: get_container(it).update(args=["-c", "x"]), "gateway-pods", "no command, no args"),
    "a library in its environment": (lambda it: get_container(it)["env"].append({"name": "PYTHONPATH", "value": "/tmp"}), "gateway-pods", "R1PLUS_GATEWAY_"),
    "a probe that runs a program": (lambda it: get_container(it).update(livenessProbe={"exec": {"command": ["sh"]}}), "gateway-pods", "no probe that runs"),
    "a hook that does": (lambda it: get_container(it).update(lifecycle={"preStop": {"exec": {"command": ["sh"]}}}), "gateway-pods", "no hook but"),
    "a hook of another module": (lambda it: get_container(it).update(lifecycle={"preStop": {"exec": {"command": ["python3", "-m", "http.server", "5"]}}}), "gateway-pods", "no hook but"),
    "a hook with more words": (lambda it: get_container(it).update(lifecycle={"preStop": {"exec": {"command": ["python3", "-m", "r1plus_contract.early_exit 5", "-c", "x"]}}}), "gateway-pods", "no hook but"),
    "a hook after its start": (lambda it: get_container(it)["lifecycle"].update(postStart={"exec": {"command": ["/bin/sleep"]}}), "gateway-pods", "no hook but"),
    "files over the program's own": (lambda it: get_container(it)["volumeMounts"].append({"name": "settings", "mountPath": "/opt/r1plus"}), "gateway-pods", "nothing lies over"),
    "an init container of another image": (add_init_container, "gateway-pods", "the chart's images.gateway"),
    "a Secret in another Deployment": (rename("r1plus-x"), "operator-templates", "no Secret but the gateway's"),
    "another account": (lambda it: get_pod(it).update(serviceAccountName="deployer"), "operator-templates", "as r1plus-gateway"),
    "another claim": (lambda it: get_pod(it)["volumes"].append({"name": "c", "persistentVolumeClaim": {"claimName": "data"}}), "operator-templates", "the gateway r1plus-gateway"),
    "another program in a helper": (lambda it: get_helper(it).update(command=["sh", "-c", "x"]), "gateway-pods", "runs python3 -m with its own module"),
    "another module in a helper": (lambda it: get_helper(it).update(command=["python3", "-m", "r1plus_gateway"]), "gateway-pods", "runs python3 -m with its own module"),
    "code for Python in a helper": (lambda it: get_helper(it).update(command=["python3", "-c", "x"]), "gateway-pods", "runs python3 -m with its own module"),
    "a helper by the image's entry point": (lambda it: get_helper(it).pop("command"), "gateway-pods", "runs python3 -m with its own module"),
    "arguments for a helper": (lambda it: get_helper(it).update(args=["-c", "x"]), "gateway-pods", "no args, no hook"),
    "another image in a helper": (lambda it: get_helper(it).update(image="evil:1"), "gateway-pods", "the chart's images.gateway"),
    "a library in a helper's environment": (lambda it: get_helper(it)["env"].append({"name": "PYTHONPATH", "value": "/tmp"}), "gateway-pods", "R1PLUS_..._ of its own only"),
    "the gateway's settings in a helper": (lambda it: get_helper(it)["env"].append({"name": "R1PLUS_GATEWAY_SETTINGS", "value": "/x"}), "gateway-pods", "R1PLUS_..._ of its own only"),
    "a liveness probe of a helper that runs a program": (run_in_helper("livenessProbe", "sh"), "gateway-pods", "its probes the same with health"),
    "a startup probe of a helper that runs a program": (run_in_helper("startupProbe", "python3", "-c", "x"), "gateway-pods", "its probes the same with health"),
    "a hook of a helper that runs a program": (lambda it: get_helper(it).update(lifecycle={"preStop": {"exec": {"command": ["sh"]}}}), "gateway-pods", "no args, no hook but"),
    "a hook after a helper's start": (lambda it: get_helper(it)["lifecycle"].update(postStart={"exec": {"command": ["/bin/sleep"]}}), "gateway-pods", "no hook but"),
    "the tenant's key in a helper": (mount_in_helper("key", "/etc/r1plus/tenant-key"), "gateway-pods", "no Secret and no claim"),
    "the tenant's key in a helper, as its /tmp": (mount_in_helper("key", "/tmp"), "gateway-pods", "no Secret and no claim"),
    "a Secret as a helper's volume": (swap_socket({"secret": {"secretName": "r1plus-gateway-key"}}), "gateway-pods", "no Secret and no claim"),
    "a claim as a helper's volume": (swap_socket({"persistentVolumeClaim": {"claimName": "r1plus-gateway"}}), "gateway-pods", "no Secret and no claim"),
    "the settings as a helper's volume": (swap_socket({"configMap": {"name": "r1plus-gateway"}}), "gateway-pods", "no Secret and no claim"),
    "the gateway's /tmp in a helper": (mount_in_helper("tmp", "/tmp"), "gateway-pods", "no Secret and no claim"),
    "a helper's volume over its program": (mount_in_helper("calculator", "/opt/r1plus"), "gateway-pods", "no Secret and no claim"),
    "a helper with the gateway's user": (make_user(get_helper, 1000), "gateway-pods", "a user of its own"),
    "a helper without a user of its own": (make_user(get_helper, None), "gateway-pods", "a user of its own"),
    "the gateway as a helper's user": (make_user(get_container, 1001), "gateway-pods", "a user of its own"),
    "a helper that no policy knows": (add_second_helper, "gateway-pods", "no command, no args"),
    "a helper before the gateway": (start_helper_first, "gateway-pods", "no command, no args"),
    "a helper's Secret in its environment": (lambda it: get_helper(it).update(env=[{"name": "R1PLUS_CALCULATOR_SOCKET", "valueFrom": {"secretKeyRef": {"name": "r1plus-gateway-key", "key": "half"}}}]), "operator-templates", "no Secret in their environment"),
    "another folder for a helper's socket in the gateway": (lambda it: get_container(it)["volumeMounts"].append({"name": "calculator", "mountPath": "/opt/r1plus"}), "gateway-pods", "nothing lies over"),
    "the settings over a helper's socket in the gateway": (lambda it: get_container(it)["volumeMounts"][-1].update(name="settings"), "gateway-pods", "nothing lies over"),
    "another program in what copies an engine": (lambda it: get_copy(it).update(command=["/bin/sh", "-ec", "x"]), "gateway-pods", "runs that copy only"),
    "arguments for what copies an engine": (lambda it: get_copy(it).update(args=["x"]), "gateway-pods", "runs that copy only"),
    "the tenant's key in what copies an engine": (lambda it: get_copy(it)["volumeMounts"].append({"name": "key", "mountPath": "/engine"}), "gateway-pods", "no Secret, no claim"),
    "a Secret as an engine": (fill_engine_volume({"secret": {"secretName": "r1plus-gateway-key"}}), "gateway-pods", "no Secret"),
    "a claim as an engine": (fill_engine_volume({"persistentVolumeClaim": {"claimName": "r1plus-gateway"}}), "gateway-pods", "no Secret"),
    "a variable of what copies an engine": (lambda it: get_copy(it).update(env=[{"name": "A", "value": "b"}]), "gateway-pods", "no variable"),
    "a copy under another name": (lambda it: get_copy(it).update(name="copy"), "gateway-pods", "the chart's images.gateway"),
    "a copy for a helper that has no engine": (rename_copy("calculator-engine"), "gateway-pods", "the chart's images.gateway"),
    "an engine's files as the gateway's /tmp": (mount_engine_as_tmp, "gateway-pods", "no helper's engine"),
    "a token": (lambda it: get_pod(it).update(automountServiceAccountToken=True), "operator-templates", "must be false"),
}  # fmt: skip


def test_what_copies_an_engine_does_not_stay(world: World) -> None:
    """Two policies refuse it, and the API server names either."""
    (deployment,) = [one for one in world.list_objects() if one["kind"] == "Deployment"]
    get_copy(deployment)["restartPolicy"] = "Always"
    answer = world.apply(deployment)
    assert answer.status == 403, answer
    assert "and it ends" in answer.text or "have what it gives them and no other field" in answer.text, answer


def test_all_that_the_operator_makes_of_a_gateway_is_let_through(world: World) -> None:
    objects = world.list_objects()
    assert {obj["kind"] for obj in objects} == {
        "NetworkPolicy", "ServiceAccount", "ConfigMap", "Deployment", "Service", "PodDisruptionBudget"
    }  # fmt: skip
    for obj in objects:
        answer = world.apply(obj)
        assert answer.status in (200, 201), f"{obj['kind']}: {answer}"


def test_pod_security_restricted_takes_the_pod_with_its_helper(world: World, admin: Person) -> None:
    spec = get_pod(world.get_deployment())
    path = kinds.POD.path(world.namespace)
    answer = admin.ask("POST", path, manifest(kinds.POD, "like-the-gateway", world.namespace, spec=spec))
    assert answer.status == 201, answer
    spec["containers"][1]["securityContext"]["allowPrivilegeEscalation"] = True
    answer = admin.ask("POST", path, manifest(kinds.POD, "like-the-gateway", world.namespace, spec=spec))
    assert (answer.status, "allowPrivilegeEscalation" in answer.text) == (403, True), answer


def test_where_a_namespace_assigns_users_no_container_names_one(world: World) -> None:
    deployment = world.get_deployment()
    for name in ("calculator", "embedder", "documents"):
        make_user(partial(get_helper, name=name), None)(deployment)
    for field in ("runAsUser", "runAsGroup", "fsGroup"):
        get_pod(deployment)["securityContext"].pop(field)
    assert world.apply(deployment).status == 201


def test_without_helpers_the_gateway_is_let_through_as_before(world: World) -> None:
    deployment = world.get_deployment()
    for name in ("calculator", "embedder", "documents"):
        get_pod(deployment)["containers"].remove(get_helper(deployment, name))
    del get_pod(deployment)["initContainers"]
    container = get_container(deployment)
    container["env"] = container["env"][:1]
    mounts = container["volumeMounts"]
    container["volumeMounts"] = [
        mount for mount in mounts if mount["name"] not in ("calculator", "embedder", "documents")
    ]
    assert world.apply(deployment).status == 201


@pytest.mark.parametrize(("change", "policy", "said"), HELD.values(), ids=HELD)
def test_the_operators_account_cannot_read_more_by_a_gateway(
    world: World, change: Change, policy: str, said: str
) -> None:
    deployment = world.get_deployment()
    assert world.apply(deployment).status == 201
    change(deployment)
    assert_held(world.apply(deployment), policy, said)


@pytest.mark.parametrize(
    ("kind", "name", "labels", "is_allowed"),
    [
        pytest.param("Service", "gateway", {}, True, id="the gateway's Service"),
        pytest.param("Service", "credit-pods", {names.LABEL_DEPLOYMENT: "credit"}, True, id="a headless one of its deployment"),
        pytest.param("Service", "other-pods", {names.LABEL_DEPLOYMENT: "credit"}, False, id="one of another deployment"),
        pytest.param("Service", "gateway", {names.LABEL_DEPLOYMENT: "credit"}, False, id="the gateway's for a deployment"),
        pytest.param("ConfigMap", "gateway", {}, False, id="another kind of that name"),
    ],
)  # fmt: skip
def test_the_operator_takes_the_gateways_names_only(
    world: World, kind: str, name: str, labels: dict[str, str], is_allowed: bool
) -> None:
    fields = {"spec": {"ports": [{"port": 1}]}} if kind == "Service" else {}
    obj = manifest(kinds.BY_KIND[kind], name, world.namespace, labels={**MARK, **labels}, **fields)
    answer = world.apply(obj)
    if is_allowed:
        assert answer.status == 201, answer
    else:
        assert_held(answer, "operator-reach", f"metadata.name: {name} is no name that the operator gives")


@pytest.mark.parametrize(
    ("account", "audience", "seconds", "refusal"),
    [
        pytest.param(GATEWAY_ADMIN, GATEWAY, 600, "", id="for the gateway"),
        pytest.param(GATEWAY_ADMIN, "https://kubernetes.default.svc", 600, "gateway-tokens", id="for the API server"),
        pytest.param(GATEWAY_ADMIN, GATEWAY, 3600, "gateway-tokens", id="for an hour"),
        pytest.param("default", GATEWAY, 600, "rbac", id="of another account"),
    ],
)  # fmt: skip
def test_a_tenants_admin_makes_tokens_of_the_gateways_admin_for_the_gateway(
    world: World, account: str, audience: str, seconds: int, refusal: str
) -> None:
    world.anna.gets("create", "pods", world.namespace, subresource="portforward")
    spec = {"audiences": [audience], "expirationSeconds": seconds}
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = world.anna.ask("POST", f"{SERVICE_ACCOUNT.path(world.namespace, account)}/token", review)
    if refusal == "rbac":
        assert answer.status == 403, answer
    elif refusal:
        assert_held(answer, refusal, "for the audience r1plus-gateway alone")
    else:
        assert answer.status == 201, answer


SERVICE: Json = {"spec": {"ports": [{"port": 1}]}}
RULES: Json = {"ingress": [{}], "policyTypes": ["Ingress"]}


def leave_out(*keys: str) -> Json:
    return {"podSelector": {"matchExpressions": [{"key": key, "operator": "DoesNotExist"} for key in keys]}}


OURS = (names.LABEL_DEPLOYMENT, names.LABEL_PROBE, names.LABEL_VOLUME)


class TestATenantsOwnPeople:
    """They take none of the gateway's names, wear none of its labels, open it to nobody and do not take it away."""

    @pytest.mark.parametrize(
        ("name", "is_held"), [(GATEWAY_SERVICE, True), ("credit-pods", True), ("my-gateway", False)]
    )
    def test_make_no_service_of_its_names(self, world: World, name: str, is_held: bool) -> None:
        body = manifest(kinds.BY_KIND["Service"], name, **SERVICE)
        answer = world.nina.ask("POST", kinds.BY_KIND["Service"].path(world.namespace), body)
        if is_held:
            assert_held(answer, "names", "Services also gateway and ...-pods")
        else:
            assert answer.status == 201, answer

    def test_make_no_pod_with_its_label(self, world: World) -> None:
        path = kinds.POD.path(world.namespace)
        assert_held(
            world.nina.ask("POST", path, pod("x", labels={LABEL_GATEWAY: "true"})), "serving-pods", LABEL_GATEWAY
        )

    def test_open_it_by_no_network_policy(self, world: World, admin: Person) -> None:
        kind = kinds.BY_KIND["NetworkPolicy"]
        opens, spares = (
            manifest(kind, "mine", spec={**leave_out(*keys), **RULES}) for keys in (OURS, (*OURS, LABEL_GATEWAY))
        )
        assert_held(admin.ask("POST", kind.path(world.namespace), opens), "walls", "spec.gateway.from")
        assert admin.ask("POST", kind.path(world.namespace), spares).status == 201

    def test_delete_nothing_of_it(self, world: World) -> None:
        kind = kinds.BY_KIND["Service"]
        made = next(obj for obj in world.list_objects() if obj["kind"] == "Service")
        path = kind.path(world.namespace, GATEWAY_SERVICE)
        world.operator.do("PATCH", path, made, kind=APPLY)
        assert_held(world.nina.ask("DELETE", path), "kept", "only the platform team deletes it")
        edited = json.loads(world.nina.ask("GET", path).text)
        edited["spec"]["selector"] = {"app": "mine"}
        assert_held(world.nina.ask("PUT", path, edited), "children", "spec: belongs to the operator")
        assert made["metadata"]["labels"] == {**POLICY, names.LABEL_ISOLATION: "gateway"}
        assert made["metadata"]["name"] != GATEWAY

    @pytest.mark.parametrize("person", [NINA, ANNA])
    def test_mount_its_volume_in_no_pod(self, world: World, admin: Person, person: str) -> None:
        path = kinds.POD.path(world.namespace)
        body = pod("reads", volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": GATEWAY}}])
        if person == ANNA:
            assert world.anna.ask("POST", path, body).status == 403, "she makes no pods at all"
            return
        assert_held(
            world.nina.ask("POST", path, body), "engine-volumes", "holds the tenant's keys, usage and audit log"
        )
        assert admin.ask("POST", path, body).status == 201, "the platform team restores it"
        body["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] = "own"
        assert world.nina.ask("POST", path, body).status == 201

    def test_make_no_claim_of_its_name_by_a_pod(self, world: World) -> None:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        volume = {"name": "gateway", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}}
        path = kinds.POD.path(world.namespace)
        assert_held(
            world.nina.ask("POST", path, pod("r1plus", volumes=[volume])), "engine-volumes", "the operator gives"
        )
        assert world.nina.ask("POST", path, pod("own", volumes=[volume])).status == 201

    def test_write_and_delete_no_half_of_its_key(self, world: World, admin: Person) -> None:
        def half(name: str) -> Json:
            return manifest(SECRET, name, stringData={"half-1": "00" * 32})

        path, said = SECRET.path(world.namespace), "only the platform team"
        world.nina.gets("delete", "secrets", world.namespace)
        assert_held(world.nina.ask("POST", path, half(GATEWAY_KEY)), "gateway-key", said)
        for name in (GATEWAY_KEY, "own"):
            admin.do("POST", path, half(name))
        change = {"stringData": {"half-1": "11" * 32}}
        assert_held(world.nina.ask("PATCH", f"{path}/{GATEWAY_KEY}", change), "gateway-key", said)
        for way in (f"{path}/{GATEWAY_KEY}", path):
            assert_held(world.nina.ask("DELETE", way), "gateway-key", said)
        assert world.nina.ask("PATCH", f"{path}/own", change).status == 200
        assert world.nina.ask("DELETE", f"{path}/own").status == 200
        assert admin.ask("PATCH", f"{path}/{GATEWAY_KEY}", change).status == 200
        assert admin.ask("DELETE", f"{path}/{GATEWAY_KEY}").status == 200

    @pytest.mark.parametrize("meta", [{"name": GATEWAY}, {"name": GATEWAY_ADMIN}, {"generateName": "r1plus-"}])
    def test_make_no_deployment_whose_objects_have_its_names(self, world: World, meta: Json) -> None:
        path = kinds.R1PLUS_DEPLOYMENT.path(world.namespace)
        body = manifest(kinds.R1PLUS_DEPLOYMENT, "credit", spec={"tier": "lite"})
        world.anna.gets("create", "r1plusdeployments", world.namespace, "r1plus.ai")
        assert world.anna.ask("POST", path, body).status == 201
        body["metadata"] = meta
        assert_held(world.anna.ask("POST", path, body), "deployments", "names that begin with r1plus-")

    def test_run_no_pod_as_its_admin(self, world: World, admin: Person) -> None:
        path = kinds.POD.path(world.namespace)
        for field in ("serviceAccountName", "serviceAccount"):
            body = pod("administers", **{field: GATEWAY_ADMIN})
            for person in (world.nina, admin):
                assert_held(person.ask("POST", path, body), "gateway-tokens", "no pod runs as r1plus-gateway-admin")
        token = {"serviceAccountToken": {"audience": GATEWAY, "expirationSeconds": 600, "path": "token"}}
        own = pod("calls", volumes=[{"name": "w", "projected": {"sources": [token]}}])
        assert world.nina.ask("POST", path, own).status == 201


REPLICA_SET = Resource("apps", "v1", "replicasets", "ReplicaSet")
CHANGES: dict[str, Json] = {
    "its owner": {"metadata": {"ownerReferences": None}},
    "the gateway's label": {"metadata": {"labels": {LABEL_GATEWAY: None}}},
    "the label that its Deployment gave it": {"metadata": {"labels": {"pod-template-hash": None}}},
    "its replicas": {"spec": {"replicas": 7}},
    "how it may be deleted": {"metadata": {"finalizers": ["nina/keeps-it"]}},
    "a label of ours": {"metadata": {"labels": {names.LABEL_REVISION: "credit-1"}}},
}


@pytest.fixture(scope="module")
def replica_set(world: World, admin: Person) -> Iterator[str]:
    """The name of the one that the deployment controller makes of the gateway's Deployment."""
    path = kinds.BY_KIND["Deployment"].path(world.namespace, GATEWAY)
    world.operator.do("PATCH", path, world.get_deployment(), kind=APPLY)
    world.nina.gets("delete", "replicasets", world.namespace, "apps")

    def find() -> str:
        items = json.loads(admin.ask("GET", REPLICA_SET.path(world.namespace)).text)["items"]
        return str(items[0]["metadata"]["name"]) if items else ""

    yield wait_until(find, "the deployment controller has made a ReplicaSet")
    admin.do("DELETE", path)
    wait_until(lambda: not find(), "the garbage collector has deleted it")


class TestItsReplicaSet:
    """Pods of a ReplicaSet without its owner would take callers' keys, and no Deployment would replace them."""

    @pytest.mark.parametrize("body", CHANGES.values(), ids=CHANGES)
    def test_is_changed_by_nobody(self, world: World, admin: Person, replica_set: str, body: Json) -> None:
        path = REPLICA_SET.path(world.namespace, replica_set)
        assert_held(world.nina.ask("PATCH", path, body), "gateway-replica-sets", "edit the R1PlusTenant")
        own = {"metadata": {"labels": {"team": "blue"}, "annotations": {"a": "b"}}}
        assert world.nina.ask("PATCH", path, own).status == 200
        assert admin.ask("PATCH", path, body).status == 200

    def test_is_deleted_and_made_by_nobody(self, world: World, admin: Person, replica_set: str) -> None:
        everything = REPLICA_SET.path(world.namespace)
        path = REPLICA_SET.path(world.namespace, replica_set)
        for way in (path, f"{path}?propagationPolicy=Orphan", everything):
            assert_held(world.nina.ask("DELETE", way), "gateway-replica-sets", "edit the R1PlusTenant")
        assert admin.ask("DELETE", path).status == 200
        labels = {"app": "own"}
        spec = {"selector": {"matchLabels": labels}, "template": pod_template(labels)}
        body = manifest(REPLICA_SET, "own", spec=spec)
        assert world.nina.ask("POST", everything, body).status == 201
        body["metadata"]["labels"] = {LABEL_GATEWAY: "true"}
        assert_held(world.nina.ask("POST", everything, body), "gateway-replica-sets", "edit the R1PlusTenant")
