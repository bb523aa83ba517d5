"""`r1plus advise` with the real Triton: measured, interrupted, killed, and found again."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devcluster.cache import cache_dir
from r1plus_edge.pods.processes import find_processes
from support.edge.served import COMMAND, START_SECONDS
from support.edge.suites import write_part
from support.waiting import wait_until

pytestmark = [pytest.mark.edge, pytest.mark.timeout(3000)]
ENGINE = "smollm2-edge-q4-1"


class Advise:
    """One folder of results, and runs of the command on it."""

    def __init__(self, root: Path, suite: Path) -> None:
        self.data = root / "data"
        self._errors = root / "errors.txt"
        self._words = [
            "--suite",
            str(suite),
            "--engines",
            ENGINE,
            "--price",
            "0.08",
            "--batch",
            "4",
            "--context",
            "512",
        ]

    def start(self) -> "subprocess.Popen[bytes]":
        """Start it; its document goes to a pipe."""
        with self._errors.open("wb") as errors:
            return subprocess.Popen(
                [str(COMMAND), "advise", *self._words, "--data", str(self.data), "-o", "json"],
                env={**os.environ, "R1PLUS_CACHE": str(cache_dir())},
                stdout=subprocess.PIPE,
                stderr=errors,
            )

    @property
    def errors(self) -> str:
        """What it has told."""
        return self._errors.read_text(errors="replace")

    def is_gone(self) -> bool:
        """Whether nothing of a trial runs."""
        return all(find_processes(folder) == [] for folder in self.data.glob("trials/*/data"))

    def until_gating(self) -> None:
        """Wait until the gate has begun."""
        wait_until(lambda: "gate " in self.errors, "the gate has begun", 600, evidence=lambda: self.errors)

    def measure(self) -> dict[str, Any]:
        """Run it to its end; return its document."""
        with self.start() as process:
            output, _ = process.communicate(timeout=START_SECONDS)
        assert process.returncode == 0, self.errors
        return dict(json.loads(output))


@pytest.fixture(scope="module")
def advise(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Advise]:
    root = tmp_path_factory.mktemp("advise")
    yield Advise(root, write_part(root / "part-v1"))


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGKILL, -9)],
    ids=["Ctrl-C", "TERM", "KILL"],
)
def test_a_run_that_is_ended_leaves_no_process(advise: Advise, number: int, status: int) -> None:
    with advise.start() as process:
        advise.until_gating()
        assert not advise.is_gone()
        os.kill(process.pid, number)
        assert process.wait(START_SECONDS) == status
    wait_until(advise.is_gone, "nothing of it runs", evidence=lambda: advise.errors)
    if status == 1:
        assert "Interrupted; 0 of 1 engines are measured" in advise.errors


def test_the_next_run_measures_and_the_one_after_finds_it(advise: Advise) -> None:
    first = advise.measure()
    (engine,) = first["engines"]
    assert (engine["engine"], engine["correct"], engine["items"]) == (ENGINE, 32, 32)
    assert (engine["batch"], engine["context"], engine["meetsThreshold"]) == (4, 512, True)
    assert engine["lower"] < 1 == engine["upper"]
    assert engine["speed"]["tokensPerSecond"] > 0
    assert engine["speed"]["firstTokenSeconds"] > 0
    # The engine's weights alone are 93 MiB.
    assert 93 < engine["speed"]["memoryMiB"] < 4096
    assert engine["costPerThousand"] > 0
    assert first["cheapest"] == ENGINE
    assert list(advise.data.glob("trials/*")) == []
    assert advise.is_gone()

    assert advise.measure() | {"machine": ""} == first | {"machine": ""}  # The disk's free room is part of it.
    assert "gate " not in advise.errors


def test_a_suite_that_it_gets_wrong_has_no_recommendation(tmp_path: Path) -> None:
    advise = Advise(tmp_path, write_part(tmp_path / "wrong-v1", wrong=4))
    with advise.start() as process:
        output, _ = process.communicate(timeout=START_SECONDS)
    assert process.returncode == 1, advise.errors
    document = json.loads(output)
    assert document["cheapest"] is None
    assert [one["correct"] for one in document["engines"]] == [16]
    assert len(document["engines"][0]["lostStrata"]) == 4
