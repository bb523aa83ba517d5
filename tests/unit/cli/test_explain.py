"""`r1plus explain`: the operator's own choice over what the cluster holds, told to a person."""

from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from r1plus_cli import local
from r1plus_cli.deployment.explain import explain
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import VLLM_ON_CPU
from support.cli.deployments import READY, cr

Json = dict[str, Any]
ROOT = Path(__file__).parents[3]
SUITES = local.load_suites(ROOT / "monitoring" / "suites")
NODE = {"metadata": {"name": "n1", "uid": "u"}, "status": {"allocatable": {"cpu": "4", "memory": "16Gi"}}}


class Cluster:
    """A cluster that holds one deployment, the shipped catalog and one node."""

    def __init__(self, spec: Json, nodes: list[Json] | None, **status: Any) -> None:
        self._cr = {**cr(READY, **status), "spec": spec}
        self._nodes = nodes

    def get_deployment(self, namespace: str, name: str) -> Json:
        return self._cr

    def list_engines(self) -> list[Json]:
        return [
            {"metadata": {"name": e.name, "uid": "u"}, "spec": e.spec.model_dump(mode="json", by_alias=True)}
            for e in load_catalog(local.SHIPPED_CATALOG)
        ]

    def list_nodes(self) -> list[Json] | None:
        return self._nodes

    def list_suites(self, namespace: str) -> list[Json]:
        return []


def told(cluster: Cluster) -> tuple[bool, str]:
    out = StringIO()
    console = Console(file=out, width=200)
    config = local.build_config("smollm2", is_installed=True)
    served = explain(console, cluster, "team-credit", "credit", SUITES, config)
    return served, out.getvalue()


def test_it_names_the_engine_the_others_and_every_term_of_memory() -> None:
    served, text = told(Cluster({"tier": "full"}, [NODE], engine="smollm2-full-f16", revision="credit-1", batch=16))
    assert served
    words = ("smollm2-full-f16: ", "not smollm2-full-q4-1: ", "smollm2-lite-q8-0: tier is lite", "batch 16", "KV cache")
    assert [word for word in words if word not in text] == []
    assert "revision credit-1: smollm2-full-f16, batch 16" in text


def test_an_image_with_vllm_for_cpu_is_assumed_of_a_cluster_and_not_of_the_chart() -> None:
    assert VLLM_ON_CPU in local.build_config("smollm2", is_installed=True).runtimes
    assert VLLM_ON_CPU not in local.build_config("smollm2").runtimes


def test_what_serves_is_told_where_the_spec_asks_for_something_else() -> None:
    spec = {"tier": "full", "engine": {"precision": "Q4_1"}}
    _, text = told(Cluster(spec, [NODE], engine="smollm2-full-f16", revision="credit-1", batch=16))
    assert "the spec selects smollm2-full-q4-1" in text


def test_what_serves_keeps_the_batch_that_it_has() -> None:
    serves = {"engine": "smollm2-full-f16", "revision": "credit-1", "batch": 6, "context": 8192}
    _, text = told(Cluster({"tier": "full"}, [NODE], **serves))
    assert "batch 6 x 8192 tokens" in text
    _, text = told(Cluster({"tier": "full", "context": {"maxTokens": 4096}}, [NODE], **serves))
    assert "batch 16 x 4096 tokens" in text


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        pytest.param(
            {"tier": "full", "engine": {"version": "9.9.9"}}, ["EngineNotFound", "9.9.9"], id="no such engine"
        ),
        pytest.param({"tier": "full", "placement": {"nodeSelector": {"a": "b"}}}, ["NoNodeFits"], id="no node"),
    ],
)
def test_a_spec_that_cannot_be_served_is_told_with_its_reason(spec: Json, words: list[str]) -> None:
    served, text = told(Cluster(spec, [NODE]))
    assert not served
    assert [word for word in words if word not in text] == []


def test_who_may_not_see_nodes_is_told_so_and_still_gets_the_choice() -> None:
    served, text = told(Cluster({"tier": "edge"}, None))
    assert served
    assert "You may not list nodes" in text
    assert "smollm2-edge-q4-1: " in text
