"""What waits behind the thousands of first passes that one tenant costs after a restart: nothing that somebody asks for."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from r1plus_contract.requests import Request, Verb, build_annotations
from r1plus_contract.verdict import MonitorReport, Phase, Verdict, Watch, WatchStanding
from r1plus_operator.config import load_settings
from r1plus_operator.main import OperatorParts, build
from r1plus_operator.observe import pod_projection
from r1plus_operator.observe.keys import DeploymentKey, PassKey
from r1plus_operator.runtime.client import ApiClient
from r1plus_operator.runtime.connection import ApiConnection
from r1plus_operator.runtime.queue import run_workers
from support.tables import for_each
from support.waiting import DEADLINE_SECONDS

ROOT = Path(__file__).parents[3]
NOISY, DEPLOYMENTS, STEPS = ("noisy-a", "noisy-b"), 500, 7
"""Namespaces, deployments in each, and how often a pass lets others go on."""
QUIET = DeploymentKey("quiet", "credit")
LAST = DeploymentKey("noisy-a", f"d{DEPLOYMENTS - 1}")
"""Whose first pass comes last."""


def cr(key: DeploymentKey, generation: int = 1, **annotations: str) -> dict[str, Any]:
    namespace, name = key
    head = {"namespace": namespace, "name": name, "uid": f"u-{namespace}-{name}", "annotations": annotations}
    return {"metadata": {**head, "generation": generation, "resourceVersion": str(generation)}, "spec": {}}


def listed() -> OperatorParts:
    """Return a new leader's parts once it has listed all deployments, before its first pass."""
    env = {
        "R1PLUS_MONITOR_IMAGE": "registry.local/monitor:1",
        "R1PLUS_TRITON_IMAGE": "registry.local/triton:1",
        "R1PLUS_CATALOG_DIR": str(ROOT / "model_repo" / "r1plus_model_repo" / "catalog"),
        "R1PLUS_SUITES_DIR": str(ROOT / "monitoring" / "suites"),
        "R1PLUS_OPERATOR_NAMESPACE": "r1plus-system",
    }
    client = ApiClient(ApiConnection("http://127.0.0.1:1"))
    parts = build(load_settings(env), client, client)
    for number in range(DEPLOYMENTS):
        for namespace in NOISY:
            parts.observer.ingest(None, cr(DeploymentKey(namespace, f"d{number}")))
    parts.observer.ingest(None, cr(QUIET))
    return parts


def edit(parts: OperatorParts, key: DeploymentKey) -> None:
    parts.observer.ingest("MODIFIED", cr(key, generation=2), has_turn=True)


def request_rollback(parts: OperatorParts, key: DeploymentKey) -> None:
    annotations = build_annotations(Verb.ROLLBACK, Request(by="anna", why="", at="2026-11-28T12:00:00.000000Z"))
    parts.observer.ingest("MODIFIED", cr(key, generation=2, **annotations), has_turn=True)


def edit_after_first_reports(parts: OperatorParts, key: DeploymentKey) -> None:
    """Let the monitor of each deployment report for the first time that all is well, and then edit one."""
    watch = Watch(WatchStanding.STEADY, 4)
    for other in parts.observer.crs:
        report_watch(parts, other, watch)
    edit(parts, key)


def report_drop(parts: OperatorParts, key: DeploymentKey) -> None:
    report_watch(parts, key, Watch(WatchStanding.BELOW_THRESHOLD, 4))


def report_watch(parts: OperatorParts, key: DeploymentKey, watch: Watch) -> None:
    namespace, name = key
    meta = {
        "namespace": namespace,
        "name": f"{name}-x",
        "uid": f"p-{namespace}-{name}",
        "labels": {"r1plus.ai/deployment": name},
    }
    pod = pod_projection.project_pod({"metadata": meta, "spec": {}, "status": {}})
    assert pod is not None
    report = MonitorReport("r", "id", Phase.WATCHING, Verdict.PASS, "Passed", "", watch=watch)
    parts.observer.monitors.store_report(pod, report)


@for_each(
    ("cause", "key"),
    {
        "another tenant edits": (edit, QUIET),
        "the tenant itself edits the last one": (edit, LAST),
        "the tenant edits the last one after all monitors have reported": (edit_after_first_reports, LAST),
        "the tenant asks for a rollback of the last one": (request_rollback, LAST),
        "a monitor of the last one reports a drop": (report_drop, LAST),
    },
)
async def test_first_passes_of_a_restart_delay_nothing_else(
    cause: Callable[[OperatorParts, DeploymentKey], None], key: DeploymentKey
) -> None:
    parts = listed()
    begun: list[PassKey] = []
    out: set[PassKey] = set()
    most: list[int] = []
    caused = -1

    async def handle(current: PassKey) -> None:
        nonlocal caused
        begun.append(current)
        out.add(current)
        most.append(sum(key.namespace in NOISY for key in out))
        for _ in range(STEPS):
            await asyncio.sleep(0)
        out.discard(current)
        if len(begun) > 20 and caused < 0:
            caused = len(begun)
            cause(parts, key)
        if len(begun) > 2 * DEPLOYMENTS:
            parts.queue.shut_down()

    async with asyncio.timeout(DEADLINE_SECONDS):
        await run_workers(parts.queue, parts.workers, handle, on_error=lambda *_: None)
    assert begun.index(key, caused) - caused <= len(NOISY), "those whose worker was free in the same moment"
    assert max(most) <= parts.workers * 3 // 4 + 1, "a quarter of the workers waits for others, and what was asked for"


async def test_the_first_pass_of_a_small_tenant_waits_for_one_of_each_other_tenant() -> None:
    parts = listed()
    order = [await parts.queue.get()]
    while order[-1] != QUIET:
        parts.queue.finish(order[-1])
        order.append(await parts.queue.get())
    assert len(order) <= len(NOISY) + 1


def test_deployments_that_come_and_go_without_end_cost_no_urgent_pass() -> None:
    parts = listed()
    waiting = parts.queue.depth
    key = DeploymentKey("noisy-a", "again")
    for number in range(1, 100):
        parts.observer.ingest("ADDED", cr(key, number))
        parts.observer.ingest("DELETED", cr(key, number))
    assert parts.queue.depth == waiting + 1, "the deployment's own, and none of its namespace as a tenant"
