"""The weights of a Hugging Face checkpoint: its shards, whether its tensors are those that config.json claims, and what
they are once served.

Index: huggingface/transformers, `SAFE_WEIGHTS_INDEX_NAME`. What vLLM loads: vllm/model_executor/model_loader/
default_loader.py (all *.safetensors that the index names; where it stands, other files are passed over).
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
from r1plus_model_repo.importing.huggingface.safetensors_header import ELEMENT_BITS, SUFFIX, Tensor, read_tensors
from r1plus_model_repo.importing.model import Claims, Findings

INDEX: Final = "model.safetensors.index.json"
MISTRAL: Final = "consolidated"
"""Files whose names begin so are the same weights in Mistral's own format; vLLM would load them as such."""
HEAD: Final = "lm_head.weight"
MOST_SHARDS: Final = 1024
MOST_TOLD: Final = 3
FLOATING: Final = {"F16": "FP16", "BF16": "BF16", "F32": "FP32"}
SERVED: Final = "FP16"
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}\.safetensors")
_LAYER = re.compile(r"model\.layers\.(\d{1,4})\.")
_BESIDE = re.compile(r"scal|zero|g_idx|shape|absmax|quant_map|quant_state|nested")
"""In the last part of the name of what a quantised weight has beside it."""


@dataclass(frozen=True, slots=True)
class Served:
    """Weights as they are served."""

    precision: str
    parameters: int
    bytes: int


def read_shards(source: Path, found: Findings) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """The files that hold the weights, and all their tensors; what is wrong goes to `found`."""
    there = sorted(path.name for path in source.glob(f"*{SUFFIX}"))
    check_links(source, (INDEX,), found)
    index = read_json(source, INDEX, found).get("weight_map") if (source / INDEX).exists() else None
    if (source / INDEX).exists():
        placed = _placed(index, found)
        names = sorted(set(placed.values()))
        if left := sorted(set(there) - set(names)):
            found.notes.append(f"left out, since {INDEX} does not name them: {', '.join(left)[:200]}")
    else:
        placed, names = {}, [name for name in there if not name.startswith(MISTRAL)]
        if len(names) > 1:
            told = f"missing, and {', '.join(names)[:120]} may be the model's or not; get it"
            found.problems.append(f"{INDEX}: {told}")
            return (), {}
        if names and not _SHARD.fullmatch(names[0]):
            found.problems.append(f"{names[0]!r:.120}: is no name of a {SUFFIX} file; call it model{SUFFIX}")
            return (), {}
    tensors, homes = _read_all(source, names, found)
    strays = [name for name, file in placed.items() if homes.get(name) != file and (source / file).is_file()]
    for name in strays[:MOST_TOLD] if not found.problems else ():
        found.problems.append(f"{INDEX}: weight_map: {name!r:.120}: not in {placed[name]}; get the files again")
    files = (*names, *([INDEX] if placed else ()))
    return files, tensors


def _placed(said: object, found: Findings) -> dict[str, str]:
    """Tensor -> file, as the index says."""
    if not isinstance(said, dict) or not said:
        found.problems.append(f"{INDEX}: weight_map: missing or no object; get the file again")
        return {}
    for file in {str(file) for file in said.values()}:
        if not _SHARD.fullmatch(file):
            found.problems.append(f"{INDEX}: weight_map: {file!r:.120} is no name of a {SUFFIX} file; get it again")
            return {}
    if len(set(said.values())) > MOST_SHARDS:
        found.problems.append(f"{INDEX}: weight_map: {len(set(said.values()))} files, at most {MOST_SHARDS} are read")
        return {}
    return said


def _read_all(source: Path, names: list[str], found: Findings) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors: dict[str, Tensor] = {}
    homes: dict[str, str] = {}
    check_links(source, names, found)
    for name in names:
        if not (source / name).is_file():
            found.problems.append(f"{name}: missing, and {INDEX} names it; get the file")
            continue
        try:
            read = read_tensors(source / name, name)
        except WeightsError as error:
            found.problems += str(error).splitlines()
            continue
        for twice in sorted(tensors.keys() & read.keys())[:1]:
            found.problems.append(f"{name}: tensor {twice!r:.120}: is in {homes[twice]}, too; get the files again")
        tensors |= read
        homes |= dict.fromkeys(read, name)
    return tensors, homes


def check_tensors(shape: HfShape, config: Values, tensors: Mapping[str, Tensor], found: Findings) -> None:
    """Do the tensors have the shape that config.json claims? Whoever sizes memory by the one serves the other."""
    layers = {int(match.group(1)) for name in tensors if (match := _LAYER.match(name))}
    if not layers:
        found.notes.append(f"no tensor is named model.layers.N: layers and heads are taken from {CONFIG} on its word")
        return
    # Layers that predict several tokens at once follow the model's own; no other model has them.
    further = config.whole("num_nextn_predict_layers", 0, 64, 0)
    if shape.layers and layers not in (set(range(shape.layers)), set(range(shape.layers + further))):
        config.problem("num_hidden_layers", f"{shape.layers}, the tensors are of {len(layers)}")
    kv, all_heads = shape.kv_heads * shape.head_size, (shape.heads + 2 * shape.kv_heads) * shape.head_size
    known = 0
    for layer in range(shape.layers):
        for part, rows in (("k_proj", kv), ("qkv_proj", all_heads)):
            name = f"model.layers.{layer}.self_attn.{part}"
            known += any(f"{name}.{kind}" in tensors for kind in ("weight", "qweight", "weight_packed"))
            one = tensors.get(f"{name}.weight")
            if one is None or len(one.shape) != 2 or one.dtype in ("U8", "I32") or 0 in (kv, one.shape[0]):
                continue
            if one.shape[0] != rows:
                claimed = f"{shape.kv_heads} of head_dim {shape.head_size}, {name}.weight has {one.shape[0]} rows"
                config.problem("num_key_value_heads", f"{claimed} instead of {rows}")
                return
    if 0 < known < shape.layers:
        kinds = "their memory is not sized"
        config.problem("num_hidden_layers", f"{shape.layers - known} layers have no attention: {kinds}", "take another")
    elif known == 0:
        found.notes.append(f"no layer has a k_proj or qkv_proj: its heads are taken from {CONFIG} on its word")


def served(config: Values, tied: bool, tensors: Mapping[str, Tensor], claims: Claims, found: Findings) -> Served:
    """What becomes of the weights: float16, unless they are quantised."""
    own = {name: one for name, one in tensors.items() if not (tied and name == HEAD)}
    quantised = config.said.get("quantization_config")
    if quantised is not None:
        return _quantised(config.part("quantization_config"), own, claims, found)
    kinds: Counter[str] = Counter()
    for one in own.values():
        kinds[one.dtype] += one.elements
    most = kinds.most_common(1)[0][0] if kinds else ""
    if most and most not in FLOATING:
        told = f"most weights are {most}, and no quantization_config says how to read them"
        config.problem("quantization_config", f"missing: {told}", "get the whole checkpoint")
    if most in FLOATING and FLOATING[most] != SERVED:
        beyond = "; numbers beyond 65504 do not fit it: the gate will tell" if most == "BF16" else ""
        found.notes.append(f"the weights are in {FLOATING[most]} and are served in {SERVED}{beyond}")
    parameters = sum(one.elements for one in own.values())
    found.agrees(claims, parameters, SERVED)
    # The volume that it comes by is made for as much, so what is stored in more than it is served in counts as stored.
    return Served(SERVED, parameters, max(2 * parameters, sum(one.bytes for one in own.values())))


def _quantised(said: Values, own: Mapping[str, Tensor], claims: Claims, found: Findings) -> Served:
    precision = _plain_precision(said)
    if precision is None and claims.precision is None:
        found.problems.append(
            f"--precision: {CONFIG}'s quantization_config does not say it plainly; give it, such as INT4"
        )
    parameters = counted(own, precision or claims.precision or "")
    found.agrees(claims, None, precision)
    if claims.parameters is None:
        found.notes.append(f"{parameters:,} parameters, counted from packed weights; --parameters says better")
    size = sum(one.bytes for one in own.values())
    return Served(precision or claims.precision or "", claims.parameters or parameters, size)


def counted(tensors: Mapping[str, Tensor], precision: str) -> int:
    """Parameters of quantised weights: several are packed into one whole number, and scales beside them are none."""
    bits = 4 if precision.endswith("4") else 8
    total = 0
    for name, one in tensors.items():
        if not _BESIDE.search(name.rpartition(".")[2]):
            packed = one.dtype in ("U8", "I8", "I32", "U32")
            total += one.elements * ELEMENT_BITS[one.dtype] // bits if packed else one.elements
    return total


def _plain_precision(said: Values) -> str | None:
    """As an engine's catalog entry calls it, where the configuration says one precision and no other."""
    method, bits = said.said.get("quant_method"), said.said.get("bits")
    if method in ("fp8", "fbgemm_fp8"):
        return "FP8"
    if method in ("gptq", "awq", "auto-round") and bits in (4, 8):
        return f"INT{bits}"
    if method == "bitsandbytes":
        four, eight = (said.said.get(f"load_in_{n}bit") is True for n in (4, 8))
        return {(True, False): "INT4", (False, True): "INT8"}.get((four, eight))
    if method == "mxfp4":
        return "MXFP4"
    if method == "compressed-tensors":
        groups = said.said.get("config_groups")
        kinds = {_of_group(group) for group in groups.values()} if isinstance(groups, dict) else set()
        return kinds.pop() if len(kinds) == 1 else None
    return None


def _of_group(group: object) -> str | None:
    weights = group.get("weights") if isinstance(group, dict) else None
    if not isinstance(weights, dict):
        return None
    kinds = {"float 8": "FP8", "int 8": "INT8", "int 4": "INT4"}
    return kinds.get(f"{weights.get('type')} {weights.get('num_bits')}")
