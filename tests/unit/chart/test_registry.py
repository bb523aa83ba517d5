"""The chart's registry: on a volume or PostgreSQL, reached by those it is for, and gone without a trace where not wanted."""

from typing import Any

import pytest

from r1plus_contract.history import AUDIENCE, PORT
from r1plus_registry.database import parse_dsn
from r1plus_registry.retention import Retention
from support.chart import OTHER_VALUES, PROMETHEUS_OPERATOR, Refusal, Render, environment, one, pods

OFF = {"registry": {"enabled": False}}
POSTGRESQL = {"registry": {"database": {"existingSecret": "registry-database"}}}


def container(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = pods(objects)["StatefulSet"]["containers"]
    return dict(found)


def test_by_default_it_is_one_replica_with_a_file_on_a_volume(render: Render) -> None:
    spec = one(render(), "StatefulSet", "r1plus-registry")["spec"]
    assert spec["replicas"] == 1
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "r1plus-registry"}} in spec["template"]["spec"][
        "volumes"
    ]
    claim = one(render(), "PersistentVolumeClaim", "r1plus-registry")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claim["spec"] == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    found = container(render())
    env = {entry["name"]: entry.get("value") for entry in found["env"]}
    url = parse_dsn(env["R1PLUS_REGISTRY_DSN"])
    assert url.database in [f"{m['mountPath']}/registry.db" for m in found["volumeMounts"] if m["name"] == "data"]
    assert env["R1PLUS_REGISTRY_WRITER"] == "system:serviceaccount:r1plus-system:r1plus-operator"
    assert env["R1PLUS_REGISTRY_PORT"] == str(PORT)


def test_how_much_is_kept_is_what_the_service_itself_keeps_by_default(render: Render) -> None:
    env = {entry["name"]: entry["value"] for entry in container(render())["env"]}
    kept = (env[f"R1PLUS_REGISTRY_{name}"] for name in ("RETENTION_DAYS", "SHARE_ENTRIES", "SHARE_ITEMS"))
    assert Retention(*map(int, kept)) == Retention()
    large = container(render({"registry": {"retention": 36500, "share": {"entries": 1000000, "items": 100000000}}}))
    assert {"36500", "1000000", "100000000"} < {entry["value"] for entry in large["env"]}


def test_with_a_secret_the_dsn_comes_from_it_and_there_is_no_volume(render: Render) -> None:
    objects = render(OTHER_VALUES)
    spec = one(objects, "StatefulSet", "r1plus-registry")["spec"]
    assert spec["replicas"] == 2
    assert not [o for o in objects if o["kind"] == "PersistentVolumeClaim"]
    found = container(objects)
    (dsn,) = [entry["value"] for entry in found["env"] if entry["name"].startswith("R1PLUS_REGISTRY_DSN")]
    (mount,) = [m for m in found["volumeMounts"] if m["name"] == "database"]
    (volume,) = [v for v in pods(objects)["StatefulSet"]["volumes"] if v["name"] == "database"]
    assert volume["secret"] == {"secretName": "registry-database", "items": [{"key": "url", "path": "dsn"}]}
    assert dsn == f"{mount['mountPath']}/dsn"
    assert "subPath" not in mount, "what is mounted by subPath never changes"


def test_a_pod_that_never_gets_ready_does_not_hold_up_the_upgrade_that_mends_it(render: Render) -> None:
    assert one(render(), "StatefulSet", "r1plus-registry")["spec"]["podManagementPolicy"] == "Parallel"


def test_the_ca_of_the_database_comes_from_the_secret_of_its_dsn(render: Render) -> None:
    objects = render({"registry": {"database": {"existingSecret": "registry-database", "caKey": "ca.pem"}}})
    found = container(objects)
    (trusted,) = [entry["value"] for entry in found["env"] if entry["name"] == "PGSSLROOTCERT"]
    (mount,) = [m for m in found["volumeMounts"] if m["name"] == "database"]
    (volume,) = [v for v in pods(objects)["StatefulSet"]["volumes"] if v["name"] == "database"]
    assert volume["secret"]["items"] == [{"key": "dsn", "path": "dsn"}, {"key": "ca.pem", "path": "ca.crt"}]
    assert trusted == f"{mount['mountPath']}/ca.crt"


def test_the_operator_delivers_there_with_a_token_that_is_worth_nothing_elsewhere(render: Render) -> None:
    objects = render()
    service = one(objects, "Service", "r1plus-registry")
    assert service["spec"]["selector"].items() <= one(objects, "StatefulSet", "r1plus-registry")["spec"]["template"]["metadata"]["labels"].items()  # fmt: skip
    assert environment(objects)["R1PLUS_REGISTRY_URL"] == f"http://r1plus-registry.r1plus-system.svc:{PORT}"
    (volume,) = [v for v in pods(objects)["Deployment"]["volumes"] if v["name"] == "registry"]
    (source,) = volume["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == AUDIENCE
    (operator,) = pods(objects)["Deployment"]["containers"]
    (mount,) = [m for m in operator["volumeMounts"] if m["name"] == "registry"]
    assert mount["mountPath"] == "/var/run/secrets/r1plus.ai/registry"


@pytest.mark.parametrize(
    ("values", "ways_out"),
    [({}, 1), (POSTGRESQL, 3)],
    ids=["to the API server alone", "and to DNS and PostgreSQL"],
)
def test_the_policies_let_the_operator_and_prometheus_in(render: Render, values: dict[str, Any], ways_out: int) -> None:
    objects = render(values)
    spec = one(objects, "NetworkPolicy", "r1plus-registry")["spec"]
    labels = one(objects, "StatefulSet", "r1plus-registry")["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()
    (ingress,) = spec["ingress"]
    operator, prometheus = ingress["from"]
    assert operator["podSelector"]["matchLabels"]["app.kubernetes.io/name"] == "r1plus-operator"
    assert prometheus["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}
    assert ingress["ports"] == [{"protocol": "TCP", "port": PORT}]
    assert len(spec["egress"]) == ways_out


def test_the_way_to_postgresql_is_as_narrow_as_the_values_say(render: Render) -> None:
    *_, database = one(render(OTHER_VALUES), "NetworkPolicy", "r1plus-registry")["spec"]["egress"]
    assert database == {"ports": [{"protocol": "TCP", "port": 6432}], "to": [{"ipBlock": {"cidr": "10.2.0.0/16"}}]}


def test_clients_reach_its_first_pod_and_no_other(render: Render) -> None:
    objects = render(OTHER_VALUES)
    (rule,) = one(objects, "Role", "r1plus-registry-client")["rules"]
    assert (rule["resources"], rule["resourceNames"]) == (["pods/portforward"], ["r1plus-registry-0"])
    binding = one(objects, "RoleBinding", "r1plus-registry-client")
    assert [subject["name"] for subject in binding["subjects"]] == ["credit-admins"]
    assert not [o for o in render() if (o["kind"], o["metadata"]["name"]) == ("RoleBinding", "r1plus-registry-client")]


def test_where_it_is_not_wanted_nothing_of_it_is_left(render: Render) -> None:
    objects = render(OFF, kinds=PROMETHEUS_OPERATOR)
    assert not [o for o in objects if "registry" in o["metadata"]["name"]]
    assert environment(objects)["R1PLUS_REGISTRY_URL"] == ""
    assert "registry" not in [volume["name"] for volume in pods(objects)["Deployment"]["volumes"]]
    assert len(one(objects, "NetworkPolicy")["spec"]["egress"]) == 5


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a word for yes or no": ({"registry": {"enabled": "yes"}}, "/registry/enabled"),
    "more replicas than anyone needs": ({"registry": {"replicas": 6}}, "/registry/replicas"),
    "a Secret's name that is none": (
        {"registry": {"database": {"existingSecret": "A Secret"}}},
        "/registry/database/existingSecret",
    ),
    "a DSN in the values, where everybody reads it": (
        {"registry": {"database": {"dsn": "postgresql://u:p@h/d"}}},
        "/registry/database",
    ),
    "a retention that is none": ({"registry": {"retention": -1}}, "/registry/retention"),
    "a share that no gate fits in": ({"registry": {"share": {"entries": 1}}}, "/registry/share/entries"),
    "no port": ({"registry": {"database": {"ports": []}}}, "/registry/database/ports"),
    "a path for a key": ({"registry": {"database": {"caKey": "/etc/ssl/ca.crt"}}}, "/registry/database/caKey"),
    "a size that is none": ({"registry": {"storage": {"size": "lots"}}}, "/registry/storage/size"),
    "a group without a name": ({"registry": {"clientGroups": [""]}}, "/registry/clientGroups/0"),
    "no image": ({"images": {"registry": ""}}, "/images/registry"),
    "a CA without a database": (
        {"registry": {"database": {"caKey": "ca.crt"}}},
        "registry.database.caKey: ca.crt is a key of a Secret that is not named",
    ),
    "several replicas on one file": (
        {"registry": {"replicas": 2}},
        "registry.replicas: 2 replicas need PostgreSQL: set registry.database.existingSecret",
    ),
}


@pytest.mark.parametrize(("values", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_refused_with_its_path(refusal: Refusal, values: dict[str, Any], said: str) -> None:
    assert said in refusal(values)


def test_a_move_to_postgresql_changes_what_a_stateful_set_may_change(render: Render) -> None:
    """The API server refuses any change of a StatefulSet beyond its template, replicas and strategy."""
    first, *others = (
        {key: value for key, value in found.items() if key not in ("template", "replicas")}
        for found in (one(render(v), "StatefulSet", "r1plus-registry")["spec"] for v in ({}, POSTGRESQL, OTHER_VALUES))
    )
    assert others == [first, first]
