"""A server that speaks Triton's streaming protocol and answers as a test says: for the command line's real client."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

Answers = Callable[[str, int], str]
"""(prompt, requests in flight) -> the answer."""


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Counts what runs at once, and remembers how it was asked."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._lock = threading.Lock()
        self._running = 0
        self.prompts: list[str] = []
        self.most_running = 0
        self.stops: set[str] = set()

    def ModelStreamInfer(  # noqa: N802 - the protocol's name
        self, requests: Iterator[pb.ModelInferRequest], _: grpc.ServicerContext
    ) -> Iterator[pb.ModelStreamInferResponse]:
        for request in requests:
            given = {tensor.name: raw for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)}
            prompt = given["text_input"][4:].decode()
            with self._lock:
                self._running += 1
                self.most_running = max(self.most_running, self._running)
                self.prompts.append(prompt)
                self.stops.update(json.loads(given["stop"][4:]) if "stop" in given else ())
                beside = self._running
            yield _response(self._answers(prompt, beside))
            with self._lock:
                self._running -= 1


def _response(text: str) -> pb.ModelStreamInferResponse:
    inner = pb.ModelInferResponse(model_name="r1plus")
    for name, value in (("text_output", text), ("finish_reason", "stop")):
        inner.outputs.add(name=name, datatype="BYTES", shape=[1])
        data = value.encode()
        inner.raw_output_contents.append(len(data).to_bytes(4, "little") + data)
    for name in ("prompt_tokens", "completion_tokens"):
        inner.outputs.add(name=name, datatype="INT32", shape=[1])
        inner.raw_output_contents.append((3).to_bytes(4, "little"))
    return pb.ModelStreamInferResponse(infer_response=inner)


@contextlib.contextmanager
def serving(answers: Answers) -> Iterator[tuple[FakeTriton, str]]:
    """The server, and `HTTP,GRPC` as `--served` takes them; nobody listens at HTTP, since answers come over gRPC."""
    fake = FakeTriton(answers)
    server = grpc.server(ThreadPoolExecutor(max_workers=32))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield fake, f"127.0.0.1:1,127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()
