"""Engines, nodes and pods of Jobs as the plan's tests need them."""

from pathlib import Path
from typing import Any

from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import Artifact, Engine, EngineSpec
from r1plus_operator.plan.observation import ContainerFacts, NodeFacts, PodFacts
from r1plus_policies.engine.hardware import Gpus
from r1plus_policies.engine.memory_fit import GIB, MIB

SHIPPED = {engine.name: engine for engine in load_catalog(Path(catalog.__file__).parent)}
L40S = Gpus("NVIDIA-L40S", 1, 46068, (8, 9))


def delivered(engine: Engine, **spec: Any) -> Engine:
    """Return the same engine, with files."""
    artifact = Artifact(image="registry.example.com/engine:1", sha256="a" * 64)
    return Engine(engine.name, engine.spec.model_copy(update={"artifact": artifact, **spec}))


def on_cpu(engine: Engine, **requirements: Any) -> Engine:
    """Return the engine for vLLM on CPU, with files; its weights have 32 bits."""
    document = engine.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    del document["requirements"]["gpu"]
    weights = f"{-(-4 * engine.spec.architecture.parameters // MIB)}Mi"
    document["requirements"] |= {"cpu": "4", "weightsMemory": weights, "runtimeMemory": "3Gi", **requirements}
    document["precision"] = "FP32"
    return delivered(Engine(engine.name, EngineSpec.model_validate(document)))


def machine(
    *gpus: Gpus, name: str = "n", memory: int = 64 * GIB, cores: float = 16.0, labels: dict[str, str] | None = None
) -> NodeFacts:
    return NodeFacts(name, memory, cores, labels or {}, gpus)


def job_pod(
    *containers: ContainerFacts, unschedulable: str = "", turned_away: str = "", name: str = "job-x"
) -> PodFacts:
    """Return a pod of a Job, which is not Ready."""
    return PodFacts(name, "", "", False, False, unschedulable, containers, failure_reason=turned_away)
