"""One engine on one suite: `r1plus serve` runs it in a folder of its own until its gate has decided and it serves.

The folder stays until the figures are kept. So a trial that was interrupted goes on with the verdict that it has.
"""

import asyncio
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import yaml

from r1plus_cli.advice.candidates import Candidate
from r1plus_cli.advice.figures import EngineFigures
from r1plus_cli.advice.speed import measure_speed
from r1plus_cli.errors import CliError
from r1plus_contract.metrics import PROBE_RESULTS_TOTAL, OutcomeLabel
from r1plus_contract.names import API_VERSION, KIND_DEPLOYMENT
from r1plus_contract.suites.suite import Suite
from r1plus_contract.timestamps import format_timestamp
from r1plus_contract.verdict import GateReport
from r1plus_edge.data_folder import DataFolder
from r1plus_edge.objects import load_objects
from r1plus_edge.pods.container import die_with_parent
from r1plus_edge.pods.processes import find_processes
from r1plus_edge.report import ServePhase, ServeStatus, read_status
from r1plus_model_repo.catalog.quantity import cores_of
from r1plus_operator.plan.revision.storage import read_revisions

HERE = "this machine"
NAME, TENANT = "trial", "advise"
LOOK_SECONDS = 1.0
METRICS_SECONDS = 5.0
STOP_SECONDS = 30.0
"""For `serve` to end: it takes five."""
_PROGRESS = re.compile(r" +[0-9.]+ s  | {11}\S")
"""Lines of `serve` that tell how far it is; what follows them says how to call it."""
_UNANSWERED = re.compile(
    rf'^{PROBE_RESULTS_TOTAL}{{[^}}]*outcome="(?:{OutcomeLabel.ERROR}|{OutcomeLabel.TIMEOUT})"[^}}]*}} (\S+)$',
    re.MULTILINE,
)
_ENDED = frozenset({ServePhase.SERVING, ServePhase.REFUSED})


@dataclass(frozen=True, slots=True)
class Place:
    """Where trials are, and what all of them share."""

    root: Path
    """A folder of this trial's own."""
    catalog: Path
    suite: str
    """Name of a shipped suite, or a folder."""
    tell: Callable[[str], None]


class UnansweredError(CliError):
    """The gate counts a probe without an answer as lost: right for what serves, wrong for a comparison of engines."""


def run_trial(candidate: Candidate, suite: Suite, place: Place) -> EngineFigures:
    """Gate the engine, and measure its speed if it serves. Ends what it has started, however this ends.

    Raises:
        UnansweredError: the machine was too slow for the engine.
        CliError: the engine cannot be served here.
    """
    place.root.mkdir(parents=True, exist_ok=True)
    with _Serve(candidate, place) as serve:
        status = serve.wait()
        if serve.unanswered:
            raise UnansweredError(
                f"{serve.unanswered} probes of its gate got an error, or no answer in time, so what it lost says"
                " nothing of the engine: the machine is too busy or too slow, or an item is longer than the context;"
                " measure again alone, or with a longer --context"
            )
        report = serve.read_report()
        speed = None
        if status.phase is ServePhase.SERVING:
            began = time.monotonic()
            speed = asyncio.run(
                measure_speed(
                    status.url,
                    serve.data.key.read_text(encoding="utf-8").strip(),
                    NAME,
                    suite,
                    batch=candidate.fit.batch,
                    threads=cores_of(candidate.engine.spec.requirements.cpu),
                    list_processes=lambda: find_processes(serve.data.root),
                )
            )
            seconds = time.monotonic() - began
            place.tell(
                f"{seconds:7.1f} s  {'speed':<9} {speed.tokens_per_second:.0f} tokens/s at {candidate.fit.batch}"
            )
    return EngineFigures(
        engine=candidate.engine.name,
        tier=candidate.engine.spec.tier.value,
        source=HERE,
        report=report,
        batch=candidate.fit.batch,
        context=candidate.fit.context,
        reserved_bytes=candidate.fit.total_bytes,
        speed=speed,
        measured_at=format_timestamp(time.time()),
    )


def remove_trial(root: Path) -> None:
    """Remove what a trial has left, once its figures are kept."""
    shutil.rmtree(root, ignore_errors=True)


class _Serve:
    """An `r1plus serve`: it ends with the block, and with this process."""

    def __init__(self, candidate: Candidate, place: Place) -> None:
        self.data = DataFolder(place.root / "data")
        self._place = place
        self.unanswered = 0
        """Probes of the gate that got an error, or no answer in time."""
        self._output = place.root / "errors.txt"
        file = place.root / "deployment.yaml"
        file.write_text(_render_deployment(candidate), encoding="utf-8")
        self._command = [str(Path(sys.prefix) / "bin" / "r1plus"), "serve", "-f", str(file)]
        self._command += ["--engine", candidate.engine.name, "--suite", place.suite, "--catalog", str(place.catalog)]
        # Some families are shipped apart.
        self._command += ["--family", candidate.engine.spec.family]
        self._command += ["--data", str(self.data.root), "--listen", "127.0.0.1:0"]

    def __enter__(self) -> "_Serve":
        self.data.status.unlink(missing_ok=True)
        with self._output.open("wb") as errors:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                errors="replace",
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one call of prctl, and no thread runs yet
            )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._forward, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()  # Its guardian ends the rest.
            self._process.wait()
        self._reader.join(STOP_SECONDS)

    def wait(self) -> ServeStatus:
        """Return its status when the gate has decided: it serves, or is refused."""
        while True:
            status = read_status(self.data.status)
            is_own = status is not None and status.pid == self._process.pid
            if status is not None and is_own and status.monitor_url:
                # Now and again, since a monitor that has failed its gate is soon gone.
                self.unanswered = max(self.unanswered, count_unanswered(_read_metrics(status.monitor_url)))
            if status is not None and is_own and status.phase in _ENDED and self.data.key.exists():
                return status
            if self._process.poll() is not None:
                raise CliError(self._explain_end())
            time.sleep(LOOK_SECONDS)

    def read_report(self) -> GateReport:
        """Return the report of the trial's gate."""
        revisions = read_revisions(load_objects(self.data.objects).children).values()
        reports = [report for revision in revisions for report in revision.verdicts]
        if not reports:
            raise CliError(f"the gate has no verdict; see {self.data.logs}")
        return max(reports, key=lambda report: report.decided_at)

    def _forward(self, output: IO[str]) -> None:
        is_starting = True
        for line in output:
            is_starting = is_starting and not line.startswith("Serving ")
            if is_starting and _PROGRESS.match(line):
                self._place.tell(line.rstrip("\n"))

    def _explain_end(self) -> str:
        lines = self._output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        status = f"r1plus serve ended with status {self._process.returncode}"
        return f"{status}: {lines[-1].strip()}" if lines else status


def count_unanswered(exposition: str) -> int:
    """Return how many probes got no answer, from the monitor's metrics."""
    return sum(int(float(number)) for number in _UNANSWERED.findall(exposition))


def _read_metrics(url: str) -> str:
    try:
        return httpx.get(f"{url}/metrics", timeout=METRICS_SECONDS, trust_env=False).text
    except httpx.HTTPError:
        return ""


def _render_deployment(candidate: Candidate) -> str:
    spec = candidate.spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    # The folder may be one of the user's own, whose name `--suite` gives.
    spec["accuracy"] = {key: value for key, value in spec["accuracy"].items() if key != "suite"}
    metadata = {"name": NAME, "namespace": TENANT}
    document = {"apiVersion": API_VERSION, "kind": KIND_DEPLOYMENT, "metadata": metadata, "spec": spec}
    return str(yaml.safe_dump(document, sort_keys=False))
