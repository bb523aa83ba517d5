"""What the environment says of volumes and of GPUs: read whole, or refused with variable and chart value."""

from pathlib import Path

import pytest

from r1plus_operator.config import ConfigError, from_environment
from r1plus_operator.plan.inputs import AccessMode
from support.plan.world import ROOT

KEY = (Path(__file__).parents[1] / "model_repo/filling/signed/signing.pub").read_text()
LEAST = {
    "R1PLUS_MONITOR_IMAGE": "m",
    "R1PLUS_TRITON_IMAGE": "t",
    "R1PLUS_OPERATOR_NAMESPACE": "n",
    "R1PLUS_CATALOG_DIR": str(ROOT / "model_repo/r1plus_model_repo/catalog"),
    "R1PLUS_SUITES_DIR": str(ROOT / "monitoring/suites"),
}


def test_by_default_nothing_is_fetched_and_everything_is_signed() -> None:
    volumes = from_environment(LEAST).operator.volumes
    assert (volumes.cidrs, volumes.require_signature, volumes.trusted_keys) == ((), True, ())
    assert volumes.access_mode is AccessMode.ONE_NODE


@pytest.mark.parametrize("text", [KEY, f"\n{KEY}\n", KEY.strip()])
def test_a_key_is_a_key_however_it_is_laid_out(text: str) -> None:
    assert from_environment({**LEAST, "R1PLUS_DELIVERY_KEYS": text}).operator.volumes.trusted_keys == (KEY,)


@pytest.mark.parametrize("text", ["False", "no", "0", ""])
def test_only_the_word_false_lets_unsigned_engines_in(text: str) -> None:
    assert from_environment({**LEAST, "R1PLUS_DELIVERY_REQUIRE_SIGNATURE": text}).operator.volumes.require_signature


def test_images_for_gpus_are_named_by_backend() -> None:
    assert from_environment(LEAST).operator.runtimes.keys() == {"openvino"}
    named = '{"vllm": {"image": "a:1", "version": "0.11"}}'
    operator = from_environment({**LEAST, "R1PLUS_GPU_RUNTIMES": named}).operator
    assert operator.runtimes["vllm"] == "0.11"
    assert (operator.image_for("vllm"), operator.image_for("openvino")) == ("a:1", "t")


@pytest.mark.parametrize(
    ("variable", "value", "names"),
    [
        ("R1PLUS_DELIVERY_KEYS", "nothing", "delivery.trustedKeys"),
        ("R1PLUS_DELIVERY_KEYS", KEY.replace("MFk", "AAA"), "delivery.trustedKeys"),
        ("R1PLUS_DELIVERY_ACCESS_MODE", "ReadWriteOncePod", "delivery.volume.accessMode"),
        ("R1PLUS_GPU_RUNTIMES", '["vllm"]', "images.gpu"),
        ("R1PLUS_GPU_RUNTIMES", '{"vllm": {"image": "a:1"}}', "images.gpu"),
        ("R1PLUS_GPU_RUNTIMES", '{"tensorrt": {"image": "a:1", "version": "1"}}', "images.gpu"),
    ],
)
def test_what_cannot_be_used_is_named(variable: str, value: str, names: str) -> None:
    with pytest.raises(ConfigError) as raised:
        from_environment({**LEAST, variable: value})
    assert str(raised.value).startswith(variable)
    assert names in str(raised.value)
