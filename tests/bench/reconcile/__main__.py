"""`make bench NAME=reconcile N=200`: the operator against a bare client that writes the same, on a real API server.

In order: the floor, N CRs at once, some of them made Ready, an idle minute, a restart, drift, and the floor again, so
that a machine that changes its pace meanwhile does so on both sides. Not a test: nothing here passes or fails, except
that the requests of both sides must be the same. The last line is JSON.
"""

import argparse
import asyncio
import dataclasses
import json
import platform
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bench.reconcile.audit import Request, tally
from bench.reconcile.drift import Outcome, raid, watching
from bench.reconcile.floor import IN_FLIGHT, removed
from bench.reconcile.procfs import Usage, usage
from bench.reconcile.stage import FLOOR_ACCOUNT, USER_ACCOUNT, Stage, creations, deployment, machine, serve, staged
from bench.running import exit_at_sigterm
from devcluster import binaries
from devcluster.apiserver_only import ApiServer
from devcluster.parts import API_SERVER_BINARIES, KUBERNETES
from devcluster.steps import Steps

NAMESPACE = "bench"
FLOOR_CRS = 500
"""At most so many CRs' objects on each side of the operator's part: it is a rate."""
WARM_UP_CRS = 20
READY_CRS = 10
DRIFT_CRS = 3
"""So many that are Ready, and so many that are not, part the edits of each standing among themselves."""
IDLE_SECONDS = 60.0
NO_CHILDREN = frozenset({"r1plusdeployments/status", "events", "leases"})


@dataclass(frozen=True, slots=True)
class Report:
    """The JSON line."""

    n: int
    namespaces: int
    children_per_cr: float
    reads_per_cr: float
    writes_per_cr: float
    x_floor: float
    cpu_ms_per_write: float
    floor_cpu_ms_per_write: float
    """The bare client's own: what the same machine takes for the requests alone."""
    peak_rss_mb: float
    idle_writes: int | None
    """None where it was not asked for, as with drift."""
    idle_cpu_percent: float | None
    """Of one processor."""
    restart_seconds: float
    restart_writes: int
    drift_tried: int | None
    drift_restored: int | None
    drift_median_ms: float | None


@dataclass(frozen=True, slots=True)
class Creation:
    """N CRs came, and the operator answered."""

    seconds: float
    reads: int
    writes: int
    children: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Floor:
    """What the bare client does per CR: its writes beside the CR itself, seconds for the CR, seconds for the rest."""

    writes: float
    create: float
    write: float
    cpu_ms: float
    """Of the client, for each write."""


async def floor(stage: Stage, count: int, namespace: str) -> Floor:
    """Write what the operator would write for `count` CRs, with nobody watching."""
    await stage.namespace(namespace)
    answers = stage.answers(deployment(namespace, number) for number in range(count))
    async with stage.bare(FLOOR_ACCOUNT) as client:
        create = await client.send(creations(namespace, count))
        cpu = time.process_time()
        write = await client.send(answers)
        cpu = (time.process_time() - cpu) / len(answers) * 1e3
        await client.send([removed(namespace)])
    say(
        f"floor: {len(answers) / count:.0f} writes per CR at {len(answers) / write:.0f}/s,"
        f" CRs created at {count / create:.0f}/s, {IN_FLIGHT} in flight, {cpu:.2f} ms of client CPU per write"
    )
    return Floor(len(answers) / count, create / count, write / count, cpu)


async def creation(stage: Stage, count: int, namespaces: int) -> Creation:
    """Create N CRs as fast as 16 requests in flight allow, and wait until the operator has nothing more to write."""
    shares = {NAMESPACE: count // namespaces + count % namespaces}
    shares |= {f"{NAMESPACE}-{number}": count // namespaces for number in range(1, namespaces)}
    for name in shares:
        await stage.namespace(name)
    if namespaces > 1:
        await stage.settled()  # The walls of a namespace are no CR's.
    stage.requests()
    before, began = usage(stage.operator.pid), time.time()
    async with stage.bare(USER_ACCOUNT) as client:
        took = await client.send([write for name, share in shares.items() for write in creations(name, share)])
    asked = await stage.settled(statuses=count)
    used, counted = usage(stage.operator.pid), tally(asked)
    children = {(r.resource, r.namespace, r.name) for r in asked if r.writes and r.resource not in NO_CHILDREN}
    found = Creation(
        seconds=counted.ended - began,
        reads=counted.reads,
        writes=counted.writes,
        children=len(children),
        cpu_seconds=used.cpu_seconds - before.cpu_seconds,
    )
    say(f"created {count} CRs in {took:.1f} s; the operator wrote {counted.writes} times in {found.seconds:.1f} s,")
    say(
        f"  {counted.writes / found.seconds:.0f}/s, {counted.refused} refused, {used.rss_mb:.0f} MiB: {kinds_of(asked)}"
    )
    for line in refusals(asked):
        say(f"  {line}")
    return found


async def idle(stage: Stage) -> tuple[int, float]:
    """The operator's writes in a minute in which nothing happens, and its share of a processor in percent."""
    stage.requests()
    before = usage(stage.operator.pid)
    await asyncio.sleep(IDLE_SECONDS)
    asked, used = stage.requests(), usage(stage.operator.pid)
    cpu = (used.cpu_seconds - before.cpu_seconds) / IDLE_SECONDS
    say(f"idle for {IDLE_SECONDS:.0f} s: {tally(asked).writes} writes, {cpu:.1%} of a CPU {kinds_of(asked)}")
    return tally(asked).writes, cpu * 100


async def restart(stage: Stage) -> tuple[float, int, Usage]:
    """Stop the operator and start it: seconds until all is looked at, and its writes."""
    stopped = usage(stage.operator.pid)
    stage.operator.stop()
    stage.requests()
    seconds = await stage.started()
    asked = await stage.settled()
    now = usage(stage.operator.pid)
    say(
        f"restarted in {seconds:.2f} s: {tally(asked).writes} writes, {now.cpu_seconds:.2f} s of CPU,"
        f" {now.rss_mb:.0f} MiB, peak {now.peak_rss_mb:.0f} {kinds_of(asked)}"
    )
    return seconds, tally(asked).writes, max(stopped, now, key=lambda one: one.peak_rss_mb)


async def drift(stage: Stage, groups: list[list[str]]) -> Outcome:
    """Edit and delete everything that the deployments of each group own; within a group they are alike."""
    outcome, began = Outcome(), time.perf_counter()
    async with watching(stage.client, NAMESPACE, [name for group in groups for name in group]) as sight:
        for group in groups:
            await raid(stage.client, NAMESPACE, sight, group, outcome)
            say(
                f"drift of {', '.join(group)}: {outcome.restored} of {outcome.tried} restored after"
                f" {time.perf_counter() - began:.0f} s, median {outcome.median_ms:.1f} ms,"
                f" slowest {max(outcome.milliseconds, default=0):.0f} ms; {outcome.refused} edits were refused"
            )
    for failure in outcome.failures:
        say(f"  not restored: {failure}")
    return outcome


def drift_groups(count: int) -> list[list[str]]:
    """Names of those that are Ready and of those that are not, as many as there are."""
    firsts = (range(min(DRIFT_CRS, count)), range(READY_CRS, min(READY_CRS + DRIFT_CRS, count)))
    groups = [[deployment(NAMESPACE, number)["metadata"]["name"] for number in numbers] for numbers in firsts]
    return [group for group in groups if group]


async def measure(stage: Stage, count: int, namespaces: int, *, brief: bool) -> Report:
    """All phases; `brief` leaves out the idle minute and drift, as for a count so large that only memory and pace matter."""
    sample = min(count, FLOOR_CRS)
    await floor(stage, min(count, WARM_UP_CRS), "warm-up")
    floors = [await floor(stage, sample, "floor-before")]
    say(f"operator started in {await stage.started():.2f} s")
    await stage.settled()
    made = await creation(stage, count, namespaces)
    ready = range(min(READY_CRS, count))
    monitors = await asyncio.gather(*(serve(stage.client, NAMESPACE, number) for number in ready))
    await stage.settled()
    say(f"{len(monitors)} CRs are Ready")
    idle_writes, idle_cpu = (None, None) if brief else await idle(stage)
    seconds, writes, used = await restart(stage)
    outcome = None if brief else await drift(stage, drift_groups(count))
    for monitor in monitors:
        await monitor.stop()
    stage.operator.stop()
    floors.append(await floor(stage, sample, "floor-after"))
    create, write = (statistics.mean(of) for of in zip(*((f.create, f.write) for f in floors), strict=True))
    taken = made.seconds / count
    # Whole ones: the namespace's own walls, which are made once, are no CR's.
    if floors[0].writes != made.children // count + 1:
        say(f"NOT THE SAME: the bare client made {floors[0].writes} writes per CR, see the operator's above")
    say(f"{taken / (create + write):.2f} x the floor with the CRs' own creation in both, {taken / write:.2f} x without")
    return Report(
        n=count,
        namespaces=namespaces,
        children_per_cr=round(made.children / count, 2),
        reads_per_cr=round(made.reads / count, 2),
        writes_per_cr=round(made.writes / count, 2),
        x_floor=round(taken / (create + write), 2),
        cpu_ms_per_write=round(made.cpu_seconds / made.writes * 1e3, 2),
        floor_cpu_ms_per_write=round(statistics.mean(f.cpu_ms for f in floors), 2),
        peak_rss_mb=round(used.peak_rss_mb, 1),
        idle_writes=idle_writes,
        idle_cpu_percent=idle_cpu and round(idle_cpu, 1),
        restart_seconds=round(seconds, 2),
        restart_writes=writes,
        drift_tried=outcome and outcome.tried,
        drift_restored=outcome and outcome.restored,
        drift_median_ms=outcome and round(outcome.median_ms, 1),
    )


def kinds_of(asked: list[Request]) -> str:
    """What was written, for people."""
    counts = Counter(request.resource for request in asked if request.writes)
    return ", ".join(f"{count} {resource}" for resource, count in sorted(counts.items()))


def refusals(asked: list[Request]) -> list[str]:
    """Which writes the server answered with an error: how many of each sort, and its words for the first of them."""
    sorts: dict[str, list[str]] = {}
    for request in asked:
        if request.writes and request.code >= 400:
            sorts.setdefault(f"{request.verb} {request.resource} {request.code}", []).append(request.said)
    return [f"refused {len(words)} times: {sort}: {words[0]}" for sort, words in sorts.items()]


def say(text: str) -> None:
    """A line of progress."""
    print(text, flush=True)


async def run(server: ApiServer, count: int, namespaces: int, log: Path, *, brief: bool) -> Report:
    """Against a server that runs."""
    async with staged(server, log) as stage:
        return await measure(stage, count, namespaces, brief=brief)


def main() -> None:
    """Measure, then print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep-log", type=Path, help="where to leave the operator's log")
    parser.add_argument("--brief", action="store_true", help="no idle minute and no drift")
    parser.add_argument("-n", type=int, default=200, help="R1PlusDeployments, at least 1; default 200")
    parser.add_argument("--namespaces", type=int, default=1, help="that they are in, as many in each; default 1")
    given = parser.parse_args()
    exit_at_sigterm()
    count = max(1, given.n)
    least = READY_CRS if given.brief else READY_CRS + DRIFT_CRS
    if given.namespaces > 1 and not least <= count // given.namespaces:
        parser.error(f"--namespaces {given.namespaces}: {count} CRs are fewer than {least} in each; take more CRs")
    binaries.build(Steps(len(API_SERVER_BINARIES)), API_SERVER_BINARIES)
    at = machine()
    say(f"{at['cpus']} CPUs, load {at['load']}, Python {platform.python_version()}, Kubernetes {KUBERNETES}")
    with ApiServer() as server, tempfile.TemporaryDirectory() as folder:
        log = given.keep_log or Path(folder) / "operator.log"
        report = asyncio.run(run(server, count, given.namespaces, log, brief=given.brief))
    print(json.dumps({**dataclasses.asdict(report), **at, "kubernetes": KUBERNETES}))


if __name__ == "__main__":
    main()
