"""Updates of `r1plus serve` to other software, with the real Triton: two slots, and a slot that serves at every step."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from r1plus_edge.bundle.install import CURRENT
from r1plus_edge.data_folder import find_holder
from r1plus_edge.report import ServePhase
from support.edge.served import DEPLOYMENT, START_SECONDS, Served, calling, read_command, serving
from support.edge.slots import DEAD, DOUBTFUL, LAME, write_slot, write_slots
from support.edge.small_machine import measure_request, write_small_program
from support.edge.suites import write_part
from support.waiting import wait_until

pytestmark = [pytest.mark.edge, pytest.mark.timeout(6000)]


@dataclass(frozen=True, slots=True)
class Device:
    """A machine whose software came of bundles."""

    software: Path
    served: Served

    @property
    def current(self) -> str:
        """Which slot the next start runs."""
        return (self.software / CURRENT).resolve().name

    @property
    def serving_slot(self) -> str:
        """Which slot serves: the one whose monitor is asked."""
        pid = self.served.find("r1plus_monitoring")
        return _find_slot(self.software, pid)

    def update(self, slot: str) -> "tuple[int, str]":
        result = self.served.call("update", "--software", str(self.software / slot))
        return result.returncode, result.stdout + result.stderr


def _find_slot(software: Path, pid: int) -> str:
    path = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    (own,) = (one.decode().removeprefix("PATH=") for one in path if one.startswith(b"PATH="))
    return Path(own.split(":")[0]).relative_to(software).parts[0]


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    software = tmp_path_factory.mktemp("software")
    write_slots(software, "a", "b")
    suite = write_part(tmp_path_factory.mktemp("suites") / "part-v1")
    served = Served(tmp_path_factory.mktemp("serve"), suite, DEPLOYMENT, program=software / CURRENT / "bin/r1plus")
    served.start()
    try:
        served.until_announced()
        yield Device(software, served)
    finally:
        served.end()


def test_other_software_is_gated_beside_what_serves_and_takes_over_without_a_failed_request(device: Device) -> None:
    served, before = device.served, device.served.status
    with calling(served) as caller:
        code, output = device.update("b")
        count = caller.count
        wait_until(lambda: caller.count > count, "callers are answered by the new one")
    assert code == 0, output
    assert "Pass, 32/32 right" in output
    # A revision has its name from what is asked for, whatever software runs it.
    assert (caller.failures, caller.revisions) == ([], [before.revision])
    assert (device.serving_slot, device.current) == ("b", "b")
    after = served.status
    assert (after.pid, after.url) == (before.pid, before.url), "a service of systemd sees no change"
    assert find_holder(served.folder) == before.pid
    assert not served.folder.trial.root.exists()
    print(f"longest gap between two answers: {caller.longest_gap:.1f} s")


def test_software_that_does_not_start_changes_nothing(device: Device) -> None:
    before, running = device.served.status.revision, device.serving_slot
    write_slot(device.software, "dead", DEAD)
    with calling(device.served) as caller:
        code, output = device.update("dead")
    assert (code, "Fail, taken back" in output, "this release is broken" in output) == (1, True, True), output
    assert (caller.failures, caller.revisions) == ([], [before])
    assert (device.serving_slot, device.current) == (running, running)


FAULTS = {
    "does not come up": (LAME, "this release is lame"),
    "fails the check of the engine that it has loaded": (DOUBTFUL, "answers otherwise than in its trial"),
}


@pytest.mark.parametrize(("fault", "reason"), FAULTS.values(), ids=FAULTS)
def test_software_that_passes_its_trial_and_then_fails_gives_way_to_what_served_before(
    device: Device, fault: tuple[str, str], reason: str
) -> None:
    served, before, running = device.served, device.served.status, device.serving_slot
    write_slot(device.software, Path(fault[0]).stem, fault)
    with calling(served) as caller:
        code, output = device.update(Path(fault[0]).stem)
    assert (code, "Fail, taken back" in output, reason in output) == (1, True, True), output
    assert (caller.failures, caller.revisions) == ([], [before.revision])
    assert (device.serving_slot, device.current, served.status.pid) == (running, running, before.pid)


STEPS = {
    "during the trial": ("gate ", False),
    "when it has passed its trial": (" trial ", False),
    "while it takes over": ("switching", False),
    "when it serves": (" serves", True),
}


@pytest.mark.parametrize(("step", "has_switched"), STEPS.values(), ids=STEPS)
def test_after_a_power_cut_at_each_step_a_slot_serves(device: Device, step: str, has_switched: bool) -> None:
    served, running = device.served, device.serving_slot
    other = next(name for name in ("a", "b") if name != running)
    with served.updating("--software", str(device.software / other)) as update:
        assert update.stdout is not None
        next(line for line in update.stdout if step in line)
        if step == "switching":
            wait_until(
                lambda: read_command(served.pid).find(f"/{other}/") > 0, "it has become the new software", START_SECONDS
            )
        served.kill()
        update.communicate(timeout=START_SECONDS)
    served.start()
    served.until_announced()
    assert "Stockholm" in served.ask().text
    assert device.serving_slot == (other if has_switched else running)
    assert device.current == device.serving_slot
    assert not served.folder.trial.root.exists()
    assert "the gate runs again" not in served.output, "what each slot has recorded holds"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a machine look smaller")
def test_where_the_memory_holds_one_alone_what_serves_stops_for_the_trial_and_comes_back_on_a_fail(
    device: Device, tmp_path: Path
) -> None:
    program = write_small_program(tmp_path, device.software / CURRENT / "bin/r1plus", measure_request(device.served))
    suite = write_part(tmp_path / "part-v1")
    with serving(tmp_path, suite, program=program) as small:
        before = small.status.revision
        failing = str(write_part(tmp_path / "wrong-v1", wrong=4))
        other = next(name for name in ("a", "b") if name != device.current)
        with small.updating("--software", str(device.software / other), "--suite", failing) as update:
            wait_until(lambda: small.ask().status_code == 503, "what serves has stopped for the trial", START_SECONDS)
            output, _ = update.communicate(timeout=START_SECONDS)
        assert (update.returncode, f"Fail, taken back, {before} " in output) == (1, True), output
        small.until(ServePhase.SERVING)
        assert "Stockholm" in small.ask().text
        assert (small.status.revision, device.current) == (before, next(n for n in ("a", "b") if n != other))
        # In place nothing else serves meanwhile, and still nothing does that has failed the check of its engine.
        doubtful = write_slot(device.software, "doubtful-in-place", DOUBTFUL)
        result = small.call("update", "--software", str(doubtful))
        assert (result.returncode, "answers otherwise than in its trial" in result.stdout) == (1, True), result.stdout
        small.until(ServePhase.SERVING)
        assert "Stockholm" in small.ask().text
        assert (small.status.revision, device.serving_slot) == (before, device.current)
