"""The two judges of a document: the real API server, and the pydantic models. They must never disagree.

The server is asked as kubectl asks it (`fieldValidation=Strict`), in a dry run: admission whole, nothing stored.
"""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import aiohttp
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from r1plus_contract.names import TENANT
from r1plus_model_repo.catalog.embedding import SPEC
from r1plus_model_repo.catalog.types import EngineName
from r1plus_operator.api import crd, kinds
from r1plus_operator.api.tenants import R1PlusTenantSpec, R1PlusTenantStatus
from r1plus_operator.api.types import DNS_1035, MAX_NAME, DeploymentName, R1PlusDeploymentSpec, R1PlusDeploymentStatus
from r1plus_operator.runtime import connection
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.resources import Resource
from support.apiserver.manifests import manifest

Json = dict[str, Any]
NAMESPACE = "fuzz"
STORED = "fuzz-stored"
"""Where the tenant is whose status is written: in the other namespace there must be none yet."""
REFUSALS = (400, 403, 413, 422)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One judge's word. `read` is what came of the document: defaults filled in, nulls gone."""

    admitted: bool
    why: str = ""
    read: Any = None


@dataclass(frozen=True, slots=True)
class Subject:
    """A part of a kind that is judged: its schema, its model, and the request that carries a document."""

    name: str
    schema: Json
    model: TypeAdapter[Any]
    resource: Resource
    body: Callable[[Any], Json]
    part: Callable[[Json], Any]
    """Where in the server's answer the document is."""
    subresource_of: str = ""
    """Set for a status: the object that has it."""
    namespace: str = NAMESPACE

    def read(self, document: Any) -> Verdict:
        """The model's word. Whatever else it raises is a crash, and the caller's to report."""
        try:
            return Verdict(True, read=self.model.validate_python(document))
        except ValidationError as error:
            return Verdict(False, "; ".join(f"{one['loc']}: {one['msg']}" for one in error.errors(include_url=False)))


def _defaulted(spec: Any) -> Any:
    """As the API server takes a null where the schema has a default."""
    return {} if spec is None else spec


def subjects(deployed: Json, tenant: Json) -> tuple[Subject, ...]:
    """Everything that the CRDs describe. A deployment and a tenant that are stored: their status is written."""
    schemas = {d["spec"]["names"]["kind"]: d["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"] for d in crd.build_definitions().values()}  # fmt: skip
    deployments, engines, tenants = kinds.R1PLUS_DEPLOYMENT, kinds.R1PLUS_ENGINE, kinds.R1PLUS_TENANT
    deployment, engine, allowed = schemas[deployments.kind], schemas[engines.kind], schemas[tenants.kind]
    name = {"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": DNS_1035}
    only = {"type": "string", "enum": [TENANT]}
    return (
        Subject("R1PlusDeployment.spec", deployment["spec"], TypeAdapter(R1PlusDeploymentSpec), deployments, _specified(deployments), _spec),
        Subject("R1PlusEngine.spec", engine["spec"], SPEC, engines, _specified(engines), _spec),
        Subject("R1PlusTenant.spec", allowed["spec"], TypeAdapter(Annotated[R1PlusTenantSpec, BeforeValidator(_defaulted)]), tenants, _specified(tenants, TENANT), _spec),
        Subject("R1PlusDeployment.status", deployment["status"], TypeAdapter(R1PlusDeploymentStatus | None), deployments, _with_status(deployed), _status, deployed["metadata"]["name"]),
        Subject("R1PlusTenant.status", allowed["status"], TypeAdapter(R1PlusTenantStatus | None), tenants, _with_status(tenant), _status, TENANT, STORED),
        Subject("R1PlusDeployment.metadata.name", name, TypeAdapter(DeploymentName), deployments, _named(deployments, {"tier": "full"}), _name),
        Subject("R1PlusEngine.metadata.name", name | {"maxLength": 63}, TypeAdapter(EngineName), engines, _named(engines, ENGINE), _name),
        Subject("R1PlusTenant.metadata.name", only, TypeAdapter(Literal["tenant"]), tenants, _named(tenants, {}), _name),
    )  # fmt: skip


async def stored(client: ApiClient) -> tuple[Json, Json]:
    """A deployment and a tenant that are there, for their status to be written; and the namespaces."""
    for name in (NAMESPACE, STORED):
        await client.apply(kinds.NAMESPACE, manifest(kinds.NAMESPACE, name), field_manager="fuzz")
    deployed = _object(kinds.R1PLUS_DEPLOYMENT, "stored", {"tier": "full"})
    tenant = _object(kinds.R1PLUS_TENANT, TENANT, {}, STORED)
    return (
        await client.apply(kinds.R1PLUS_DEPLOYMENT, deployed, field_manager="fuzz"),
        await client.apply(kinds.R1PLUS_TENANT, tenant, field_manager="fuzz"),
    )


ENGINE: Json = {
    "family": "f", "tier": "full", "version": "1.0.0", "precision": "FP16", "backend": "openvino",
    "architecture": {"layers": 1, "kvHeads": 1, "headSize": 1, "contextLength": 16, "parameters": 1},
    "artifact": {"image": "engines/f:1", "sha256": "0" * 64},
    "requirements": {"cpu": "1", "weightsMemory": "1Mi", "runtimeMemory": "1Mi"},
    "batch": {"best": 1, "max": 1},
    "reference": {"suite": "s", "inheritedFrom": "g"},
}  # fmt: skip
"""The least that an engine says."""


def _object(resource: Resource, name: Any, spec: Any, namespace: str = NAMESPACE) -> Json:
    return manifest(resource, name, namespace if resource.is_namespaced else "", spec=spec)


def _specified(resource: Resource, name: str = "fuzzed") -> Callable[[Any], Json]:
    return lambda spec: _object(resource, name, spec)


def _with_status(stored: Json) -> Callable[[Any], Json]:
    return lambda status: stored | {"status": status}


def _named(resource: Resource, spec: Json) -> Callable[[Any], Json]:
    return lambda name: _object(resource, name, spec)


def _spec(made: Json) -> Any:
    return made["spec"]


def _status(made: Json) -> Any:
    return made.get("status")


def _name(made: Json) -> Any:
    return made["metadata"]["name"]


class Server:
    """kube-apiserver, asked with bytes of our own making: 2^70 and NaN are among what is sent."""

    def __init__(self, kubeconfig: Path) -> None:
        self._to = connection.from_kubeconfig(kubeconfig)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=self._to.tls or True))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def judge(self, subject: Subject, document: Any) -> Verdict:
        """Admitted or refused, and why."""
        text = json.dumps(subject.body(document), ensure_ascii=False)
        name = subject.subresource_of
        return await self.ask(
            "PUT" if name else "POST",
            subject.resource,
            text,
            subject.part,
            namespace=subject.namespace,
            name=name,
            subresource="status" if name else "",
        )

    async def ask(
        self,
        method: str,
        resource: Resource,
        text: str,
        part: Callable[[Json], Any],
        *,
        namespace: str = NAMESPACE,
        name: str = "",
        subresource: str = "",
    ) -> Verdict:
        """Send a dry run. An answer that is neither yes nor no is an error of the run."""
        path = resource.path(namespace if resource.is_namespaced else None, name or None, subresource)
        url = f"{self._to.server}{path}?dryRun=All&fieldValidation=Strict&fieldManager=kubectl"
        headers = {"Content-Type": "application/json"}
        async with self._session.request(method, url, data=io.BytesIO(text.encode()), headers=headers) as answer:
            body = await answer.json(content_type=None, loads=json.loads)
        if answer.status in (200, 201):
            return Verdict(True, read=part(body))
        if answer.status in REFUSALS:
            return Verdict(False, body["message"])
        raise RuntimeError(f"{method} {path}: {answer.status} {body}")
