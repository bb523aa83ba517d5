"""What whoever is let in by the walls can call of a serving pod's Triton, and what not.

Each refusal has its control: a tritonserver of the same build that is started without what shuts the door answers.
"""

import json
import re
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

from r1plus_cli.deployment import stream
from r1plus_contract import inference
from r1plus_contract.suites.suite import SuiteSampling
from r1plus_monitoring.probe.client import TritonEngine
from r1plus_operator.plan.podspec.triton_args import KEY, RESTRICTED_APIS
from support.engine.server import Server, serving
from support.waiting import eventually, wait_until

pytestmark = [pytest.mark.triton, pytest.mark.timeout(1500), pytest.mark.first_run_counts]

MODEL = inference.MODEL_NAME
LOAD, UNLOAD = f"/v2/repository/models/{MODEL}/load", f"/v2/repository/models/{MODEL}/unload"
REGION = "r1plus-guarded-test"
"""A file in /dev/shm, as the Python backend has one per process."""
RESTRICTION = "is restricted, expecting header"
Call = tuple[str, str, str]
"""Method, path, body."""


@pytest.fixture(scope="module")
def other_server(
    tmp_path_factory: pytest.TempPathFactory, installed: Path, scripted: Path, for_vertex_ai: dict[str, str]
) -> Iterator[Server]:
    """Another that is started as in a pod, in an image that says otherwise."""
    with serving(Server(tmp_path_factory.mktemp("other"), installed, scripted, environ=for_vertex_ai)) as running:
        yield running


@pytest.fixture(scope="module")
def region() -> Iterator[int]:
    """Shared memory of somebody else's, so many bytes."""
    path = Path("/dev/shm") / REGION
    path.write_bytes(b"secret".ljust(64))
    yield 64
    path.unlink()


def http(server: Server, call: Call, headers: dict[str, str] | None = None) -> tuple[int, str]:
    """Code and body of the answer."""
    method, path, body = call
    request = urllib.request.Request(f"http://{server.http}{path}", body.encode() or None, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


SHUT: dict[str, Call] = {
    "what the server is": ("GET", "/v2", ""),
    "what the model is": ("GET", f"/v2/models/{MODEL}", ""),
    "what a version of it is": ("GET", f"/v2/models/{MODEL}/versions/1", ""),
    "how the model is configured": ("GET", f"/v2/models/{MODEL}/config", ""),
    "how many have asked": ("GET", f"/v2/models/{MODEL}/stats", ""),
    "how many have asked any model": ("GET", "/v2/models/stats", ""),
    "which models there are": ("POST", "/v2/repository/index", ""),
    "load": ("POST", LOAD, ""),
    "load code": ("POST", LOAD, json.dumps({"parameters": {"file:1/model.py": "cGFzcw=="}})),
    "unload": ("POST", UNLOAD, ""),
    "what is logged": ("GET", "/v2/logging", ""),
    "log every request": ("POST", "/v2/logging", '{"log_verbose_level": 4}'),
    "what is traced": ("GET", "/v2/trace/setting", ""),
    "trace tensors": ("POST", "/v2/trace/setting", '{"trace_level": ["TENSORS"]}'),
    "trace the model": ("POST", f"/v2/models/{MODEL}/trace/setting", '{"trace_rate": "1"}'),
    "which memory is shared": ("GET", "/v2/systemsharedmemory/status", ""),
    "share memory": (
        "POST",
        f"/v2/systemsharedmemory/region/{REGION}/register",
        json.dumps({"key": f"/{REGION}", "offset": 0, "byte_size": 64}),
    ),
    "share no memory": ("POST", "/v2/systemsharedmemory/unregister", ""),
    "which memory of a GPU is shared": ("GET", "/v2/cudasharedmemory/status", ""),
    "share memory of a GPU": (
        "POST",
        "/v2/cudasharedmemory/region/a/register",
        json.dumps({"raw_handle": {"b64": "AA=="}, "device_id": 0, "byte_size": 8}),
    ),
    "share no memory of a GPU": ("POST", "/v2/cudasharedmemory/unregister", ""),
}


@pytest.mark.parametrize("what", SHUT)
@pytest.mark.usefixtures("region")
def test_over_http_it_is_shut(server: Server, open_server: Server, what: str) -> None:
    call = SHUT[what]
    if what != "load code":
        code, said = http(open_server, call)
        assert (code, RESTRICTION in said) != (403, True)
    code, said = http(server, call)
    assert (code, RESTRICTION in said) == (403, True)


@pytest.mark.parametrize("what", ["load", "share memory", "log every request", "which models there are"])
@pytest.mark.usefixtures("region")
def test_the_control_does_what_it_is_asked_to(open_server: Server, what: str) -> None:
    http(open_server, ("POST", "/v2/systemsharedmemory/unregister", ""))
    assert http(open_server, SHUT[what])[0] == 200
    open_server.until_ready()


@pytest.mark.parametrize(
    "written",
    [
        "/v2/logging?a=b",
        "//v2/logging",
        "/v2//logging",
        "/v2/logging/",
        "/v2/%6cogging",
        "/v2/./logging",
        "/v2/models/../logging",
        "/v2/logging%00",
        "http://localhost/v2/logging",
        f"/v2/models/{MODEL}/infer/../config",
        f"/v2/models/{MODEL}/versions/1/config",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "HEAD", "OPTIONS"])
def test_however_it_is_written(server: Server, method: str, written: str) -> None:
    """Sent as it stands: a client library would tidy it up."""
    host, _, port = server.http.rpartition(":")
    with socket.create_connection((host, int(port)), 120) as one:
        one.sendall(
            f"{method} {written} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        status = one.makefile("rb").readline().split()[1]
    assert status in {b"403", b"404"}


def given(server: Server) -> str:
    """The key, as it stands in the process's own arguments: who can read them is in the container already."""
    words = Path(f"/proc/{server.process.pid}/cmdline").read_text().split("\0")
    (word,) = (word for word in words if word.startswith("--http-restricted-api="))
    return word.rpartition("=")[2]


def test_the_key_opens_and_stands_in_no_log(server: Server) -> None:
    key = given(server)
    assert re.fullmatch("[0-9a-f]{64}", key)
    assert http(server, SHUT["what is logged"], {KEY: key})[0] == 200
    assert http(server, SHUT["what is logged"], {KEY: key[:-1]})[0] == 403
    assert http(server, SHUT["what is logged"], {KEY: ""})[0] == 403
    assert key not in server.log.read_text()


def test_models_are_not_loaded_by_whoever_has_the_key(server: Server) -> None:
    """The second wall of two; the control loads without it."""
    for path in (LOAD, UNLOAD):
        code, said = http(server, ("POST", path, ""), {KEY: given(server)})
        assert (code, "explicit model load / unload is not allowed" in said) == (503, True)


RPCS = {m.name: m for m in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
OPEN_RPCS = {"ServerLive", "ServerReady", "ModelReady", "ModelInfer", "ModelStreamInfer"}


def rpc(server: Server, name: str, metadata: tuple[tuple[str, str], ...] = ()) -> str:
    """What the server says to an empty request."""
    with grpc.insecure_channel(server.grpc) as channel:
        call = getattr(service_pb2_grpc.GRPCInferenceServiceStub(channel), name)
        request = getattr(service_pb2, RPCS[name].input_type.name)()
        try:
            call(request, timeout=120, metadata=metadata)
        except grpc.RpcError as error:
            return str(error.details())
    return ""


@pytest.mark.parametrize("name", sorted(RPCS.keys() - OPEN_RPCS))
def test_over_grpc_it_is_shut(server: Server, open_server: Server, name: str) -> None:
    """Every call of the protocol's definition, so that one which a new version brings is not overlooked."""
    assert RESTRICTION not in rpc(open_server, name)
    assert RESTRICTION in rpc(server, name)


def test_over_grpc_the_key_opens(server: Server) -> None:
    header = f"triton-grpc-protocol-{KEY}"
    assert rpc(server, "ServerMetadata", ((header, given(server)),)) == ""
    assert RESTRICTION in rpc(server, "ServerMetadata", ((header, "0" * 64),))


def input_in_shared_memory() -> Any:
    question = triton.InferInput(inference.PROMPT, [1], "BYTES")
    question.set_shared_memory(REGION, 16)
    return question


def test_a_question_in_shared_memory_is_refused(server: Server) -> None:
    """Nobody could have registered it."""
    answers: list[Any] = []
    with triton.InferenceServerClient(server.grpc) as client:
        client.start_stream(callback=lambda result, error: answers.append((result, error)))
        client.async_stream_infer(MODEL, inputs=[input_in_shared_memory()])
        client.stop_stream()
    ((_, error),) = answers
    assert "Unable to find" in str(error)


def test_what_is_left_open(server: Server) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", f"/v2/models/{MODEL}/ready"):
        assert http(server, ("GET", path, ""))[0] == 200
    assert "r1plus_engine_tokens_total" in (server.get("/metrics", metrics=True) or "")
    body = json.dumps({"text_input": "Hello", "max_new_tokens": 4})
    code, said = http(server, ("POST", f"/v2/models/{MODEL}/generate_stream", body))
    assert (code, "text_output" in said) == (200, True)
    with triton.InferenceServerClient(server.grpc) as client:
        assert (client.is_server_live(), client.is_server_ready(), client.is_model_ready(MODEL)) == (True, True, True)


async def test_the_monitor_asks(server: Server) -> None:
    engine = TritonEngine(server.http, server.grpc, 600.0, server.metrics)

    async def has_no_queue() -> bool:
        return await engine.count_waiting_requests() == 0

    try:
        assert await engine.is_model_ready()
        await eventually(has_no_queue, "the server says within a second that nobody waits")
        reply = await engine.ask("What is the capital of France?", SuiteSampling(max_new_tokens=24))
        assert (reply.failure, "Paris" in reply.text) == (None, True)
    finally:
        await engine.close()


def test_the_command_line_asks(server: Server) -> None:
    answer = stream.ask(server.grpc, stream.Question("What is the capital of France?"))
    assert ("Paris" in answer.text, answer.finish_reason) == (True, "stop")


def listening(pid: int) -> set[int]:
    """TCP ports on which the process listens."""
    held = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()}
    rows = [
        row.split()
        for family in ("tcp", "tcp6")
        for row in Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]
    ]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in held}


def test_it_listens_on_three_ports_whatever_the_images_environment_says(other_server: Server) -> None:
    own = {int(address.rpartition(":")[2]) for address in (other_server.http, other_server.grpc, other_server.metrics)}
    # The port of the metrics opens last, after those that say that the server is ready.
    wait_until(lambda: own <= listening(other_server.process.pid), "its three ports are open")
    assert listening(other_server.process.pid) == own


def test_the_control_listens_where_the_images_environment_says(open_server: Server, vertex_ai_port: int) -> None:
    wait_until(lambda: vertex_ai_port in listening(open_server.process.pid), "it listens on the port of Vertex AI")


def test_two_servers_have_two_keys(other_server: Server, server: Server) -> None:
    assert given(other_server) != given(server)


@pytest.mark.parametrize("protocol", ["APIs", "protocols"])
def test_every_api_of_this_server_is_open_or_shut_by_name(installed: Path, protocol: str) -> None:
    """As its help lists them; what a new version brings would be open."""
    environ = {"LD_LIBRARY_PATH": str(installed / "lib")}
    ran = subprocess.run([installed / "bin" / "tritonserver", "--help"], env=environ, capture_output=True, text=True)
    said = " ".join((ran.stdout + ran.stderr).split())
    (listed,) = re.findall(rf"Allowed {protocol}: ([a-z, -]+[a-z])(?= |$)", said)
    assert {"health", "inference", *RESTRICTED_APIS} == set(listed.split(", "))
