"""The environment computes on the CPU, and its versions are those of the lock."""

import numpy as np
import pytest
import torch
import transformers

pytestmark = pytest.mark.model


def test_torch_computes_without_a_gpu_and_shares_memory_with_numpy() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    product = torch.from_numpy(array) @ torch.ones(3)

    assert not torch.cuda.is_available()
    assert product.tolist() == [3.0, 12.0]


def test_transformers_has_the_reference_of_llama() -> None:
    config = transformers.LlamaConfig(
        vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )

    assert transformers.LlamaForCausalLM(config)(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 32)
