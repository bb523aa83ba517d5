"""Falls to test: a tiny world in which a served revision fell, was controlled, was gone back from."""

import json
from dataclasses import replace
from typing import Any

from r1plus_contract.jsonable import dumps
from r1plus_contract.requests import Request, Verb
from r1plus_contract.verdict import Standing, SweepFigures, Verdict
from r1plus_operator.plan.inputs import PoolView
from support.plan.world import World

FULL = {"tier": "full", "context": {"maxTokens": 2048}}

NEXT = {"context": {"maxTokens": 1024}}

ROLLBACK = {"accuracy": {"onBreach": "Rollback"}}

DAY = 86_400.0


def fallen(*, replicas: int = 1, lost: tuple[str, ...] = ("i0", "i1"), **spec: Any) -> tuple[World, str, str]:
    """A good revision served for a day, a second one took over and its pods fell; the world, the good, the bad."""
    world = World({**FULL, **ROLLBACK, "replicas": replicas, **spec})
    good = world.bring_up()
    world.now += DAY
    world.change(**NEXT)
    world.settle()
    world.start_pods(good, ready=True)
    bad = world.bring_up()
    world.now += 60.0
    world.settle()
    world.gate(bad, Verdict.PASS)
    for pod in world.pods:
        world.stand(pod, Standing.BELOW_THRESHOLD, lost=lost, evidence=2.0)
    assert world.selected() == bad
    return world, good, bad


def controlled(**spec: Any) -> tuple[World, str, str]:
    """The last good revision is up, without traffic, and nobody has judged it yet."""
    world, good, bad = fallen(**spec)
    world.settle()
    assert world.status["candidate"] == good
    world.start_pods(good)
    world.settle()
    return world, good, bad


def passes(world: World, good: str) -> None:
    """The last good revision, which is up, passes its control and gets Ready."""
    world.control(Verdict.PASS)
    world.settle()
    world.set_ready(good)
    world.settle()


def rolled_back(**spec: Any) -> tuple[World, str, str]:
    world, good, bad = controlled(**spec)
    passes(world, good)
    world.start_pods(good, ready=True)
    world.settle()
    return world, good, bad


def order(world: World) -> Any:
    return json.loads(world.one("ConfigMap", "credit-accuracy")["data"]["settings.json"])["control"]


def deployments(world: World) -> dict[str, int]:
    return {d["metadata"]["name"]: d["spec"]["replicas"] for d in world.live("Deployment")}


def ask(world: World, verb: Verb, **about: str) -> None:
    """What the command line writes."""
    at = f"2026-01-01T00:00:{len(world.annotations):02d}.000000Z"
    world.annotations[verb.annotation] = dumps(Request("alice", "a reason", at, **about))


def pooled(world: World, bad: str, **view: Any) -> None:
    """The pool without its worst pod alarms; the sweeps since then stand in the reports."""
    loaded = world.suites["smollm2-full-v1"].suite
    assert loaded is not None
    world.pool = PoolView(bad, loaded.header.sha256, 3.0, 1.0, **view)


def swept(world: World, correct: int) -> None:
    figures = SweepFigures(correct, 4, 0.0, 1.0, "2026-01-02T00:00:00Z")
    world.reports = {pod: replace(report, sweep=figures) for pod, report in world.reports.items()}
