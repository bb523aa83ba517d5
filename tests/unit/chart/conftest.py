"""Renders the chart with the real helm, once for each set of values; helm is built if the cache lacks it."""

import json
import os
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
from support.chart import CHART, Objects, Refusal, Render
from support.waiting import DEADLINE_SECONDS

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The C loader reads the same ten times as fast."""


@pytest.fixture(scope="session")
def helm() -> Path:
    """The helm that the demo installs with."""
    found = binary("helm")
    if not found.exists():
        binaries.build(Steps(1), ("helm",))
    return found


@pytest.fixture(scope="session")
def run_helm(helm: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs one helm verb over the chart with the given values; images may bear tags, unless these say otherwise."""

    def run(verb: str, values: Mapping[str, Any], *words: str, chart: Path = CHART) -> subprocess.CompletedProcess[str]:
        path = tmp_path_factory.mktemp("values") / "values.json"
        path.write_text(json.dumps({**values, "images": {"requireDigests": False, **values.get("images", {})}}))
        target = [str(chart)] if verb == "lint" else ["r1plus", str(chart), "--namespace=r1plus-system"]
        command = [str(helm), verb, *target, f"--values={path}", f"--kube-version={KUBERNETES}", *words]
        # It ends before Go's garbage would matter; collecting it takes a third of the processor time.
        environment = {**os.environ, "GOGC": "off"}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=DEADLINE_SECONDS
        )

    return run


@pytest.fixture(scope="session")
def render(run_helm: Callable[..., subprocess.CompletedProcess[str]]) -> Render:
    """The objects that `helm install` would send, hooks included; `kinds` are API kinds the cluster shall have.

    Tests share what the shipped chart renders, and must not change it. A `chart` of a test's own is rendered each time.
    """
    rendered: dict[str, Objects] = {}

    def objects(
        values: Mapping[str, Any] | None = None, *, kinds: tuple[str, ...] = (), chart: Path = CHART
    ) -> Objects:
        key = json.dumps([values or {}, kinds], sort_keys=True)
        if chart == CHART and key in rendered:
            return rendered[key]
        done = run_helm("template", values or {}, *(f"--api-versions={kind}" for kind in kinds), chart=chart)
        assert done.returncode == 0, done.stderr
        found = [one for one in yaml.load_all(done.stdout, Loader=LOADER) if one]
        if chart == CHART:
            rendered[key] = found
        return found

    return objects


@pytest.fixture(scope="session")
def refusal(run_helm: Callable[..., subprocess.CompletedProcess[str]]) -> Refusal:
    """What helm says of values that it refuses."""

    def said(values: Mapping[str, Any]) -> str:
        done = run_helm("template", values)
        assert done.returncode != 0
        return done.stderr

    return said
