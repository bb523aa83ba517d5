"""systemd units of `r1plus serve`: what is written, which are refused, and what systemd says of them."""

import contextlib
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from r1plus_cli.serve.serve_app import STOP_SECONDS
from r1plus_edge.bundle.install import switch_current
from r1plus_edge.data_folder import open_data_folder
from r1plus_edge.errors import EdgeError, EdgeRequestError
from r1plus_edge.start.service import (
    MARK,
    NAME,
    SYSTEM_FOLDER,
    SystemdService,
    build_service,
    find_command,
    find_unit,
    remove_unit,
    render_unit,
    write_unit,
)
from support.waiting import wait_until

GIB = 2**30
COMMAND = Path("/usr/bin/true")
USER = SystemdService(
    NAME, False, COMMAND, ("--tier", "edge"), Path("/srv/r1plus/data"), Path("/srv/r1plus/cache"), 4 * GIB
)
SYSTEM = replace(USER, is_system=True, data=Path("/var/lib/r1plus-edge"))
MOST_EXPOSURE = 1.6
"""Of 10, by `systemd-analyze security`."""


def list_settings(unit: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))


def test_helpers_can_confine_themselves() -> None:
    """Debian 12's @system-service has no Landlock, without which helpers could read the keys."""
    calls = list_settings(render_unit(SYSTEM))["SystemCallFilter"].split()
    assert {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"} < {*calls}


@pytest.mark.parametrize("service", [USER, SYSTEM], ids=["a user's", "the system's"])
def test_a_unit_is_hardened_and_leaves_memory_to_the_rest(service: SystemdService) -> None:
    settings = list_settings(render_unit(service))
    for name in ("NoNewPrivileges", "PrivateTmp", "PrivateUsers", "RestrictNamespaces", "LockPersonality"):
        assert settings[name] == "yes"
    assert settings["ProtectSystem"] == "strict"
    assert settings["Restart"] == "on-failure"
    assert settings["MemoryMax"] == str(4 * GIB - 256 * 2**20)
    assert settings["ExecStart"] == f"/usr/bin/true serve --tier edge --data {service.data}"
    assert int(settings["TimeoutStopSec"]) > STOP_SECONDS, "systemd has nothing to kill"


def test_a_user_may_write_to_two_folders_and_a_service_of_the_system_to_its_own() -> None:
    assert list_settings(render_unit(USER))["ReadWritePaths"] == "/srv/r1plus/data /srv/r1plus/cache"
    system = list_settings(render_unit(SYSTEM))
    assert "ReadWritePaths" not in system
    assert (system["StateDirectory"], system["DynamicUser"], system["ProtectHome"]) == (NAME, "yes", "yes")


def analyze(folder: Path, service: SystemdService, *words: str) -> "subprocess.CompletedProcess[str]":
    unit = folder / f"{service.name}.service"
    unit.write_text(render_unit(service))
    environ = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(folder), "HOME": str(folder)}
    command = ["systemd-analyze", *words, str(unit)]
    return subprocess.run(command, capture_output=True, text=True, env=environ)


needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


@needs_systemd
@pytest.mark.parametrize("service", [USER, SYSTEM], ids=["a user's", "the system's"])
@pytest.mark.parametrize(
    "options",
    [("--tier", "edge"), ("-f", '/srv/a "b" %h $HOME; x.yaml')],
    ids=["plain", "with what systemd would replace"],
)
def test_systemd_accepts_the_unit_without_a_word(
    tmp_path: Path, service: SystemdService, options: tuple[str, ...]
) -> None:
    scope = "--system" if service.is_system else "--user"
    result = analyze(tmp_path, replace(service, options=options), "verify", scope)
    own = [line for line in (result.stdout + result.stderr).splitlines() if service.name in line]
    assert (result.returncode, own) == (0, []), result.stderr


@needs_systemd
def test_systemd_refuses_a_unit_with_a_wrong_line(tmp_path: Path) -> None:
    result = analyze(tmp_path, replace(SYSTEM, command=Path("/nonesuch/r1plus")), "verify", "--system")
    assert result.returncode != 0
    assert "/nonesuch/r1plus" in result.stderr


@needs_systemd
def test_the_exposure_of_a_service_of_the_system_is_low(tmp_path: Path) -> None:
    threshold = str(int(MOST_EXPOSURE * 10))
    result = analyze(tmp_path, SYSTEM, "security", "--offline=true", "--no-pager", f"--threshold={threshold}")
    print(result.stdout.splitlines()[-1])
    assert result.returncode == 0, result.stdout


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "a name that is a path": ({"name": "../sshd"}, r"--name ../sshd: give up to 63"),
    "a name with a suffix": ({"name": "a.service"}, r"--name a\.service"),
    "its own data folder among the options": ({"options": ["--data", "/x"]}, "--data: give it before"),
    "the same with a sign": ({"options": ["--data=/x"]}, "--data: give it before"),
    "the background": ({"options": ["--background"]}, "is in the background by itself"),
    "standard input": ({"options": ["-f", "-"]}, "a service has no standard input; give a file"),
    "data where the unit has others": ({"data": Path("/tmp/x")}, "would see nothing below /tmp"),
    "a cache there": ({"cache": Path("/var/tmp/x")}, "would see nothing below /var/tmp"),
    "data that Triton cannot name": ({"data": Path("/srv/a b")}, "has the character ' '"),
    "a system's software at home": ({"is_system": True, "command": Path("/home/a/bin/r1plus")}, "XDG_DATA_HOME=/opt"),
    "a system's engine at home": ({"is_system": True, "options": ["--engine", "/root/e"]}, "nothing below /root"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_service_is_refused(case: str) -> None:
    changes, reason = REFUSED[case]
    sound: dict[str, object] = {
        "name": NAME,
        "options": ["--tier", "edge"],
        "memory_bytes": GIB,
        "cache": USER.cache,
        "data": USER.data,
        "is_system": False,
        "command": COMMAND,
    }
    build_service(**sound)  # type: ignore[arg-type]
    with pytest.raises(EdgeError, match=reason) as refused:
        build_service(**{**sound, **changes})  # type: ignore[arg-type]
    assert isinstance(refused.value, EdgeRequestError) or "character" in reason


def test_a_line_break_in_an_option_is_refused() -> None:
    with pytest.raises(EdgeRequestError, match="no line of a unit"):
        render_unit(replace(USER, options=("--engine", "a\nExecStartPre=/bin/sh")))


@pytest.mark.skipif(os.geteuid() != 0, reason="another user may read it")
def test_software_that_only_its_owner_may_read_is_none_for_the_system() -> None:
    closed = Path("/srv") / f"r1plus-test-{os.getpid()}"
    closed.mkdir(mode=0o700)
    try:
        with pytest.raises(EdgeRequestError, match=r"only its owner may read it.*chmod o\+rX"):
            build_service(NAME, [], GIB, closed, USER.data, is_system=True, command=COMMAND)
    finally:
        closed.rmdir()


def test_relative_paths_hold_wherever_the_service_starts() -> None:
    options = ["--tier", "share", "--engine", "share", "--suite=share", "-f", "missing"]
    with contextlib.chdir("/usr"):
        service = build_service(NAME, options, GIB, USER.cache, USER.data, is_system=False, command=COMMAND)
    assert service.options == ("--tier", "share", "--engine", "/usr/share", "--suite=/usr/share", "-f", "missing")


def test_the_command_is_the_one_that_another_bundle_replaces(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    switch_current(tmp_path, tmp_path / "one")
    assert find_command(tmp_path / "one") == tmp_path / "current" / "bin" / "r1plus"
    assert find_command(tmp_path / "other") == tmp_path / "other" / "bin" / "r1plus"
    assert find_command(Path(sys.prefix)) == Path(sys.prefix) / "bin" / "r1plus"


def test_units_are_where_systemd_looks() -> None:
    assert find_unit(NAME, is_system=True) == SYSTEM_FOLDER / "r1plus-edge.service"
    assert find_unit("a", is_system=False, environ={"HOME": "/h"}) == Path("/h/.config/systemd/user/a.service")
    environ = {"HOME": "/h", "XDG_CONFIG_HOME": "/c"}
    assert find_unit("a", is_system=False, environ=environ) == Path("/c/systemd/user/a.service")


def place(tmp_path: Path) -> tuple[Path, SystemdService]:
    service = replace(USER, data=tmp_path / "data", cache=tmp_path / "cache")
    return tmp_path / "config" / "user" / "r1plus-edge.service", service


def test_a_unit_is_written_again_and_goes_without_its_data(tmp_path: Path) -> None:
    unit, service = place(tmp_path)
    write_unit(unit, service)
    write_unit(unit, replace(service, options=("--tier", "lite")))
    assert "--tier lite" in unit.read_text()
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    assert remove_unit(unit, with_data=False) == tmp_path / "data"
    assert not unit.exists()


def test_data_go_when_they_are_asked_for(tmp_path: Path) -> None:
    unit, service = place(tmp_path)
    open_data_folder(service.data)
    write_unit(unit, service)
    assert any(service.data.iterdir())
    assert remove_unit(unit, with_data=True) is None
    assert not service.data.exists()


def test_an_empty_folder_goes_too_as_of_a_unit_that_never_served(tmp_path: Path) -> None:
    unit, service = place(tmp_path)
    write_unit(unit, service)
    assert list(service.data.iterdir()) == []
    assert remove_unit(unit, with_data=True) is None
    assert not service.data.exists()


def test_a_folder_that_serve_never_had_stays(tmp_path: Path) -> None:
    unit, service = place(tmp_path)
    write_unit(unit, service)
    (service.data / "photos").mkdir()
    with pytest.raises(EdgeError, match="has no data of `r1plus serve`"):
        remove_unit(unit, with_data=True)
    assert (service.data / "photos").exists()


FOREIGN = {
    "another's": "[Service]\nExecStart=/bin/true\n",
    "with our words further down": f"[Unit]\n{MARK}\n",
    "empty": "",
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_unit_is_neither_overwritten_nor_removed(tmp_path: Path, case: str) -> None:
    unit, service = place(tmp_path)
    unit.parent.mkdir(parents=True)
    unit.write_text(FOREIGN[case])
    with pytest.raises(EdgeError, match="was not written by `r1plus serve install`"):
        write_unit(unit, service)
    with pytest.raises(EdgeError, match="was not written by `r1plus serve install`"):
        remove_unit(unit, with_data=True)
    assert unit.read_text() == FOREIGN[case]


def test_a_masked_unit_stays(tmp_path: Path) -> None:
    unit, service = place(tmp_path)
    unit.parent.mkdir(parents=True)
    unit.symlink_to("/dev/null")
    with pytest.raises(EdgeError, match="was not written by"):
        write_unit(unit, service)
    assert unit.is_symlink()


def test_a_unit_that_is_not_there_cannot_be_removed(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="there is no such unit"):
        remove_unit(tmp_path / "r1plus-edge.service", with_data=False)


HOLD = """
import sys, pathlib
from r1plus_edge.data_folder import hold, open_data_folder
with hold(open_data_folder(pathlib.Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_unit_that_serves_is_stopped_first(tmp_path: Path) -> None:
    unit, service = place(tmp_path)
    write_unit(unit, service)
    command = [sys.executable, "-c", HOLD, str(service.data)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(EdgeError, match="stop it first: systemctl --user disable --now r1plus-edge"):
            remove_unit(unit, with_data=True)
        holder.stdin.close()
        wait_until(lambda: holder.poll() is not None, "it ends")
    assert remove_unit(unit, with_data=True) is None
