"""Updates of `r1plus serve` and its way back, with the real Triton, while callers ask all the time."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.cache import cache_dir
from r1plus_edge.objects import load_objects
from r1plus_edge.report import ServePhase
from r1plus_edge.update.request import UpdateRecord, load_record
from r1plus_operator.plan.revision.record import find_current_revision
from r1plus_operator.plan.revision.storage import read_revisions
from support.edge.engines import write_broken
from support.edge.served import COMMAND, DEPLOYMENT, START_SECONDS, Served, calling, read_objects, serving
from support.edge.small_machine import measure_request, write_small_program
from support.edge.suites import write_part
from support.waiting import wait_until

pytestmark = [pytest.mark.edge, pytest.mark.timeout(6000)]
ROLLBACK = DEPLOYMENT.replace("probesPerMinute: 60", "probesPerMinute: 600, onBreach: Rollback")
BAKE_SECONDS = 20
ENVIRONMENT = {"R1PLUS_BAKE_SECONDS": str(BAKE_SECONDS)}
"""As the stories of a cluster have it: ten minutes are the default."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    suite = write_part(tmp_path_factory.mktemp("suites") / "part-v1")
    with serving(tmp_path_factory.mktemp("serve"), suite, ROLLBACK, ENVIRONMENT) as running:
        yield running


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folder and catalog of an engine that answers wrongly."""
    sound = cache_dir() / "engines" / "smollm2-edge-q4-1"
    files, catalog = write_broken(sound, tmp_path_factory.mktemp("broken"))
    return str(files), str(catalog)


def write_file(folder: Path, batch: int, text: str = ROLLBACK) -> str:
    file = folder / f"batch-{batch}.yaml"
    file.write_text(text.replace("maxBatchSize: 4", f"maxBatchSize: {batch}"))
    return str(file)


def read_record(served: Served) -> UpdateRecord:
    origin = json.loads(served.folder.update.read_text())["origin"]
    return load_record(served.folder.update, origin)


def has_baked(served: Served) -> bool:
    """Whether what serves has done so for as long as what is gone back to must have."""
    current = find_current_revision(read_revisions(load_objects(served.folder.objects).children).values())
    assert current is not None
    assert current.promoted_at is not None
    return time.time() - current.promoted_at > BAKE_SECONDS


def test_an_update_is_gated_beside_what_serves_and_no_request_fails(served: Served, tmp_path: Path) -> None:
    first = served.status.revision
    with calling(served) as caller:
        lower = ROLLBACK.replace("accuracy: {", "accuracy: {threshold: 0.97, ")
        with served.updating("-f", write_file(tmp_path, 2, lower)) as update:
            wait_until(lambda: served.status.update.startswith("gate"), "it is being gated", START_SECONDS)
            second = served.call("update", "-f", write_file(tmp_path, 3))
            assert (second.returncode, "Another update is under way" in second.stdout) == (1, True)
            output, _ = update.communicate(timeout=START_SECONDS)
        wait_until(lambda: caller.revisions[-1:] != [first], "callers are answered by the new one")
    assert update.returncode == 0, output
    assert "32/32 right" in output
    assert "gate " in output
    assert caller.failures == []
    assert caller.revisions == [first, served.status.revision]
    assert (served.status.update, served.status.threshold) == ("", 0.97)
    print(f"longest gap between two answers: {caller.longest_gap:.1f} s")


def test_an_engine_that_fails_is_taken_back_and_no_request_fails(served: Served, broken: tuple[str, str]) -> None:
    before, (files, catalog) = served.status.revision, broken
    with calling(served) as caller:
        update = served.call("update", files, "--catalog", catalog)
    assert update.returncode == 1, update.stdout
    assert f"Fail, taken back, {before} " in update.stdout
    assert "TooManyLost" in update.stdout
    assert caller.failures == []
    assert caller.revisions == [before]
    assert read_record(served).pending is None


@pytest.mark.parametrize(
    ("step", "has_switched"),
    [("engine", False), ("gate", False), ("serves", True)],
    ids=["before its pod is up", "while it is gated", "after the switch"],
)
def test_after_a_power_cut_at_each_step_something_serves(
    served: Served, tmp_path: Path, step: str, has_switched: bool
) -> None:
    before = served.status.revision
    with served.updating("-f", write_file(tmp_path, 1)) as update:
        assert update.stdout is not None
        next(line for line in update.stdout if f" {step}" in line)
        wait_until(lambda: has_switched or read_record(served).pending is not None, "the update is on record")
        served.kill()
        output, _ = update.communicate(timeout=START_SECONDS)
    assert update.returncode == (0 if has_switched else 1), output
    served.start()
    served.until_announced()
    assert "Stockholm" in served.ask().text
    assert (served.status.revision != before) == has_switched
    assert read_record(served).pending is None
    assert ("An update was interrupted" in served.output) == (not has_switched)


def test_a_restart_with_other_options_undoes_the_update(served: Served) -> None:
    assert read_record(served).in_force.file
    assert served.call("stop").returncode == 0
    served.wait()
    served.start("--gate", "Observe")
    served.until_announced()
    assert read_record(served).in_force.file == ""
    (current,) = [
        one
        for one in read_objects(served.folder, "ControllerRevision")
        if one["metadata"]["name"] == served.status.revision
    ]
    assert current["data"]["identity"]["batch"] == 4


def test_when_the_accuracy_falls_the_last_good_engine_serves_again_and_no_request_fails(
    served: Served, broken: tuple[str, str], tmp_path: Path
) -> None:
    wait_until(lambda: has_baked(served), "what serves can be gone back to", 600)
    good, (files, catalog) = served.status.revision, broken
    observing = write_file(tmp_path, 4, ROLLBACK.replace("onBreach: Rollback", "onBreach: Rollback, gate: Observe"))
    with calling(served) as caller:
        update = served.call("update", files, "-f", observing, "--catalog", catalog)
        wait_until(
            lambda: caller.revisions[-1] == good and len(caller.revisions) > 1,
            "it has gone back",
            START_SECONDS,
            evidence=lambda: served.evidence,
        )
    assert caller.failures == []
    assert [caller.revisions[0], caller.revisions[-1]] == [good, good]
    assert len(caller.revisions) == 3
    # The drop may be seen before or after the update is done.
    assert "RolledBack" in update.stdout + served.call("status").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a machine look smaller")
def test_where_the_memory_holds_one_alone_an_engine_that_fails_gives_way_to_what_served_before(
    served: Served, broken: tuple[str, str], tmp_path: Path
) -> None:
    program = write_small_program(tmp_path, COMMAND, measure_request(served))
    suite = write_part(tmp_path / "part-v1")
    with serving(tmp_path, suite, program=program) as small:
        before, (files, catalog) = small.status.revision, broken
        with small.updating(files, "--catalog", catalog) as update:
            wait_until(lambda: small.ask().status_code == 503, "what serves has stopped for the gate", START_SECONDS)
            output, _ = update.communicate(timeout=START_SECONDS)
        assert (update.returncode, f"Fail, taken back, {before} " in output) == (1, True), output
        small.until(ServePhase.SERVING)
        assert "Stockholm" in small.ask().text
        assert small.status.revision == before
