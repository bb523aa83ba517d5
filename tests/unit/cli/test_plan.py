"""`r1plus plan` as a newcomer runs it: the whole command, on files, without a cluster."""

from pathlib import Path

import pytest
import yaml
from typer.testing import Result

from r1plus_cli.local import SHIPPED_CATALOG, engines_in
from r1plus_contract.jsonable import dumps
from r1plus_contract.suite import Item, Sampling, SuiteHeader, encode_items, suite_hash
from support.cli import command

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
    sampling = Sampling()
    for name in {engine.spec.reference.suite for engine in engines_in(SHIPPED_CATALOG)}:
        sha256 = suite_hash(items, sampling, "1")
        header = SuiteHeader(name, "1.0.0", "smollm2", "full", "", "smollm2-full-f16", sha256, 3, sampling)
        (tmp_path / "suites" / name).mkdir(parents=True)
        (tmp_path / "suites" / name / "suite.json").write_text(dumps(header))
        (tmp_path / "suites" / name / "items.jsonl").write_text(items)
    return tmp_path / "suites"


def run(tmp_path: Path, suites: Path, text: str, *options: str) -> Result:
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


def test_memory_is_told_term_by_term(tmp_path: Path, suites: Path) -> None:
    told = run(tmp_path, suites, CR.replace("tier: full", "tier: full\n  batching: {maxBatchSize: 4}")).output
    assert "batch 4 (as asked)" in told
    assert "GiB = weights" in told
    assert "+ KV cache" in told
    assert "+ runtime" in told


def test_walls_name_who_may_come_in_and_what_may_go_out(tmp_path: Path, suites: Path) -> None:
    told = run(tmp_path, suites, CR).output
    assert "in:  this namespace, namespace team-front to ports 8000, 8001" in told
    assert "out: to kube-dns in namespace kube-system, ports 53, 5353" in told
    assert "everything else is dropped" in told


def test_an_inherited_reference_is_called_one(tmp_path: Path, suites: Path) -> None:
    told = run(tmp_path, suites, CR.replace("tier: full", "tier: full\n  engine: {precision: Q4_1}")).output
    assert "nobody has measured smollm2-full-q4-1 yet: its reference is inherited from smollm2-full-f16" in told


def test_yaml_output_is_the_objects_themselves_walls_first_and_owned(tmp_path: Path, suites: Path) -> None:
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


def test_a_suite_that_is_not_there_is_said_with_those_that_are(tmp_path: Path, suites: Path) -> None:
    result = run(tmp_path, suites, CR + "  accuracy: {suite: my-own}\n")
    assert result.exit_code == 1
    assert "SuiteNotFound" in result.output
    assert "smollm2-full-v1" in result.output


def test_an_invalid_deployment_is_not_planned(tmp_path: Path, suites: Path) -> None:
    result = run(tmp_path, suites, CR.replace("tier: full", "tier: medium"))
    assert result.exit_code == 1
    assert "spec.tier" in result.output
