"""One tenant keeps the operator busy; another's wall is back as soon as before. `make bench NAME=tenancy` has the figures of a thousand."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from bench.reconcile.audit import AuditLog, Request
from e2e.isolation.cases import of, ours
from e2e.isolation.matrix import Trial
from e2e.isolation.overtaking import count_overtaking
from e2e.isolation.people import MERGE, Ask
from e2e.isolation.stage import MODEL, World
from e2e.kube import Json
from e2e.waiting import wait_for
from r1plus_contract.names import API_VERSION, KIND_DEPLOYMENT

pytestmark = [pytest.mark.e2e_long, pytest.mark.timeout(7200)]

NOISY = 200
TIMES = 6
AT_MOST_SECONDS = 20.0
"""For a wall of B's to come back while nobody asks for anything: the machine's two cores also serve both models."""
AT_MOST_WRITES = 32
"""Of A's, which may come before a wall of B's: four workers, a namespace's share, end the passes that they have begun.

They are counted, since beside A's edits an API server on busy cores takes seconds for a write of anybody's.
"""


def restored(world: World) -> float:
    """Seconds until a wall of B's that was deleted is there again."""
    kube, namespace = world.kube, world.b.namespace
    before = (kube.get("networkpolicies", namespace, MODEL) or {})["metadata"]["uid"]
    began = time.monotonic()
    kube.delete("networkpolicies", namespace, MODEL)

    def back() -> bool:
        found = kube.get("networkpolicies", namespace, MODEL)
        return found is not None and found["metadata"]["uid"] != before

    wait_for(back, f"the wall of {namespace}/{MODEL} is back", period_s=0.02)
    return time.monotonic() - began


def until_counted(world: World, log: AuditLog) -> list[int]:
    """Wait until the API server's log tells of each wall, and return how many of A's writes came before it."""
    requests: list[Request] = []

    def look() -> list[int] | None:
        requests.extend(log.read())
        counts = count_overtaking(requests, world.b.name, world.a.namespace)
        return counts if len(counts) >= TIMES else None

    return wait_for(look, "the audit log tells of each wall", lambda: f"{len(requests)} requests", period_s=1.0)


class Noise:
    """A's administrator changes one deployment after the other, as fast as the API server lets them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.changed = 0

    def __enter__(self) -> "Noise":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=60.0)

    def _run(self) -> None:
        while not self._stop.is_set():
            number = self.changed % NOISY
            path = ours(self._world.a.namespace, f"r1plusdeployments/noisy-{number:03}")
            body = {"spec": {"context": {"maxTokens": 512 + self.changed % 100}}}
            assert self._world.a.admin.ask(Ask("PATCH", path, body, MERGE)).done
            self.changed += 1


@contextmanager
def crowd(world: World) -> Iterator[None]:
    """Many deployments of A's, of an engine that there is not: each change is a pass, and nothing starts."""

    def one(number: int) -> Json:
        meta = {"name": f"noisy-{number:03}", "namespace": world.a.namespace, "labels": {"noisy": "true"}}
        spec = {"tier": "edge", "engine": {"version": "9.9.9"}}
        return {"apiVersion": API_VERSION, "kind": KIND_DEPLOYMENT, "metadata": meta, "spec": spec}

    path = ours(world.a.namespace, "r1plusdeployments")
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: world.a.admin.ask(Ask("POST", path, one(number))), range(NOISY)))
    assert all(answer.done for answer in made), made[-1]
    try:
        yield
    finally:
        # On busy cores the API server deletes half of them in its minute for a request, and ends the connection.
        noisy = Ask("DELETE", f"{path}?labelSelector=noisy=true")
        wait_for(lambda: world.a.admin.ask(noisy).done, "all of A's are deleted", retry_on=(ConnectionError,))


@pytest.mark.vector(12)
def test_a_tenant_that_changes_two_hundred_deployments_in_a_loop_starves_nobody(world: World, trial: Trial) -> None:
    trial.by(world.a.admin_name, world.a.admin.name())
    quiet = sorted(restored(world) for _ in range(TIMES))
    trial.open("the operator restores B's wall", quiet[-1] < AT_MOST_SECONDS, quiet)
    with crowd(world), Noise(world) as noise, AuditLog(world.target.cluster.audit_log) as log:
        wait_for(lambda: noise.changed >= NOISY, "every one of A's was changed")
        log.read()
        loud = sorted(restored(world) for _ in range(TIMES))
        overtaking = until_counted(world, log)
    print(f"quiet {quiet}, with {noise.changed} changes beside it {loud}; A's writes before B's: {overtaking}")
    trial.shut("B waits for A", max(overtaking) <= AT_MOST_WRITES, (quiet, loud, overtaking))
    assert world.a.admin.ask(Ask("GET", of("apps", world.a.namespace, "deployments"))).done
