"""The CustomResourceDefinitions, generated from the pydantic models, which are the only source.

`make generate` writes them into the chart (`generate`). The chart's hook runs `python -m r1plus_operator.api.crd
apply`, since helm installs `crds/` once and never upgrades it.
"""

import argparse
import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import yaml
from pydantic import BaseModel

from r1plus_contract import names
from r1plus_model_repo.catalog.embedding import EmbeddingEngineSpec
from r1plus_model_repo.catalog.types import EMBEDDING_ONLY, GENERATION_ONLY, MAX_ENGINE_NAME, EngineKind, EngineSpec
from r1plus_operator.api import kinds
from r1plus_operator.api.schema import Json, build_structural_schema
from r1plus_operator.api.tenants import R1PlusTenantSpec, R1PlusTenantStatus
from r1plus_operator.api.types import DNS_1035, MAX_NAME, NOT_OBSERVED, R1PlusDeploymentSpec, R1PlusDeploymentStatus
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.resources import Resource

log = logging.getLogger(__name__)

CRD = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", is_namespaced=False
)
CATEGORY = "r1plus"
ESTABLISHED_SECONDS = 30.0
POLL_SECONDS = 0.5

_DEPLOYMENT_COLUMNS = (
    ("Tier", ".spec.tier", "Requested service level."),
    ("Engine", ".status.engine", "Engine of the revision that takes traffic."),
    ("Batch", ".status.batch", "Most requests that run at once."),
    ("Accuracy", ".status.accuracy", "Right / all items of the golden suite, as last counted."),
    ("Verdict", ".status.verdict", "Pass, Fail, Inconclusive, NoData or Error."),
    ("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether it serves."),
    ("Reason", ".status.reason", "Why it does not serve. If it serves: why the spec is not rolled out."),
)
_ENGINE_COLUMNS = (
    ("Kind", ".spec.kind", "What it does; empty: generation."),
    ("Family", ".spec.family", "Model family."),
    ("Tier", ".spec.tier", "Service level that the engine is made for."),
    ("Version", ".spec.version", "Version of the build."),
    ("Precision", ".spec.precision", "Precision of the weights."),
    ("Backend", ".spec.backend", "What runs it inside Triton."),
    ("Suite", ".spec.reference.suite", "Golden suite that it must pass."),
)


_TENANT_COLUMNS = (
    ("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether the network policies are applied."),
    (
        "Isolation",
        '.status.conditions[?(@.type=="IsolationVerified")].status',
        "Whether the newest isolation test passed.",
    ),
    ("Reason", '.status.conditions[?(@.type=="IsolationVerified")].reason', "Why."),
    ("Tries", ".status.isolation.tries", "Attempts of the newest isolation test."),
    ("Held", ".status.isolation.held", "Attempts that were proven to be blocked."),
)
_NUMBERS = frozenset({"Batch", "Tries", "Held"})
"""Columns of integers."""


def build_definitions(versions: Sequence[str] = (names.VERSION,)) -> dict[str, Json]:
    """Return file name in `crds/` -> CustomResourceDefinition, served in these versions, stored in the first.

    All versions have one schema, and no webhook converts: the API server sets `apiVersion` to the requested version
    and changes nothing else. docs/upgrades.md says how a version comes and goes.
    """
    crds = (build_deployment_definition(), build_engine_definition(), build_tenant_definition())
    for crd in crds:
        (version,) = crd["spec"]["versions"]
        crd["spec"]["versions"] = [version | {"name": name, "storage": name == versions[0]} for name in versions]
    return {f"{names.GROUP}_{crd['spec']['names']['plural']}.yaml": crd for crd in crds}


def build_deployment_definition() -> Json:
    """Build R1PlusDeployment: namespaced, with a status, its name bounded since children's names start with it."""
    schema = _build_root_schema(
        "A language model in production, measured and kept right by the operator. Only `spec.tier` is required.",
        {
            "spec": build_structural_schema(R1PlusDeploymentSpec, path="spec"),
            "status": _build_status_schema(R1PlusDeploymentStatus),
        },
        [_build_name_length_rule(MAX_NAME, "the names of its children start with it"), _build_service_name_rule()],
    )
    version = _build_version(schema, _DEPLOYMENT_COLUMNS) | {"subresources": {"status": {}}}
    return _build_definition(kinds.R1PLUS_DEPLOYMENT, "r1p", version)


def build_engine_definition() -> Json:
    """Build R1PlusEngine: cluster-scoped; to add a model is to add one."""
    schema = _build_root_schema(
        "A loadable build of a model: where its files are, what it needs, and its measured accuracy.",
        {"spec": _build_engine_spec_schema()},
        [_build_name_length_rule(MAX_ENGINE_NAME, "serving pods have it as a label")],
    )
    return _build_definition(kinds.R1PLUS_ENGINE, "r1e", _build_version(schema, _ENGINE_COLUMNS))


def _build_engine_spec_schema() -> Json:
    """Build the schema of both kinds of engine: the fields of either, and rules that say which belong to which.

    `kind` has no default: objects of releases that did not know it stay as they are, for those releases too.
    """
    generation = build_structural_schema(EngineSpec, path="spec")
    embedding = build_structural_schema(EmbeddingEngineSpec, path="spec")
    kind = generation["properties"]["kind"] | {"enum": [kind.value for kind in EngineKind]}
    foreign = {name: embedding["properties"][name] for name in EMBEDDING_ONLY}
    return generation | {
        "description": "R1PlusEngine.spec.",
        "properties": {**generation["properties"], "kind": kind, **foreign},
        "required": [name for name in generation["required"] if name not in GENERATION_ONLY],
        "x-kubernetes-validations": [
            *(
                _build_kind_rule(name, f"{_IS_EMBEDDING} || has(self.{name})", "is required, unless kind is embedding")
                for name in generation["required"]
                if name in GENERATION_ONLY
            ),
            *(
                _build_kind_rule(name, f"!{_IS_EMBEDDING} || !has(self.{name})", "must be absent with kind embedding")
                for name in GENERATION_ONLY
            ),
            _build_kind_rule(
                "embedding",
                f"{_IS_EMBEDDING} == has(self.embedding)",
                "is required with kind embedding, and must be absent otherwise",
            ),
            _build_kind_rule(
                "backend", f"!{_IS_EMBEDDING} || self.backend == 'openvino'", "must be openvino with kind embedding"
            ),
            _build_kind_rule(
                "artifact",
                f"!{_IS_EMBEDDING} || has(self.artifact) && has(self.artifact.image)",
                "with an image is required with kind embedding: the gateway's pod copies it from there",
            ),
            *generation["x-kubernetes-validations"],
        ],
    }


_IS_EMBEDDING = f"(has(self.kind) && self.kind == '{EngineKind.EMBEDDING}')"


def _build_kind_rule(field: str, rule: str, message: str) -> Json:
    return {"rule": rule, "fieldPath": f".{field}", "message": f"{field} {message}"}


def build_tenant_definition() -> Json:
    """Build R1PlusTenant: namespaced, and one in a namespace."""
    schema = _build_root_schema(
        "What the platform team allows a tenant, which is this namespace: callers, egress, quota, who administers.",
        {
            "spec": build_structural_schema(R1PlusTenantSpec, path="spec"),
            "status": _build_status_schema(R1PlusTenantStatus),
        },
        [_build_only_name_rule()],
    )
    version = _build_version(schema, _TENANT_COLUMNS) | {"subresources": {"status": {}}}
    return _build_definition(kinds.R1PLUS_TENANT, "r1t", version)


def _build_definition(resource: Resource, short_name: str, version: Json) -> Json:
    return {
        "apiVersion": CRD.api_version,
        "kind": CRD.kind,
        "metadata": {"name": resource.name},
        "spec": {
            "group": resource.group,
            "scope": "Namespaced" if resource.is_namespaced else "Cluster",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": [short_name],
                "categories": [CATEGORY],
            },
            "versions": [version],
        },
    }


def _build_version(schema: Json, columns: Sequence[tuple[str, str, str]]) -> Json:
    printer_columns = [
        {"name": name, "type": "integer" if name in _NUMBERS else "string", "jsonPath": path, "description": text}
        for name, path, text in columns
    ]
    age = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    return {
        "name": names.VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [*printer_columns, age],
        "schema": {"openAPIV3Schema": schema},
    }


def _build_root_schema(description: str, properties: Json, rules: list[Json]) -> Json:
    return {
        "description": description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": "Version of this schema."},
            "kind": {"type": "string", "description": "Kind of this object."},
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            **properties,
        },
        "x-kubernetes-validations": rules,
    }


def _build_name_length_rule(most: int, why: str) -> Json:
    """Build the rule that bounds a custom resource's name, which Kubernetes does not.

    The API server's answer begins with the name itself. A messageExpression with the length is refused: for the cost
    estimate a name is a string without a bound (measured, 1.34).
    """
    return {
        "rule": f"size(self.metadata.name) <= {most}",
        "fieldPath": ".metadata.name",
        "message": f"must have at most {most} characters, since {why}; shorten it",
    }


def _build_only_name_rule() -> Json:
    return {
        "rule": f"self.metadata.name == '{names.TENANT}'",
        "fieldPath": ".metadata.name",
        "message": f"must be {names.TENANT}: a namespace has one R1PlusTenant, and edits it; rename it",
    }


def _build_service_name_rule() -> Json:
    return {
        "rule": f"self.metadata.name.matches('{DNS_1035}')",
        "fieldPath": ".metadata.name",
        "message": (
            "must start with a letter and hold only a-z, 0-9 and '-', since its Service has this name"
            f" ({DNS_1035}); rename it"
        ),
    }


def _build_status_schema(model: type[BaseModel]) -> Json:
    """Build the schema of a status as one atomic value, which each write replaces.

    Only the operator writes it, and always whole. Ownership of single fields would be stored in every object and merged
    at every edit of the spec: a fifth of what such an edit costs the API server.
    """
    schema = build_structural_schema(model, path="status", defaults=False)
    schema["x-kubernetes-map-type"] = "atomic"
    schema["default"] = {"observedGeneration": NOT_OBSERVED}
    conditions = schema["properties"]["conditions"]
    conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"] = "map", ["type"]
    return schema


class DefinitionApi(Protocol):
    """The verbs that applying definitions needs; `runtime.client.ApiClient` has them."""

    async def apply(self, res: Resource, obj: Json, *, field_manager: str) -> Json:
        """Apply an object (server-side), owning its fields."""

    async def get(self, res: Resource, name: str) -> Json:
        """Read one object."""


async def apply(api: DefinitionApi, *, deadline_s: float = ESTABLISHED_SECONDS) -> None:
    """Apply all definitions and wait until the API server serves them.

    Raises:
        TimeoutError: a definition was accepted but not established in time; with its name and its conditions.
    """
    for crd in build_definitions().values():
        await api.apply(CRD, crd, field_manager=names.FIELD_MANAGER)
        name = crd["metadata"]["name"]
        try:
            await asyncio.wait_for(_wait_established(api, name), deadline_s)
        except TimeoutError as error:
            conditions = (await api.get(CRD, name)).get("status", {}).get("conditions", [])
            raise TimeoutError(f"{CRD.kind} {name}: not established within {deadline_s:g} s: {conditions}") from error
        log.info("Applied %s %s", CRD.kind, name)


async def _wait_established(api: DefinitionApi, name: str) -> None:
    while True:
        # A new definition has `conditions: null`.
        conditions = (await api.get(CRD, name)).get("status", {}).get("conditions") or []
        if any(one["type"] == "Established" and one["status"] == "True" for one in conditions):
            return
        await asyncio.sleep(POLL_SECONDS)


def render_yaml(obj: Any, *, width: int = 120) -> str:
    """Render readable YAML without anchors, keys in the order given."""

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return yaml.dump(obj, Dumper=Dumper, sort_keys=False, width=width, allow_unicode=True)


async def _apply_to_cluster() -> None:
    async with ApiClient.autodetect() as client:
        await apply(client)


def main(arguments: Sequence[str]) -> int:
    """Apply the definitions to the cluster, or write them as files; return the exit status."""
    parser = argparse.ArgumentParser(prog="r1plus_operator.api.crd", description=__doc__)
    parser.add_argument("action", nargs="?", choices=("apply",), help="apply them to the cluster, and wait")
    parser.add_argument("--out", type=Path, help="write them into this folder")
    options = parser.parse_args(arguments)
    if (options.action is None) == (options.out is None):
        parser.error("give either `apply` or --out FOLDER")
    if options.action == "apply":
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        asyncio.run(_apply_to_cluster())
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    for name, crd in build_definitions().items():
        (options.out / name).write_text(render_yaml(crd), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
