"""The served engine without Triton, in a process of its own: `python -m bench.serving.in_process FOLDER MODE`.

Prints a JSON line. The settings are those of the backend that Triton loads; what MODE changes in them is said with it.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import openvino_genai

from bench.serving.pipeline import generate_all
from r1plus_model_repo.backends.openvino.openvino_engine import (
    EngineSettings,
    OpenVinoEngine,
    build_plugin_properties,
    build_scheduler_config,
)

LONG_PROMPT_TOKENS = 7900
"""Of the 8192 that the demo's models were made for."""
SHARED_WORDS = 350
"""A system prompt of that length, of a customer's assistant, say; some 400 tokens."""
EVICTION_TOKENS = (32, 128, 1024)
"""Cache eviction: tokens kept at the start, at the end, and in all."""
Json = dict[str, Any]


def main() -> None:
    """Run one mode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", type=json.loads)
    parser.add_argument("mode", choices=("throughput", "prefix", "long"))
    parser.add_argument("--option", action="store_true", help="with prefix caching, or with cache eviction")
    parser.add_argument("--questions", type=json.loads, default=[])
    parser.add_argument("--tokens", type=int, default=64)
    given = parser.parse_args()
    settings = EngineSettings(**{**given.settings, "path": Path(given.settings["path"])})
    if given.mode == "throughput":
        found = throughput(settings, given.questions, given.tokens)
    elif given.mode == "prefix":
        found = shared_prefix(settings, caching=given.option)
    else:
        found = long_prompt(settings, evicting=given.option)
    print(json.dumps(found))


def throughput(settings: EngineSettings, questions: list[str], tokens: int) -> Json:
    """All questions, a full batch at a time, twice; the second time counts."""
    engine = OpenVinoEngine(settings)
    generate_all(engine, questions, tokens, at_once=settings.max_batch)
    count, seconds = generate_all(engine, questions, tokens, at_once=settings.max_batch)
    return {"tokens_per_second": count / seconds}


def shared_prefix(settings: EngineSettings, *, caching: bool) -> Json:
    """Median seconds to the first token of questions that share a long system prompt, one at a time.

    What `caching` changes: `enable_prefix_caching`, which the product leaves off, since a probe would be answered from
    remembered keys and values.
    """
    config = build_scheduler_config(settings)
    config.enable_prefix_caching = caching
    pipeline = _pipeline(settings, config)
    system = " ".join(f"Rule {n}: be kind." for n in range(SHARED_WORDS // 4))
    firsts = [_first_token(pipeline, n, f"{system}\n\nQuestion {n}: what is {n} plus {n}?") for n in range(8)]
    return {"first_token_seconds": statistics.median(firsts[2:])}


def long_prompt(settings: EngineSettings, *, evicting: bool) -> Json:
    """Peak memory of the process and blocks' bytes while it reads a prompt of nearly the whole context."""
    config = build_scheduler_config(settings)
    if evicting:
        start, recent, most = EVICTION_TOKENS
        config.use_cache_eviction = True
        config.cache_eviction_config = openvino_genai.CacheEvictionConfig(
            start, recent, most, openvino_genai.AggregationMode.NORM_SUM
        )
    # The cache grows with what is used instead of being set aside: that is what is to be seen.
    config.num_kv_blocks = 0
    config.cache_size = 0
    pipeline = _pipeline(settings, config)
    before = _peak()
    tokens = " ".join("word" for _ in range(LONG_PROMPT_TOKENS))
    seconds = _first_token(pipeline, 1, tokens)
    return {"peak_mb": _peak() / 2**20, "added_mb": (_peak() - before) / 2**20, "first_token_seconds": seconds}


def _pipeline(settings: EngineSettings, config: Any) -> Any:
    return openvino_genai.ContinuousBatchingPipeline(
        str(settings.path), config, "CPU", build_plugin_properties(settings.threads)
    )


def _first_token(pipeline: Any, number: int, prompt: str) -> float:
    generation = openvino_genai.GenerationConfig()
    generation.max_new_tokens = 4
    started = time.monotonic()
    handle = pipeline.add_request(number, prompt, generation)
    while not handle.can_read():
        pipeline.step()
    first = time.monotonic() - started
    while pipeline.has_non_finished_requests():
        pipeline.step()
    return first


def _peak() -> int:
    """Most memory that this process has held, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


if __name__ == "__main__":
    main()
