"""The units of `r1plus serve install` under a real systemd: they serve, are updated, come back, stop in time, and go.

What they run comes of a bundle, as docs/edge/bundle.md says it, on a machine without a network.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from r1plus_edge.report import read_status
from r1plus_edge.start.service import NAME
from support.edge import sandbox_probe
from support.edge.engines import NEWER
from support.edge.served import START_SECONDS
from support.edge.systemd_machine import SYSTEMD, SystemdMachine, boot_machine
from support.edge.systemd_service import PROGRAM, Service
from support.edge.whole_bundle import Bundled
from support.waiting import wait_until

pytestmark = [
    pytest.mark.edge,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root boots a machine in namespaces"),
    pytest.mark.skipif(not SYSTEMD.exists(), reason="systemd is not installed: apt-get install systemd"),
]
USER = "maria"
MEDIUM = "/medium"
"""Where the machine has the bundle."""
PROBE = f"/usr/bin/python3 {MEDIUM}/probe.py /home/{USER}"
MARKS = (f"/tmp/{sandbox_probe.MARK}", f"/dev/{sandbox_probe.MARK}")
# The gate is not what is tested: on busy cores it takes minutes, or fails by answers that come too late.
OPTIONS = f"--tier edge --gate Observe --suite {MEDIUM}/part-v1"


@pytest.fixture(scope="module")
def machine(bundled: Bundled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SystemdMachine]:
    disk, medium = tmp_path_factory.mktemp("disk"), bundled.path.parent
    (medium / "probe.py").write_text(Path(sandbox_probe.__file__).read_text())
    folders = {medium: MEDIUM}
    for name, there in {"opt": "/opt", "cache": "/var/cache/r1plus", "home": "/home"}.items():
        (disk / name).mkdir()
        folders[disk / name] = there
    with boot_machine(folders) as machine:
        machine.check(f"useradd --create-home {USER}; touch {' '.join(MARKS)}")
        yield machine


@pytest.fixture(scope="module")
def engine(machine: SystemdMachine, bundled: Bundled) -> str:
    """The engine's folder, as the installer prints it: the software is installed as for a service of the system."""
    installer = f"python3 {MEDIUM}/{bundled.installer.name} {MEDIUM}/{bundled.path.name} --key {bundled.key}"
    printed = machine.check(f"XDG_DATA_HOME=/opt XDG_CACHE_HOME=/var/cache {installer} --no-start")
    words = printed.split()
    return words[words.index("--engine") + 1]


@pytest.fixture(scope="module")
def system(machine: SystemdMachine, engine: str) -> Service:
    """The unit of the system, installed and started."""
    service = Service(machine, f"/var/lib/{NAME}")
    service.run(f"{PROGRAM} serve install --system -- {OPTIONS} --engine {engine}")
    service.add_process(PROBE)
    service.control(f"daemon-reload && systemctl enable --now {NAME}")
    return service


READ_ONLY, REFUSED, HIDDEN = "Read-only file system", "Operation not permitted", "No such file or directory"
FOR_ALL = {
    "write to /etc": READ_ONLY,
    "see /tmp": HIDDEN,
    "make a control group": READ_ONLY,
    "open a socket for packets": "Address family not supported by protocol",
    "set the owner's bit": REFUSED,
    "become another personality": REFUSED,
    "be traced": REFUSED,
    "make a user namespace": REFUSED,
}
FOR_THE_SYSTEM = FOR_ALL | {
    "write to a home": "Permission denied",
    "see a home": "Permission denied",
    "see devices": HIDDEN,
    "see processes": HIDDEN,
}
FOR_A_USER = FOR_ALL | {"write to a home": READ_ONLY, "see a home": "", "see devices": "", "see processes": ""}
LIMITS = {"MemoryMax": ("memory.limit_in_bytes", "memory.max"), "TasksMax": ("pids.max",)}
"""Of a unit -> files of cgroup v1 and v2."""
FACTS = {"NoNewPrivs": "1", "CapEff": "0" * 16, "Seccomp": "2", "Umask": "0077", "users": "1"}


def test_what_the_units_refuse_can_be_done_without_them(machine: SystemdMachine) -> None:
    probe = json.loads(machine.check(PROBE))["probe"]
    assert probe["outcomes"] == dict.fromkeys(FOR_THE_SYSTEM, "")
    assert not {*probe["facts"].items()} & {*FACTS.items()}


def test_a_unit_of_the_system_serves_and_every_limit_of_it_holds(system: Service) -> None:
    system.until_serving()
    assert "Stockholm" in system.ask()
    assert system.folder.key.read_text().strip() not in system.read_journal(""), "who reads the journal has no key"
    probe = system.probe()
    assert probe["outcomes"] == FOR_THE_SYSTEM
    assert probe["facts"].items() >= (FACTS | {"CapBnd": "0" * 16}).items()
    status = read_status(system.folder.status)
    assert status is not None
    assert [text for text in status.confinement if not text.startswith("network:")] == [], "Landlock confines helpers"
    (counted,) = (step.detail for step in status.steps if step.name == "machine")
    assert f" {int(system.read('MemoryMax')) / 2**30:.1f} GiB memory" in counted, "it counts what it may use"
    groups = Path(f"/proc/{system.machine.init}/root/sys/fs/cgroup")
    for limit, files in LIMITS.items():
        (own,) = (one for file in files for one in groups.glob(f"**/system.slice/{NAME}.service/{file}"))
        # The kernel counts memory in pages.
        assert int(own.read_text()) // 4096 == int(system.read(limit)) // 4096
    assert system.read_journal("-p warning") == "", "systemd ignores no line, and warns of none"


def test_it_calculates_with_every_limit(system: Service) -> None:
    system.until_serving()
    status = read_status(system.folder.status)
    assert status is not None
    headers = f'-H "Authorization: Bearer $(cat {system.data}/key)" -H "Content-Type: application/json"'
    answer = system.run(f"""curl -s {status.url}/v1/calculate {headers} -d '{{"expression": "2*21"}}'""")
    assert json.loads(answer)["exact"] == "42"


def test_it_serves_again_after_its_process_was_killed(system: Service) -> None:
    system.until_serving()
    first = system.read("MainPID")
    system.control(f"kill --signal=KILL --kill-whom=main {NAME}")
    wait_until(lambda: system.read("MainPID") not in (first, "0"), "systemd starts it again", START_SECONDS)
    system.until_serving()
    assert "Stockholm" in system.ask()
    assert system.read("NRestarts") == "1"


def test_it_stops_in_time_and_starts_with_the_machine(system: Service) -> None:
    system.until_serving()
    began = time.monotonic()
    system.control(f"stop {NAME}")
    print(f"stopped after {time.monotonic() - began:.1f} s")
    assert (system.read("Result"), system.read("ActiveState")) == ("success", "inactive"), "systemd has killed nothing"
    assert system.run("pgrep -f '[t]ritonserver|[r]1plus_' || echo none") == "none"
    assert system.run(f"getent passwd {NAME} || echo none") == "none", "its user exists while it serves"
    # What a boot starts.
    system.control("start multi-user.target")
    system.until_serving()


def test_options_that_are_wrong_end_it_for_good(system: Service) -> None:
    wrong = Service(system.machine, "/var/lib/wrong", name="wrong")
    wrong.run(f"{PROGRAM} serve install --system --name wrong -- --tier edge --engine nonesuch")
    wrong.control("daemon-reload && systemctl start --no-block wrong")
    wait_until(lambda: wrong.read("ActiveState") == "failed", "it has failed", START_SECONDS)
    assert (wrong.read("NRestarts"), wrong.read("ExecMainStatus")) == ("0", "2")
    assert "nonesuch" in wrong.read_journal("")
    wrong.run(f"{PROGRAM} serve uninstall --system --name wrong --remove-data")


def test_uninstall_removes_it_once_it_is_stopped(system: Service) -> None:
    refused = system.machine.run(f"{PROGRAM} serve uninstall --system")
    assert (refused.returncode, f"systemctl disable --now {NAME}" in refused.stdout) == (1, True), refused.stdout
    system.control(f"disable --now {NAME}")
    system.run(f"{PROGRAM} serve uninstall --system --remove-data")
    system.run(f"rm -r /etc/systemd/system/{NAME}.service.d")
    system.control("daemon-reload")
    assert system.read("LoadState") == "not-found"
    assert system.run(f"ls -d {system.data} /var/lib/private/{NAME} 2>/dev/null || echo none") == "none"


def test_a_unit_of_a_user_serves_without_a_login_and_every_limit_of_it_holds(
    machine: SystemdMachine, engine: str
) -> None:
    service = Service(machine, f"/home/{USER}/.local/share/r1plus/edge", user=USER)
    machine.check(f"loginctl enable-linger {USER}")
    wait_until(lambda: machine.run(f"systemctl is-active user@$(id -u {USER})").returncode == 0, "its manager runs")
    # A cache that another user may change would be refused.
    service.run("mkdir ~/.cache && cp -r /var/cache/r1plus ~/.cache/")
    own = engine.replace("/var/cache", f"/home/{USER}/.cache")
    service.run(f"{PROGRAM} serve install -- {OPTIONS} --engine {own}")
    service.add_process(PROBE)
    service.control(f"daemon-reload && systemctl --user enable --now {NAME}")
    service.until_serving()
    assert "Stockholm" in service.ask()
    probe = service.probe()
    assert probe["outcomes"] == FOR_A_USER
    assert probe["facts"].items() >= FACTS.items()
    assert service.read_journal("-p warning") == ""
    service.control(f"disable --now {NAME}")
    assert service.read("Result") == "success"
    service.run(f"{PROGRAM} serve uninstall --remove-data")
    assert service.run(f"ls -d {service.data} 2>/dev/null || echo none") == "none"


def test_a_user_updates_their_unit_by_a_bundle_and_it_starts_with_what_that_brought(
    machine: SystemdMachine, bundled: Bundled, newer: Path
) -> None:
    service = Service(machine, "/home/jonas/.local/share/r1plus/edge", user="jonas")
    machine.check("useradd --create-home jonas && loginctl enable-linger jonas")
    wait_until(lambda: machine.run("systemctl is-active user@$(id -u jonas)").returncode == 0, "its manager runs")
    installer = f"python3 {MEDIUM}/{bundled.installer.name} {MEDIUM}/{bundled.path.name} --key {bundled.key}"
    words = service.run(f"{installer} --no-start").split()
    engine = words[words.index("--engine") + 1]
    service.run(f"{service.program} serve install -- --tier edge --suite {MEDIUM}/part-v1 --engine {engine}")
    service.control(f"daemon-reload && systemctl --user enable --now {NAME}")
    service.until_serving()
    first, pid = service.slot, service.read("MainPID")
    with service.start_update(f"{MEDIUM}/{newer.name}", bundled.key) as update:
        output, _ = update.communicate(timeout=START_SECONDS)
    assert (update.returncode, "Pass, 32/32 right" in output, f"({NEWER}) serves" in output) == (0, True, True), output
    second = service.slot
    assert (second == first, service.current, service.read("MainPID")) == (False, second, pid)
    assert "Stockholm" in service.ask()
    service.control(f"restart {NAME}")
    service.until_serving()
    status = read_status(service.folder.status)
    assert status is not None
    assert (service.slot, status.engine, status.verdict, status.accuracy) == (second, NEWER, "Pass", "32/32")
    assert "Stockholm" in service.ask()
    assert "the gate runs again" not in service.read_journal("")
    service.control(f"disable --now {NAME}")


@pytest.fixture(scope="module")
def gated(machine: SystemdMachine, engine: str) -> Service:
    """A unit of the system that serves by a Pass only, and with the machine."""
    service = Service(machine, "/var/lib/gated", name="gated")
    options = f"--tier edge --suite {MEDIUM}/part-v1 --engine {engine}"
    service.run(f"{PROGRAM} serve install --system --name {service.name} -- {options}")
    service.control(f"daemon-reload && systemctl enable --now {service.name}")
    return service


@pytest.mark.parametrize("is_power_cut", [True, False], ids=["the power is cut", "its process alone is killed"])
def test_when_it_ends_while_a_bundle_takes_over_the_slot_before_it_serves_again(
    gated: Service, bundled: Bundled, newer: Path, is_power_cut: bool
) -> None:
    gated.until_serving()
    first, pid = gated.slot, gated.read("MainPID")

    def has_become_other_software() -> bool:
        assert update.poll() is None, update.communicate()[0]
        return gated.slot not in ("", first)

    with gated.start_update(f"{MEDIUM}/{newer.name}", bundled.key) as update:
        wait_until(has_become_other_software, "it has become the new software", START_SECONDS)
        if is_power_cut:
            gated.machine.cut_power()
        else:
            gated.control(f"kill --signal=KILL --kill-whom=main {gated.name}")
        update.communicate(timeout=START_SECONDS)
    assert update.returncode != 0
    if is_power_cut:
        gated.machine.boot()
    else:
        wait_until(lambda: gated.read("MainPID") not in (pid, "0"), "systemd starts it again", START_SECONDS)
    gated.until_serving()
    assert (gated.slot, gated.current) == (first, first)
    assert "Stockholm" in gated.ask()
    assert "the gate runs again" not in gated.read_journal("")


def test_a_bundle_is_gated_beside_what_serves_and_takes_over_and_systemd_sees_the_same_process(
    gated: Service, bundled: Bundled, newer: Path
) -> None:
    gated.until_serving()
    first, pid = gated.slot, gated.read("MainPID")
    with gated.start_update(f"{MEDIUM}/{newer.name}", bundled.key) as update:
        assert update.stdout is not None
        next(line for line in update.stdout if "gate " in line)
        assert (gated.slot, "Stockholm" in gated.ask()) == (first, True), "what serves goes on"
        output, _ = update.communicate(timeout=START_SECONDS)
    assert (update.returncode, "Pass, 32/32 right" in output, f"({NEWER}) serves" in output) == (0, True, True), output
    assert (gated.slot == first, gated.current) == (False, gated.slot)
    assert (gated.read("MainPID"), gated.read("ActiveState")) == (pid, "active")
    assert "Stockholm" in gated.ask()


def test_after_a_reboot_the_machine_serves_the_slot_that_it_was_updated_to(gated: Service) -> None:
    gated.until_serving()
    second = gated.slot
    gated.machine.reboot()
    gated.until_serving()
    status = read_status(gated.folder.status)
    assert status is not None
    assert (gated.slot, gated.current, gated.read("NRestarts")) == (second, second, "0")
    assert (status.engine, status.verdict, status.accuracy) == (NEWER, "Pass", "32/32")
    assert "Stockholm" in gated.ask()
    assert "the gate runs again" not in gated.read_journal("")
