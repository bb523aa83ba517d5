"""systemd units for `r1plus serve`: how one is written, told from a foreign one, and removed."""

import os
import re
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from r1plus_contract.atomic_files import replace_text
from r1plus_edge.base_folders import find_config_home
from r1plus_edge.bundle.install import CURRENT
from r1plus_edge.data_folder import DataFolder, check_path, find_holder
from r1plus_edge.errors import EdgeError, EdgeRequestError
from r1plus_edge.start.machine import FREE_BYTES

MARK: Final = "# Written by `r1plus serve install`, and replaced by it."
_DATA: Final = "# Data: "
NAME: Final = "r1plus-edge"
_NAMES: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
SYSTEM_FOLDER: Final = Path("/etc/systemd/system")
_PATH_OPTIONS: Final = frozenset(
    {"-f", "--file", "--engine", "--suite", "--suites", "--catalog", "--tls-cert", "--tls-key"}
)
_REFUSED: Final = {
    "--background": "a service is in the background by itself",
    "--data": "give it before the `--`, since the unit has to allow writing there",
}
_HOMES: Final = (Path("/root"), Path("/home"), Path("/run/user"))
"""What ProtectHome=yes hides."""
_TEMPORARY: Final = (Path("/tmp"), Path("/var/tmp"))
"""What PrivateTmp hides."""

_COMMON: Final = """\
Type=exec
ExecStart={start}
Environment=R1PLUS_CACHE={cache}
Restart=on-failure
RestartSec=5
# 2: its options are wrong, which another start does not change.
RestartPreventExitStatus=2
# SIGTERM is enough: serve ends within 4.5 s of it. Another program to say so would first have to start.
TimeoutStopSec=10
KillMode=mixed
# A part that takes too much is ended and started again by serve itself.
OOMPolicy=continue
MemoryMax={memory}
TasksMax=1024
UMask=0077
NoNewPrivileges=yes
PrivateUsers=yes
ProtectSystem=strict
PrivateTmp=yes
ProtectControlGroups=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_NETLINK AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service landlock_create_ruleset landlock_add_rule landlock_restrict_self
SystemCallErrorNumber=EPERM
# Not MemoryDenyWriteExecute: OpenVINO writes the code that it runs. Not ProcSubset: serve reads /proc/meminfo.
"""
_SYSTEM: Final = """\
# A user that exists while the service runs; it may write to its data folder only.
DynamicUser=yes
StateDirectory={name}
StateDirectoryMode=0700
CapabilityBoundingSet=
PrivateDevices=yes
ProtectClock=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectProc=invisible
RemoveIPC=yes
"""
_USER: Final = """\
ReadWritePaths={data} {cache}
ProtectHome=read-only
"""


@dataclass(frozen=True, slots=True)
class SystemdService:
    """What a unit runs, and where."""

    name: str
    is_system: bool
    command: Path
    """The `r1plus` that serves."""
    options: tuple[str, ...]
    data: Path
    cache: Path
    memory_bytes: int
    """Of the machine."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """What it has to see, of what is there already."""
        options = (Path(word) for word in self.options if word.startswith("/"))
        return (self.command, self.command.parent.parent, self.cache, *options)


def find_command(prefix: Path) -> Path:
    """Return the `r1plus` of an environment; of the one that bundles were installed last, by the link that stays."""
    current = prefix.parent / CURRENT
    is_current = current.is_symlink() and current.resolve() == prefix.resolve()
    return (current if is_current else prefix) / "bin" / "r1plus"


def build_service(
    name: str,
    options: Sequence[str],
    memory_bytes: int,
    cache: Path,
    data: Path,
    *,
    is_system: bool,
    command: Path,
) -> SystemdService:
    """Return the service. One of the system has a data folder that systemd makes, and reads the cache only.

    Raises:
        EdgeRequestError: the name, an option or a path is none for a service.
    """
    if not _NAMES.fullmatch(name):
        raise EdgeRequestError(f"--name {name}: give up to 63 of a-z, 0-9 and -, such as {NAME}")
    for option, reason in _REFUSED.items():
        if any(word == option or word.startswith(f"{option}=") for word in options):
            raise EdgeRequestError(f"{option}: {reason}")
    if any(pair in (("-f", "-"), ("--file", "-")) for pair in pairwise(options)) or "--file=-" in options:
        raise EdgeRequestError("-f -: a service has no standard input; give a file")
    if is_system:
        data = Path("/var/lib") / name
    check_path("--data", data)
    check_path("R1PLUS_CACHE", cache)
    service = SystemdService(
        name, is_system, command, _make_absolute(options), data.absolute(), cache.absolute(), memory_bytes
    )
    _check_visible(service)
    return service


def render_unit(service: SystemdService) -> str:
    """Return the unit's text."""
    command = [str(service.command), "serve", *service.options, "--data", str(service.data)]
    values = {
        "name": service.name,
        "start": _quote(command),
        "data": _escape(str(service.data)),
        "cache": _escape(str(service.cache)),
        "memory": str(max(service.memory_bytes - FREE_BYTES, FREE_BYTES)),
    }
    return f"""\
{MARK}
{_DATA}{service.data}
[Unit]
Description=r1plus serve from {_escape(str(service.data))}
StartLimitIntervalSec=600
StartLimitBurst=10
{"Wants=network-online.target" if service.is_system else "# Without a login it starts after `loginctl enable-linger`."}
{"After=network-online.target" if service.is_system else ""}
[Service]
{_COMMON.format(**values)}{(_SYSTEM if service.is_system else _USER).format(**values)}
[Install]
WantedBy={"multi-user.target" if service.is_system else "default.target"}
"""


def find_unit(name: str, *, is_system: bool, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the unit's file."""
    if not _NAMES.fullmatch(name):
        raise EdgeRequestError(f"--name {name}: give up to 63 of a-z, 0-9 and -, such as {NAME}")
    folder = SYSTEM_FOLDER if is_system else find_config_home(environ) / "systemd" / "user"
    return folder / f"{name}.service"


def write_unit(unit: Path, service: SystemdService) -> None:
    """Write the unit, and make the folders that a user's service writes to.

    Raises:
        EdgeError: the file is somebody else's, or cannot be written.
    """
    _check_ours(unit)
    try:
        unit.parent.mkdir(parents=True, exist_ok=True)
        if not service.is_system:
            for folder in (service.data, service.cache):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_text(unit, render_unit(service), mode=0o644)
    except OSError as error:
        raise EdgeError(f"{unit}: cannot be written: {error.strerror}; --system needs root") from error


def remove_unit(unit: Path, *, with_data: bool) -> Path | None:
    """Remove the unit; with `with_data` its data folder, too. Return the data folder that is left, if one is.

    Raises:
        EdgeError: there is none, it is somebody else's, it runs, or it cannot be removed.
    """
    if not unit.exists():
        raise EdgeError(f"{unit}: there is no such unit; nothing is installed")
    _check_ours(unit)
    data = Path(next(line for line in unit.read_text().splitlines() if line.startswith(_DATA)).removeprefix(_DATA))
    if find_holder(DataFolder(data)) is not None:
        manager = "systemctl" if unit.parent == SYSTEM_FOLDER else "systemctl --user"
        raise EdgeError(f"{unit}: it runs; stop it first: {manager} disable --now {unit.stem}")
    try:
        unit.unlink()
        if with_data and data.exists():
            _remove_data(data)
    except OSError as error:
        raise EdgeError(f"{error.filename}: cannot be removed: {error.strerror}; --system needs root") from error
    return data if data.exists() else None


def _remove_data(data: Path) -> None:
    folder = DataFolder(data)
    if any(data.iterdir()) and not (folder.secret.is_dir() and folder.store.is_dir()):
        raise EdgeError(f"{data}: has no data of `r1plus serve`; the unit is gone, look at the folder yourself")
    shutil.rmtree(data.resolve())
    if data.is_symlink():  # As systemd makes it for a dynamic user.
        data.unlink()


def _check_ours(unit: Path) -> None:
    """Refuse a unit that somebody else wrote."""
    if unit.is_symlink() or (unit.exists() and not unit.read_text(errors="replace").startswith(MARK)):
        raise EdgeError(
            f"{unit}: was not written by `r1plus serve install`; remove it yourself, or give another --name"
        )


def _check_visible(service: SystemdService) -> None:
    """Refuse paths that the service could not see."""
    hidden_below = (*_TEMPORARY, *(_HOMES if service.is_system else ()))
    for path in (*service.paths, service.data):
        if hidden := next((one for one in hidden_below if path.is_relative_to(one)), None):
            remedy = (
                "install with XDG_DATA_HOME=/opt XDG_CACHE_HOME=/var/cache before `python3 install.pyz`, or give --user"
                if service.is_system
                else "take one that is elsewhere; a clone or software there has to be moved"
            )
            raise EdgeRequestError(f"{path}: the service would see nothing below {hidden}; {remedy}")
    closed = (one for path in service.paths for one in (path, *path.parents) if service.is_system and _is_closed(one))
    if (first := next(closed, None)) is not None:
        raise EdgeRequestError(f"{first}: only its owner may read it, and the service is another user; chmod o+rX it")


def _is_closed(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    needed = stat.S_IROTH | stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
    return mode & needed != needed


def _make_absolute(options: Sequence[str]) -> tuple[str, ...]:
    """Return the options with paths that hold wherever the service starts."""
    words, previous = [], ""
    for word in options:
        name, equals, value = word.partition("=")
        if previous in _PATH_OPTIONS:
            word = _resolve(word)
        elif equals and name in _PATH_OPTIONS:
            word = f"{name}={_resolve(value)}"
        words.append(word)
        previous = word
    return tuple(words)


def _resolve(value: str) -> str:
    return str(Path(value).absolute()) if Path(value).exists() else value


def _quote(words: Sequence[str]) -> str:
    """Return a command line of a unit."""
    return " ".join(f'"{_escape(word)}"' if re.search(r"[\s\"';]", word) else _escape(word) for word in words)


def _escape(text: str) -> str:
    """Return a text in which systemd replaces nothing."""
    if not text.isprintable():
        raise EdgeRequestError(f"{text!r:.100}: has a character that no line of a unit may have")
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
