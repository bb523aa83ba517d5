"""Pods that lose traffic stay for the requests that they run, at most `rollout.drain`; deleted ones wait by themselves."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_contract import names
from r1plus_operator.plan.observation import REFUSED_PODS, GatewayView, Json, TenantView
from r1plus_operator.plan.podspec.pod import GRACE_SECONDS, HUNG_LOOKS, PRESTOP_SECONDS, build_prestop_command
from r1plus_policies.rollout import DRAIN_LOOK_SECONDS, DRAIN_SECONDS, GATEWAY_DRAIN_SECONDS
from support.plan.falls import rolled_back
from support.plan.world import World
from support.tables import for_each
from support.waiting import eventually

SPEC = {"tier": "full", "context": {"maxTokens": 2048}}
DRAIN = 120.0


def switched(**rollout: str) -> tuple[World, str, str]:
    """Return a world in which a second revision has just taken over, and both revisions."""
    world = World({**SPEC, "rollout": {"drain": "2m", **rollout}})
    first = world.bring_up()
    world.change(context={"maxTokens": 1024})
    return world, first, world.bring_up()


def test_a_stream_keeps_the_old_revision_until_it_ends() -> None:
    world, first, second = switched()
    world.report(first, user_requests=1).wait(DRAIN_SECONDS)
    planned = world.settle()
    assert planned.requeue_after is not None
    assert planned.requeue_after <= DRAIN_LOOK_SECONDS
    stays = f"pods of {first} stay for the requests that they run, until "
    world.expect(serves=second, runs={first: 1, second: 1}, Progressing=("False Complete", stays))
    world.report(first, user_requests=0).settle()
    world.expect(serves=second, runs={second: 1})
    assert stays not in world.condition("Progressing")[2]


def test_the_drain_ends_it_at_the_latest_and_its_pods_at_once() -> None:
    world, first, second = switched()
    world.report(first, user_requests=1).wait(DRAIN)
    # Its pod would wait for its requests once more.
    pod = f"{first}-0"
    planned = world.plan()
    assert ("Deployment", first) in {key[:2] for key in planned.delete}
    assert planned.cut == ((pod, f"uid-{pod}"),)
    world.expect(serves=second)


@for_each("ends_in, is_cut", {"its own grace period": (600.0, True), "the short one": (float(GRACE_SECONDS), False)})
def test_a_pod_that_ends_already_is_cut_once(ends_in: float, is_cut: bool) -> None:
    world, first, _ = switched()
    world.report(first, user_requests=1).wait(DRAIN)
    world.pods[f"{first}-0"] = replace(world.pods[f"{first}-0"], terminating=True, grace_ends_at=world.now + ends_in)
    assert bool(world.plan().cut) == is_cut


def test_a_monitor_that_does_not_say_counts_as_one_with_requests() -> None:
    world, first, second = switched()
    world.report(first, user_requests=None).wait(DRAIN - 10).settle()
    world.expect(serves=second, runs={first: 1, second: 1})


def test_a_monitor_that_reports_fewer_requests_than_none_hides_those_of_no_other_pod() -> None:
    world = World({**SPEC, "replicas": 2, "rollout": {"drain": "2m"}})
    first = world.bring_up()
    world.change(context={"maxTokens": 1024})
    second = world.bring_up()
    world.report(first, user_requests=1)
    compromised = f"{first}-0"
    world.reports[compromised] = replace(world.reports[compromised], user_requests=-1)
    world.wait(DRAIN_SECONDS).settle()
    world.expect(serves=second, runs={first: 2, second: 2})


def test_a_gateway_has_time_to_follow_the_names() -> None:
    world, first, second = switched()
    world.tenant = TenantView("True", "IsolationEnforced", "", gateway=GatewayView())
    world.wait(DRAIN_SECONDS).settle()
    world.expect(runs={first: 1, second: 1})
    world.wait(GATEWAY_DRAIN_SECONDS - DRAIN_SECONDS).settle()
    world.expect(runs={second: 1})


def test_a_rollback_moves_traffic_at_once_and_what_is_left_drains() -> None:
    world, first, second = switched()
    world.report(user_requests=2).wait(DRAIN_SECONDS).settle()
    world.apply(**SPEC)
    world.set_ready(first).settle()
    world.expect(serves=first, runs={first: 1, second: 1})
    world.wait(DRAIN_SECONDS).settle()
    world.expect(serves=first, runs={first: 1, second: 1})


def test_after_an_accuracy_drop_what_is_left_ends_soon() -> None:
    world, good, bad = rolled_back()
    world.report(bad, user_requests=2).settle()
    world.expect(serves=good, runs={good: 1, bad: 1})
    world.wait(DRAIN_SECONDS)
    assert [pod for pod, _ in world.plan().cut] == [f"{bad}-0"]
    world.settle()
    world.expect(serves=good, runs={good: 1})


def test_the_next_candidate_does_not_end_a_stream() -> None:
    world, first, second = switched()
    world.report(first, user_requests=1).wait(DRAIN_SECONDS)
    third = world.apply(context={"maxTokens": 512})
    world.expect(serves=second, runs={first: 1, second: 1, third: 1})


def unscheduled(world: World, revision: str) -> None:
    world.set_pods(revision, unschedulable="0/1 nodes", unschedulable_since=world.now)


def refused(world: World, revision: str) -> None:
    world.one("Deployment", revision)[REFUSED_PODS] = "exceeded quota: pods"


@for_each("leave_out", {"no node has room": unscheduled, "the quota has none": refused})
def test_a_candidate_whose_room_drains_is_not_withdrawn(leave_out: Callable[[World, str], None]) -> None:
    world, first, second = switched(drain="24h", deadline="1h")
    world.report(first, user_requests=1).wait(DRAIN_SECONDS)
    third = world.apply(context={"maxTokens": 512})
    leave_out(world.start_pods(third), third)
    world.wait(3600).settle()
    world.expect(serves=second, runs={first: 1, second: 1, third: 1})
    world.report(first, user_requests=0).settle()
    world.set_pods(third, unschedulable="", unschedulable_since=None)
    world.one("Deployment", third).pop(REFUSED_PODS, None)
    world.settle()
    world.expect(serves=second, runs={second: 1, third: 1})


def get_pod_spec(world: World, revision: str) -> Json:
    """Return the spec of a revision's pods."""
    spec: Json = world.one("Deployment", revision)["spec"]["template"]["spec"]
    return spec


def test_a_deleted_pod_has_the_time_for_its_requests() -> None:
    world, _, second = switched()
    pod = get_pod_spec(world, second)
    assert pod["terminationGracePeriodSeconds"] == GRACE_SECONDS + DRAIN
    hook = next(c for c in pod["containers"] if c["name"] == names.CONTAINER_TRITON)["lifecycle"]["preStop"]
    assert hook["exec"]["command"] == build_prestop_command(int(DRAIN))


def test_a_container_whose_probe_fails_restarts_without_the_drain() -> None:
    world, _, second = switched()
    triton = next(c for c in get_pod_spec(world, second)["containers"] if c["name"] == names.CONTAINER_TRITON)
    graces = {triton[probe]["terminationGracePeriodSeconds"] for probe in ("startupProbe", "livenessProbe")}
    assert graces == {GRACE_SECONDS}
    assert "terminationGracePeriodSeconds" not in triton["readinessProbe"], "the API server refuses it there"


def test_in_place_its_successor_waits_for_the_room() -> None:
    world = World({**SPEC, "rollout": {"strategy": "InPlace"}})
    pod = get_pod_spec(world, world.bring_up())
    assert pod["terminationGracePeriodSeconds"] == GRACE_SECONDS
    assert build_prestop_command(0) == ["/bin/sleep", str(PRESTOP_SECONDS)]


def test_another_drain_makes_no_revision_and_changes_no_pod() -> None:
    world, _, second = switched()
    world.wait(DRAIN_SECONDS).settle()
    before = get_pod_spec(world, second)
    world.change(rollout={"drain": "1h"})
    assert not [obj for obj in itertools.chain(*world.plan().apply) if obj["kind"] == "Deployment"]
    world.settle()
    world.expect(serves=second, runs={second: 1})
    assert get_pod_spec(world, second) == before


@asynccontextmanager
async def metrics_at(write: Callable[[], str | None]) -> AsyncIterator[int]:
    """Serve Triton's metrics; None: nothing is answered and the connection stays open."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if (text := write()) is None:
            await reader.read()
        else:
            writer.write(f"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\n{text}".encode())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


LOADED, LOADING = "0000000100004422", "0000000100000000"
"""Signals that the real tritonserver catches once it has loaded its models, and before."""


async def run_prestop(
    port: int, drain_seconds: int = 300, patience: float = 10, status: str = "/proc/1/status"
) -> float:
    """Run the hook with so much patience per answer, without the sleep at its beginning; return its seconds."""
    shell, option, script = build_prestop_command(drain_seconds)
    assert "/proc/1/status" in script
    script = (
        script.replace("/proc/1/status", status)
        .replace(str(names.PORT_TRITON_METRICS), str(port))
        .replace(f"sleep {PRESTOP_SECONDS};", "")
        .replace("-t 10 ", f"-t {patience} ")
    )
    begin = asyncio.get_running_loop().time()
    process = await asyncio.create_subprocess_exec(shell, option, script)
    assert await asyncio.wait_for(process.wait(), 120) == 0
    return asyncio.get_running_loop().time() - begin


def show(running: int, waiting: int) -> str:
    """Return metrics as Triton writes them."""
    head = "# HELP r1plus_engine_running_requests Requests in the running batch.\nnv_cpu_utilization 0.5\n"
    return f"{head}r1plus_engine_running_requests {running}\nr1plus_engine_waiting_requests {waiting}\n"


@pytest.mark.unit_slow
async def test_the_hook_waits_while_requests_run_or_wait() -> None:
    load = iter([(2, 0), (0, 1), (0, 0), (9, 9)])
    async with metrics_at(lambda: show(*next(load))) as port:
        await run_prestop(port)
    assert next(load) == (9, 9), "it has looked three times"


@pytest.mark.parametrize("text", ["", "nv_cpu_utilization 0.5\n"], ids=["nothing", "no engine"])
async def test_the_hook_does_not_wait_where_no_engine_runs(text: str) -> None:
    async with metrics_at(lambda: text) as port:
        await run_prestop(port)


def write_status(path: Path, caught: str) -> None:
    """Write what the kernel says of the container's first process."""
    path.write_text(f"Name:\ttritonserver\nSigIgn:\t0000000000001000\nSigCgt:\t{caught}\nCapInh:\t0\n")


async def test_the_hook_does_not_wait_for_a_server_that_has_ended(tmp_path: Path) -> None:
    write_status(tmp_path / "status", LOADED)
    async with metrics_at(lambda: "") as port:
        pass
    await run_prestop(port, status=str(tmp_path / "status"))
    await run_prestop(port, status=str(tmp_path / "not-there"))


@pytest.mark.unit_slow
async def test_the_hook_waits_for_a_server_that_loads_since_it_would_not_hear_sigterm(tmp_path: Path) -> None:
    status = tmp_path / "status"
    write_status(status, LOADING)
    async with metrics_at(lambda: "") as port:
        pass
    hook = asyncio.create_task(run_prestop(port, status=str(status)))
    done, _ = await asyncio.wait({hook}, timeout=2)
    assert not done, "SIGTERM would be lost"
    write_status(status, LOADED)
    await hook
    write_status(status, LOADING)
    assert await run_prestop(port, 2, status=str(status)) >= 1, "not beyond its time"


@pytest.mark.unit_slow
async def test_the_hook_does_not_wait_for_a_server_that_hangs() -> None:
    looks: list[None] = []
    async with metrics_at(lambda: looks.append(None)) as port:
        await run_prestop(port, patience=0.1)
        # Each look sends its request before its patience begins, so that all come here, however late.
        await eventually(lambda: len(looks) >= HUNG_LOOKS, "each look to be seen")
    assert len(looks) == HUNG_LOOKS


@pytest.mark.unit_slow
async def test_the_hook_ends_when_the_time_is_up() -> None:
    async with metrics_at(lambda: show(1, 0)) as port:
        assert await run_prestop(port, 2) >= 1
