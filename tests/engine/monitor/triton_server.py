"""A real tritonserver on loopback that serves a scripted Python model under the contract's name and tensors."""

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from devcluster.images import triton

CONFIG = """
name: "r1plus"
backend: "python"
max_batch_size: 0
model_transaction_policy { decoupled: true }
input [
  { name: "text_input" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "max_new_tokens" data_type: TYPE_INT32 dims: [ 1 ] optional: true },
  { name: "temperature" data_type: TYPE_FP32 dims: [ 1 ] optional: true },
  { name: "top_p" data_type: TYPE_FP32 dims: [ 1 ] optional: true },
  { name: "repetition_penalty" data_type: TYPE_FP32 dims: [ 1 ] optional: true },
  { name: "stop" data_type: TYPE_STRING dims: [ 1 ] optional: true },
  { name: "system" data_type: TYPE_STRING dims: [ 1 ] optional: true }
]
output [
  { name: "text_output" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "finish_reason" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "prompt_tokens" data_type: TYPE_INT32 dims: [ 1 ] },
  { name: "completion_tokens" data_type: TYPE_INT32 dims: [ 1 ] }
]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""

MODEL = """
import sys
sys.path.insert(0, {site!r})
import json
import threading
import time

import numpy as np
import triton_python_backend_utils as pb_utils

WRONG = {wrong!r}


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            threading.Thread(target=self.answer, args=(request, request.get_response_sender())).start()
        return None

    def answer(self, request, sender):
        final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        prompt = self.given(request, "text_input").decode()
        if prompt == "refuse":
            error = pb_utils.TritonError("prompt has 9 tokens, more than 8")
            sender.send(pb_utils.InferenceResponse(error=error), flags=final)
            return
        if prompt == "break off":
            self.piece(sender, "half an ans", "")
            sender.send(flags=final)
            return
        if prompt == "slow":
            time.sleep(3)
        text = "no" if prompt in WRONG else "yes"
        if prompt == "what was sent":
            names = ("max_new_tokens", "temperature", "top_p", "repetition_penalty", "stop", "system")
            sent = {{name: self.given(request, name) for name in names}}
            text = json.dumps({{k: v.decode() if isinstance(v, bytes) else round(float(v), 3)
                               for k, v in sent.items() if v is not None}})
        self.piece(sender, text[:2], "")
        self.piece(sender, text[2:], "stop")
        sender.send(flags=final)

    def given(self, request, name):
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        return None if tensor is None else tensor.as_numpy()[0]

    def piece(self, sender, text, reason):
        sender.send(pb_utils.InferenceResponse([
            pb_utils.Tensor("text_output", np.array([text.encode()], dtype=object)),
            pb_utils.Tensor("finish_reason", np.array([reason.encode()], dtype=object)),
            pb_utils.Tensor("prompt_tokens", np.array([7], dtype=np.int32)),
            pb_utils.Tensor("completion_tokens", np.array([2], dtype=np.int32)),
        ]))
"""


@dataclass
class Server:
    """A running tritonserver; `http` and `grpc` are host:port."""

    http: str
    grpc: str
    process: subprocess.Popen[bytes]
    log: Path

    def end(self) -> None:
        """Ask first: a server that is killed leaves its shared memory behind."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def write_model(root: Path, wrong: set[str]) -> Path:
    """A model repository; `wrong` are prompts that get a wrong answer."""
    version = root / "models" / "r1plus" / "1"
    version.mkdir(parents=True, exist_ok=True)
    site = str(Path(np.__file__).parent.parent)
    (version / "model.py").write_text(MODEL.format(site=site, wrong=sorted(wrong)))
    (version.parent / "config.pbtxt").write_text(CONFIG)
    return root / "models"


@contextlib.contextmanager
def serving(root: Path, models: Path, http: int, grpc: int) -> Iterator[Server]:
    """Start, wait until the model is ready, and leave nothing behind."""
    installed = root / "tritonserver"
    if not installed.exists():
        triton.lay_out(triton.unpacked(), installed)
    command = [
        str(installed / "bin" / "tritonserver"),
        f"--model-repository={models}",
        f"--backend-directory={installed / 'backends'}",
        "--http-address=127.0.0.1",
        f"--http-port={http}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={grpc}",
        "--allow-metrics=false",
        "--exit-timeout-secs=2",
    ]
    environ = {"PATH": os.environ["PATH"], "HOME": str(root), "LD_LIBRARY_PATH": str(installed / "lib")}
    with (root / "triton.log").open("ab") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log, start_new_session=True)
    server = Server(f"127.0.0.1:{http}", f"127.0.0.1:{grpc}", process, root / "triton.log")
    try:
        _until_ready(server)
        yield server
    finally:
        server.end()


def _until_ready(server: Server, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    url = f"http://{server.http}/v2/models/r1plus/ready"
    while True:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(url, timeout=2):
            return
        assert server.process.poll() is None, server.log.read_text()[-3000:]
        assert time.monotonic() < deadline, server.log.read_text()[-3000:]
        time.sleep(0.1)
