"""A TensorRT-LLM checkpoint, of which a Job builds the engine, or an engine that is already built.

    DIR/checkpoint/   config.json, rank0.safetensors     written by convert_checkpoint.py
    DIR/plan/         config.json, rank0.engine          or written by trtllm-build
    DIR/tokenizer/    a Hugging Face tokenizer

Field names: NVIDIA/TensorRT-LLM, tensorrt_llm/models/modeling_utils.py (PretrainedConfig, QuantConfig, the name
rank0.safetensors), quantization/mode.py (QuantAlgo), builder.py (EngineConfig, BuildConfig, Engine.save).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_contract.engine.engine_fetch import CHECKPOINT_PART, PLAN_PART, TOKENIZER_PART
from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.folder_files import CONFIG, Values, check_links, read_json
from r1plus_model_repo.importing.huggingface.config import read_intermediate_size
from r1plus_model_repo.importing.huggingface.config_numbers import check_token_ids
from r1plus_model_repo.importing.huggingface.safetensors_header import Tensor, read_tensors
from r1plus_model_repo.importing.huggingface.tokenizer_files import check_tokenizer_without_model, list_tokenizer_files
from r1plus_model_repo.importing.huggingface.weights import count_parameters
from r1plus_model_repo.importing.model import TENSORRT_LLM, Claims, GpuDetails, ImportFindings, SourceModel
from r1plus_model_repo.kv_shape import KvShape

RUNTIME: Final = "1.2.1"
"""The last version that builds and loads engines. It only loads engines of its own version."""
RANK: Final = "rank0.safetensors"
ENGINE: Final = "rank0.engine"
MIXED_PRECISION_FILE: Final = "quant_cfg.json"
"""Next to config.json if layers differ in precision."""
MANAGED_WEIGHTS_FILE: Final = "rank0_managed_weights.safetensors"
DTYPES: Final = {"float16": "FP16", "bfloat16": "BF16"}
PRECISIONS: Final = {"MXFP4": "MXFP4", "NVFP4": "NVFP4", "W4A": "INT4", "W8A": "INT8", "INT8": "INT8", "FP8": "FP8"}
"""Part of `quant_algo` -> precision of a catalog entry; the first match counts."""
KV_PRECISIONS: Final = ("FP8", "INT8")
_LAYER = re.compile(r"transformer\.layers\.(\d{1,4})\.")


@dataclass(frozen=True, slots=True)
class _Shape:
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    hidden_size: int
    intermediate: int

    @property
    def kv(self) -> KvShape:
        """Shape of the KV cache."""
        return KvShape(self.layers, self.kv_heads, self.head_size)

    @property
    def widths(self) -> tuple[int, int, int]:
        """Heads, hidden and intermediate width, in the order of `GpuDetails`."""
        return self.heads, self.hidden_size, self.intermediate


def read_trtllm(source: Path, claims: Claims) -> SourceModel:
    """Read the model in the folder. Raise WeightsError with everything that is wrong or missing."""
    findings = ImportFindings()
    is_built = _is_built(source, findings)
    part = f"{PLAN_PART if is_built else CHECKPOINT_PART}/"
    names = [
        part + name
        for name in ((CONFIG, ENGINE, MANAGED_WEIGHTS_FILE) if is_built else (CONFIG, RANK, MIXED_PRECISION_FILE))
    ]
    check_links(source, names, findings)
    findings.problems += [
        f"{name}: missing; get the whole folder" for name in names[:2] if not (source / name).is_file()
    ]
    findings.raise_problems(source)
    tokenizer = list_tokenizer_files(source, findings, f"{TOKENIZER_PART}/")
    tokenizer += check_tokenizer_without_model(source, findings, f"{TOKENIZER_PART}/")
    files = (*(name for name in names if (source / name).is_file()), *tokenizer)
    config = Values(read_json(source, part + CONFIG, findings), part + CONFIG, findings)
    check_token_ids(source, config, findings, f"{TOKENIZER_PART}/")
    findings.raise_problems(source)
    return (_read_plan if is_built else _read_checkpoint)(source, files, config, claims, findings)


def _is_built(source: Path, findings: ImportFindings) -> bool:
    """Return whether the folder has a built engine."""
    parts = [part for part in (CHECKPOINT_PART, PLAN_PART) if (source / part).is_dir()]
    if len(parts) == 1:
        return parts[0] == PLAN_PART
    if parts:
        findings.problems.append(f"{PLAN_PART}/: present together with {CHECKPOINT_PART}/; remove one of them")
        return False
    remedy = (
        f"put the output of convert_checkpoint.py into {CHECKPOINT_PART}/, or that of trtllm-build into {PLAN_PART}/"
    )
    hint = ""
    if (source / CONFIG).is_file() and not (source / RANK).is_file():
        hint = "; a Hugging Face checkpoint is converted with TensorRT-LLM's convert_checkpoint.py first"
    tokenizer = f"and the tokenizer into {TOKENIZER_PART}/"
    findings.problems.append(f"{CHECKPOINT_PART}/: missing, as is {PLAN_PART}/; {remedy}, {tokenizer}{hint}")
    return False


def _read_checkpoint(
    source: Path, files: tuple[str, ...], config: Values, claims: Claims, findings: ImportFindings
) -> SourceModel:
    shape = _read_shape(config)
    name = f"{CHECKPOINT_PART}/{RANK}"
    try:
        tensors = read_tensors(source / name, name)
    except WeightsError as error:
        findings.problems += str(error).splitlines()
        tensors = {}
    length = config.get_int("max_position_embeddings", 16, 2**30, 0) or None
    context, window, global_layers = _read_window(
        config, shape, findings.choose_context(claims.context_length, length), findings
    )
    precision, is_quantised = _read_precision(config, claims, findings)
    if tensors and not findings.problems:
        _check_tensors(shape, config, tensors)
    element_count = sum(one.elements for one in tensors.values())
    parameters = count_parameters(tensors, precision) if is_quantised else element_count
    if is_quantised:
        findings.notes.append(f"{parameters:,} parameters, counted from packed weights; --parameters overrides it")
    else:
        findings.check_claims(claims, parameters, precision)
    gpu = GpuDetails(TENSORRT_LLM, *shape.widths, window, global_layers, _read_kv_precision(config))
    findings.raise_problems(source)
    size = sum(one.bytes for one in tensors.values())
    parameter_count = claims.parameters or parameters
    return SourceModel(source, files, shape.kv, context, parameter_count, precision, size, tuple(findings.notes), gpu)


def _read_plan(
    source: Path, files: tuple[str, ...], config: Values, claims: Claims, findings: ImportFindings
) -> SourceModel:
    version, pretrained_config, build = (
        config.fields.get("version"),
        config.get_object("pretrained_config"),
        config.get_object("build_config"),
    )
    if version != RUNTIME:
        only = f"an engine only loads in the version that built it, and {RUNTIME} is served"
        config.add_problem("version", f"{version!r:.40}: {only}", f"build it with TensorRT-LLM {RUNTIME}")
    shape = _read_shape(pretrained_config)
    most_batch = build.get_int("max_batch_size", 1, 2**20)
    max_seq_len, step = build.get_int("max_seq_len", 16, 2**30), build.get_int("max_num_tokens", 1, 2**30)
    if build.get_object("plugin_config").fields.get("use_paged_context_fmha") is False:
        reason = "reading prompts in chunks needs it"
        build.add_problem("plugin_config.use_paged_context_fmha", f"false: {reason}", "build it with enable")
    length = pretrained_config.get_int("max_position_embeddings", 16, 2**30, 0) or max_seq_len
    requested_context = findings.choose_context(
        claims.context_length, min(length, max_seq_len), reason="what it was built for"
    )
    context, window, global_layers = _read_window(pretrained_config, shape, requested_context, findings)
    precision, _ = _read_precision(pretrained_config, claims, findings)
    if claims.parameters is None:
        findings.problems.append(
            "--parameters: a built engine does not have it; give the number of weights, such as 12200000000"
        )
    gpu = GpuDetails(
        TENSORRT_LLM,
        *shape.widths,
        window,
        global_layers,
        _read_kv_precision(pretrained_config),
        True,
        step,
        most_batch,
    )
    findings.raise_problems(source)
    size = sum((source / name).stat().st_size for name in files if name.endswith((ENGINE, MANAGED_WEIGHTS_FILE)))
    return SourceModel(
        source, files, shape.kv, context, claims.parameters or 0, precision, size, tuple(findings.notes), gpu
    )


def _read_shape(config: Values) -> _Shape:
    """Return the shape, with the defaults of PretrainedConfig for missing fields."""
    if not isinstance(config.fields.get("architecture"), str):
        config.add_problem("architecture", "missing", "get the whole folder, as TensorRT-LLM wrote it")
    mapping = config.get_object("mapping")
    for key in ("world_size", "tp_size", "pp_size", "cp_size"):
        if (size := mapping.get_int(key, 1, 2**16, 1)) > 1:
            mapping.add_problem(
                key, f"{size}: tensorrtllm is served on one GPU", "convert it with --tp_size 1 --pp_size 1"
            )
    heads, hidden_size = config.get_int("num_attention_heads", 1, 1024), config.get_int("hidden_size", 1, 2**20)
    return _Shape(
        layers=config.get_int("num_hidden_layers", 1, 1024),
        heads=heads,
        kv_heads=config.get_int("num_key_value_heads", 1, 1024, heads),
        head_size=config.get_int("head_size", 1, 1024, max(hidden_size // heads, 1) if heads else 1),
        hidden_size=hidden_size,
        intermediate=read_intermediate_size(config, hidden_size),
    )


def _read_window(
    config: Values, shape: _Shape, context: int, findings: ImportFindings
) -> tuple[int, int | None, int | None]:
    """Return context, window and number of global layers.

    The runtime gets the window of every layer (`config_gpu.tensorrt_llm`), with the last of each period global. If the
    model has another order, the window limits the context.
    """
    window = config.get_int("sliding_window", 1, 2**30, 0)
    if window == 0 or window >= context:
        return min(context, 2**20), None, None
    pattern = config.get_int("sliding_window_pattern", 1, 2**20, 0)
    if pattern and shape.layers % pattern == 0:
        return min(context, 2**20), window, shape.layers // pattern
    findings.notes.append(
        f"context length {window}, its sliding window: the runtime cannot be told which layers have it"
    )
    return window, None, None


def _read_precision(config: Values, claims: Claims, findings: ImportFindings) -> tuple[str, bool]:
    """Return the precision as a catalog entry names it, and whether the weights are packed."""
    dtype, algorithm = config.fields.get("dtype"), config.get_object("quantization").fields.get("quant_algo")
    if str(dtype) not in DTYPES:
        config.add_problem(
            "dtype", f"{dtype!r:.40} is not one of {', '.join(DTYPES)}", "convert it with --dtype float16"
        )
    if algorithm in (None, "NO_QUANT"):
        return DTYPES.get(str(dtype), ""), False
    precision = next((name for part, name in PRECISIONS.items() if part in str(algorithm)), None)
    if precision is None and claims.precision is None:
        description = f"quantization: quant_algo: {algorithm!r:.40} does not name one precision"
        findings.problems.append(f"--precision: {description}; give what most weights are in, such as INT4")
    if precision is not None:
        findings.check_claims(Claims(precision=claims.precision), None, precision)
    return precision or claims.precision or "", True


def _read_kv_precision(config: Values) -> str | None:
    quantisation = config.get_object("quantization")
    algorithm = quantisation.fields.get("kv_cache_quant_algo")
    if algorithm in KV_PRECISIONS:
        return str(algorithm)
    if algorithm is None:
        return None
    choices = ", ".join(KV_PRECISIONS)
    quantisation.add_problem(
        "kv_cache_quant_algo", f"{algorithm!r:.40} is not one of {choices}", "convert it with one, or without"
    )
    return None


def _check_tensors(shape: _Shape, config: Values, tensors: Mapping[str, Tensor]) -> None:
    """Check that the tensors have the shape of config.json."""
    layers = {int(match.group(1)) for name in tensors if (match := _LAYER.match(name))}
    if layers != set(range(shape.layers)):
        config.add_problem("num_hidden_layers", f"{shape.layers}, the tensors are of {len(layers)}")
    rows = (shape.heads + 2 * shape.kv_heads) * shape.head_size
    for layer in sorted(layers):
        name = f"transformer.layers.{layer}.attention.qkv.weight"
        one = tensors.get(name)
        if one is not None and one.dtype in ("F16", "BF16") and one.shape[:1] != (rows,):
            if config.get_object("quantization").fields.get("quant_algo") is None:
                difference = f"{shape.kv_heads} of head_size {shape.head_size}, {name} has shape {list(one.shape)}"
                config.add_problem("num_key_value_heads", f"{difference} instead of {rows} rows")
            return
