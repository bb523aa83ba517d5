"""The build of an engine from a checkpoint, on the GPU that will serve it: recipe, key, and the builder's command.

Called by the operator's plan, which puts `render_script` into the Job's container `build`; no I/O. An engine only runs
on the GPU and the version that it was built for. So the recipe has everything that affects the outcome, and the
volume, its `built.json` and the revision's config.pbtxt carry its key.

Sources of the arguments (read, not executed: no GPU was available):
  trtllm-build  NVIDIA/TensorRT-LLM, tensorrt_llm/commands/build.py at 65f1d153 (1.x: the names and kinds of all
                arguments, `kv_cache_type` in either case), tensorrt_llm/plugin/plugin.py of the 1.x line
                (`gemm_plugin` takes auto, `use_paged_context_fmha` enable or disable). There is no flag for the KV
                cache's precision: the checkpoint's config.json has it (`quantization.kv_cache_quant_algo`,
                models/modeling_utils.py), and `use_fp8_context_fmha` is on where it applies. There is no flag for
                sliding windows, which the runtime gets, nor for tensor parallelism, for which the checkpoint is
                converted.
  trtexec       NVIDIA/TensorRT v10.14, samples/common/sampleOptions.cpp and sampleEngines.cpp: names, `name:1x2x3`,
                inputs keep the types of the ONNX file if no format is given, an unknown input name is an error.
Not verified: that the outcome loads, how long it takes and how much memory; that 1.2.1 itself has the arguments of that
commit; that an optimisation profile may begin with an empty KV cache, and that the full tier's, of more than 2^31
elements at 32 x 64K, is not too large; where NVIDIA's images have trtexec.
"""

import hashlib
import shlex
from dataclasses import dataclass
from typing import Final

from r1plus_contract.engine.engine_fetch import (
    BUILT_PREFIX,
    CHECKPOINT_FOLDER,
    CHECKPOINT_PART,
    ENGINE_FOLDER,
    PLAN_PART,
)
from r1plus_contract.jsonable import dumps
from r1plus_model_repo.catalog.types import Backend

TENSORRT_LLM, TENSORRT = Backend.TENSORRT_LLM.value, Backend.TENSORRT.value
"""Backends whose engines are built."""
ONNX_FILE: Final = "model.onnx"
PLAN_FILE: Final = "model.plan"
"""TensorRT: the file of its checkpoint, and the file that Triton loads."""
OPT_PAST: Final = 1024
"""Cached tokens of a request for which TensorRT selects its kernels; other numbers work too."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that affects the outcome of a build; the command follows from it."""

    checkpoint: str
    """Digest of the artifact, 64 hex digits."""
    backend: str
    precision: str
    kv_precision: str
    """Precision of weights and KV cache: properties of the checkpoint, from the R1PlusEngine."""
    max_batch: int
    max_seq_len: int
    """Most requests at once, and most tokens of one, prompt and answer together."""
    max_num_tokens: int
    """Most tokens of all requests in one step."""
    gpu_product: str
    """Value of the node label `nvidia.com/gpu.product`."""
    compute_capability: str
    """E.g. 8.9; empty if unknown."""
    runtime: str
    """Version of the backend's runtime; empty if unknown."""
    image: str
    """Image that builds and serves."""
    tensor_parallel: int = 1
    layers: int = 0
    kv_heads: int = 0
    head_size: int = 0
    """From `spec.architecture`: TensorRT needs the shape of each layer's KV cache; TensorRT-LLM reads its own."""

    @property
    def key(self) -> str:
        """sha256 of recipe and command, 64 hex digits. A changed flag makes every engine be built again."""
        return hashlib.sha256(dumps([self, build_command(self, "checkpoint", "target")]).encode()).hexdigest()

    @property
    def request_key(self) -> str:
        """sha256 of what the spec requests, 64 hex digits: without image and versions.

        Another image or version builds another engine but is not a new request. So mirroring the image or upgrading the
        operator neither builds nor gates again.
        """
        inputs = (self.checkpoint, self.backend, self.precision, self.kv_precision, self.gpu_product)
        sizes = (self.max_batch, self.max_seq_len, self.max_num_tokens)
        return hashlib.sha256(dumps([*inputs, *sizes]).encode()).hexdigest()


def build_command(recipe: Recipe, checkpoint: str, target: str) -> tuple[str, ...]:
    """Return the command that builds the folder `target` from the folder `checkpoint`.

    Raises:
        ValueError: the backend's engines are not built, or not with this recipe.
    """
    if recipe.tensor_parallel != 1:
        raise ValueError(f"spec.requirements.gpu.count: {recipe.tensor_parallel}: engines are built for one GPU")
    if recipe.backend == TENSORRT_LLM:
        return _build_trtllm_command(recipe, checkpoint, target)
    if recipe.backend == TENSORRT:
        return _build_trtexec_command(recipe, checkpoint, target)
    raise ValueError(
        f"spec.backend: {recipe.backend}: its engines are not built; expected {TENSORRT_LLM} or {TENSORRT}"
    )


def _build_trtllm_command(recipe: Recipe, checkpoint: str, target: str) -> tuple[str, ...]:
    """Return the command for a paged KV cache and chunked prompts that can reuse it, as the inflight batcher needs."""
    # The default is 1024 for any sequence length. At least one token is left for the answer.
    longest_prompt = recipe.max_seq_len - 1
    arguments = {
        "--checkpoint_dir": checkpoint,
        "--output_dir": target,
        "--max_batch_size": recipe.max_batch,
        "--max_input_len": longest_prompt,
        "--max_seq_len": recipe.max_seq_len,
        "--max_num_tokens": _count_step_tokens(recipe),
        "--max_beam_width": 1,
        "--kv_cache_type": "paged",
        "--gemm_plugin": "auto",
        "--use_paged_context_fmha": "enable",
    }
    return ("trtllm-build", *(str(word) for pair in arguments.items() for word in pair))


def _count_step_tokens(recipe: Recipe) -> int:
    """Return the tokens in one step: at most what all requests have together."""
    return min(recipe.max_num_tokens, recipe.max_batch * recipe.max_seq_len)


def _build_trtexec_command(recipe: Recipe, checkpoint: str, target: str) -> tuple[str, ...]:
    """Return the command with one profile, from the first token of one request to full slots.

    The tensors are those of `config_gpu.build_tensorrt_config`. The attention mask has the length of past and present
    together at each corner: TensorRT warns otherwise. The inputs of the ONNX file must be FP16 and INT64, as Optimum
    exports them with --dtype fp16.
    """
    if min(recipe.layers, recipe.kv_heads, recipe.head_size) < 1:
        raise ValueError("spec.architecture: layers, kvHeads and headSize are needed to build for TensorRT")
    batch, most_past = recipe.max_batch, recipe.max_seq_len - 1
    return (
        "trtexec",
        f"--onnx={checkpoint}/{ONNX_FILE}",
        f"--saveEngine={target}/{PLAN_FILE}",
        "--fp16",
        "--skipInference",
        f"--minShapes={_format_shapes(recipe, 1, 1, 0)}",
        f"--optShapes={_format_shapes(recipe, batch, 1, min(OPT_PAST, most_past))}",
        f"--maxShapes={_format_shapes(recipe, batch, max(1, _count_step_tokens(recipe) // batch), most_past)}",
    )


def _format_shapes(recipe: Recipe, batch: int, tokens: int, past: int) -> str:
    cache = f"{batch}x{recipe.kv_heads}x{past}x{recipe.head_size}"
    inputs = {
        "input_ids": f"{batch}x{tokens}",
        "attention_mask": f"{batch}x{past + tokens}",
        "position_ids": f"{batch}x{tokens}",
    }
    layers = (f"past_key_values.{layer}.{part}" for layer in range(recipe.layers) for part in ("key", "value"))
    inputs |= dict.fromkeys(layers, cache)
    return ",".join(f"{name}:{shape}" for name, shape in inputs.items())


_SCRIPT = """\
checkpoint={checkpoint}
if [ ! -e "$checkpoint" ]; then
  echo "There is no checkpoint to build from: the engine is on the volume already"
  exit 0
fi
# A root that nobody writes, and a user without a home; trtllm-build leaves a timing cache where it stands.
export HOME=/tmp XDG_CACHE_HOME=/tmp/cache CUDA_CACHE_PATH=/tmp/cache/cuda TRITON_CACHE_DIR=/tmp/cache/triton
export TMPDIR=/tmp TORCHINDUCTOR_CACHE_DIR=/tmp/cache/inductor PATH="$PATH:/opt/tensorrt/bin:/usr/src/tensorrt/bin"
cd /tmp
built={built}"${{HOSTNAME:-$(uname -n)}}"
rm -rf "$built"
mkdir -p "$built"/{plan}
{command}
if [ -z "$(ls -A "$built"/{plan})" ]; then
  echo "The builder left nothing" >&2
  exit 1
fi
"""
"""Run as `/bin/sh -ec`: the first failing command ends it, and the pod's status shows its last lines."""


def render_script(recipe: Recipe, volume: str = "/volume") -> str:
    """Return the shell script of the container `build`; `volume` is its mount point. The image has no code of ours."""
    folder = f"{volume}/{CHECKPOINT_FOLDER}"
    checkpoint = f"{folder}/{ENGINE_FOLDER}/{CHECKPOINT_PART}"
    words = [_quote_word(word) for word in build_command(recipe, checkpoint, _TARGET)]
    return _SCRIPT.format(
        checkpoint=shlex.quote(folder),
        built=shlex.quote(f"{volume}/{BUILT_PREFIX}"),
        plan=PLAN_PART,
        command=" ".join(words),
    )


_TARGET: Final = "\0"
"""Placeholder for the folder whose name only the pod knows."""


def _quote_word(word: str) -> str:
    """Quote a word for the shell, with the pod's own folder in place of the placeholder."""
    return f'"$built"/{PLAN_PART}'.join(shlex.quote(part) if part else "" for part in word.split(_TARGET))
