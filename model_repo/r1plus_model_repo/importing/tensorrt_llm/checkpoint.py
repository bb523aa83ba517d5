"""A checkpoint of TensorRT-LLM, of which a Job builds the engine, or an engine that is built already.

    DIR/checkpoint/   config.json, rank0.safetensors     what convert_checkpoint.py writes
    DIR/plan/         config.json, rank0.engine          or what trtllm-build writes
    DIR/tokenizer/    a Hugging Face tokenizer

Field names: NVIDIA/TensorRT-LLM, tensorrt_llm/models/modeling_utils.py (PretrainedConfig, QuantConfig, the name
rank0.safetensors), quantization/mode.py (QuantAlgo), builder.py (EngineConfig, BuildConfig, Engine.save).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_contract.engine_fetch import CHECKPOINT_PART, PLAN_PART, TOKENIZER_PART
from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.folder_files import CONFIG, Values, check_links, read_json
from r1plus_model_repo.importing.huggingface.config import intermediate_size
from r1plus_model_repo.importing.huggingface.safetensors_header import Tensor, read_tensors
from r1plus_model_repo.importing.huggingface.tokenizer_files import stands_alone, tokenizer_files
from r1plus_model_repo.importing.huggingface.weights import counted
from r1plus_model_repo.importing.model import TENSORRT_LLM, Claims, Findings, Model, OnGpu
from r1plus_model_repo.kv_shape import KvShape

RUNTIME: Final = "1.2.1"
"""The last version that builds and loads engines, and loads those of its own version only."""
RANK: Final = "rank0.safetensors"
ENGINE: Final = "rank0.engine"
MIXED: Final = "quant_cfg.json"
"""Beside config.json where layers differ in precision."""
MANAGED: Final = "rank0_managed_weights.safetensors"
DTYPES: Final = {"float16": "FP16", "bfloat16": "BF16"}
PRECISIONS: Final = {"MXFP4": "MXFP4", "NVFP4": "NVFP4", "W4A": "INT4", "W8A": "INT8", "INT8": "INT8", "FP8": "FP8"}
"""What `quant_algo` contains -> precision of a catalog entry; the first counts."""
KV_PRECISIONS: Final = ("FP8", "INT8")
_LAYER = re.compile(r"transformer\.layers\.(\d{1,4})\.")


@dataclass(frozen=True, slots=True)
class _Shape:
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    hidden: int
    intermediate: int

    @property
    def kv(self) -> KvShape:
        """Of the KV cache."""
        return KvShape(self.layers, self.kv_heads, self.head_size)

    @property
    def widths(self) -> tuple[int, int, int]:
        """As `OnGpu` has them: heads, hidden, intermediate."""
        return self.heads, self.hidden, self.intermediate


def read_trtllm(source: Path, claims: Claims) -> Model:
    """What the folder holds; WeightsError lists everything that is wrong or missing."""
    found = Findings()
    built = _built(source, found)
    part = f"{PLAN_PART if built else CHECKPOINT_PART}/"
    names = [part + name for name in ((CONFIG, ENGINE, MANAGED) if built else (CONFIG, RANK, MIXED))]
    check_links(source, names, found)
    found.problems += [f"{name}: missing; get the whole folder" for name in names[:2] if not (source / name).is_file()]
    found.stop(source)
    tokenizer = tokenizer_files(source, found, f"{TOKENIZER_PART}/")
    tokenizer += stands_alone(source, found, f"{TOKENIZER_PART}/")
    files = (*(name for name in names if (source / name).is_file()), *tokenizer)
    config = Values(read_json(source, part + CONFIG, found), part + CONFIG, found)
    found.stop(source)
    return (_plan if built else _checkpoint)(source, files, config, claims, found)


def _built(source: Path, found: Findings) -> bool:
    """Whether it is an engine already."""
    parts = [part for part in (CHECKPOINT_PART, PLAN_PART) if (source / part).is_dir()]
    if len(parts) == 1:
        return parts[0] == PLAN_PART
    if parts:
        found.problems.append(f"{PLAN_PART}/: there beside {CHECKPOINT_PART}/, and either would do; take one away")
        return False
    remedy = f"put what convert_checkpoint.py wrote into {CHECKPOINT_PART}/, or trtllm-build into {PLAN_PART}/"
    hint = ""
    if (source / CONFIG).is_file() and not (source / RANK).is_file():
        hint = "; a Hugging Face checkpoint is converted with TensorRT-LLM's convert_checkpoint.py first"
    tokenizer = f"and the tokenizer into {TOKENIZER_PART}/"
    found.problems.append(f"{CHECKPOINT_PART}/: missing, as is {PLAN_PART}/; {remedy}, {tokenizer}{hint}")
    return False


def _checkpoint(source: Path, files: tuple[str, ...], config: Values, claims: Claims, found: Findings) -> Model:
    shape = _shape(config)
    name = f"{CHECKPOINT_PART}/{RANK}"
    try:
        tensors = read_tensors(source / name, name)
    except WeightsError as error:
        found.problems += str(error).splitlines()
        tensors = {}
    length = config.whole("max_position_embeddings", 16, 2**30, 0) or None
    context, window, global_layers = _window(config, shape, found.context(claims.context_length, length), found)
    precision, quantised = _precision(config, claims, found)
    if tensors and not found.problems:
        _check_tensors(shape, config, tensors)
    plain = sum(one.elements for one in tensors.values())
    parameters = counted(tensors, precision) if quantised else plain
    if quantised:
        found.notes.append(f"{parameters:,} parameters, counted from packed weights; --parameters says better")
    else:
        found.agrees(claims, parameters, precision)
    gpu = OnGpu(TENSORRT_LLM, *shape.widths, window, global_layers, _kv_precision(config))
    found.stop(source)
    size = sum(one.bytes for one in tensors.values())
    known = claims.parameters or parameters
    return Model(source, files, shape.kv, context, known, precision, size, tuple(found.notes), gpu)


def _plan(source: Path, files: tuple[str, ...], config: Values, claims: Claims, found: Findings) -> Model:
    version, trained, build = config.said.get("version"), config.part("pretrained_config"), config.part("build_config")
    if version != RUNTIME:
        only = f"an engine loads in the version that built it, and {RUNTIME} is served"
        config.problem("version", f"{version!r:.40}: {only}", f"build it with TensorRT-LLM {RUNTIME}")
    shape = _shape(trained)
    most_batch = build.whole("max_batch_size", 1, 2**20)
    longest, step = build.whole("max_seq_len", 16, 2**30), build.whole("max_num_tokens", 1, 2**30)
    if build.part("plugin_config").said.get("use_paged_context_fmha") is False:
        needed = "prompts are read in pieces, which needs it"
        build.problem("plugin_config.use_paged_context_fmha", f"false: {needed}", "build it with enable")
    length = trained.whole("max_position_embeddings", 16, 2**30, 0) or longest
    asked = found.context(claims.context_length, min(length, longest), why="what it was built for")
    context, window, global_layers = _window(trained, shape, asked, found)
    precision, _ = _precision(trained, claims, found)
    if claims.parameters is None:
        found.problems.append(
            "--parameters: an engine that is built does not say it; give the number of weights, such as 12200000000"
        )
    gpu = OnGpu(TENSORRT_LLM, *shape.widths, window, global_layers, _kv_precision(trained), True, step, most_batch)
    found.stop(source)
    size = sum((source / name).stat().st_size for name in files if name.endswith((ENGINE, MANAGED)))
    return Model(source, files, shape.kv, context, claims.parameters or 0, precision, size, tuple(found.notes), gpu)


def _shape(config: Values) -> _Shape:
    """PretrainedConfig's own defaults, where a field is absent."""
    if not isinstance(config.said.get("architecture"), str):
        config.problem("architecture", "missing", "get the whole folder, as TensorRT-LLM wrote it")
    mapping = config.part("mapping")
    for key in ("world_size", "tp_size", "pp_size", "cp_size"):
        if (size := mapping.whole(key, 1, 2**16, 1)) > 1:
            mapping.problem(key, f"{size}: tensorrtllm is served on one GPU", "convert it with --tp_size 1 --pp_size 1")
    heads, hidden = config.whole("num_attention_heads", 1, 1024), config.whole("hidden_size", 1, 2**20)
    return _Shape(
        layers=config.whole("num_hidden_layers", 1, 1024),
        heads=heads,
        kv_heads=config.whole("num_key_value_heads", 1, 1024, heads),
        head_size=config.whole("head_size", 1, 1024, max(hidden // heads, 1) if heads else 1),
        hidden=hidden,
        intermediate=intermediate_size(config, hidden),
    )


def _window(config: Values, shape: _Shape, context: int, found: Findings) -> tuple[int, int | None, int | None]:
    """Context, window and global layers. The runtime is told the window of every layer (`config_gpu.tensorrt_llm`), and
    takes the last of each period for global: where that is not how the model has them, the window bounds the context.
    """
    window = config.whole("sliding_window", 1, 2**30, 0)
    if window == 0 or window >= context:
        return min(context, 2**20), None, None
    pattern = config.whole("sliding_window_pattern", 1, 2**20, 0)
    if pattern and shape.layers % pattern == 0:
        return min(context, 2**20), window, shape.layers // pattern
    found.notes.append(
        f"context length {window}, its sliding window: which layers have it cannot be told to the runtime"
    )
    return window, None, None


def _precision(config: Values, claims: Claims, found: Findings) -> tuple[str, bool]:
    """As a catalog entry calls it, and whether the weights are packed."""
    dtype, algorithm = config.said.get("dtype"), config.part("quantization").said.get("quant_algo")
    if str(dtype) not in DTYPES:
        config.problem("dtype", f"{dtype!r:.40} is none of {', '.join(DTYPES)}", "convert it with --dtype float16")
    if algorithm in (None, "NO_QUANT"):
        return DTYPES.get(str(dtype), ""), False
    named = next((name for part, name in PRECISIONS.items() if part in str(algorithm)), None)
    if named is None and claims.precision is None:
        told = f"quantization: quant_algo: {algorithm!r:.40} is not one precision"
        found.problems.append(f"--precision: {told}; give what most weights are in, such as INT4")
    if named is not None:
        found.agrees(Claims(precision=claims.precision), None, named)
    return named or claims.precision or "", True


def _kv_precision(config: Values) -> str | None:
    quantisation = config.part("quantization")
    said = quantisation.said.get("kv_cache_quant_algo")
    if said in KV_PRECISIONS:
        return str(said)
    if said is None:
        return None
    known = ", ".join(KV_PRECISIONS)
    quantisation.problem("kv_cache_quant_algo", f"{said!r:.40} is none of {known}", "convert it with one, or without")
    return None


def _check_tensors(shape: _Shape, config: Values, tensors: Mapping[str, Tensor]) -> None:
    """Do the tensors have the shape that config.json claims?"""
    layers = {int(match.group(1)) for name in tensors if (match := _LAYER.match(name))}
    if layers != set(range(shape.layers)):
        config.problem("num_hidden_layers", f"{shape.layers}, the tensors are of {len(layers)}")
    rows = (shape.heads + 2 * shape.kv_heads) * shape.head_size
    for layer in sorted(layers):
        name = f"transformer.layers.{layer}.attention.qkv.weight"
        one = tensors.get(name)
        if one is not None and one.dtype in ("F16", "BF16") and one.shape[:1] != (rows,):
            if config.part("quantization").said.get("quant_algo") is None:
                claimed = f"{shape.kv_heads} of head_size {shape.head_size}, {name} has shape {list(one.shape)}"
                config.problem("num_key_value_heads", f"{claimed} instead of {rows} rows")
            return
