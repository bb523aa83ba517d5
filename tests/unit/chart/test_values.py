"""values.schema.json refuses what would fail later, and says where."""

from typing import Any

import pytest
import yaml

from support.chart import BANK_CA, CHART, Refusal, Render


@pytest.mark.parametrize(
    ("values", "said"),
    [
        pytest.param({"wrokers": 3}, ["'wrokers' not allowed"], id="a value that is misspelt"),
        pytest.param({"workers": 0}, ["/workers", "got 0, want 1"], id="too few workers"),
        pytest.param({"workers": "many"}, ["/workers", "want integer"], id="a word for a number"),
        pytest.param({"replicas": 50}, ["/replicas", "got 50, want 5"], id="more replicas than anyone needs"),
        pytest.param({"leaderElection": {"fence": "yes"}}, ["/leaderElection/fence", "want boolean"],
                     id="a word for a fence"),
        pytest.param({"images": {"operator": ""}}, ["/images/operator"], id="no image"),
        pytest.param({"images": {"monitor": "two words"}}, ["/images/monitor"], id="a reference with a space"),
        pytest.param({"images": {"pullPolicy": "Sometimes"}}, ["/images/pullPolicy", "IfNotPresent"],
                     id="a pull policy that is none"),
        pytest.param({"images": {"engines": {"smollm2-full-f16": 1}}}, ["/images/engines/smollm2-full-f16",
                     "want string"], id="an engine's image that is a number"),
        pytest.param({"images": {"engines": {"r1plus-full-fp16-vllm": "a:1"}}},
                     ["r1plus-full-fp16-vllm has published sizes",
                     "engineDigests.r1plus-full-fp16-vllm"], id="an image without a digest for a published shape"),
        pytest.param({"images": {"engines": {"nothing": "a:1"}}}, ["images.engines: nothing", "smollm2-edge-q4-1,"],
                     id="an image for an engine that the catalog lacks"),
        pytest.param({"images": {"gpu": {"tensorrt": {"image": "a:1", "version": "10"}}}}, ["/images/gpu", "tensorrt"],
                     id="an image for a backend that is not served"),
        pytest.param({"images": {"gpu": {"vllm": "a:1"}}}, ["/images/gpu/vllm", "want object"],
                     id="an image for GPUs as the other images are written"),
        pytest.param({"images": {"gpu": {"vllm": {"image": "a:1"}}}}, ["/images/gpu/vllm", "version"],
                     id="an image for GPUs of no version"),
        pytest.param({"images": {"cpu": {"tensorrtllm": {"image": "a:1", "version": "1"}}}}, ["/images/cpu", "tensorrtllm"],
                     id="an image for CPU with a backend that needs a GPU"),
        pytest.param({"engineDigests": {"smollm2-full-f16": "abc"}}, ["/engineDigests/smollm2-full-f16"],
                     id="a digest that is too short"),
        pytest.param({"engineDigests": {"nothing": "0" * 64}}, ["engineDigests: nothing", "smollm2-edge-q4-1,"],
                     id="a digest for an engine that the catalog lacks"),
        pytest.param({"imagePullSecrets": [{"name": "a"}]}, ["/imagePullSecrets/0", "want string"],
                     id="pull secrets as Kubernetes writes them"),
        pytest.param({"defaultFamily": "Not A Label"}, ["/defaultFamily"], id="a family that is no label"),
        pytest.param({"suites": {"requireSignature": "false"}}, ["/suites/requireSignature", "want boolean"],
                     id="a word for whether signatures are needed"),
        pytest.param({"suites": {"trustedKeys": ["A" * 43]}}, ["/suites/trustedKeys/0"], id="a key that is too short"),
        pytest.param({"suites": {"trustedKeys": ["A" * 42 + "B="]}}, ["/suites/trustedKeys/0"],
                     id="a key that is not written the one canonical way"),
        pytest.param({"delivery": {"cidrs": ["10.0.0.1"]}}, ["/delivery/cidrs/0"], id="an address for a network"),
        pytest.param({"delivery": {"trustedKeys": ["-----BEGIN PRIVATE KEY-----"]}}, ["/delivery/trustedKeys/0"],
                     id="a private key for a public one"),
        pytest.param({"delivery": {"ca": "bank-ca.pem"}}, ["/delivery/ca"], id="a file for a certificate"),
        pytest.param({"delivery": {"proxy": {"cidrs": ["10.0.9.7"]}}}, ["/delivery/proxy/cidrs/0"],
                     id="an address for a network of the proxy"),
        pytest.param({"delivery": {"proxy": {"noProxy": ["*"]}}}, ["/delivery/proxy/noProxy/0"],
                     id="a proxy for nothing"),
        pytest.param({"delivery": {"volume": {"accessMode": "ReadWriteOncePod"}}}, ["/delivery/volume/accessMode"],
                     id="a volume that no Job could fill"),
        pytest.param({"runtime": {"update": "Sometimes"}}, ["/runtime/update", "Automatic"],
                     id="another way for newer images to reach what serves"),
        pytest.param({"runtime": {"vulnerable": ["a:1,b:1"]}}, ["/runtime/vulnerable/0"],
                     id="two vulnerable images in one word"),
        pytest.param({"rollout": {"maxConcurrent": 0}}, ["/rollout/maxConcurrent", "got 0, want 1"],
                     id="a wave that never begins"),
        pytest.param({"leaderElection": {"leaseSeconds": 1}}, ["/leaderElection/leaseSeconds", "want 5"],
                     id="a Lease shorter than a busy moment"),
        pytest.param({"verdictIntervalSeconds": 0.1}, ["/verdictIntervalSeconds", "want 1"],
                     id="an interval below a second"),
        pytest.param({"monitoring": {"interval": "15"}}, ["/monitoring/interval"], id="an interval without a unit"),
        pytest.param({"monitoring": {"alerts": {"labels": {"severity": "page"}}}}, ["invalid propertyName 'severity'"],
                     id="a severity for all alerts"),
        pytest.param({"monitoring": {"alerts": {"runbookURL": "wiki"}}}, ["/monitoring/alerts/runbookURL"],
                     id="a runbook that is no address"),
        pytest.param({"monitoring": {"objectives": {"gatewayErrorRatio": 5}}}, ["/monitoring/objectives/gatewayErrorRatio"],
                     id="an objective in percent"),
        pytest.param({"monitoring": {"objectives": {"gatewayFirstTokenSeconds": 0}}},
                     ["/monitoring/objectives/gatewayFirstTokenSeconds"], id="an objective that nothing meets"),
        pytest.param({"monitoring": {"namespace": None}}, ["/monitoring", "namespace"],
                     id="no namespace of Prometheus"),
        pytest.param({"networkPolicy": {"apiServerPorts": []}}, ["/networkPolicy/apiServerPorts"],
                     id="no port to the API server"),
        pytest.param({"networkPolicy": {"apiServerCIDRs": ["10.0.0.1"]}}, ["/networkPolicy/apiServerCIDRs/0"],
                     id="an address for a network"),
        pytest.param({"networkPolicy": {"dns": {"pods": []}}}, ["/networkPolicy/dns"], id="DNS nowhere, which is anywhere"),
        pytest.param({"networkPolicy": {"dns": {"cidrs": ["169.254.20.10"]}}}, ["/networkPolicy/dns/cidrs/0"],
                     id="an address for a network of DNS"),
        pytest.param({"podSecurity": {"runAsUser": 0}}, ["/podSecurity/runAsUser"], id="root"),
        pytest.param({"resources": {"limits": {"memory": "lots"}}}, ["/resources/limits/memory"],
                     id="a quantity that is none"),
        pytest.param({"admissionPolicy": {"enabled": "yes"}}, ["/admissionPolicy/enabled", "want boolean"],
                     id="a word for yes or no"),
        pytest.param({"isolation": {"decoyNamespace": "R1plus"}}, ["/isolation/decoyNamespace"],
                     id="a decoy in a namespace that is none"),
        pytest.param({"isolation": {"everySeconds": 1}}, ["/isolation/everySeconds", "want 10"],
                     id="a prober without a pause"),
        pytest.param({"isolation": {"decoyNamespace": "r1plus-system"}},
                     ["isolation.decoyNamespace: r1plus-system is reserved"],
                     id="a decoy in the operator's namespace"),
        pytest.param({"isolation": {"decoyNamespace": "monitoring"}},
                     ["isolation.decoyNamespace: monitoring is reserved"], id="a decoy in Prometheus' namespace"),
        pytest.param({"isolation": {"decoyNamespace": "kube-system"}},
                     ["isolation.decoyNamespace: kube-system is reserved"],
                     id="a decoy in Kubernetes' own namespace"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_its_path(refusal: Refusal, values: dict[str, Any], said: list[str]) -> None:
    told = refusal(values)
    assert [words for words in said if words not in told] == [], told


PROXY_URL, PROXY_CIDRS = "http://proxy.bank.example:3128", ["10.0.9.7/32"]


@pytest.mark.parametrize(
    ("delivery", "said"),
    [
        ({"proxy": {"url": PROXY_URL.replace("proxy", "me:SECRET@proxy", 1), "cidrs": PROXY_CIDRS}},
         ["delivery.proxy.url: carries a user or a password, which every tenant could read", "cluster's addresses"]),
        ({"proxy": {"url": PROXY_URL.replace("http", "https"), "cidrs": PROXY_CIDRS}},
         ["delivery.proxy.url: https://proxy.bank.example:3128 is not http://HOST:PORT"]),
        ({"proxy": {"url": "http://proxy.bank.example", "cidrs": PROXY_CIDRS}},
         ["delivery.proxy.url: http://proxy.bank.example is not http://HOST:PORT"]),
        ({"proxy": {"url": PROXY_URL}},
         [f"delivery.proxy.cidrs: empty, so that no Job could reach {PROXY_URL}", "10.0.9.7/32"]),
        ({"ca": BANK_CA + "-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n"},
         ["delivery.ca: holds a private key, which every tenant could read", "keep the certificates only"]),
    ],
)  # fmt: skip
def test_a_proxy_or_ca_that_reveals_secrets_or_leads_nowhere_is_refused(
    refusal: Refusal, delivery: dict[str, Any], said: list[str]
) -> None:
    message = refusal({"delivery": delivery})
    assert [words for words in said if words not in message] == [], message
    assert "SECRET" not in message


DIGEST = f"@sha256:{'4' * 64}"
PINNED = {
    name: f"registry.example.com/{name}{DIGEST}"
    for name in ("operator", "monitor", "registry", "gateway", "trainer", "triton")
}


@pytest.mark.parametrize("name", [*PINNED, "gpu.vllm.image", "cpu.vllm.image"])
def test_an_image_that_a_tag_names_is_refused(render: Render, refusal: Refusal, name: str) -> None:
    vllm = {"image": f"registry.example.com/tritonserver{DIGEST}", "version": "0.11.0"}
    images = {"requireDigests": True, **PINNED, "gpu": {"vllm": vllm}, "cpu": {"vllm": vllm}}
    render({"images": images})
    kind, _, backend = name.partition(".")
    tagged: dict[str, object] = {kind: {"vllm": {**vllm, "image": "a/b:1"}} if backend else "a/b:1"}
    said = refusal({"images": {**images, **tagged}})
    assert f"images.{name}: a/b:1 has a tag, which may be moved" in said
    assert "images.requireDigests=false" in said


def test_without_an_image_there_are_no_gateways_and_digests_of_the_others_suffice(render: Render) -> None:
    images = {name: image for name, image in PINNED.items() if name != "gateway"}
    objects = render({"images": {"requireDigests": True, **images, "gateway": ""}})
    (operator,) = [o for o in objects if o["kind"] == "Deployment"]
    env = {one["name"]: one.get("value") for one in operator["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["R1PLUS_GATEWAY_IMAGE"] == ""


def test_digests_are_required_by_default(refusal: Refusal) -> None:
    default = yaml.safe_load((CHART / "values.yaml").read_text())["images"]["requireDigests"]
    assert "has a tag" in refusal({"images": {"requireDigests": default}})
