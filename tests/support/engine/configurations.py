"""Configurations, right and wrong, that our rules and the real tritonserver both judge (`test_config_rules`)."""

TENSORS = """
input { name: "a" data_type: TYPE_STRING dims: 1 }
output { name: "b" data_type: TYPE_STRING dims: 1 }
"""
CPU = "instance_group { count: 1 kind: KIND_CPU }"
PYTHON = f'backend: "python" {TENSORS} {CPU}'

WARMUP = 'model_warmup { name: "w" batch_size: 1 inputs { key: "KEY" value { data_type: TYPE_STRING dims: 1 zero_data: true } } }'  # fmt: skip

RIGHT = {
    "the-least": PYTHON,
    "named-as-its-folder": f'name: "named-as-its-folder" {PYTHON}',
    "batching": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ preferred_batch_size: [4, 8] }}",
    "batching-without-a-wish": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ max_queue_delay_microseconds: 100 }}",
    "priorities": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ priority_levels: 3 default_priority_level: 3 }}",
    "order-kept-without-priorities": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ preserve_ordering: true }}",
    "order-kept-with-one-priority": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ preserve_ordering: true priority_levels: 1 default_priority_level: 1 }}",
    "decoupled": f"{PYTHON} model_transaction_policy {{ decoupled: true }}",
    "cached": f"{PYTHON} response_cache {{ enable: true }}",
    "a-tensor-of-any-length": f'backend: "python" input {{ name: "a" data_type: TYPE_INT32 dims: [-1, 2] }} output {{ name: "b" data_type: TYPE_FP32 dims: -1 }} {CPU}',
    "two-instances": f'backend: "python" {TENSORS} instance_group {{ count: 2 kind: KIND_CPU }}',
    "warmed-up": f"{PYTHON} {WARMUP.replace('KEY', 'a')}",
    "no-backend-so-model-py-tells": f"{TENSORS} {CPU}",
    "its-version": f"{PYTHON} version_policy {{ specific {{ versions: 1 }} }}",
}  # fmt: skip
WRONG = {
    "an-unknown-field": f"{PYTHON} max_batch_sise: 3",
    "a-word-for-a-number": f'{PYTHON} max_batch_size: "8"',
    "an-unknown-kind": f'backend: "python" {TENSORS} instance_group {{ count: 1 kind: KIND_TPU }}',
    "a-field-of-a-newer-server": f"{PYTHON} model_metrics {{ }}",
    "another-name": f'name: "something-else" {PYTHON}',
    "preferred-above-the-largest": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ preferred_batch_size: 9 }}",
    "preferred-without-batches": f"{PYTHON} dynamic_batching {{ preferred_batch_size: 1 }}",
    "preferred-nothing": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ preferred_batch_size: 0 }}",
    "no-default-priority": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ priority_levels: 3 }}",
    "a-default-beyond-the-priorities": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ priority_levels: 3 default_priority_level: 4 }}",
    "order-kept-across-priorities": f"{PYTHON} max_batch_size: 8 dynamic_batching {{ preserve_ordering: true priority_levels: 2 default_priority_level: 1 }}",
    "decoupled-and-cached": f"{PYTHON} model_transaction_policy {{ decoupled: true }} response_cache {{ enable: true }}",
    "a-negative-batch": f"{PYTHON} max_batch_size: -1",
    "a-tensor-without-a-type": f'backend: "python" input {{ name: "a" dims: 1 }} output {{ name: "b" data_type: TYPE_FP32 dims: 1 }} {CPU}',
    "a-tensor-without-a-name": f'backend: "python" input {{ data_type: TYPE_FP32 dims: 1 }} output {{ name: "b" data_type: TYPE_FP32 dims: 1 }} {CPU}',
    "a-tensor-without-dims": f'backend: "python" input {{ name: "a" data_type: TYPE_FP32 }} output {{ name: "b" data_type: TYPE_FP32 dims: 1 }} {CPU}',
    "a-dim-of-nothing": f'backend: "python" input {{ name: "a" data_type: TYPE_FP32 dims: 0 }} output {{ name: "b" data_type: TYPE_FP32 dims: 1 }} {CPU}',
    "a-gpu-without-one": f'backend: "python" {TENSORS} instance_group {{ count: 1 kind: KIND_GPU }}',
    "gpus-for-a-cpu": f'backend: "python" {TENSORS} instance_group {{ count: 1 kind: KIND_CPU gpus: 0 }}',
    "a-backend-that-is-not-there": f'backend: "vllm" {TENSORS} {CPU}',
    "a-version-that-is-not-there": f"{PYTHON} version_policy {{ specific {{ versions: 7 }} }}",
    "warmed-up-with-another-tensor": f"{PYTHON} {WARMUP.replace('KEY', 'c')}",
    "warmed-up-with-nothing": f'{PYTHON} model_warmup {{ name: "w" batch_size: 1 }}',
}  # fmt: skip
CASES = {**RIGHT, **WRONG}
