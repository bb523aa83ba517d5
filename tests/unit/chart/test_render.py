"""What the chart renders: its pods are locked down, its rights are the table's, its walls are narrow, its data is whole."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1plus_contract import names as contract
from r1plus_contract.gateway import GATEWAY, PORT_INTERNAL
from r1plus_contract.suites.suite_files import SuiteFiles
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_operator.api import fence, rbac, tenant_roles
from r1plus_operator.config import load_settings, load_shipped_suites, read_suite_folder
from r1plus_operator.main import DRAIN_SECONDS, EXIT_SECONDS
from r1plus_operator.observe.suite_projection import read_suite_source
from r1plus_operator.pins import SHIPPED_SUITES
from r1plus_operator.plan.manifests.children import build_dns_rule
from r1plus_operator.plan.podspec.pod import build_pod_security_context
from r1plus_operator.plan.settings import AlertTerms, DnsPods, DnsTerms, PodUser, ProxyTerms, TritonRuntime
from support.chart import CHART, OTHER_VALUES, PROMETHEUS_OPERATOR, ROOT, Objects, Render, environment, one, pods
from support.tables import for_each

FENCE = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
BOTH = pytest.mark.parametrize("values", [{}, OTHER_VALUES], ids=["default values", "every value another"])


@BOTH
def test_lint_finds_nothing(run_helm: Callable[..., subprocess.CompletedProcess[str]], values: dict[str, Any]) -> None:
    done = run_helm("lint", values, "--strict")
    assert done.returncode == 0, done.stdout


@BOTH
def test_every_pod_meets_the_restricted_pod_security_standard(render: Render, values: dict[str, Any]) -> None:
    found = pods(render(values))
    assert set(found) == {"Deployment", "Pod", "Job", "StatefulSet"}
    for spec in found.values():
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] in (1000, 2001)
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all(
            {"emptyDir", "configMap", "projected", "persistentVolumeClaim", "secret"} & set(volume)
            for volume in spec["volumes"]
        )
        for container in spec["containers"]:
            secure = dict(container["securityContext"])
            assert secure.pop("runAsUser", 1) > 0
            assert secure == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]


@pytest.mark.parametrize(("values", "replicas"), [({}, 2), ({"replicas": 1}, 1)], ids=["by default two", "just one"])
def test_a_replica_more_starts_before_one_ends_and_they_keep_apart(
    render: Render, values: dict[str, Any], replicas: int
) -> None:
    objects = render(values)
    spec = one(objects, "Deployment")["spec"]
    assert spec["replicas"] == replicas
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    labels = spec["template"]["metadata"]["labels"]
    spread = spec["template"]["spec"]["topologySpreadConstraints"]
    # The scheduler scores a node by no constraint of a pod if it lacks the key of any: not every node has a zone.
    assert [one["topologyKey"] for one in spread] == ["kubernetes.io/hostname"]
    assert spread[0]["matchLabelKeys"] == ["pod-template-hash"]
    affinity = spec["template"]["spec"]["affinity"]["podAntiAffinity"]
    (zones,) = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    assert zones["podAffinityTerm"]["topologyKey"] == "topology.kubernetes.io/zone"
    assert zones["podAffinityTerm"]["labelSelector"]["matchLabels"].items() <= labels.items()
    budget = one(objects, "PodDisruptionBudget")["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    for constraint in (*spread, {"labelSelector": budget["selector"], "whenUnsatisfiable": "ScheduleAnyway"}):
        assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
        assert constraint["labelSelector"]["matchLabels"].items() <= labels.items()


def test_a_pod_has_time_to_end_its_passes_and_its_probes_ask_its_own_port(render: Render) -> None:
    pod = one(render(), "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > DRAIN_SECONDS + EXIT_SECONDS
    (container,) = pod["containers"]
    assert [port["containerPort"] for port in container["ports"]] == [8080]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


@pytest.mark.parametrize(
    ("name", "grants"),
    [
        pytest.param("r1plus-operator", rbac.list_operator_grants(), id="the operator's rights"),
        pytest.param("r1plus-operator-crds", rbac.list_crd_hook_grants(), id="the CRD hook's rights"),
        pytest.param("r1plus-registry", rbac.list_registry_grants(), id="the registry's rights"),
        pytest.param("r1plus-registry-reader", rbac.list_registry_reader_grants(), id="its reader's rights"),
        pytest.param(
            "r1plus-tenant-registry-reader",
            rbac.list_tenant_registry_reader_grants(),
            id="the rights of its reader in a tenant",
        ),
    ],
)
def test_rights_are_the_tables_without_a_wildcard(
    render: Render, name: str, grants: tuple[rbac.RbacGrant, ...]
) -> None:
    rules = one(render(), "ClusterRole", name)["rules"]
    assert rules == [grant.build_rule() for grant in grants]
    assert not [rule for rule in rules for values in rule.values() if "*" in values]
    assert not [rule for rule in rules if "secrets" in rule.get("resources", ())]
    assert not [rule for rule in rules if {"escalate", "impersonate"} & set(rule["verbs"])]
    binds = [rule for rule in rules if "bind" in rule["verbs"]]
    tenants = [contract.ROLE_TENANT_ADMIN, contract.ROLE_TENANT_VIEWER, contract.ROLE_REGISTRY_READER]
    assert [rule["resourceNames"] for rule in binds] == ([tenants] if name == "r1plus-operator" else [])


def test_the_lease_is_touched_in_the_operators_own_namespace_only_and_by_name(render: Render) -> None:
    objects = render()
    role = one(objects, "Role")
    assert role["metadata"]["namespace"] == "r1plus-system"
    assert role["rules"] == [grant.build_rule() for grant in rbac.list_lease_grants()]
    named = [rule for rule in role["rules"] if rule["verbs"] != ["create"]]
    assert [rule["resourceNames"] for rule in named] == [[contract.LEASE]]
    everywhere = [rule for o in objects if o["kind"] == "ClusterRole" for rule in o.get("rules", ())]
    assert not [rule for rule in everywhere if "leases" in rule.get("resources", ())]


def test_the_fence_is_the_codes_and_covers_all_that_the_operator_may_write(render: Render) -> None:
    objects = render({"trainJobs": {"enabled": True}})
    policy, binding = (one(objects, kind, "r1plus-system.r1plus-operator.fence.r1plus.ai") for kind in FENCE)
    assert policy["spec"] == fence.build_policy("r1plus-system", "r1plus-operator")["spec"]
    assert binding["spec"] == fence.build_binding("r1plus-system", "r1plus-operator")["spec"]
    covered = {(rule["apiGroups"][0], name) for rule in policy["spec"]["matchConstraints"]["resourceRules"] for name in rule["resources"]}  # fmt: skip
    roles = [one(objects, "ClusterRole"), one(objects, "ClusterRole", "r1plus-operator-train-jobs")]
    rules = [rule for role in roles for rule in role["rules"]]
    written = {
        (rule["apiGroups"][0], name)
        for rule in rules
        for name in rule.get("resources", ())
        if {"create", "patch", "delete"} & set(rule["verbs"])
    }
    assert covered == written


def test_there_is_no_fence_where_it_is_not_wanted(render: Render) -> None:
    fenced, open_ = ({o["metadata"]["name"] for o in render(values)} for values in ({}, {"leaderElection": {"fence": False}}))  # fmt: skip
    assert fenced - open_ == {f"r1plus-system.r1plus-operator.{fence.SUFFIX}"}


def test_every_binding_leads_from_an_account_of_the_chart_to_a_role_of_the_chart(render: Render) -> None:
    objects = render()
    names = {
        kind: {o["metadata"]["name"] for o in objects if o["kind"] == kind}
        for kind in ("ClusterRole", "Role", "ServiceAccount")
    }
    bindings = [o for o in objects if o["kind"] in ("ClusterRoleBinding", "RoleBinding")]
    assert len(bindings) == 8
    for binding in bindings:
        assert binding["roleRef"]["kind"] == binding["kind"].removesuffix("Binding")
        assert binding["roleRef"]["name"] in names[binding["roleRef"]["kind"]]
        assert [subject["name"] in names["ServiceAccount"] for subject in binding["subjects"]] == [True]
        is_of_test = binding["roleRef"]["name"] == "r1plus-operator-test"
        home = "r1plus-system" if is_of_test else binding["metadata"].get("namespace", "r1plus-system")
        assert binding["subjects"][0]["namespace"] == home


@BOTH
def test_the_operator_can_read_its_environment(render: Render, values: dict[str, Any], tmp_path: Path) -> None:
    objects = render(values)
    catalog = tmp_path / "catalog"
    catalog.mkdir()
    for name, text in one(objects, "ConfigMap", "r1plus-operator-catalog")["data"].items():
        (catalog / name).write_text(text)
    folders = {"R1PLUS_CATALOG_DIR": str(catalog), "R1PLUS_SUITES_DIR": str(ROOT / "monitoring" / "suites")}
    given = environment(objects)
    assert given["USER"], "kopf asks for the user's name, and no image has one for 1000"
    settings = load_settings(given | folders)
    images = {"monitor": "r1plus-monitor:0.1.0", "triton": "r1plus-triton-cpu:0.1.0"} | values.get("images", {})
    assert settings.operator.monitor_image == images["monitor"]
    assert settings.operator.triton_image == images["triton"]
    gpu, cpu = (
        {backend: TritonRuntime(**one) for backend, one in images.get(kind, {}).items()} for kind in ("gpu", "cpu")
    )
    assert (settings.operator.gpu_runtimes, settings.operator.cpu_runtimes) == (gpu, cpu)
    assert settings.operator.default_family == values.get("defaultFamily", "smollm2")
    suites = {"requireSignature": True, "trustedKeys": []} | values.get("suites", {})
    assert settings.operator.suite_trust.required == suites["requireSignature"]
    assert settings.operator.suite_trust.keys == set(suites["trustedKeys"])
    defaults = {"cidrs": [], "requireSignature": True, "trustedKeys": [], "ca": "", "volume": {}}
    delivery, volumes = defaults | values.get("delivery", {}), settings.operator.volumes
    assert volumes.cidrs == tuple(delivery["cidrs"])
    assert volumes.require_signature == delivery["requireSignature"]
    assert volumes.trusted_keys == tuple(delivery["trustedKeys"])
    assert volumes.ca_pem == delivery["ca"]
    proxy = delivery.get("proxy")
    assert volumes.proxy == (
        ProxyTerms(proxy["url"], *map(tuple, (proxy["cidrs"], proxy["noProxy"]))) if proxy else None
    )
    assert volumes.storage_class == delivery["volume"].get("className", "")
    assert volumes.access_mode == delivery["volume"].get("accessMode", "ReadWriteOnce")
    assert settings.operator.image_pull_secrets == tuple(values.get("imagePullSecrets", ()))
    monitoring = {"namespace": "monitoring", "interval": "15s"} | values.get("monitoring", {})
    assert settings.operator.monitoring_namespace == monitoring["namespace"]
    assert settings.operator.scrape_interval == monitoring["interval"]
    dns = {"pods": [{"namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}}], "cidrs": []}
    dns |= values.get("networkPolicy", {}).get("dns", {})
    peers = [DnsPods(one["namespace"], one["labels"]) for one in dns["pods"]]
    assert settings.operator.dns == DnsTerms(tuple(peers), tuple(dns["cidrs"]))
    assert build_dns_rule(settings.operator.dns) in one(objects, "NetworkPolicy")["spec"]["egress"]
    user = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000} | values.get("podSecurity", {})
    assert settings.operator.pod_user == PodUser(user["runAsUser"], user["runAsGroup"], user["fsGroup"])
    for pod in pods(objects).values():
        assert pod["securityContext"] == build_pod_security_context(settings.operator.pod_user)
    alerts = settings.operator.alerts
    told = {"labels": alerts.labels, "severities": alerts.severities, "runbookURL": alerts.runbook_url}
    shipped = {"labels": {"team": "platform"}, "severities": {}, "runbookURL": AlertTerms().runbook_url}
    assert told == shipped | monitoring.get("alerts", {})
    assert settings.verdict_interval == values.get("verdictIntervalSeconds", 10)
    assert settings.workers == values.get("workers", 16)
    assert settings.lease_seconds == values.get("leaderElection", {}).get("leaseSeconds", 15)
    isolation = {"decoyNamespace": "r1plus-decoy", "everySeconds": 3600} | values.get("isolation", {})
    assert given["R1PLUS_DECOY_NAMESPACE"] == isolation["decoyNamespace"]
    assert given["R1PLUS_PROBE_SECONDS"] == str(isolation["everySeconds"])
    assert {given["R1PLUS_POD_NAME"], given["R1PLUS_POD_UID"]} == {"from the pod"}
    assert (given["R1PLUS_RUNTIME_UPDATE"], given["R1PLUS_MAX_CONCURRENT"]) == ("Manual", "2")
    assert settings.identity == "from the pod_from the pod"


def catalog_of(objects: Objects) -> dict[str, Any]:
    """The engines of the rendered catalog by name."""
    text = one(objects, "ConfigMap", "r1plus-operator-catalog")["data"]["engines.yaml"]
    return {engine.name: engine.spec for engine in load_catalog(str(text))}


def test_the_catalog_is_the_shipped_one_number_for_number(render: Render) -> None:
    shipped = load_catalog(ROOT / "model_repo" / "r1plus_model_repo" / "catalog")
    assert catalog_of(render()) == {engine.name: engine.spec for engine in shipped}


def test_overrides_change_image_and_digest_of_the_named_engine_only(render: Render) -> None:
    before, after = catalog_of(render()), catalog_of(render(OTHER_VALUES))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"smollm2-full-f16"}
    assert after["smollm2-full-f16"].artifact.image == f"registry.example.com/f16@sha256:{'4' * 64}"
    assert after["smollm2-full-f16"].artifact.sha256 == "12345678" * 8


def test_a_published_shape_gets_files_by_naming_image_and_digest(render: Render) -> None:
    name = "r1plus-full-fp16-vllm"
    values = {
        "images": {**OTHER_VALUES.get("images", {}), "engines": {name: "a/b:1"}},
        "engineDigests": {name: "1" * 64},
    }
    artifact = catalog_of(render({**OTHER_VALUES, **values}))[name].artifact
    assert artifact is not None
    assert (artifact.image, artifact.sha256) == ("a/b:1", "1" * 64)


def test_every_shipped_suite_arrives_byte_for_byte_in_a_folder_of_its_own(render: Render) -> None:
    objects = render()
    shipped = load_shipped_suites(ROOT / "monitoring" / "suites")
    volumes = {volume["name"]: volume for volume in pods(objects)["Deployment"]["volumes"]}
    sources = volumes["suites"].get("projected", {}).get("sources", [])
    paths = sorted(item["path"] for source in sources for item in source["configMap"]["items"])
    there = {name: read_suite_folder(ROOT / "monitoring" / "suites" / name) for name in shipped}
    assert paths == sorted(f"{name}/{file}" for name, files in there.items() for file in files.texts())
    for name, source in shipped.items():
        data = one(objects, "ConfigMap", f"r1plus-operator-suite-{name}")["data"]
        assert data == there[name].texts()
        assert read_suite_source(name, SuiteFiles.of(data)) == source
        assert source.digest == SHIPPED_SUITES[name]


HARD_TO_COPY = '{"id":"a","prompt":"é {{ .Values }} \\"q\\" \\\\ # : 🙂"}\n{"id":"b"}\n'


def test_a_suite_with_anything_in_it_arrives_unchanged_and_restarts_the_operator(
    render: Render, tmp_path: Path
) -> None:
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    folder = chart / "files" / "suites" / "family-v1"
    folder.mkdir(parents=True)
    (folder / "suite.json").write_text('{"name":"family-v1"}', encoding="utf-8")
    (folder / "items.jsonl").write_text(HARD_TO_COPY, encoding="utf-8")
    objects = render(chart=chart)
    data = one(objects, "ConfigMap", "r1plus-operator-suite-family-v1")["data"]
    assert data == {"suite.json": '{"name":"family-v1"}', "items.jsonl": HARD_TO_COPY}
    volumes = {volume["name"]: volume for volume in pods(objects)["Deployment"]["volumes"]}
    assert "family-v1/items.jsonl" in str(volumes["suites"])
    template = one(objects, "Deployment")["spec"]["template"]
    (folder / "items.jsonl").write_text(HARD_TO_COPY + '{"id":"c"}\n', encoding="utf-8")
    assert one(render(chart=chart), "Deployment")["spec"]["template"] != template


@pytest.mark.parametrize(
    ("before", "after", "restarts"),
    [
        ({}, {"workers": 16}, False),
        ({}, {"engineDigests": {"smollm2-full-f16": "0" * 64}}, True),
        ({}, {"images": {"engines": {"smollm2-full-f16": "elsewhere:1"}}}, True),
    ],
    ids=["nothing new restarts nothing", "another digest restarts it", "another engine image restarts it"],
)
def test_a_change_of_what_is_read_at_start_restarts_the_operator(
    render: Render, before: dict[str, Any], after: dict[str, Any], restarts: bool
) -> None:
    first, second = (one(render(values), "Deployment")["spec"]["template"] for values in (before, after))
    assert (first != second) is restarts


def test_pods_name_no_user_where_openshift_gives_them_one(render: Render) -> None:
    nobody = {"runAsUser": None, "runAsGroup": None, "fsGroup": None}
    objects = render({"podSecurity": nobody})
    for pod in pods(objects).values():
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert json.loads(environment(objects)["R1PLUS_POD_USER"]) == {}
    assert "'runAsUser': 1000680000," in str(pods(render({"podSecurity": {"runAsUser": 1000680000}})))


def test_the_operator_shares_its_user_with_no_pod_of_a_tenant(render: Render) -> None:
    objects = render({})
    (container,) = pods(objects)["Deployment"]["containers"]
    user = container["securityContext"]["runAsUser"]
    tenants = json.loads(environment(objects)["R1PLUS_POD_USER"])["runAsUser"]
    assert user not in range(tenants, tenants + 16), "the gateway's helpers have the next ones"
    for values in ({"operatorUser": None}, {"podSecurity": {"runAsUser": None}}):
        (container,) = pods(render(values))["Deployment"]["containers"]
        assert "runAsUser" not in container["securityContext"]


@for_each("user", {"the default": 1100, "a number so low that a missing one would be within": 1})
def test_a_tenant_that_names_no_user_is_allowed_whatever_the_operators(render: Render, user: int) -> None:
    policy = one(render({"operatorUser": user}), "ValidatingAdmissionPolicy", "r1plus-operator-tenants")
    (check,) = [one["expression"] for one in policy["spec"]["validations"] if "runAsUser" in one["expression"]]
    assert check.startswith(f"!object.?spec.?runAsUser.hasValue() || int(object.spec.runAsUser) < {user - 3} ||")


def test_the_policies_let_prometheus_in_and_the_operator_out_to_named_places(render: Render) -> None:
    spec = one(render(OTHER_VALUES), "NetworkPolicy")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    (ingress,) = spec["ingress"]
    assert ingress["from"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "observability"}}}]
    api_server, dns, monitors, gateways, registry, prometheus = spec["egress"]
    assert api_server["to"] == [{"ipBlock": {"cidr": "10.1.0.0/16"}}]
    assert api_server["ports"] == [{"protocol": "TCP", "port": 8443}]
    assert dns["to"] == [
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}},
            "podSelector": {"matchLabels": {"dns": "default"}},
        },
        {"ipBlock": {"cidr": "169.254.20.10/32"}},
    ]
    (peer,) = monitors["to"]
    assert peer["namespaceSelector"] == {}
    assert peer["podSelector"]["matchExpressions"] == [
        {"key": "app.kubernetes.io/name", "operator": "In", "values": ["r1plus-serving", "r1plus-delivery"]}
    ]
    assert monitors["ports"] == [{"protocol": "TCP", "port": 8080}]
    (peer,) = gateways["to"]
    assert peer == {"namespaceSelector": {}, "podSelector": {"matchLabels": {contract.LABEL_NAME: GATEWAY}}}
    assert gateways["ports"] == [{"protocol": "TCP", "port": PORT_INTERNAL}]
    assert registry["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "r1plus-registry"
    assert registry["ports"] == [{"protocol": "TCP", "port": 8080}]
    assert prometheus["to"] == ingress["from"]


def test_who_asks_no_prometheus_needs_no_way_to_it(render: Render) -> None:
    objects = render({"monitoring": {"prometheusURL": ""}})
    assert len(one(objects, "NetworkPolicy")["spec"]["egress"]) == 5
    assert environment(objects)["R1PLUS_PROMETHEUS_URL"] == ""


def test_prometheus_is_asked_where_prometheus_operator_puts_it(render: Render) -> None:
    assert environment(render())["R1PLUS_PROMETHEUS_URL"] == "http://prometheus-operated.monitoring.svc:9090"


@pytest.mark.parametrize(
    ("values", "kinds", "kind", "present"),
    [
        pytest.param({}, (), "PodMonitor", False, id="no PodMonitor where no cluster knows one"),
        pytest.param({}, PROMETHEUS_OPERATOR, "PodMonitor", True, id="a PodMonitor where prometheus-operator is"),
        pytest.param({"monitoring": {"podMonitor": False}}, PROMETHEUS_OPERATOR, "PodMonitor", False,
                     id="no PodMonitor where it is not wanted"),
        pytest.param({"networkPolicy": {"enabled": False}}, (), "NetworkPolicy", False,
                     id="no NetworkPolicy where it is not wanted"),
        pytest.param({}, (), "StatefulSet", True, id="the registry is there"),
        pytest.param({"registry": {"enabled": False}}, PROMETHEUS_OPERATOR, "StatefulSet", False,
                     id="no registry where it is not wanted"),
        pytest.param({}, (), "Job", True, id="the CRD hook is there"),
        pytest.param({"crds": {"hook": False}}, (), "Job", False, id="no CRD hook where it is not wanted"),
        pytest.param({}, (), "CustomResourceDefinition", False, id="no definition among what an uninstall removes"),
        pytest.param({}, PROMETHEUS_OPERATOR, "PrometheusRule", True, id="rules where prometheus-operator is"),
        pytest.param({}, (), "PrometheusRule", False, id="no rules where no cluster knows them"),
        pytest.param({"monitoring": {"rules": False}}, PROMETHEUS_OPERATOR, "PrometheusRule", False,
                     id="no rules where they are not wanted"),
        pytest.param({"monitoring": {"podMonitor": False}}, PROMETHEUS_OPERATOR, "PrometheusRule", False,
                     id="no rules without the job that they are about"),
        pytest.param({"replicas": 0}, PROMETHEUS_OPERATOR, "PrometheusRule", False,
                     id="no rules about an operator that nobody wants to run"),
    ],
)  # fmt: skip
def test_optional_objects(
    render: Render, values: dict[str, Any], kinds: tuple[str, ...], kind: str, present: bool
) -> None:
    assert (kind in {o["kind"] for o in render(values, kinds=kinds)}) is present


def test_without_the_hook_nothing_may_touch_definitions(render: Render) -> None:
    roles = [o for o in render({"crds": {"hook": False}, "registry": {"enabled": False}}) if o["kind"] == "ClusterRole"]
    tenants = {name for name, _ in tenant_roles.AGGREGATED_ROLES} | {one.name for one in tenant_roles.list_roles()}
    assert {role["metadata"]["name"] for role in roles} == {"r1plus-operator"} | tenants
    assert "customresourcedefinitions" not in str(roles)


def test_the_hook_runs_before_install_and_upgrade_after_its_rights(render: Render) -> None:
    hooks = [o for o in render() if o["metadata"].get("annotations", {}).get("helm.sh/hook", "test") != "test"]
    notes = {o["kind"]: o["metadata"]["annotations"] for o in hooks}
    assert set(notes) == {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "NetworkPolicy", "Job"}
    assert {note["helm.sh/hook"] for note in notes.values()} == {"pre-install,pre-upgrade"}
    weights = {kind: int(note["helm.sh/hook-weight"]) for kind, note in notes.items()}
    assert max(weight for kind, weight in weights.items() if kind != "Job") < weights["Job"]
