"""The weights of a Hugging Face checkpoint: its shards, a check against config.json, and their size when served.

Index: huggingface/transformers, `SAFE_WEIGHTS_INDEX_NAME`. What vLLM loads: vllm/model_executor/model_loader/
default_loader.py (all *.safetensors that the index names; with an index, other files are ignored).
`quantization_config`: transformers, utils/quantization_config.py; compressed-tensors, quant_args.py.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from r1plus_model_repo.importing.errors import WeightsError
from r1plus_model_repo.importing.folder_files import CONFIG, Values, check_links, read_json
from r1plus_model_repo.importing.huggingface.config import HfShape
from r1plus_model_repo.importing.huggingface.expected_tensors import EMBEDDINGS, check_expected_tensors
from r1plus_model_repo.importing.huggingface.safetensors_header import ELEMENT_BITS, SUFFIX, Tensor, read_tensors
from r1plus_model_repo.importing.huggingface.tokenizer_files import TOKENIZER
from r1plus_model_repo.importing.model import Claims, ImportFindings

INDEX: Final = "model.safetensors.index.json"
MISTRAL: Final = "consolidated"
"""Prefix of files with the same weights in Mistral's own format, which vLLM would load as such."""
HEAD: Final = "lm_head.weight"
MOST_SHARDS: Final = 1024
MOST_TOLD: Final = 3
FLOAT_PRECISIONS: Final = {"F16": "FP16", "BF16": "BF16", "F32": "FP32"}
SERVED_PRECISION: Final = "FP16"
SERVED_ON_CPU: Final = "FP32"
_SERVED_BYTES: Final = {SERVED_PRECISION: 2, SERVED_ON_CPU: 4}
"""Precision of served weights -> bytes of one."""
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}\.safetensors")
_LAYER = re.compile(r"model\.layers\.(\d{1,4})\.")
_AUXILIARY = re.compile(r"scal|zero|g_idx|shape|absmax|quant_map|quant_state|nested")
"""Pattern in the last part of the name of tensors that accompany a quantised weight."""


@dataclass(frozen=True, slots=True)
class ServedWeights:
    """Weights as they are served."""

    precision: str
    parameters: int
    bytes: int


def read_shards(source: Path, findings: ImportFindings) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """Return the files that hold the weights, and all their tensors. Problems are added to `findings`."""
    present = sorted(path.name for path in source.glob(f"*{SUFFIX}"))
    check_links(source, (INDEX,), findings)
    index = read_json(source, INDEX, findings).get("weight_map") if (source / INDEX).exists() else None
    if (source / INDEX).exists():
        weight_map = _read_weight_map(index, findings)
        names = sorted(set(weight_map.values()))
        if unnamed_files := sorted(set(present) - set(names)):
            findings.notes.append(f"not copied, because {INDEX} does not name them: {', '.join(unnamed_files)[:200]}")
    else:
        weight_map, names = {}, [name for name in present if not name.startswith(MISTRAL)]
        if len(names) > 1:
            reason = f"missing, and {', '.join(names)[:120]} may or may not belong to the model; get the index"
            findings.problems.append(f"{INDEX}: {reason}")
            return (), {}
        if names and not _SHARD.fullmatch(names[0]):
            findings.problems.append(
                f"{names[0]!r:.120}: is not a valid name of a {SUFFIX} file; rename it to model{SUFFIX}"
            )
            return (), {}
    tensors, file_of_tensor = _read_all(source, names, findings)
    misplaced_tensors = [
        name for name, file in weight_map.items() if file_of_tensor.get(name) != file and (source / file).is_file()
    ]
    for name in misplaced_tensors[:MOST_TOLD] if not findings.problems else ():
        findings.problems.append(f"{INDEX}: weight_map: {name!r:.120}: not in {weight_map[name]}; get the files again")
    files = (*names, *([INDEX] if weight_map else ()))
    return files, tensors


def _read_weight_map(weight_map: object, findings: ImportFindings) -> dict[str, str]:
    """Return tensor -> file from the index."""
    if not isinstance(weight_map, dict) or not weight_map:
        findings.problems.append(f"{INDEX}: weight_map: missing or not an object; get the file again")
        return {}
    for file in {str(file) for file in weight_map.values()}:
        if not _SHARD.fullmatch(file):
            findings.problems.append(
                f"{INDEX}: weight_map: {file!r:.120} is not a valid name of a {SUFFIX} file; get it again"
            )
            return {}
    if len(set(weight_map.values())) > MOST_SHARDS:
        findings.problems.append(
            f"{INDEX}: weight_map: {len(set(weight_map.values()))} files, at most {MOST_SHARDS} are read"
        )
        return {}
    return weight_map


def _read_all(source: Path, names: list[str], findings: ImportFindings) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors: dict[str, Tensor] = {}
    file_of_tensor: dict[str, str] = {}
    check_links(source, names, findings)
    for name in names:
        if not (source / name).is_file():
            findings.problems.append(f"{name}: missing, and {INDEX} names it; get the file")
            continue
        try:
            shard_tensors = read_tensors(source / name, name)
        except WeightsError as error:
            findings.problems += str(error).splitlines()
            continue
        for duplicate in sorted(tensors.keys() & shard_tensors.keys())[:1]:
            findings.problems.append(
                f"{name}: tensor {duplicate!r:.120}: is also in {file_of_tensor[duplicate]}; get the files again"
            )
        tensors |= shard_tensors
        file_of_tensor |= dict.fromkeys(shard_tensors, name)
    return tensors, file_of_tensor


def check_tensors(shape: HfShape, config: Values, tensors: Mapping[str, Tensor], findings: ImportFindings) -> None:
    """Check that the tensors have the shape of config.json: memory is sized by one, and the other is served."""
    layers = {int(match.group(1)) for name in tensors if (match := _LAYER.match(name))}
    if not layers:
        findings.notes.append(f"no tensor is named model.layers.N: layers and heads are taken from {CONFIG} unchecked")
        return
    # Layers that predict several tokens at once come after the model's own layers.
    extra_layers = config.get_int("num_nextn_predict_layers", 0, 64, 0)
    if shape.layers and layers not in (set(range(shape.layers)), set(range(shape.layers + extra_layers))):
        config.add_problem("num_hidden_layers", f"{shape.layers}, the tensors are of {len(layers)}")
    kv, all_heads = shape.kv_heads * shape.head_size, (shape.heads + 2 * shape.kv_heads) * shape.head_size
    attention_layers = 0
    for layer in range(shape.layers):
        for part, rows in (("k_proj", kv), ("qkv_proj", all_heads)):
            name = f"model.layers.{layer}.self_attn.{part}"
            attention_layers += any(f"{name}.{kind}" in tensors for kind in ("weight", "qweight", "weight_packed"))
            one = tensors.get(f"{name}.weight")
            if one is None or len(one.shape) != 2 or one.dtype in ("U8", "I32") or 0 in (kv, one.shape[0]):
                continue
            if one.shape[0] != rows:
                difference = f"{shape.kv_heads} of head_dim {shape.head_size}, {name}.weight has {one.shape[0]} rows"
                config.add_problem("num_key_value_heads", f"{difference} instead of {rows}")
                return
    if 0 < attention_layers < shape.layers:
        reason = "their memory is not sized"
        config.add_problem(
            "num_hidden_layers", f"{shape.layers - attention_layers} layers have no attention: {reason}", "take another"
        )
    elif attention_layers == 0:
        findings.notes.append(f"no layer has a k_proj or qkv_proj: its heads are taken from {CONFIG} unchecked")
    if not findings.problems:
        check_expected_tensors(shape, config, tensors, findings)


def check_vocabulary(source: Path, tensors: Mapping[str, Tensor], findings: ImportFindings) -> None:
    """Check that tokenizer.json is of a model with these embeddings. Tokens that were added later may have no row."""
    model = read_json(source, TOKENIZER, findings).get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    embeddings = tensors.get(EMBEDDINGS)
    if not isinstance(vocabulary, dict) or embeddings is None or len(embeddings.shape) != 2:
        return
    rows = embeddings.shape[0]
    for token, number in vocabulary.items():
        if type(number) is not int or not 0 <= number < rows:
            findings.problems.append(
                f"{TOKENIZER}: model: vocab: {token!r:.40} has the id {number!r:.40}, and the model has {rows} tokens;"
                " get tokenizer and weights of the same model"
            )
            return


def describe_served_weights(
    config: Values, tied: bool, tensors: Mapping[str, Tensor], claims: Claims, findings: ImportFindings, served: str
) -> ServedWeights:
    """Return the weights as served: in the precision `served`, unless they are quantised."""
    stored_tensors = {name: one for name, one in tensors.items() if not (tied and name == HEAD)}
    quantisation = config.fields.get("quantization_config")
    if quantisation is not None:
        return _describe_quantised(config.get_object("quantization_config"), stored_tensors, claims, findings)
    kinds: Counter[str] = Counter()
    for one in stored_tensors.values():
        kinds[one.dtype] += one.elements
    most = kinds.most_common(1)[0][0] if kinds else ""
    if most and most not in FLOAT_PRECISIONS:
        reason = f"most weights are {most}, and no quantization_config says how to read them"
        config.add_problem("quantization_config", f"missing: {reason}", "get the whole checkpoint")
    if most in FLOAT_PRECISIONS and FLOAT_PRECISIONS[most] != served:
        is_narrowed = most == "BF16" and served == SERVED_PRECISION
        beyond = "; numbers beyond 65504 do not fit: the gate measures the effect" if is_narrowed else ""
        findings.notes.append(f"the weights are in {FLOAT_PRECISIONS[most]} and are served in {served}{beyond}")
    parameters = sum(one.elements for one in stored_tensors.values())
    findings.check_claims(claims, parameters, served)
    # Its volume must hold the stored files, which may be larger than the weights as served.
    stored_bytes = sum(one.bytes for one in stored_tensors.values())
    return ServedWeights(served, parameters, max(_SERVED_BYTES[served] * parameters, stored_bytes))


def _describe_quantised(
    quantisation: Values, stored_tensors: Mapping[str, Tensor], claims: Claims, findings: ImportFindings
) -> ServedWeights:
    precision = _find_precision(quantisation)
    if precision is None and claims.precision is None:
        findings.problems.append(
            f"--precision: quantization_config in {CONFIG} does not have it; give it, such as INT4"
        )
    parameters = count_parameters(stored_tensors, precision or claims.precision or "")
    findings.check_claims(claims, None, precision)
    if claims.parameters is None:
        findings.notes.append(f"{parameters:,} parameters, counted from packed weights; --parameters overrides it")
    size = sum(one.bytes for one in stored_tensors.values())
    return ServedWeights(precision or claims.precision or "", claims.parameters or parameters, size)


def count_parameters(tensors: Mapping[str, Tensor], precision: str) -> int:
    """Count the parameters of quantised weights: several are packed into one number, and scales do not count."""
    bits = 4 if precision.endswith("4") else 8
    total = 0
    for name, one in tensors.items():
        if not _AUXILIARY.search(name.rpartition(".")[2]):
            is_packed = one.dtype in ("U8", "I8", "I32", "U32")
            total += one.elements * ELEMENT_BITS[one.dtype] // bits if is_packed else one.elements
    return total


def _find_precision(quantisation: Values) -> str | None:
    """Return the precision as a catalog entry names it; None unless the configuration has exactly one."""
    method, bits = quantisation.fields.get("quant_method"), quantisation.fields.get("bits")
    if method in ("fp8", "fbgemm_fp8"):
        return "FP8"
    if method in ("gptq", "awq", "auto-round") and bits in (4, 8):
        return f"INT{bits}"
    if method == "bitsandbytes":
        four, eight = (quantisation.fields.get(f"load_in_{n}bit") is True for n in (4, 8))
        return {(True, False): "INT4", (False, True): "INT8"}.get((four, eight))
    if method == "mxfp4":
        return "MXFP4"
    if method == "compressed-tensors":
        groups = quantisation.fields.get("config_groups")
        kinds = {_find_group_precision(group) for group in groups.values()} if isinstance(groups, dict) else set()
        return kinds.pop() if len(kinds) == 1 else None
    return None


def _find_group_precision(group: object) -> str | None:
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict):
        return None
    kinds = {"float 8": "FP8", "int 8": "INT8", "int 4": "INT4"}
    return kinds.get(f"{weights.get('type')} {weights.get('num_bits')}")
