"""Students of the teacher that knows the forms: their R1PlusEngines, their deployments, and what is said while they train."""

import re

from e2e import objects
from e2e.kube import Json
from e2e.story import Name, condition
from e2e.suites import OwnSuite
from e2e.tenants import Tenant
from e2e.trainjob.images import TrainJobImages
from e2e.waiting import wait_for

STEPS = 400


def build_engine(made: TrainJobImages, name: str, **distill: object) -> Json:
    """Return an R1PlusEngine with one of the teacher's four layers. Its family has its name."""
    recipe = {
        "layers": 1,
        "steps": STEPS,
        "batch": 16,
        "length": 48,
        "learningRate": 0.003,
        "top": 16,
        "cpu": "1",
        "memory": "1500Mi",
        "storage": "200Mi",
    }
    spec: Json = {
        "family": name,
        "tier": "edge",
        "version": "1.0.0",
        "precision": "FP16",
        "backend": "openvino",
        "architecture": {"layers": 1, "kvHeads": 2, "headSize": 16, "contextLength": 512, "parameters": 200_000},
        "artifact": {"image": made.teacher.pinned, "sha256": made.sha256},
        "build": {"distill": {**recipe, **distill}},
        "requirements": {"cpu": "1", "weightsMemory": "64Mi", "runtimeMemory": "400Mi"},
        "batch": {"best": 4, "max": 4},
        "reference": {"suite": "forms-v1", "claimedBy": "trained here"},
    }
    return objects.engine(name, spec)


def deploy(tenant: Tenant, suite: OwnSuite, name: str) -> Name:
    """Ask for the engine of that name, held to the suite."""
    return tenant.apply(
        name,
        "edge",
        engine={"family": name},
        batching={"maxBatchSize": 4},
        context={"maxTokens": 512},
        accuracy={**suite.held, "threshold": 0.9},
    )


def until_training(tenant: Tenant, name: Name, beyond: int = 0) -> int:
    """Wait until EngineReady says that the training is at a step beyond this one; return the step."""

    def read_step() -> int:
        cr = tenant.kube.get("r1plusdeployments", name.namespace, name.name) or {}
        message = str(condition(cr, "EngineReady").get("message", ""))
        step = re.search(r"training, step (\d+) of", message)
        if step is None or int(step[1]) <= beyond:
            return 0
        print(message)
        return int(step[1])

    what = f"EngineReady says that the training is beyond step {beyond}"
    return wait_for(read_step, what, tenant.evidence(name), seconds=1200)
