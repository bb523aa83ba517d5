"""What `make bench NAME=model PART=quality` measures beside our own architecture."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bench.model.quality import zero_small_inputs
from r1plus_model.model import R1PlusModel
from support.model.llamas import draw_ids, load_tiny, write_tiny

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]
IDS = draw_ids(2, 12)


def list_inputs(model: R1PlusModel) -> list[torch.Tensor]:
    """Return what the matrices of the layers read of the tokens."""
    read: list[torch.Tensor] = []
    for matrix in (one for layer in model.layers for one in layer.modules() if isinstance(one, nn.Linear)):
        matrix.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    model(IDS)
    return read


@pytest.mark.parametrize("share", [0.25, 0.85])
def test_each_matrix_reads_a_token_without_a_share_of_its_inputs(tmp_path: Path, share: float) -> None:
    """The smallest of them."""
    folder = write_tiny(tmp_path / "tiny")
    model = load_tiny(folder)
    zero_small_inputs(model, share)
    first, *others = list_inputs(model)
    dense, *_ = list_inputs(load_tiny(folder))

    assert len(others) == 7 * len(model.layers) - 1
    for inputs in (first, *others):
        assert ((inputs == 0).sum(-1) == round(share * inputs.shape[-1])).all()
    assert torch.equal(first, torch.where(first == 0, 0, dense))
    assert ((first != 0) | (dense.abs() <= first.abs().where(first != 0, torch.inf).amin(-1, keepdim=True))).all()
