"""Model repositories for tritonserver without an engine: a scripted model, and the generic one on a stand-in for vLLM."""

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy
from google.protobuf import text_format

import r1plus_contract
import r1plus_model_repo
from r1plus_contract import inference
from r1plus_model_repo.config_pbtxt import parse_config, render_config
from support.engine.server import ENGINES

GPU_BATCH, GPU_CONTEXT = 4, 600
WRONG_ADDITIONS = frozenset(f"additions-{n:03}" for n in range(3, 13))
"""Prompts that the shared scripted model answers wrongly."""
SCRIPTED = """
import json
import threading

import numpy as np
import triton_python_backend_utils as pb_utils

WRONG = {wrong!r}


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            arguments = (request, request.get_response_sender())
            threading.Thread(target=self.answer, args=arguments, daemon=True).start()
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
        if prompt == "never":
            threading.Event().wait()
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
GENERIC = """
import sys

import r1plus_contract
import r1plus_model_repo.backends.triton_model
from r1plus_model_repo.backends.triton_model import TritonPythonModel

for module in (r1plus_contract, r1plus_model_repo.backends.triton_model):
    print("Imported", module.__file__, file=sys.stderr, flush=True)
"""
STAND_INS: Final = {
    "transformers/__init__.py": '''
"""A stand-in for transformers: tokens are bytes, and 256 is the end."""


class AutoTokenizer:
    eos_token_id, pad_token_id, chat_template, added_tokens_decoder = 256, None, "a template", {}

    @classmethod
    def from_pretrained(cls, name, *, local_files_only, trust_remote_code):
        assert local_files_only and not trust_remote_code
        return cls()

    def encode(self, text, add_special_tokens):
        return list(text.encode())

    def decode(self, ids, skip_special_tokens, clean_up_tokenization_spaces):
        return bytes(i for i in ids if i < 256).decode(errors="replace")

    def apply_chat_template(self, messages, *, tokenize, add_generation_prompt):
        return "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"
''',
    "vllm/__init__.py": '''
"""A stand-in for vLLM: it says the prompt again, a token a step of a hundredth of a second."""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

# vLLM, too, reads files of its own without an encoding, and they have characters like é.
Path(__file__).read_text()
print("Imported", __file__, file=sys.stderr, flush=True)


class EngineArgs(SimpleNamespace):
    pass


class SamplingParams(SimpleNamespace):
    pass


class LLMEngine:
    @classmethod
    def from_engine_args(cls, args):
        assert not args.enable_prefix_caching
        return cls()

    def __init__(self):
        self._running = {}
        self.engine_core = SimpleNamespace(shutdown=lambda: print("Shut down", file=sys.stderr, flush=True))

    def add_request(self, request_id, prompt, params):
        ids = prompt["prompt_token_ids"]
        if bytes(ids) == b"break":
            raise RuntimeError("out of memory in a kernel")
        ids = [*ids, 256]
        self._running[request_id] = [ids[: params.max_tokens], len(ids) > params.max_tokens]

    def abort_request(self, request_ids):
        for request_id in request_ids:
            del self._running[request_id]
            print("Aborted", file=sys.stderr, flush=True)

    def step(self):
        time.sleep(0.01)
        return [self._next(request_id) for request_id in list(self._running)]

    def _next(self, request_id):
        left, cut = self._running[request_id]
        # "hold" never ends by itself.
        token, reason = left[0] if left[:4] == list(b"hold") else left.pop(0), None
        if not left:
            del self._running[request_id]
            reason = "length" if cut else "stop"
        output = SimpleNamespace(token_ids=[token], finish_reason=reason)
        return SimpleNamespace(request_id=request_id, outputs=[output])
''',
    "vllm/sampling_params.py": """
from types import SimpleNamespace

RequestOutputKind = SimpleNamespace(DELTA=1)


class StructuredOutputsParams(SimpleNamespace):
    pass
""",
    "xgrammar/__init__.py": '''
"""A stand-in for xgrammar: it reads all schemas but those with a minimum."""


class Grammar:
    @staticmethod
    def from_json_schema(schema):
        if "minimum" in schema:
            raise RuntimeError("Invalid range: minimum greater than maximum")
''',
}


def _configuration(**parameters: str) -> str:
    """Return the config.pbtxt of an engine for GPUs, but for a CPU, with other values of these parameters."""
    config = parse_config(
        render_config(ENGINES["r1plus-edge-fp16-vllm"], batch=GPU_BATCH, context=GPU_CONTEXT, kv_cache_bytes=0)
    )
    for group in config.instance_group:
        group.kind = group.KIND_CPU
    for name, value in parameters.items():
        config.parameters[name].string_value = value
    return str(text_format.MessageToString(config))


def write_model(root: Path, source: str, config: str) -> Path:
    """Write a model repository of the one model that the contract names; return it."""
    version = root / "models" / inference.MODEL_NAME / "1"
    version.mkdir(parents=True)
    (version / "model.py").write_text(source)
    (version.parent / "config.pbtxt").write_text(config)
    return root / "models"


def write_scripted_model(root: Path, wrong: Iterable[str] = ()) -> Path:
    """Write a model that is loaded in no time and answers `yes`, but for the prompts in `wrong`; return the repository."""
    return write_model(root, SCRIPTED.format(wrong=sorted(wrong)), _configuration())


def write_gpu_model(root: Path, *, stand_ins: bool = True, **parameters: str) -> Path:
    """Write a model as the init container does: our packages beside model.py, in its version; return the repository."""
    models = write_model(root, GENERIC, _configuration(**parameters))
    version = models / inference.MODEL_NAME / "1"
    contract, model_repo = (Path(str(module.__file__)).parent for module in (r1plus_contract, r1plus_model_repo))
    no_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(contract, version / "r1plus_contract", ignore=no_caches)
    shutil.copytree(model_repo / "backends", version / "r1plus_model_repo" / "backends", ignore=no_caches)
    shutil.copy(model_repo / "__init__.py", version / "r1plus_model_repo")
    for name, source in STAND_INS.items() if stand_ins else ():
        (version / name).parent.mkdir(exist_ok=True)
        (version / name).write_text(source)
    return models


def bare_python(root: Path) -> str:
    """Make a Python with numpy and nothing of ours, as in NVIDIA's images; return the path of its python3."""
    packages = root / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    packages.mkdir(parents=True)
    for installed in Path(numpy.__file__).parents[1].glob("numpy*"):
        (packages / installed.name).symlink_to(installed)
    (root / "bin").mkdir()
    python = root / "bin" / "python3"
    python.symlink_to(Path(sys.executable).resolve())
    (root / "pyvenv.cfg").write_text(f"home = {python.resolve().parent}\ninclude-system-site-packages = false\n")
    return str(python)
