"""A student from its checkpoint to traffic, by the product's own commands: refused by one suite, served with its own.

It is converted, imported and served in the real Triton, where `r1plus suite build` asks it the candidates that its
training data did not have. Then `r1plus serve` gates it twice: on its teacher's suite, and on its own.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from devcluster.cache import cache_dir
from r1plus_contract.suites.suite import Suite
from r1plus_contract.suites.suite_check import MIN_STRATA
from r1plus_edge.report import ServePhase, ServeStatus
from r1plus_model.training.examples import read_records
from r1plus_model_repo.catalog.loader import load_catalog
from r1plus_model_repo.catalog.types import EngineSpec
from r1plus_model_repo.importing.smollm2 import build_engines
from r1plus_monitoring.curate.record import read_baseline, read_suite
from support.edge.served import COMMAND, Served
from support.engine.server import ENGINES, Server, deliver, laid_out, serving
from support.engine.throughput import measure_throughputs
from support.vllm.engine import OPENVINO_TWIN
from support.waiting import wait_until

ENGINE, FAMILY, TIER = "bank-edge", "bank", "edge"
OWN_SUITE: Final = "bank-edge-v1"
STOPS: Final = ("\n", ".")
"""An answer ends with its first sentence, as in the shipped suites."""
BATCH, CONTEXT = 4, 512
GATE_SECONDS: Final = 3600.0
DEPLOYMENT: Final = f"""
apiVersion: r1plus.ai/v1alpha1
kind: R1PlusDeployment
metadata: {{name: edge, namespace: team-shop}}
spec:
  tier: {TIER}
  engine: {{family: {FAMILY}}}
  batching: {{maxBatchSize: {BATCH}}}
  context: {{maxTokens: {CONTEXT}}}
  accuracy: {{probesPerMinute: 60}}
"""
CANDIDATES_PER_ITEM: Final = 4
"""In a short run."""
REQUESTS: Final = (1, BATCH)
ROUNDS, TOKENS = 3, 64
ASKED: Final = 3
"""Questions of its own suite that the served student is asked."""
Json = dict[str, Any]


class StudentEngine:
    """The engine of a student, and its suite, in a working folder that keeps what is done."""

    def __init__(self, student: Path, work: Path, items: int) -> None:
        """`items`: of its own suite, at most; 0: as many as `r1plus suite build` takes."""
        self._student, self._work, self._items = student, work, items
        self._imported = work / "engines" / ENGINE
        self._suite = work / OWN_SUITE

    def make(self) -> None:
        """Convert and import the student."""
        file = self._work / "student.gguf"
        if not file.is_file():
            run_command("engine", "convert", str(self._student), "--out", str(file))
        if not self._imported.is_dir():
            names = ("--name", ENGINE, "--tier", TIER, "--family", FAMILY, "--suite", OWN_SUITE)
            run_command("engine", "import", str(file), *names, "--out", str(self._imported.parent))

    def build_suite(self, candidates: Path) -> Suite:
        """Build its own suite from the candidates, with a baseline that a fresh process answered."""
        if not self._suite.is_dir():
            words = [word for stop in STOPS for word in ("--stop", stop)]
            words += ["--name", OWN_SUITE, "--reference", ENGINE, "--family", FAMILY, "--tier", TIER]
            if self._items:
                candidates = self._take_some(candidates)
                each = str(self._items // MIN_STRATA)
                words += ["--size", str(self._items), "--min-items", each, "--min-per-stratum", str(int(each) // 2)]
            with self._start_server() as server:
                words += ["--served", f"{server.http},{server.grpc}", "--batch", str(BATCH), "--out", str(self._suite)]
                run_command("suite", "build", str(candidates), *words)
        if not read_baseline(self._suite).baseline:
            with self._start_server() as server:
                asked = ("--served", f"{server.http},{server.grpc}", "--batch", str(BATCH))
                run_command("suite", "baseline", str(self._suite), *asked)
        sizes = ("--min-items", "2", "--min-per-stratum", "1") if self._items else ()
        run_command("suite", "verify", str(self._suite), *sizes)
        return read_suite(self._suite)

    def _take_some(self, candidates: Path) -> Path:
        """Write fewer candidates, evenly of all, for a short run; return their file."""
        lines = candidates.read_text(encoding="utf-8").splitlines(keepends=True)
        count = min(len(lines), CANDIDATES_PER_ITEM * self._items)
        some = self._work / candidates.name
        some.write_text("".join(lines[number * len(lines) // count] for number in range(count)), encoding="utf-8")
        return some

    @contextmanager
    def _start_server(self) -> Iterator[Server]:
        """Have the real Triton serve it."""
        (engine,) = load_catalog(self._imported)
        with serve_engine(engine.spec, self._imported / "engine") as server:
            yield server

    def measure_speed(self) -> Json:
        """Return tokens per second by requests at once, beside its teacher: both run, and are asked in turn."""
        teacher = build_engines(cache_dir() / "engines", print, [OPENVINO_TWIN])[OPENVINO_TWIN].folder
        with ExitStack() as stack:
            servers = {
                OPENVINO_TWIN: stack.enter_context(serve_engine(ENGINES[OPENVINO_TWIN], teacher)),
                ENGINE: stack.enter_context(self._start_server()),
            }
            figures: Json = {}
            for requests in REQUESTS:
                found = measure_throughputs(servers, requests, ROUNDS, TOKENS)
                figures[str(requests)] = {name: asdict(one) for name, one in found.items()}
                print(f"{requests} requests at once: {found}", flush=True)
        return figures

    def describe_suite(self) -> Json:
        """Return the figures of the suite: how it was chosen, and what a fresh process reached."""
        suite, figures = read_suite(self._suite), read_baseline(self._suite)
        return {
            "items": len(suite.items),
            "strata": dict(suite.strata()),
            "selection": [f"{one.condition}: {one.correct} of {one.items}" for one in figures.selection],
            "first_strata": figures.selection[0].strata,
            "baseline": [f"{one.condition}: {one.correct} of {one.items}" for one in figures.baseline],
        }

    @contextmanager
    def serve(self, suite: str) -> Iterator[Served]:
        """Have `r1plus serve` take the engine, with a suite."""
        with tempfile.TemporaryDirectory(prefix="r1plus-bench-") as name:
            served = Served(Path(name), Path(suite), DEPLOYMENT)
            served.start("--engine", str(self._imported / "engine"), "--catalog", str(self._imported))
            try:
                yield served
            finally:
                served.end()

    def show_refusal(self, suite: str) -> Json:
        """Let its gate refuse it on a suite; no request reaches it."""
        with self.serve(suite) as served:
            served.until(ServePhase.REFUSED, GATE_SECONDS)
            wait_until(served.folder.key.exists, "its gateway has a key", evidence=lambda: served.evidence)
            answer = served.ask()
            print(served.output, flush=True)
            return {"suite": suite, **_describe(served.status), "answer": answer.status_code}

    def show_traffic(self) -> Json:
        """Let it pass on its own suite and answer; return what it says."""
        with self.serve(str(self._suite)) as served:
            served.until(ServePhase.SERVING, GATE_SECONDS)
            print(served.output, flush=True)
            items, answers = read_suite(self._suite).items, []
            for item in items[:: len(items) // ASKED][:ASKED]:
                response = served.ask(item.prompt)
                response.raise_for_status()
                text = response.json()["choices"][0]["message"]["content"]
                verdict = response.headers["x-r1plus-verdict"]
                answers.append({"question": item.prompt, "answer": text, "verdict": verdict})
                print(f"{item.prompt} -> {text!r} ({verdict})", flush=True)
            return {"suite": OWN_SUITE, **_describe(served.status), "answers": answers}


def serve_student(student: Path, data: Path, candidates: Path, refusing: str, work: Path, items: int) -> Json:
    """Take a student from its checkpoint to traffic; return the figures. `items`: of its own suite, at most; 0: all.

    Raises:
        DistillationError: a question of its own suite is in the data.
    """
    work.mkdir(parents=True, exist_ok=True)
    engine = StudentEngine(student, work, items)
    engine.make()
    read_records(data, [engine.build_suite(candidates)])
    figures = {"student": student.name, "own_suite": engine.describe_suite()}
    print(json.dumps(figures), flush=True)
    figures |= {"refused": engine.show_refusal(refusing), "served": engine.show_traffic()}
    return {**figures, "tokens_per_second": engine.measure_speed()}


@contextmanager
def serve_engine(spec: EngineSpec, folder: Path) -> Iterator[Server]:
    """Have the real Triton serve an engine for the block."""
    with tempfile.TemporaryDirectory(prefix="r1plus-bench-") as name, laid_out() as installed:
        models = deliver(Path(name), spec, folder, BATCH, CONTEXT)
        with serving(Server(Path(name), installed, models)) as server:
            yield server


def run_command(*words: str) -> None:
    """Run `r1plus`, which prints; raise SystemExit if it fails."""
    print(f"r1plus {' '.join(map(repr, words))}", flush=True)
    if status := subprocess.run([COMMAND, *words], check=False).returncode:
        raise SystemExit(f"r1plus {' '.join(words[:2])}: exit status {status}; its message is above")


def _describe(status: ServeStatus) -> Json:
    (gate,) = [step for step in status.steps if step.name == "gate"]
    return {
        "phase": status.phase.value,
        "verdict": status.verdict,
        "right": status.accuracy,
        "threshold": status.threshold,
        "message": status.message,
        "gate_seconds": round(gate.seconds),
    }
