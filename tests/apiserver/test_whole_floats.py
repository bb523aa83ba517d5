"""Integers that are written as floats (4.0): of each integer field the API server and the models say the same."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from devcluster.apiserver_only import ApiServer
from fuzz.bad_inputs import embedding_engine, engine
from fuzz.judges import Server, Subject, stored, subjects
from r1plus_operator.runtime.client import ApiClient
from support.apiserver.manifests import Json

pytestmark = pytest.mark.apiserver
SHA = "0" * 64
CONDITION = {"type": "Ready", "status": "True", "reason": "Serving", "message": "", "observedGeneration": 4}
CONDITION |= {"lastTransitionTime": "2026-01-01T00:00:00Z"}
TOLERATION = {"key": "example.com/a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 4}
DATABASE = {"secretName": "dsn", "egress": {"cidr": "10.20.0.0/16", "ports": [5432]}}
LIMITS = {
    "bodyBytes": 4096,
    "queuePerKey": 4,
    "queuePerTenant": 40,
    "queueSeconds": 4,
    "silenceSeconds": 4,
    "chunksPerKey": 4,
}
ARCHITECTURE = {"layers": 4, "kvHeads": 4, "headSize": 4, "contextLength": 64, "parameters": 4}
GPU = {"count": 1, "products": ["NVIDIA-L4"]}
MEASURED = {"items": 4, "correctAtBatch1": 4, "correctAtBatch": 4}
DISTILL = {"layers": 4, "steps": 4, "batch": 4, "length": 8, "top": 4, "seed": 4, "memory": "1Gi", "storage": "1Gi"}
DISTILL |= {"runtimeRef": {"name": "torch"}, "numNodes": 4}
EVICTION = {"startTokens": 32, "recentTokens": 32, "maxTokens": 96}
REQUIREMENTS = {"cpu": "1", "weightsMemory": "1Mi", "runtimeMemory": "1Mi"}
DOCUMENTS: dict[str, tuple[Json, ...]] = {
    "R1PlusDeployment.spec": (
        {
            "tier": "full",
            "batching": {"maxBatchSize": 4},
            "context": {"maxTokens": 64},
            "replicas": 4,
            "placement": {"tolerations": [TOLERATION]},
            "accuracy": {"probesPerMinute": 4},
        },
    ),
    "R1PlusDeployment.status": (
        {
            "observedGeneration": 4, "batch": 4, "context": 64, "requests": 4, "replicas": 4, "readyReplicas": 4,
            "conditions": [CONDITION],
        },
    ),
    "R1PlusEngine.spec": (
        engine("floats", batch={"best": 4, "max": 4}, architecture=ARCHITECTURE, reference={"suite": "s", "measured": MEASURED})["spec"],
        engine(
            "floats",
            backend="tensorrtllm",
            architecture=ARCHITECTURE | {"window": 64, "globalLayers": 4},
            build={"maxNumTokens": 64},
            requirements=REQUIREMENTS | {"gpu": GPU},
        )["spec"],
        engine("floats", build={"distill": DISTILL})["spec"],
        engine("floats", attention={"eviction": EVICTION})["spec"],
        engine("floats", backend="vllm", requirements=REQUIREMENTS | {"gpu": GPU})["spec"],
        embedding_engine("floats")["spec"],
    ),
    "R1PlusTenant.spec": (
        {
            "egress": [{"cidr": "10.20.0.0/16", "ports": [443]}],
            "quota": {"deployments": 4, "pods": 4, "gpus": 4, "configMaps": 4, "networkPolicies": 4, "services": 4, "secrets": 4},
            "placement": {"tolerations": [TOLERATION]},
            "gateway": {"replicas": 4, "limits": LIMITS, "database": DATABASE},
            "data": {"retentionDays": 4},
            "runAsUser": 4000,
        },
        {"gateway": {"replicas": 1}},
        {"gateway": {"replicas": 1, "database": DATABASE}},
    ),
    "R1PlusTenant.status": (
        {"observedGeneration": 4, "isolation": {"finished": "2026-01-01T00:00:00Z", "tries": 4, "held": 4, "late": 4}, "conditions": [CONDITION]},
    ),
}  # fmt: skip
"""Documents that both take as they are; together they have each integer field."""
READ_BY_RULES = {
    "R1PlusEngine.spec.build.maxNumTokens",
    "R1PlusEngine.spec.build.distill.numNodes",
    "R1PlusEngine.spec.requirements.gpu.count",
    "R1PlusEngine.spec.attention.eviction.startTokens",
    "R1PlusEngine.spec.attention.eviction.recentTokens",
    "R1PlusEngine.spec.attention.eviction.maxTokens",
    "R1PlusEngine.spec.batch.best",
    "R1PlusEngine.spec.batch.max",
    "R1PlusEngine.spec.reference.measured.items",
    "R1PlusEngine.spec.reference.measured.correctAtBatch1",
    "R1PlusEngine.spec.reference.measured.correctAtBatch",
    "R1PlusTenant.spec.gateway.replicas",
}
"""CEL takes no 4.0 for an integer. All other fields take it."""


def integer_fields(schema: Json, path: str) -> Iterator[str]:
    """Yield the path of each integer of a schema; items of a list count as one field."""
    if schema.get("type") == "integer":
        yield path
    for name, field in (schema.get("properties") or {}).items():
        yield from integer_fields(field, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield from integer_fields(schema[word], path)


def integers(document: Any, path: str, steps: tuple[Any, ...] = ()) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the path of each integer of a document, and the keys and numbers that lead to it."""
    if isinstance(document, int) and not isinstance(document, bool):
        yield path, steps
    for name, value in document.items() if isinstance(document, dict) else ():
        yield from integers(value, f"{path}.{name}", (*steps, name))
    for number, value in enumerate(document) if isinstance(document, list) else ():
        yield from integers(value, path, (*steps, number))


def with_float(document: Json, steps: tuple[Any, ...]) -> Json:
    """Return the document with this integer as a float."""
    changed: Any = copy.deepcopy(document)
    *parents, last = steps
    place = changed
    for step in parents:
        place = place[step]
    place[last] = float(place[last])
    return dict(changed)


async def judge(server: Server, subject: Subject, document: Json) -> tuple[bool, bool]:
    """Return whether the API server admits a document, and whether the model reads it."""
    return (await server.judge(subject, document)).admitted, subject.read(document).admitted


async def test_a_whole_float_is_admitted_by_both_or_refused_by_both(apiserver: ApiServer, client: ApiClient) -> None:
    found: dict[str, set[tuple[bool, bool]]] = {}
    kinds = {subject.name: subject for subject in subjects(*await stored(client))}
    async with Server(apiserver.kubeconfig) as server:
        for name, documents in DOCUMENTS.items():
            for document in documents:
                said, read = await server.judge(kinds[name], document), kinds[name].read(document)
                assert (said.admitted, read.admitted) == (True, True), f"{name}: {said.why}; {read.why}"
                for path, steps in integers(document, name):
                    found.setdefault(path, set()).add(await judge(server, kinds[name], with_float(document, steps)))
    fields = {path for name, subject in kinds.items() for path in integer_fields(subject.schema, name)}
    assert set(found) == fields, "each integer field is in a document"
    assert found == {path: {(path not in READ_BY_RULES,) * 2} for path in fields}
