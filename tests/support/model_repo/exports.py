"""What optimum-intel exports, as far as anything of it is read."""

import json
from pathlib import Path

from r1plus_model_repo.importing.openvino.ir import FILES

CONFIG = {"max_position_embeddings": 4096, "num_hidden_layers": 2, "num_key_value_heads": 3, "head_dim": 64}


def state(name: str, shape: str) -> str:
    """Return a variable of the model's description."""
    data = f'<data variable_id="{name}" variable_type="f32" variable_shape="{shape}" />'
    return f'<layer id="1" name="ReadValue_1" type="ReadValue" version="opset6">\n\t{data}</layer>'


def states(layers: int, shape: str = "?,8,?,128") -> list[str]:
    """Return the variables of keys and values of so many layers."""
    return [state(f"past_key_values.{n}.present.{n}.{part}", shape) for n in range(layers) for part in ("key", "value")]


def write_export(folder: Path) -> Path:
    """Write a model of two layers into a new folder; return that."""
    folder.mkdir()
    for name in FILES:
        (folder / name).write_bytes(f"{name}\n".encode() * 100)
    (folder / "openvino_model.xml").write_text(f"<net><layers>{''.join(states(2, '?,3,?,64'))}</layers></net>")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "openvino_config.json").write_text(json.dumps({"quantization_config": {"bits": 8}}))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "README.md").write_text("not for pods")
    return folder
