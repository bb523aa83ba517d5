"""Renders the chart with the real helm. helm comes from the cache, built there if this machine has none yet."""

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import binaries
from devcluster.cache import binary
from devcluster.parts import KUBERNETES
from devcluster.steps import Steps

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "r1plus-operator"

Objects = list[dict[str, Any]]
Render = Callable[..., Objects]


@pytest.fixture(scope="session")
def helm() -> Path:
    """The helm that the demo installs with."""
    found = binary("helm")
    if not found.exists():
        binaries.build(Steps(1), ("helm",))
    return found


@pytest.fixture(scope="session")
def run_helm(helm: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs one helm verb over the chart with the given values."""

    def run(verb: str, values: Mapping[str, Any], *words: str, chart: Path = CHART) -> subprocess.CompletedProcess[str]:
        path = tmp_path_factory.mktemp("values") / "values.json"
        path.write_text(json.dumps(values))
        target = [str(chart)] if verb == "lint" else ["r1plus", str(chart), "--namespace=r1plus-system"]
        command = [str(helm), verb, *target, f"--values={path}", f"--kube-version={KUBERNETES}", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return run


@pytest.fixture(scope="session")
def render(run_helm: Callable[..., subprocess.CompletedProcess[str]]) -> Render:
    """The objects that `helm install` would send, hooks included; `kinds` are API kinds the cluster shall have."""

    def objects(
        values: Mapping[str, Any] | None = None, *, kinds: tuple[str, ...] = (), chart: Path = CHART
    ) -> Objects:
        done = run_helm("template", values or {}, *(f"--api-versions={kind}" for kind in kinds), chart=chart)
        assert done.returncode == 0, done.stderr
        return [found for found in yaml.safe_load_all(done.stdout) if found]

    return objects
