"""Triton's rules without Triton: each wrong configuration is told by field, value and reason; a right one by nothing.

That the real server judges the same is shown by tests/engine/test_config_rules.py, on the same configurations.
"""

import pytest

from r1plus_model_repo.config_rules import find_config_problems
from support.engine.configurations import CASES, RIGHT, WRONG

SAYS = {
    "an-unknown-field": "max_batch_sise",
    "a-word-for-a-number": "config.pbtxt: ",
    "an-unknown-kind": "KIND_TPU",
    "a-field-of-a-newer-server": "model_metrics: tritonserver 2.51 does not know this field",
    "another-name": "name: something-else: differs from its folder another-name",
    "preferred-above-the-largest": "preferred_batch_size: 9: exceeds max_batch_size, which is 8",
    "preferred-without-batches": "preferred_batch_size: 1: exceeds max_batch_size, which is 0",
    "preferred-nothing": "preferred_batch_size: 0: must be 1 or more",
    "no-default-priority": "default_priority_level: 0: must be in 1..3",
    "a-default-beyond-the-priorities": "default_priority_level: 4: must be in 1..3",
    "order-kept-across-priorities": "preserve_ordering: true: requests with 2 priority levels",
    "decoupled-and-cached": "response_cache.enable: true: answers of a decoupled model",
    "a-negative-batch": "max_batch_size: -1: must not be negative",
    "a-tensor-without-a-type": "input a: data_type: missing",
    "a-tensor-without-a-name": "input.name: missing",
    "a-tensor-without-dims": "input a: dims: missing",
    "a-dim-of-nothing": "input a: dims: 0: must be 1 or more, or -1",
    "a-gpu-without-one": "instance_group.kind: KIND_GPU: the server sees no GPU",
    "gpus-for-a-cpu": "instance_group.gpus: [0]: KIND_CPU has no GPUs",
    "a-backend-that-is-not-there": "backend: vllm: the server has python",
    "a-version-that-is-not-there": "version_policy.specific.versions: 7: only version 1 is delivered",
    "warmed-up-with-another-tensor": "model_warmup w: inputs: c: the model has a",
    "warmed-up-with-nothing": "model_warmup w: inputs: a: missing",
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_configuration_has_no_problem(name: str) -> None:
    assert find_config_problems(CASES[name], name=name, gpus=False) == ()


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_configuration_is_told_by_field_value_and_reason(name: str) -> None:
    assert SAYS[name] in "; ".join(find_config_problems(WRONG[name], name=name, gpus=False))


def test_a_gpu_is_no_problem_where_there_is_one() -> None:
    assert find_config_problems(WRONG["a-gpu-without-one"], name="a-gpu-without-one", gpus=True) == ()


def test_all_problems_are_told_at_once() -> None:
    text = WRONG["decoupled-and-cached"] + " max_batch_size: -1"
    assert len(find_config_problems(text, name="x", gpus=False)) == 2
