"""The descriptor that the operator carries is tritonclient's, and both load in one process.

Write it again: R1PLUS_GOLDEN=write pytest tests/unit/model_repo/test_triton_descriptor.py
"""

import base64
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from r1plus_model_repo import config_pbtxt, triton_descriptor

tritonclient = pytest.importorskip("tritonclient.grpc.model_config_pb2")
LINE = 100


def render_module(descriptor: bytes) -> str:
    """Return the source of `r1plus_model_repo.triton_descriptor` for this serialized FileDescriptorProto."""
    lines = textwrap.wrap(base64.b64encode(descriptor).decode(), LINE)
    return "\n".join(
        (
            '"""The descriptor of Triton\'s model_config.proto: a serialized FileDescriptorProto, in base64.',
            "",
            "Generated from tritonclient/grpc/model_config_pb2.py of the locked tritonclient. Do not edit; to write it again:",
            "R1PLUS_GOLDEN=write .venv/bin/pytest tests/unit/model_repo/test_triton_descriptor.py",
            "",
            "Copyright (c) 2020, NVIDIA CORPORATION. All rights reserved. SPDX-License-Identifier: BSD-3-Clause",
            '"""',
            "",
            "import base64",
            "from typing import Final",
            "",
            "MODEL_CONFIG_PROTO: Final = base64.b64decode(",
            *(f'    "{line}"' for line in lines),
            ")",
            "",
        )
    )


def test_the_descriptor_is_that_of_the_locked_tritonclient() -> None:
    path = Path(triton_descriptor.__file__)
    source = render_module(tritonclient.DESCRIPTOR.serialized_pb)
    if os.environ.get("R1PLUS_GOLDEN") == "write":
        path.write_text(source)
    assert path.read_text() == source


def test_every_message_and_every_value_has_a_name() -> None:
    file = FileDescriptorProto.FromString(triton_descriptor.MODEL_CONFIG_PROTO)
    messages = {message.name for message in file.message_type}
    values = {value.name for enum in file.enum_type for value in enum.value}
    assert {"ModelConfig", "ModelInput"} <= messages and {"TYPE_STRING", "TYPE_FP32"} <= values
    assert set(vars(config_pbtxt.pb)) == messages | values


OURS = "from r1plus_model_repo.config_pbtxt import parse_config\nours = parse_config('max_batch_size: 3')\n"
THEIRS = """
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2
theirs = text_format.Parse('max_batch_size: 3', model_config_pb2.ModelConfig())
"""
ANOTHER_RELEASE = """
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from r1plus_model_repo.triton_descriptor import MODEL_CONFIG_PROTO
file = FileDescriptorProto.FromString(MODEL_CONFIG_PROTO)
file.message_type[0].field[0].name = 'renamed'
assert file.name == 'model_config.proto'
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
"""
EQUAL = "assert ours.SerializeToString() == theirs.SerializeToString() != b''\n"
PROGRAMS = {
    "ours before tritonclient's": OURS + THEIRS + EQUAL,
    "tritonclient's before ours": THEIRS + OURS + EQUAL,
    "ours before another release's": OURS + ANOTHER_RELEASE,
    "another release's before ours": ANOTHER_RELEASE + OURS,
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_process_loads_both(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True)


def test_another_release_does_not_load_into_tritonclients_pool() -> None:
    program = THEIRS + ANOTHER_RELEASE
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "model_config.proto" in ended.stderr
