"""`make bench NAME=presets`: how much of the golden suite survives each preset's sampling, on the real Triton.

At temperature 0 `top_p` has no effect, so preset `code` also sets a temperature. This bench shows what each temperature
costs: the share of the suite's items that are still answered right. It asks every item `SEEDS` times.
The last line is JSON: preset `code` at each temperature, then the other presets as they are.
"""

import argparse
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.reconcile.stage import machine
from bench.running import exit_at_sigterm
from bench.serving.__main__ import serve_engine
from devcluster.cache import cache_dir
from r1plus_contract import inference
from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.suites.suite import Item, Suite
from r1plus_gateway.http.completions.presets import NO_PRESET, PRESETS, Preset
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.importing.smollm2 import build_engines
from r1plus_monitoring.curate.record import read_suite
from r1plus_monitoring.scoring.scorers import score
from support.engine.client import Client

SUITES = Path(__file__).parents[3] / "monitoring" / "suites"
TEMPERATURES = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
SEEDS = 3
MOST_AT_ONCE = 32


def main() -> None:
    """Run all presets on one engine and print a JSON line last."""
    parser = argparse.ArgumentParser(description="What each preset costs in accuracy.")
    parser.add_argument("--engine", default="smollm2-full-f16")
    parser.add_argument("--suite", default="smollm2-full-v1")
    arguments = parser.parse_args()
    exit_at_sigterm()
    print(machine(), flush=True)
    spec = next(e.spec for e in load_catalog(Path(catalog.__file__).parent) if e.name == arguments.engine)
    folder = build_engines(cache_dir() / "engines", print)[arguments.engine].folder
    suite = read_suite(SUITES / arguments.suite)
    shares: dict[str, float] = {}
    with serve_engine(spec, folder) as server, Client(server.grpc) as client:
        for name, preset in _list_cases():
            shares[name] = _measure_share(client, suite, preset)
            print(f"{name:<24} {shares[name]:.4f}", flush=True)
    print(json.dumps({"engine": arguments.engine, "suite": arguments.suite, "seeds": SEEDS, "shares": shares}))


def _list_cases() -> Iterator[tuple[str, Preset]]:
    yield "none", NO_PRESET
    for temperature in TEMPERATURES:
        yield f"code at {temperature}", dataclasses.replace(PRESETS["code"], temperature=temperature)
    yield from ((name, preset) for name, preset in PRESETS.items() if name != "code")


def _measure_share(client: Client, suite: Suite, preset: Preset) -> float:
    """Return the share of right answers, of all items and seeds."""
    asks = [(item, seed) for seed in range(SEEDS) for item in suite.items]
    right = 0
    for start in range(0, len(asks), MOST_AT_ONCE):
        right += _count_right(client, suite, preset, asks[start : start + MOST_AT_ONCE])
    return round(right / len(asks), 4)


def _count_right(client: Client, suite: Suite, preset: Preset, asks: Sequence[tuple[Item, int]]) -> int:
    answers = client.all([_build_request(suite, preset, item, seed) for item, seed in asks])
    for answer in answers:
        if answer.error:
            raise RuntimeError(f"the engine refused an item of {suite.header.name}: {answer.error}")
    return sum(
        score(item, answer.text, answer.reason) == OutcomeLabel.CORRECT
        for (item, _), answer in zip(asks, answers, strict=True)
    )


def _build_request(suite: Suite, preset: Preset, item: Item, seed: int) -> Mapping[str, object]:
    sampling = suite.header.sampling
    values = {
        "prompt": item.prompt,
        inference.MAX_NEW_TOKENS: sampling.max_new_tokens,
        inference.TEMPERATURE: sampling.temperature,
        inference.TOP_P: sampling.top_p,
        inference.REPETITION_PENALTY: sampling.repetition_penalty,
        inference.SEED: seed,
        inference.STOP: list(sampling.stop),
    }
    return values | {name: value for name, value in dataclasses.asdict(preset).items() if value is not None}


if __name__ == "__main__":
    main()
