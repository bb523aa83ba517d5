"""What `plan` and `validate` use instead of a cluster: catalog, golden suites, the chart's settings."""

import sys
from collections.abc import Iterable
from pathlib import Path

from r1plus_cli.documents import Document
from r1plus_cli.errors import UsageError
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.config import load_shipped_suites
from r1plus_operator.observe import suite_projection
from r1plus_operator.plan.observation import SuiteSource
from r1plus_operator.plan.settings import AccessMode, GpuRuntime, OperatorConfig, SuiteTrust, VolumeTerms

DEFAULT_FAMILY = "smollm2"
SHIPPED_CATALOG = Path(catalog.__file__).parent
_IN_CHECKOUT = Path(__file__).parents[2] / "monitoring" / "suites"
SHIPPED_SUITES = _IN_CHECKOUT if _IN_CHECKOUT.is_dir() else Path(sys.prefix) / "share" / "r1plus" / "suites"
"""A wheel has them outside of its packages."""


def build_config(family: str) -> OperatorConfig:
    """Return the chart's defaults, with the chart's image references.

    Trusted keys, allowed networks, volume access modes and GPU images are not checked here: only the cluster's chart
    has them.
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


def load_engines(folder: Path, family: str | None = None) -> tuple[Engine, ...]:
    """Return the catalog of a folder, with the family's own if it is shipped apart. Errors have file, field, value."""
    if not folder.is_dir():
        raise UsageError(f"--catalog {folder}: no such folder; omit the option to use the shipped catalog")
    try:
        engines = tuple(load_catalog(folder))
        return (*engines, *load_catalog(folder / family)) if family in list_separate_families(folder) else engines
    except ValueError as error:
        raise UsageError(f"--catalog {folder}: {error}") from error


def list_separate_families(folder: Path) -> tuple[str, ...]:
    """Return the families whose engines are in no catalog unless their family is asked for. Only shipped ones are."""
    return tuple(sorted({file.parent.name for file in folder.glob("*/*.yaml")})) if folder == SHIPPED_CATALOG else ()


def load_suites(folder: Path) -> dict[str, SuiteSource]:
    """Return golden suites by name: folders with suite.json and items.jsonl.

    A broken one is included with its problem.
    """
    return load_shipped_suites(folder)


def select_suites(deployment: Document, maps: Iterable[Document]) -> dict[str, SuiteSource]:
    """Return the golden suites of these ConfigMaps in the deployment's namespace, by name."""
    own = (document for document in maps if document.namespace == deployment.namespace)
    return {document.name: suite_projection.read_suite(document.body) for document in own}
