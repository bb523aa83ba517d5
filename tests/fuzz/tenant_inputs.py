"""What of the classes of bad input concerns an R1PlusTenant: by class, as in `bad_inputs`, which takes it in.

What is taken here is judged at admission alone: a tenant's walls are not a deployment's children.
"""

from typing import Any

from fuzz.cases import Case, Refused
from r1plus_contract import names

Json = dict[str, Any]
LABEL = "should match"
OWN = "cidr must not be a loopback, link-local or metadata address"
NETWORK = "cidr must be a network, e.g. 10.20.0.0/16"


def tenant(name: str = names.TENANT, metadata: Json | None = None, **spec: Any) -> Json:
    """An R1PlusTenant as a platform team writes it."""
    meta = {"name": name, **(metadata or {})}
    return {"apiVersion": names.API_VERSION, "kind": names.KIND_TENANT, "metadata": meta, "spec": spec}


def way(**fields: Any) -> Json:
    """A tenant with one way out."""
    return tenant(egress=[{"ports": [443], **fields}])


def calls(namespace: Any) -> Json:
    """A tenant that lets this namespace call."""
    return tenant(callers={"namespaces": [namespace]})


def run_by(kind: str, name: str) -> Json:
    """A tenant with this one administrator."""
    return tenant(admins=[{"kind": kind, "name": name}])


def gateway(**fields: Any) -> Json:
    """A tenant with a gateway."""
    return tenant(gateway={"enabled": True, **fields})


def keeps(days: Any) -> Json:
    """A tenant whose gateway keeps conversations for so many days."""
    return tenant(data={"retentionDays": days})


def tolerates(**toleration: Any) -> Json:
    """A tenant whose models tolerate this taint."""
    return tenant(placement={"tolerations": [toleration]})


def reaches(**source: Any) -> Json:
    """A tenant whose gateway this may connect to."""
    return gateway(**{"from": [source]})


REFUSED: dict[str, tuple[Case, ...]] = {
    "missing required": (
        Refused(gateway(tls={}), ("spec.gateway.tls.secretName: Required value",)),
        Refused(gateway(embedding={}), ("spec.gateway.embedding.engine: Required value",)),
        Refused(gateway(database={"secretName": "store"}), ("spec.gateway.database.egress: Required value",)),
        Refused(tenant(egress=[{"cidr": "10.0.0.0/8"}]), ("spec.egress[0].ports: Required value",)),
        Refused(tenant(admins=[{"kind": "User"}]), ("spec.admins[0].name: Required value",)),
        Refused(tolerates(operator="Exists"), ("spec.placement: Invalid value", "tolerations need a key")),
        Refused(tolerates(value="a"), ("spec.placement.tolerations[0]", "key is needed unless operator is Exists")),
        Refused(tolerates(key="a", tolerationSeconds=5), ("spec.placement.tolerations[0]", "needs effect NoExecute")),
    ),
    "null": (Refused(calls(None), ("spec.callers.namespaces[0]", "null")),),
    "wrong type": (
        Refused(tenant(gateway="yes"), ("spec.gateway", "object")),
        Refused(tenant(data=30), ("spec.data", "object")),
        Refused(tenant(egress="10.0.0.0/8"), ("spec.egress", "array")),
        Refused(tenant(callers={"namespaces": "team-b"}), ("spec.callers.namespaces", "array")),
    ),
    "int as string": (
        Refused(way(cidr="10.0.0.0/8", ports=["443"]), ("spec.egress[0].ports[0]", "integer", "string")),
        Refused(keeps("30"), ("spec.data.retentionDays", "integer", "string")),
    ),
    "empty list": (Refused(way(cidr="10.0.0.0/8", ports=[]), ("spec.egress[0].ports", "at least 1 items")),),
    "empty string": (
        Refused(gateway(embedding={"engine": ""}), ("spec.gateway.embedding.engine",)),
        Refused(gateway(tls={"secretName": ""}), ("spec.gateway.tls.secretName",)),
        Refused(calls(""), ("spec.callers.namespaces[0]",)),
        Refused(run_by("User", ""), ("spec.admins[0].name",)),
        Refused(
            tenant(placement={"nodeSelectors": [{"": "a"}]}), ("spec.placement.nodeSelectors[0]", "keys must have at most 253")
        ),
        Refused(tolerates(key="a", operator="Exists", value="b"), ("spec.placement.tolerations[0]", "value must be empty")),
    ),
    "unknown field": (
        Refused(gateway(embedding={"engine": "a", "image": "evil:1"}), ('unknown field "spec.gateway.embedding.image"',)),
        Refused(gateway(image="evil:1"), ('unknown field "spec.gateway.image"',)),
        Refused(tenant(data={"key": "a"}), ('unknown field "spec.data.key"',)),
        Refused(gateway(tls={"secretName": "a", "namespace": "b"}), ('unknown field "spec.gateway.tls.namespace"',)),
        Refused(tenant(secretRef={"namespace": "team-b", "name": "db"}), ('unknown field "spec.secretRef"',)),
        Refused(way(cidr="10.0.0.0/8", protocol="UDP"), ('unknown field "spec.egress[0].protocol"',)),
        Refused(
            tenant(admins=[{"kind": "ServiceAccount", "name": "ci", "namespace": "team-b"}]),
            ('unknown field "spec.admins[0].namespace"',),
        ),
    ),
    "0": (
        Refused(way(cidr="10.0.0.0/8", ports=[0]), ("spec.egress[0].ports[0]", "0", "greater than or equal to 1")),
        Refused(gateway(limits={"queuePerKey": 0}), ("spec.gateway.limits.queuePerKey", "greater than or equal to 1")),
        Refused(keeps(0), ("spec.data.retentionDays", "greater than or equal to 1")),
    ),
    "-1": (Refused(tenant(quota={"pods": -1}), ("spec.quota.pods", "-1", "greater than or equal to 0")),),
    "2^31": (
        Refused(way(cidr="10.0.0.0/8", ports=[65536]), ("spec.egress[0].ports[0]", "less than or equal to 65535")),
        Refused(
            gateway(limits={"chunksPerKey": 2**31}), ("spec.gateway.limits.chunksPerKey", "less than or equal to 100000")
        ),
        Refused(keeps(2**31), ("spec.data.retentionDays", "less than or equal to 3650")),
    ),
    "2^63": (
        Refused(tenant(quota={"deployments": 2**63}), ("spec.quota.deployments", "integer")),
        Refused(gateway(limits={"bodyBytes": 2**63}), ("spec.gateway.limits.bodyBytes", "integer")),
    ),
    "1x": (Refused(tenant(quota={"cpu": "lots"}), ("spec.quota.cpu", '"lots"', LABEL)),),
    "-1Gi": (Refused(tenant(quota={"memory": "-1Gi"}), ("spec.quota.memory", '"-1Gi"', LABEL)),),
    "fractional GPU": (Refused(tenant(quota={"gpus": 0.5}), ("spec.quota.gpus", "integer")),),
    "64-char name": (Refused(calls("a" * 64), ("spec.callers.namespaces[0]", "63")),),
    "uppercase": (
        Refused(tenant("Tenant"), ("metadata.name", '"Tenant"')),
        Refused(calls("Team-B"), ("spec.callers.namespaces[0]", '"Team-B"', LABEL)),
    ),
    "leading dash": (Refused(calls("-team-b"), ("spec.callers.namespaces[0]", LABEL)),),
    "NUL": (Refused(run_by("User", "alice\0"), ("spec.admins[0].name", LABEL)),),
    "newline (config/PromQL injection)": (
        Refused(calls("team-b\n"), ("spec.callers.namespaces[0]", LABEL)),
        Refused(run_by("Group", "ops\nsystem:masters"), ("spec.admins[0].name", LABEL)),
    ),
    "RTL/homoglyph tenant": (
        Refused(calls("team\u202e-b"), ("spec.callers.namespaces[0]", LABEL)),
        Refused(calls("tеam-b"), ("spec.callers.namespaces[0]", LABEL)),
    ),
    "NFC/NFD pair": (Refused(calls("cafe\u0301"), ("spec.callers.namespaces[0]", LABEL)),),
    "case-collision": (Refused(tenant("TENANT"), ("metadata.name", '"TENANT"')),),
    "reserved names (public, pg_x, kube-system)": (
        Refused(tenant("tenant2"), ("metadata.name", "tenant")),
        *(
            Refused(run_by(kind, name), ("spec.admins[0]", "name must not start with system:"))
            for kind, name in (
                ("Group", "system:masters"),
                ("Group", "system:authenticated"),
                ("Group", "system:serviceaccounts:team-b"),
                ("User", "system:serviceaccount:team-b:default"),
                ("User", "system:anonymous"),
            )
        ),
        Refused(tenant(viewers=[{"kind": "Group", "name": "system:masters"}]), ("spec.viewers[0]", "system:")),
    ),
    "case variant": (Refused(run_by("user", "alice"), ("spec.admins[0].kind", '"user"', '"User", "Group"')),),
    "other-namespace Secret": (
        Refused(run_by("ServiceAccount", "team-b:ci"), ("spec.admins[0]", "without a namespace in front")),
        Refused(run_by("ServiceAccount", "team-b/ci"), ("spec.admins[0]", "without a namespace in front")),
        Refused(
            tenant(viewers=[{"kind": "ServiceAccount", "name": "team-b:ci"}]), ("spec.viewers[0]", "without a namespace in front")
        ),
    ),
    "URL to metadata IP/loopback/file:": (
        Refused(reaches(cidr="10.0.0.1"), ("spec.gateway.from[0].cidr", LABEL)),
        Refused(reaches(cidr="::ffff:a9fe:a9fe/128"), ("spec.gateway.from[0]", NETWORK)),
        Refused(reaches(), ("spec.gateway.from[0]", "exactly one of cidr and namespace")),
        Refused(reaches(cidr="10.0.0.0/8", namespace="web"), ("spec.gateway.from[0]", "exactly one of cidr")),
        Refused(
            gateway(database={"secretName": "a", "egress": {"ports": [5432]}}),
            ("spec.gateway.database.egress", "exactly one of cidr and namespace"),
        ),
        Refused(
            gateway(database={"secretName": "a", "egress": {"cidr": "169.254.169.254/32", "ports": [80]}}),
            ("spec.gateway.database.egress", OWN),
        ),
        Refused(
            gateway(database={"secretName": "a", "egress": {"cidr": "10.0.0.0/33", "ports": [80]}}),
            ("spec.gateway.database.egress", NETWORK),
        ),
        *(
            Refused(way(cidr=network), ("spec.egress[0]", OWN))
            for network in ("169.254.169.254/32", "127.0.0.1/8", "127.0.0.1/32", "::1/128", "fe80::1/64", "fd00:ec2::254/128")
        ),
        # The metadata service in IPv6's clothes, and notations that one reader takes for octal.
        *(
            Refused(way(cidr=network), ("spec.egress[0]", NETWORK))
            for network in ("::ffff:a9fe:a9fe/128", "0251.254.169.254/32", "169.254.43518.1/32", "10.0.0.0/33", "1.2.3/8")
        ),
        Refused(way(cidr="10.0.0.1"), ("spec.egress[0].cidr", LABEL)),
        Refused(way(cidr="metadata.google.internal/32"), ("spec.egress[0].cidr", LABEL)),
        Refused(way(cidr="10.0.0.0/8", namespace="team-b"), ("spec.egress[0]", "exactly one of cidr and namespace")),
        Refused(way(), ("spec.egress[0]", "exactly one of cidr and namespace")),
    ),
    "bool-as-yes": (
        Refused(tenant(gateway={"enabled": "yes"}), ("spec.gateway.enabled", "boolean")),
        Refused(gateway(calculator="yes"), ("spec.gateway.calculator", "boolean")),
        Refused(gateway(calculator={"image": "evil:1"}), ("spec.gateway.calculator", "image")),
        Refused(gateway(calculator=True, codeInterpreter="yes"), ("spec.gateway.codeInterpreter", "boolean")),
        Refused(gateway(codeInterpreter=True), ("spec.gateway", "codeInterpreter: the calculator runs the code")),
        Refused(gateway(knowledge="yes"), ("spec.gateway.knowledge", "boolean")),
    ),
    "replicas 0": (
        Refused(gateway(replicas=0), ("spec.gateway.replicas", "greater than or equal to 1")),
    ),
    "replicas 10^6": (
        Refused(gateway(replicas=6), ("spec.gateway.replicas", "less than or equal to 5")),
        Refused(gateway(replicas=2), ("spec.gateway", "more than 1 need database")),
    ),
    "../": (
        Refused(gateway(tls={"secretName": "../web"}), ("spec.gateway.tls.secretName", LABEL)),
    ),
    "generateName": (Refused(tenant("", {"generateName": "tenant"}), ("metadata.name", "tenant")),),
}  # fmt: skip

TAKEN: dict[str, Json] = {
    "nothing at all": tenant(),
    "everywhere": way(cidr="0.0.0.0/0"),
    "everywhere, in IPv6": way(cidr="::/0"),
    "a network with an address in it": way(cidr="10.20.30.40/16"),
    "a namespace": way(namespace="team-data"),
    "a caller": calls("team-front"),
    "a person": run_by("User", "alice@example.com"),
    "a group with letters of its own": run_by("Group", "Kreditabteilung-Zürich"),
    "a service account of this namespace": run_by("ServiceAccount", "ci.bot"),
    "a quota": tenant(quota={"deployments": 3, "pods": 20, "cpu": "16", "memory": "64Gi", "gpus": 0, "storage": "1Ti"}),
    "a gateway": gateway(directAccess=False, tls={"secretName": "web.tls"}, limits={"bodyBytes": 1024}),
    "a gateway that is off": tenant(gateway={}),
    "a gateway with a calculator": gateway(calculator=True),
    "a gateway that runs code": gateway(calculator=True, codeInterpreter=True),
    "a gateway with knowledge": gateway(knowledge=True),
    "a gateway of several pods": gateway(
        replicas=5, database={"secretName": "store", "egress": {"namespace": "postgres", "ports": [5432]}}
    ),
    "whoever reaches the cluster": reaches(cidr="0.0.0.0/0"),
    "an Ingress controller": reaches(namespace="ingress-nginx"),
    "a status on create, which is dropped": {**tenant(), "status": {"isolation": {"finished": "2030-01-01T00:00:00Z"}}},
}
