"""`r1plus.keras`: the call that R1's publisher shows, on two backends; bad input; what Keras is not asked to compute."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from safetensors.torch import load_file, save_file

from r1plus_export.errors import ExportError
from r1plus_export.targets import TARGETS, check_architecture
from r1plus_model_repo.importing.huggingface.from_gguf import convert_gguf_to_checkpoint
from support.exports.tiny_engine import write_weights
from support.tables import for_each

pytestmark = [pytest.mark.exports, pytest.mark.timeout(1200)]
PROMPT: Final = "hello 1 world"
IMPORTS: Final = {"tensorflow": "import tensorflow as tf; keras = tf.keras", "torch": "import keras"}
LLAMA: Final = {
    "model_type": "llama",
    "vocab_size": 268,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}


@pytest.fixture(scope="module")
def file(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras")
    write_keras(llama, folder)
    return folder / "r1plus.keras"


def write_keras(checkpoint: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    program = "from pathlib import Path; from r1plus_export.keras import *; write_folder(*map(Path, sys.argv[1:]))"
    return run_python(program, checkpoint, folder)


def run_python(program: str, *words: Any, backend: str = "tensorflow") -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", f"import sys; {program}", *map(str, words)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("backend", sorted(IMPORTS))
def test_the_file_answers_as_transformers_do(llama: Path, file: Path, backend: str) -> None:
    from r1plus_export.hf import HuggingFaceModel

    reference = HuggingFaceModel(llama)
    ids = reference.encode([{"role": "user", "content": PROMPT}])
    expected = reference.decode(reference.generate(ids, 12, lambda _: False))
    program = (
        f"{IMPORTS[backend]}; import r1plus_export.keras_model; model = keras.models.load_model(sys.argv[1]);"
        "print(keras.backend.backend(), repr(model.generate(sys.argv[2], max_new_tokens=12)));"
        "print(repr(model.generate(sys.argv[2], max_new_tokens=12, stop=[sys.argv[3]])))"
    )
    done = run_python(program, file, PROMPT, expected[6], backend=backend)

    assert done.stdout.splitlines() == [f"{backend} {expected!r}", repr(expected.partition(expected[6])[0])], (
        done.stderr
    )


ONE_STEP: Final = {
    "tensorflow": "print(model.compiled_step.compute.experimental_get_tracing_count())",
    "torch": "ids = keras.ops.array([[5]]); print(model.compiled_step.compute(ids, model._make_cache(1))[1][0][0].requires_grad)",
}


@pytest.mark.parametrize("backend, expected", [("tensorflow", "1"), ("torch", "False")])
def test_tokens_are_computed_in_one_graph_and_without_gradients(file: Path, backend: str, expected: str) -> None:
    """Another prompt makes no other graph, and torch keeps nothing of the tokens before."""
    program = (
        f"{IMPORTS[backend]}; import r1plus_export.keras_model; model = keras.models.load_model(sys.argv[1]);"
        f"[model.generate(prompt, 4) for prompt in ('hello', 'hello 1 world')]; {ONE_STEP[backend]}"
    )
    done = run_python(program, file, backend=backend)

    assert done.stdout.strip() == expected, done.stderr


CHANGES: Final = {
    "LoRA": "v.enable_lora(2); v.lora_kernel_b.assign(v.lora_kernel_b + 9.0)",
    "quantisation": "v.quantize('int8'); v.kernel_scale.assign(v.kernel_scale * -3)",
}


@for_each("change", CHANGES)
def test_a_layer_that_gets_other_weights_computes_with_them(file: Path, change: str) -> None:
    """Though a graph was made before."""
    program = (
        f"{IMPORTS['tensorflow']}; import r1plus_export.keras_model; model = keras.models.load_model(sys.argv[1]);"
        "ids = keras.ops.array([model.encoder.encode_prompt(sys.argv[2])]); read = lambda logits: keras.ops.convert_to_numpy(logits)[0, -1];"
        "step = lambda: read(model._get_step()(ids, model._make_cache(1))[0]); before = step();"
        f"v = model.blocks[0].v_proj; {change}; after = step();"
        "print(abs(after - before).max() > 1e-3, abs(after - read(model(ids))).max() < 1e-4)"
    )
    done = run_python(program, file, PROMPT)

    assert done.stdout.strip() == "True True", done.stderr


DTYPES: Final = {
    "a policy of mixed precision": "keras.config.set_dtype_policy('mixed_bfloat16')",
    "another type of numbers": "keras.config.set_floatx('bfloat16')",
}


@pytest.mark.parametrize("backend", sorted(IMPORTS))
@for_each("setting", DTYPES)
def test_it_computes_in_the_type_that_keras_is_set_to(file: Path, setting: str, backend: str) -> None:
    program = (
        f"{IMPORTS[backend]}; {setting}; import r1plus_export.keras_model; model = keras.models.load_model(sys.argv[1]);"
        "print(model.blocks[0].compute_dtype, len(model.generate_tokens([1, 2, 3], 5, lambda _: False)))"
    )
    done = run_python(program, file, backend=backend)

    assert done.stdout.strip() == "bfloat16 5", done.stderr


def test_a_tensor_that_follows_from_the_configuration_is_left_out(llama: Path, tmp_path: Path) -> None:
    """Older checkpoints have it."""
    old = Path(shutil.copytree(llama, tmp_path / "old"))
    weights = load_file(old / "model.safetensors")
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(weights, old / "model.safetensors", {"format": "pt"})
    (tmp_path / "made").mkdir()

    done = write_keras(old, tmp_path / "made")

    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made" / "r1plus.keras").is_file()


def test_the_class_must_be_imported_first(file: Path) -> None:
    done = run_python("import keras; keras.models.load_model(sys.argv[1])", file)

    assert "Could not locate class 'TextGenerator'" in done.stderr


BAD: dict[str, tuple[str, str]] = {
    "no tokens": ("'hello', 0", "max_new_tokens: 0 is not a whole number from 1; give one"),
    "half a token": ("'hello', 1.5", "max_new_tokens: 1.5 is not a whole number from 1; give one"),
    "a stop that is one text": ("'hello', stop='end'", "stop: 'end' is not a list of texts"),
    "an empty stop": ("'hello', stop=['']", "stop: [''] is not a list of texts"),
    "a prompt that is too long": ("'hello ' * 600", "the longest sequence of training; give a shorter prompt"),
    "more answer than the model has room for": ("'hello', 512", "new ones are not from 1 to 512"),
}


def test_bad_input_is_named(file: Path) -> None:
    """In one process, since an import takes seconds."""
    calls = "".join(
        f"\ntry: model.generate({call})\nexcept ValueError as error: print(error)" for call, _ in BAD.values()
    )
    program = "import keras, r1plus_export.keras_model; model = keras.models.load_model(sys.argv[1])"
    done = run_python(program + calls, file)
    lines = done.stdout.splitlines()

    assert len(lines) == len(BAD), done.stderr
    for line, (_, message) in zip(lines, BAD.values(), strict=True):
        assert message in line


NOT_COMPUTED: dict[str, tuple[dict[str, Any], str]] = {
    "another architecture": ({"model_type": "qwen2"}, "model_type: 'qwen2': --to keras exports llama; use --to hf"),
    "scaled rotary positions": (
        {"rope_scaling": {"rope_type": "llama3"}},
        "--to keras: rope_scaling: rope_type 'llama3' is not computed here, only default",
    ),
    "another activation": ({"hidden_act": "gelu"}, "--to keras: hidden_act: 'gelu' is not silu"),
}


@for_each("changes, message", NOT_COMPUTED)
def test_what_is_not_computed_is_refused(changes: dict[str, Any], message: str) -> None:
    check_architecture(TARGETS["keras"], LLAMA)
    with pytest.raises(ExportError, match=message) as caught:
        check_architecture(TARGETS["keras"], LLAMA | changes)
    assert "use --to hf" in str(caught.value)


def test_biases_and_an_output_layer_of_its_own_are_read(tmp_path: Path) -> None:
    """Logits as transformers has them, of a checkpoint in BF16."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    config = LlamaConfig(**LLAMA | {"num_key_value_heads": 2, "head_dim": 32, "attention_bias": True, "mlp_bias": True})
    model = LlamaForCausalLM(config).eval()
    for name, values in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(values)
    model.bfloat16().save_pretrained(tmp_path / "checkpoint")
    ids = torch.tensor([[5, 7, 11, 200, 3]])
    expected = model.float()(ids).logits[0].detach()
    write_tokenizer(tmp_path / "checkpoint")
    program = (
        "from pathlib import Path; from r1plus_export.keras import *; import numpy as n;"
        "write_folder(*map(Path, sys.argv[1:])); m = keras.models.load_model(sys.argv[2] + '/r1plus.keras');"
        "print(json.dumps(keras.ops.convert_to_numpy(m(n.array([[5, 7, 11, 200, 3]])))[0].tolist()))"
    )
    done = run_python(program, tmp_path / "checkpoint", tmp_path)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout.splitlines()[-1])), expected, atol=1e-4, rtol=1e-4)


def write_tokenizer(folder: Path) -> None:
    """Write a vocabulary, which the file must have."""
    root = folder.parent / "tokenizer"
    root.mkdir()
    source = convert_gguf_to_checkpoint(write_weights(root / "tiny.gguf"), root / "ck", "F16", lambda _: None).folder
    for path in source.glob("tokenizer*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
