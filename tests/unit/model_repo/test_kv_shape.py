"""How much KV cache a token takes, from the description of an OpenVINO model."""

from pathlib import Path

import pytest

from r1plus_model_repo import kv_shape as module
from r1plus_model_repo.kv_shape import KvShape, read_kv_shape
from support.model_repo.exports import state, states


def model(folder: Path, *states: str) -> Path:
    other = '<layer id="0" name="x" type="Const"><data element_type="f32" shape="7,7" /></layer>'
    (folder / module.MODEL).write_text(f"<net><layers>{other}{''.join(states)}</layers></net>")
    return folder


@pytest.mark.parametrize("shape", ["?,8,?,128", "[?,8,?,128]", "-1,8,-1,128"])
def test_layers_heads_and_head_size(tmp_path: Path, shape: str) -> None:
    found = read_kv_shape(model(tmp_path, *states(3, shape)))
    assert found == KvShape(3, 8, 128)
    assert found.bytes_per_token == 2 * 3 * 8 * 128 * 2


def test_other_state_is_not_counted(tmp_path: Path) -> None:
    assert read_kv_shape(model(tmp_path, *states(2), state("beam_table", "?,?"))).layers == 2


SURPRISES = {
    "none": [],
    "a key without its value": states(2)[:-1],
    "layers of two shapes": states(2) + states(3, "?,4,?,128")[4:],
    "heads that are not fixed": states(2, "?,?,?,128"),
    "a head size that is not fixed": states(2, "?,8,?,?"),
    "three dimensions": states(2, "8,?,128"),
    "five dimensions": states(2, "?,8,?,128,2"),
}


@pytest.mark.parametrize("states", SURPRISES.values(), ids=SURPRISES.keys())
def test_another_form_is_an_error_not_a_guess(tmp_path: Path, states: list[str]) -> None:
    with pytest.raises(ValueError, match=r"openvino_model\.xml: .*keys and values"):
        read_kv_shape(model(tmp_path, *states))


def test_a_description_without_end_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / module.MODEL).open("wb") as stream:
        stream.truncate(module.MOST_BYTES + 1)
    with pytest.raises(ValueError, match=f"{module.MOST_BYTES + 1} bytes, at most {module.MOST_BYTES} are read"):
        read_kv_shape(tmp_path)
