"""`make scan`: checkov over the rendered chart and over what the operator makes of the examples, by `.checkov.yaml`.

checkov has an environment of its own in the cache, at one version: it is no dependency of the project's. The last line
is JSON; the exit status is 1 where a check failed, or where so few were made that nothing was scanned.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from devcluster import binaries
from devcluster.cache import binary, cache_dir, log_dir
from devcluster.parts import KUBERNETES
from devcluster.steps import Steps
from devcluster.toolchain import install_tool
from r1plus_operator.plan.settings import DnsTerms, IsolationTerms, OperatorConfig
from r1plus_operator.plan.tenancy import decoy, isolation_test_jobs, isolation_test_run, network_policies

ROOT = Path(__file__).parents[1]
CHECKOV = "3.3.30"
CONFIG = ROOT / ".checkov.yaml"
DECOY, TEAM = "r1plus-decoy", "team-credit"
OPTIONAL = ("monitoring.coreos.com/v1/PodMonitor", "monitoring.coreos.com/v1/PrometheusRule")
LEAST = 100
"""Checks of each file that pass: fewer, and it was not rendered."""
Json = dict[str, Any]


def chart() -> str:
    """All that helm could install, as it is by default, with the images that `make` builds."""
    if not binary("helm").exists():
        binaries.build(Steps(1), ("helm",))
    command = [str(binary("helm")), "template", "r1plus", str(ROOT / "charts" / "r1plus-operator")]
    command += [
        "--namespace=r1plus-system",
        "--set=images.requireDigests=false",
        f"--kube-version={KUBERNETES}",
        *(f"--api-versions={kind}" for kind in OPTIONAL),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def examples() -> str:
    """What the operator makes of every example, by its own plan."""
    command = [str(Path(sys.executable).with_name("r1plus")), "plan", "-f", str(ROOT / "examples"), "-o", "yaml"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


def tenant() -> str:
    """A tenant's walls, a run of its prober, and the decoy."""
    terms = IsolationTerms(decoy_namespace=DECOY)
    config = OperatorConfig("monitor:1", "triton:1", "smollm2", "r1plus-system", "monitoring", isolation=terms)
    run = isolation_test_run.IsolationTestRun(TEAM, "0", "credit", {"credit": "1", "": "2"}, 1)
    own = [
        network_policies.build_default_deny(TEAM),
        network_policies.build_callers_policy(TEAM, (), DnsTerms()),
        isolation_test_jobs.build_service_account(TEAM),
        isolation_test_jobs.build_network_policy(TEAM, config),
    ]
    theirs = [
        network_policies.build_default_deny(DECOY),
        *decoy.build_network_policies(config),
        *decoy.build_objects(config),
    ]
    return str(yaml.safe_dump_all([*own, *theirs, *isolation_test_jobs.build_jobs(run, config)]))


SCANNED = (chart, examples, tenant)


def findings(report: Any) -> Iterator[str]:
    """A line for each check that failed."""
    for part in report if isinstance(report, list) else [report]:
        for one in part.get("results", {}).get("failed_checks", ()):
            yield f"{one['check_id']} {one['resource']}: {one['check_name']}"


def passed(report: Any) -> Counter[str]:
    """How many checks were made and passed, by file."""
    parts = report if isinstance(report, list) else [report]
    found = (one["file_path"] for part in parts for one in part.get("results", {}).get("passed_checks", ()))
    return Counter(Path(path).stem for path in found)


def main() -> int:
    """Render, scan, tell."""
    steps = Steps(3)
    with steps.step(f"checkov {CHECKOV}", log_dir() / "checkov.log") as step:
        there = (cache_dir() / f"checkov-{CHECKOV}").is_dir()
        checkov = install_tool("checkov", CHECKOV)
        step.cached() if there else step.built()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with steps.step("The chart, the examples, a tenant: rendered"):
            for make in SCANNED:
                (folder / f"{make.__name__}.yaml").write_text(make())
        with steps.step("Scanned"):
            command = [str(checkov), f"--config-file={CONFIG}", f"--directory={folder}", "--output=json", "--soft-fail"]
            scanned = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, cwd=folder)
    report = json.loads(scanned.stdout)
    failed, good = list(findings(report)), passed(report)
    for line in failed:
        print(line)
    skipped = len(yaml.safe_load(CONFIG.read_text())["skip-check"])
    print(json.dumps({"checkov": CHECKOV, "passed": dict(good), "failed": len(failed), "skipped_by_config": skipped}))
    return 1 if failed or any(good[make.__name__] < LEAST for make in SCANNED) else 0


if __name__ == "__main__":
    sys.exit(main())
