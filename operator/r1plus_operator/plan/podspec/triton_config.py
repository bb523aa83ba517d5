"""config.pbtxt of a revision: rendered once per engine, batch and context, and checked as Triton will check it.

`feasibility` uses it to report in a condition what Triton would only call "failed to poll"; `revision` stores it.
"""

from functools import lru_cache

from r1plus_contract.inference import MODEL_NAME
from r1plus_model_repo.catalog.types import EngineSpec
from r1plus_model_repo.config_gpu import find_unservable_field
from r1plus_model_repo.config_pbtxt import render_config
from r1plus_model_repo.config_rules import CPU_BACKENDS, GPU_BACKENDS, find_config_problems
from r1plus_policies.engine.memory_fit import Fit


@lru_cache(maxsize=64)
def render_triton_config(engine: EngineSpec, batch: int, context: int, kv_cache_bytes: int, built: str = "") -> str:
    """Return config.pbtxt. Cached, because most deployments of a tier share it, and rendering is slow."""
    return render_config(engine, batch=batch, context=context, kv_cache_bytes=kv_cache_bytes, build_key=built)


def list_problems(engine: EngineSpec, fit: Fit) -> tuple[str, ...]:
    """Return what Triton or the backend would refuse in the configuration, each as `field: value: reason`."""
    return _list_problems(engine, fit.batch, fit.context, fit.kv_cache_bytes)


@lru_cache(maxsize=64)
def _list_problems(engine: EngineSpec, batch: int, context: int, kv_cache_bytes: int) -> tuple[str, ...]:
    on_gpu = engine.requirements.gpu is not None
    backends = GPU_BACKENDS if on_gpu else CPU_BACKENDS
    config_problems = find_config_problems(
        render_triton_config(engine, batch, context, kv_cache_bytes), name=MODEL_NAME, gpus=on_gpu, backends=backends
    )
    engine_problem = find_unservable_field(engine)
    return (*config_problems, engine_problem) if engine_problem else config_problems
