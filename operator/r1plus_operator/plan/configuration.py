"""config.pbtxt of what shall serve: rendered once per engine, batch and context, and judged as Triton will judge it.

Asked by `obstacles`, so that what Triton would only call "failed to poll" is a condition, and by `revision`.
"""

from functools import lru_cache

from r1plus_contract import names
from r1plus_contract.inference import MODEL_NAME
from r1plus_model_repo.catalog.types import Backend, EngineSpec
from r1plus_model_repo.config_gpu import vllm_model_json
from r1plus_model_repo.config_pbtxt import render
from r1plus_model_repo.config_rules import CPU_BACKENDS, problems
from r1plus_policies.sizing import Fit


@lru_cache(maxsize=64)
def rendered(engine: EngineSpec, batch: int, context: int, kv_cache_bytes: int) -> str:
    """Cached, since most deployments of a tier ask for the same and printing takes longer than the rest of a pass."""
    return render(engine, batch=batch, context=context, kv_cache_bytes=kv_cache_bytes)


def refusals(engine: EngineSpec, fit: Fit) -> tuple[str, ...]:
    """What Triton, or the backend, would refuse in the engine's configuration, each as `field: value: why`."""
    return _refusals(engine, fit.batch, fit.context, fit.kv_cache_bytes)


@lru_cache(maxsize=64)
def _refusals(engine: EngineSpec, batch: int, context: int, kv_cache_bytes: int) -> tuple[str, ...]:
    on_gpu = engine.requirements.gpu is not None
    backends = frozenset({engine.backend.value}) if on_gpu else CPU_BACKENDS
    found = problems(rendered(engine, batch, context, kv_cache_bytes), name=MODEL_NAME, gpus=on_gpu, backends=backends)
    if engine.backend is Backend.VLLM:
        try:
            vllm_model_json(engine, batch=batch, context=context, path=names.DIR_ENGINE)
        except ValueError as error:
            found += (str(error),)
    return found
