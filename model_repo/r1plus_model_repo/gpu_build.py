"""How an engine is built of a checkpoint, on the GPU that will serve it: recipe, key, and the builder's command.

Called by the operator's plan, which puts `script` into the Job's container `build`; pure. An engine runs on the GPU and
the version that it was built for and on no other, so all that the outcome depends on is in the recipe, and the volume,
its `built.json` and the revision's config.pbtxt bear its key.

Where the arguments come from (read, none of them executed: no GPU has been at hand):
  trtllm-build  NVIDIA/TensorRT-LLM, tensorrt_llm/commands/build.py at 65f1d153 (1.x: the names and kinds of all
                arguments, `kv_cache_type` in either case), tensorrt_llm/plugin/plugin.py of the 1.x line
                (`gemm_plugin` takes auto, `use_paged_context_fmha` enable or disable). There is no flag for the KV
                cache's precision: the checkpoint's config.json has it (`quantization.kv_cache_quant_algo`,
                models/modeling_utils.py), and `use_fp8_context_fmha` is on wherever that applies. Nor for sliding
                windows: the runtime is told. Nor for tensor parallelism: the checkpoint is converted for it.
  trtexec       NVIDIA/TensorRT v10.14, samples/common/sampleOptions.cpp and sampleEngines.cpp: names, `name:1x2x3`,
                inputs keep the types of the ONNX file where no format is given, a name that no input has is an error.
Not verified: that the outcome loads, how long it takes and what memory; that 1.2.1 itself has the arguments of that
commit; that an optimisation profile may begin with an empty KV cache, and that the full tier's, of more than 2^31
elements at 32 x 64K, is not too large; where NVIDIA's images keep trtexec.
"""

import hashlib
import shlex
from dataclasses import dataclass
from typing import Final

from r1plus_contract.engine_fetch import BUILT_PREFIX, CHECKPOINT_FOLDER, CHECKPOINT_PART, ENGINE_FOLDER, PLAN_PART
from r1plus_contract.jsonable import dumps
from r1plus_model_repo.catalog.types import Backend

TENSORRT_LLM, TENSORRT = Backend.TENSORRT_LLM.value, Backend.TENSORRT.value
"""The backends whose engines are built."""
ONNX_FILE: Final = "model.onnx"
PLAN_FILE: Final = "model.plan"
"""Of TensorRT: what its checkpoint holds, and what Triton looks for."""
OPT_PAST: Final = 1024
"""Tokens that a request has behind it, for which TensorRT chooses its kernels: it serves all others as well."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that the outcome of a build depends on, beside the command that follows from it."""

    checkpoint: str
    """Digest of the artifact, 64 hex digits."""
    backend: str
    precision: str
    kv_precision: str
    """Of weights and KV cache: properties of the checkpoint, as the R1PlusEngine states them."""
    max_batch: int
    max_seq_len: int
    """Most requests at once, and most tokens of one, prompt and answer together."""
    max_num_tokens: int
    """Most tokens of all requests in one step."""
    gpu_product: str
    """As the node label `nvidia.com/gpu.product` says."""
    compute_capability: str
    """E.g. 8.9; empty where nobody says it."""
    runtime: str
    """Version of the backend's runtime; empty where nobody says it."""
    image: str
    """What builds, and serves."""
    tensor_parallel: int = 1
    layers: int = 0
    kv_heads: int = 0
    head_size: int = 0
    """`spec.architecture`, of which TensorRT needs the shape of every layer's KV cache; TensorRT-LLM reads its own."""

    @property
    def key(self) -> str:
        """64 hex digits. The command is part of it: whoever changes a flag has every engine built again."""
        return hashlib.sha256(dumps([self, command(self, "checkpoint", "target")]).encode()).hexdigest()

    @property
    def asked(self) -> str:
        """Likewise of what was asked for. Another image or version builds another engine, and is not asked for by that:

        whoever mirrors the image to another registry, or upgrades the operator, has nothing built and gated anew.
        """
        wish = (self.checkpoint, self.backend, self.precision, self.kv_precision, self.gpu_product)
        sizes = (self.max_batch, self.max_seq_len, self.max_num_tokens)
        return hashlib.sha256(dumps([*wish, *sizes]).encode()).hexdigest()


def command(recipe: Recipe, checkpoint: str, target: str) -> tuple[str, ...]:
    """What builds the folder `target` of the folder `checkpoint`.

    Raises:
        ValueError: the backend's engines are not built, or not with what the recipe says.
    """
    if recipe.tensor_parallel != 1:
        raise ValueError(f"spec.requirements.gpu.count: {recipe.tensor_parallel}: engines are built for one GPU")
    if recipe.backend == TENSORRT_LLM:
        return _trtllm_build(recipe, checkpoint, target)
    if recipe.backend == TENSORRT:
        return _trtexec(recipe, checkpoint, target)
    raise ValueError(f"spec.backend: {recipe.backend}: its engines are not built; {TENSORRT_LLM} and {TENSORRT} are")


def _trtllm_build(recipe: Recipe, checkpoint: str, target: str) -> tuple[str, ...]:
    """A paged KV cache, and prompts in pieces that may reuse it: what the inflight batcher needs."""
    # Its default is 1024 whatever the sequence length. One token at least is the answer's.
    longest_prompt = recipe.max_seq_len - 1
    arguments = {
        "--checkpoint_dir": checkpoint,
        "--output_dir": target,
        "--max_batch_size": recipe.max_batch,
        "--max_input_len": longest_prompt,
        "--max_seq_len": recipe.max_seq_len,
        "--max_num_tokens": _step(recipe),
        "--max_beam_width": 1,
        "--kv_cache_type": "paged",
        "--gemm_plugin": "auto",
        "--use_paged_context_fmha": "enable",
    }
    return ("trtllm-build", *(str(word) for pair in arguments.items() for word in pair))


def _step(recipe: Recipe) -> int:
    """Tokens in a step: never more than all requests have together."""
    return min(recipe.max_num_tokens, recipe.max_batch * recipe.max_seq_len)


def _trtexec(recipe: Recipe, checkpoint: str, target: str) -> tuple[str, ...]:
    """One profile, from a first token of one request to full slots, with the tensors that `config_gpu.tensorrt` names.

    The attention mask is as long as past and present together at each of its corners: TensorRT warns of others. The
    ONNX file's own inputs must be FP16 and INT64, as Optimum exports them with --dtype fp16.
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
        f"--minShapes={_shapes(recipe, 1, 1, 0)}",
        f"--optShapes={_shapes(recipe, batch, 1, min(OPT_PAST, most_past))}",
        f"--maxShapes={_shapes(recipe, batch, max(1, _step(recipe) // batch), most_past)}",
    )


def _shapes(recipe: Recipe, batch: int, tokens: int, past: int) -> str:
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
"""Run as `/bin/sh -ec`: the first command that fails ends it, and its last lines are what the pod's status shows."""


def script(recipe: Recipe, volume: str = "/volume") -> str:
    """What the container `build` runs, where `volume` is mounted: a shell's text, since no code of ours is there."""
    folder = f"{volume}/{CHECKPOINT_FOLDER}"
    checkpoint = f"{folder}/{ENGINE_FOLDER}/{CHECKPOINT_PART}"
    words = [_word(word) for word in command(recipe, checkpoint, _TARGET)]
    return _SCRIPT.format(
        checkpoint=shlex.quote(folder),
        built=shlex.quote(f"{volume}/{BUILT_PREFIX}"),
        plan=PLAN_PART,
        command=" ".join(words),
    )


_TARGET: Final = "\0"
"""Stands for the folder that only the pod knows the name of."""


def _word(word: str) -> str:
    """A word as the shell reads it, the pod's own folder in its place."""
    return f'"$built"/{PLAN_PART}'.join(shlex.quote(part) if part else "" for part in word.split(_TARGET))
