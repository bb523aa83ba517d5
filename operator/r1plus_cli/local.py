"""What `plan` and `validate` take instead of a cluster: catalog, golden suites, the chart's settings."""

from collections.abc import Iterable
from pathlib import Path

from r1plus_cli.documents import Document
from r1plus_cli.errors import UsageError
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.config import shipped_suites
from r1plus_operator.observe import projections
from r1plus_operator.plan.observation import SuiteSource
from r1plus_operator.plan.settings import AccessMode, GpuRuntime, OperatorConfig, SuiteTrust, VolumeTerms

DEFAULT_FAMILY = "smollm2"
SHIPPED_CATALOG = Path(catalog.__file__).parent
SHIPPED_SUITES = Path(__file__).parents[2] / "monitoring" / "suites"
"""Suites travel in the chart, not in the package: this folder is there in a checkout only."""


def config_for(family: str) -> OperatorConfig:
    """The chart's defaults; image references stay as the chart names them.

    Whose signature a suite or an engine needs, from where one may be fetched, what a volume can and which images there
    are for GPUs is not judged here: only the cluster's chart knows that.
    """
    return OperatorConfig(
        monitor_image="r1plus.local/r1plus-monitor:dev",
        triton_image="r1plus.local/triton-cpu:dev",
        default_family=family,
        operator_namespace="r1plus-system",
        monitoring_namespace="monitoring",
        gpu_runtimes={
            "tensorrtllm": GpuRuntime("r1plus.local/triton-tensorrtllm:dev", None),
            "vllm": GpuRuntime("r1plus.local/triton-vllm:dev", None),
        },
        suite_trust=SuiteTrust(required=False),
        volumes=VolumeTerms(access_mode=AccessMode.MANY_NODES, cidrs=("0.0.0.0/0",), require_signature=False),
    )


def engines_in(folder: Path) -> tuple[Engine, ...]:
    """The catalog of a folder; its errors name file, field and value."""
    if not folder.is_dir():
        raise UsageError(f"--catalog {folder}: no such folder; without the option the shipped catalog is used")
    try:
        return tuple(load_catalog(folder))
    except ValueError as error:
        raise UsageError(f"--catalog {folder}: {error}") from error


def suites_in(folder: Path) -> dict[str, SuiteSource]:
    """Golden suites by name: each a folder with suite.json and items.jsonl. A broken one is kept, with its problem."""
    return shipped_suites(folder)


def suites_for(deployment: Document, maps: Iterable[Document]) -> dict[str, SuiteSource]:
    """Golden suites among these ConfigMaps that lie in the deployment's namespace, by name."""
    own = (document for document in maps if document.namespace == deployment.namespace)
    return {document.name: projections.suite(document.body) for document in own}
