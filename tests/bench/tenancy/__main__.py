"""`make bench NAME=tenancy`: what tenants cost each other, on a real API server with its controllers.

Four phases: a tenant's start, walls before pods, as often as asked for; walls that are deleted under traffic; a tenant
that joins many; a tenant that makes noise beside one that is quiet. Nothing passes or fails here: the last line is JSON.
"""

import argparse
import asyncio
import dataclasses
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.reconcile.stage import USER_ACCOUNT, Stage, machine, staged
from bench.running import exit_at_sigterm
from bench.tenancy.noise import TWIN, Noise, deployment, made, twin
from bench.tenancy.sight import Json, Seen, Sight, watching
from devcluster import binaries
from devcluster.apiserver_only import ApiServer
from devcluster.parts import API_SERVER_BINARIES, KUBERNETES
from devcluster.steps import Steps
from r1plus_contract import names
from r1plus_operator.api import kinds
from r1plus_operator.plan.tenancy import network_policies
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.fairness import PaceLimits
from r1plus_operator.runtime.resources import Resource
from support.apiserver.server import install_crd

POLICY = kinds.BY_KIND["NetworkPolicy"]
FIRST, IDLE, JOINING = 10, 100, 10
"""Tenants that are there when the first of these is timed; tenants in the middle; tenants that are timed after them."""
IN_FLIGHT = 16
SETTLED_SECONDS = 5.0
"""Without a new pod, CR or wall for so long, the controllers have made what they had to."""
LIMITS = PaceLimits()
PAST_THE_BURST = 3 * LIMITS.burst
"""Edits after which a noisy namespace is followed at its pace only."""
NOISY, UNFOLLOWED = "noisy", "unfollowed"
QUIET = tuple(f"quiet{number}" for number in range(8))
"""They take turns."""
BETWEEN_EDITS_SECONDS = 1.0 / LIMITS.per_second / len(QUIET)
"""Of the quiet tenants: none is ever held to its pace."""


@dataclass(frozen=True, slots=True)
class Report:
    """The JSON line."""

    starts: int
    walled_before_first_pod: int
    """Starts of which both the namespace's and the deployment's policy were written before the tenant's first pod."""
    walls_deleted: int
    wall_back_median_ms: float
    wall_back_p99_ms: float
    first_tenant_ms: float
    """From the namespace to its default deny, median of the first ten."""
    tenant_101_ms: float
    """Likewise after a hundred."""
    tenant_101_x: float
    noisy_crs: int
    noisy_edits_per_second: float
    quiet_p95_ms: float
    beside_noise_p95_ms: float
    noise_x: float
    """Of a pass, beside edits that go on and on."""
    noise_at_first_x: float
    """Likewise from the first edit on: what a namespace may do at once is among it."""
    unfollowed_noise_x: float
    """Likewise beside as many edits per second of objects that no operator follows: what the machine and its API server
    take by themselves."""
    apiserver_noise_x: float
    """What the noise does to a bare write that nobody looks at: p95 beside it to p95 without."""


def p(values: list[float], share: float) -> float:
    """The quantile of a sample, from above."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Bench:
    """The stage, who watches, and the user."""

    def __init__(self, stage: Stage, config: Path, user: ApiClient, sight: Sight) -> None:
        """`config`: the user's kubeconfig."""
        self.stage, self.config, self.user, self.sight = stage, config, user, sight

    async def apply(self, namespace: str, name: str, probes: int = 6, kind: Resource = kinds.R1PLUS_DEPLOYMENT) -> None:
        """`kubectl apply` of a CR."""
        await self.user.apply(kind, deployment(kind, namespace, name, probes), field_manager="kubectl")

    async def start(self, namespace: str) -> None:
        """A tenant's first moments: its namespace and its deployment, one right after the other."""
        await self.stage.namespace(namespace)
        await self.apply(namespace, "d")

    async def walled(self, namespace: str) -> float:
        """A tenant joins; seconds until its default deny stands."""
        began = time.perf_counter()
        await self.stage.namespace(namespace)
        seen = await self.sight.until_seen((POLICY.kind, namespace, network_policies.DEFAULT_DENY), lambda _: True)
        return seen.at - began

    async def joining(self, prefix: str, count: int) -> list[float]:
        """So many, one after the other."""
        return [await self.walled(f"{prefix}{number}") for number in range(count)]

    async def starts(self, count: int) -> int:
        """All at once, in as many tenants; how many had their walls before their first pod."""
        waiting = iter([f"start{number}" for number in range(count)])

        async def worker() -> None:
            for namespace in waiting:
                await self.start(namespace)

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(worker())
        pods = self.sight.first_pod
        await self.sight.until(lambda: sum(name.startswith("start") for name in pods) >= count, f"{count} first pods")
        return sum(self._walled_first(f"start{number}") for number in range(count))

    def _walled_first(self, namespace: str) -> bool:
        stand = [self.sight.newest.get((POLICY.kind, namespace, name)) for name in (network_policies.DEFAULT_DENY, "d")]
        return all(wall is not None and wall.version < self.sight.first_pod[namespace] for wall in stand)

    async def fill(self, namespace: str, crs: int, kind: Resource = kinds.R1PLUS_DEPLOYMENT) -> None:
        """A namespace with so many CRs."""
        await self.stage.namespace(namespace)
        waiting = iter(range(crs))

        async def worker() -> None:
            for number in waiting:
                await self.apply(namespace, f"d{number}", kind=kind)

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(worker())

    async def told(self, namespace: str, crs: int, status: Json) -> None:
        """The CRs of a namespace that no operator follows get a status as if one did."""
        for number in range(crs):
            cr = {**deployment(TWIN, namespace, f"d{number}", 6), "status": status}
            cr.pop("spec")
            await self.user.apply(TWIN, cr, field_manager=names.FIELD_MANAGER, subresource="status")

    async def looked_at(self, namespace: str, crs: Iterable[str]) -> None:
        """Until the operator has looked at all of them."""
        keys = [(kinds.R1PLUS_DEPLOYMENT.kind, namespace, name) for name in crs]
        newest = self.sight.newest
        await self.sight.until(
            lambda: all(k in newest and newest[k].generation >= 1 for k in keys), "all are looked at"
        )

    async def raid(self, tenants: list[str], times: int) -> list[float]:
        """Take down one wall after the other; seconds until each stands again."""
        found = []
        for number in range(times):
            namespace, name = tenants[number % len(tenants)], (network_policies.DEFAULT_DENY, "d")[number % 2]
            before = self.sight.newest[POLICY.kind, namespace, name]
            began = time.perf_counter()
            await self.user.delete(POLICY, name, namespace)
            found.append((await self._anew(namespace, name, before)).at - began)
        return found

    async def _anew(self, namespace: str, name: str, before: Seen) -> Seen:
        return await self.sight.until_seen((POLICY.kind, namespace, name), lambda seen: seen.uid != before.uid)

    async def reconciled(self, times: int) -> list[float]:
        """Edit quiet CRs so often; seconds from the API server's word that it has an edit until the status is of it."""
        found = []
        for number in range(times):
            namespace = QUIET[number % len(QUIET)]
            key = kinds.R1PLUS_DEPLOYMENT.kind, namespace, "d"
            wanted = self.sight.newest[key].generation + 1
            await asyncio.sleep(BETWEEN_EDITS_SECONDS)
            await self.apply(namespace, "d", 100 + number)
            began = time.perf_counter()
            found.append((await self._observed(key, wanted)).at - began)
        return found

    async def _observed(self, key: tuple[str, str, str], generation: int) -> Seen:
        return await self.sight.until_seen(key, lambda seen: seen.generation >= generation)

    async def bare(self, namespace: str, times: int) -> list[float]:
        """What a write takes by itself: of a ConfigMap that nobody looks at."""
        found = []
        for number in range(times):
            obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bare", "namespace": namespace}, "data": {"n": str(number)}}  # fmt: skip
            began = time.perf_counter()
            await self.user.apply(kinds.CONFIG_MAP, obj, field_manager="kubectl")
            found.append(time.perf_counter() - began)
        return found


async def measure(bench: Bench, starts: int, noisy: int, samples: int) -> Report:
    """All phases."""
    early = await bench.joining("first", FIRST)
    await bench.joining("idle", IDLE - FIRST)
    later = await bench.joining("later", JOINING)
    say(
        f"walls of a new tenant: {statistics.median(early) * 1e3:.1f} ms, after {IDLE}: {statistics.median(later) * 1e3:.1f} ms"
    )
    for namespace in QUIET:
        await bench.start(namespace)
        await bench.looked_at(namespace, ["d"])
    await bench.reconciled(20)
    quiet, bare = await bench.reconciled(samples), await bench.bare(QUIET[0], samples)
    say(
        f"quiet: a pass {p(quiet, 0.95) * 1e3:.1f} ms at the 95th percentile, a bare write {p(bare, 0.95) * 1e3:.1f} ms"
    )
    await bench.fill(NOISY, noisy)
    await bench.looked_at(NOISY, [f"d{number}" for number in range(noisy)])
    await bench.fill(UNFOLLOWED, noisy, TWIN)
    await bench.told(UNFOLLOWED, noisy, (await bench.user.get(kinds.R1PLUS_DEPLOYMENT, "d0", NOISY))["status"])
    await bench.sight.until_quiet(SETTLED_SECONDS)
    say(f"{noisy} CRs of another tenant stand, and are edited in a loop")
    noise = Noise(bench.config, kinds.R1PLUS_DEPLOYMENT, NOISY, noisy)
    async with made(noise) as edits:
        first = await bench.reconciled(samples)
        await edits.until(PAST_THE_BURST)
        beside = await bench.reconciled(samples)
        rate = edits.rate
        bare_beside = await bench.bare(QUIET[0], samples)
    say(
        f"beside {rate:.0f} edits/s: a pass {p(first, 0.95) * 1e3:.1f} ms at first, then {p(beside, 0.95) * 1e3:.1f} ms, "
        f"a bare write {p(bare_beside, 0.95) * 1e3:.1f} ms"
    )
    bench.stage.operator.kill()
    await bench.stage.started()  # Begins anew, and need not keep the pace of edits of before.
    await bench.sight.until_quiet(SETTLED_SECONDS)
    async with made(dataclasses.replace(noise, kind=TWIN, namespace=UNFOLLOWED, at_most=rate)) as edits:
        await edits.until(LIMITS.burst)
        unfollowed = await bench.reconciled(samples)
    say(f"beside as many edits of what no operator follows: a pass {p(unfollowed, 0.95) * 1e3:.1f} ms")
    before = await bench.starts(starts)
    say(f"{before} of {starts} tenants had their walls before their first pod")
    async with made(noise):
        back = await bench.raid([f"start{number}" for number in range(min(starts, 50))], samples)
    say(
        f"{len(back)} walls taken down under traffic: back in {statistics.median(back) * 1e3:.0f} ms, p99 {p(back, 0.99) * 1e3:.0f} ms"
    )
    return Report(
        starts=starts,
        walled_before_first_pod=before,
        walls_deleted=len(back),
        wall_back_median_ms=round(statistics.median(back) * 1e3, 1),
        wall_back_p99_ms=round(p(back, 0.99) * 1e3, 1),
        first_tenant_ms=round(statistics.median(early) * 1e3, 1),
        tenant_101_ms=round(statistics.median(later) * 1e3, 1),
        tenant_101_x=round(statistics.median(later) / statistics.median(early), 2),
        noisy_crs=noisy,
        noisy_edits_per_second=round(rate, 1),
        quiet_p95_ms=round(p(quiet, 0.95) * 1e3, 1),
        beside_noise_p95_ms=round(p(beside, 0.95) * 1e3, 1),
        noise_x=round(p(beside, 0.95) / p(quiet, 0.95), 2),
        noise_at_first_x=round(p(first, 0.95) / p(quiet, 0.95), 2),
        unfollowed_noise_x=round(p(unfollowed, 0.95) / p(quiet, 0.95), 2),
        apiserver_noise_x=round(p(bare_beside, 0.95) / p(bare, 0.95), 2),
    )


def say(text: str) -> None:
    """A line of progress."""
    print(text, flush=True)


def observed_generation(cr: Json) -> int:
    """Of which generation an R1PlusDeployment's status is."""
    return int((cr.get("status") or {}).get("observedGeneration", 0))


def none(_: Any) -> int:
    """Nobody asks."""
    return 0


async def run(server: ApiServer, log: Path, starts: int, noisy: int, samples: int) -> Report:
    """Against a server that runs."""
    config = server.kubeconfig_for(USER_ACCOUNT, ("system:masters",))
    of = {
        "walls": (POLICY, none),
        "pods": (kinds.POD, none),
        "crs": (kinds.R1PLUS_DEPLOYMENT, observed_generation),
        "twins": (TWIN, none),
    }
    async with staged(server, log) as stage, ApiClient.from_kubeconfig(config) as user:
        await install_crd(stage.client, twin())
        async with watching(stage.client, **of) as sight:
            say(f"operator started in {await stage.started():.2f} s")
            return await measure(Bench(stage, config, user, sight), starts, noisy, samples)


def main() -> None:
    """Measure, then print the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=1000, help="tenants that start; default 1000")
    parser.add_argument("--noisy", type=int, default=1000, help="CRs of the noisy tenant; default 1000")
    parser.add_argument(
        "--samples", type=int, default=300, help="passes that are timed, and walls taken down; default 300"
    )
    parser.add_argument("--keep-log", type=Path, help="where to leave the operator's log")
    given = parser.parse_args()
    exit_at_sigterm()
    binaries.build(Steps(len(API_SERVER_BINARIES)), API_SERVER_BINARIES)
    at = machine()
    say(f"{at['cpus']} CPUs, load {at['load']}, Python {platform.python_version()}, Kubernetes {KUBERNETES}")
    with ApiServer(controller_manager=True) as server, tempfile.TemporaryDirectory() as folder:
        log = given.keep_log or Path(folder) / "operator.log"
        report = asyncio.run(run(server, log, given.starts, given.noisy, given.samples))
    print(json.dumps({**dataclasses.asdict(report), **at, "kubernetes": KUBERNETES}))


if __name__ == "__main__":
    main()
