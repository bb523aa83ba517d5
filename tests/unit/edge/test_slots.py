"""Slots of software: what serves turns into another one, or goes back, and callers wait meanwhile."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from r1plus_edge.bundle.install import COMPLETE, CURRENT, switch_current
from r1plus_edge.data_folder import DataFolder, find_holder
from r1plus_edge.errors import EdgeError
from r1plus_edge.objects import Objects
from r1plus_edge.pods.images import Images
from r1plus_edge.report import ServePhase, ServeStatus
from r1plus_edge.update.handover import (
    ENV_HANDOVER,
    Handover,
    HandoverKind,
    build_environment,
    take_handover,
    tell_asker,
)
from r1plus_edge.update.request import UpdateRecord, UpdateRequest, load_record, save_record
from r1plus_edge.update.slots import check_slot, make_current, remove_other_slots
from r1plus_edge.update.supervisor import heed_signals
from r1plus_edge.update.trial import adopt_trial, load_own_objects, remove_trial, run_trial, settle_trial
from r1plus_operator.plan.deployment import Plan


def make_slot(root: Path, name: str, program: str = "") -> Path:
    """Make a slot whose `r1plus` is a program of ours."""
    (root / name / "bin").mkdir(parents=True)
    file = root / name / "bin/r1plus"
    file.write_text(f"#!{sys.executable}\n{program}")
    file.chmod(0o755)
    (root / name / COMPLETE).touch()
    return root / name


def test_what_serves_turns_into_a_whole_slot_beside_its_own(tmp_path: Path) -> None:
    own, new = make_slot(tmp_path, "own"), make_slot(tmp_path, "new")
    (tmp_path / "link").symlink_to(new)
    assert [check_slot(software, own) for software in (new, tmp_path / "link")] == [new, new]


REFUSED = {
    "half": "no bundle was installed there to its end; give the bundle again",
    "elsewhere/new": "its next start would run that again; start it with",
}


@pytest.mark.parametrize(("name", "words"), REFUSED.items(), ids=["interrupted", "in another folder"])
def test_other_software_is_refused(tmp_path: Path, name: str, words: str) -> None:
    own = make_slot(tmp_path, "own")
    for one in REFUSED:
        make_slot(tmp_path, one)
    (tmp_path / "half" / COMPLETE).unlink()
    with pytest.raises(EdgeError, match=words):
        check_slot(tmp_path / name, own)


def test_software_of_a_clone_takes_no_slot(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match=f"what serves runs out of {sys.prefix}"):
        check_slot(make_slot(tmp_path, "new"))


def test_slots_but_the_newest_two_and_those_that_run_are_removed(tmp_path: Path) -> None:
    names = ("former", "new", "old", "runs")
    former, new, old, runs = (make_slot(tmp_path, name, "print('runs', flush=True); input()") for name in names)
    (tmp_path / "half").mkdir()
    switch_current(tmp_path, former)
    assert make_current(new)
    assert (tmp_path / CURRENT).resolve() == new
    with subprocess.Popen([runs / "bin/r1plus"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        # Just after it was started a process has no command line yet.
        assert process.stdout is not None and process.stdout.readline() == b"runs\n"
        assert remove_other_slots(tmp_path, (new, former)) == [old]
        process.communicate(b"\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == [CURRENT, "former", "half", "new", "runs"]


def test_where_the_link_is_another_users_nothing_is_claimed(tmp_path: Path) -> None:
    new = make_slot(tmp_path, "new")
    (tmp_path / CURRENT).mkdir()
    assert not make_current(new)
    assert not (tmp_path / CURRENT).is_symlink()
    (tmp_path / CURRENT).rmdir()
    assert make_current(new)


SERVES_FROM = """
import fcntl, os, socket, sys
from pathlib import Path
from r1plus_edge.data_folder import DataFolder, hold
from r1plus_edge.update.handover import Handover, HandoverKind, become
folder, software = DataFolder(Path(sys.argv[1])), Path(sys.argv[2])
with hold(folder) as lock, socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as asker:
    print(listener.getsockname()[1], flush=True)
    asker.connect(("127.0.0.1", int(input())))
    input()
    handover = Handover(HandoverKind.FORWARD, listener=listener.fileno(), asker=asker.fileno())
    become(software, ("serve", "--data", str(folder.root)), handover, (lock, listener.fileno(), asker.fileno()))
"""
ANSWERS = """
import json, os, socket, sys
handover = json.loads(os.environ["R1PLUS_SERVE_HANDOVER"])
listener, asker = socket.socket(fileno=handover["listener"]), socket.socket(fileno=handover["asker"])
asker.sendall(json.dumps(sys.argv[1:]).encode() + b"\\n")
input()
while True:
    client, _ = listener.accept()
    client.sendall(b"answer")
    client.close()
"""


def test_process_lock_and_callers_stay_when_it_becomes_other_software(tmp_path: Path) -> None:
    slot, folder = make_slot(tmp_path, "new", ANSWERS), DataFolder(tmp_path / "data")
    folder.root.mkdir()
    command = [sys.executable, "-c", SERVES_FROM, str(folder.root), str(slot)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
        socket.create_server(("127.0.0.1", 0)) as askers,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        address = "127.0.0.1", int(process.stdout.readline())
        process.stdin.write(f"{askers.getsockname()[1]}\n")
        process.stdin.flush()
        asker, _ = askers.accept()
        with asker, socket.create_connection(address) as caller:
            process.stdin.write("\n")
            process.stdin.flush()
            assert json.loads(asker.makefile().readline()) == ["serve", "--data", str(folder.root)]
            assert find_holder(folder) == process.pid, "the lock of the folder is never free"
            with socket.create_connection(address) as second:
                process.stdin.write("\n")
                process.stdin.flush()
                assert [one.makefile().read() for one in (caller, second)] == ["answer", "answer"]
        process.kill()


async def test_a_stop_while_it_cleans_up_is_not_lost_with_the_old_software() -> None:
    async def clean_up() -> str:
        os.kill(os.getpid(), signal.SIGUSR1)
        await heed_signals()
        return "becomes other software"

    task = asyncio.create_task(clean_up())
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, task.cancel)
    try:
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)


def test_a_handover_is_taken_once_and_by_releases_that_know_more_or_less() -> None:
    handover = Handover(HandoverKind.BACK, UpdateRequest(engine="q8"), former="/software/a", problem="it ended")
    environ = build_environment(handover)
    assert take_handover(environ) == handover
    assert take_handover(environ) is None
    newer = {ENV_HANDOVER: '{"kind": "Trial", "data": "/data/trial", "fromTheFuture": 1}'}
    assert take_handover(newer) == Handover(HandoverKind.TRIAL, data="/data/trial")
    with pytest.raises(EdgeError, match="another release of r1plus sets it: unset it"):
        take_handover({ENV_HANDOVER: "{"})


def test_whatever_has_ended_the_new_software_the_old_one_can_be_started(tmp_path: Path) -> None:
    """A log may have any characters, and many."""
    problem = "\0\udc80… " * 100_000 + "the end"
    handover = Handover(HandoverKind.FORWARD, former=str(tmp_path)).go_back(problem)
    prints = "import os; print(os.environ['R1PLUS_SERVE_HANDOVER'])"
    own = build_environment(handover) | {"LC_ALL": "C", "PYTHONUTF8": "0"}
    said = subprocess.run([sys.executable, "-c", prints], env=own, capture_output=True, text=True, check=True).stdout
    assert take_handover({ENV_HANDOVER: said}) == handover
    assert handover.problem.endswith("the end")
    kept, asker = socket.socketpair()
    with kept:
        tell_asker(asker.detach(), handover.problem)
        assert kept.recv(16)


REFUSES_THE_FOLDER = """
import asyncio, sys
from pathlib import Path
from types import SimpleNamespace
from r1plus_edge.update.handover import Handover, HandoverKind
from r1plus_edge.update.supervisor import serve
options = SimpleNamespace(data=Path(sys.argv[1]), words=("serve", "--tier", "edge"))
asyncio.run(serve(options, None, Handover(HandoverKind.FORWARD, former=sys.argv[2])))
"""
COMES_BACK = """
import os, sys
print(sys.argv[1:], os.environ["R1PLUS_SERVE_HANDOVER"])
"""


@pytest.mark.unit_slow
def test_new_software_that_cannot_have_the_folder_goes_back(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    former = make_slot(tmp_path, "former", COMES_BACK)
    command = [sys.executable, "-c", REFUSES_THE_FOLDER, str(tmp_path / "data"), str(former)]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.stdout.startswith("['serve', '--tier', 'edge'] "), said.stderr
    assert '"kind": "Back"' in said.stdout
    assert "is a file; name a folder" in said.stdout


def images(name: str) -> Images:
    return Images(f"triton@{name}", f"monitor@{name}", "gateway", Path("/server"))


def write_objects(folder: DataFolder, name: str) -> None:
    """Let software have recorded a revision."""
    template = {"spec": {"containers": [{"name": "triton", "image": f"triton@{name}"}]}}
    revision = {"kind": "ControllerRevision", "metadata": {"name": name}, "data": {"template": template}}
    folder.root.mkdir(parents=True, exist_ok=True)
    Objects(folder.objects).apply(Plan(apply=((revision,),)))


def crash_before(folder: DataFolder) -> None:
    """A power cut after the trial."""


def crash_between(folder: DataFolder) -> None:
    """A power cut after the first of the two writes."""
    adopt_trial(folder)
    write_objects(folder, "old")


STEPS = {"before it takes over": crash_before, "between its writes": crash_between, "after its writes": adopt_trial}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_after_a_power_cut_the_old_software_has_its_revision_and_its_update(tmp_path: Path, step: Any) -> None:
    folder = DataFolder(tmp_path)
    write_objects(folder, "old")
    in_force = UpdateRecord("these", UpdateRequest(engine="q8"))
    save_record(folder.update, in_force)
    write_objects(folder.trial, "new")
    step(folder)
    objects, _ = load_own_objects(folder, images("old"))
    assert list(objects.children) == [("ControllerRevision", "old")]
    assert load_record(folder.update, "these") == in_force


def test_the_new_software_has_what_its_trial_recorded_and_later_each_its_own(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    write_objects(folder, "old")
    write_objects(folder.trial, "new")
    adopt_trial(folder)
    remove_trial(folder)
    for name, is_former in (("new", False), ("old", True)):
        objects, has_come_back = load_own_objects(folder, images(name))
        assert (list(objects.children), has_come_back) == ([("ControllerRevision", name)], is_former)
    assert not folder.trial.root.exists()


def test_software_of_the_same_images_goes_back_by_its_own_record_until_the_new_one_serves(tmp_path: Path) -> None:
    folder, same = DataFolder(tmp_path), images("same")
    for part, engine in ((folder, "old"), (folder.trial, "new")):
        write_objects(part, "same")
        save_record(part.update, UpdateRecord("these", UpdateRequest(engine=engine)))
    for is_settled, engine in ((False, "old"), (True, "new")):
        adopt_trial(folder, own="/software/new")
        save_record(folder.update, UpdateRecord("these", UpdateRequest(engine="new")))
        assert load_own_objects(folder, same, own="/software/new")[1] is False
        if is_settled:
            settle_trial(folder)
        _, has_come_back = load_own_objects(folder, same, own="/software/old")
        assert has_come_back is not is_settled
        assert load_record(folder.update, "these").in_force.engine == engine


def test_without_a_trial_nothing_is_replaced(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path)
    write_objects(folder, "old")
    with pytest.raises(EdgeError, match="has no trial to go on with"):
        adopt_trial(folder)
    assert not folder.former.root.exists()


STATUS = """
import json, os, sys, time
from pathlib import Path
from r1plus_contract.jsonable import dumps
from r1plus_edge.update.handover import take_handover
from r1plus_edge.report import ServePhase, ServeStatus
from r1plus_edge.update.supervisor import heed_signals
handover = take_handover()
status = ServeStatus(ServePhase({phase!r}), pid=os.getpid(), message="lost 3 of 4", verdict="Pass", percent=50)
(Path(handover.data) / "status.json").write_text(dumps(status))
print("words:", *sys.argv[1:], flush=True)
{end}
"""
TRIALS: dict[str, tuple[str, str, str]] = {
    "it fails its gate": ("Refused", "time.sleep(600)", "lost 3 of 4"),
    "it ends": (
        "Gating",
        "sys.exit('no such option')",
        "ended with status 1: words: serve --tier edge\nno such option",
    ),
}


async def try_out(tmp_path: Path, phase: str, end: str) -> ServeStatus:
    folder = DataFolder(tmp_path / "data")
    folder.logs.mkdir(parents=True)
    slot = make_slot(tmp_path, "new", STATUS.format(phase=phase, end=end))
    handover = Handover(HandoverKind.TRIAL, data=str(folder.trial.root))
    return await run_trial(slot, ("serve", "--tier", "edge"), handover, folder, lambda percent, text: None)


def find_processes_of(pid: int) -> list[str]:
    return [process.name for process in Path("/proc").glob(f"{pid}")]


@pytest.mark.unit_slow
async def test_software_that_serves_has_passed_and_has_ended(tmp_path: Path) -> None:
    status = await try_out(tmp_path, "Serving", "time.sleep(600)")
    assert (status.phase, status.verdict) == (ServePhase.SERVING, "Pass")
    assert find_processes_of(status.pid) == []


@pytest.mark.unit_slow
@pytest.mark.parametrize(("phase", "end", "words"), TRIALS.values(), ids=TRIALS)
async def test_software_that_does_not_serve_says_why(tmp_path: Path, phase: str, end: str, words: str) -> None:
    with pytest.raises(EdgeError) as refusal:
        await try_out(tmp_path, phase, end)
    assert words in str(refusal.value)
