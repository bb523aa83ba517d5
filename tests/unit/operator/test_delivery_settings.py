"""What the environment says of volumes and of GPUs: read whole, or refused with variable and chart value."""

from pathlib import Path

import pytest

from r1plus_model_repo.catalog.types import VLLM_ON_CPU
from r1plus_operator.config import OperatorConfigError, load_settings
from r1plus_operator.plan.settings import RUNTIMES, AccessMode, ProxyTerms

KEY = (Path(__file__).parents[1] / "model_repo/engine_fetch/signed/signing.pub").read_text()
PROXY = {"R1PLUS_DELIVERY_PROXY": "http://proxy.bank.example:3128", "R1PLUS_DELIVERY_PROXY_CIDRS": "10.0.9.7/32"}


def test_by_default_nothing_is_fetched_and_everything_is_signed(least: dict[str, str]) -> None:
    volumes = load_settings(least).operator.volumes
    assert (volumes.cidrs, volumes.require_signature, volumes.trusted_keys) == ((), True, ())
    assert volumes.access_mode is AccessMode.ONE_NODE


@pytest.mark.parametrize("text", [KEY, f"\n{KEY}\n", KEY.strip()])
def test_a_key_is_a_key_however_it_is_laid_out(least: dict[str, str], text: str) -> None:
    assert load_settings({**least, "R1PLUS_DELIVERY_KEYS": text}).operator.volumes.trusted_keys == (KEY,)


@pytest.mark.parametrize("text", ["False", "no", "0", ""])
def test_only_the_word_false_lets_unsigned_engines_in(least: dict[str, str], text: str) -> None:
    assert load_settings({**least, "R1PLUS_DELIVERY_REQUIRE_SIGNATURE": text}).operator.volumes.require_signature


def test_images_for_gpus_are_named_by_backend(least: dict[str, str]) -> None:
    assert load_settings(least).operator.runtimes.keys() == {"openvino"}
    named = '{"vllm": {"image": "a:1", "version": "0.11"}}'
    operator = load_settings({**least, "R1PLUS_GPU_RUNTIMES": named}).operator
    assert operator.runtimes["vllm"] == "0.11"
    assert (operator.select_image("vllm"), operator.select_image("openvino")) == ("a:1", "t")


def test_an_image_for_vllm_on_cpu_is_another_runtime_than_for_gpus(least: dict[str, str]) -> None:
    named = '{"vllm": {"image": "c:1", "version": "0.32.0"}}'
    operator = load_settings({**least, "R1PLUS_CPU_RUNTIMES": named}).operator
    assert dict(operator.runtimes) == {**RUNTIMES, VLLM_ON_CPU: "0.32.0"}
    assert operator.select_image(VLLM_ON_CPU) == "c:1"
    assert operator.triton_images == {"c:1", "t"}


@pytest.mark.parametrize(
    ("variable", "value", "names"),
    [
        ("R1PLUS_DELIVERY_KEYS", "nothing", "delivery.trustedKeys"),
        ("R1PLUS_DELIVERY_KEYS", KEY.replace("MFk", "AAA"), "delivery.trustedKeys"),
        ("R1PLUS_DELIVERY_ACCESS_MODE", "ReadWriteOncePod", "delivery.volume.accessMode"),
        ("R1PLUS_GPU_RUNTIMES", '["vllm"]', "images.gpu"),
        ("R1PLUS_GPU_RUNTIMES", '{"vllm": {"image": "a:1"}}', "images.gpu"),
        ("R1PLUS_GPU_RUNTIMES", '{"tensorrt": {"image": "a:1", "version": "1"}}', "images.gpu"),
        ("R1PLUS_GPU_RUNTIMES", '{"vllm": {"image": "a:1", "version": 0.3}}', "images.gpu.vllm.version"),
        ("R1PLUS_GPU_RUNTIMES", '{"vllm"', "images.gpu"),
        ("R1PLUS_CPU_RUNTIMES", '{"vllm": {"version": "0.32.0"}}', "images.cpu"),
        (
            "R1PLUS_CPU_RUNTIMES",
            '{"tensorrtllm": {"image": "a:1", "version": "1"}}',
            "images.cpu is for torch and vllm",
        ),
    ],
)
def test_what_cannot_be_used_is_named(least: dict[str, str], variable: str, value: str, names: str) -> None:
    with pytest.raises(OperatorConfigError) as raised:
        load_settings({**least, variable: value})
    assert str(raised.value).startswith(variable)
    assert names in str(raised.value)


def test_a_proxy_is_read_with_its_networks_and_exceptions(least: dict[str, str]) -> None:
    assert load_settings(least).operator.volumes.proxy is None
    assert load_settings({**least, "R1PLUS_DELIVERY_PROXY_CIDRS": "10.0.9.7/32"}).operator.volumes.proxy is None
    found = load_settings({**least, **PROXY, "R1PLUS_DELIVERY_NO_PROXY": ".svc,10.0.0.0/8"}).operator.volumes.proxy
    assert found == ProxyTerms("http://proxy.bank.example:3128", ("10.0.9.7/32",), (".svc", "10.0.0.0/8"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"R1PLUS_DELIVERY_PROXY": "http://me:SECRET@proxy.bank.example:3128"},
            ["delivery.proxy.url", "carries a user or a password", "admit the cluster's addresses without"],
        ),
        ({"R1PLUS_DELIVERY_PROXY": "http://SECRET@proxy:3128"}, ["delivery.proxy.url", "carries a user"]),
        (
            {"R1PLUS_DELIVERY_PROXY": "https://proxy:3128"},
            ["'https://proxy:3128'", "delivery.proxy.url", "http://HOST"],
        ),
        ({"R1PLUS_DELIVERY_PROXY": "http://proxy"}, ["'http://proxy'", "http://HOST:PORT"]),
        ({"R1PLUS_DELIVERY_PROXY": "http://proxy:70000"}, ["'http://proxy:70000'", "http://HOST:PORT"]),
        ({"R1PLUS_DELIVERY_PROXY": "http://proxy:3128/path"}, ["http://HOST:PORT"]),
        ({"R1PLUS_DELIVERY_PROXY": "http://:3128"}, ["http://HOST:PORT"]),
        ({"R1PLUS_DELIVERY_PROXY": "http://pro xy:3128"}, ["http://HOST:PORT"]),
        ({"R1PLUS_DELIVERY_PROXY_CIDRS": ""}, ["R1PLUS_DELIVERY_PROXY_CIDRS", "delivery.proxy.cidrs", "10.0.9.7/32"]),
        (
            {"R1PLUS_DELIVERY_PROXY_CIDRS": "10.0.9.7/33"},
            ["R1PLUS_DELIVERY_PROXY_CIDRS: '10.0.9.7/33' is not a network"],
        ),
        ({"R1PLUS_DELIVERY_NO_PROXY": "10.0.0.0/99"}, ["R1PLUS_DELIVERY_NO_PROXY", "delivery.proxy.noProxy"]),
        ({"R1PLUS_DELIVERY_CA": "bank-ca.pem"}, ["R1PLUS_DELIVERY_CA", "delivery.ca: not certificates in PEM"]),
        (
            {"R1PLUS_DELIVERY_CA": "-----BEGIN PRIVATE KEY-----\nSECRET"},
            ["R1PLUS_DELIVERY_CA", "delivery.ca", "a private key", "put certificates only into"],
        ),
    ],
)
def test_a_proxy_or_ca_that_cannot_be_used_is_named_with_a_remedy(
    least: dict[str, str], settings: dict[str, str], said: list[str]
) -> None:
    with pytest.raises(OperatorConfigError) as raised:
        load_settings({**least, **PROXY, **settings})
    assert [words for words in said if words not in str(raised.value)] == [], str(raised.value)
    assert "SECRET" not in str(raised.value)
