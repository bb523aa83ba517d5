"""A real Prometheus on loopback, with the configuration that a test gives it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from devcluster import binaries
from devcluster.cache import binary
from devcluster.steps import Steps
from support.ports import free_port


@contextmanager
def prometheus(folder: Path, **config: Any) -> Iterator[str]:
    """Run it in this folder; yields its URL. It is built first where the cache lacks it."""
    if not binary("prometheus").exists():
        binaries.build(Steps(1), ("prometheus",))
    port = free_port()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    options = ("--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(binary("prometheus")), *options], cwd=folder, stderr=log, stdout=log)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
