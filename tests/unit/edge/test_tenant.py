"""An R1PlusTenant on one machine: honoured field by field, or refused by field."""

from pathlib import Path
from typing import Any

import pytest

from r1plus_cli import local
from r1plus_cli.documents import Document
from r1plus_cli.errors import UsageError
from r1plus_cli.serve.tenant_request import read_tenant
from r1plus_contract.gateway import GatewayLimits
from r1plus_contract.names import API_VERSION, KIND_TENANT
from r1plus_edge.errors import EdgeRequestError
from r1plus_edge.start.tenant import DEFAULT_SPEC, TenantRequest, build_tenant
from r1plus_model_repo.catalog.embedding import EmbeddingEngine
from r1plus_model_repo.catalog.loader import load_all_engines
from r1plus_operator.api.tenants import R1PlusTenantSpec
from support.tables import for_each

ENGINES = [one for one in load_all_engines(local.SHIPPED_CATALOG) if isinstance(one, EmbeddingEngine)]


def tenant_of(**spec: Any) -> TenantRequest:
    return build_tenant(R1PlusTenantSpec.model_validate(spec), ENGINES)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "administrators": ({"admins": [{"kind": "User", "name": "anna"}]}, "spec.admins: anna: there is no cluster"),
    "viewers": ({"viewers": [{"kind": "Group", "name": "staff"}]}, "spec.viewers: staff: there is no cluster"),
    "namespaces that may call": (
        {"callers": {"namespaces": ["team-app"]}},
        "spec.callers.namespaces: team-app: callers have API keys here; leave the field out",
    ),
    "ways out": ({"egress": [{"cidr": "10.0.0.0/8", "ports": [443]}]}, "spec.egress: 10.0.0.0/8: there are no pods"),
    "a quota": ({"quota": {"pods": 3}}, "spec.quota: pods: there are no pods of your own"),
    "nodes": ({"placement": {"nodeSelectors": [{"zone": "a"}]}}, "spec.placement: nodeSelectors: there is one node"),
    "a user": ({"runAsUser": 20000}, "spec.runAsUser: 20000: processes run as you; leave the field out"),
    "no gateway": ({"gateway": {"enabled": False}}, "spec.gateway.enabled: false: nothing else answers callers"),
    "two gateways": (
        {"gateway": {"replicas": 2, "database": {"secretName": "db", "egress": {"cidr": "10.0.0.1/32", "ports": [5]}}}},
        "spec.gateway.replicas: 2: one machine runs one gateway; leave the field out",
    ),
    "only the gateway at the engine": (
        {"gateway": {"directAccess": False}},
        "spec.gateway.directAccess: false: nothing here closes the engine's port on loopback",
    ),
    "networks": ({"gateway": {"from": [{"cidr": "10.0.0.0/8"}]}}, "spec.gateway.from: 10.0.0.0/8: say where to listen"),
    "a certificate": ({"gateway": {"tls": {"secretName": "web"}}}, "spec.gateway.tls: web: there are no Secrets; give"),
    "a database": (
        {"gateway": {"database": {"secretName": "db", "egress": {"cidr": "10.0.0.1/32", "ports": [5432]}}}},
        "spec.gateway.database: db: there are no Secrets: the data are encrypted in the data folder",
    ),
    "deletion with the object": (
        {"data": {"deletionPolicy": "Delete"}},
        "spec.data.deletionPolicy: Delete: no object is deleted here: delete the data folder yourself",
    ),
    "an engine that the catalog has not": (
        {"gateway": {"embedding": {"engine": "other"}}},
        "spec.gateway.embedding.engine: other: the catalog has no engine of kind embedding of this name; it has all-min",
    ),
}


@for_each("refusal", REFUSED)
def test_refused_by_its_path(refusal: tuple[dict[str, Any], str]) -> None:
    spec, words = refusal
    with pytest.raises(EdgeRequestError) as error:
        tenant_of(**spec)
    assert str(error.value).startswith(words)


def test_each_field_of_the_spec_is_honoured_or_refused() -> None:
    """A field that the API gains is neither until somebody decides."""
    honoured = {"gateway.calculator", "gateway.codeInterpreter", "gateway.knowledge", "gateway.embedding"}
    honoured |= {"gateway.limits", "data.retentionDays"}
    refused = {words.split(":")[0].removeprefix("spec.") for _, words in REFUSED.values()}
    decided = honoured | {".".join(path.split(".")[:2]) for path in refused}
    fields = set()
    for name, field in R1PlusTenantSpec.model_fields.items():
        if name in ("gateway", "data"):
            parts = field.annotation.model_fields  # type: ignore[union-attr]
            fields |= {f"{name}.{part.alias or other}" for other, part in parts.items()}
        else:
            fields.add(field.alias or name)
    assert {path if path.startswith(("gateway", "data")) else path.split(".")[0] for path in decided} == fields


def test_what_is_honoured_reaches_the_plan_unchanged() -> None:
    request = tenant_of(
        gateway={"calculator": True, "limits": {"queuePerKey": 4}, "embedding": {"engine": ENGINES[0].name}},
        data={"retentionDays": 7},
    )
    gateway = request.spec.gateway
    assert (gateway.enabled, gateway.calculator, gateway.knowledge) == (True, True, False)
    assert (gateway.limits.queue_per_key, request.spec.data.retention_days) == (4, 7)
    assert request.embedding == ENGINES[0]


def document_of(namespace: str = "local", name: str = "tenant", **spec: Any) -> Document:
    metadata = {"name": name, "namespace": namespace}
    return Document("edge.yaml", {"apiVersion": API_VERSION, "kind": KIND_TENANT, "metadata": metadata, "spec": spec})


def test_without_a_tenant_all_is_on_and_the_catalog_has_its_engine() -> None:
    request = read_tenant([], (local.SHIPPED_CATALOG,), "local")
    assert request.spec == DEFAULT_SPEC
    assert request.embedding is not None
    limits = request.spec.gateway.limits
    assert limits.chunks_per_key == GatewayLimits().chunks_per_tenant, "the owner has one key"


def test_a_catalog_without_the_engine_of_the_default_has_documents_by_words(tmp_path: Path) -> None:
    request = read_tenant([], (tmp_path,), "local")
    assert (request.spec.gateway.embedding, request.embedding, request.spec.gateway.knowledge) == (None, None, True)


WRONG: dict[str, tuple[list[Document], str]] = {
    "two tenants": ([document_of(), document_of()], "edge.yaml: local/tenant: is the second R1PlusTenant"),
    "another namespace's": (
        [document_of("team-shop")],
        "edge.yaml: team-shop/tenant: metadata.namespace: team-shop: the R1PlusDeployment has local",
    ),
    "another name": ([document_of(name="shop")], "edge.yaml: local/shop: metadata.name: 'shop' must be tenant"),
    "a field that is none": ([document_of(gateway={"calculators": True})], "edge.yaml: local/tenant: spec.gateway."),
    "a field that is refused": ([document_of(quota={"pods": 1})], "edge.yaml: local/tenant: spec.quota: pods"),
}


@for_each("case", WRONG)
def test_a_file_with(case: tuple[list[Document], str]) -> None:
    documents, words = case
    with pytest.raises(UsageError) as error:
        read_tenant(documents, (local.SHIPPED_CATALOG,), "local")
    assert str(error.value).startswith(words)
