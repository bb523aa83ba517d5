"""The part `served` of `make bench NAME=model`: a healed model as an engine of the edge tier, beside the dense one.

It is imported, gated by the monitor's own gate on a suite of its own and on the dense model's, timed in turn with the
dense engine, and served by `r1plus serve`. All of it with the product's commands and the real Triton.
"""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from r1plus_contract.inference import FinishReason
from r1plus_contract.metrics import OutcomeLabel
from r1plus_contract.suites.suite import Item, Suite, encode_items
from r1plus_contract.verdict import Verdict
from r1plus_edge.report import ServePhase
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import EngineSpec
from r1plus_monitoring.curate.record import read_suite
from r1plus_monitoring.curate.selection import count_strata
from r1plus_monitoring.scoring.scorers import score
from r1plus_policies.gate.verdict import Rules
from support.edge.served import COMMAND, Served
from support.engine.gate import GateOutcome, run_gate
from support.engine.server import Server, deliver, laid_out, serving
from support.engine.throughput import measure_throughputs
from support.model import environment
from support.model.engine import import_checkpoint

HEALED, DENSE = "r1-edge", "r1-dense"
SUITE: Final = "r1-edge-v1"
CONTEXT: Final = 512
THRESHOLD: Final = 0.98
"""The default of `spec.accuracy.threshold`."""
GATE_SECONDS: Final = 4 * 3600.0
"""Until `r1plus serve` answers: a gate asks 850 times one by one, and the machine may be busy."""
REQUESTS: Final = (1, 4, 8)
ROUNDS: Final = 3
DEPLOYMENT: Final = f"""
apiVersion: r1plus.ai/v1alpha1
kind: R1PlusDeployment
metadata: {{name: edge, namespace: team-shop}}
spec:
  tier: edge
  engine: {{family: r1}}
  context: {{maxTokens: {CONTEXT}}}
  accuracy: {{suite: {SUITE}, probesPerMinute: 6}}
"""
Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """What is served, and how much is measured."""

    healed: Path
    dense: Path
    """Folders of checkpoints."""
    candidates: tuple[Item, ...]
    reference_suite: Suite
    """Of the dense model."""
    items: int
    """Most items of the suite of its own; 0: as many as `r1plus suite build` takes."""
    tokens: int
    """Of each answer whose pace is measured."""
    threads: int


def measure(request: Request, root: Path) -> Figures:
    """Return the figures. What is made lies below `root`."""
    stage = Stage(request, root)
    with laid_out() as installed:
        suite, figures = stage.build_suite(installed)
        figures |= stage.gate(installed, suite)
        figures["tokens_per_second"] = stage.measure_speed(installed)
    has_passed = suite is not None and figures[f"gate on {SUITE}"]["verdict"] == Verdict.PASS
    return figures | ({"serve": stage.serve(suite)} if suite and has_passed else {})


class Stage:
    """Both engines, and servers of them."""

    def __init__(self, request: Request, root: Path) -> None:
        self._request, self._root = request, root
        cpu = ("--cpu", str(request.threads))
        self._folders = {
            HEALED: import_checkpoint(request.healed, HEALED, SUITE, root / "engines", *cpu),
            DENSE: import_checkpoint(request.dense, DENSE, SUITE, root / "engines", *cpu),
        }
        self._python = environment.write_python(root)
        self._starts = 0

    def build_suite(self, installed: Path) -> tuple[Suite | None, Figures]:
        """Build the suite by `r1plus suite build`; None if too few candidates stay right."""
        file, folder = self._root / "candidates.jsonl", self._root / SUITE
        file.write_text(encode_items(self._request.candidates), encoding="utf-8")
        figures: Figures = {"candidates": count_strata(self._request.candidates)}
        batch = self._read_spec(HEALED).batch.best
        with self._serve(installed, HEALED, batch) as server:
            words = [str(file), "--name", SUITE, "--reference", HEALED, "--family", "r1", "--tier", "edge"]
            words += ["--out", str(folder), "--stop", "\n", "--stop", ".", *self._choose_shape()]
            try:
                _run_suite("build", server, batch, *words)
            except SuiteCommandError as error:
                return None, figures | {"suite": {"problem": str(error)}}
        suite = read_suite(folder)
        print(f"{SUITE}: {suite.strata()}", flush=True)
        return suite, figures | {"suite": {"items": len(suite.items), "strata": suite.strata()}}

    def gate(self, installed: Path, suite: Suite | None) -> Figures:
        """Gate the healed engine on its own suite, after a restart, and on the dense model's."""
        batch = self._read_spec(HEALED).batch.best
        rules = Rules(threshold=THRESHOLD, batch=batch)
        figures: Figures = {"batch": batch}
        suites = [*([suite] if suite else []), self._request.reference_suite]
        with self._serve(installed, HEALED, batch) as server:
            if suite:
                _run_suite("baseline", server, batch, str(self._root / SUITE))
            for one in suites:
                outcome = run_gate(server, one, rules)
                figures[f"gate on {one.header.name}"] = _describe_gate(outcome, one)
                print(f"gate on {one.header.name}: {outcome.judgement.message}", flush=True)
        return figures

    def measure_speed(self, installed: Path) -> Figures:
        """Return tokens per second by requests at once: both engines run, and are asked in turn."""
        figures: Figures = {}
        with ExitStack() as stack:
            servers = {}
            for name in (DENSE, HEALED):
                batch = self._read_spec(name).batch.max
                servers[name] = stack.enter_context(self._serve(installed, name, batch))
            for count in REQUESTS:
                found = measure_throughputs(servers, count, ROUNDS, self._request.tokens)
                figures[str(count)] = {name: asdict(one) for name, one in found.items()}
                print(f"{count} requests at once: {found}", flush=True)
        return figures

    def serve(self, suite: Suite) -> Figures:
        """Serve the healed engine by `r1plus serve`, and ask it an item of its suite."""
        root = self._root / "serve"
        root.mkdir()
        program = self._python.with_name("r1plus")
        served = Served(root, self._root / SUITE, DEPLOYMENT, program=program)
        folder = self._folders[HEALED]
        began = time.monotonic()
        try:
            served.start("--engine", str(folder / "engine"), "--catalog", str(folder))
            served.until(ServePhase.SERVING, GATE_SECONDS)
            served.until_announced()
            seconds = time.monotonic() - began
            item = suite.items[0]
            response = served.ask(item.prompt)
        finally:
            served.end()
        response.raise_for_status()
        answer = response.json()["choices"][0]["message"]["content"]
        figures = {
            "seconds": round(seconds, 1),
            "question": item.prompt,
            "answer": answer,
            "right": score(item, answer, FinishReason.STOP) == OutcomeLabel.CORRECT,
            "verdict": response.headers["x-r1plus-verdict"],
        }
        print(f"r1plus serve: {figures}", flush=True)
        return figures

    def _choose_shape(self) -> tuple[str, ...]:
        """Return options of a small suite for a short run; none for the shape that a suite has otherwise."""
        items = self._request.items
        each = max(1, items // 4)
        return ("--size", str(items), "--min-items", str(2 * each), "--min-per-stratum", str(each)) if items else ()

    def _read_spec(self, name: str) -> EngineSpec:
        (engine,) = load_catalog(self._folders[name] / "engine.yaml")
        return engine.spec

    @contextmanager
    def _serve(self, installed: Path, name: str, batch: int) -> Iterator[Server]:
        """Yield a fresh Triton with an engine, as a pod has it."""
        self._starts += 1
        root = self._root / f"triton-{self._starts}"
        root.mkdir()
        models = deliver(root, self._read_spec(name), self._folders[name] / "engine", batch, CONTEXT)
        with serving(Server(root, installed, models, python=str(self._python))) as server:
            yield server


class SuiteCommandError(Exception):
    """`r1plus suite` has failed; the text is its last line."""


def _run_suite(verb: str, server: Server, batch: int, *words: str) -> None:
    """Run a verb of `r1plus suite` that asks a server at this batch, and print its lines as they come."""
    command = [str(COMMAND), "suite", verb, *words, "--served", f"{server.http},{server.grpc}", "--batch", str(batch)]
    line = ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            for line in process.stdout or ():
                print(line, end="", flush=True)
        except BaseException:  # SIGTERM ends the bench, which would wait for the command.
            process.terminate()
            raise
    if process.returncode:
        raise SuiteCommandError(line.strip())


def _describe_gate(outcome: GateOutcome, suite: Suite) -> Figures:
    judgement = outcome.judgement
    return {
        "verdict": judgement.verdict.value,
        "reason": judgement.reason.value,
        "message": judgement.message,
        "items": len(suite.items),
        "asked": len(outcome.answers),
        "right": outcome.correct,
        "probes": judgement.figures.probes,
        "seconds": round(outcome.seconds, 1),
    }
