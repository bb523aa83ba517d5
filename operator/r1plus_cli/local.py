"""What `plan` and `validate` use instead of a cluster: catalog, golden suites, the chart's settings."""

import sys
from collections.abc import Iterable
from pathlib import Path

import yaml

from r1plus_cli.documents import Document
from r1plus_cli.errors import UsageError
from r1plus_model_repo import catalog
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import Engine
from r1plus_operator.config import load_shipped_suites, parse_runtimes
from r1plus_operator.observe import suite_projection
from r1plus_operator.plan.engine.feasibility import SERVABLE
from r1plus_operator.plan.observation import SuiteSource
from r1plus_operator.plan.settings import (
    CPU_RUNTIMES,
    AccessMode,
    OperatorConfig,
    SuiteTrust,
    TritonRuntime,
    VolumeTerms,
)

DEFAULT_FAMILY = "smollm2"
SHIPPED_CATALOG = Path(catalog.__file__).parent
_IN_CHECKOUT = Path(__file__).parents[2] / "monitoring" / "suites"
SHIPPED_SUITES = _IN_CHECKOUT if _IN_CHECKOUT.is_dir() else Path(sys.prefix) / "share" / "r1plus" / "suites"
"""A wheel has them outside of its packages."""
_ASSUMED_CPU_RUNTIMES = {
    backend: TritonRuntime(f"r1plus.local/triton-{runtime}:dev", None) for backend, runtime in CPU_RUNTIMES.items()
}
_ASSUMED_GPU_RUNTIMES = {
    backend.value: TritonRuntime(f"r1plus.local/triton-{backend.value}:dev", None) for backend in sorted(SERVABLE)
}


def build_config(family: str, values: Path | None = None, *, is_installed: bool = False) -> OperatorConfig:
    """Return the chart's defaults, with the chart's image references, and the images of `values`, a chart's values.

    Without `values` every image for GPUs is assumed. One with vLLM for CPU is assumed if `is_installed`: it is a live
    cluster's, whose chart may name one. Trusted keys, allowed networks and volume access modes are not checked here:
    only the cluster's chart has them.
    """
    gpu_runtimes, cpu_runtimes = _ASSUMED_GPU_RUNTIMES, _ASSUMED_CPU_RUNTIMES if is_installed else {}
    if values is not None:
        gpu_runtimes, cpu_runtimes = _read_runtimes(values)
    return OperatorConfig(
        monitor_image="r1plus.local/r1plus-monitor:dev",
        triton_image="r1plus.local/triton-cpu:dev",
        trainer_image="r1plus.local/r1plus-trainer:dev",
        default_family=family,
        operator_namespace="r1plus-system",
        monitoring_namespace="monitoring",
        gpu_runtimes=gpu_runtimes,
        cpu_runtimes=cpu_runtimes,
        suite_trust=SuiteTrust(required=False),
        volumes=VolumeTerms(access_mode=AccessMode.MANY_NODES, cidrs=("0.0.0.0/0",), require_signature=False),
    )


def _read_runtimes(values: Path) -> tuple[dict[str, TritonRuntime], dict[str, TritonRuntime]]:
    """Return the Triton images for GPUs and those for CPU that the values name, by backend."""
    try:
        document = yaml.safe_load(values.read_text("utf-8")) or {}
        images = document.get("images") or {}
        gpu, cpu = (
            parse_runtimes(images.get(name) or {}, f"images.{name}", backends)
            for name, backends in (("gpu", {backend.value for backend in SERVABLE}), ("cpu", CPU_RUNTIMES))
        )
    except (OSError, UnicodeError, yaml.YAMLError, AttributeError, ValueError) as error:
        raise UsageError(f"--values {values}: {error}; give the file with the chart's values") from error
    return gpu, cpu


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
