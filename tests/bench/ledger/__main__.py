"""`make bench NAME=ledger`: what the gateway's ledger adds to a request, with every commit on the disk.

One request after another, then 64 at once, each a reservation and a settlement of one key with all limits; and the
look-up of a key. A table, then one JSON line. `--folder` says which disk; the default is that of the scratch files.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.running import exit_at_sigterm
from r1plus_gateway.access.api_keys import verify_key
from r1plus_gateway.access.caller import Limits
from r1plus_gateway.store.administration.admin import create_key, verify_audit
from r1plus_gateway.store.administration.key_records import KeySpec
from r1plus_gateway.store.tenant import TenantStore
from support.gateway.tenant_data import ADMIN, Volume, make_caller, settle

LIMITS = Limits(10**9, 10**12, 10**6, 10**15)
TICK_SECONDS = 0.001


@dataclass
class Figures:
    """Seconds of each call."""

    reserve: list[float] = field(default_factory=list)
    settle: list[float] = field(default_factory=list)
    authenticate: list[float] = field(default_factory=list)
    lag: list[float] = field(default_factory=list)
    """How late the event loop was for a timer."""
    seconds: float = 0.0
    processor_seconds: float = 0.0


async def measure(store: TenantStore, name: str, requests: int, at_once: int) -> Figures:
    """Run requests in so many lanes."""
    figures = Figures()
    ticker = asyncio.create_task(watch_loop(figures.lag))
    started, processor = time.perf_counter(), time.process_time()
    lanes = (run_lane(store, figures, f"{name}-{lane}", requests // at_once) for lane in range(at_once))
    await asyncio.gather(*lanes)
    figures.seconds, figures.processor_seconds = time.perf_counter() - started, time.process_time() - processor
    ticker.cancel()
    return figures


async def run_lane(store: TenantStore, figures: Figures, lane: str, requests: int) -> None:
    caller = make_caller("bench0000001", LIMITS)
    for number in range(requests):
        started = time.perf_counter()
        reservation = await store.ledger.reserve(f"{lane}-{number}", caller, "credit", 500)
        reserved = time.perf_counter()
        await settle(store, reservation, 100, 200)
        figures.reserve.append(reserved - started)
        figures.settle.append(time.perf_counter() - reserved)


async def watch_loop(lags: list[float]) -> None:
    while True:
        due = time.perf_counter() + TICK_SECONDS
        await asyncio.sleep(TICK_SECONDS)
        lags.append(max(0.0, time.perf_counter() - due))


async def time_calls(call: Callable[[], Awaitable[object]], count: int) -> list[float]:
    times = []
    for _ in range(count):
        started = time.perf_counter()
        await call()
        times.append(time.perf_counter() - started)
    return times


def quantile(times: list[float], share: float) -> float:
    """Return a quantile in milliseconds."""
    ordered = sorted(times)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 3)


async def run(folder: Path, url: str, requests: int) -> dict[str, float]:
    volume = Volume(folder, url=url).make()
    async with volume.open() as store:
        issued = await create_key(store, ADMIN, KeySpec("bench"))
        await measure(store, "warm", 200, 8)
        alone = await measure(store, "alone", requests, 1)
        many = await measure(store, "many", requests * 4, 64)
        text = issued.key.encode()
        lookups = await time_calls(lambda: verify_key(text, store, store.clock.read()), requests)
        started = time.perf_counter()
        report = await verify_audit(store)
        assert not report.problem, report.problem
        verified = report.records / (time.perf_counter() - started)
    return {
        "reserve_p50_ms": quantile(alone.reserve, 0.5),
        "reserve_p99_ms": quantile(alone.reserve, 0.99),
        "settle_p50_ms": quantile(alone.settle, 0.5),
        "settle_p99_ms": quantile(alone.settle, 0.99),
        "cpu_ms_per_pair": round(alone.processor_seconds / len(alone.reserve) * 1000, 3),
        "pairs_per_s": round(len(alone.reserve) / alone.seconds),
        "reserve_p50_ms_at_64": quantile(many.reserve, 0.5),
        "reserve_p99_ms_at_64": quantile(many.reserve, 0.99),
        "pairs_per_s_at_64": round(len(many.reserve) / many.seconds),
        "cpu_ms_per_pair_at_64": round(many.processor_seconds / len(many.reserve) * 1000, 3),
        "loop_lag_p99_ms_at_64": quantile(many.lag, 0.99),
        "key_lookup_p50_ms": quantile(lookups, 0.5),
        "key_lookup_p99_ms": quantile(lookups, 0.99),
        "audit_records_verified_per_s": round(verified),
        "fsync_p50_ms": measure_disk(folder),
    }


def measure_disk(folder: Path) -> float:
    """Return the median of what the disk takes to keep 4 KiB, in milliseconds."""
    times = []
    with (folder / "disk").open("wb", buffering=0) as file:
        for _ in range(200):
            started = time.perf_counter()
            file.write(bytes(4096))
            os.fsync(file.fileno())
            times.append(time.perf_counter() - started)
    return round(statistics.median(times) * 1000, 3)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.ledger", description=__doc__)
    parser.add_argument("--folder", type=Path, help="on which disk; default: the scratch files' one")
    parser.add_argument("--url", default="", help="a PostgreSQL database instead of SQLite")
    parser.add_argument("--requests", type=int, default=1000)
    options = parser.parse_args()
    exit_at_sigterm()
    folder = Path(tempfile.mkdtemp(prefix="r1plus-ledger-", dir=options.folder))
    try:
        figures = asyncio.run(run(folder, options.url, options.requests))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name, value in figures.items():
        print(f"{name:32} {value:>12}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
