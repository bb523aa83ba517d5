"""`make bench NAME=detector`: the figures of the accuracy detector, the gate and the interval, on simulated engines.

It drives the shipped functions; simulated is only what the engine answers. Seeded by the commit, so that a figure can
be had again and no lucky seed be chosen; `--seed` overrides it. `--quick` is a rehearsal whose figures mean little.
A table with what is to be reached, then one JSON line; the exit status is 1 if a figure of a full run misses.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median
from typing import TypeVar

from bench.detector import at_random, exact, gates, interval, oracle, per_item, pure, sidecar
from bench.running import exit_at_sigterm
from r1plus_policies.bounds import binomial_quantile, clopper_pearson

T = TypeVar("T")
CHUNKS = 40


@dataclass(frozen=True, slots=True)
class Size:
    """How much is simulated."""

    runs: int
    gate_runs: int
    in_control: int
    random_runs: int
    """Changes whose detectors may take a day to alarm."""
    random_control: int
    timed: int
    watched: float
    """Seconds that the sidecar is watched for."""


FULL = Size(
    runs=5_000,
    gate_runs=10_000,
    in_control=32_000_000,
    random_runs=400,
    random_control=3_200_000,
    timed=400_000,
    watched=60,
)
QUICK = Size(
    runs=200, gate_runs=200, in_control=1_000_000, random_runs=10, random_control=100_000, timed=20_000, watched=5
)


@dataclass(frozen=True, slots=True)
class Line:
    """One figure against what it has to reach."""

    what: str
    value: float
    limit: float | None = None
    least: bool = False
    """Whether the limit is the least and not the most."""

    @property
    def holds(self) -> bool:
        if self.limit is None:
            return True
        return self.value >= self.limit if self.least else self.value <= self.limit


class Work:
    """Chunks of simulation, spread over the cores; each has a seed of its own."""

    def __init__(self, pool: ProcessPoolExecutor, seed: int) -> None:
        self._pool = pool
        self._seed = seed

    def start(self, of: Callable[[int, int], T], amount: int) -> list["Future[T]"]:
        """`of`: (seed, amount of this chunk) -> its part."""
        sizes = [amount // CHUNKS + (n < amount % CHUNKS) for n in range(CHUNKS)]
        self._seed += CHUNKS
        return [self._pool.submit(of, self._seed + n, size) for n, size in enumerate(sizes) if size]


def gathered(parts: Sequence["Future[T]"]) -> Iterator[T]:
    """As they come in their order."""
    return (part.result() for part in parts)


def lower_bound_of_mean(probes: int, alarms: int) -> float:
    """One-sided 95 % lower bound of the mean time between alarms: probes over the upper Poisson bound of their number."""
    low, high = float(alarms), alarms + 10 * math.sqrt(alarms + 1) + 10
    for _ in range(60):
        middle = (low + high) / 2
        terms = (
            math.exp(k * math.log(middle) - middle - math.lgamma(k + 1)) if middle else 0.0 for k in range(alarms + 1)
        )
        low, high = (middle, high) if math.fsum(terms) > 0.05 else (low, middle)
    return probes / high


def figures(size: Size, seed: int) -> dict[str, float]:
    """All of them, by the names of the JSON line."""
    found: dict[str, float] = {}
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        work = Work(pool, seed)
        control = work.start(pure.in_control, size.in_control)
        delays = work.start(pure.delays, size.runs)
        broken = work.start(per_item.broken, size.runs)
        shifted = work.start(per_item.mix_shift, size.runs)
        missed = work.start(interval.missed, size.runs)
        healthy = work.start(partial(gates.passes, broken=0.0), size.gate_runs)
        spoilt = work.start(partial(gates.passes, broken=0.05), size.runs)
        at_random_control = work.start(at_random.in_control, size.random_control)
        at_random_delays = work.start(at_random.delays, size.random_runs)
        admitted = {wrong: work.start(partial(gates.admits, wrong=wrong), size.runs) for wrong in SHORT_CHECKED}
        found |= _arl(sum(gathered(control)), size)
        found |= _delays(list(gathered(delays)))
        found |= _broken(list(gathered(broken)))
        found["mix_shift_alarms"] = sum(gathered(shifted)) / size.runs
        found |= {"miscoverage": sum(gathered(missed)) / size.runs, "alpha": interval.ALPHA}
        found |= _gate(sum(gathered(healthy)), size.gate_runs, sum(gathered(spoilt)), size.runs)
        found |= _at_random(list(gathered(at_random_delays)), sum(gathered(at_random_control)), size)
        found |= {
            f"short_random_{round(100 * wrong)}": sum(gathered(parts)) / size.runs for wrong, parts in admitted.items()
        }
        tuned = {p: pool.submit(_oracle, p, found["arl"], size.runs, seed) for p in pure.SHIFTS}
        for p, future in tuned.items():
            best, arl = future.result()
            name = round(100 * p)
            found |= {f"oracle_{name}": best, f"oracle_arl_ratio_{name}": arl / found["arl"]}
            found[f"oracle_ratio_{name}"] = found[f"delay_95_{name}"] / best
    found |= _exact()
    found["width_ratio"] = interval.width_ratio()
    found["us_per_probe"] = max(per_item.microseconds(size.timed, share) for share in (0.0, 0.4))
    cost = sidecar.cost(size.watched)
    return found | {"sidecar_mib": cost.mib, "sidecar_cpu_percent": cost.cpu_percent}


def _arl(alarms: int, size: Size) -> dict[str, float]:
    return {
        "arl": size.in_control / max(alarms, 1),
        "arl_lower95": lower_bound_of_mean(size.in_control, alarms),
        "arl_promised": pure.ALARM_AT,
        "arl_probes": size.in_control,
    }


def _delays(parts: list[pure.Delays]) -> dict[str, float]:
    found: dict[str, float] = {"runs": sum(len(part.fresh[pure.SHIFTS[0]]) for part in parts)}
    for p in pure.SHIFTS:
        found[f"delay_95_{round(100 * p)}"] = fmean([d for part in parts for d in part.warm[p]])
        found[f"fresh_95_{round(100 * p)}"] = fmean([d for part in parts for d in part.fresh[p]])
    return found | {"early": sum(part.early for part in parts)}


def _broken(parts: list[per_item.Found]) -> dict[str, float]:
    found: dict[str, float] = {}
    for share in per_item.BROKEN:
        every = sorted(d for part in parts for d in part.delays[share])
        found[f"broken_{round(100 * share)}"] = fmean(every)
        found[f"broken_{round(100 * share)}_p95"] = every[math.ceil(0.95 * len(every)) - 1]
    return found


def _at_random(parts: list[at_random.AlarmTimes], alarms: int, size: Size) -> dict[str, float]:
    """Hours to the alarm, now and with the five bets of before, and the false alarms of `observe_answer`."""
    found: dict[str, float] = {"random_early": sum(part.early for part in parts)}
    for case in (*at_random.RANDOM, *at_random.LOST):
        for name, delays in (
            ("", [d for part in parts for d in part.now[case]]),
            ("five_", [d for part in parts for d in part.five[case]]),
        ):
            found[f"{name}{case}_hours"] = median(delays) / at_random.PER_MINUTE / 60
            found[f"{name}{case}_mean_hours"] = fmean(delays) / at_random.PER_MINUTE / 60
            found[f"{name}{case}_alarmed"] = sum(d < at_random.MOST_PROBES for d in delays) / len(delays)
        if case in at_random.LOST:
            found[f"{case}_ratio"] = found[f"{case}_mean_hours"] / found[f"five_{case}_mean_hours"]
    promised = at_random.MOST_PROBES / at_random.ALARM_AT
    return found | {
        "random_arl": size.random_control / max(alarms, 1),
        "random_arl_lower95": lower_bound_of_mean(size.random_control, alarms),
        "random_arl_promised": at_random.CONTROL_ALARM_AT,
        "random_2_promised": promised,
        "random_2_limit": binomial_quantile(size.random_runs, promised, 0.999) / size.random_runs,
    }


SHORT_CHECKED = (0.01, 0.10, 0.20)
"""Share of a pod's answers that are wrong at random."""
TRIES = 10


def _exact() -> dict[str, float]:
    """What gate, short check and count see: by sums, so these figures are the same in every run."""
    margin = exact.find_margin()
    below = [
        exact.pass_gate(lost, ((1 - exact.THRESHOLD + margin) * exact.ITEMS - lost) / (exact.ITEMS - lost))
        for lost in range(5)
    ]
    found = {"gate_margin": margin, "gate_pass_below_margin": max(below)}
    found["gate_pass_below_margin_tries"] = 1 - (1 - max(below)) ** TRIES
    for lost, percent in ((0, 1), (0, 2), (0, 3), (2, 1), (4, 0), (4, 1), (4, 2)):
        found[f"gate_lost_{lost}_random_{percent}"] = exact.pass_gate(lost, percent / 100)
        wrong = lost + (exact.ITEMS - lost) * percent / 100
        found[f"gate_lost_{lost}_random_{percent}_right"] = 1 - wrong / exact.ITEMS
    for percent in (1, 5, 10, 20):
        found[f"short_exact_random_{percent}"] = exact.pass_short_check(percent / 100)
    for lost in (4, 8, 12, 20, 40):
        found[f"short_lost_{lost}"] = float(exact.pass_short_check_with_lost(lost))
    return found | {f"count_random_{percent}": exact.count_below(percent / 100) for percent in (2, 4, 5, 10)}


def _gate(healthy: int, healthy_runs: int, spoilt: int, spoilt_runs: int) -> dict[str, float]:
    return {
        "gate_pass_healthy": healthy / healthy_runs,
        "gate_pass_healthy_lower95": clopper_pearson(healthy, healthy_runs, 0.05).lower,
        "gate_pass_broken_5": spoilt / spoilt_runs,
    }


def _oracle(shift: float, target: float, runs: int, seed: int) -> tuple[float, float]:
    """(mean delay, mean time between false alarms) of the CUSUM tuned to this shift."""
    limit, arl = oracle.tuned(shift, target, seed)
    return oracle.delay(shift, limit, 4 * runs, seed + 1), arl


def lines(found: dict[str, float]) -> list[Line]:
    """The table."""
    return [
        Line("probes to an alarm after .95 -> .90, warm", found["delay_95_90"], 345),
        Line("probes to an alarm after .95 -> .80, warm", found["delay_95_80"], 68),
        Line("probes to an alarm at .90, fresh", found["fresh_95_90"], 400),
        Line("probes to an alarm at .80, fresh", found["fresh_95_80"], 78),
        Line("lower 95 % bound of the mean time to a false alarm", found["arl_lower95"], found["arl_promised"], True),
        Line("ratio to a CUSUM tuned for .90", found["oracle_ratio_90"], 1.25),
        Line("  its mean time to a false alarm, at most 1.1 of ours", found["oracle_arl_ratio_90"], 1.1),
        Line("  and at least 0.9", found["oracle_arl_ratio_90"], 0.9, True),
        Line("ratio to a CUSUM tuned for .80", found["oracle_ratio_80"], 1.25),
        Line("  its mean time to a false alarm, at most 1.1 of ours", found["oracle_arl_ratio_80"], 1.1),
        Line("  and at least 0.9", found["oracle_arl_ratio_80"], 0.9, True),
        Line("probes to an alarm, 5 % of 200 items broken", found["broken_5"], 200),
        Line("probes to an alarm, 10 % of 200 items broken", found["broken_10"], 90),
        Line("probes to an alarm, 40 % of 200 items broken", found["broken_40"], 16),
        Line("gate: P(Pass) of a healthy engine that flips 1 %", found["gate_pass_healthy"], 0.999, True),
        Line("gate: P(Pass) with 5 % broken for good", found["gate_pass_broken_5"], 0.001),
        Line("gate: P(Pass) of a share below threshold less margin", found["gate_pass_below_margin"], 0.05),
        Line("  in ten tries, each as if it were the first", found["gate_pass_below_margin_tries"]),
        Line("short check: 20 % wrong at random, admitted", found["short_random_20"], 0.01),
        Line("  by exact sums", found["short_exact_random_20"], 0.01),
        Line("short check: 10 % wrong at random, admitted", found["short_random_10"]),
        Line("short check: healthy pods admitted", found["short_random_1"], 0.995, True),
        Line("hours to an alarm at 4 % wrong at random, median", found["random_4_hours"], 5),
        Line("hours to an alarm at 5 % wrong at random, median", found["random_5_hours"], 2),
        Line("hours to an alarm at 10 % wrong at random, median", found["random_10_hours"], 0.6),
        Line("2 % wrong at random, as p0 allows: alarms in a day", found["random_2_alarmed"], found["random_2_limit"]),
        Line("lost items, mean time against five bets: 8 of 211", found["lost_8_ratio"], 1.03),
        Line("  12 of 211", found["lost_12_ratio"], 1.03),
        Line("  20 of 211", found["lost_20_ratio"], 1.03),
        Line(
            "lower bound of the mean time to a false alarm, p0 .98",
            found["random_arl_lower95"],
            found["random_arl_promised"],
            True,
        ),
        Line("interval: runs that ever leave the truth out", found["miscoverage"], found["alpha"]),
        Line("interval: width against its formula", found["width_ratio"], 1.05),
        Line("a change of the mix alone: share of runs that alarm", found["mix_shift_alarms"], 0.04),
        Line("CPU per probe and detector, microseconds", found["us_per_probe"], 20),
        Line("sidecar: memory of the prober, MiB", found["sidecar_mib"]),
        Line("sidecar: CPU of the prober at 6 probes a minute, % of a core", found["sidecar_cpu_percent"]),
    ]


def commit_seed() -> int:
    """Of the commit that is checked out; a tree without one must name a seed."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        sys.exit("--seed: this is no git checkout, so there is no commit to take it from; pass one")
    return int(head[:12], 16)


def main() -> int:
    """Run, print, and say whether all is reached."""
    parser = argparse.ArgumentParser(prog="bench.detector", description=__doc__)
    parser.add_argument("--seed", type=int, help="instead of the commit's")
    parser.add_argument("--quick", action="store_true", help="a rehearsal in seconds; judges nothing")
    given = parser.parse_args()
    exit_at_sigterm()
    size, seed = QUICK if given.quick else FULL, commit_seed() if given.seed is None else given.seed
    began = time.monotonic()
    found = figures(size, seed)
    table = lines(found)
    for line in table:
        bound = "" if line.limit is None else f"{'>=' if line.least else '<='} {line.limit:g}"
        print(f"{line.what:<62} {line.value:>12.6g}  {bound:<12} {'' if line.holds else 'MISSED'}".rstrip())
    rounded = {name: float(f"{value:.6g}") for name, value in found.items()}
    print(json.dumps(rounded | {"seed": seed, "seconds": round(time.monotonic() - began)}))
    return 0 if given.quick or all(line.holds for line in table) else 1


if __name__ == "__main__":
    sys.exit(main())
