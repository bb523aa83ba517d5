"""`r1plus plan` as a newcomer runs it: the whole command, on files, without a cluster."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from r1plus_cli.local import SHIPPED_CATALOG, engines_in
from r1plus_cli.main import app
from r1plus_contract.jsonable import dumps
from r1plus_contract.suite import Item, Sampling, SuiteHeader, encode_items, suite_hash

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
    return CliRunner().invoke(app, ["plan", "-f", str(file), "--suites", str(suites), *options])


def full(more: str = "") -> str:
    """The deployment, with this in its spec."""
    return CR.replace("tier: full", f"tier: full\n  {more}")


TOLD = {
    "the engine is named with the reason and why each other one is not taken": (
        CR,
        [
            "smollm2-full-f16: newest smollm2 engine of tier full",
            "smollm2-lite-q8-0: tier is lite, not full",
            "not r1plus-full-fp16-tensorrt, r1plus-full-fp16-tensorrtllm, r1plus-full-fp16-vllm: family is r1plus",
            "not smollm2-full-q4-1: its reference is inherited",
        ],
    ),
    "memory is told term by term": (
        full("batching: {maxBatchSize: 4}"),
        ["batch 4 (as asked)", "GiB = weights", "+ KV cache", "+ runtime"],
    ),
    "walls name who may come in and what may go out": (
        CR,
        [
            "in:  this namespace, namespace team-front to ports 8000, 8001",
            "out: to kube-dns in namespace kube-system, ports 53, 5353",
            "everything else is dropped",
        ],
    ),
    "an inherited reference is called one": (
        full("engine: {precision: Q4_1}"),
        ["nobody has measured smollm2-full-q4-1 yet: its reference is inherited from smollm2-full-f16"],
    ),
}


@pytest.mark.parametrize(("text", "words"), TOLD.values(), ids=TOLD)
def test_what_is_told(tmp_path: Path, suites: Path, text: str, words: list[str]) -> None:
    told = run(tmp_path, suites, text).output
    assert [word for word in words if word not in told] == []


def test_yaml_output_is_the_objects_themselves_walls_first_and_owned(tmp_path: Path, suites: Path) -> None:
    result = run(tmp_path, suites, CR, "-o", "yaml")
    objects = [item for item in yaml.safe_load_all(result.output) if item]
    kinds = [item["kind"] for item in objects]
    assert kinds[0] == "NetworkPolicy"
    assert {"ControllerRevision", "Deployment", "ServiceAccount", "ConfigMap"} <= set(kinds)
    assert all(item["metadata"]["ownerReferences"][0]["name"] == "credit" for item in objects)


REFUSED: dict[str, tuple[str, tuple[str, ...], list[str]]] = {
    "a node that is too small, and no pod is created": (
        CR,
        ("--node-memory", "64Mi"),
        ["No pod would be created: CapacityFits=False"],
    ),
    "a suite that is not there, with those that are": (
        CR + "  accuracy: {suite: my-own}\n",
        (),
        ["SuiteNotFound", "smollm2-full-v1"],
    ),
    "an invalid deployment": (CR.replace("tier: full", "tier: medium"), (), ["spec.tier"]),
}


@pytest.mark.parametrize(("text", "options", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_planned(
    tmp_path: Path, suites: Path, text: str, options: tuple[str, ...], words: list[str]
) -> None:
    result = run(tmp_path, suites, text, *options)
    assert result.exit_code == 1
    assert [word for word in words if word not in result.output] == []
