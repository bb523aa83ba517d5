"""A pod as processes: its ports are others where another process took one; which pods end first."""

import asyncio
import os
import signal
import socket
import stat
from pathlib import Path
from typing import Any, cast

import pytest

from r1plus_contract.names import (
    CONTAINER_MONITOR,
    CONTAINER_TRITON,
    DIR_ENGINE,
    PORT_GRPC,
    PORT_HTTP,
    PORT_MONITOR,
    PORT_TRITON_METRICS,
)
from r1plus_edge.controller import Controller, _RunningPod, run_pod
from r1plus_edge.data_folder import open_data_folder
from r1plus_edge.images import Images
from r1plus_edge.places import LOOPBACK, has_listener
from r1plus_edge.pod import Pod, Sources
from r1plus_monitoring.config import ENV_LISTEN_FD
from support.edge.foreign_listener import try_to_listen, trying_to_listen
from support.waiting import eventually

IMAGES = Images("localhost/triton@sha256:1", "localhost/monitor@sha256:2", "localhost/gateway:1", Path("/triton"))
SERVER = (
    "import http.server as h; h.ThreadingHTTPServer(('127.0.0.1', 4444), h.SimpleHTTPRequestHandler).serve_forever()"
)
"""It serves on the port of the pod, which is another one of this machine."""


def template() -> dict[str, Any]:
    container = {
        "name": "web",
        "image": "localhost/web@sha256:3",
        "command": ["python3", "-c", SERVER.replace("4444", "int(':4444'[1:])")],
        "ports": [{"name": "http", "containerPort": 4444}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 5},
    }
    return {"metadata": {"labels": {}}, "spec": {"containers": [container], "volumes": []}}


async def test_a_pod_whose_port_was_taken_while_its_process_was_gone_gets_another(tmp_path: Path) -> None:
    pod = Pod("pod", template(), open_data_folder(tmp_path / "data"), IMAGES, Sources(lambda name: None), lambda: None)
    first = pod.ports[4444]
    with socket.create_server((LOOPBACK, first)):
        task = asyncio.create_task(run_pod(pod))
        try:
            await eventually(lambda: pod.is_ready, "it serves", evidence=lambda: str(pod.containers[0].not_ready))
            assert pod.ports[4444] != first
            assert pod.restarts == 0
        finally:
            await pod.end(1.0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_at_the_end_a_pod_in_its_gate_waits_for_no_callers_and_one_that_serves_does(tmp_path: Path) -> None:
    folder, nothing = open_data_folder(tmp_path / "data"), cast(Any, None)
    controller = Controller(folder, nothing, nothing, nothing, IMAGES, nothing)
    gated = template()
    gated["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"] = "/nonesuch"
    serving, gating = (
        Pod(name, text, folder, IMAGES, Sources(lambda _: None), lambda: None)
        for name, text in (("serving", template()), ("gating", gated))
    )
    for pod in (serving, gating):
        controller._pods[pod.name] = _RunningPod(pod, pod.name, asyncio.create_task(run_pod(pod)))
    await eventually(lambda: serving.facts.ready, "it serves", evidence=lambda: str(serving.containers[0].not_ready))
    await eventually(lambda: gating.containers[0].pid, "the other one runs")
    has_answered = asyncio.Event()

    async def answer() -> None:
        await has_answered.wait()

    end = asyncio.create_task(controller.end(5.0, asyncio.create_task(answer())))
    await eventually(lambda: controller.list_pods() == [serving], "the one in its gate has ended")
    assert (serving.is_ready, end.done()) == (True, False)
    has_answered.set()
    await end
    assert controller.list_pods() == []


async def test_no_other_user_gets_the_port_of_a_monitor_that_does_not_run_until_its_pod_is_removed(
    tmp_path: Path,
) -> None:
    text = template()
    text["spec"]["containers"][0]["ports"] = [{"name": "monitor", "containerPort": PORT_MONITOR}]
    text["spec"]["containers"][0]["readinessProbe"] = None
    pod = Pod("pod", text, open_data_folder(tmp_path / "data"), IMAGES, Sources(lambda name: None), lambda: None)
    port, program = pod.ports[PORT_MONITOR], pod.containers[0].program
    assert program.environment[ENV_LISTEN_FD] == str(program.descriptors[0])
    assert await try_to_listen(LOOPBACK, port) == "Address already in use"
    pod.choose_ports()
    assert pod.ports[PORT_MONITOR] == port
    pod.remove()
    assert await try_to_listen(LOOPBACK, port) == "it listens"


TRITON = """
import os, signal, socket, sys
region = os.open("region", os.O_CREAT | os.O_RDWR, 0o644)
os.fchmod(region, 0o644)
listeners = []
for port in (int(":8000"[1:]), int(":8001"[1:])):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, sum(f"--reuse-{name}-port=true" in sys.argv for name in ("http", "grpc")) == 2)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    listeners.append(listener)
signal.pause()
"""
"""It opens its ports, and the memory for its backend's stub, as the real one does, which the stories of `make test-edge` run."""


def triton_template() -> dict[str, Any]:
    text = template()
    (container,) = text["spec"]["containers"]
    ports = {"http": PORT_HTTP, "grpc": PORT_GRPC, "triton-metrics": PORT_TRITON_METRICS}
    container |= {
        "name": CONTAINER_TRITON,
        "command": ["python3", "-c", TRITON],
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
        "volumeMounts": [{"name": "engine", "mountPath": DIR_ENGINE}],
        "readinessProbe": None,
    }
    return {**text, "spec": {**text["spec"], "volumes": [{"name": "engine", "emptyDir": {}}]}}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user")
async def test_no_other_user_gets_the_ports_of_triton_while_it_is_gone(tmp_path: Path) -> None:
    folder = open_data_folder(tmp_path / "data")
    pod = Pod("pod", triton_template(), folder, IMAGES, Sources(lambda _: None), lambda: None)
    ports = [pod.ports[PORT_HTTP], pod.ports[PORT_GRPC]]
    triton = pod.find_container(CONTAINER_TRITON)
    with trying_to_listen(LOOPBACK, ports) as outcomes:
        task = asyncio.create_task(run_pod(pod))
        try:
            for restarts in (0, 1):
                await eventually(lambda: all(map(has_listener, ports)), "it listens", evidence=triton.describe_failure)
                assert triton.restarts == restarts and triton.pid is not None
                os.kill(triton.pid, signal.SIGKILL)
                await eventually(lambda: not any(map(has_listener, ports)), "it is gone")
            assert [pod.ports[PORT_HTTP], pod.ports[PORT_GRPC]] == ports
        finally:
            await pod.end(1.0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    assert outcomes == ["Address already in use"]
    pod.remove()
    assert [await try_to_listen(LOOPBACK, port) for port in ports] == ["it listens"] * 2


async def test_no_other_user_may_read_what_triton_shares_with_its_backend(tmp_path: Path) -> None:
    """Prompts and answers are in it."""
    folder = open_data_folder(tmp_path / "data")
    pod = Pod("pod", triton_template(), folder, IMAGES, Sources(lambda _: None), lambda: None)
    triton = pod.find_container(CONTAINER_TRITON)
    task = asyncio.create_task(run_pod(pod))
    try:
        port = pod.ports[PORT_GRPC]
        await eventually(lambda: has_listener(port), "it listens", evidence=triton.describe_failure)
        assert stat.filemode((triton.program.folder / "region").stat().st_mode) == "-rw-------"
    finally:
        await pod.end(1.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        pod.remove()


def test_a_monitor_has_no_probe_of_its_containers_first_process(tmp_path: Path) -> None:
    """On this machine the first process is the system's."""
    pod = Pod("pod", template(), open_data_folder(tmp_path / "data"), IMAGES, Sources(lambda name: None), lambda: None)
    container = {"name": "web", "startupProbe": {"exec": {"command": ["true"]}}}
    places = pod.places_of(container)
    assert pod._read_startup_probe(container, places) is not None
    assert pod._read_startup_probe({**container, "name": CONTAINER_MONITOR}, places) is None
