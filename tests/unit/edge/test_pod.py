"""A pod as processes: where it listens, and who gets there; which pods end first."""

import asyncio
import contextlib
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
from r1plus_edge.pods.images import Images
from r1plus_edge.pods.places import LOOPBACK, short_path
from r1plus_edge.pods.pod import LocalPod, VolumeSources
from r1plus_monitoring.config import ENV_LISTEN_FD
from support.edge.foreign_listener import try_to_listen
from support.waiting import eventually

IMAGES = Images("localhost/triton@sha256:1", "localhost/monitor@sha256:2", "localhost/gateway:1", Path("/triton"))
SERVER = f"""
import http.server as h, os, socket
server = h.ThreadingHTTPServer(("127.0.0.1", 0), h.SimpleHTTPRequestHandler, bind_and_activate=False)
server.socket = socket.socket(fileno=int(os.environ["{ENV_LISTEN_FD}"]))
server.serve_forever()
"""
"""It serves at the socket that it gets."""


def template() -> dict[str, Any]:
    container = {
        "name": "web",
        "image": "localhost/web@sha256:3",
        "command": ["python3", "-c", SERVER],
        "ports": [{"name": "monitor", "containerPort": PORT_MONITOR}],
        "readinessProbe": {"httpGet": {"path": "/", "port": "monitor"}, "periodSeconds": 1, "timeoutSeconds": 5},
    }
    return {"metadata": {"labels": {}}, "spec": {"containers": [container], "volumes": []}}


async def test_at_the_end_a_pod_in_its_gate_waits_for_no_callers_and_one_that_serves_does(tmp_path: Path) -> None:
    folder, nothing = open_data_folder(tmp_path / "data"), cast(Any, None)
    controller = Controller(folder, nothing, nothing, nothing, IMAGES, nothing)
    gated = template()
    gated["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"] = "/nonesuch"
    serving, gating = (
        LocalPod(name, text, folder, IMAGES, VolumeSources(lambda _: None), lambda: None)
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
    pod = LocalPod(
        "pod", template(), open_data_folder(tmp_path / "data"), IMAGES, VolumeSources(lambda name: None), lambda: None
    )
    port, program = pod.ports[PORT_MONITOR], pod.containers[0].program
    assert program.environment[ENV_LISTEN_FD] == str(program.descriptors[0])
    assert await try_to_listen(LOOPBACK, port) == "Address already in use"
    pod.remove()

    async def is_free() -> bool:
        return await try_to_listen(LOOPBACK, port) == "it listens"

    await eventually(is_free, "the port is free")  # A test beside this one may have it for a moment.


TRITON = """
import os, signal, socket, sys
region = os.open("region", os.O_CREAT | os.O_RDWR, 0o644)
os.fchmod(region, 0o644)
listeners = []
for kind, suffix in (("http", ""), ("grpc", ":8001"), ("metrics", "")):
    (address,) = (word.partition("=")[2] for word in sys.argv if word.startswith(f"--{kind}-address="))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address.removeprefix("unix:") + suffix)
    listener.listen()
    listeners.append(listener)
signal.pause()
"""
"""It opens its sockets, and the memory for its backend's stub, as the real one does, which the stories of `make test-long NAME=edge` run."""


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


@pytest.mark.unit_slow
async def test_triton_listens_at_sockets_of_its_user_alone_after_a_kill_too(tmp_path: Path) -> None:
    folder = open_data_folder(tmp_path / ("deep" * 30))  # The kernel takes 107 bytes for a socket's path.
    pod = LocalPod("pod", triton_template(), folder, IMAGES, VolumeSources(lambda _: None), lambda: None)
    triton, sockets = pod.find_container(CONTAINER_TRITON), pod.sockets
    assert (set(sockets), pod.ports) == ({PORT_HTTP, PORT_GRPC, PORT_TRITON_METRICS}, {})

    def has_listeners() -> bool:
        return all(map(answers, sockets.values()))

    task = asyncio.create_task(run_pod(pod))
    try:
        for restarts in (0, 1):
            await eventually(has_listeners, "it listens", evidence=triton.describe_failure)
            assert triton.restarts == restarts and triton.pid is not None
            modes = {stat.filemode(path.stat().st_mode) for path in (folder.root, *sockets.values())}
            assert modes == {"drwx------", "srwx------"}
            os.kill(triton.pid, signal.SIGKILL)
            await eventually(lambda: not any(map(answers, sockets.values())), "it is gone")
    finally:
        await pod.end(1.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        pod.remove()


def answers(path: Path) -> bool:
    """Return whether a process listens at a socket."""
    with socket.socket(socket.AF_UNIX) as caller, contextlib.suppress(OSError), short_path(path) as short:
        caller.connect(short)
        return True
    return False


async def test_no_other_user_may_read_what_triton_shares_with_its_backend(tmp_path: Path) -> None:
    """Prompts and answers are in it."""
    folder = open_data_folder(tmp_path / "data")
    pod = LocalPod("pod", triton_template(), folder, IMAGES, VolumeSources(lambda _: None), lambda: None)
    triton = pod.find_container(CONTAINER_TRITON)
    task = asyncio.create_task(run_pod(pod))
    try:
        await eventually(pod.sockets[PORT_GRPC].exists, "it listens", evidence=triton.describe_failure)
        assert stat.filemode((triton.program.folder / "region").stat().st_mode) == "-rw-------"
    finally:
        await pod.end(1.0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        pod.remove()


def test_a_monitor_has_no_probe_of_its_containers_first_process(tmp_path: Path) -> None:
    """On this machine the first process is the system's."""
    pod = LocalPod(
        "pod", template(), open_data_folder(tmp_path / "data"), IMAGES, VolumeSources(lambda name: None), lambda: None
    )
    container = {"name": "web", "startupProbe": {"exec": {"command": ["true"]}}}
    places = pod.places_of(container)
    assert pod._read_startup_probe(container, places) is not None
    assert pod._read_startup_probe({**container, "name": CONTAINER_MONITOR}, places) is None
    pod.remove()
