"""One engine, open, in a process of its own: `python -m bench.claims.worker PARAMETERS`.

Runs in the Python that has the backend's library, where this project's packages may be missing. `PARAMETERS` is a JSON
object with what config.pbtxt has, and `backend`. A JSON line says when the engine is open, and in which version of its
library. Each line of the standard input is `[requests, tokens]`: so many at once, of so many tokens at most. The answer is
`[tokens, seconds]`. The end of the input ends the process. What libraries print goes to the standard error.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any, Final, cast

from bench.serving.pipeline import OpenEngine, generate_all

BACKENDS: Final = {
    "openvino": ("openvino.openvino_engine", "OpenVinoEngine", "openvino_genai"),
    "vllm": ("vllm_engine", "VllmEngine", "vllm"),
    "tensorrtllm": ("trtllm_engine", "TrtllmEngine", "tensorrt_llm"),
}
"""Value of the parameter `backend` -> module of our backends, its engine, and the library's own module."""
DTYPE, KV_BYTES = "dtype", "dtype_kv_bytes"
"""Parameters of vLLM on GPUs that config.pbtxt has not: another precision, and the size of its KV cache."""


def main() -> None:
    """Open the engine, and answer until the input ends."""
    parameters = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engine = open_engine(parameters)
    library = import_module(BACKENDS[parameters["backend"]][2])
    _print(answers, {"runtime": f"{library.__name__} {library.__version__}"})
    for line in sys.stdin:
        requests, tokens = json.loads(line)
        questions = [f"Tell me a long story about a lighthouse. Number {n}." for n in range(requests)]
        _print(answers, generate_all(engine, questions, tokens))
    engine.close()


def open_engine(parameters: Mapping[str, str]) -> OpenEngine:
    """Open the engine with the settings that the served model has."""
    name, engine, _ = BACKENDS[parameters["backend"]]
    module = import_module(f"r1plus_model_repo.backends.{name}")
    settings = module.EngineSettings.from_parameters(parameters)
    if DTYPE in parameters:
        arguments = {"dtype": parameters[DTYPE], "kv_cache_memory_bytes": int(parameters[KV_BYTES])}
        settings = replace(settings, device=override_arguments(settings.device, arguments))
    return cast(OpenEngine, getattr(module, engine)(settings))


def override_arguments(device: Any, arguments: Mapping[str, Any]) -> Any:
    """Return vLLM's settings for GPUs with other arguments.

    By itself it serves float16 alone, and fills its share of the GPU with KV cache, whatever the weights take.
    """
    merged = {**device.engine_args, **arguments}
    derived = type("Overridden", (type(device),), {"engine_args": property(lambda _: merged)})
    return derived(device.kv_precision, device.count, device.memory_fraction)


def _print(answers: Any, value: object) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
