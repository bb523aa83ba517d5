"""config.pbtxt of what shall serve: rendered once per engine, batch and context, and judged as Triton will judge it.

Asked by `obstacles`, so that what Triton would only call "failed to poll" is a condition, and by `revision`.
"""

from functools import lru_cache

from r1plus_contract.inference import MODEL_NAME
from r1plus_model_repo.catalog.types import EngineSpec
from r1plus_model_repo.config_gpu import find_unservable_field
from r1plus_model_repo.config_pbtxt import render_config
from r1plus_model_repo.config_rules import CPU_BACKENDS, GPU_BACKENDS, find_config_problems
from r1plus_policies.engine.memory_fit import Fit


@lru_cache(maxsize=64)
def rendered(engine: EngineSpec, batch: int, context: int, kv_cache_bytes: int, built: str = "") -> str:
    """Cached, since most deployments of a tier ask for the same and printing takes longer than the rest of a pass."""
    return render_config(engine, batch=batch, context=context, kv_cache_bytes=kv_cache_bytes, build_key=built)


def refusals(engine: EngineSpec, fit: Fit) -> tuple[str, ...]:
    """What Triton, or the backend, would refuse in the engine's configuration, each as `field: value: why`."""
    return _refusals(engine, fit.batch, fit.context, fit.kv_cache_bytes)


@lru_cache(maxsize=64)
def _refusals(engine: EngineSpec, batch: int, context: int, kv_cache_bytes: int) -> tuple[str, ...]:
    on_gpu = engine.requirements.gpu is not None
    backends = GPU_BACKENDS if on_gpu else CPU_BACKENDS
    found = find_config_problems(
        rendered(engine, batch, context, kv_cache_bytes), name=MODEL_NAME, gpus=on_gpu, backends=backends
    )
    refused = find_unservable_field(engine)
    return (*found, refused) if refused else found
