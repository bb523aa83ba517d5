"""`r1plus plan` as a newcomer runs it: the whole command, on files, without a cluster."""

from pathlib import Path

import pytest
import yaml
from typer.testing import Result

from r1plus_cli.errors import UsageError
from r1plus_cli.local import SHIPPED_CATALOG, load_engines
from r1plus_contract.jsonable import dumps
from r1plus_contract.suites.suite import Item, SuiteHeader, SuiteSampling, encode_items, suite_hash
from support.cli import command
from support.tables import for_each

CR = """
apiVersion: r1plus.ai/v1alpha1
kind: R1PlusDeployment
metadata: {name: credit, namespace: team-credit}
spec:
  tier: full
  access: {namespaces: [team-front]}
"""


@pytest.fixture
def suites(tmp_path: Path) -> Path:
    """A folder with a small suite under every name that the shipped catalog refers to."""
    items = encode_items([Item(f"sums-{n}", f"sums of {n}", f"{n} + 1?", "numeric", (str(n + 1),)) for n in range(3)])
    sampling = SuiteSampling()
    for name in {engine.spec.reference.suite for engine in load_engines(SHIPPED_CATALOG)}:
        sha256 = suite_hash(items, sampling, "1")
        header = SuiteHeader(name, "1.0.0", "smollm2", "full", "", "smollm2-full-f16", sha256, 3, sampling)
        (tmp_path / "suites" / name).mkdir(parents=True)
        (tmp_path / "suites" / name / "suite.json").write_text(dumps(header))
        (tmp_path / "suites" / name / "items.jsonl").write_text(items)
    return tmp_path / "suites"


def run(tmp_path: Path, suites: Path, text: str, *options: str | Path) -> Result:
    """The command on `text`."""
    file = tmp_path / "cr.yaml"
    file.write_text(text)
    return command.run("plan", "-f", file, "--suites", suites, *options)


def test_the_engine_is_named_with_the_reason_and_why_each_other_one_is_not_taken(tmp_path: Path, suites: Path) -> None:
    told = run(tmp_path, suites, CR).output
    assert "smollm2-full-f16: newest smollm2 engine of tier full" in told
    assert "smollm2-lite-q8-0: tier is lite, not full" in told
    assert (
        "not r1plus-full-fp16-tensorrt, r1plus-full-fp16-tensorrtllm, r1plus-full-fp16-vllm: family is r1plus" in told
    )
    assert "not smollm2-full-q4-1: its reference is inherited" in told


def test_what_attention_leaves_out_is_told_and_sized(tmp_path: Path, suites: Path) -> None:
    catalog = tmp_path / "catalog"
    catalog.mkdir()
    engine = next(one for one in load_engines(SHIPPED_CATALOG) if one.name == "smollm2-full-f16")
    spec = engine.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    spec["attention"] = {"eviction": {"startTokens": 32, "recentTokens": 128, "maxTokens": 1024}}
    body = {"apiVersion": "r1plus.ai/v1alpha1", "kind": "R1PlusEngine", "metadata": {"name": engine.name}, "spec": spec}
    (catalog / "engine.yaml").write_text(yaml.safe_dump(body))
    told = run(tmp_path, suites, CR, "--catalog", catalog).output
    assert "attention: the KV cache keeps 1024 tokens of a request while it generates" in told
    assert "(batch 16 x 8192 tokens, 1056 of each but the one that is read)" in told


def test_memory_is_told_term_by_term(tmp_path: Path, suites: Path) -> None:
    told = run(tmp_path, suites, CR.replace("tier: full", "tier: full\n  batching: {maxBatchSize: 4}")).output
    assert "batch 4 (from the spec)" in told
    assert "GiB = weights" in told
    assert "+ KV cache" in told
    assert "+ runtime" in told


def test_what_the_gate_asks_for_is_told_in_answers_and_tokens(tmp_path: Path, suites: Path) -> None:
    told = run(tmp_path, suites, CR.replace("tier: full", "tier: full\n  batching: {maxBatchSize: 4}")).output
    asks = "its gate asks for 3 x 3 answers, 4 at once, then 3 one by one: 288 tokens at most (24 an answer)"
    assert f"{asks}, more where one fails alone and is asked again" in told


def test_policies_name_who_may_come_in_and_what_may_go_out(tmp_path: Path, suites: Path) -> None:
    told = run(tmp_path, suites, CR).output
    assert "in:  this namespace, namespace team-front to ports 8000, 8001" in told
    assert "out: to kube-dns in namespace kube-system, ports 53, 5353" in told
    assert "everything else is dropped" in told


def test_an_inherited_reference_is_called_one(tmp_path: Path, suites: Path) -> None:
    told = run(tmp_path, suites, CR.replace("tier: full", "tier: full\n  engine: {precision: Q4_1}")).output
    assert "smollm2-full-q4-1 is not measured yet: its reference is inherited from smollm2-full-f16" in told


def test_yaml_output_is_the_objects_themselves_policies_first_and_owned(tmp_path: Path, suites: Path) -> None:
    result = run(tmp_path, suites, CR, "-o", "yaml")
    objects = [item for item in yaml.safe_load_all(result.output) if item]
    kinds = [item["kind"] for item in objects]
    assert kinds[0] == "NetworkPolicy"
    assert {"ControllerRevision", "Deployment", "ServiceAccount", "ConfigMap"} <= set(kinds)
    assert all(item["metadata"]["ownerReferences"][0]["name"] == "credit" for item in objects)


def test_a_node_that_is_too_small_is_said_and_no_pod_is_created(tmp_path: Path, suites: Path) -> None:
    result = run(tmp_path, suites, CR, "--node-memory", "64Mi")
    assert result.exit_code == 1
    assert "No pod would be created: CapacityFits=False" in result.output


def test_a_suite_that_only_the_cluster_may_have_is_assumed_and_said_with_those_at_hand(
    tmp_path: Path, suites: Path
) -> None:
    result = run(tmp_path, suites, CR + "  accuracy: {suite: my-own}\n")
    assert result.exit_code == 0
    assert "Not checked offline" in result.output
    assert "suite my-own: assumes a ConfigMap of namespace team-credit with the label r1plus.ai/suite" in result.output
    assert "smollm2-full-v1" in result.output
    assert "suite my-own: available only in the cluster" in result.output
    assert "Deployment" in result.output


def test_a_suite_of_the_file_is_used(tmp_path: Path, suites: Path) -> None:
    folder = suites / "smollm2-full-v1"
    header = (folder / "suite.json").read_text().replace("smollm2-full-v1", "my-own")
    body = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "my-own", "namespace": "team-credit", "labels": {"r1plus.ai/suite": "my-own"}},
        "data": {"suite.json": header, "items.jsonl": (folder / "items.jsonl").read_text()},
    }
    text = f"{CR}  accuracy: {{suite: my-own}}\n---\n{yaml.safe_dump(body)}"
    told = run(tmp_path, suites, text).output
    assert "suite my-own 1.0.0: 3 items" in told
    assert "suite my-own: assumes a ConfigMap" not in told
    other = text.replace("namespace: team-credit\n", "namespace: team-other\n")
    assert "suite my-own: assumes a ConfigMap" in run(tmp_path, suites, other).output


def test_nodes_that_only_the_cluster_knows_are_assumed_and_said(tmp_path: Path, suites: Path) -> None:
    result = run(tmp_path, suites, CR + "  placement: {nodeSelector: {pool: gold}}\n")
    assert result.exit_code == 0
    assert "nodes: assumes one with pool=gold" in result.output
    assert "smollm2-full-f16: newest" in result.output
    assert (
        "pool: gold" in run(tmp_path, suites, CR + "  placement: {nodeSelector: {pool: gold}}\n", "-o", "yaml").output
    )


def test_nodes_on_which_the_images_cannot_run_are_refused(tmp_path: Path, suites: Path) -> None:
    result = run(tmp_path, suites, CR + "  placement: {nodeSelector: {kubernetes.io/arch: arm64}}\n")
    assert result.exit_code == 1
    assert "arm64, and the images are for" in result.output


def test_an_invalid_deployment_is_not_planned(tmp_path: Path, suites: Path) -> None:
    result = run(tmp_path, suites, CR.replace("tier: full", "tier: medium"))
    assert result.exit_code == 1
    assert "spec.tier" in result.output


def tenant(namespace: str = "team-credit", **spec: object) -> str:
    """The R1PlusTenant of a namespace, as a document after another."""
    metadata = {"name": "tenant", "namespace": namespace}
    body = {"apiVersion": "r1plus.ai/v1alpha1", "kind": "R1PlusTenant", "metadata": metadata, "spec": spec}
    return f"---\n{yaml.safe_dump(body)}"


def test_a_caller_that_the_tenant_of_the_file_does_not_allow_stays_outside_the_policies(
    tmp_path: Path, suites: Path
) -> None:
    evil = CR.replace("[team-front]", "[team-front, team-evil]") + tenant(callers={"namespaces": ["team-front"]})
    result = run(tmp_path, suites, evil)
    assert result.exit_code == 1
    assert "CallerNotAllowed: spec.access.namespaces: team-evil: not among spec.callers.namespaces" in result.output
    assert "in:  this namespace, namespace team-front to ports 8000, 8001" in result.output
    assert "R1PlusTenant tenant of team-credit" not in result.output
    policy = next(filter(None, yaml.safe_load_all(run(tmp_path, suites, evil, "-o", "yaml").output)))
    assert policy["kind"] == "NetworkPolicy" and "team-evil" not in str(policy)


def test_whom_a_tenant_lets_in_is_assumed_where_the_file_does_not_hold_it(tmp_path: Path, suites: Path) -> None:
    for text in (CR, CR + tenant("team-other")):
        result = run(tmp_path, suites, text)
        assert result.exit_code == 0
        assert "R1PlusTenant tenant of team-credit: assumes that it allows callers team-front" in result.output


def test_a_placement_that_the_tenant_of_the_file_does_not_allow_is_not_planned(tmp_path: Path, suites: Path) -> None:
    text = CR + "  placement: {nodeSelector: {pool: gold}}\n"
    allowed = tenant(callers={"namespaces": ["team-front"]}, placement={"nodeSelectors": [{"pool": "silver"}]})
    result = run(tmp_path, suites, text + allowed)
    assert result.exit_code == 1
    assert "PlacementNotAllowed" in result.output
    assert "pool=silver" in result.output


def test_a_tenant_that_is_wrong_is_said(tmp_path: Path, suites: Path) -> None:
    result = run(tmp_path, suites, CR + tenant(callers={"namespaces": "team-front"}))
    assert result.exit_code == 1
    assert "team-credit/tenant: 1 problem" in result.output


def test_what_comes_by_a_volume_is_planned_to_the_end(tmp_path: Path, suites: Path) -> None:
    text = CR + "  delivery: {mode: Volume}\n"
    objects = [item for item in yaml.safe_load_all(run(tmp_path, suites, text, "-o", "yaml").output) if item]
    keys = [(item["kind"], item["metadata"]["name"]) for item in objects]
    assert len(keys) == len(set(keys))
    kinds = [kind for kind, _ in keys]
    order = ["NetworkPolicy", "ControllerRevision", "PersistentVolumeClaim", "Job", "Deployment", "Service"]
    assert sorted(order, key=kinds.index) == order
    (claim,) = (name for kind, name in keys if kind == "PersistentVolumeClaim")
    assert {kind for kind, name in keys if name == claim} == {
        "PersistentVolumeClaim",
        "NetworkPolicy",
        "ConfigMap",
        "Job",
    }
    assert all(item["metadata"]["ownerReferences"][0]["name"] == "credit" for item in objects)
    (pods,) = (item for item in objects if item["kind"] == "Deployment")
    assert claim in str(pods)


def test_what_comes_by_a_volume_is_told_with_what_the_chart_decides_of_it(tmp_path: Path, suites: Path) -> None:
    told = run(tmp_path, suites, CR + "  delivery: {mode: Volume}\n").output
    assert "PersistentVolumeClaim" in told
    assert "volume of the engine" in told
    assert "Job" in told
    assert "delivered onto volume" in told
    assert "the chart's delivery" in told
    assert "the chart's delivery" not in run(tmp_path, suites, CR).output


ON_CPU = """
---
apiVersion: r1plus.ai/v1alpha1
kind: R1PlusEngine
metadata: {name: smollm2-full-vllm}
spec:
  family: bank
  tier: full
  version: 1.0.0
  precision: FP32
  backend: vllm
  architecture: {layers: 30, kvHeads: 3, headSize: 64, contextLength: 8192, parameters: 134515008}
  artifact: {image: "registry.example.com/smollm2-full-vllm:1", sha256: "%s"}
  requirements: {cpu: "2", weightsMemory: 514Mi, runtimeMemory: 3Gi}
  batch: {best: 16, max: 32}
  reference: {suite: smollm2-full-v1, claimedBy: nobody yet}
"""
VLLM_ON_CPU = CR.replace("tier: full", "tier: full\n  engine: {family: bank}") + ON_CPU % ("0" * 64)


def test_vllm_on_cpu_is_refused_until_the_charts_values_name_an_image(tmp_path: Path, suites: Path) -> None:
    refused = run(tmp_path, suites, VLLM_ON_CPU)
    assert refused.exit_code == 1
    assert "No pod would be created: EngineReady=False, RuntimeNotServed" in refused.output
    assert "name a Triton image with vllm for CPU in the chart's images.cpu.vllm" in refused.output
    values = tmp_path / "values.yaml"
    values.write_text('images: {cpu: {vllm: {image: "registry.example.com/triton-vllm-cpu:1", version: "0.32.0"}}}')
    planned = run(tmp_path, suites, VLLM_ON_CPU, "--values", values, "-o", "yaml")
    assert planned.exit_code == 0, planned.output
    (deployment,) = (one for one in yaml.safe_load_all(planned.output) if one["kind"] == "Deployment")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example.com/triton-vllm-cpu:1"


@for_each("text, says", {
    "a backend that has no image for CPU": (
        "images: {cpu: {tensorrtllm: {image: a, version: '1'}}}", "'tensorrtllm': images.cpu is for torch and vllm",
    ),
    "an image of no version": ("images: {cpu: {vllm: {image: a}}}", "it names image and version by backend"),
    "a list": ("[1]", "give the file with the chart's values"),
    "a version that YAML reads as a number": (
        "images: {cpu: {vllm: {image: a, version: 0.30}}}",
        "images.cpu.vllm.version: 0.3: is no string; put it in quotes",
    ),
    "no YAML": ("images: [", "give the file with the chart's values"),
})  # fmt: skip
def test_wrong_values_are_named_with_their_file(tmp_path: Path, suites: Path, text: str, says: str) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(text)
    refused = run(tmp_path, suites, CR, "--values", values)
    assert isinstance(refused.exception, UsageError)
    assert f"--values {values}: " in str(refused.exception)
    assert says in str(refused.exception)
